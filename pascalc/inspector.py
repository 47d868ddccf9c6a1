"""inspect: what is in a network, source or compiled."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx

from pascalc import pipeline
from pascalc.graph import Model, NoteKind
from pascalc.metadata import recorded_not_spiking
from pascalc.modelfile import load
from pascalc.network import layout, threshold_range
from pascalc.neurons import analysed_neurons, distinct, is_compiled
from pascalc.passes import UNROLLED


@dataclass(frozen=True)
class NeuronInfo:
    """A layer of neurons: ``theta`` is a number, or ``[smallest, largest]`` where channels differ; L where it was
    folded into the weights. ``fan_in`` is the number of products that a neuron's input sums, None where layers are
    mixed."""

    name: str
    theta: float | list[float]
    levels: int
    steps_in: int
    steps_out: int
    fan_in: int | None


@dataclass(frozen=True)
class Inspection:
    """A network's interface, neurons, what does not spike, and its multiply-accumulates for one sample.

    ``spiking_macs`` are those of ``macs`` whose input is a train of spikes, not of sums or averages of spikes. Both are
    None where the shapes of a layer are not known.
    """

    inputs: list[str]
    outputs: list[str]
    neurons: list[NeuronInfo]
    not_spiking: list[str]
    macs: int | None
    spiking_macs: int | None
    metadata: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """The inspection as plain values."""
        return asdict(self)


def inspect(path: str | Path) -> Inspection:
    """Inspect an ONNX file; a source network is shown as it would be compiled.

    Raises:
        CompileError: the file cannot be read, or cannot be compiled, or two layers of neurons have one label.
    """
    model = distinct(load(path))
    if is_compiled(model):
        analysed_neurons(model)
        return inspect_model(model)
    as_trained = {n.name: n.threshold for n in analysed_neurons(load(path))}
    pipeline.run(model, UNROLLED)
    return inspect_model(model, as_trained)


def inspect_model(model: Model, thresholds: dict[str, Any] | None = None) -> Inspection:
    """Inspect a model in memory; ``thresholds`` are shown in place of the graph's own."""
    network = layout(model)
    found = [
        NeuronInfo(
            name=n.name,
            theta=threshold_range((thresholds or {}).get(n.name, n.threshold)),
            levels=n.levels,
            steps_in=n.steps_in,
            steps_out=n.steps_out,
            fan_in=network.fan_in(n),
        )
        for n in network.neurons
    ]
    counted = network.macs
    noted = [str(note) for note in model.noted(NoteKind.NOT_SPIKING)]
    return Inspection(
        inputs=[_describe(v) for v in model.interface_inputs],
        outputs=[_describe(v) for v in model.interface_outputs],
        neurons=found,
        not_spiking=noted or recorded_not_spiking(model.metadata),
        macs=None if counted is None else counted.total,
        spiking_macs=None if counted is None else counted.on_spikes,
        metadata={k: v for k, v in model.metadata.items() if k.startswith("pascalc.")},
    )


def _describe(value: onnx.ValueInfoProto) -> str:
    tensor = value.type.tensor_type
    dims = "x".join(str(d.dim_value) if d.HasField("dim_value") else d.dim_param or "?" for d in tensor.shape.dim)
    return f"{value.name}: {onnx.TensorProto.DataType.Name(tensor.elem_type).lower()}[{dims}]"
