"""What passes rely on and ensure, as facts that can be looked up in the graph.

A fact is looked up behind each pass that provides it, and again before each pass that requires it, so that a pass
between them that breaks it is told, too (pascalc/pipeline.py). That reads the graph once and no weights, so it costs
next to nothing. A fact says only what really follows from what the passes promise: where one does not hold, the fault
is ours, whatever the file is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from pascalc import ops
from pascalc.activations import has_thresholds, is_activation, theta
from pascalc.constants import is_known, is_static
from pascalc.graph import BATCH, Model, NoteKind, captured, has_tensor, is_constant, is_operator, is_ours
from pascalc.timing import own_steps_in


@dataclass(frozen=True)
class Fact:
    """Something that is true of a graph.

    Attributes:
        name: as docs and messages call it.
        doc: what it says, in one line.
        holds: looks it up in a network; "" where it is true, else what is wrong.
    """

    name: str
    doc: str
    holds: Callable[[Model], str]


def _name(node: gs.Node) -> str:
    return str(node.name or node.outputs[0].name)


def _intact(model: Model) -> str:
    known = {id(tensor) for tensor in model.graph.inputs}
    for node in model.graph.nodes:
        inner = [t for t in captured(node) if t.inputs]  # the others are a subgraph's own
        for tensor in (*node.inputs, *inner):
            if id(tensor) not in known and not is_constant(tensor) and not tensor.is_empty():
                return f"{_name(node)} uses '{tensor.name}', which nothing before it computes"
        known.update(id(tensor) for tensor in node.outputs)
    for tensor in model.graph.outputs:
        if id(tensor) not in known and not is_constant(tensor):
            return f"nothing computes the output '{tensor.name}'"
    names = [tensor.name for tensor in model.graph.outputs]
    wanted = [value.name for value in model.interface_outputs]
    return "" if names == wanted else f"the outputs are {names}, not {wanted}"


def _shapes(model: Model) -> str:
    tensors = {tensor.name: tensor for tensor in model.graph.inputs}
    for number, value in enumerate(model.interface_inputs):
        dims = value.type.tensor_type.shape.dim
        tensor = tensors.get(value.name)
        if tensor is None:
            continue
        if tensor.shape is None or len(tensor.shape) != len(dims):
            return f"the input '{value.name}' has {len(dims)} dimensions, but the shape {tensor.shape}"
        if dims and (number == 0 or not dims[0].HasField("dim_value")) and tensor.shape[0] != BATCH:
            return f"the first axis of the input '{value.name}' is {tensor.shape[0]}, not the batch"
    return ""


def _constants(model: Model) -> str:
    told = {note.node for note in model.noted(NoteKind.REFUSED)}
    for node in model.graph.nodes:
        if is_known(model, node) and all(is_static(t) for t in node.outputs) and _name(node) not in told:
            return f"{_name(node)} depends on constants alone"
    return ""


def _activations(model: Model) -> str:
    labels: set[str] = set()
    for node in model.graph.nodes:
        if not is_ours(node, *ops.OPERATORS):
            continue
        label, levels = node.attrs.get("label"), node.attrs.get("levels")
        if not is_activation(node):
            return f"{_name(node)} is a {node.op}, which is no activation of a source"
        if not label or label in labels:
            return f"{_name(node)} has no label of its own"
        if not isinstance(levels, int) or not 1 <= levels <= ops.MAX_LEVELS:
            return f"{label} has {levels} levels"
        if not isinstance(node.attrs.get("phi"), float):
            return f"{label} has no phi"
        for index in (1, 2) if has_thresholds(node) else (1,):
            if not has_tensor(node, index) or not is_constant(node.inputs[index]):
                return f"a parameter of {label} is not a constant"
        labels.add(label)
    return ""


def _thresholds(model: Model) -> str:
    for node in model.graph.nodes:
        if is_activation(node):
            threshold = theta(node)
            if not np.all((threshold > 0) & (threshold < np.inf)):
                return f"a threshold of {_name(node)} is zero, negative, infinite or NaN"
    return ""


def _biases(model: Model) -> str:
    told = {note.node for note in model.noted(NoteKind.REFUSED)}
    for node in model.graph.nodes:
        if is_operator(node, "BatchNormalization") and _name(node) not in told:
            return f"{_name(node)} is a BatchNormalization, and no note says why"
    return ""


def _neurons(model: Model) -> str:
    for node in model.graph.nodes:
        if is_activation(node):
            return f"{_name(node)} is a {node.op}, which is no spiking neuron"
        if node.domain == ops.DOMAIN and ops.spiking_neuron(node.op) is not None:
            steps = [node.attrs.get(key) for key in ("steps_in", "steps_out")]
            if not all(isinstance(n, int) and n >= 1 for n in steps):
                return f"{_name(node)} takes {steps[0]} steps and sends {steps[1]}"
    return ""


#: The first axis of a train.
_TRAIN = re.compile(rf"(\d+)\*{BATCH}")


def _steps(tensor: gs.Tensor) -> int | None:
    """The number of steps that a tensor's shape tells; None where it tells nothing."""
    first = tensor.shape[0] if tensor.shape else None
    train = _TRAIN.fullmatch(first) if isinstance(first, str) else None
    return int(train[1]) if train else 1 if first == BATCH else None


def _time(model: Model) -> str:
    for node in model.graph.nodes:
        if node.domain == ops.DOMAIN:
            given, wanted = _steps(node.inputs[0]), own_steps_in(node)
            if given not in (None, wanted):
                return f"{_name(node)} takes {wanted} steps and gets {given}"
    for tensor in model.graph.outputs:
        if _steps(tensor) not in (None, 1):
            return f"the output '{tensor.name}' is a train"
    return ""


def _batch(model: Model) -> str:
    for value in (*model.interface_inputs, *model.interface_outputs):
        dims = value.type.tensor_type.shape.dim
        if dims and dims[0].HasField("dim_value"):
            return f"the batch size of '{value.name}' is {dims[0].dim_value}"
    return ""


#: What every pass promises: valid network in, valid network out.
INTACT = Fact("intact", "Every tensor is computed before it is used, and the outputs are the source's.", _intact)
SHAPES = Fact("shapes", "Inputs have their declared number of dimensions, the first of which is the batch.", _shapes)
CONSTANTS = Fact("constants", "What depends on constants alone is a constant, or a note says why not.", _constants)
QCFS = Fact(
    "qcfs",
    "Activations are operators, each with a label of its own, levels, phi and constant parameters.",
    _activations,
)
THRESHOLDS = Fact("thresholds", "Every threshold is finite and above zero.", _thresholds)
BIASES = Fact(
    "biases", "No BatchNormalization is left behind the layers, save those of which a note says why.", _biases
)
NEURONS = Fact("neurons", "Every activation is a spiking neuron that says its steps.", _neurons)
TIME = Fact("time", "Operators get trains of the steps that they declare, and no output is a train.", _time)
BATCHES = Fact("batches", "No input and no output has a fixed batch size.", _batch)

#: All of them, in the order of the pipeline.
FACTS = (INTACT, SHAPES, CONSTANTS, QCFS, BATCHES, THRESHOLDS, BIASES, NEURONS, TIME)
