"""Model-local functions: which are refused, how their defaults reach the nodes that call them, and inlining.

onnxruntime gives a node that lacks an attribute the function's default (``FunctionProto.attribute_proto``); onnx's
inliner drops it. So the defaults are written into the calls first, from the outermost functions to the innermost: what
a call inside a body has is only known when the body stands in the graph.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
import onnx.inliner
import onnx.numpy_helper

from pascalc import limits, observed, ops
from pascalc.errors import CompileError
from pascalc.protos import constant_value, copy, first_line, opset

Key = tuple[str, str, str]


def check(model: onnx.ModelProto, path: Path) -> None:
    """Refuse functions that onnx inlines and onnxruntime does not, and other versions of our operators.

    Raises:
        CompileError: a function has the name of an operator of onnxruntime, or an operator of ours an overload.
    """
    for function in model.functions:
        domain = "" if function.domain == "ai.onnx" else function.domain
        known = (domain, function.name) in observed.operators() or onnx.defs.has(function.name, domain=domain)
        if domain == "" or known:
            owner = f"the domain '{domain}'" if domain else "ONNX itself"
            raise CompileError(
                f"the file has a function of its own among the operators of {owner}: onnxruntime ignores it and runs "
                "its own operator of that name",
                file=path,
                node=function.name,
                hint="Give the function, and the nodes that call it, another domain.",
            )
    own = [f for f in model.functions if f.domain == ops.DOMAIN]
    calls = [n for n in limits.all_nodes(model.graph.node) if n.domain == ops.DOMAIN]
    for name, overload in [(f.name, f.overload) for f in own] + [(n.op_type, n.overload) for n in calls]:
        if overload:
            raise CompileError(
                f"it has the overload '{overload}', and operators of {ops.DOMAIN} have none",
                file=path,
                node=name,
                hint="Leave the overload empty.",
            )


def inlined(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """The model without functions, save those of the project's operators.

    Raises:
        CompileError: a function cannot be inlined, or is of an opset in which its operators mean something else.
    """
    functions = {_key(f): copy(f) for f in model.functions if not _is_ours(f)}
    for function in functions.values():
        _check_opset(function, opset(model), path)
    callees = {key: {_call(n) for n in limits.all_nodes(f.node)} for key, f in functions.items()}
    left = set(functions)
    while left:
        if any(functions[key].attribute_proto for key in left):
            inner = {callee for key in left for callee in callees[key]}
            chosen = left - inner
            # The inliner knows names alone: overloads of one name go together.
            waiting = {key[:2] for key in left & inner}
            chosen = {key for key in chosen if key[:2] not in waiting}
            _write_defaults(model.graph, functions)
        else:
            chosen = set(left)
        if not chosen:
            raise CompileError(
                "its functions cannot be inlined: overloads of one name call one another",
                file=path,
                hint="Export without overloads.",
            )
        for function in model.functions:
            if not _is_ours(function):
                _set_opset(function, opset(model))
        try:
            model = onnx.inliner.inline_selected_functions(model, sorted({key[:2] for key in chosen}), exclude=False)
        except Exception as error:  # several of the C++ library's own, all with a message
            raise CompileError(f"its functions cannot be inlined: {first_line(error)}", file=path) from error
        left -= chosen
    remaining = [f for f in model.functions if not _is_ours(f)]
    if remaining:
        raise CompileError(
            "a function of the file cannot be inlined",
            file=path,
            node=remaining[0].name,
            hint="Export without model-local functions.",
        )
    return model


def changed(model: onnx.ModelProto) -> list[str]:
    """The operators of the project's domain whose bodies in the file do not mean what the definitions here mean."""
    version = opset(model)
    own = [f for f in model.functions if f.domain == ops.DOMAIN]
    return [f.name for f in own if not _is_ours(f) or _meaning(f) != _meaning(ops.OPERATORS[f.name].function(version))]


def _is_ours(function: onnx.FunctionProto) -> bool:
    return function.domain == ops.DOMAIN and function.name in ops.OPERATORS


def _key(function: onnx.FunctionProto) -> Key:
    return function.domain, function.name, function.overload


def _call(node: onnx.NodeProto) -> Key:
    return node.domain, node.op_type, node.overload


def _write_defaults(graph: onnx.GraphProto, functions: Mapping[Key, onnx.FunctionProto]) -> None:
    for node in limits.all_nodes(graph.node):
        function = functions.get(_call(node))
        if function is not None:
            present = {attribute.name for attribute in node.attribute}
            node.attribute.extend(a for a in function.attribute_proto if a.name not in present)


def _check_opset(function: onnx.FunctionProto, version: int, path: Path) -> None:
    """A function of another opset than the model's is taken where its operators are the same in both."""
    own = opset(function)
    if own == version:
        return
    for node in limits.all_nodes(function.node):
        if node.domain in ("", "ai.onnx") and _since(node.op_type, own) != _since(node.op_type, version):
            raise CompileError(
                f"the function {function.name} is written for opset {own} and the model for opset {version}, in which "
                f"its operator {node.op_type} is another",
                file=path,
                node=function.name,
                hint="Export with one opset, or without functions.",
            )


def _since(operator: str, version: int) -> int | None:
    """The opset that gave an operator the form it has in this one; None where there is no such operator."""
    if not onnx.defs.has(operator, max_inclusive_version=version):
        return None
    return int(onnx.defs.get_schema(operator, max_inclusive_version=version).since_version)


def _set_opset(function: onnx.FunctionProto, version: int) -> None:
    for entry in function.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = version


def _meaning(function: onnx.FunctionProto) -> Sequence[object]:
    """What a body computes: without documentation, names, the order of nodes, and nodes that nobody uses."""
    tensors = {name: f"input {index}" for index, name in enumerate(function.input)}
    for node in function.node:
        inputs = [tensors.get(name, f"free {name}") if name else "" for name in node.input]
        domain = "" if node.domain == "ai.onnx" else node.domain
        value = constant_value(node)
        if value is not None:
            attributes = [("value", "", bytes(_plain(value)))]
        else:
            attributes = sorted(_attribute(a) for a in node.attribute)
        expression = repr((domain, node.op_type, node.overload, inputs, attributes))
        for index, name in enumerate(node.output):
            tensors[name] = hashlib.sha256(f"{index} {expression}".encode()).hexdigest()
    return (
        opset(function),
        len(function.input),
        sorted(function.attribute),
        sorted(_attribute(a) for a in function.attribute_proto),
        [tensors.get(name) for name in function.output],
    )


def _plain(tensor: onnx.TensorProto) -> bytes:
    """A tensor's bytes, however its values are written."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return bytes(tensor.SerializeToString(deterministic=True))
    array = onnx.numpy_helper.to_array(tensor)
    return bytes(onnx.numpy_helper.from_array(array).SerializeToString(deterministic=True))


def _attribute(attribute: onnx.AttributeProto) -> tuple[str, str, bytes]:
    bare = copy(attribute)
    bare.ClearField("doc_string")
    return bare.name, bare.ref_attr_name, bytes(bare.SerializeToString(deterministic=True))
