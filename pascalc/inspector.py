"""inspect: what is in a network, source or compiled."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from pascalc import pipeline
from pascalc.graph import Model, is_ours
from pascalc.linear import is_layer, macs, product_macs
from pascalc.modelfile import load
from pascalc.neurons import analysed_neurons, is_spiking, neurons
from pascalc.ops import DOMAIN, QCFS
from pascalc.passes import UNROLLED
from pascalc.timing import Analog, Const, Declined, Spikes, TimeType, Train, decide, own_output


@dataclass(frozen=True)
class NeuronInfo:
    """A layer of neurons: ``theta`` is a number, or ``[smallest, largest]`` over the channels; L where it was folded
    into the weights. ``fan_in`` is the number of products that a neuron's input sums, None where layers are mixed."""

    name: str
    theta: float | list[float]
    levels: int
    steps_in: int
    steps_out: int
    fan_in: int | None


@dataclass(frozen=True)
class Inspection:
    """A network's interface, neurons, what does not spike, and its multiply-accumulates for one sample.

    ``spiking_macs`` are those of ``macs`` whose input is a train: accumulates for spikes, where the train is one.
    """

    inputs: list[str]
    outputs: list[str]
    neurons: list[NeuronInfo]
    not_spiking: list[str]
    macs: int
    spiking_macs: int
    metadata: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """The inspection as plain values."""
        return asdict(self)


def inspect(path: str | Path) -> Inspection:
    """Inspect an ONNX file; a source network is shown as it would be compiled.

    Raises:
        CompileError: the file cannot be read, or cannot be compiled.
    """
    model = load(path)
    if is_spiking(model) or "pascalc.version" in model.metadata:
        analysed_neurons(model)
        return inspect_model(model)
    as_trained = {n.name: n.threshold for n in analysed_neurons(load(path))}
    pipeline.run(model, UNROLLED)
    return inspect_model(model, as_trained)


def inspect_model(model: Model, thresholds: dict[str, Any] | None = None) -> Inspection:
    """Inspect a model in memory; ``thresholds`` are shown in place of the graph's own."""
    found = [
        NeuronInfo(
            name=n.name,
            theta=_theta((thresholds or {}).get(n.name, n.threshold)),
            levels=n.levels,
            steps_in=n.steps_in,
            steps_out=n.steps_out,
            fan_in=n.fan_in,
        )
        for n in neurons(model)
    ]
    counts = [(macs(node) if is_layer(node) else product_macs(node)) or 0 for node in model.graph.nodes]
    spiking = _fed_by_trains(model)
    noted = [f"{n.node}: {n.reason}" for n in model.notes if n.source == "unroll-time"]
    return Inspection(
        inputs=[_describe(v) for v in model.interface_inputs],
        outputs=[_describe(v) for v in model.interface_outputs],
        neurons=found,
        not_spiking=noted or _recorded(model),
        macs=sum(counts),
        spiking_macs=sum(n for n, node in zip(counts, model.graph.nodes, strict=True) if id(node) in spiking),
        metadata={k: v for k, v in model.metadata.items() if k.startswith("pascalc.")},
    )


def _fed_by_trains(model: Model) -> set[int]:
    """The nodes (by identity) that work on trains; the counts of a collapsed network and the levels of a source stand
    for trains. In an unrolled network sums over time are explicit, elsewhere the rules say what would be summed."""
    unrolled = is_spiking(model)
    types: dict[int, TimeType] = {id(t): Analog() for t in model.graph.inputs}
    found: set[int] = set()
    for node in model.graph.nodes:
        given = tuple(types.get(id(t), Const()) for t in node.inputs)
        if is_ours(node, QCFS.name):
            output: TimeType = Spikes(node.attrs["levels"], height=1.0)
        elif node.domain == DOMAIN:
            output = own_output(node, given[0])
        else:
            output = next((t for t in given if isinstance(t, Train)), Analog())
            if not unrolled:
                try:
                    output = decide(node, given).output
                except Declined:
                    output = Analog()
            if isinstance(output, Train):
                found.add(id(node))
        types.update((id(t), output) for t in node.outputs)
    return found


def _recorded(model: Model) -> list[str]:
    """What the compiler noted in the file; nothing where the entry is not the compiler's."""
    try:
        lines = json.loads(model.metadata.get("pascalc.not_spiking", "[]"))
    except ValueError:
        return []
    return [str(line) for line in lines] if isinstance(lines, list) else []


def _theta(values: Any) -> float | list[float]:
    array = np.asarray(values)
    return float(array.reshape(-1)[0]) if array.size == 1 else [float(array.min()), float(array.max())]


def _describe(value: onnx.ValueInfoProto) -> str:
    tensor = value.type.tensor_type
    dims = "x".join(str(d.dim_value) if d.HasField("dim_value") else d.dim_param or "?" for d in tensor.shape.dim)
    return f"{value.name}: {onnx.TensorProto.DataType.Name(tensor.elem_type).lower()}[{dims}]"
