"""What a spiking network does on data: events inside its neurons, spikes that its layers read, one image's spikes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from pascalc.folding import Pool, Progress, fold
from pascalc.graph import Array, Model
from pascalc.modelfile import to_bytes
from pascalc.network import LayerNode
from pascalc.rounding import declare
from pascalc.runtime import InferenceSession
from pascalc.runtime.kernels import Events
from pascalc.stream import Batch, SampleStream


@dataclass(frozen=True)
class Measurement:
    """Totals over samples, from the neurons' staged NumPy kernels.

    Attributes:
        samples: how many samples there were.
        rates: by the name of the tensor that a layer reads, the spikes of one of its entries for one sample, over all
            steps: the entries that are not zero. Behind an average pooling these are no longer single spikes.
        events: by neuron label, what happened inside the neurons, for all samples together.
        trains: by neuron label, the spikes of the first sample, int8 ``[steps, neurons]``.
    """

    samples: int
    rates: dict[str, float]
    events: dict[str, Events]
    trains: dict[str, NDArray[np.int8]]


def measure(
    model: Model,
    layers: Sequence[LayerNode],
    data: SampleStream,
    batch: int,
    progress: Progress | None = None,
    pool: Pool | None = None,
) -> Measurement:
    """Run the network step by step.

    Args:
        model: an unrolled network; outputs are added to it.
        layers: its layers.
        data: inputs. What fills up the last batch of a network of a fixed batch is not counted.
        batch: samples a run.
        progress: called with (samples done, samples in all).
        pool: the workers that do it; None for this process.

    Raises:
        CompileError: the data does not fit the network.
    """
    read = {layer.source.name: layer for layer in layers if layer.spiking}
    wanted = [output for layer in read.values() for output in _count_entries(model, layer.source)]
    work = _Counting(to_bytes(model), tuple(wanted), data.fixed_batch)
    total = fold(work, data, batch, progress=progress, pool=pool)
    trains = work.session(None).trace(next(data.batches(1)).feeds)
    return Measurement(
        samples=len(data),
        rates={
            name: float(active * layer.reads.steps / max(size, 1))
            for (name, layer), (active, size) in zip(read.items(), total.entries.tolist(), strict=True)
        },
        events=total.events,
        trains={label: train[:, 0].reshape(len(train), -1) for label, train in trains.items()},
    )


@dataclass(frozen=True)
class _Counts:
    """What was counted: for each layer the entries that are not zero, and all, int64 ``[layers, 2]``; and the events by
    neuron label."""

    entries: NDArray[np.int64]
    events: dict[str, Events]

    def __add__(self, other: _Counts) -> _Counts:
        events = {label: self.events.get(label, Events()) + more for label, more in other.events.items()}
        return _Counts(self.entries + other.entries, events)


@dataclass(frozen=True)
class _Counting:
    """The network with the counts as outputs, and the batch size that it insists on."""

    network: bytes
    wanted: tuple[str, ...]
    fixed_batch: int | None

    def session(self, threads: int | None) -> InferenceSession:
        return InferenceSession(self.network, kernels="numpy", staged=True, threads=threads)

    def open(self, threads: int | None) -> Callable[[Batch], _Counts]:
        counter, size = _Counter(self.session(threads), self.wanted), self.fixed_batch or 1

        def run(batch: Batch) -> _Counts:
            entries, events = counter.run(batch.feeds)
            missing = size - batch.samples
            if missing > 0:  # what fills the batch up is its last sample, again and again
                again, filled = counter.run({name: np.repeat(a[-1:], size, 0) for name, a in batch.feeds.items()})
                entries = entries - again * missing // size
                events = {label: _less(more, filled[label], missing, size) for label, more in events.items()}
            return _Counts(entries, events)

        return run


class _Counter:
    """Runs a network batch by batch, for the counts that it gives and the events in its neurons."""

    def __init__(self, session: InferenceSession, wanted: Sequence[str]) -> None:
        self.session, self.wanted = session, wanted
        self._before: dict[str, Events] = {}

    def run(self, feeds: Mapping[str, Array]) -> tuple[NDArray[np.int64], dict[str, Events]]:
        """For each layer how many entries are not zero, and how many there are, ``[layers, 2]``; and this run's events
        by neuron label."""
        # A network whose layers all read analog values still has neurons with events.
        found = self.session.run(self.wanted or None, feeds)[: len(self.wanted)]
        events, before = self.session.events, self._before
        self._before = events
        happened = {label: _less(total, before.get(label, Events())) for label, total in events.items()}
        return np.array(found, np.int64).reshape(-1, 2), happened


def _less(events: Events, others: Events, share: int = 1, of: int = 1) -> Events:
    """Events without a share of others."""
    return Events(*(a - b * share // of for a, b in zip(astuple(events), astuple(others), strict=True)))


def _count_entries(model: Model, tensor: gs.Tensor) -> tuple[str, str]:
    """Make the number of the tensor's entries that are not zero, and of all, outputs of the network; their names."""
    nonzero = gs.Variable(model.unique_name(f"nonzero:{tensor.name}"), np.bool_, None)
    _append(model, "Cast", tensor, nonzero, to=int(onnx.TensorProto.BOOL))
    ones = gs.Variable(model.unique_name(f"ones:{tensor.name}"), np.int64, None)
    _append(model, "Cast", nonzero, ones, to=int(onnx.TensorProto.INT64))
    active = gs.Variable(model.unique_name(f"active:{tensor.name}"), np.int64, [])
    _append(model, "ReduceSum", ones, active, keepdims=0)
    size = gs.Variable(model.unique_name(f"size:{tensor.name}"), np.int64, [])
    _append(model, "Size", tensor, size)
    model.interface_outputs += [declare(active), declare(size)]
    return active.name, size.name


def _append(model: Model, operator: str, source: gs.Tensor, out: gs.Tensor, **attributes: int) -> None:
    name = model.unique_name(f"{out.name}/{operator}")
    model.graph.nodes.append(gs.Node(operator, name, attrs=attributes, inputs=[source], outputs=[out]))
