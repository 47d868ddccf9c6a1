"""The neurons of a network as records, each with a label: what evaluation and verification read from the graph."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from pascalc import ops, pipeline
from pascalc.activations import has_thresholds, is_activation, theta
from pascalc.errors import CompileError
from pascalc.graph import Model, has_tensor, is_constant, is_ours, producer
from pascalc.passes import ANALYSIS


def is_neuron(node: gs.Node) -> bool:
    """Whether the node is a spiking neuron, or the activation of a collapsed network."""
    return node.domain == ops.DOMAIN and (is_activation(node) or ops.spiking_neuron(node.op) is not None)


@dataclass(frozen=True)
class Neuron:
    """One layer of neurons (or of QCFS activations, which are neurons of a single step).

    Attributes:
        threshold: theta as the node has it, a scalar or one value a channel; L where it was folded into the weights.
        parameters: the inputs of the node behind the current, as they are: theta; or a threshold for each level, and
            the height of a level.
    """

    name: str
    node: gs.Node
    levels: int
    phi: float
    threshold: np.ndarray[Any, np.dtype[Any]]
    parameters: tuple[np.ndarray[Any, np.dtype[Any]], ...]
    steps_in: int
    steps_out: int

    def alone(self) -> Neuron:
        """The record without the graph around it, which holds all weights."""
        node = gs.Node(self.node.op, self.node.name, attrs=dict(self.node.attrs), domain=self.node.domain)
        return replace(self, node=node)

    @property
    def model(self) -> type[ops.NeuronModel] | None:
        """Its neuron model; None for an activation."""
        return ops.spiking_neuron(self.node.op)

    @property
    def most(self) -> int:
        """The count that stands for theta: L, or another number of some neuron models."""
        return self.levels if self.model is None else self.model.most(self.levels, self.steps_out)

    @property
    def thresholds(self) -> np.ndarray[Any, np.dtype[Any]] | None:
        """The threshold of each level, ``[levels, 1, ...]``, where they are given one by one."""
        return self.parameters[0] if has_thresholds(self.node) else None

    @property
    def unit(self) -> np.ndarray[Any, np.dtype[Any]]:
        """The height of one spike, theta/L; theta over another number for some neuron models."""
        if self.thresholds is not None:
            return self.parameters[1]
        return np.asarray(self.threshold / self.threshold.dtype.type(self.most))

    @property
    def in_range(self) -> bool:
        """Whether theta > 0, L/theta and theta/L are all numbers that floats of this type hold with full precision."""
        if self.threshold.dtype.kind != "f":
            return False
        kind = np.finfo(self.threshold.dtype)
        with np.errstate(all="ignore"):
            values = [self.threshold, self.threshold.dtype.type(self.most) / self.threshold, self.unit]
            return all(bool(np.all(np.isfinite(v) & (v >= kind.tiny))) for v in values)


def neurons(model: Model) -> list[Neuron]:
    """The network's layers of neurons, in the order of the graph.

    Raises:
        CompileError: a neuron lacks an attribute, or its threshold is computed.
    """
    found = []
    for node in model.graph.nodes:
        if is_neuron(node):
            _check(model, node)
            found.append(
                Neuron(
                    name=node.attrs["label"],
                    node=node,
                    levels=node.attrs["levels"],
                    phi=node.attrs["phi"],
                    threshold=theta(node),
                    parameters=tuple(np.asarray(t.values) for t in node.inputs[1:]),
                    steps_in=node.attrs.get("steps_in", 1),
                    steps_out=node.attrs.get("steps_out", 1),
                )
            )
    return found


_PYTHON_TYPES = {"int": int, "float": float, "string": str}


def _check(model: Model, node: gs.Node) -> None:
    attributes = ops.OPERATORS[node.op].attributes
    missing = {a.name for a in attributes} - set(node.attrs)
    name = node.name or node.outputs[0].name
    if missing:
        raise CompileError(f"a neuron has no attribute {', '.join(sorted(missing))}", file=model.file, node=name)
    for attribute in attributes:
        if type(node.attrs[attribute.name]) is not _PYTHON_TYPES[attribute.type]:
            reason = f"the attribute {attribute.name} of a neuron is not of the type {attribute.type}"
            raise CompileError(reason, file=model.file, node=name)
    for index in range(1, len(ops.OPERATORS[node.op].inputs)):
        if not has_tensor(node, index) or not is_constant(node.inputs[index]):
            raise CompileError("the threshold of a neuron must be an initializer", file=model.file, node=name)


def analysed_neurons(model: Model) -> list[Neuron]:
    """The network's layers of neurons, with shapes inferred; a source network's activations are recognised first."""
    pipeline.run(model, ANALYSIS[:-1] if is_spiking(model) else ANALYSIS)
    return neurons(model)


def is_spiking(model: Model) -> bool:
    """Whether the network is stepped through time."""
    return any(is_ours(node, *ops.OPERATORS) and node.op not in ops.ACTIVATIONS for node in model.graph.nodes)


def is_compiled(model: Model) -> bool:
    """Whether the network came out of the compiler: it spikes, or says so."""
    return is_spiking(model) or "pascalc.version" in model.metadata


def distinct(model: Model) -> Model:
    """A network as it was loaded, if it is a source, whose activations get labels of their own when they are
    recognised, or if the labels of its neurons differ.

    Raises:
        CompileError: two neurons of a compiled network have one label.
    """
    seen: set[str] = set()
    labelled = [node for node in model.graph.nodes if is_neuron(node) and "label" in node.attrs]
    for label in (node.attrs["label"] for node in labelled if is_compiled(model)):
        if label in seen:
            raise CompileError(
                "two layers of neurons have this label",
                file=model.file,
                node=label,
                hint="Compile the source network again, or give each a label of its own.",
            )
        seen.add(label)
    return model


def add_spikes(model: Model, neuron: Neuron, name: str) -> gs.Tensor:
    """A tensor of the given name holding the sum of a neuron's train over its time steps, or what a QCFS gives."""
    tensor, steps = neuron.node.outputs[0], neuron.steps_out
    out = gs.Variable(model.unique_name(name), tensor.dtype, None)
    operator, attrs = (ops.ACCUMULATE.name, {"steps": steps}) if steps > 1 else ("Identity", {})
    domain = ops.DOMAIN if steps > 1 else None
    label = model.unique_name(f"{name}/{operator}")
    model.graph.nodes.append(gs.Node(operator, label, attrs=attrs, inputs=[tensor], outputs=[out], domain=domain))
    return out


def before_accumulate(tensor: gs.Tensor) -> gs.Tensor:
    """The train behind a network output, or the tensor itself."""
    node = producer(tensor)
    if node is None:
        return tensor
    sums = is_ours(node, ops.ACCUMULATE.name) or (is_ours(node, ops.RETIME.name) and not node.attrs["weighting"])
    return node.inputs[0] if sums else tensor
