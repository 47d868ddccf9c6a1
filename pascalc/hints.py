"""Data that does not fit: the change in NumPy that most likely makes it fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

import numpy as np

Shape = Sequence[int]
#: The sizes that an input declares; None where any will do.
Dims = Sequence[int | None]


def fits(shape: Shape, dims: Dims) -> bool:
    """Whether an array of this shape fits an input of these dimensions; the number of samples, in front, is free."""
    return len(shape) == len(dims) > 0 and _same(shape[1:], dims[1:])


def rename(name: str, wanted: str, labels: str | None) -> str:
    """The array is there under another name."""
    more = f", {labels}=data['{labels}']" if labels else ""
    return f"Name it {wanted}: numpy.savez(path, {wanted}=data['{name}']{more})."


def other_type(name: str, dtype: np.dtype[np.generic], wanted: np.dtype[np.generic]) -> str:
    """The way from one type to another; nothing where they are no numbers."""
    if dtype.kind not in "biuf" or wanted.kind not in "biuf":
        return ""
    cast = f"{name}.astype(numpy.{wanted})"
    if dtype == np.uint8 and wanted.kind == "f":
        return (
            f"Pixels from 0 to 255 are likely to be wanted from 0 to 1: {cast} / 255, and normalised as in the "
            "training; if not, the same without / 255."
        )
    return f"Write it as {cast}."


def other_shape(name: str, shape: Shape, dims: Dims) -> str:
    """The way from one shape to the other; nothing where no simple one is known."""
    for expression, result, why in _changes(name, shape, dims):
        if fits(result, dims):
            return f"{why}: {expression}."
    return ""


def _changes(name: str, shape: Shape, dims: Dims) -> Iterator[tuple[str, list[int], str]]:
    """Expressions, the shapes that they give, and what they set right; the likelier ones first."""
    old, rank = list(shape), len(dims)
    if len(old) == rank:
        yield from _moved(name, old)
    if len(old) == rank - 1:
        yield f"{name}[None]", [1, *old], "The axis of the samples seems to be missing"
        for axis, where in ((1, "[:, None]"), (rank - 1, "[..., None]")):
            if dims[axis] == 1 and old:
                grown = [*old[:axis], 1, *old[axis:]]
                yield f"{name}{where}", grown, "The axis of the channels seems to be missing"
        for expression, result, _ in _moved(f"{name}[None]", [1, *old]):
            yield expression, result, "The axis of the samples seems to be missing, and that of the channels moved"
    if len(old) == rank - 2 and 1 in (dims[1], dims[-1]):
        axes, grown = ("[None, None]", [1, 1, *old]) if dims[1] == 1 else ("[None, ..., None]", [1, *old, 1])
        yield f"{name}{axes}", grown, "The axes of the samples and of the channels seem to be missing"
    if len(old) == rank + 1:
        for axis in [0, *(a for a in range(1, len(old)) if old[a] == 1)]:
            if old[axis] == 1:
                rest = old[:axis] + old[axis + 1 :]
                yield f"{name}.squeeze({axis})", rest, "An axis of size 1 seems to be too many"
    sizes = [d for d in dims[1:] if d is not None]
    if old and len(sizes) == rank - 1 and prod(old[1:]) == prod(sizes):
        yield (
            f"{name}.reshape({', '.join(map(str, (-1, *sizes)))})",
            [old[0], *sizes],
            "Its samples have as many values, in another shape",
        )


def _moved(name: str, shape: list[int]) -> Iterator[tuple[str, list[int], str]]:
    """Channels at the other end, as in NHWC and NCHW."""
    rank = len(shape)
    if rank < 3:
        return
    for order, why in (
        ((0, rank - 1, *range(1, rank - 1)), "Its channels seem to be last, and are wanted first"),
        ((0, *range(2, rank), 1), "Its channels seem to be first, and are wanted last"),
    ):
        yield f"numpy.transpose({name}, {order})", [shape[axis] for axis in order], why


def labels(name: str, shape: Shape, dtype: np.dtype[np.generic]) -> str:
    """The way to one integer a sample."""
    if len(shape) == 2 and shape[1] == 1:
        return f"Write them as {name}[:, 0].astype(numpy.int64)."
    if len(shape) == 2:
        return f"If each row is one-hot, or holds scores: {name}.argmax(1)."
    return f"Write them as {name}.astype(numpy.int64)." if len(shape) == 1 and dtype.kind in "bf" else ""


def _same(sizes: Shape, dims: Dims) -> bool:
    return len(sizes) == len(dims) and all(d in (None, n) for d, n in zip(dims, sizes, strict=True))
