"""What a spiking network does on data: events inside its neurons, spikes that its layers read, one image's spikes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from pascalc.data import Data
from pascalc.graph import Model
from pascalc.modelfile import to_bytes
from pascalc.reporter.layers import LayerNode
from pascalc.rounding import declare
from pascalc.runtime import InferenceSession
from pascalc.runtime.kernels import Events

Progress = Callable[[int, int], None]


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
    model: Model, layers: Sequence[LayerNode], data: Data, batch: int, progress: Progress | None
) -> Measurement:
    """Run the network step by step.

    Args:
        model: an unrolled network; outputs are added to it.
        layers: its layers.
        data: inputs. A network of a fixed batch leaves an incomplete last batch out, unless it is the only one.
        batch: samples a run.
        progress: called with (samples done, samples in all).

    Raises:
        CompileError: the data does not fit the network.
    """
    read = {layer.source.name: layer for layer in layers if layer.spiking}
    for name, layer in read.items():
        _count_entries(model, layer.source, name)
    session = InferenceSession(to_bytes(model), kernels="numpy", staged=True)
    wanted = [f"{kind}:{name}" for name in read for kind in ("active", "size")]
    totals = np.zeros((len(read), 2), np.int64)
    samples, first = 0, None
    for feeds, part in data.batches(batch):
        if data.fixed_batch and samples and part.stop - part.start < data.fixed_batch:
            break
        first = feeds if first is None else first
        # A network whose layers all read analog values still has neurons with events.
        found = session.run(wanted or None, feeds)
        totals += np.array(found[: len(wanted)], np.int64).reshape(-1, 2) if wanted else 0
        samples += len(next(iter(feeds.values())))
        if progress is not None:
            progress(part.stop, len(data))
    events = session.events
    assert first is not None  # data is never empty
    count = data.fixed_batch or 1
    trains = session.trace({name: array[:count] for name, array in first.items()})
    return Measurement(
        samples=samples,
        rates={
            name: float(active * layer.reads.steps / max(size, 1))
            for (name, layer), (active, size) in zip(read.items(), totals.tolist(), strict=True)
        },
        events=events,
        trains={label: train[:, 0].reshape(len(train), -1) for label, train in trains.items()},
    )


def _count_entries(model: Model, tensor: gs.Tensor, name: str) -> None:
    """Make the number of the tensor's entries, and of those that are not zero, outputs of the network."""
    nonzero = gs.Variable(model.unique_name(f"nonzero:{name}"), np.bool_, None)
    _append(model, "Cast", tensor, nonzero, to=int(onnx.TensorProto.BOOL))
    ones = gs.Variable(model.unique_name(f"ones:{name}"), np.int64, None)
    _append(model, "Cast", nonzero, ones, to=int(onnx.TensorProto.INT64))
    active = gs.Variable(f"active:{name}", np.int64, [])
    _append(model, "ReduceSum", ones, active, keepdims=0)
    size = gs.Variable(f"size:{name}", np.int64, [])
    _append(model, "Size", tensor, size)
    model.interface_outputs += [declare(active), declare(size)]


def _append(model: Model, operator: str, source: gs.Tensor, out: gs.Tensor, **attributes: int) -> None:
    name = model.unique_name(f"{out.name}/{operator}")
    model.graph.nodes.append(gs.Node(operator, name, attrs=attributes, inputs=[source], outputs=[out]))
