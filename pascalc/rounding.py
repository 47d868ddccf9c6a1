"""How far rounding alone can move a sum: the network of absolute products.

Two orders of the same float sum differ by at most a few units in the last place of the sum of the absolute products.
This module builds the network that computes that sum for chosen tensors: every weight, bias and input by its absolute
value, every subtraction an addition, cut at the neurons, whose outputs are fed in. An operator that is no sum of products
(Softmax, Sigmoid, ...) counts with its own absolute value and the largest sum among its inputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from pascalc.graph import Model, is_constant, is_operator, producer, sort, sweep

#: How many units in the last place of the sum of absolute products are "a few".
ULPS = 4

_LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Sum", "Mul")
_DATA_FIRST = (
    "AveragePool GlobalAveragePool MaxPool GlobalMaxPool ReduceMean ReduceSum Flatten Reshape Transpose Squeeze "
    "Unsqueeze Slice Split Gather Concat Pad Resize Identity Dropout DepthToSpace SpaceToDepth Expand"
).split()
_BOUNDED_BY_INPUT = ("Relu", "Clip", "Identity", "Dropout", "Neg", "Abs", "LeakyRelu")


def absolute_products(model: Model, cuts: Sequence[str], wanted: Sequence[str]) -> Model:
    """Turn ``model`` into the network of absolute products.

    Args:
        model: the source network, with shapes inferred; it is used up.
        cuts: names of tensors to be fed in, non-negative: the neurons' outputs. Their inputs are ``fed:<name>``.
        wanted: names of the tensors whose sums of absolute products are the outputs, as ``abs:<name>``.
    """
    tensors = model.graph.tensors()
    for name in cuts:
        cut_off(model, tensors[name])
    builder = _Builder(model)
    outputs = []
    for name in wanted:
        out = gs.Variable(f"abs:{name}", tensors[name].dtype, None)
        total = builder.absolute(tensors[name])
        model.graph.nodes.append(gs.Node("Identity", f"abs:{name}/out", inputs=[total], outputs=[out]))
        outputs.append(out)
    model.graph.outputs[:] = outputs
    model.interface_outputs[:] = [declare(out) for out in outputs]
    sort(model)
    sweep(model)
    used = {t.name for node in model.graph.nodes for t in node.inputs}
    model.graph.inputs[:] = [t for t in model.graph.inputs if t.name in used]
    model.interface_inputs[:] = [v for v in model.interface_inputs if v.name in used]
    return model


def cut_off(model: Model, tensor: gs.Tensor) -> None:
    """Let the users of a tensor take it from the new network input ``fed:<name>``."""
    fed = gs.Variable(f"fed:{tensor.name}", tensor.dtype, tensor.shape)
    for node in list(tensor.outputs):
        for index, used in enumerate(node.inputs):
            if used is tensor:
                node.inputs[index] = fed
    model.graph.inputs.append(fed)
    model.interface_inputs.append(declare(fed))


def declare(tensor: gs.Tensor) -> onnx.ValueInfoProto:
    """The tensor as an input or output of unknown shape."""
    return onnx.helper.make_tensor_value_info(tensor.name, onnx.helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype)), None)


class _Builder:
    def __init__(self, model: Model) -> None:
        self.model = model
        self.done: dict[int, gs.Tensor] = {}
        self.fed = {id(t) for t in model.graph.inputs}

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
        node = producer(tensor)
        if node is None:
            return []
        if is_operator(node, "Sub", "Div", *_LINEAR):
            return list(node.inputs)
        if is_operator(node, "BatchNormalization"):
            return list(node.inputs[:4])
        if is_operator(node, "Concat"):
            return list(node.inputs)
        if is_operator(node, *_DATA_FIRST, *_BOUNDED_BY_INPUT):
            return [node.inputs[0]]
        return [t for t in node.inputs if not is_constant(t) and not t.is_empty()]

    def _build(self, tensor: gs.Tensor) -> gs.Tensor:
        node = producer(tensor)
        if is_constant(tensor):
            return self._constant(tensor, np.abs(tensor.values))
        if tensor.is_empty():
            return tensor
        needs = self._needs(tensor)
        if node is None or not needs:
            return self._node("Abs", [tensor], tensor)
        parts = [self.done[id(t)] for t in needs]
        if is_operator(node, "Sub"):
            return self._node("Add", parts, tensor)
        if is_operator(node, "BatchNormalization"):
            scale, bias, mean = parts[1], parts[2], node.inputs[3]
            negative = self._constant(mean, -np.abs(mean.values))  # |x| - (-|mean|)
            return self._node(node.op, [parts[0], scale, bias, negative, node.inputs[4]], tensor, node.attrs)
        if is_operator(node, *_BOUNDED_BY_INPUT):
            return parts[0]
        if is_operator(node, "Div") and not is_constant(node.inputs[1]) or not is_operator(
            node, "Div", *_LINEAR, *_DATA_FIRST
        ):
            return self._other(tensor, parts)
        rest = [] if is_operator(node, "Concat", "Div", *_LINEAR) else list(node.inputs[1:])
        attrs = {k: abs(v) if k in ("alpha", "beta") else v for k, v in node.attrs.items()}
        index = next(i for i, t in enumerate(node.outputs) if t is tensor)
        return self._node(node.op, [*parts, *rest], tensor, attrs, index, len(node.outputs))

    def _other(self, tensor: gs.Tensor, parts: list[gs.Tensor]) -> gs.Tensor:
        total = self._node("Abs", [tensor], tensor)
        for part in parts:
            largest = self._node("ReduceMax", [part], tensor, {"keepdims": 0})
            total = self._node("Add", [total, largest], tensor)
        return total

    def _constant(self, tensor: gs.Tensor, values: np.ndarray) -> gs.Constant:  # type: ignore[type-arg]
        return self.model.constant(f"abs:{tensor.name}", values)

    def _node(
        self, op: str, inputs: list[gs.Tensor], like: gs.Tensor, attrs: object = None, index: int = 0, count: int = 1
    ) -> gs.Tensor:
        outs = [gs.Variable(self.model.unique_name(f"abs:{like.name}/{i}"), like.dtype, None) for i in range(count)]
        name = self.model.unique_name(f"abs:{like.name}/{op}")
        self.model.graph.nodes.append(gs.Node(op, name, attrs=dict(attrs or {}), inputs=inputs, outputs=outs))  # type: ignore[call-overload]
        return outs[index]
