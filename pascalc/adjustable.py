"""A network whose levels, thresholds and shifts can be set anew for every run, and what a setting does to its output.

One onnxruntime session serves all plans: the parameters of the QCFS activations are inputs (`pascalc.explicit`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pascalc import pipeline
from pascalc.errors import CompileError
from pascalc.explicit import make_adjustable
from pascalc.graph import Array
from pascalc.modelfile import load, to_bytes
from pascalc.neurons import neurons
from pascalc.passes import ANALYSIS
from pascalc.runtime import InferenceSession
from pascalc.streaming import SampleStream

Progress = Callable[[int, int], None]


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
        agreement: the share of samples that are classified as by the source, in [0, 1].
        divergence: the mean Kullback-Leibler divergence of the class probabilities from the source's, in nats; a
            smooth measure where agreement counts single samples. 1 - agreement where the output is a class.
        accuracy: the share of samples that get their label; None without labels.
    """

    samples: int
    agreement: float
    divergence: float
    accuracy: float | None


class AdjustableNetwork:
    """The source network in one session.

    Args:
        source: the ONNX file of a network with QCFS activations.

    Attributes:
        labels: the activations' labels, in the network's order.
        levels: L of each in the source, by label.

    Raises:
        CompileError: the file cannot be read, or has no QCFS activation.
    """

    def __init__(self, source: str | Path) -> None:
        model = load(source)
        self.output = model.interface_outputs[0].name
        pipeline.run(model, ANALYSIS)
        layers = neurons(model)
        if not layers:
            raise CompileError("this network has no QCFS activation", file=source)
        self.labels = [layer.name for layer in layers]
        self.levels = {layer.name: layer.levels for layer in layers}
        self._thresholds = {layer.name: layer.threshold for layer in layers}
        make_adjustable(model)
        self._session = InferenceSession(to_bytes(model))

    def run(self, feeds: Mapping[str, Array], setting: Setting) -> Array:
        """The network's first output for a batch."""
        return self._session.run([self.output], {**feeds, **self.parameters(setting)})[0]

    def parameters(self, setting: Setting) -> dict[str, Array]:
        """The setting as inputs of the session."""
        feeds: dict[str, Array] = {}
        for name in self.labels:
            dtype = self._thresholds[name].dtype
            feeds[f"levels:{name}"] = np.asarray(setting.levels.get(name, self.levels[name]), dtype)
            feeds[f"threshold:{name}"] = np.asarray(setting.thresholds.get(name, self._thresholds[name]), dtype)
            feeds[f"shift:{name}"] = np.asarray(setting.shifts.get(name, 0), dtype)
        return feeds


def effects(
    network: AdjustableNetwork,
    samples: SampleStream,
    settings: Sequence[Setting],
    *,
    batch: int = 64,
    progress: Progress | None = None,
) -> list[Effect]:
    """What settings do, in one pass over the samples; memory does not grow with their number.

    Args:
        network: the network.
        samples: the samples, with labels where accuracy is wanted.
        settings: the settings; ``Setting()`` is the source itself.
        batch: samples a run.
        progress: called with (samples done, samples in all).

    Raises:
        CompileError: the data is damaged.
    """
    totals = [_Total() for _ in settings]
    for feeds, part in samples.batches(batch):
        count = part.stop - part.start
        labels = None if samples.labels is None else samples.labels[part]
        reference = network.run(feeds, Setting())[:count]
        for total, setting in zip(totals, settings, strict=True):
            total.add(reference, network.run(feeds, setting)[:count], labels)
        if progress is not None:
            progress(part.stop, len(samples))
    return [total.effect() for total in totals]


@dataclass
class _Total:
    samples: int = 0
    agreeing: int = 0
    divergence: float = 0.0
    correct: int | None = 0

    def add(self, reference: Array, output: Array, labels: Array | None) -> None:
        expected, given = classes(reference), classes(output)
        agreeing = (expected == given).reshape(len(given), -1).all(1)
        self.samples += len(given)
        self.agreeing += int(agreeing.sum())
        smooth = reference.dtype.kind == "f" and reference.ndim > 1
        self.divergence += _divergence(reference, output) if smooth else float(np.count_nonzero(~agreeing))
        if labels is None or given.shape != labels.shape:
            self.correct = None
        elif self.correct is not None:
            self.correct += int(np.count_nonzero(given == labels))

    def effect(self) -> Effect:
        accuracy = None if self.correct is None else self.correct / self.samples
        return Effect(self.samples, self.agreeing / self.samples, self.divergence / self.samples, accuracy)


def classes(output: Array) -> Array:
    """The classification that an output stands for: the largest entry along axis 1, or the values of an integer
    output."""
    return np.asarray(output.argmax(1) if output.ndim > 1 and output.dtype.kind == "f" else output)


def _divergence(reference: Array, output: Array) -> float:
    """KL(reference || output), summed over the samples; of several positions in a sample the mean."""
    p, q = (_log_probabilities(x) for x in (reference, output))
    divergence = np.maximum((np.exp(p) * (p - q)).sum(1), 0)
    return float(divergence.reshape(len(divergence), -1).mean(1).sum())


def _log_probabilities(output: Array) -> npt.NDArray[np.float64]:
    """Logarithms of class probabilities along axis 1, from logits or from probabilities."""
    values = output.astype(np.float64)
    if values.min() >= 0 and np.allclose(values.sum(1), 1, atol=1e-3):
        values = np.log(np.maximum(values, 1e-12))
    values = values - values.max(1, keepdims=True)
    return np.asarray(values - np.log(np.exp(values).sum(1, keepdims=True)))
