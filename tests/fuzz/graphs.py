"""Random networks as files: weights, thresholds and topologies that no exact grid holds back.

`tests/strategies.py` draws the topology; here its exact weights become random floats, levels and thresholds any number,
invalid ones included, and operators without a rule come in between.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st

from tests.strategies import Draw, networks

#: Operators of one input that keep the shape; none has a rule.
UNRULED = ("Sigmoid", "Tanh", "Softplus", "Relu", "Abs", "Exp", "Erf", "HardSwish", "Softmax", "Sqrt", "Sign")
INVALID = (0.0, -1.0, float("nan"), float("inf"))


@st.composite
def wild_networks(draw: Draw, operators: int = 12) -> onnx.ModelProto:
    """A network that compiles, or is to be refused."""
    model = draw(networks(operators) | networks(operators, odd=True))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    thetas = {n.input[1] for n in model.graph.node if n.op_type == "QCFS"}
    halves = {n.input[1] for n in model.graph.node if n.op_type in ("Add", "Clip", "Pow")}
    spoilt = draw(st.integers(0, 30))
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or tensor.name in halves or (values.ndim == 0 and tensor.name not in thetas):
            continue
        if tensor.name in thetas or (values.ndim <= 1 and values.size == 1):
            noisy: Any = values * rng.uniform(0.6, 1.7)
            if spoilt == 0:
                noisy = np.full_like(values, draw(st.sampled_from(INVALID)))
        elif np.all(values > 0):  # per-channel thresholds and variances stay positive
            noisy = values * rng.uniform(0.6, 1.7, values.shape)
        else:
            noisy = values + rng.normal(0, 0.3, values.shape)
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.asarray(noisy, np.float32), tensor.name))
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "QCFS" and attribute.name == "levels":
                attribute.i = draw(st.sampled_from([*range(1, 13), 16, 255]))
                if spoilt == 1:
                    attribute.i = draw(st.sampled_from([0, -1, 256]))
            if node.op_type == "QCFS" and attribute.name == "phi":
                attribute.f = draw(st.sampled_from([0.5, 0.5, 0.5, 0.5, 0.25, 0.0]))
                if spoilt == 2:
                    attribute.f = draw(st.sampled_from([1.0, -0.5]))
    _insert_unruled(model, draw)
    batch = draw(st.sampled_from([None, None, 1, 2, 3]))
    if batch is not None:
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = batch
    return model


def _insert_unruled(model: onnx.ModelProto, draw: Draw) -> None:
    """Up to two operators without a rule, between any two nodes."""
    for number in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(model.graph.node) - 1))
        node = model.graph.node[at]
        if node.input and node.input[0]:
            operator = draw(st.sampled_from(UNRULED))
            name = f"unruled{number}"
            inserted = onnx.helper.make_node(operator, [node.input[0]], [name], name=f"/{name}/{operator}")
            node.input[0] = name
            model.graph.node.insert(at, inserted)
