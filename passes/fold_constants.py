"""Constant subgraphs become constants.

Exporters leave casts, clamps, transposes and copies of parameters as nodes. What does not depend on the network's input
is computed here, with onnx's reference evaluator, so that later passes see parameters as values. ``CastLike`` of a
constant depends on a type alone and folds too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from pascalc.constants import CannotEvaluate, evaluate, is_known, is_static
from pascalc.graph import Array, Model, is_constant, is_operator, sweep
from pascalc.passes.base import Pass
from pascalc.passes.facts import CONSTANTS, SHAPES, Fact
from pascalc.passes.infer_shapes import InferShapes

#: So many elements may be computed, and a few times as many as the file holds, so that a tiny file cannot ask for
#: terabytes.
_MAX_ELEMENTS = 2**20


@dataclass(frozen=True)
class FoldConstants(Pass):
    """Compute the nodes that do not depend on the network's input."""

    requires: ClassVar[frozenset[Fact]] = frozenset({SHAPES})
    provides: ClassVar[frozenset[Fact]] = frozenset({CONSTANTS})

    def run(self, model: Model) -> int:
        total = 0
        constants = [t for t in model.graph.tensors().values() if is_constant(t)]
        room = _MAX_ELEMENTS + 16 * sum(prod(t.shape) for t in constants)
        while True:
            found = _fold(model, room)
            total += found.count
            if not found.count or not found.waiting:
                break
            room = found.room
            InferShapes().run(model)  # what was folded settles the size of what waits
        for name, reason in found.refused:
            model.note(self.name(), name, reason)
        return total


@dataclass
class _Folding:
    """How many nodes were folded; whether others wait only for their size; how many elements may still be computed;
    and the nodes that stay, each with the reason."""

    room: int
    count: int = 0
    waiting: bool = False
    refused: list[tuple[str, str]] = field(default_factory=list)


def _fold(model: Model, room: int) -> _Folding:
    """Fold what can be folded into so many elements."""
    found = _Folding(room)
    for node in list(model.graph.nodes):
        if not is_known(model, node):
            continue
        if not all(is_static(t) for t in node.outputs):
            found.waiting = True
            continue
        size = sum(prod(t.shape) for t in node.outputs)
        try:
            if size > found.room:
                raise CannotEvaluate(f"its {size} elements are more than a file of this size may ask for")
            values = _evaluate(model, node)
        except CannotEvaluate as reason:
            name = node.name or node.outputs[0].name
            found.refused.append((name, f"{node.op} of constants stays a node: {reason}"))
            continue
        outputs = list(node.outputs)
        node.inputs.clear()
        node.outputs.clear()
        for tensor, array in zip(outputs, values, strict=True):
            tensor.to_constant(array)
        found.count += 1
        found.room -= size
    model.graph.nodes[:] = [node for node in model.graph.nodes if node.outputs]
    sweep(model)
    return found


def _evaluate(model: Model, node: gs.Node) -> list[Array]:
    if is_operator(node, "CastLike"):
        return [np.asarray(node.inputs[0].values).astype(node.inputs[1].dtype)]
    given = {t.name: t.values for t in node.inputs if not t.is_empty()}
    return evaluate(OnnxExporter.export_node(node), given, model.opset)
