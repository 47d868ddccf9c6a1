"""Linear layers: their weights and biases by channel, and the edits that scale them.

A layer's weight is edited only through here, and always by putting a new initializer in its place.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import TypeGuard

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from pascalc.errors import CompileError
from pascalc.graph import BATCH, Array, Model, has_tensor, is_constant, is_operator, set_input

#: The operators with a weight, and where the bias of each lies.
LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")

Scale = NDArray[np.float64]


def is_layer(node: gs.Node | None) -> TypeGuard[gs.Node]:
    """Whether the node is a linear layer: data in input 0, a weight of its own (not shared) in input 1."""
    if node is None or not is_operator(node, *LAYERS) or not has_tensor(node, 1):
        return False
    weight = node.inputs[1]
    if not is_constant(weight) or is_constant(node.inputs[0]):
        return False
    if is_operator(node, "Gemm") and node.attrs.get("transA", 0):
        return False
    return len(weight.shape) == 2 if is_operator(node, "MatMul", "Gemm") else len(weight.shape) > 2


def owns_weight(node: gs.Node) -> bool:
    """Whether no other node uses the layer's weight."""
    return len(node.inputs[1].outputs) == 1


def output_channels(node: gs.Node) -> int:
    """The number of output channels of a layer."""
    weight = node.inputs[1].shape
    if is_operator(node, "ConvTranspose"):
        return int(weight[1] * node.attrs.get("group", 1))
    return int(weight[0] if is_operator(node, "Conv") or node.attrs.get("transB", 0) else weight[1])


def check_layer(model: Model, node: gs.Node) -> None:
    """Whether the weight of a layer holds values, and the channels of a Conv or ConvTranspose fit together, as far as
    they are known; onnx does not look.

    Raises:
        CompileError: it does not, or they do not.
    """
    if 0 in node.inputs[1].shape:
        raise CompileError(
            f"its weight {list(node.inputs[1].shape)} holds no values",
            file=model.file,
            node=node.name or node.outputs[0].name,
            hint="Leave the layer out of the model.",
        )
    if not is_operator(node, "Conv", "ConvTranspose"):
        return
    weight, shape, group = node.inputs[1].shape, node.inputs[0].shape, node.attrs.get("group", 1)
    inputs = weight[1] * group if is_operator(node, "Conv") else weight[0]
    reason = ""
    if group < 1 or weight[0] % group:
        reason = f"its weight {list(weight)} cannot be cut into {group} groups"
    elif shape and isinstance(shape[1], int) and shape[1] != inputs:
        reason = f"its weight {list(weight)} is for {inputs} input channels, not {shape[1]}"
    elif (
        has_tensor(node, 2) and is_constant(node.inputs[2]) and tuple(node.inputs[2].shape) != (output_channels(node),)
    ):
        reason = f"its bias {list(node.inputs[2].shape)} is not for {output_channels(node)} output channels"
    if reason:
        raise CompileError(reason, file=model.file, node=node.name or node.outputs[0].name)


def scale_layer(model: Model, node: gs.Node, outputs: Scale | None = None, inputs: Scale | None = None) -> None:
    """Multiply the layer's weight by ``outputs`` (a scalar, or one value an output channel; the bias too) and by
    ``inputs`` (a scalar, or one value an input channel), each weight rounded once."""
    weight = node.inputs[1]
    factor = np.asarray(1.0)
    if outputs is not None:
        factor = factor * _along(node, outputs, output=True)
    if inputs is not None:
        factor = factor * _along(node, inputs, output=False)
    values = np.empty_like(weight.values)
    with _in_range(model, node):
        # in float64, chunk by chunk: the result is rounded once and no float64 copy of the weight is made
        np.multiply(_grouped(node, weight.values), factor, out=_grouped(node, values), casting="same_kind")
        set_input(node, 1, model.constant(weight.name, values))
        if outputs is not None and has_tensor(node, 2):
            bias = node.inputs[2].values.astype(np.float64) * outputs
            set_input(node, 2, model.constant(node.inputs[2].name, bias.astype(weight.dtype)))


