"""One pass over data: a network does its work on every batch, and what it found is added up, batch by batch, in order.

Where workers do it (`pascalc.workers`), they get the very same batches, and what they find is added up here in the same
order: so all figures are the same to the last bit, sums of floats included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import reduce
from operator import add
from typing import Any, Protocol, TypeVar

from pascalc.stream import Batch, SampleStream

Progress = Callable[[int, int], None]
R = TypeVar("R")
Found = TypeVar("Found", covariant=True)


class Work(Protocol[Found]):
    """What is done with the batches. It can be pickled, for it holds what networks are made of, and no session."""

    def open(self, threads: int | None) -> Callable[[Batch], Found]:
        """Open the networks.

        Args:
            threads: threads of onnxruntime; None for one for each core.

        Returns:
            What a batch gives.

        Raises:
            CompileError: onnxruntime cannot load them.
        """


class Pool(Protocol):
    """What does work on other processes."""

    def results(self, work: Work[R], samples: SampleStream, size: int) -> Iterator[R]:
        """What every batch of ``size`` samples gives, in order."""


def results(
    work: Work[R],
    samples: SampleStream,
    batch: int,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
    pool: Pool | None = None,
) -> Iterator[R]:
    """What every batch gives, in order.

    Args:
        work: what is done.
        samples: the data.
        batch: samples a run.
        threads: threads of onnxruntime; by default one for each core. A worker has one.
        progress: called with (samples done, samples in all).
        pool: the workers that do it; None for this process.

    Raises:
        CompileError: the data is damaged, or a network cannot be loaded or run.
    """
    size = samples.batch_size(batch)
    if pool is None:
        run = work.open(threads)
        found: Iterator[R] = (run(part) for part in samples.batches(size))
    else:
        found = pool.results(work, samples, size)
    for number, one in enumerate(found, 1):
        if progress is not None:
            progress(min(number * size, len(samples)), len(samples))
        yield one


def fold(work: Work[R], samples: SampleStream, batch: int, **options: Any) -> R:
    """The sum of what all batches give, with the options of :func:`results`."""
    return reduce(add, results(work, samples, batch, **options))
