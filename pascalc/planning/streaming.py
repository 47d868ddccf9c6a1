"""Samples read from ``.npz`` files batch by batch, for passes over data sets larger than memory.

An ``.npz`` is a zip of ``.npy`` files, and a ``.npy`` in C order holds sample after sample; so every array is read
through the zip, compressed or not, a batch at a time. Checks are those of `pascalc.data.load_data`, made on each batch.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import IO

import numpy as np
import numpy.lib.format as npy
import numpy.typing as npt
import onnx

from pascalc.data import LABELS, array_for, check_batch, checked, checked_labels, unreadable
from pascalc.errors import CompileError
from pascalc.files import check_regular
from pascalc.graph import Array, Model

#: Bytes that are read at once of what is left out.
_CHUNK = 2**18
_BROKEN = (OSError, ValueError, zipfile.BadZipFile, zlib.error, EOFError)


@dataclass(frozen=True)
class SampleStream:
    """The samples of an ``.npz`` file for the inputs of a network, in the file's order; or every so many of them.

    Attributes:
        path: the file.
        stored: how many samples the file holds.
        keys: for every input of the network, its declaration and the file's array for it.
        all_labels: int64 ``[stored]``, or None where the file has none.
        fixed_batch: the batch size that the network insists on, or None.
        offset: the first sample taken.
        step: every so many samples one is taken.
    """

    path: Path
    stored: int
    keys: list[tuple[onnx.ValueInfoProto, str]]
    all_labels: npt.NDArray[np.int64] | None
    fixed_batch: int | None
    offset: int = 0
    step: int = 1

    def __len__(self) -> int:
        return len(range(self.offset, self.stored, self.step))

    @property
    def labels(self) -> npt.NDArray[np.int64] | None:
        """The labels of the samples that are taken, or None."""
        return None if self.all_labels is None else self.all_labels[self.offset :: self.step]

    def every(self, step: int, offset: int = 0) -> SampleStream:
        """Every ``step``-th of these samples, from number ``offset`` on.

        Raises:
            CompileError: no sample is left.
        """
        thinned = replace(self, offset=self.offset + offset * self.step, step=self.step * step)
        if not len(thinned):
            raise CompileError(f"{len(self)} samples are too few", file=self.path, hint="Give more calibration data.")
        return thinned

    def halves(self, most: int) -> tuple[SampleStream, SampleStream]:
        """Every second sample and the others, of at most ``most`` samples from the whole file.

        Raises:
            CompileError: there are fewer than 2 samples.
        """
        step = 2 * max(1, -(-len(self) // most))
        return self.every(step), self.every(step, step // 2)

    def batches(self, size: int) -> Iterator[tuple[dict[str, Array], slice]]:
        """Feeds of ``size`` samples, and which of these samples they hold.

        A network of a fixed batch gets batches of that size; the last one is filled up with its last sample.

        Memory does not depend on how many samples are left out in between.

        Raises:
            CompileError: ``size`` is below 1, the file is damaged, or a batch holds values that are not finite.
        """
        check_batch(size)
        size = self.fixed_batch or size
        with ExitStack() as stack:
            members = []
            try:
                file = stack.enter_context(zipfile.ZipFile(self.path))
                for value, key in self.keys:
                    member = stack.enter_context(file.open(f"{key}.npy"))
                    members.append((value, key, member, *_header(member)))
            except (*_BROKEN, KeyError) as error:
                raise CompileError("the data has changed since it was opened", file=self.path) from error
            for start in range(0, len(self), size):
                part = slice(start, min(start + size, len(self)))
                feeds = {}
                for value, key, member, shape, dtype in members:
                    batch = checked(self._read(member, part, shape[1:], dtype), key, value, self.path)
                    missing = size - len(batch) if self.fixed_batch else 0
                    feeds[value.name] = np.concatenate([batch, np.repeat(batch[-1:], missing, 0)])
                yield feeds, part

    def _read(
        self, member: IO[bytes], part: slice, shape: tuple[int, ...], dtype: np.dtype[np.generic]
    ) -> npt.NDArray[np.generic]:
        """The samples of one batch. The file is read on from where the batch before ended, and to its end behind the
        last, where its check sum is compared."""
        size = prod(shape) * dtype.itemsize
        batch = bytearray()
        if not part.start:
            self._skip(member, self.offset * size)
        run = 1 if self.step > 1 else part.stop - part.start  # neighbouring samples are read at once
        for number in range(part.start, part.stop, run):
            batch += self._bytes(member, run * size)
            here = self.offset + (number + run - 1) * self.step
            self._skip(member, (min(here + self.step, self.stored) - here - 1) * size)
        return np.frombuffer(batch, dtype).reshape(part.stop - part.start, *shape)

    def _skip(self, member: IO[bytes], size: int) -> None:
        for start in range(0, size, _CHUNK):
            self._bytes(member, min(_CHUNK, size - start))

    def _bytes(self, member: IO[bytes], wanted: int) -> bytes:
        try:
            data = member.read(wanted)
        except _BROKEN as error:
            raise CompileError("the data is damaged", file=self.path, hint="Write it again.") from error
        if len(data) < wanted:
            raise CompileError("the data is truncated", file=self.path, hint="Write it again.")
        return data


def open_samples(path: str | Path, model: Model) -> SampleStream:
    """Open an ``.npz``: ``x`` (or one array per input name) and, where there are labels, ``y``.

    Raises:
        CompileError: the file is not an npz of plain arrays, lacks an input, or an array has another type or shape
            than the input or no samples.
    """
    path = Path(path)
    names = [value.name for value in model.interface_inputs]
    keys, sizes, labels = [], set(), None
    check_regular(path)
    try:
        with zipfile.ZipFile(path) as file:
            arrays = {name.removesuffix(".npy") for name in file.namelist() if name.endswith(".npy")}
            if not arrays and file.namelist():
                raise ValueError("it holds no arrays")
            for name, value in zip(names, model.interface_inputs, strict=True):
                key = array_for(name, names, arrays, path)
                with file.open(f"{key}.npy") as member:
                    shape, dtype = _header(member)
                # no values yet, but their type and shape are checked before any work begins
                checked(np.broadcast_to(np.zeros((), dtype), shape), key, value, path)
                keys.append((value, key))
                sizes.add(shape[0])
            if LABELS in arrays and LABELS not in names:
                with file.open(f"{LABELS}.npy") as member:
                    labels = checked_labels(npy.read_array(member, allow_pickle=False), path)
    except _BROKEN as error:
        raise unreadable(path, error) from error
    if len(sizes) > 1:
        raise CompileError(f"the inputs have different numbers of samples: {sorted(sizes)}", file=path)
    dims = model.interface_inputs[0].type.tensor_type.shape.dim
    fixed = dims[0].dim_value if dims and dims[0].HasField("dim_value") else None
    stored = sizes.pop()
    if labels is not None and len(labels) != stored:
        raise CompileError(f"'{LABELS}' does not have one label a sample", file=path)
    return SampleStream(path, stored, keys, labels, fixed)


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    """Shape and type from the start of a ``.npy``.

    Raises:
        ValueError: it holds Python objects, lies in Fortran order, or is no ``.npy``.
    """
    version = npy.read_magic(member)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(member)
    if dtype.hasobject:
        raise ValueError("it would need allow_pickle")
    if fortran and len(shape) > 1:
        raise ValueError("an array lies in Fortran order; write numpy.ascontiguousarray of it")
    return shape, dtype
