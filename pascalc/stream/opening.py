"""Opening data: what kind of file it is, which of its arrays are which, and whether these fit the network."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path

import numpy as np
import onnx

from pascalc.data import HINT, LABELS, SINGLE, UNREADABLE, array_for, check_fit, check_labels, unreadable
from pascalc.errors import CompileError
from pascalc.files import check_regular
from pascalc.graph import Model
from pascalc.stream.arrays import AGAIN, Header, Shard, Stored, header, is_npy
from pascalc.stream.samples import SampleStream, fixed_batch

#: Stands for the labels among the inputs' names; no input is without a name.
_LABELS_OF_SAMPLES = ""


def open_samples(path: str | Path, model: Model, limit: int | None = None) -> SampleStream:
    """Open an ``.npz``, a ``.npy`` or a folder of ``.npz`` files: ``x`` (or one array per input name) and, where there
    are labels, ``y``.

    Args:
        path: the file or folder.
        model: the network whose inputs they are.
        limit: only the first so many samples.

    Raises:
        CompileError: it is none of these, lacks an input, or an array has another type or shape than the input or no
            samples; shards have different arrays.
    """
    path = Path(path)
    values = {value.name: value for value in model.interface_inputs}
    if not values:
        raise CompileError("the network has no inputs", file=model.file)
    if limit is not None and limit < 1:
        raise CompileError(f"the number of samples must be at least 1, not {limit}")
    files = _shards(path) if path.is_dir() else [path]
    first: dict[str, tuple[str, Header]] = {}
    shards = []
    for file in files:
        check_regular(file)
        found = _npy_headers(file, values) if _is_npy(file) else _npz_headers(file, values)
        first = first or found
        _check_alike(found, first, file, files[0])
        shards.append(Shard(file, next(iter(found.values()))[1][0][0]))
    arrays = {name: Stored(key, tuple(shards), shape[1:], dtype) for name, (key, (shape, dtype)) in first.items()}
    labels = arrays.pop(_LABELS_OF_SAMPLES, None)
    stored = sum(shard.samples for shard in shards)
    inputs = tuple((name, array.key, array) for name, array in arrays.items())
    taken = range(stored)[:limit]
    return SampleStream(path, inputs, labels, taken, len(taken), fixed_batch(model))


def _shards(folder: Path) -> list[Path]:
    """The files of a folder, in the order of their names."""
    try:
        found = [file for file in folder.iterdir() if file.suffix == ".npz" and not file.name.startswith(".")]
    except OSError as error:
        raise unreadable(folder, error) from error
    if not found:
        raise CompileError("the folder holds no .npz files", file=folder, hint=f"Name another, or a file. {HINT}")
    return sorted(found, key=lambda file: ([_natural(part) for part in re.split(r"([0-9]+)", file.name)], file.name))


def _natural(part: str) -> tuple[int, str]:
    return (int(part), "") if part.isdecimal() else (-1, part)


def _is_npy(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return is_npy(file)
    except UNREADABLE as error:
        raise unreadable(path, error) from error


def _npy_headers(path: Path, values: Mapping[str, onnx.ValueInfoProto]) -> dict[str, tuple[str, Header]]:
    """The array of a ``.npy``, by the name of the network's only input."""
    if len(values) > 1:
        raise CompileError(
            f"a .npy holds one array, but the network has the inputs {', '.join(values)}", file=path, hint=HINT
        )
    try:
        with path.open("rb") as file:
            shape, dtype = header(file, SINGLE)
            found = path.stat().st_size - file.tell()
    except UNREADABLE as error:
        raise unreadable(path, error) from error
    (value,) = values.values()
    check_fit(shape, dtype, SINGLE, value, path)
    _check_size(found, shape, dtype, path)
    return {value.name: (SINGLE, (shape, dtype))}


def _npz_headers(path: Path, values: Mapping[str, onnx.ValueInfoProto]) -> dict[str, tuple[str, Header]]:
    """For every input its array in an ``.npz`` and that one's header; and the labels', where there are some."""
    found: dict[str, tuple[str, Header]] = {}
    try:
        with zipfile.ZipFile(path) as file:
            arrays = {name.removesuffix(".npy") for name in file.namelist() if name.endswith(".npy")}
            if not arrays and file.namelist():
                raise ValueError("it holds no arrays")
            keys = {name: array_for(name, list(values), arrays, path) for name in values}
            if LABELS in arrays and LABELS not in values:
                keys[_LABELS_OF_SAMPLES] = LABELS
            for name, key in keys.items():
                with file.open(f"{key}.npy") as member:
                    shape, dtype = header(member, key)
                    size = file.getinfo(f"{key}.npy").file_size - member.tell()
                if name == _LABELS_OF_SAMPLES:
                    check_labels(shape, dtype, path)
                else:
                    check_fit(shape, dtype, key, values[name], path)
                _check_size(size, shape, dtype, path)
                found[name] = key, (shape, dtype)
    except UNREADABLE as error:
        raise unreadable(path, error) from error
    sizes = {shape[0] for name, (_, (shape, _)) in found.items() if name != _LABELS_OF_SAMPLES}
    if len(sizes) > 1:
        raise CompileError(f"the inputs have different numbers of samples: {sorted(sizes)}", file=path)
    if _LABELS_OF_SAMPLES in found and found[_LABELS_OF_SAMPLES][1][0][0] not in sizes:
        raise CompileError(f"'{LABELS}' does not have one label a sample", file=path)
    return found


def _check_size(size: int, shape: Sequence[int], dtype: np.dtype[np.generic], path: Path) -> None:
    if size < prod(shape) * dtype.itemsize:
        raise CompileError("the data is truncated", file=path, hint=AGAIN)


def _check_alike(
    found: Mapping[str, tuple[str, Header]], first: Mapping[str, tuple[str, Header]], file: Path, other: Path
) -> None:
    """Refuse a shard whose arrays cannot follow those of the first."""
    for name in {**first, **found}:
        what = f"'{(found if name in found else first)[name][0]}'"
        if name not in found or name not in first:
            has, lacks = (other, file) if name in first else (file, other)
            message = f"{has.name} has {what}, but {lacks.name} does not"
        elif found[name][0] != first[name][0]:
            message = f"the input '{name}' is {what} here, and '{first[name][0]}' in {other.name}"
        else:
            (shape, dtype), (wanted, kind) = found[name][1], first[name][1]
            if (shape[1:], dtype) == (wanted[1:], kind):
                continue
            message = f"{what} holds {dtype} {list(shape[1:])} a sample, and {kind} {list(wanted[1:])} in {other.name}"
        raise CompileError(message, file=file, hint="Write all shards alike.")
