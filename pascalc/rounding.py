"""How far rounding alone can move a sum: the network of absolute products.

Two orders of the same float sum differ by at most a few units in the last place of the sum of the absolute products.
This module builds the network that computes that sum for chosen tensors: every weight, bias and input by its absolute
value, every subtraction an addition, cut at the neurons, whose outputs are fed in. An operator that is no sum of
products (Softmax, Sigmoid, ...) counts with its own absolute value and the largest sum among its inputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod, sqrt
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from pascalc.graph import Array, Model, captured, has_tensor, is_constant, is_operator, producer, sort, sweep
from pascalc.modelfile import to_bytes
from pascalc.operators import Bound, Linear, operator
from pascalc.probes import Kind
from pascalc.runtime import InferenceSession

#: How many units in the last place of the sum of absolute products are "a few", for one sum of products.
_ULPS = 4


def allowance(steps: int, terms: int = 1, depth: int = 1) -> float:
    """Units in the last place that a sum of products may be off.

    Args:
        steps: the time steps of the longest train that it arrives in. Adding T numbers one after the other is off by at
            most (T-1)/2 units in the last place of the sum of their absolute values (Higham, Accuracy and Stability of
            Numerical Algorithms, sec. 4.2).
        terms: the most values that a pool or a reduction on the way adds, which onnxruntime does one after the other,
            too. The worst case is never met; that of random errors is half the square root (Higham and Mary, SIAM J.
            Sci. Comput. 41, 2019), and equal values, whose errors go one way, were seen to be off by 1/400 of their
            number, of which six times as much is allowed.
        depth: operators that add, one behind the other; each rounds what the one before gave.
    """
    return _ULPS + 2 * (depth - 1) + (steps - 1) / 2 + (sqrt(terms) - 1) / 2 + (terms - 1) / 64


def is_product(node: gs.Node) -> bool:
    """Whether the operator multiplies computed tensors with one another."""
    return operator(node).multiplies and sum(not is_constant(t) and not t.is_empty() for t in node.inputs) > 1


def summed_terms(node: gs.Node) -> int:
    """How many values a pool or a reduction adds up for one result; 1 for all else. Where sizes are open, 4,096."""
    if is_operator(node, "AveragePool"):
        return int(prod(node.attrs.get("kernel_shape", [1])))
    if is_operator(node, "GlobalAveragePool", "ReduceMean", "ReduceSum"):
        before, after = (list(t.shape or [None])[1:] for t in (node.inputs[0], node.outputs[0]))
        if all(isinstance(d, int) and d > 0 for d in (*before, *after)):
            return max(1, int(prod(before) // prod(after)))
        return 4096
    return 1


class AbsoluteProducts:
    """The network of absolute products, ready to run.

    Args:
        model: the source network, with shapes inferred; it is used up.
        cuts: names of tensors to be fed in, the neurons' outputs, with their kinds.
        wanted: names of the tensors whose sums of absolute products :meth:`run` gives. Those that are no floats are
            left out.
        threads: threads of onnxruntime; by default one for each core.
    """

    def __init__(
        self, model: Model, cuts: Mapping[str, Kind], wanted: Iterable[str], threads: int | None = None
    ) -> None:
        tensors = model.graph.tensors()
        self._fed = {name: cut_off(model, tensors[name], kind).name for name, kind in cuts.items()}
        builder = _Builder(model)
        self._totals: dict[str, str] = {}
        for name in dict.fromkeys(wanted):
            if is_float(tensors[name]):
                total = builder.absolute(tensors[name])
                out = gs.Variable(model.unique_name(f"abs:{name}"), tensors[name].dtype, None)
                model.graph.nodes.append(
                    gs.Node("Identity", model.unique_name(f"{out.name}/out"), inputs=[total], outputs=[out])
                )
                self._totals[name] = out.name
                model.graph.outputs.append(out)
        made = set(self._totals.values())
        model.graph.outputs[:] = [t for t in model.graph.outputs if t.name in made]
        model.interface_outputs[:] = [onnx.ValueInfoProto(name=name) for name in self._totals.values()]
        sort(model)
        sweep(model)
        used = {t.name for node in model.graph.nodes for t in (*node.inputs, *captured(node))}
        model.graph.inputs[:] = [t for t in model.graph.inputs if t.name in used]
        model.interface_inputs[:] = [v for v in model.interface_inputs if v.name in used]
        self._session = InferenceSession(to_bytes(model), threads=threads) if self._totals else None

    def run(self, inputs: Mapping[str, Array], fed: Mapping[str, Array]) -> dict[str, Array]:
        """The sums, by the name of the tensor that they are of.

        Args:
            inputs: the network's inputs.
            fed: an array for every cut.
        """
        if self._session is None:
            return {}
        wanted = {i.name for i in self._session.inputs}
        given = {**inputs, **{self._fed[name]: array for name, array in fed.items()}}
        feeds = {name: array for name, array in given.items() if name in wanted}
        names = list(self._totals)
        return dict(zip(names, self._session.run([self._totals[n] for n in names], feeds), strict=True))


def is_linear(node: gs.Node) -> bool:
    """Whether the node is linear in each of its variable inputs, so that random values show what it does: a sum of
    products that neither takes a maximum nor has a kink."""
    if is_operator(node, "Gather", "Div") and not is_constant(node.inputs[1]):
        return False  # it looks things up, or divides by what it is given
    linear = operator(node).linear
    return linear is Linear.ALWAYS or (
        linear is Linear.FLOATS and all(is_float(t) for t in node.outputs if not t.is_empty())
    )


def is_float(tensor: gs.Tensor) -> bool:
    """Whether the tensor is known to hold floats."""
    return tensor.dtype is not None and bool(np.issubdtype(tensor.dtype, np.floating))


def cut_off(model: Model, tensor: gs.Tensor, kind: Kind) -> gs.Tensor:
    """Let the users of a tensor take it from a new input of the network, which is returned."""
    fed = gs.Variable(model.unique_name(f"fed:{tensor.name}"), kind.dtype, tensor.shape)
    for node in list(tensor.outputs):
        for index, used in enumerate(node.inputs):
            if used is tensor:
                node.inputs[index] = fed
    model.graph.inputs.append(fed)
    model.interface_inputs.append(kind.declare(fed.name))
    return fed


def declare(tensor: gs.Tensor) -> onnx.ValueInfoProto:
    """The tensor as an input or output of unknown shape."""
    return onnx.helper.make_tensor_value_info(
        tensor.name, onnx.helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype)), None
    )


class _Builder:
    def __init__(self, model: Model) -> None:
        self.model = model
        self.done: dict[int, gs.Tensor] = {}

    def absolute(self, wanted: gs.Tensor) -> gs.Tensor:
        """The tensor of absolute products; depth first without recursion, as networks are deep."""
        stack = [wanted]
        while stack:
            tensor = stack[-1]
            if id(tensor) in self.done:
                stack.pop()
                continue
            missing = [t for t in self._needs(tensor) if id(t) not in self.done]
            if missing:
                stack += missing
                continue
            self.done[id(tensor)] = self._build(tensor)
            stack.pop()
        return self.done[id(wanted)]

    def _needs(self, tensor: gs.Tensor) -> list[gs.Tensor]:
        """The tensors whose absolute products the tensor's own are made of."""
        node = producer(tensor)
        if node is None:
            return []
        bound = _bound(node)
        if bound is Bound.PRODUCTS:
            return list(node.inputs[:3] if is_operator(node, "BatchNormalization") else node.inputs)
        if bound is not Bound.ESTIMATED:
            return [node.inputs[0]]
        return [t for t in node.inputs if not is_constant(t) and not t.is_empty() and is_float(t)]

    def _build(self, tensor: gs.Tensor) -> gs.Tensor:
        node = producer(tensor)
        if is_constant(tensor):
            return self._constant(tensor, np.abs(tensor.values))
        if tensor.is_empty():
            return tensor
        parts = [self.done[id(t)] for t in self._needs(tensor)]
        if node is None or not parts:
            return self._node("Abs", [tensor], tensor)
        bound = _bound(node)
        if bound is Bound.BOUNDED:
            return parts[0]
        attrs = {k: abs(v) if k in ("alpha", "beta") else v for k, v in node.attrs.items()}
        if bound is Bound.PRODUCTS and is_operator(node, "BatchNormalization"):
            mean = self._constant(node.inputs[3], -np.abs(node.inputs[3].values))  # |x| - (-|mean|)
            return self._node(node.op, [*parts, mean, node.inputs[4]], tensor, attrs)
        if bound is Bound.PRODUCTS:
            return self._node("Add" if is_operator(node, "Sub") else node.op, parts, tensor, attrs)
        if bound is Bound.MOVES:
            index = next(i for i, t in enumerate(node.outputs) if t is tensor)
            rest = list(node.inputs[1:])
            if is_operator(node, "Pad") and has_tensor(node, 2):
                rest[1] = self._node("Abs", [rest[1]], rest[1])
            return self._node(node.op, [*parts, *rest], tensor, attrs, index, len(node.outputs))
        return self._other(tensor, parts)

    def _other(self, tensor: gs.Tensor, parts: list[gs.Tensor]) -> gs.Tensor:
        total = self._node("Abs", [tensor], tensor)
        for part in parts:
            largest = self._node("ReduceMax", [part], part, {"keepdims": 0})
            if part.dtype != tensor.dtype:
                kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype))
                largest = self._node("Cast", [largest], tensor, {"to": kind})
            total = self._node("Add", [total, largest], tensor)
        return total

    def _constant(self, tensor: gs.Tensor, values: Array) -> gs.Constant:
        return self.model.constant(f"abs:{tensor.name}", values)

    def _node(
        self,
        op: str,
        inputs: list[gs.Tensor],
        like: gs.Tensor,
        attrs: Mapping[str, Any] | None = None,
        index: int = 0,
        count: int = 1,
    ) -> gs.Tensor:
        # the other outputs may be of another type: a pool's are places
        outs = [
            gs.Variable(self.model.unique_name(f"abs:{like.name}/{i}"), like.dtype if i == index else None, None)
            for i in range(count)
        ]
        name = self.model.unique_name(f"abs:{like.name}/{op}")
        self.model.graph.nodes.append(gs.Node(op, name, attrs=dict(attrs or {}), inputs=inputs, outputs=outs))
        return outs[index]


def _bound(node: gs.Node) -> Bound:
    """What the node's sum of absolute products is: that of a quotient of two computed tensors is estimated."""
    if is_operator(node, "Div") and not is_constant(node.inputs[1]):
        return Bound.ESTIMATED
    return operator(node).bound
