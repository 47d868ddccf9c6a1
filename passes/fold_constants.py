"""Constant subgraphs become constants.

Exporters leave casts, clamps, transposes and copies of parameters as nodes. What does not depend on the network's input
is computed here, with onnx's reference evaluator, so that later passes see parameters as values. ``CastLike`` of a
constant depends on a type alone and folds too.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from pascalc.constants import CannotEvaluate, evaluate
from pascalc.graph import Array, Model, is_constant, is_operator, sweep
from pascalc.operators import operator
from pascalc.passes.base import Pass
from pascalc.passes.infer_shapes import InferShapes

#: So many elements may be computed, and a few times as many as the file holds, so that a tiny file cannot ask for
#: terabytes.
_MAX_ELEMENTS = 2**20


@dataclass(frozen=True)
class FoldConstants(Pass):
    """Compute the nodes that do not depend on the network's input."""

    requires: ClassVar[frozenset[str]] = frozenset({"shapes"})

    def run(self, model: Model) -> int:
        total = 0
        constants = [t for t in model.graph.tensors().values() if is_constant(t)]
        room = _MAX_ELEMENTS + 16 * sum(prod(t.shape) for t in constants)
        while True:
            count, waiting, room = _fold(model, self.name(), room)
            total += count
            if not count or not waiting:
                break
            InferShapes().run(model)  # what was folded settles the size of what waits
        return total


def _fold(model: Model, name: str, room: int) -> tuple[int, bool, int]:
    """Fold what can be folded into so many elements; returns how many nodes, whether others wait only for their size,
    and how many elements are left."""
    count, waiting = 0, False
    for node in list(model.graph.nodes):
        if not _is_constant(model, node):
            continue
        if not all(_is_static(t) for t in node.outputs):
            waiting = True
            continue
        size = sum(prod(t.shape) for t in node.outputs)
        if size > room:
            continue
        try:
            values = _evaluate(model, node)
        except CannotEvaluate as reason:
            model.note(name, node.name or node.outputs[0].name, f"{node.op} of constants stays a node: {reason}")
            continue
        outputs = list(node.outputs)
        node.inputs.clear()
        node.outputs.clear()
        for tensor, array in zip(outputs, values, strict=True):
            tensor.to_constant(array)
        count += 1
        room -= size
    model.graph.nodes[:] = [node for node in model.graph.nodes if node.outputs]
    sweep(model)
    return count, waiting, room


def _is_constant(model: Model, node: gs.Node) -> bool:
    if (node.domain or "") != "" or operator(node).random or any(isinstance(v, gs.Graph) for v in node.attrs.values()):
        return False
    given = [t for t in node.inputs if not t.is_empty()]
    if is_operator(node, "CastLike"):
        given = given[:1]
        if node.inputs[1].dtype is None:
            return False
    if not given or not all(is_constant(t) for t in given):
        return False
    return not any(t.is_empty() or model.is_output(t) for t in node.outputs)


def _is_static(tensor: gs.Tensor) -> bool:
    return tensor.shape is not None and all(isinstance(d, int) for d in tensor.shape)


def _evaluate(model: Model, node: gs.Node) -> list[Array]:
    if is_operator(node, "CastLike"):
        return [np.asarray(node.inputs[0].values).astype(node.inputs[1].dtype)]
    given = {t.name: t.values for t in node.inputs if not t.is_empty()}
    return evaluate(OnnxExporter.export_node(node), given, model.opset)
