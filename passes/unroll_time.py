"""Time: every tensor gets its time type, and what a type change needs is inserted.

Walking the graph once, each node's rule (pascalc/timing.py) is asked what it wants. Then

- Accumulate sums a train over time, where an operator needs the source's tensor, and at the network's outputs;
- Spread makes an analog tensor a constant current, X/T in each step;
- Hold repeats an analog tensor in every step, for a train to be multiplied by it;
- Align prolongs a train by zero steps, which keeps its sum;
- an additive constant c becomes c/T, so that the sum over time is c [PASCAL, Invariant 2].

Where steps do not all count 1 (pascalc/codes.py), Retime does what Accumulate, Spread and Align do, and a Bias behind
the node deals its constants out. What is held is the same for all of them.

c/T is rounded for most T. The currents of quantisers may lie exactly on a threshold; so in a network of neurons whose
thresholds are given one by one, a constant that is not T exact shares comes whole in the first step, by a Bias, and so
does an analog tensor, by an Align. (Where the sizes of a sample are not known, a constant is divided none the less.)

Nodes and their names stay the source's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from pascalc import ops
from pascalc.activations import has_thresholds
from pascalc.codes import UNIT
from pascalc.constants import evaluate
from pascalc.errors import CompileError
from pascalc.graph import BATCH, Array, Model, NoteKind, captured, is_constant, is_sized, set_input, sizes_hint
from pascalc.passes.base import Pass
from pascalc.passes.facts import NEURONS, SHAPES, TIME, Fact
from pascalc.timing import Analog, Const, Current, Declined, Held, TimeType, Train, decide, own_output


@dataclass(frozen=True)
class UnrollTime(Pass):
    """Give every tensor its time type and insert what changes of type need."""

    requires: ClassVar[frozenset[Fact]] = frozenset({SHAPES, NEURONS})
    provides: ClassVar[frozenset[Fact]] = frozenset({TIME})

    def run(self, model: Model) -> int:
        return _Unroll(model, self.name()).run()


class _Unroll:
    def __init__(self, model: Model, name: str) -> None:
        self.model = model
        self.name = name
        self.nodes: list[gs.Node] = []
        self.types: dict[int, TimeType] = {}
        self.converted: dict[tuple[int, TimeType], gs.Tensor] = {}
        self.late: list[gs.Node] = []
        self.insertions = 0
        self.exact = any(has_thresholds(node) for node in model.graph.nodes)

    def run(self) -> int:
        for tensor in self.model.graph.inputs:
            self.types[id(tensor)] = Analog()
        for node in list(self.model.graph.nodes):
            self._visit(node)
            self.nodes += [node, *self.late]
            self.late.clear()
        for index, tensor in enumerate(self.model.graph.outputs):
            if isinstance(self._type(tensor), Train):
                self._accumulate_output(index, tensor)
        self.model.graph.nodes[:] = self.nodes
        for node in self.nodes:
            for tensor in node.outputs:
                kind = self._type(tensor)
                if isinstance(kind, (Train, Held)) and tensor.shape:
                    batch = tensor.shape[0]  # a number where it does not depend on the batch
                    first = kind.steps * batch if isinstance(batch, int) else f"{kind.steps}*{BATCH}"
                    tensor.shape = [first if batch else None, *tensor.shape[1:]]
        return self.insertions

    def _computed(self, node: gs.Node, reason: str) -> None:
        """Say that the node is computed, not spiking."""
        name = node.name or node.outputs[0].name
        self.model.note(self.name, name, f"{node.op}: {reason}", NoteKind.NOT_SPIKING)

    def _type(self, tensor: gs.Tensor) -> TimeType:
        return self.types.get(id(tensor), Const())

    def _visit(self, node: gs.Node) -> None:
        types = tuple(self._type(t) for t in node.inputs)
        if self._is_neuron(node):
            self._feed(node)
            output: TimeType = own_output(node, self._type(node.inputs[0]))
            self.insertions += 1
        else:
            try:
                decision = decide(self.model, node, types)
            except Declined as reason:
                self._computed(node, str(reason))
                for index, kind in enumerate(types):
                    if isinstance(kind, Train):
                        node.inputs[index] = self._convert(node.inputs[index], Analog())
                output = Analog()
            else:
                for index, (kind, wanted) in enumerate(zip(types, decision.inputs, strict=True)):
                    if kind != wanted:
                        node.inputs[index] = self._convert(node.inputs[index], wanted)
                output = decision.output
                if isinstance(output, Train) and self._is_taken_out(node, decision.split, output):
                    self._take_out(node, decision.split, output)
                else:
                    for index in decision.split:
                        self._split(node, index, output.steps)
            inside = captured(node)
            if inside:
                output = Analog()
            if any(isinstance(self._type(t), Train) for t in inside):
                self._convert_captured(node)
        for tensor in node.outputs:
            self.types[id(tensor)] = output

    @staticmethod
    def _is_neuron(node: gs.Node) -> bool:
        return node.domain == ops.DOMAIN and ops.spiking_neuron(node.op) is not None

    def _feed(self, node: gs.Node) -> None:
        """The train that the neuron wants on its input."""
        model = ops.spiking_neuron(node.op)
        assert model is not None
        kind, fixed = self._type(node.inputs[0]), node.attrs["steps_in"]
        if isinstance(kind, Train) and kind.weighting is not model.reads:
            node.inputs[0] = self._convert(node.inputs[0], Analog())
            kind = Analog()
        if model.any_length:
            node.attrs["steps_in"] = kind.steps
        elif kind.steps > fixed:
            raise CompileError(
                f"{node.op} takes {fixed} time steps, but its input has {kind.steps}",
                file=self.model.file,
                node=node.name,
                hint="Choose a neuron model that takes any number (--neuron pasc), or one L for all layers.",
            )
        elif not isinstance(kind, Train) or kind.steps < fixed:
            assert model.reads is not None, "who reads no trains takes one step"
            node.inputs[0] = self._convert(node.inputs[0], Current(model.reads, fixed))

    def _is_taken_out(self, node: gs.Node, constants: tuple[int, ...], output: Train) -> bool:
        """Whether the node's additive constants are not divided among the steps, but dealt out behind it."""
        if output.weighting is not UNIT:
            return bool(constants)
        sizes_known = all(_has_sizes(t) for t in node.inputs if not is_constant(t) and not t.is_empty())
        values = [node.inputs[index].values for index in constants]
        return self.exact and sizes_known and not all(_divides(value, output.steps) for value in values)

    def _take_out(self, node: gs.Node, constants: tuple[int, ...], output: Train) -> None:
        """The node's additive constants, which steps do not share alike: zeros in the node, and a Bias behind it."""
        given = {t.name: t.values if is_constant(t) else self._silence(t) for t in node.inputs if not t.is_empty()}
        bias = _least(evaluate(OnnxExporter.export_node(node), given, self.model.opset)[0])
        for index in constants:
            values = node.inputs[index].values
            set_input(node, index, self.model.constant(f"{node.inputs[index].name}/0", np.zeros_like(values)))
        after = node.outputs[0]
        before = self.model.variable(f"{after.name}/no_bias", after)
        node.outputs[0] = before
        self.types[id(before)] = output
        weighting, steps = output.weighting, output.steps
        shares = np.eye(steps)[0] if weighting is UNIT else weighting.shares(steps)
        parts = (("bias", bias), ("shares", shares.astype(after.dtype)))
        dealt = [self.model.constant(f"{after.name}/{name}", values) for name, values in parts]
        self.late.append(self._own(ops.BIAS, [before, *dealt], after, {"steps": steps}))
        self.types[id(after)] = output

    def _silence(self, tensor: gs.Tensor) -> Array:
        """One sample of zeros."""
        if not _has_sizes(tensor):
            raise CompileError(
                f"the sizes of '{tensor.name}' are not known, so that its constants cannot be dealt out to time steps",
                file=self.model.file,
                node=tensor.name,
                hint=sizes_hint(self.model, tensor),
            )
        return np.zeros([1, *tensor.shape[1:]], tensor.dtype)

    def _split(self, node: gs.Node, index: int, steps: int) -> None:
        """An additive constant c as c/T."""
        tensor = node.inputs[index]
        set_input(node, index, self.model.constant(f"{tensor.name}/{steps}", _share(tensor.values, steps)))
        self.insertions += 1

    def _convert(self, tensor: gs.Tensor, wanted: TimeType) -> gs.Tensor:
        """The tensor as the wanted type; one conversion serves all who want it."""
        key = (id(tensor), wanted)
        if key not in self.converted:
            self.converted[key] = self._insert(tensor, wanted)
        return self.converted[key]

    def _insert(self, tensor: gs.Tensor, wanted: TimeType) -> gs.Tensor:
        if isinstance(wanted, Held) and isinstance(self._type(tensor), Train):
            tensor = self._convert(tensor, Analog())  # it is known when its train has ended
        held = "held_" if isinstance(wanted, Held) else ""
        suffix = "sum" if isinstance(wanted, Analog) else f"{held}{wanted.steps}_steps"
        out = self.model.variable(f"{tensor.name}/{suffix}", tensor)
        self.nodes.append(self._conversion(tensor, wanted, out))
        self.types[id(out)] = wanted
        return out

    def _conversion(self, tensor: gs.Tensor, wanted: TimeType, out: gs.Tensor) -> gs.Node:
        """What makes the wanted type of a tensor."""
        kind = self._type(tensor)
        if isinstance(wanted, Held):
            return self._own(ops.HOLD, [tensor], out, {"steps": wanted.steps})
        steps = {"steps_in": kind.steps, "steps_out": wanted.steps}
        train = kind if isinstance(kind, Train) else wanted
        assert isinstance(train, Train)
        if train.weighting is not UNIT:
            matrix = self.model.constant(f"{out.name}/matrix", _matrix(kind, wanted).astype(tensor.dtype))
            weighting = wanted.weighting.name if isinstance(wanted, Train) else ""
            return self._own(ops.RETIME, [tensor, matrix], out, {**steps, "weighting": weighting})
        if isinstance(wanted, Analog):
            return self._own(ops.ACCUMULATE, [tensor], out, {"steps": kind.steps})
        if isinstance(kind, Train) or (self.exact and wanted.steps & (wanted.steps - 1)):
            return self._own(ops.ALIGN, [tensor], out, steps)
        return self._own(ops.SPREAD, [tensor], out, {"steps": wanted.steps})

    def _own(
        self, operator: ops.Operator, inputs: list[gs.Tensor], out: gs.Tensor, attrs: Mapping[str, int | str]
    ) -> gs.Node:
        if 0 in (out.shape or []):
            raise CompileError(
                f"a train of the shape {out.shape} holds no values",
                file=self.model.file,
                node=out.name,
                hint="Leave it out of the model, or compile with --schedule collapsed.",
            )
        name = self.model.unique_name(f"{inputs[0].name}/{operator.name}")
        self.insertions += 1
        return gs.Node(operator.name, name, attrs=dict(attrs), inputs=inputs, outputs=[out], domain=ops.DOMAIN)

    def _accumulate_output(self, index: int, tensor: gs.Tensor) -> None:
        """The output keeps its name; the train behind it gets a new one."""
        out = gs.Variable(tensor.name, tensor.dtype, tensor.shape)
        tensor.name = self.model.unique_name(f"{tensor.name}/train")
        self.nodes.append(self._conversion(tensor, Analog(), out))
        self.types[id(out)] = Analog()
        self.model.graph.outputs[index] = out

    def _convert_captured(self, node: gs.Node) -> None:
        """Subgraphs (If, Loop, Scan) compute as in the source network: on sums over time."""
        self._computed(node, "its subgraph has no spiking form")
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


