"""Images and labels from ``.npz`` files, checked against what the network wants, in batches."""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from pascalc import hints
from pascalc.errors import CompileError
from pascalc.filekinds import NPZ, kind_of_file
from pascalc.files import check_regular, way_to
from pascalc.graph import Array, Model

#: The array that holds the labels, and the one that holds the samples of a network's only input.
LABELS = "y"
_SINGLE = "x"


@dataclass(frozen=True)
class Data:
    """Samples for every input of a network, and labels where the file has them.

    Attributes:
        inputs: by input name, an array ``[samples, ...]`` of the input's type and shape.
        labels: int64 ``[samples]``, or None.
        fixed_batch: the batch size that the network insists on, or None.
    """

    inputs: dict[str, Array]
    labels: Array | None
    fixed_batch: int | None

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def batches(self, size: int) -> Iterator[tuple[dict[str, Array], slice]]:
        """Feeds of ``size`` samples and the samples that they hold.

        A network of a fixed batch gets batches of that size; the last one is filled up with its last sample.
        """
        check_batch(size)
        size = self.fixed_batch or size
        for start in range(0, len(self), size):
            part = slice(start, min(start + size, len(self)))
            feeds = {name: array[part] for name, array in self.inputs.items()}
            missing = size - (part.stop - part.start)
            if self.fixed_batch and missing:
                feeds = {name: np.concatenate([a, np.repeat(a[-1:], missing, 0)]) for name, a in feeds.items()}
            yield feeds, part


def check_batch(size: int) -> None:
    """Refuse a batch without samples.

    Raises:
        CompileError: ``size`` is below 1.
    """
    if size < 1:
        raise CompileError(f"the samples a run must be at least 1, not {size}")


def load_data(path: str | Path, model: Model, limit: int | None = None) -> Data:
    """Read an ``.npz``: ``x`` (or one array per input name) and, where there are labels, ``y``.

    Raises:
        CompileError: the file is not an npz of plain arrays, lacks an input, or an array has another type or shape
            than the input, no samples, or values that are not finite.
    """
    path = Path(path)
    names = [value.name for value in model.interface_inputs]
    if not names:
        raise CompileError("the network has no inputs", file=model.file)
    if limit is not None and limit < 1:
        raise CompileError(f"the number of samples must be at least 1, not {limit}")
    arrays = _read(path)
    inputs = {}
    for name, value in zip(names, model.interface_inputs, strict=True):
        key = array_for(name, names, arrays, path)
        inputs[name] = checked(arrays[key], key, value, path)[:limit]
    sizes = {len(a) for a in inputs.values()}
    if len(sizes) > 1:
        raise CompileError(f"the inputs have different numbers of samples: {sorted(sizes)}", file=path)
    labels = arrays.get(LABELS) if LABELS not in names else None
    if labels is not None:
        labels = checked_labels(labels, path)
        if len(labels) != len(arrays[array_for(names[0], names, arrays, path)]):
            raise CompileError(f"'{LABELS}' does not have one label a sample", file=path)
    dims = model.interface_inputs[0].type.tensor_type.shape.dim
    fixed = dims[0].dim_value if dims and dims[0].HasField("dim_value") else None
    return Data(inputs, None if labels is None else labels[:limit], fixed)


def _read(path: Path) -> dict[str, Array]:
    """The arrays of an npz."""
    check_regular(path)
    try:
        with path.open("rb") as stream:
            file = np.load(stream, allow_pickle=False)
            if isinstance(file, np.ndarray):
                raise unreadable(path)
            with file:
                arrays = {key: file[key] for key in file.files}
    except _UNREADABLE as error:
        raise unreadable(path, error) from error
    for key, array in arrays.items():
        if not isinstance(array, np.ndarray):  # a member without the header of an array
            raise unreadable(path, ValueError(f"'{key}' is not an array"))
    return arrays


def unreadable(path: Path, error: Exception | None = None) -> CompileError:
    """Why a file cannot be read as data: what the system says, or what the file is."""
    hint = HINT
    kind = kind_of_file(path)
    if isinstance(error, OSError) and error.strerror:
        message, hint = error.strerror, way_to(path, error)
    elif kind is not None and kind.name != NPZ.name:
        message, hint = f"this is {kind.name}, not an .npz of plain arrays", kind.for_data or HINT
    elif kind is not None and "allow_pickle" in str(error):
        message = "it holds Python objects, which are never read: it is not an .npz of plain arrays"
    else:
        message = "it is not an .npz of plain arrays" + (f" ({error})" if kind is not None and str(error) else "")
    return CompileError(f"the data cannot be read: {message}", file=path, hint=hint)


#: What NumPy, zipfile and zlib raise on files that are damaged, encrypted or something else.
_UNREADABLE = (
    *(OSError, ValueError, EOFError, RuntimeError, MemoryError, KeyError, struct.error),
    *(zipfile.BadZipFile, zlib.error, tokenize.TokenError),
)


def array_for(name: str, names: Sequence[str], arrays: Collection[str], path: Path) -> str:
    """Which of the file's arrays belongs to the input ``name`` of a network with the inputs ``names``.

    Raises:
        CompileError: none of them.
    """
    key = name if name in arrays else _SINGLE
    if key not in arrays or (key == _SINGLE and len(names) > 1 and name != _SINGLE):
        others = [array for array in arrays if array not in (LABELS, *names)]
        raise CompileError(
            f"there is no array for the input '{name}' (the file has {', '.join(sorted(arrays)) or 'none'})",
            file=path,
            hint=hints.rename(others[0], _SINGLE, LABELS if LABELS in arrays else None)
            if len(others) == len(names) == 1
            else HINT,
        )
    return key


HINT = "Save it with numpy.savez(path, x=images_as_the_model_wants_them, y=labels); several inputs by their names."


def checked(array: Array, key: str, value: onnx.ValueInfoProto, path: Path) -> Array:
    """The array, if it fits the network's input.

    Raises:
        CompileError: another type or shape than the input's, no samples, or values that are not finite.
    """
    tensor = value.type.tensor_type
    if not tensor.elem_type or not tensor.HasField("shape"):
        raise CompileError(f"the network's input '{value.name}' has no type or no rank, so no data fits it", file=path)
    wanted = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    dims = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
    shape = "x".join("*" if d is None else str(d) for d in dims[1:])
    if array.dtype != wanted:
        raise CompileError(
            f"'{key}' is {array.dtype}, but the input '{value.name}' wants {wanted}",
            file=path,
            hint=hints.other_type(key, array.dtype, wanted) or HINT,
        )
    if not hints.fits(array.shape, dims):
        raise CompileError(
            f"'{key}' has shape {list(array.shape)}, but the input '{value.name}' wants samples of {shape}",
            file=path,
            hint=hints.other_shape(key, array.shape, dims) or HINT,
        )
    if not len(array):
        raise CompileError(f"'{key}' holds no samples", file=path)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise CompileError(f"'{key}' holds NaN or infinite values", file=path)
    return array


def checked_labels(labels: Array, path: Path) -> Array:
    """The labels as int64 ``[samples]``.

    Raises:
        CompileError: they are not one integer a sample.
    """
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise CompileError(
            f"'{LABELS}' must be one integer a sample, not {labels.dtype} {list(labels.shape)}",
            file=path,
            hint=hints.labels(LABELS, labels),
        )
    return labels.astype(np.int64)
