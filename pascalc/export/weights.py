"""weights: a network as plain arrays and a list of operations, for hardware and for whoever reads no ONNX.

Two files: ``network.json`` says what is computed, in which order; ``arrays.npz`` holds the numbers. docs/export.md
describes both field by field. Train and batch share the first axis, step by step, as everywhere.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from pascalc import ops
from pascalc.errors import CompileError
from pascalc.export.base import Refusal, Target
from pascalc.graph import Array, NoteKind, has_tensor, is_constant
from pascalc.linear import is_layer
from pascalc.modelfile import to_bytes
from pascalc.network import LayerNode, Layout
from pascalc.neurons import is_neuron
from pascalc.runtime import InferenceSession
from pascalc.stream import open_samples
from pascalc.version import __version__

#: The version of the format; it changes where a reader would have to.
FORMAT = 1
#: Samples whose trains are written, where no number is asked for.
SAMPLES = 10
#: Samples a run.
_BATCH = 16


@dataclass(frozen=True)
class Weights(Target):
    """Weights, thresholds, biases, topology and expected trains, as one .npz and one .json.

    Attributes:
        data: inputs (`pascalc.stream`) whose trains are written; None for none.
        limit: only the first so many of them; None for 10.
    """

    data: str | Path | None = None
    limit: int | None = None

    name = "weights"
    carries = (
        "PASC neurons in float32; 2-D convolutions, linear layers, sums, concatenations, 2-D max and average pooling, "
        "reshapes"
    )
    loses = (
        "in which order a sum of floats is added, which can move a count at a half point; names of tensors, metadata"
    )
    proved = "NumPy 2.4: examples/weights-bundle/run.py gives every train of the shipped networks, spike for spike"

    def __post_init__(self) -> None:
        if self.data is None and self.limit is not None:
            raise CompileError(
                f"only the first {self.limit} samples are asked for, but there is no data",
                hint="Give data too: --data DATA.npz.",
            )

    def refusals(self, network: Layout) -> list[Refusal]:
        found = [Refusal(note.node, note.reason) for note in network.model.noted(NoteKind.OTHER_BODY)]
        for node in network.model.graph.nodes:
            try:
                _operation(node)
            except _Refused as error:
                found.append(Refusal(node.name or node.outputs[0].name, str(error)))
        constant = [tensor.name for tensor in network.model.graph.outputs if is_constant(tensor)]
        return found + [Refusal(name, "its output is a constant") for name in constant]

    def write(self, network: Layout, folder: Path) -> None:
        bundle = _Bundle(network)
        if self.data is not None:
            bundle.run(self.data, SAMPLES if self.limit is None else self.limit)
        (folder / "network.json").write_text(json.dumps(bundle.description(), indent=1) + "\n")
        np.savez_compressed(folder / "arrays.npz", allow_pickle=False, **bundle.arrays)


class _Refused(Exception):
    """The format has no such operation, and why."""


@dataclass(frozen=True)
class _Operation:
    """One node in the format: its kind, the computed tensors that it reads, its arrays by their role, its numbers."""

    kind: str
    reads: tuple[gs.Tensor, ...]
    arrays: dict[str, Array]
    numbers: dict[str, Any]


def _operation(node: gs.Node) -> _Operation:
    """The node as the format has it.

    Raises:
        _Refused: it has not.
    """
    standard = _OPERATIONS if (node.domain or "") == "" else _OUR_OPERATIONS if node.domain == ops.DOMAIN else {}
    if node.op not in standard:
        raise _Refused(f"it has no operator {node.op}")
    for tensor in (*node.outputs, *(t for t in node.inputs if is_constant(t) and t.dtype != np.int64)):
        if tensor.dtype != np.float32:
            raise _Refused(f"{node.op} on {np.dtype(tensor.dtype).name}, not float32")
    if len(node.outputs) != 1:
        raise _Refused(f"{node.op} with a second output")
    return standard[node.op](node)


def _convolution(node: gs.Node) -> _Operation:
    if not is_layer(node) or len(node.inputs[1].shape) != 4:
        raise _Refused("Conv over other than two axes, or by a weight that is computed")
    window = {**_window(node, node.inputs[1].shape[2:]), "group": node.attrs.get("group", 1)}
    return _Operation("Conv", (node.inputs[0],), {"weight": node.inputs[1].values, **_bias(node)}, window)


def _dense(node: gs.Node) -> _Operation:
    if not is_layer(node) or any(node.attrs.get(factor, 1.0) != 1.0 for factor in ("alpha", "beta")):
        raise _Refused(f"{node.op} that is no product with one weight, plus a bias")
    weight = node.inputs[1].values
    weight = weight.T if node.attrs.get("transB", 0) else weight
    bias = {role: values.reshape(-1) for role, values in _bias(node).items()}
    if any(values.size != weight.shape[1] for values in bias.values()):
        raise _Refused(f"{node.op} whose bias is not one value an output")
    return _Operation("Dense", (node.inputs[0],), {"weight": weight, **bias}, {})


def _bias(node: gs.Node) -> dict[str, Array]:
    if not has_tensor(node, 2):
        return {}
    if not is_constant(node.inputs[2]):
        raise _Refused(f"{node.op} with a bias that is computed")
    return {"bias": node.inputs[2].values}


def _sum(node: gs.Node) -> _Operation:
    constants = [t.values for t in node.inputs if is_constant(t)]
    if any(values.ndim == len(node.outputs[0].shape or ()) and values.shape[0] != 1 for values in constants):
        raise _Refused("Add of a constant that has a value for every sample")
    arrays = {"bias": constants[0]} if constants else {}
    return _Operation("Add", tuple(t for t in node.inputs if not is_constant(t)), arrays, {})


def _concatenation(node: gs.Node) -> _Operation:
    rank = len(node.outputs[0].shape or ())
    if not rank or node.attrs["axis"] % rank == 0 or any(is_constant(t) for t in node.inputs):
        raise _Refused("Concat over the batch, or with a constant")
    return _Operation("Concat", tuple(node.inputs), {}, {"axis": node.attrs["axis"] % rank})


def _pooling(node: gs.Node) -> _Operation:
    kernel = node.attrs.get("kernel_shape", (node.inputs[0].shape or ())[2:])
    if len(kernel) != 2 or not all(isinstance(size, int) for size in kernel) or node.attrs.get("ceil_mode", 0):
        raise _Refused(f"{node.op} over other than two axes of known size, or with ceil_mode")
    window = _window(node, kernel)
    average = node.op != "MaxPool"
    if average and (any(window["pads"]) or window["dilations"] != [1, 1]):
        raise _Refused(f"{node.op} with padding or dilations")
    return _Operation("AveragePool" if average else "MaxPool", (node.inputs[0],), {}, window)


def _window(node: gs.Node, kernel: Any) -> dict[str, Any]:
    if node.attrs.get("auto_pad", "NOTSET") != "NOTSET":
        raise _Refused(f"{node.op} with auto_pad")
    defaults = {"strides": [1, 1], "pads": [0, 0, 0, 0], "dilations": [1, 1]}
    return {"kernel": list(kernel), **{key: list(node.attrs.get(key, value)) for key, value in defaults.items()}}


def _reshape(node: gs.Node) -> _Operation:
    before, after = (list(tensor.shape or [None, None])[1:] for tensor in (node.inputs[0], node.outputs[0]))
    if not all(isinstance(size, int) for size in (*before, *after)) or prod(before) != prod(after):
        raise _Refused(f"{node.op} to a shape that is not known, or that mixes samples")
    return _Operation("Reshape", (node.inputs[0],), {}, {"shape": after})


def _own(node: gs.Node) -> _Operation:
    roles = list(ops.OPERATORS[node.op].inputs)[1:]
    arrays = {role: tensor.values for role, tensor in zip(roles, node.inputs[1:], strict=True)}
    return _Operation(node.op, (node.inputs[0],), arrays, dict(node.attrs))


_OPERATIONS: dict[str, Callable[[gs.Node], _Operation]] = {
    "Conv": _convolution,
    "Gemm": _dense,
    "MatMul": _dense,
    "Add": _sum,
    "Concat": _concatenation,
    "MaxPool": _pooling,
    "AveragePool": _pooling,
    "GlobalAveragePool": _pooling,
    "Flatten": _reshape,
    "Reshape": _reshape,
}
_OUR_OPERATIONS = dict.fromkeys(
    (operator.name for operator in (*ops.Pasc.operators(), ops.ACCUMULATE, ops.ALIGN, ops.SPREAD, ops.BIAS)), _own
)


class _Bundle:
    """The two files in the making.

    Attributes:
        arrays: what goes into the .npz, by its name there.
    """

    def __init__(self, network: Layout) -> None:
        self.network = network
        self.arrays: dict[str, Array] = {}
        self._taken: set[str] = set()
        self._names = {id(tensor): self._name(tensor.name) for tensor in network.model.graph.inputs}
        self._operations: list[dict[str, Any]] = []
        self._trains: dict[str, str] = {}
        for node in network.model.graph.nodes:
            self._add(node)

    def _name(self, wanted: str) -> str:
        name, number = wanted.strip("/"), 1
        while name in self._taken:
            number += 1
            name = f"{wanted.strip('/')}_{number}"
        self._taken.add(name)
        return name

    def _keep(self, name: str, values: Array) -> str:
        self.arrays[name] = np.ascontiguousarray(values)
        return name

    def _add(self, node: gs.Node) -> None:
        operation, output = _operation(node), node.outputs[0]
        name = self._name(node.attrs["label"] if is_neuron(node) else node.name or output.name)
        self._names[id(node)] = self._names[id(output)] = name
        reads = self.network.reads(output)
        self._operations.append(
            {
                "name": name,
                "kind": operation.kind,
                "reads": [self._names[id(tensor)] for tensor in operation.reads],
                "arrays": {role: self._keep(f"{name}.{role}", values) for role, values in operation.arrays.items()},
                **operation.numbers,
                "gives": reads.kind,
                "steps_out": reads.steps,
            }
        )
        if is_neuron(node):
            self._trains[name] = node.attrs["label"]

    def run(self, data: str | Path, limit: int) -> None:
        """Keep inputs, what the network sends for them, and its outputs."""
        model = self.network.model
        session = InferenceSession(to_bytes(model), kernels="numpy", optimised=False)
        found: dict[str, list[Array]] = {}
        for batch in open_samples(data, model, limit).batches(_BATCH):
            outputs = session.run([value.name for value in model.interface_outputs], batch.feeds)
            trains = session.trace(batch.feeds)
            for name, label in self._trains.items():
                found.setdefault(f"{name}.train", []).append(trains[label][:, : batch.samples].astype(np.uint8))
            for tensor in model.graph.inputs:
                name = f"{self._names[id(tensor)]}.input"
                found.setdefault(name, []).append(batch.feeds[tensor.name][: batch.samples])
            for tensor, values in zip(model.graph.outputs, outputs, strict=True):
                found.setdefault(f"{tensor.name}.output", []).append(values[: batch.samples])
        for name, parts in found.items():
            self._keep(name, np.concatenate(parts, axis=1 if name.endswith(".train") else 0))

    def description(self) -> dict[str, Any]:
        """The contents of the .json."""
        graph = self.network.model.graph
        file = self.network.model.file
        return {
            "format": "pascalc weights",
            "version": FORMAT,
            "pascalc": __version__,
            "model": "" if file is None else file.name,
            "inputs": [{"name": self._names[id(t)], "shape": (t.shape or [])[1:]} for t in graph.inputs],
            "outputs": [{"name": t.name, "reads": self._names[id(t)]} for t in graph.outputs],
            "operations": self._operations,
            "layers": [self._layer(layer) for layer in self.network.layers],
            "edges": [self._edge(node) for node in graph.nodes if id(node) in self.network.feeds],
        }

    def _layer(self, layer: LayerNode) -> dict[str, Any]:
        return {
            "operation": None if layer.node is None else self._names[id(layer.node)],
            "neuron": None if layer.neuron is None else self._names[id(layer.neuron.node)],
            "neurons": layer.neurons,
            "fan_in": layer.fan_in,
            "macs": layer.macs,
            "reads": layer.reads.kind,
            "steps_read": layer.reads.steps,
        }

    def _edge(self, node: gs.Node) -> dict[str, Any]:
        feed = self.network.feeds[id(node)]
        origins = (*feed.layers, *feed.neurons, *feed.inputs)
        return {
            "to": self._names[id(node)],
            "from": [self._names[id(origin)] for origin in origins],
            "through": [self._names[id(passed)] for passed in feed.through],
        }
