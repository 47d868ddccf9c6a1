"""Computing single nodes whose inputs are all known."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx.reference
import onnx_graphsurgeon as gs

from pascalc.graph import Array, Model, is_constant, is_operator
from pascalc.operators import operator


class CannotEvaluate(Exception):
    """onnx's reference evaluator cannot compute the node, and why."""


def is_known(model: Model, node: gs.Node) -> bool:
    """Whether a node's results depend on constants alone. ``CastLike`` of a constant depends on a type alone."""
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


def is_static(tensor: gs.Tensor) -> bool:
    """Whether the tensor's whole shape is known."""
    return tensor.shape is not None and all(isinstance(d, int) for d in tensor.shape)


#: Operators whose older versions the evaluator lacks, and an opset that means the same and has them.
_NEWER = ("QuantizeLinear", "DequantizeLinear")
_NEWER_OPSET = 21


def evaluate(node: onnx.NodeProto, inputs: Mapping[str, Array], opset: int) -> list[Array]:
    """The outputs of a node of the standard domain.

    Raises:
        CannotEvaluate: the evaluator lacks the operator, or the inputs do not fit it.
    """
    if node.op_type in _NEWER:
        opset = max(opset, _NEWER_OPSET)
    types = {name: onnx.helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in inputs.items()}
    graph = onnx.helper.make_graph(
        [node],
        "constant",
        [onnx.helper.make_tensor_value_info(name, types[name], array.shape) for name, array in inputs.items()],
        [onnx.helper.make_empty_tensor_value_info(name) for name in node.output],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    try:
        return [np.asarray(a) for a in onnx.reference.ReferenceEvaluator(model).run(None, dict(inputs))]
    except Exception as error:  # whatever it raises, the node is simply not known
        raise CannotEvaluate(f"{type(error).__name__}: {error}") from error
