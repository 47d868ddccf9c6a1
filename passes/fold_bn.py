"""BatchNormalization into the linear layer before it.

    y = gamma * (x - mean) / sqrt(var + eps) + beta = s*x + (beta - s*mean),   s = gamma / sqrt(var + eps)

s multiplies the weights and the bias of the layer's output channels, beta - s*mean is added to the bias; so only one
bias a layer is left to be split over the time steps [PASCAL, sec. 3.2]. Computed in float64, rounded once. A layer
whose weight is shared, or whose output is used elsewhere, is left alone: the normalisation then becomes the affine step
s*x + t, as it does where no linear layer comes before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from pascalc.errors import CompileError
from pascalc.graph import Model, has_tensor, is_constant, is_operator, producer, set_input, sort, sweep
from pascalc.linear import Scale, is_layer, output_channels, owns_weight, scale_layer, shift_layer
from pascalc.passes.base import Pass
from pascalc.passes.facts import BIASES, SHAPES, Fact


@dataclass(frozen=True)
class FoldBn(Pass):
    """Fold BatchNormalization into the linear layer before it, or make it an affine step."""

    requires: ClassVar[frozenset[Fact]] = frozenset({SHAPES})
    provides: ClassVar[frozenset[Fact]] = frozenset({BIASES})

    def run(self, model: Model) -> int:
        count = 0
        for node in list(model.graph.nodes):
            if not is_operator(node, "BatchNormalization"):
                continue
            reason = _why_not(model, node)
            if reason:
                model.note(self.name(), node.name or node.outputs[0].name, reason)
                continue
            scale, shift = _affine(model, node)
            layer, add = _layer_before(model, node, len(scale))
            if layer is None:
                _make_affine(model, node, scale, shift)
            else:
                _fold(model, node, layer, add, scale, shift)
            count += 1
        sort(model)
        sweep(model)
        return count


def _why_not(model: Model, node: gs.Node) -> str:
    if node.attrs.get("training_mode", 0):
        return "BatchNormalization in training mode depends on the batch"
    if model.uses_more(node):
        return "the statistics of BatchNormalization are used elsewhere"
    if not all(is_constant(t) for t in node.inputs[1:5]):
        return "the parameters of BatchNormalization are not constants"
    if node.inputs[0].dtype is None:
        return "the type of its input is not known"
    return "" if node.inputs[0].shape else "the rank of its input is not known"


def _affine(model: Model, node: gs.Node) -> tuple[Scale, Scale]:
    """What it multiplies each channel by, and what it adds.

    Raises:
        CompileError: these are no finite numbers, so that all that it computes is none.
    """
    gamma, beta, mean, var = (t.values.astype(np.float64) for t in node.inputs[1:5])
    with np.errstate(all="ignore"):
        scale = gamma / np.sqrt(var + node.attrs.get("epsilon", 1e-5))
        shift = beta - scale * mean
        finite = all(bool(np.isfinite(part.astype(node.inputs[0].dtype)).all()) for part in (scale, shift))
    if not finite:
        raise CompileError(
            "this BatchNormalization gives infinite values or NaN, whatever goes in: its variance plus epsilon is zero "
            "or less, or its parameters are too large",
            file=model.file,
            node=node.name or node.outputs[0].name,
            hint="Its statistics mean a damaged file or a training that diverged: train or export again.",
        )
    return scale, shift


def _layer_before(model: Model, node: gs.Node, channels: int) -> tuple[gs.Node | None, gs.Node | None]:
    """The linear layer that the normalisation can go into, and the Add of its bias where that is a node of its own."""
    tensor = node.inputs[0]
    layer, add = producer(tensor), None
    if is_operator(layer, "Add"):
        constants = [t for t in layer.inputs if is_constant(t)]
        shapes = ((), (1,), (1, 1), (channels,), (1, channels))
        if len(constants) != 1 or constants[0].values.shape not in shapes or _used_elsewhere(model, tensor):
            return None, None
        add, tensor = layer, next(t for t in layer.inputs if not is_constant(t))
        layer = producer(tensor)
        # the bias of an Add runs along the last axis, the channels of the normalisation along axis 1
        if not is_operator(layer, "MatMul", "Gemm") or len(tensor.shape or ()) != 2:
            return None, None
    if not is_layer(layer) or not owns_weight(layer) or output_channels(layer) != channels:
        return None, None
    if _used_elsewhere(model, tensor) or (has_tensor(layer, 2) and not is_constant(layer.inputs[2])):
        return None, None
    if is_operator(layer, "MatMul") and len(tensor.shape or ()) != 2:
        return None, None
    return layer, add


def _used_elsewhere(model: Model, tensor: gs.Tensor) -> bool:
    return len(tensor.outputs) != 1 or model.is_output(tensor)


def _fold(model: Model, node: gs.Node, layer: gs.Node, add: gs.Node | None, scale: Scale, shift: Scale) -> None:
    scale_layer(model, layer, outputs=scale)
    if add is not None:
        index = 0 if is_constant(add.inputs[0]) else 1
        bias = add.inputs[index]
        shift = shift + scale * bias.values.astype(np.float64).reshape(-1)
        set_input(add, index, model.constant(bias.name, shift.astype(bias.dtype)))
        last = add
    elif is_operator(layer, "MatMul"):
        out = node.outputs[0]
        node.outputs.clear()
        bias = model.constant(f"{layer.inputs[1].name}_bias", shift.astype(layer.inputs[1].dtype))
        name = model.unique_name(f"{layer.name or out.name}/Bias")
        model.graph.nodes.append(gs.Node("Add", name, inputs=[layer.outputs[0], bias], outputs=[out]))
        return
    else:
        shift_layer(model, layer, shift)
        last = layer
    out = node.outputs[0]
    node.outputs.clear()
    last.outputs.clear()
    last.outputs.append(out)


def _make_affine(model: Model, node: gs.Node, scale: Scale, shift: Scale) -> None:
    data, out = node.inputs[0], node.outputs[0]
    shape = (-1, *[1] * (len(data.shape) - 2))
    name = node.name or out.name
    middle = model.variable(f"{out.name}_scaled", out)
    factor = model.constant(f"{name}/scale", scale.reshape(shape).astype(data.dtype))
    offset = model.constant(f"{name}/shift", shift.reshape(shape).astype(data.dtype))
    node.outputs.clear()
    model.graph.nodes += [
        gs.Node("Mul", model.unique_name(f"{name}/Scale"), inputs=[data, factor], outputs=[middle]),
        gs.Node("Add", model.unique_name(f"{name}/Shift"), inputs=[middle, offset], outputs=[out]),
    ]
