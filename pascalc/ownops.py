"""The operators of the domain ``ai.pascalc`` in a file: whether they are used as they are defined (pascalc/ops)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx

from pascalc import ops
from pascalc.errors import CompileError
from pascalc.protos import subgraphs

_TYPES = {"int": onnx.AttributeProto.INT, "float": onnx.AttributeProto.FLOAT, "string": onnx.AttributeProto.STRING}
_WANTED = {
    "int": "an integer",
    "float": "a float",
    "string": "text",
}
_FLOATS: set[int] = {
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.DOUBLE,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.BFLOAT16,
}
#: A source may leave out what recognise-qcfs sets.
_OPTIONAL = {name: {"phi", "label"} for name in ops.ACTIVATIONS}


def check(graph: onnx.GraphProto, path: Path, outer: Mapping[str, int] | None = None) -> None:
    """Check every node of the domain, those of subgraphs too; big weights are inputs of the graph here.

    Raises:
        CompileError: a node is of an unknown operator, lacks an input, an output or an attribute, or an attribute or
            a threshold is of another type.
    """
    types = dict(outer or {})
    types |= {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.output, *graph.input)}
    types |= {t.name: t.data_type for t in graph.initializer}
    for node in graph.node:
        for subgraph in subgraphs(node):
            check(subgraph, path, types)
        if node.domain == ops.DOMAIN:
            problem = _problem(node, types)
            if problem:
                message, hint = problem
                raise CompileError(message, file=path, node=node.name or next(filter(None, node.output), ""), hint=hint)


def _problem(node: onnx.NodeProto, types: Mapping[str, int]) -> tuple[str, str] | None:
    operator = ops.OPERATORS.get(node.op_type)
    if operator is None:
        return (
            f"{ops.DOMAIN} has no operator {node.op_type}",
            f"Compile the source again with this version; it has: {', '.join(sorted(ops.OPERATORS))}.",
        )
    hint = "The file is damaged, or another version's: compile or export it again."
    for kind, wanted, given in (("input", operator.inputs, node.input), ("output", operator.outputs, node.output)):
        if len(given) != len(wanted) or not all(given):
            plural = "s" if len(wanted) > 1 else ""
            return f"{node.op_type} must have the {kind}{plural} {', '.join(wanted)}", hint
    present = {attribute.name: attribute for attribute in node.attribute}
    for attribute in operator.attributes:
        found = present.get(attribute.name)
        if found is None and attribute.name in _OPTIONAL.get(node.op_type, ()):
            continue
        if found is None or found.type != _TYPES[attribute.type] or found.ref_attr_name:
            bounds = f" from 1 to {ops.MAX_LEVELS}" if attribute.name == "levels" else ""
            value = None if found is None or found.ref_attr_name else onnx.helper.get_attribute_value(found)
            return f"{attribute.name} of {node.op_type} must be {_WANTED[attribute.type]}{bounds}, not {value}", hint
        if found.type == onnx.AttributeProto.STRING and not _is_text(found.s):
            return f"{attribute.name} of {node.op_type} is not text", hint
    for name, tensor in zip(operator.inputs, node.input, strict=True):
        element = types.get(tensor, 0)
        if name in ("threshold", "thresholds", "unit") and element and element not in _FLOATS:
            return (
                f"the {name} of {node.op_type} is of type {_type_name(element)}, not float",
                "Store thresholds as float32.",
            )
    return None


def _type_name(element: int) -> str:
    known = element in onnx.TensorProto.DataType.values()
    return (
        onnx.TensorProto.DataType.Name(onnx.TensorProto.DataType.ValueType(element)).lower() if known else str(element)
    )


def _is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
