"""Histograms of spike counts, measured: one streamed pass over the calibration data.

The network runs in onnxruntime with its QCFS activations written out, ``u = clip(floor(z*(L/theta) + phi), 0, L)``;
beside ``u*(theta/L)`` for the layers behind, u leaves each of them as bytes, of which an array comparison counts how
many reach 1, 2, ..., L. So counts are exact integers, at about the speed of the network alone, and no more than one
batch of activations is in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from operator import add
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pascalc import pipeline
from pascalc.al.histograms import Histograms
from pascalc.al.metrics import Histogram
from pascalc.folding import Progress, fold
from pascalc.modelfile import to_bytes
from pascalc.passes import ANALYSIS
from pascalc.planning.adjustable import planned_neurons
from pascalc.planning.explicit import expose_counts
from pascalc.runtime import InferenceSession
from pascalc.source import Network, network_of
from pascalc.stream import Batch, open_samples
from pascalc.workers import working

#: Above so many levels one pass of numpy.bincount is cheaper than a comparison for each level.
_MOST_COMPARISONS = 32


def measure(
    source: Network,
    calibration: str | Path,
    *,
    batch: int = 64,
    workers: int | None = None,
    dask: str | None = None,
    progress: Progress | None = None,
) -> Histograms:
    """Count how often every QCFS layer of a network emits each of its levels 0..L.

    Args:
        source: the ONNX file of the network.
        calibration: inputs (`pascalc.stream`).
        batch: samples a run.
        workers: share the data among so many processes of one thread each (`pascalc.workers`).
        dask: share it among the workers of the Dask scheduler at this address.
        progress: called with (samples done, samples in all).

    Returns:
        The histograms by label, in the network's order; entry k counts the neurons, over all samples and positions,
        with level k.

    Raises:
        CompileError: a file cannot be read, the network has no QCFS activation, or the data does not fit it.
    """
    model = network_of(source)
    samples = open_samples(calibration, model)
    pipeline.run(model, ANALYSIS)
    layers = planned_neurons(model)
    names = expose_counts(model)
    work = _Counting(to_bytes(model), tuple(names), tuple(layer.levels for layer in layers))
    del model  # and its weights
    with working(workers, dask, calibration) as pool:
        total = fold(work, samples, batch, progress=progress, pool=pool)
    return {layer.name: Histogram(counts) for layer, counts in zip(layers, total.counts, strict=True)}


@dataclass(frozen=True)
class _Counts:
    """For every layer how often each level was counted, int64 ``[L + 1]``."""

    counts: tuple[npt.NDArray[np.int64], ...]

    def __add__(self, other: _Counts) -> _Counts:
        return _Counts(tuple(map(add, self.counts, other.counts)))


@dataclass(frozen=True)
class _Counting:
    """The network, and the names and highest levels of its counts."""

    network: bytes
    names: tuple[str, ...]
    levels: tuple[int, ...]

    def open(self, threads: int | None) -> Callable[[Batch], _Counts]:
        session = InferenceSession(self.network, threads=threads)

        def run(batch: Batch) -> _Counts:
            found = zip(session.run(self.names, batch.feeds), self.levels, strict=True)
            return _Counts(tuple(count_levels(given[: batch.samples], highest) for given, highest in found))

        return run


def count_levels(levels: npt.NDArray[np.uint8], highest: int) -> npt.NDArray[np.int64]:
    """How often each level 0..highest occurs, int64 ``[highest + 1]``.

    Args:
        levels: bytes of any shape, none above ``highest``.
        highest: L.
    """
    if highest > _MOST_COMPARISONS:
        return np.bincount(levels.reshape(-1), minlength=highest + 1)
    reaching = [levels.size, *(int(np.count_nonzero(levels >= level)) for level in range(1, highest + 1)), 0]
    return np.array([more - fewer for more, fewer in pairwise(reaching)], np.int64)
