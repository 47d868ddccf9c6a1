"""eval: accuracy, spike rates and time of any network on data."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pascalc.answers import answers, scores
from pascalc.data import load_data
from pascalc.errors import CompileError
from pascalc.graph import Array, Model
from pascalc.labels import distinct
from pascalc.modelfile import load, to_bytes
from pascalc.neurons import Neuron, add_spikes, analysed_neurons
from pascalc.rates import network_spike_rate
from pascalc.rounding import declare
from pascalc.runtime import InferenceSession

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class LayerRate:
    """A layer of neurons; ``spike_rate`` is the mean number of spikes of a neuron for one sample, over all steps, and
    ``neurons`` how many there are for one sample."""

    name: str
    levels: int
    steps_out: int
    neurons: int
    spike_rate: float


@dataclass(frozen=True)
class Evaluation:
    """What a network does with data.

    Attributes:
        samples: how many samples there were.
        top1: the share of samples whose class, by the first output (`pascalc.answers`), is the label; None without
            labels.
        seconds: wall time of the network itself over all samples, without tracing.
        layers: spike rates; in a source network those that its QCFS levels stand for.
    """

    samples: int
    top1: float | None
    seconds: float
    layers: list[LayerRate]

    def to_json(self) -> dict[str, Any]:
        """The evaluation as plain values."""
        return {**asdict(self), "spike_rate": self.spike_rate}

    @property
    def spike_rate(self) -> float | None:
        """All spikes over all neurons, for one sample (`pascalc.rates.network_spike_rate`); None without neurons."""
        return network_spike_rate((layer.spike_rate, layer.neurons) for layer in self.layers)


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
        CompileError: a file cannot be read, the data does not fit the network, or two layers of neurons have one label.
    """
    model = distinct(load(path))
    samples = load_data(data, model, limit)
    plain = InferenceSession(to_bytes(model) if model.rewritten else Path(path), kernels, threads=threads)
    first = plain.outputs[0].name
    found, names = _with_counts(model)
    counting = InferenceSession(to_bytes(model), threads=threads) if found else None
    totals = np.zeros(len(found))
    units = np.zeros(len(found), np.int64)
    correct, seconds = 0, 0.0
    for feeds, part in samples.batches(batch):
        count = part.stop - part.start
        started = time.perf_counter()
        outputs = plain.run([first], feeds)
        seconds += time.perf_counter() - started
        if samples.labels is not None:
            given = _classes(first, outputs[0], samples.labels[part], data)
            correct += int(np.count_nonzero(given == samples.labels[part]))
        if counting is not None:
            for index, (neuron, total) in enumerate(zip(found, counting.run(names, feeds), strict=True)):
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
            LayerRate(n.name, n.levels, n.steps_out, size // len(samples), float(total / max(size, 1)))
            for n, total, size in zip(found, totals, units.tolist(), strict=True)
        ],
    )


def _classes(name: str, output: Array, labels: Array, data: str | Path) -> Array:
    """The class of every labelled sample."""
    given = answers(output)
    if given is None or len(given) < len(labels):
        raise CompileError(
            f"the output '{name}' is {output.dtype} {list(output.shape)}: that is no class for every sample",
            file=data,
            hint="Leave the labels 'y' out of the data.",
        )
    found = scores(output)
    if found is not None:
        wrong = labels[(labels < 0) | (labels >= found.shape[1])]
        if wrong.size:
            message = f"'y' holds the label {wrong[0]}, but the network has {found.shape[1]} classes"
            raise CompileError(message, file=data)
    return given[: len(labels)]


def _with_counts(model: Model) -> tuple[list[Neuron], list[str]]:
    """Make the sum of every neuron's train an output of the model; the neurons, and these outputs' names. A source
    network's QCFS are recognised first."""
    found, names = analysed_neurons(model), []
    for neuron in found:
        total = add_spikes(model, neuron, f"count:{neuron.name}")
        model.interface_outputs.append(declare(total))
        names.append(total.name)
    return found, names
