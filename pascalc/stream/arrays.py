"""Arrays of samples, in files or in memory, read forwards and never whole."""

from __future__ import annotations

import zipfile
from bisect import bisect_right
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import accumulate
from math import prod
from pathlib import Path
from typing import IO

import numpy as np
import numpy.lib.format as npy

from pascalc.data import UNREADABLE
from pascalc.errors import CompileError
from pascalc.graph import Array

#: Bytes that are read at once of what is left out.
_CHUNK = 2**18
AGAIN = "Write it again."

Header = tuple[tuple[int, ...], np.dtype[np.generic]]
#: Gives samples by their numbers, none of them before those that it gave; no samples: reads on to this number.
Take = Callable[[Sequence[int]], Array]


@dataclass(frozen=True)
class Shard:
    """A file, and how many samples it holds."""

    path: Path
    samples: int


@dataclass(frozen=True)
class Stored:
    """One array in files."""

    key: str
    shards: tuple[Shard, ...]
    sample: tuple[int, ...]
    dtype: np.dtype[np.generic]

    def open(self, stack: ExitStack) -> Take:
        """Begin at the first sample."""
        reader = _Reader(self)
        stack.callback(reader.close)
        return reader.take

    def absolute(self) -> Stored:
        """The same with absolute paths."""
        return replace(self, shards=tuple(Shard(shard.path.absolute(), shard.samples) for shard in self.shards))

    def path(self, number: int) -> Path:
        """The file that holds a sample."""
        return self.shards[self._place(number)].path

    def behind(self, number: int) -> range:
        """No samples, behind the last one of the file that holds this one."""
        end = sum(shard.samples for shard in self.shards[: self._place(number) + 1])
        return range(end, end)

    def _place(self, number: int) -> int:
        return bisect_right(list(accumulate(shard.samples for shard in self.shards)), number)


@dataclass(frozen=True)
class Held:
    """One array in memory."""

    array: Array

    def open(self, stack: ExitStack) -> Take:
        """Begin at the first sample."""
        return lambda wanted: self.array[list(wanted)]

    def absolute(self) -> Held:
        """The same."""
        return self

    def path(self, number: int) -> None:
        """No file."""
        return None

    def behind(self, number: int) -> range:
        """No samples."""
        return range(0)


class _Reader:
    """Reads one array through its files, forwards only."""

    def __init__(self, array: Stored) -> None:
        self._array = array
        self._size = prod(array.sample) * array.dtype.itemsize
        self._shard = 0  # the file that is read
        self._start = 0  # the number of its first sample
        self._next = 0  # the number of the sample that is read next
        self._stack = ExitStack()
        self._file: IO[bytes] | None = None

    def close(self) -> None:
        """Close the file that is read."""
        self._stack.close()
        self._file = None

    def take(self, wanted: Sequence[int]) -> Array:
        """These samples, rising and none of them before those that were taken."""
        data = bytearray()
        if isinstance(wanted, range) and not wanted:
            self._go_to(wanted.start)
        else:
            run = len(wanted) if wanted[-1] - wanted[0] < len(wanted) else 1  # neighbouring samples are read at once
            for first in wanted[::run]:
                self._go_to(first)
                self._samples(run, data)
        return np.frombuffer(data, self._array.dtype).reshape(len(wanted), *self._array.sample)

    def _samples(self, count: int, data: bytearray) -> None:
        """Append the next samples, of one file after the other."""
        while count:
            here = min(count, self._end - self._next)
            data += self._read(here * self._size)
            self._next += here
            count -= here
            if count:
                self._go_to(self._next)

    @property
    def _end(self) -> int:
        return self._start + self._array.shards[self._shard].samples

    def _go_to(self, number: int) -> None:
        """Leave out what lies before a sample. A file that was opened is read to its end, for its check sum."""
        while number >= self._end and self._shard + 1 < len(self._array.shards):
            if self._file is not None:
                self._skip(self._end - self._next)
                self.close()
            self._start = self._next = self._end
            self._shard += 1
        if number > self._next:
            self._skip(number - self._next)
            self._next = number

    def _skip(self, samples: int) -> None:
        size, file = samples * self._size, self._opened()
        if not isinstance(file, zipfile.ZipExtFile):
            file.seek(size, 1)
            return
        for start in range(0, size, _CHUNK):  # its check sum is that of all of it
            self._read(min(_CHUNK, size - start))

    def _read(self, wanted: int) -> bytes:
        path, file = self._array.shards[self._shard].path, self._opened()
        try:
            data = file.read(wanted)
        except UNREADABLE as error:
            raise CompileError("the data is damaged", file=path, hint=AGAIN) from error
        if len(data) < wanted:
            raise CompileError("the data is truncated", file=path, hint=AGAIN)
        return data

    def _opened(self) -> IO[bytes]:
        """The file that is read, behind its header."""
        if self._file is not None:
            return self._file
        array, shard = self._array, self._array.shards[self._shard]
        try:
            file: IO[bytes] = self._stack.enter_context(shard.path.open("rb"))
            if is_npy(file):
                file.seek(0)
            else:
                file = self._stack.enter_context(zipfile.ZipFile(file)).open(f"{array.key}.npy")
                self._stack.enter_context(file)
            if header(file, array.key) != ((shard.samples, *array.sample), array.dtype):
                raise ValueError("it has another type or shape")
        except UNREADABLE as error:
            raise CompileError("the data has changed since it was opened", file=shard.path) from error
        self._file = file
        return file


def is_npy(file: IO[bytes]) -> bool:
    """Whether a file that was just opened is a ``.npy``."""
    return file.read(len(npy.MAGIC_PREFIX)) == npy.MAGIC_PREFIX


def header(file: IO[bytes], key: str) -> Header:
    """Shape and type from the start of a ``.npy``.

    Raises:
        ValueError: it holds Python objects, lies in Fortran order, or is no ``.npy``.
    """
    try:
        version = npy.read_magic(file)
    except ValueError as error:
        raise ValueError(f"'{key}' is not an array") from error
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("it would need allow_pickle")
    if fortran and len(shape) > 1:
        raise ValueError("an array lies in Fortran order; write numpy.ascontiguousarray of it")
    return shape, dtype
