"""A network whose levels, thresholds and shifts can be set anew for every run, and what a setting does to its output.

One onnxruntime session serves all plans: the parameters of the QCFS activations are inputs (see ``explicit``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import add

import numpy as np
import numpy.typing as npt

from pascalc import pipeline
from pascalc.answers import agreeing, answers, scores
from pascalc.errors import CompileError
from pascalc.folding import Pool, Progress, fold
from pascalc.graph import Array, Model, sweep
from pascalc.modelfile import to_bytes
from pascalc.neurons import Neuron, neurons
from pascalc.passes import ANALYSIS
from pascalc.planning.explicit import make_adjustable
from pascalc.rounding import declare
from pascalc.runtime import InferenceSession
from pascalc.source import Network, Source, network_of
from pascalc.stream import Batch, SampleStream

#: Factors on the logits that divergence is computed at.
_FACTORS = (0.8, 0.9, 1.0, 1.1, 1.2, 1.35, 1.5, 1.75, 2.0)


@dataclass(frozen=True)
class Setting:
    """Parameters of the QCFS activations, by label; what is not named stays as in the source.

    Attributes:
        levels: L.
        thresholds: theta, shaped to broadcast against a sample.
        shifts: what is added to the pre-activation, shaped to broadcast against a sample.
    """

    levels: Mapping[str, int] = field(default_factory=dict)
    thresholds: Mapping[str, Array] = field(default_factory=dict)
    shifts: Mapping[str, Array] = field(default_factory=dict)

    def at(self, levels: Mapping[str, int]) -> Setting:
        """This setting with other levels."""
        return replace(self, levels=dict(levels))


@dataclass(frozen=True)
class Effect:
    """What a setting does to the network's first output, beside the source.

    Attributes:
        samples: how many were compared.
        agreement: the share of samples that are classified as by the source, in [0, 1]; None where the output is no
            classification (`pascalc.answers`).
        divergence: the mean Kullback-Leibler divergence of the class probabilities from the source's, in nats, at the
            factor on the logits that makes it least, which no classification depends on; a smooth measure where
            agreement counts single samples. 1 - agreement where the output is a class; None where it is neither.
        accuracy: the share of samples that get their label; None without labels, and where the output is not one class
            a sample.
    """

    samples: int
    agreement: float | None
    divergence: float | None
    accuracy: float | None


class AdjustableNetwork:
    """The source network in one session, and its beginnings in sessions of their own.

    Args:
        source: the ONNX file of a network with QCFS activations.
        threads: threads of onnxruntime; by default one for each core.

    Attributes:
        output: the name of the first output, which is looked at.
        labels: the activations' labels, in the network's order.
        levels: L of each in the source, by label.
        thresholds: theta of each in the source, by label.
        phi: the shift before the floor of each, by label.

    Raises:
        CompileError: the file cannot be read, or has no QCFS activation.
    """

    def __init__(self, source: Network, threads: int | None = None) -> None:
        model = network_of(source)
        self.output = model.interface_outputs[0].name
        pipeline.run(model, ANALYSIS)
        layers = planned_neurons(model)
        self.labels = [layer.name for layer in layers]
        self.levels = {layer.name: layer.levels for layer in layers}
        self.thresholds = {layer.name: layer.threshold for layer in layers}
        self.phi = {layer.name: layer.phi for layer in layers}
        make_adjustable(model)
        self._session = InferenceSession(to_bytes(model), threads=threads)
        self._source, self._threads = Source.of(source), threads

    def __reduce__(self) -> tuple[type[AdjustableNetwork], tuple[Source, int]]:
        """For a worker, which has one thread."""
        return AdjustableNetwork, (self._source, 1)

    def run(self, feeds: Mapping[str, Array], setting: Setting) -> Array:
        """The network's first output for a batch."""
        return self._session.run([self.output], {**feeds, **self.parameters(setting)})[0]

    def before(self, label: str) -> Callable[[Mapping[str, Array], Setting], Array]:
        """A function of feeds and a setting that gives the pre-activation of one activation, before any shift; it runs
        no more of the network than that needs."""
        model = self._source.model()
        pipeline.run(model, ANALYSIS)
        tensor = make_adjustable(model)[label]
        model.graph.outputs[:] = [tensor]
        model.interface_outputs[:] = [declare(tensor)]
        sweep(model)
        used = {t.name for node in model.graph.nodes for t in node.inputs} | {tensor.name}
        model.graph.inputs[:] = [t for t in model.graph.inputs if t.name in used]
        model.interface_inputs[:] = [v for v in model.interface_inputs if v.name in used]
        session = InferenceSession(to_bytes(model), threads=self._threads)
        wanted = {value.name for value in session.inputs}

        def run(feeds: Mapping[str, Array], setting: Setting) -> Array:
            given = {**feeds, **self.parameters(setting)}
            return session.run([tensor.name], {name: given[name] for name in wanted})[0]

        return run

    def parameters(self, setting: Setting) -> dict[str, Array]:
        """The setting as inputs of the session."""
        feeds: dict[str, Array] = {}
        for name in self.labels:
            dtype = self.thresholds[name].dtype
            feeds[f"levels:{name}"] = np.asarray(setting.levels.get(name, self.levels[name]), dtype)
            feeds[f"threshold:{name}"] = np.asarray(setting.thresholds.get(name, self.thresholds[name]), dtype)
            feeds[f"shift:{name}"] = np.asarray(setting.shifts.get(name, 0), dtype)
        return feeds


