"""The samples of a network's data, batch by batch."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pascalc.data import check_batch, not_finite
from pascalc.errors import CompileError
from pascalc.graph import Array, Model
from pascalc.stream.arrays import Held, Stored


class Batch(NamedTuple):
    """Samples for one run.

    Attributes:
        feeds: an array for every input of the network; of a fixed batch filled up with the last sample.
        part: which samples of the stream they are, without the filling.
        labels: int64, one for each of these; None where there are none.
    """

    feeds: dict[str, Array]
    part: slice
    labels: npt.NDArray[np.int64] | None

    @property
    def samples(self) -> int:
        """How many samples there are, without the filling."""
        return int(self.part.stop - self.part.start)


@dataclass(frozen=True)
class SampleStream:
    """The samples of a network's data, in their order; or every so many of them.

    Attributes:
        file: where they come from; None for arrays in memory.
        inputs: for every input of the network, its name, its array's, and the array.
        labels: the array of the labels, or None.
        taken: the numbers of the samples that are taken, rising.
        end: the number of the first sample that is not read; what is before it and not taken is, for the check sums.
        fixed_batch: the batch size that the network insists on, or None.
    """

    file: Path | None
    inputs: tuple[tuple[str, str, Stored | Held], ...]
    labels: Stored | None
    taken: Sequence[int]
    end: int
    fixed_batch: int | None

    def __len__(self) -> int:
        return len(self.taken)

    def absolute(self) -> SampleStream:
        """The same with absolute paths, for another process."""
        inputs = tuple((name, key, array.absolute()) for name, key, array in self.inputs)
        labels = None if self.labels is None else self.labels.absolute()
        file = None if self.file is None else self.file.absolute()
        return replace(self, file=file, inputs=inputs, labels=labels)

    def every(self, step: int, offset: int = 0) -> SampleStream:
        """Every ``step``-th of these samples, from number ``offset`` on.

        Raises:
            CompileError: no sample is left.
        """
        thinned = replace(self, taken=self.taken[offset::step])
        if not len(thinned):
            raise CompileError(f"{len(self)} samples are too few", file=self.file, hint="Give more calibration data.")
        return thinned

    def halves(self, most: int) -> tuple[SampleStream, SampleStream]:
        """Every second sample and the others; of more than ``most`` samples, of so many that are spread over them.

        Raises:
            CompileError: there are fewer than 2 samples.
        """
        spread = self
        if len(self) > most:
            spread = replace(self, taken=tuple(self.taken[number * len(self) // most] for number in range(most)))
        return spread.every(2), spread.every(2, 1)

    def first(self, most: int, most_bytes: int) -> dict[str, Array]:
        """The first samples: at most so many, and of at most so many bytes, but one.

        Raises:
            CompileError: as :meth:`batches`.
        """
        one = next(self.batches(1)).feeds
        size = sum(array.nbytes // len(array) for array in one.values())
        count = min(most, max(1, most_bytes // max(size, 1)))
        return next(replace(self, taken=self.taken[:count], fixed_batch=None).batches(count)).feeds

    def batch_size(self, size: int) -> int:
        """How many samples a run takes where ``size`` are asked for.

        Raises:
            CompileError: ``size`` is below 1.
        """
        check_batch(size)
        return self.fixed_batch or size

    def batches(self, size: int, within: range | None = None) -> Generator[Batch]:
        """Batches of ``size`` samples.

        A network of a fixed batch gets batches of that size; the last one is filled up with its last sample.

        Args:
            size: samples a batch.
            within: take only these samples, which begin where a batch does.

        Raises:
            CompileError: ``size`` is below 1, a file is damaged, or a batch holds values that are not finite.
        """
        size = self.batch_size(size)
        numbers = range(len(self)) if within is None else within
        with ExitStack() as stack:
            takes = [(name, key, array, array.open(stack)) for name, key, array in self.inputs]
            labels = None if self.labels is None else self.labels.open(stack)
            for start in numbers[::size]:
                part = slice(start, min(start + size, numbers.stop))
                wanted = self.taken[part]
                feeds = {}
                for name, key, array, take in takes:
                    batch = take(wanted)
                    row = not_finite(batch)
                    if row is not None:
                        take(array.behind(wanted[row]))  # if the file is damaged, that is the reason
                        raise CompileError(f"'{key}' holds NaN or infinite values", file=array.path(wanted[row]))
                    missing = size - len(batch) if self.fixed_batch else 0
                    feeds[name] = np.concatenate([batch, np.repeat(batch[-1:], missing, 0)]) if missing else batch
                yield Batch(feeds, part, None if labels is None else labels(wanted).astype(np.int64))
            behind = self.taken[numbers.stop] if numbers.stop < len(self) else self.end
            for take in [*(take for *_, take in takes), *([] if labels is None else [labels])]:
                take(range(behind, behind))  # what lies behind the last sample, for its check sum


def hold(arrays: Mapping[str, Array], model: Model) -> SampleStream:
    """A stream of arrays in memory, one for every input of the network."""
    count = len(next(iter(arrays.values())))
    inputs = tuple((name, name, Held(array)) for name, array in arrays.items())
    return SampleStream(None, inputs, None, range(count), count, fixed_batch(model))


def fixed_batch(model: Model) -> int | None:
    """The batch size that the network insists on, or None."""
    dims = model.interface_inputs[0].type.tensor_type.shape.dim
    return dims[0].dim_value if dims and dims[0].HasField("dim_value") else None
