"""The quantisers of QONNX and Brevitas, written out in standard operators.

No stock runtime knows these operators, so a file that holds them is read as what they mean (QONNX specification of
Quant, IntQuant and BipolarQuant):

    Quant(x; scale, zero point z, b bits) = (round(clamp(x/scale + z, low, high)) - z) * scale
    unsigned:  low = 0,                      high = 2^b - 1 - narrow
    signed:    low = -2^(b-1) + narrow,      high = 2^(b-1) - 1
    BipolarQuant(x; scale) = scale where x/scale >= 0, else -scale; so is a signed Quant of one bit

The arithmetic is float32, in the order of QONNX's own executor, and so are its roundings. Passes see the standard
operators: quantised weights are constants that fold, and activations are recognised by their algebra.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper

from pascalc.errors import CompileError
from pascalc.graph import Array
from pascalc.protos import unused

#: Where the quantisers come from, the newest name first.
DOMAINS = ("qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general")
_UNIFORM = ("Quant", "IntQuant")
_BIPOLAR = "BipolarQuant"

#: What each rounding mode is, for values of any sign and for values that are never negative; x is the last value.
_MODES = {
    "ROUND": (("Round",), ("Round",)),
    "HALF_EVEN": (("Round",), ("Round",)),
    "FLOOR": (("Floor",), ("Floor",)),
    "CEIL": (("Ceil",), ("Ceil",)),
    "DOWN": (("Abs", "Floor", "Signed"), ("Floor",)),
    "UP": (("Abs", "Ceil", "Signed"), ("Ceil",)),
    "HALF_UP": (("Abs", "Add half", "Floor", "Signed"), ("Add half", "Floor")),
    "HALF_DOWN": (("Abs", "Sub half", "Ceil", "Signed"), ("Sub half", "Ceil")),
}


def holds_quantisers(model: onnx.ModelProto) -> bool:
    """Whether the file holds operators that :func:`expand` writes out, so that no stock runtime runs it."""
    return any(_is_quantiser(node) for node in model.graph.node)


def import_domains(model: onnx.ModelProto) -> None:
    """Declare the domains of quantisers that a file uses without declaring them, as older exporters left them."""
    declared = {entry.domain for entry in model.opset_import}
    for domain in sorted({node.domain for node in model.graph.node if _is_quantiser(node)} - declared):
        model.opset_import.append(onnx.helper.make_opsetid(domain, 1))


def expand(model: onnx.ModelProto, path: Path) -> None:
    """Replace every quantiser by standard operators, in place; the result has no quantiser's domain any more.

    Raises:
        CompileError: a quantiser lacks an input, has a computed bit width, or an unknown rounding mode.
    """
    if not holds_quantisers(model):
        return
    writer = _Writer(model.graph, path)
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        nodes += writer.written_out(node) if _is_quantiser(node) else [onnx.NodeProto.FromString(_bytes(node))]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(writer.constants)
    used = {node.domain for node in nodes}
    kept = [o for o in model.opset_import if o.domain not in DOMAINS or o.domain in used]
    kept = [onnx.helper.make_opsetid(o.domain, o.version) for o in kept]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def _is_quantiser(node: onnx.NodeProto) -> bool:
    return node.domain in DOMAINS and node.op_type in (*_UNIFORM, _BIPOLAR)


def _bytes(node: onnx.NodeProto) -> bytes:
    return bytes(node.SerializeToString())


class _Writer:
    def __init__(self, graph: onnx.GraphProto, path: Path) -> None:
        self.path = path
        self.known = {t.name: t for t in graph.initializer}
        self.names = {name for node in graph.node for name in (node.name, *node.input, *node.output)}
        self.names |= {v.name for v in (*graph.input, *graph.output)} | set(self.known)
        self.constants: list[onnx.TensorProto] = []
        self.nodes: list[onnx.NodeProto] = []

    def written_out(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        self.nodes, self.label = [], node.name or node.output[0]
        wanted = 2 if node.op_type == _BIPOLAR else 4
        if len(node.input) != wanted or not all(node.input):
            raise self._error(f"{node.op_type} needs {wanted} inputs")
        x, scale = node.input[:2]
        if node.op_type == _BIPOLAR:
            self._bipolar(self._node("Div", x, scale), scale, node.output[0])
            return self.nodes
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        signed, narrow = bool(attributes.get("signed", 1)), bool(attributes.get("narrow", 1))
        mode = attributes.get("rounding_mode", b"ROUND").decode().upper()
        if mode not in _MODES:
            raise self._error(f"the rounding mode {mode} of {node.op_type} is not known", f"Use {', '.join(_MODES)}.")
        zero, bits = node.input[2], self._bits(node)
        shifted = self._node("Add", self._node("Div", x, scale), zero)
        if signed and np.all(bits == 1):
            self._bipolar(shifted, scale, node.output[0], zero)
            return self.nodes
        high = np.exp2(bits - 1) - 1 if signed else np.exp2(bits) - 1 - narrow
        low = narrow - np.exp2(bits - 1) if signed else np.zeros_like(bits)
        value = self._node("Min", shifted, self._constant("high", high))
        value = self._node("Max", value, self._constant("low", low))
        value = self._rounded(value, _MODES[mode][not signed])
        self._node("Mul", self._node("Sub", value, zero), scale, out=node.output[0])
        return self.nodes

    def _rounded(self, value: str, steps: tuple[str, ...]) -> str:
        original = value
        for step in steps:
            op, _, half = step.partition(" ")
            if step == "Signed":
                value = self._node("Mul", value, self._node("Sign", original))
            else:
                value = self._node(op, value, *([self._constant("half", np.float32(0.5))] if half else []))
        return value

    def _bipolar(self, value: str, scale: str, out: str, zero: str | None = None) -> None:
        positive = self._node("GreaterOrEqual", value, self._constant("zero", np.float32(0)))
        ones = [self._constant(name, np.float32(one)) for name, one in (("plus", 1), ("minus", -1))]
        sign = self._node("Where", positive, *ones)
        self._node("Mul", sign if zero is None else self._node("Sub", sign, zero), scale, out=out)

    def _bits(self, node: onnx.NodeProto) -> Array:
        if node.input[3] not in self.known:
            raise self._error(
                f"the bit width of {node.op_type} is computed",
                "Fold the file's constants first (onnxsim, qonnx-cleanup).",
            )
        return onnx.numpy_helper.to_array(self.known[node.input[3]]).astype(np.float32)

    def _error(self, message: str, hint: str = "") -> CompileError:
        return CompileError(message, file=self.path, node=self.label, hint=hint)

    def _constant(self, kind: str, values: Any) -> str:
        name = unused(f"{self.label}/{kind}", self.names)
        self.constants.append(onnx.numpy_helper.from_array(np.asarray(values, np.float32), name))
        return name

    def _node(self, op: str, *inputs: str, out: str | None = None) -> str:
        name = unused(f"{self.label}/{op}", self.names)
        out = unused(f"{name}_out", self.names) if out is None else out
        self.nodes.append(onnx.helper.make_node(op, list(inputs), [out], name=name))
        return out