def shift_layer(model: Model, node: gs.Node, shift: Scale) -> None:
    """Add ``shift``, one value an output channel, to a layer's bias."""
    if is_operator(node, "Gemm") and has_tensor(node, 2):
        shift = shift + node.attrs.get("beta", 1.0) * node.inputs[2].values.astype(np.float64)
    elif has_tensor(node, 2):
        shift = shift + node.inputs[2].values.astype(np.float64)
    node.attrs.pop("beta", None)
    name = node.inputs[2].name if has_tensor(node, 2) else f"{node.inputs[1].name}_bias"
    with _in_range(model, node):
        set_input(node, 2, model.constant(name, shift.astype(node.inputs[1].dtype)))


@contextmanager
def _in_range(model: Model, node: gs.Node) -> Iterator[None]:
    """Refuse what turns finite numbers into infinite ones: an infinite weight makes NaN of a step without spikes."""
    try:
        with np.errstate(over="raise"):
            yield
    except FloatingPointError as error:
        raise CompileError(
            "its weights, scaled by what is folded into them, exceed the largest float",
            file=model.file,
            node=node.name or node.outputs[0].name,
            hint="Weights, thresholds or statistics of this size mean a damaged file or a training that diverged.",
        ) from error


def _along(node: gs.Node, scale: Scale, output: bool) -> Scale:
    """The scale, shaped to broadcast against the (grouped) weight."""
    scale = np.asarray(scale, np.float64)
    if scale.size == 1:
        return scale.reshape(())
    rank = len(node.inputs[1].shape)
    if is_operator(node, "ConvTranspose"):  # [group, in/group, out/group, ...]
        group = node.attrs.get("group", 1)
        shape = (group, 1, -1) if output else (group, -1, 1)
        return scale.reshape(*shape, *[1] * (rank - 2))
    if is_operator(node, "Conv"):
        return scale.reshape(*((-1, 1) if output else (1, -1)), *[1] * (rank - 2))
    rows_are_outputs = bool(node.attrs.get("transB", 0))
    return scale.reshape((-1, 1) if rows_are_outputs == output else (1, -1))


def _grouped(node: gs.Node, weight: Array) -> Array:
    if not is_operator(node, "ConvTranspose"):
        return weight
    group = node.attrs.get("group", 1)
    return weight.reshape(group, weight.shape[0] // group, *weight.shape[1:])


def fan_in(node: gs.Node) -> int:
    """Products that one output of the layer sums."""
    weight = node.inputs[1].shape
    if is_operator(node, "Conv"):
        return int(prod(weight[1:]))
    if is_operator(node, "ConvTranspose"):
        return int(weight[0] // node.attrs.get("group", 1) * prod(weight[2:]))
    return int(weight[1] if node.attrs.get("transB", 0) else weight[0])


def macs(node: gs.Node) -> int | None:
    """Multiply-accumulates of a layer for one sample; None where shapes are not known."""
    # Every weight of a ConvTranspose meets every input position once; elsewhere count from the outputs.
    tensor = node.inputs[0] if is_operator(node, "ConvTranspose") else node.outputs[0]
    shape = tensor.shape
    if not shape or not all(isinstance(d, int) for d in shape[1:]):
        return None
    if is_operator(node, "ConvTranspose"):
        return int(prod(shape[1:]) * prod(node.inputs[1].shape[1:]))
    return int(prod(shape[1:]) * fan_in(node))


def product_macs(node: gs.Node) -> int | None:
    """Multiply-accumulates for one sample of a MatMul without a weight matrix of its own, as in attention; 0 for any
    other operator, None where shapes are not known."""
    if not is_operator(node, "MatMul") or is_layer(node) or all(is_constant(t) for t in node.inputs):
        return 0
    out, left = node.outputs[0].shape, node.inputs[0].shape
    if not out or not left or not all(isinstance(d, int) for d in (*out[1:], left[-1])):
        return None
    return int(prod(out[1:]) * left[-1])


def is_batched(tensor: gs.Tensor) -> bool:
    """Whether the tensor's first axis is the batch, or the batch times the time steps."""
    return bool(tensor.shape) and isinstance(tensor.shape[0], str) and tensor.shape[0].endswith(BATCH)
