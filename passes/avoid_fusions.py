"""What stock onnxruntime gets wrong is written in another way.

The emitted file is to compute the same in a session with default options. Two of the optimisers there are wrong, and
others rely on sizes behind pools that are:

- ``Pad_Fusion`` moves the zeros of a Pad into the ``pads`` of the MaxPool behind it, where they are minus infinity, or
  more than the pool allows, so that the file does not load;
- ``MatMul_BatchNormalization_Fusion`` folds a BatchNormalization into a MatMul across Reshape and Transpose, and does
  not look along which axis the channels are;
- a pool of an opset before 22 that rounds its size up is taken to have a last window that begins in the padding.

The first leaves a Pad alone that names its axes, which opset 18 allows: all axes, in order, mean the same. Before opset
18, and in front of a BatchNormalization, a Concat of one tensor stands between, which is a copy. A Pad in front of a
convolution stays as it is: there zeros are zeros. Such a pool gets the padding with which the same windows fit without
rounding up. What is padded counts for nothing, save in an AveragePool that includes it; that one must not pad more.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from pascalc.graph import Model, has_tensor, is_constant, is_operator, producer, set_input, sort
from pascalc.passes.base import Pass
from pascalc.passes.facts import SHAPES, Fact

#: The first opset in which Pad takes axes.
_PAD_WITH_AXES = 18
#: The first opset in which pools have the size that is computed.
_POOLS_RIGHT = 22


@dataclass(frozen=True)
class AvoidFusions(Pass):
    """Write Pads, BatchNormalizations and pools so that stock onnxruntime computes what they mean."""

    requires: ClassVar[frozenset[Fact]] = frozenset({SHAPES})

    def run(self, model: Model) -> int:
        count = 0
        for node in list(model.graph.nodes):
            if _may_fuse(model, node):
                if model.opset >= _PAD_WITH_AXES and node.inputs[0].shape:
                    _name_axes(model, node)
                else:
                    _copy(model, node.outputs[0], list(node.outputs[0].outputs))
                count += 1
            elif model.opset < _POOLS_RIGHT and _rounds_up(node):
                count += _round_down(node)
            elif is_operator(node, "BatchNormalization") and _is_behind_matmul(node.inputs[0]):
                _copy(model, node.inputs[0], [node])
                count += 1
        sort(model)
        return count


def _may_fuse(model: Model, node: gs.Node) -> bool:
    """Whether the node is a Pad of zeros and something else than a convolution uses it: a pool, or what onnxruntime may
    remove between them."""
    if not is_operator(node, "Pad") or node.attrs.get("mode", "constant") != "constant" or has_tensor(node, 3):
        return False
    if has_tensor(node, 2) and is_constant(node.inputs[2]) and np.any(node.inputs[2].values):
        return False
    padded = node.outputs[0]
    return not model.is_output(padded) and not all(is_operator(user, "Conv") for user in padded.outputs)


def _is_behind_matmul(tensor: gs.Tensor) -> bool:
    node = producer(tensor)
    while is_operator(node, "Reshape", "Transpose", "Identity"):
        node = producer(node.inputs[0])
    return is_operator(node, "MatMul")


def _name_axes(model: Model, pad: gs.Node) -> None:
    axes = np.arange(len(pad.inputs[0].shape), dtype=np.int64)
    set_input(pad, 3, model.constant(f"{pad.outputs[0].name}_axes", axes))


def _rounds_up(node: gs.Node) -> bool:
    """Whether the node is a pool that rounds its size up."""
    explicit = node.attrs.get("auto_pad", "NOTSET") in ("NOTSET", "VALID")
    return is_operator(node, "MaxPool", "AveragePool", "LpPool") and explicit and bool(node.attrs.get("ceil_mode", 0))


def _round_down(pool: gs.Node) -> bool:
    """Pad the pool so that the same windows fit without rounding up, if onnxruntime would infer more of them."""
    sizes, behind = ((t.shape or [])[2:] for t in (pool.inputs[0], pool.outputs[0]))
    rank = len(sizes)
    if not sizes or not all(isinstance(size, int) for size in (*sizes, *behind)):
        return False
    given = [pool.attrs.get(name, [1] * rank) for name in ("kernel_shape", "strides", "dilations")]
    pads = pool.attrs.get("pads", [0] * 2 * rank)
    counts = bool(pool.attrs.get("count_include_pad", 0))
    after: list[int] = []
    more = False
    for size, windows, pad, end, kernel, stride, dilation in zip(
        sizes, behind, pads[:rank], pads[rank:], *given, strict=True
    ):
        covered = (kernel - 1) * dilation + 1
        needed = max((windows - 1) * stride + covered - size - pad, 0)
        if needed >= kernel or (counts and needed > end):  # a pool may not pad so much
            return False
        after.append(needed)
        more |= ceil((size + pad + end - covered) / stride) + 1 > windows
    if more:
        pool.attrs.update(ceil_mode=0, auto_pad="NOTSET", pads=[*pads[:rank], *after])
    return more


def _copy(model: Model, tensor: gs.Tensor, users: list[gs.Node]) -> None:
    """Let the users take a copy of the tensor."""
    copy = model.variable(f"{tensor.name}_copy", tensor)
    for user in users:
        for index, given in enumerate(user.inputs):
            if given is tensor:
                user.inputs[index] = copy
    name = model.unique_name(f"{tensor.name}/Copy")
    model.graph.nodes.append(gs.Node("Concat", name, attrs={"axis": 1}, inputs=[tensor], outputs=[copy]))
