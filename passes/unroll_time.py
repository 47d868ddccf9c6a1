"""Time: every tensor gets its time type, and what a type change needs is inserted.

Walking the graph once, each node's rule (pascalc/timing.py) is asked what it wants. Then

- Accumulate sums a train over time, where an operator needs the source's tensor, and at the network's outputs;
- Spread makes an analog tensor a constant current, X/T in each step;
- Align prolongs a train by zero steps, which keeps its sum;
- an additive constant c becomes c/T, so that the sum over time is c [PASCAL, Invariant 2].

Nodes and their names stay the source's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from pascalc import ops
from pascalc.errors import CompileError
from pascalc.graph import BATCH, Model, captured, set_input
from pascalc.passes.base import Pass
from pascalc.timing import Analog, Const, Current, Declined, TimeType, Train, decide, own_output


@dataclass(frozen=True)
class UnrollTime(Pass):
    """Give every tensor its time type and insert what changes of type need."""

    requires: ClassVar[frozenset[str]] = frozenset({"shapes", "neurons"})
    provides: ClassVar[frozenset[str]] = frozenset({"time"})

    def run(self, model: Model) -> int:
        return _Unroll(model, self.name()).run()


class _Unroll:
    def __init__(self, model: Model, name: str) -> None:
        self.model = model
        self.name = name
        self.nodes: list[gs.Node] = []
        self.types: dict[int, TimeType] = {}
        self.converted: dict[tuple[int, TimeType], gs.Tensor] = {}
        self.insertions = 0

    def run(self) -> int:
        for tensor in self.model.graph.inputs:
            self.types[id(tensor)] = Analog()
        for node in list(self.model.graph.nodes):
            self._visit(node)
            self.nodes.append(node)
        for index, tensor in enumerate(self.model.graph.outputs):
            if isinstance(self._type(tensor), Train):
                self._accumulate_output(index, tensor)
        self.model.graph.nodes[:] = self.nodes
        for node in self.nodes:
            for tensor in node.outputs:
                kind = self._type(tensor)
                if isinstance(kind, Train) and tensor.shape:
                    batch = tensor.shape[0]  # a number where it does not depend on the batch
                    first = kind.steps * batch if isinstance(batch, int) else f"{kind.steps}*{BATCH}"
                    tensor.shape = [first if batch else None, *tensor.shape[1:]]
        return self.insertions

    def _type(self, tensor: gs.Tensor) -> TimeType:
        return self.types.get(id(tensor), Const())

    def _visit(self, node: gs.Node) -> None:
        types = tuple(self._type(t) for t in node.inputs)
        neuron = ops.spiking_neuron(node.op) if node.domain == ops.DOMAIN else None
        if neuron is not None:
            if neuron.steps_in is None:
                node.attrs["steps_in"] = types[0].steps
            elif types[0].steps != node.attrs["steps_in"]:
                if types[0].steps > node.attrs["steps_in"]:
                    raise CompileError(
                        f"{node.op} takes {node.attrs['steps_in']} time steps, but its input has {types[0].steps}",
                        file=self.model.file,
                        node=node.name,
                        hint="Choose a neuron model that takes any number (--neuron pasc), or one L for all layers.",
                    )
                node.inputs[0] = self._convert(node.inputs[0], Current(node.attrs["steps_in"]))
            output: TimeType = own_output(node, self._type(node.inputs[0]))
            self.insertions += 1
        else:
            try:
                decision = decide(node, types)
            except Declined as reason:
                self.model.note(self.name, node.name or node.outputs[0].name, f"{node.op}: {reason}")
                for index, kind in enumerate(types):
                    if isinstance(kind, Train):
                        node.inputs[index] = self._convert(node.inputs[index], Analog())
                output = Analog()
            else:
                for index, (kind, wanted) in enumerate(zip(types, decision.inputs, strict=True)):
                    if kind != wanted:
                        node.inputs[index] = self._convert(node.inputs[index], wanted)
                for index in decision.split:
                    self._split(node, index, decision.output.steps)
                output = decision.output
            inside = captured(node)
            if inside:
                output = Analog()
            if any(isinstance(self._type(t), Train) for t in inside):
                self._convert_captured(node)
        for tensor in node.outputs:
            self.types[id(tensor)] = output

    def _split(self, node: gs.Node, index: int, steps: int) -> None:
        """An additive constant c as c/T."""
        tensor = node.inputs[index]
        share = (np.asarray(tensor.values, np.float64) / steps).astype(tensor.dtype)
        set_input(node, index, self.model.constant(f"{tensor.name}/{steps}", share))
        self.insertions += 1

    def _convert(self, tensor: gs.Tensor, wanted: TimeType) -> gs.Tensor:
        """The tensor as the wanted type; one conversion serves all who want it."""
        key = (id(tensor), wanted)
        if key not in self.converted:
            self.converted[key] = self._insert(tensor, wanted)
        return self.converted[key]

    def _insert(self, tensor: gs.Tensor, wanted: TimeType) -> gs.Tensor:
        kind = self._type(tensor)
        if isinstance(wanted, Analog):
            operator, attrs, suffix = ops.ACCUMULATE, {"steps": kind.steps}, "sum"
        elif isinstance(kind, Train):
            attrs = {"steps_in": kind.steps, "steps_out": wanted.steps}
            operator, suffix = ops.ALIGN, f"{wanted.steps}_steps"
        else:
            operator, attrs, suffix = ops.SPREAD, {"steps": wanted.steps}, f"{wanted.steps}_steps"
        out = self.model.variable(f"{tensor.name}/{suffix}", tensor)
        self._append(operator, tensor, out, attrs)
        self.types[id(out)] = wanted
        return out

    def _append(self, operator: ops.Operator, tensor: gs.Tensor, out: gs.Tensor, attrs: dict[str, int]) -> None:
        name = self.model.unique_name(f"{tensor.name}/{operator.name}")
        self.nodes.append(gs.Node(operator.name, name, attrs=attrs, inputs=[tensor], outputs=[out], domain=ops.DOMAIN))
        self.insertions += 1

    def _accumulate_output(self, index: int, tensor: gs.Tensor) -> None:
        """The output keeps its name; the train behind it gets a new one."""
        out = gs.Variable(tensor.name, tensor.dtype, tensor.shape)
        tensor.name = self.model.unique_name(f"{tensor.name}/train")
        self._append(ops.ACCUMULATE, tensor, out, {"steps": self._type(tensor).steps})
        self.types[id(out)] = Analog()
        self.model.graph.outputs[index] = out

    def _convert_captured(self, node: gs.Node) -> None:
        """Subgraphs (If, Loop, Scan) compute as in the source network: on sums over time."""
        self.model.note(self.name, node.name or node.outputs[0].name, f"{node.op}: its subgraph has no spiking form")
        for value in node.attrs.values():
            if isinstance(value, gs.Graph):
                for inner in value.nodes:
                    for index, tensor in enumerate(inner.inputs):
                        if isinstance(self._type(tensor), Train):
                            inner.inputs[index] = self._convert(tensor, Analog())
                    if any(isinstance(v, gs.Graph) for v in inner.attrs.values()):
                        self._convert_captured(inner)
                for index, tensor in enumerate(value.outputs):
                    if isinstance(self._type(tensor), Train):
                        value.outputs[index] = self._convert(tensor, Analog())
