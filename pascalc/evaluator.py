"""eval: accuracy, spike rates and time of any network on data."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pascalc.data import load_data
from pascalc.errors import CompileError
from pascalc.graph import Array, Model
from pascalc.modelfile import load, to_bytes
from pascalc.neurons import Neuron, add_sum, analysed_neurons
from pascalc.rounding import declare
from pascalc.runtime import InferenceSession

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class LayerRate:
    """A layer of neurons; ``spike_rate`` is the mean number of spikes of a neuron for one sample, over all steps."""

    name: str
    levels: int
    steps_out: int
    spike_rate: float


@dataclass(frozen=True)
class Evaluation:
    """What a network does with data.

    Attributes:
        samples: how many samples there were.
        top1: the share of samples whose largest output is the label's; None without labels.
        seconds: wall time of the network itself over all samples, without tracing.
        layers: spike rates; in a source network those that its QCFS levels stand for.
    """

    samples: int
    top1: float | None
    seconds: float
    layers: list[LayerRate]

    def to_json(self) -> dict[str, Any]:
        """The evaluation as plain values."""
        return asdict(self)


def evaluate(
    path: str | Path,
    data: str | Path,
    *,
    limit: int | None = None,
    batch: int = 16,
    kernels: Literal["native", "numpy"] = "native",
    threads: int | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Run a network, source or compiled, on data.

    Args:
        path: the ONNX file.
        data: an ``.npz`` of inputs and, for accuracy, labels.
        limit: only the first so many samples.
        batch: samples a run.
        kernels: what computes the neurons, see :class:`pascalc.runtime.InferenceSession`.
        threads: threads of onnxruntime; by default one for each core.
        progress: called with (samples done, samples in all).

    Raises:
        CompileError: a file cannot be read, or the data does not fit the network.
    """
    model = load(path)
    samples = load_data(data, model, limit)
    plain = InferenceSession(to_bytes(model) if model.rewritten else Path(path), kernels, threads=threads)
    first = plain.outputs[0].name
    traced, found = _with_counts(model)
    counting = InferenceSession(to_bytes(traced), threads=threads) if found else None
    totals = np.zeros(len(found))
    units = np.zeros(len(found))
    correct, seconds = 0, 0.0
    for feeds, part in samples.batches(batch):
        count = part.stop - part.start
        started = time.perf_counter()
        outputs = plain.run([first], feeds)
        seconds += time.perf_counter() - started
        if samples.labels is not None:
            answers = _classes(first, outputs[0], samples.labels[part], data)
            correct += int(np.count_nonzero(answers == samples.labels[part]))
        if counting is not None:
            for index, (neuron, total) in enumerate(
                zip(found, counting.run([f"count:{n.name}" for n in found], feeds), strict=True)
            ):
                spikes = total[:count] / neuron.unit
                totals[index] += float(spikes.sum(dtype=np.float64))
                units[index] += spikes.size
        if progress is not None:
            progress(part.stop, len(samples))
    return Evaluation(
        samples=len(samples),
        top1=None if samples.labels is None else correct / len(samples),
        seconds=seconds,
        layers=[
            LayerRate(n.name, n.levels, n.steps_out, float(total / max(size, 1)))
            for n, total, size in zip(found, totals, units, strict=True)
        ],
    )


def _classes(name: str, output: Array, labels: Array, data: str | Path) -> Array:
    """The class of every labelled sample: the largest of its values, or the one integer that the network gives."""
    single = output.ndim > 0 and output.size == len(output)
    if output.ndim == 0 or len(output) < len(labels) or (output.dtype.kind != "f" and not single):
        raise CompileError(
            f"the output '{name}' is {output.dtype} {list(output.shape)}: that is no class for every sample",
            file=data,
            hint="Leave the labels 'y' out of the data.",
        )
    scores = output[: len(labels)].reshape(len(labels), -1)
    if output.dtype.kind != "f":
        return scores[:, 0]
    wrong = labels[(labels < 0) | (labels >= scores.shape[1])]
    if wrong.size:
        raise CompileError(f"'y' holds the label {wrong[0]}, but the network has {scores.shape[1]} classes", file=data)
    return np.asarray(scores.argmax(1))


def _with_counts(model: Model) -> tuple[Model, list[Neuron]]:
    """The model with the sum of every neuron's train as an output; a source network's QCFS are recognised first."""
    found = analysed_neurons(model)
    for neuron in found:
        total = add_sum(model, neuron.node.outputs[0], neuron.steps_out, f"count:{neuron.name}")
        model.interface_outputs.append(declare(total))
    return model, found
