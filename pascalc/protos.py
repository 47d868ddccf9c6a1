"""Small things that the readers of ONNX messages share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import numpy as np
import onnx
import onnx.numpy_helper

M = TypeVar("M", onnx.NodeProto, onnx.TensorProto, onnx.ValueInfoProto, onnx.FunctionProto, onnx.AttributeProto)


def copy(message: M) -> M:
    """The message, in an arena of its own."""
    fresh = type(message)()
    fresh.CopyFrom(message)
    return fresh


def first_line(error: BaseException) -> str:
    """What an exception says, short enough for a message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__


def opset(message: onnx.ModelProto | onnx.FunctionProto) -> int:
    """The opset of ONNX's own domain that the model or function is written for."""
    return next((int(o.version) for o in message.opset_import if o.domain in ("", "ai.onnx")), 1)


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs among a node's attributes: branches, bodies of loops."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def unused(wanted: str, names: set[str]) -> str:
    """A name like the one wanted that is not among ``names``; it is then."""
    name, number = wanted, 1
    while name in names:
        number += 1
        name = f"{wanted}_{number}"
    names.add(name)
    return name


def constant_value(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """The tensor that a ``Constant`` gives; None where it is of a kind that is no number, or a function's attribute."""
    if node.op_type != "Constant" or node.domain not in ("", "ai.onnx"):
        return None
    for attribute in node.attribute:
        if attribute.ref_attr_name:
            return None
        if attribute.name == "value":
            value: onnx.TensorProto = attribute.t
            return copy(value)
        if attribute.name in ("value_float", "value_floats"):
            return onnx.numpy_helper.from_array(np.asarray(onnx.helper.get_attribute_value(attribute), np.float32))
        if attribute.name in ("value_int", "value_ints"):
            return onnx.numpy_helper.from_array(np.asarray(onnx.helper.get_attribute_value(attribute), np.int64))
    return None
