"""eval: accuracy, spike rates and time of any network on data."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from operator import add
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pascalc.answers import answers, scores
from pascalc.errors import CompileError
from pascalc.folding import Progress, fold
from pascalc.graph import Array, Model
from pascalc.modelfile import load, to_bytes
from pascalc.neurons import Neuron, add_spikes, analysed_neurons, distinct
from pascalc.rates import network_spike_rate
from pascalc.rounding import declare
from pascalc.runtime import InferenceSession
from pascalc.stream import Batch, open_samples
from pascalc.workers import working


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
        seconds: wall time of the network itself over all samples, without tracing; of workers the sum.
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
    workers: int | None = None,
    dask: str | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Run a network, source or compiled, on data.

    Args:
        path: the ONNX file.
        data: inputs and, for accuracy, labels: an ``.npz``, a ``.npy``, or a folder of ``.npz`` (`pascalc.stream`).
        limit: only the first so many samples.
        batch: samples a run.
        kernels: what computes the neurons, see :class:`pascalc.runtime.InferenceSession`.
        threads: threads of onnxruntime; by default one for each core.
        workers: share the data among so many processes of one thread each (`pascalc.workers`).
        dask: share it among the workers of the Dask scheduler at this address.
        progress: called with (samples done, samples in all).

    Raises:
        CompileError: a file cannot be read, the data does not fit the network, or two layers of neurons have one label.
    """
    model = distinct(load(path))
    samples = open_samples(data, model, limit)
    plain = to_bytes(model) if model.rewritten else Path(path).absolute() if workers or dask else Path(path)
    found, names = _with_counts(model)
    work = _Evaluating(
        plain, kernels, to_bytes(model) if found else None, tuple(names), tuple(n.unit for n in found), data
    )
    del model  # and its weights
    with working(workers, dask, data) as pool:
        total = fold(work, samples, batch, threads=threads, progress=progress, pool=pool)
    return Evaluation(
        samples=len(samples),
        top1=None if samples.labels is None else total.correct / len(samples),
        seconds=total.seconds,
        layers=[
            LayerRate(n.name, n.levels, n.steps_out, size // len(samples), spikes / max(size, 1))
            for n, spikes, size in zip(found, total.spikes, total.neurons, strict=True)
        ],
    )


@dataclass(frozen=True)
class _Counts:
    """What was counted: right classes, seconds, and for every layer the spikes and the neurons times samples."""

    correct: int
    seconds: float
    spikes: tuple[float, ...]
    neurons: tuple[int, ...]

    def __add__(self, other: _Counts) -> _Counts:
        return _Counts(
            self.correct + other.correct,
            self.seconds + other.seconds,
            tuple(map(add, self.spikes, other.spikes)),
            tuple(map(add, self.neurons, other.neurons)),
        )


@dataclass(frozen=True)
class _Evaluating:
    """The network itself, and with sums of its trains, of the given units, as outputs."""

    plain: bytes | Path
    kernels: Literal["native", "numpy"]
    counting: bytes | None
    names: tuple[str, ...]
    units: tuple[Array, ...]
    data: str | Path

    def open(self, threads: int | None) -> Callable[[Batch], _Counts]:
        plain = InferenceSession(self.plain, self.kernels, threads=threads)
        counting = None if self.counting is None else InferenceSession(self.counting, threads=threads)
        first = plain.outputs[0].name

        def run(batch: Batch) -> _Counts:
            started = time.perf_counter()
            (output,) = plain.run([first], batch.feeds)
            seconds, correct = time.perf_counter() - started, 0
            if batch.labels is not None:
                correct = int(np.count_nonzero(_classes(first, output, batch.labels, self.data) == batch.labels))
            totals = [] if counting is None else counting.run(self.names, batch.feeds)
            spikes = [total[: batch.samples] / unit for total, unit in zip(totals, self.units, strict=True)]
            return _Counts(
                correct, seconds, tuple(float(s.sum(dtype=np.float64)) for s in spikes), tuple(s.size for s in spikes)
            )

        return run


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
