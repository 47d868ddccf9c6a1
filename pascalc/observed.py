"""What onnxruntime knows of tensors where onnx's shape inference does not, or is wrong.

onnx knows nothing of the operators of other domains, such as those that onnxruntime's own optimiser writes; a session
that is only loaded tells their types and shapes. And onnx counts a last window of a pool that begins in the padding,
which onnxruntime leaves out, and pads more for a dilated window; a pool of that size is run to see.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from functools import cache, lru_cache
from math import prod

import numpy as np
import onnx
import onnxruntime as ort
from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema

from pascalc.runtime import RUNTIME_ERRORS

#: Pools whose size may not be what onnx infers.
_POOLS = ("MaxPool", "AveragePool", "LpPool")
#: So many comparisons a pool may take, so that a tiny file cannot ask for hours.
_MOST = 2**26


def is_doubtful(node: onnx.NodeProto) -> bool:
    """Whether onnx may infer another size than onnxruntime computes."""
    if node.op_type not in _POOLS or node.domain not in ("", "ai.onnx"):
        return False
    given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    return given.get("ceil_mode", 0) == 1 or given.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID")


def pooled(node: onnx.NodeProto, sizes: Sequence[int], opset: int) -> list[int] | None:
    """The sizes behind a pool; None where onnxruntime cannot tell."""
    alone = onnx.helper.make_node(node.op_type, ["x"], ["y"])
    alone.attribute.extend(sorted(node.attribute, key=lambda attribute: attribute.name))
    return _pooled(alone.SerializeToString(), tuple(sizes), opset)


@lru_cache(maxsize=1024)
def _pooled(node: bytes, sizes: tuple[int, ...], opset: int) -> list[int] | None:
    pool = onnx.NodeProto.FromString(node)
    window = [size for a in pool.attribute if a.name == "kernel_shape" for size in a.ints]
    if not 0 < prod(sizes) * prod(window) <= _MOST:
        return None
    graph = onnx.helper.make_graph(
        [pool],
        "pool",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 1, *sizes])],
        [onnx.ValueInfoProto(name="y")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8)
    try:
        return list(_load(model).run(None, {"x": np.zeros((1, 1, *sizes), np.float32)})[0].shape[2:])
    except RUNTIME_ERRORS:  # a pool that onnxruntime cannot run has no size
        return None


@cache
def operators() -> frozenset[tuple[str, str]]:
    """Domain and name of every operator that onnxruntime has. A function of the same name is one that it ignores."""
    return frozenset((schema.domain or "", schema.name) for schema in get_all_operator_schema())


def types(model: onnx.ModelProto, names: Iterable[str]) -> dict[str, tuple[int, list[int | str | None] | None]]:
    """Element types and shapes of tensors, as onnxruntime infers them when it loads the model; nothing where it cannot
    load it. A shape is None where it is not known."""
    present: Collection[str] = {value.name for value in model.graph.output}
    asked = onnx.ModelProto()
    asked.CopyFrom(model)
    asked.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in present)
    try:
        outputs = _load(asked).get_outputs()
    except RUNTIME_ERRORS:  # it knows no more than onnx
        return {}
    return {
        value.name: (_ELEMENT_TYPES[value.type], list(value.shape) or None)
        for value in outputs
        if value.type in _ELEMENT_TYPES
    }


def _load(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


#: The names that onnxruntime has for types of tensors.
_ELEMENT_TYPES: dict[str, int] = {
    f"tensor({name})": onnx.TensorProto.DataType.Value(proto)
    for name, proto in (
        ("float", "FLOAT"),
        ("double", "DOUBLE"),
        ("float16", "FLOAT16"),
        ("bfloat16", "BFLOAT16"),
        ("bool", "BOOL"),
        ("string", "STRING"),
        *((f"{sign}int{bits}", f"{sign}int{bits}".upper()) for sign in ("", "u") for bits in (8, 16, 32, 64)),
    )
}