def effects(
    network: AdjustableNetwork,
    samples: SampleStream,
    settings: Sequence[Setting],
    *,
    batch: int = 64,
    progress: Progress | None = None,
    pool: Pool | None = None,
) -> list[Effect]:
    """What settings do, in one pass over the samples; memory does not grow with their number.

    Args:
        network: the network.
        samples: the samples, with labels where accuracy is wanted.
        settings: the settings; ``Setting()`` is the source itself.
        batch: samples a run.
        progress: called with (samples done, samples in all).
        pool: the workers that do it; None for this process.

    Raises:
        CompileError: the data is damaged.
    """
    total = fold(_Comparing(network, tuple(settings)), samples, batch, progress=progress, pool=pool)
    return [one.effect() for one in total.totals]


@dataclass(frozen=True)
class _Total:
    """What one setting does, added up over samples; None what is not known of some of them."""

    samples: int
    agreeing: int | None
    divergence: npt.NDArray[np.float64]
    correct: int | None

    @classmethod
    def of(cls, count: int, reference: Array, output: Array, labels: Array | None) -> _Total:
        """Of one batch."""
        reference, output = (x[:count] if x.ndim else x for x in (reference, output))
        same = agreeing(reference, output)
        if same is None:
            return cls(count, None, np.zeros(len(_FACTORS)), None)
        expected, given, named = scores(reference), scores(output), answers(output)
        if expected is None or given is None:
            divergence = np.full(len(_FACTORS), float(np.count_nonzero(~same)))
        else:
            divergence = _divergence(expected, given)
        correct = None if labels is None or named is None else int(np.count_nonzero(named == labels))
        return cls(count, int(same.sum()), divergence, correct)

    def __add__(self, other: _Total) -> _Total:
        return _Total(
            self.samples + other.samples,
            None if self.agreeing is None or other.agreeing is None else self.agreeing + other.agreeing,
            self.divergence + other.divergence,
            None if self.correct is None or other.correct is None else self.correct + other.correct,
        )

    def effect(self) -> Effect:
        accuracy = None if self.correct is None else self.correct / self.samples
        if self.agreeing is None:
            return Effect(self.samples, None, None, accuracy)
        return Effect(self.samples, self.agreeing / self.samples, float(self.divergence.min()) / self.samples, accuracy)


@dataclass(frozen=True)
class _Totals:
    """Those of several settings."""

    totals: tuple[_Total, ...]

    def __add__(self, other: _Totals) -> _Totals:
        return _Totals(tuple(map(add, self.totals, other.totals)))


@dataclass(frozen=True)
class _Comparing:
    """The network at several settings, beside the source."""

    network: AdjustableNetwork
    settings: tuple[Setting, ...]

    def open(self, threads: int | None) -> Callable[[Batch], _Totals]:
        def run(batch: Batch) -> _Totals:
            reference = self.network.run(batch.feeds, Setting())
            outputs = (self.network.run(batch.feeds, setting) for setting in self.settings)
            return _Totals(tuple(_Total.of(batch.samples, reference, output, batch.labels) for output in outputs))

        return run


def planned_neurons(model: Model) -> list[Neuron]:
    """The activations of a network with explicit QCFS activations.

    Raises:
        CompileError: there are none.
    """
    found = neurons(model)
    if not found:
        raise CompileError("this network has no QCFS activation to plan levels for", file=model.file)
    return found


def _divergence(reference: Array, output: Array) -> npt.NDArray[np.float64]:
    """KL(reference || output) at each factor, summed over the samples; of several positions in a sample the mean."""
    p, q = (_log_probabilities(x) for x in (reference, output))
    weights, totals = np.exp(p), np.zeros(len(_FACTORS))
    for index, factor in enumerate(_FACTORS):
        divergence = np.maximum((weights * (p - _normalised(factor * q))).sum(1), 0)
        totals[index] = divergence.reshape(len(divergence), -1).mean(1).sum()
    return totals


def _log_probabilities(output: Array) -> npt.NDArray[np.float64]:
    """Logarithms of class probabilities along axis 1, from logits or from probabilities."""
    values = output.astype(np.float64)
    if values.min() >= 0 and np.allclose(values.sum(1), 1, atol=1e-3):
        values = np.log(np.maximum(values, 1e-12))
    return _normalised(values)


def _normalised(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    shifted = logits - logits.max(1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)))