def _has_sizes(tensor: gs.Tensor) -> bool:
    """Whether the sizes of a sample are known."""
    return bool(tensor.shape) and is_sized(tensor)


def _share(values: Array, steps: int) -> Array:
    """What each of so many steps gets of a constant."""
    return np.asarray((np.asarray(values, np.float64) / steps).astype(values.dtype))


def _divides(values: Array, steps: int) -> bool:
    """Whether the shares of a constant are exact. One with infinities counts as such: all steps have to have them."""
    share = _share(values, steps)
    with np.errstate(all="ignore"):
        rest = np.where(share == 0, values, np.fmod(values, share))  # which is exact
        return not np.isfinite(values).all() or (not rest.any() and np.array_equal(share * steps, values))


def _matrix(kind: TimeType, wanted: TimeType) -> Array:
    """[steps wanted, steps there are]: the steps of one type, made of those of another."""
    if isinstance(kind, Train) and isinstance(wanted, Train):
        matrix = np.zeros((wanted.steps, kind.steps))
        first = wanted.steps - kind.steps if kind.weighting.prolonged_in_front else 0
        matrix[first : first + kind.steps] = np.eye(kind.steps)
        return matrix
    if isinstance(kind, Train):
        return kind.weighting.weights(kind.steps)[np.newaxis]
    assert isinstance(wanted, Train)
    return wanted.weighting.shares(wanted.steps)[:, np.newaxis]


def _least(values: Array) -> Array:
    """A value of one sample, without its batch, and once along every axis along which it is the same."""
    values = values[0]
    for axis in range(values.ndim):
        first = values.take([0], axis)
        if (values == first).all():
            values = first
    return values
