"""Old opsets made new, where onnx's own converter is right and where it is not.

What loses its meaning in onnx's converter is given it back here:

- ``Hardmax`` before opset 13 sees its input as a matrix, all axes from ``axis`` on in one row;
- the mask of ``Dropout`` before opset 12 is another one in onnxruntime, and refused where it is used;
- ``Upsample``, and ``Resize`` of opset 10, count from the corner (asymmetric). The nearest value is the one before
  where an axis grows (floor), and the one behind where it shrinks (ceil), as onnxruntime computes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.version_converter

from pascalc import limits, ops
from pascalc.errors import CompileError
from pascalc.graph import Array
from pascalc.protos import constant_value, copy, first_line, opset, subgraphs, unused

#: Opsets from which these operators are what they are today.
_HARDMAX, _DROPOUT, _RESIZE = 13, 12, 11


def modernise(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """The model in an opset that the function bodies can join; the same model where it is new enough.

    Raises:
        CompileError: the opset is newer than onnx knows, or cannot be converted.
    """
    version, newest = opset(model), onnx.defs.onnx_opset_version()
    if version > newest:
        raise CompileError(
            f"opset {version} is newer than the installed onnx knows ({newest})",
            file=path,
            hint=f"Export with opset {newest} or older, or upgrade onnx.",
        )
    if version >= ops.MIN_OPSET:
        return model
    model.ir_version = max(model.ir_version, 4)  # before it, every initializer had to be an input
    try:
        model = onnx.version_converter.convert_version(model, ops.MIN_OPSET)
    except Exception as error:  # the converter raises RuntimeError and its own ConvertError, both with a message
        raise CompileError(
            f"opset {version} cannot be converted to {ops.MIN_OPSET}: {first_line(error)}",
            file=path,
            hint=f"Export the model again with opset {ops.MIN_OPSET} or later.",
        ) from error
    _Mender(model.graph, version, path).mend(model.graph, {})
    return model


class _Mender:
    def __init__(self, graph: onnx.GraphProto, version: int, path: Path) -> None:
        self.version, self.path = version, path
        self.used = set(_uses(graph))
        self.names = self.used | {name for node in limits.all_nodes(graph.node) for name in (node.name, *node.output)}
        self.nodes: list[onnx.NodeProto] = []
        self.label = ""

    def mend(self, graph: onnx.GraphProto, outer: dict[str, Array]) -> None:
        """Mend the graph and its subgraphs, in place; ``outer`` holds the constants around it."""
        constants = {**outer, **{t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}}
        for node in graph.node:
            value = constant_value(node)
            if value is not None:
                constants[node.output[0]] = onnx.numpy_helper.to_array(value)
        mended: list[onnx.NodeProto] = []
        for node in graph.node:
            for subgraph in subgraphs(node):
                self.mend(subgraph, constants)
            self.nodes, self.label = [], node.name or node.output[0]
            standard = node.domain in ("", "ai.onnx")
            if standard and node.op_type == "Hardmax" and self.version < _HARDMAX:
                self._hardmax(node)
            elif standard and node.op_type == "Resize" and self.version < _RESIZE:
                self._resize(node, constants.get(node.input[2]))
            else:
                if standard and node.op_type == "Dropout" and self.version < _DROPOUT:
                    self._check_mask(node)
                self.nodes.append(copy(node))
            mended += self.nodes
        del graph.node[:]
        graph.node.extend(mended)

    def _hardmax(self, node: onnx.NodeProto) -> None:
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        shape = self._node("Shape", node.input[0])
        rows = self._node("Flatten", node.input[0], axis=axis)
        best = self._node("Hardmax", rows, axis=-1)
        self._node("Reshape", best, shape, out=node.output[0])

    def _check_mask(self, node: onnx.NodeProto) -> None:
        if len(node.output) > 1 and node.output[1] in self.used:
            raise CompileError(
                f"the mask of Dropout is used, which is another one in opset {_DROPOUT} and later",
                file=self.path,
                node=self.label,
                hint="Export for inference (training=TrainingMode.EVAL), without Dropout.",
            )

    def _resize(self, node: onnx.NodeProto, scales: Array | None) -> None:
        mode = next((a.s.decode() for a in node.attribute if a.name == "mode"), "nearest")
        data, given = node.input[0], node.input[2]
        if mode != "nearest":
            self._resized(data, given, node.output[0], mode="linear")
        elif scales is not None and np.all(scales >= 1):
            self._resized(data, given, node.output[0], mode="nearest", nearest_mode="floor")
        elif scales is not None and np.all(scales <= 1):
            self._resized(data, given, node.output[0], mode="nearest", nearest_mode="ceil")
        else:
            one = self._node("Constant", value=onnx.numpy_helper.from_array(np.asarray(1, np.float32)))
            smaller = self._resized(data, self._node("Min", given, one), mode="nearest", nearest_mode="ceil")
            larger = self._node("Max", given, one)
            self._resized(smaller, larger, node.output[0], mode="nearest", nearest_mode="floor")

    def _resized(self, data: str, scales: str, out: str | None = None, **attributes: str) -> str:
        mode = {"coordinate_transformation_mode": "asymmetric", **attributes}
        return self._node("Resize", data, "", scales, out=out, **mode)

    def _node(self, op: str, *inputs: str, out: str | None = None, **attributes: Any) -> str:
        name = unused(self.label if out is not None else f"{self.label}/{op}", self.names)
        out = unused(f"{name}_out", self.names) if out is None else out
        self.nodes.append(onnx.helper.make_node(op, list(inputs), [out], name=name, **attributes))
        return out


def _uses(graph: onnx.GraphProto) -> Iterator[str]:
    """Every name that a node, an output or an initializer of the graph or its subgraphs refers to."""
    yield from (value.name for value in (*graph.input, *graph.output, *graph.initializer) if value.name)
    for node in graph.node:
        yield from filter(None, node.input)
        for subgraph in subgraphs(node):
            yield from _uses(subgraph)
