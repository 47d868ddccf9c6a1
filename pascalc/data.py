"""Checks of data: is it what the network wants, and if not, which change makes it fit? `pascalc.stream` reads it."""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import onnx

from pascalc import hints
from pascalc.errors import CompileError
from pascalc.filekinds import NPY, NPZ, kind_of_file
from pascalc.files import way_to
from pascalc.graph import Array

#: The array that holds the labels, and the one that holds the samples of a network's only input.
LABELS = "y"
SINGLE = "x"


def check_batch(size: int) -> None:
    """Refuse a batch without samples.

    Raises:
        CompileError: ``size`` is below 1.
    """
    if size < 1:
        raise CompileError(f"the samples a run must be at least 1, not {size}")


def unreadable(path: Path, error: Exception | None = None) -> CompileError:
    """Why a file cannot be read as data: what the system says, or what the file is."""
    hint = HINT
    kind = kind_of_file(path)
    if isinstance(error, OSError) and error.strerror:
        message, hint = error.strerror, way_to(path, error)
    elif kind is not None and kind.name == NPY.name:
        message = f"it is not a .npy of plain numbers ({error})"
    elif kind is not None and kind.name != NPZ.name:
        message, hint = f"this is {kind.name}, not an .npz of plain arrays", kind.for_data or HINT
    elif kind is not None and "allow_pickle" in str(error):
        message = "it holds Python objects, which are never read: it is not an .npz of plain arrays"
    else:
        message = "it is not an .npz of plain arrays" + (f" ({error})" if kind is not None and str(error) else "")
    return CompileError(f"the data cannot be read: {message}", file=path, hint=hint)


#: What NumPy, zipfile and zlib raise on files that are damaged, encrypted or something else.
UNREADABLE = (
    *(OSError, ValueError, EOFError, RuntimeError, KeyError, struct.error),
    *(zipfile.BadZipFile, zlib.error, tokenize.TokenError),
)


def array_for(name: str, names: Sequence[str], arrays: Collection[str], path: Path) -> str:
    """Which of the file's arrays belongs to the input ``name`` of a network with the inputs ``names``.

    Raises:
        CompileError: none of them.
    """
    key = name if name in arrays else SINGLE
    if key not in arrays or (key == SINGLE and len(names) > 1 and name != SINGLE):
        others = [array for array in arrays if array not in (LABELS, *names)]
        raise CompileError(
            f"there is no array for the input '{name}' (the file has {', '.join(sorted(arrays)) or 'none'})",
            file=path,
            hint=hints.rename(others[0], SINGLE, LABELS if LABELS in arrays else None)
            if len(others) == len(names) == 1
            else HINT,
        )
    return key


HINT = "Save it with numpy.savez(path, x=images_as_the_model_wants_them, y=labels); several inputs by their names."


def check_input(value: onnx.ValueInfoProto, path: Path | None) -> None:
    """Whether samples can be given to a network's input.

    Raises:
        CompileError: it has no type, no rank, or no axis for the samples.
    """
    tensor = value.type.tensor_type
    if not tensor.elem_type or not tensor.HasField("shape"):
        raise CompileError(f"the network's input '{value.name}' has no type or no rank, so no data fits it", file=path)
    if not tensor.shape.dim:
        raise CompileError(
            f"the network's input '{value.name}' is one number for all samples, and data is given sample by sample",
            file=path,
            hint="Export the network with that number as a constant, or with one for each sample.",
        )


def check_fit(
    shape: Sequence[int], dtype: np.dtype[np.generic], key: str, value: onnx.ValueInfoProto, path: Path
) -> None:
    """Whether an array of this shape and type fits the network's input.

    Raises:
        CompileError: another type or shape than the input's, or no samples.
    """
    check_input(value, path)
    tensor = value.type.tensor_type
    wanted = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    dims = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
    sample = "x".join("*" if d is None else str(d) for d in dims[1:])
    if dtype != wanted:
        raise CompileError(
            f"'{key}' is {dtype}, but the input '{value.name}' wants {wanted}",
            file=path,
            hint=hints.other_type(key, dtype, wanted) or HINT,
        )
    if not hints.fits(shape, dims):
        raise CompileError(
            f"'{key}' has shape {list(shape)}, but the input '{value.name}' wants samples of {sample}",
            file=path,
            hint=hints.other_shape(key, shape, dims) or HINT,
        )
    if not shape[0]:
        raise CompileError(f"'{key}' holds no samples", file=path)


def not_finite(array: Array) -> int | None:
    """The first row with a NaN or an infinity, or None."""
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return None
    return int(np.argwhere(~np.isfinite(array))[0, 0])


def check_labels(shape: Sequence[int], dtype: np.dtype[np.generic], path: Path) -> None:
    """Whether labels of this shape and type are one integer a sample.

    Raises:
        CompileError: they are not.
    """
    if len(shape) != 1 or dtype.kind not in "iu":
        raise CompileError(
            f"'{LABELS}' must be one integer a sample, not {dtype} {list(shape)}",
            file=path,
            hint=hints.labels(LABELS, shape, dtype),
        )
