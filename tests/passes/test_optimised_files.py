"""QCFS is still recognised after other optimisers have been over the file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

from pascalc.passes import UNROLLED
from tests.helpers import assert_same_outputs, compiled, constant, model_of, run

node = onnx.helper.make_node


def qcfs_cnn() -> onnx.ModelProto:
    """Conv, BatchNormalization, QCFS, MaxPool, Conv, QCFS, Flatten by a computed shape, Gemm; all on a grid of exact
    float32 sums. The QCFS are the two usual modules, their constants as nodes."""
    rng = np.random.default_rng(0)

    def grid(*shape: int) -> np.ndarray[Any, Any]:
        return rng.integers(-4, 5, shape) / 4

    def value(name: str, number: float) -> onnx.NodeProto:
        return node("Constant", [], [name], value=constant("", number))

    nodes = [
        node("Conv", ["x", "w1"], ["c1"], pads=[1, 1, 1, 1], name="/conv1/Conv"),
        node("BatchNormalization", ["c1", "gamma", "beta", "mean", "var"], ["b1"], epsilon=0.0, name="/bn1/BN"),
        *(value(f"a_{n}", v) for n, v in (("L", 4), ("half", 0.5), ("zero", 0), ("one", 1))),
        node("Div", ["b1", "theta1"], ["a1"], name="/act1/Div"),
        node("Clip", ["a1", "a_zero", "a_one"], ["a2"], name="/act1/Clip"),
        node("Mul", ["a2", "a_L"], ["a3"], name="/act1/Mul"),
        node("Add", ["a3", "a_half"], ["a4"], name="/act1/Add"),
        node("Floor", ["a4"], ["a5"], name="/act1/Floor"),
        node("Div", ["a5", "a_L"], ["a6"], name="/act1/Div_1"),
        node("Mul", ["a6", "theta1"], ["a7"], name="/act1/Mul_1"),
        node("MaxPool", ["a7"], ["p"], kernel_shape=[2, 2], strides=[2, 2], name="/pool/MaxPool"),
        node("Conv", ["p", "w2", "bias2"], ["c2"], name="/conv2/Conv"),
        *(value(f"b_{n}", v) for n, v in (("L", 2), ("half", 0.5), ("zero", 0), ("one", 1))),
        node("Div", ["c2", "theta2"], ["q1"], name="/act2/Div"),
        node("Mul", ["q1", "b_L"], ["q2"], name="/act2/Mul"),
        node("Add", ["q2", "b_half"], ["q3"], name="/act2/Add"),
        node("Floor", ["q3"], ["q4"], name="/act2/Floor"),
        node("Div", ["q4", "b_L"], ["q5"], name="/act2/Div_1"),
        node("Clip", ["q5", "b_zero", "b_one"], ["q6"], name="/act2/Clip"),
        node("Mul", ["q6", "theta2"], ["q7"], name="/act2/Mul_1"),
        node("Shape", ["q7"], ["sizes"]),
        node("Gather", ["sizes", "first"], ["batch"], axis=0),
        node("Concat", ["batch", "rest"], ["shape"], axis=0),
        node("Reshape", ["q7", "shape"], ["flat"]),
        node("Gemm", ["flat", "w3", "bias3"], ["y"], name="/fc/Gemm"),
    ]
    constants = [
        constant("w1", grid(3, 2, 3, 3)),
        constant("gamma", [2, 1, -2]),
        constant("beta", [0.5, -0.25, 1]),
        constant("mean", [0.25, 0, -0.5]),
        constant("var", [4, 1, 16]),
        constant("theta1", [4]),
        constant("w2", grid(4, 3, 2, 2)),
        constant("bias2", grid(4)),
        constant("theta2", [2]),
        constant("first", [0], np.int64),
        constant("rest", [-1], np.int64),
        constant("w3", grid(4, 5)),
        constant("bias3", grid(5)),
    ]
    return model_of(nodes, {"x": ["N", 2, 4, 4]}, {"y": ["N", 5]}, constants)


def by_onnxsim(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnxsim

    simplified, checked = onnxsim.simplify(model)
    assert checked
    return simplified


def by_onnxslim(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnxslim

    return onnxslim.slim(model)


@pytest.mark.parametrize("optimise", [lambda m: m, by_onnxsim, by_onnxslim], ids=["none", "onnxsim", "onnxslim"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_recognised_after_the_optimiser(optimise: Callable[[onnx.ModelProto], onnx.ModelProto]) -> None:
    source = qcfs_cnn()
    optimised = optimise(onnx.load_from_string(source.SerializeToString()))
    model = compiled(optimised, UNROLLED)
    neurons = [n for n in model.graph.nodes if n.op == "PascIF"]
    assert [(n.attrs["levels"], n.attrs["steps_in"]) for n in neurons] == [(4, 1), (2, 4)]
    assert_same_outputs(source, model)
    x = {"x": np.ones((2, 2, 4, 4), np.float32)}
    assert np.any(run(source, x)[0])  # the comparison is not of zeros
