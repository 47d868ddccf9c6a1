"""Histograms of spike counts, measured: one streamed pass over the calibration data.

The network runs in onnxruntime with its QCFS activations written out, ``u = clip(floor(z*(L/theta) + phi), 0, L)``;
beside ``u*(theta/L)`` for the layers behind, u leaves each of them as bytes, of which an array comparison counts how
many reach 1, 2, ..., L. So counts are exact integers, at about the speed of the network alone, and no more than one
batch of activations is in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pascalc import pipeline
from pascalc.al.histograms import Histograms
from pascalc.al.metrics import Histogram
from pascalc.modelfile import load, to_bytes
from pascalc.neurons import Neuron
from pascalc.passes import ANALYSIS
from pascalc.planning.adjustable import planned_neurons
from pascalc.planning.explicit import expose_counts
from pascalc.planning.streaming import SampleStream, open_samples
from pascalc.runtime import InferenceSession

Progress = Callable[[int, int], None]

#: Above so many levels one pass of numpy.bincount is cheaper than a comparison for each level.
_MOST_COMPARISONS = 32


def measure(
    source: str | Path, calibration: str | Path, *, batch: int = 64, progress: Progress | None = None
) -> Histograms:
    """Count how often every QCFS layer of a network emits each of its levels 0..L.

    Args:
        source: the ONNX file of the network.
        calibration: an ``.npz`` of inputs; it is read batch by batch.
        batch: samples a run.
        progress: called with (samples done, samples in all).

    Returns:
        The histograms by label, in the network's order; entry k counts the neurons, over all samples and positions,
        with level k.

    Raises:
        CompileError: a file cannot be read, the network has no QCFS activation, or the data does not fit it.
    """
    model = load(source)
    samples = open_samples(calibration, model)
    pipeline.run(model, ANALYSIS)
    layers = planned_neurons(model)
    names = expose_counts(model)
    return _count(InferenceSession(to_bytes(model)), layers, names, samples, batch, progress)


def _count(
    session: InferenceSession,
    layers: list[Neuron],
    names: list[str],
    samples: SampleStream,
    batch: int,
    progress: Progress | None,
) -> Histograms:
    totals = {layer.name: Histogram.zeros(layer.levels) for layer in layers}
    for feeds, part in samples.batches(batch):
        count = part.stop - part.start
        for layer, levels in zip(layers, session.run(names, feeds), strict=True):
            totals[layer.name] = totals[layer.name] + Histogram(count_levels(levels[:count], layer.levels))
        if progress is not None:
            progress(part.stop, len(samples))
    return totals


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
