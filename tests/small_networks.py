"""Small QCFS networks, built node by node, and data for them, that the tests of the command line and verifier share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]

OPSET = 17


class Builder:
    """An ONNX graph in the making; every method adds nodes and gives the name of the tensor that comes out.

    With ``grid`` all weights, biases and thresholds are small multiples of powers of two, so that float32 sums of them
    are exact in any order.
    """

    def __init__(self, seed: int = 0, *, grid: bool = False) -> None:
        self.rng = np.random.default_rng(seed)
        self.grid = grid
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, shape: Sequence[int | str | None], dtype: int = TensorProto.FLOAT) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def constant(self, name: str, values: Any, dtype: Any = np.float32) -> str:
        self.weights.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def random(self, name: str, shape: Sequence[int], scale: float, mean: float = 0) -> str:
        values = self.rng.normal(mean, scale, shape)
        return self.constant(name, np.round(values * 8) / 8 if self.grid else values)

    def node(self, op: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, list(inputs), [f"{name}_out"], name=name, **attributes))
        return f"{name}_out"

    def conv(self, x: str, name: str, channels: tuple[int, int], kernel: int = 3, **attributes: Any) -> str:
        inputs, outputs = channels
        fan_in = inputs * kernel**2
        weight = self.random(f"{name}.weight", (outputs, inputs, kernel, kernel), (2 / fan_in) ** 0.5)
        bias = self.random(f"{name}.bias", (outputs,), 0.2)
        return self.node("Conv", [x, weight, bias], name, **{"pads": [kernel // 2] * 4, **attributes})

    def gemm(self, x: str, name: str, channels: tuple[int, int], shift: float = 0) -> str:
        """``shift`` is added to the bias: with a positive one most of the neurons behind are never silent."""
        inputs, outputs = channels
        weight = self.random(f"{name}.weight", (outputs, inputs), (2 / inputs) ** 0.5)
        bias = self.random(f"{name}.bias", (outputs,), 0.2, shift)
        return self.node("Gemm", [x, weight, bias], name, transB=1)

    def batch_norm(self, x: str, name: str, channels: int) -> str:
        parameters = {
            "gamma": self.rng.uniform(0.5, 1.5, channels),
            "beta": self.rng.normal(0.1, 0.2, channels),
            "mean": self.rng.normal(0, 0.2, channels),
            "var": self.rng.uniform(0.5, 1.5, channels),
        }
        names = [self.constant(f"{name}.{key}", values) for key, values in parameters.items()]
        return self.node("BatchNormalization", [x, *names], name)

    def qcfs(self, x: str, name: str, levels: float, theta: Any = 1.0) -> str:
        """The usual module: divide, clip, scale, shift, floor, unscale, multiply."""
        steps: list[tuple[str, Any]] = [("Div", theta), ("Clip", None), ("Mul", levels), ("Add", 0.5)]
        steps += [("Floor", None), ("Div", levels), ("Mul", theta)]
        for index, (op, value) in enumerate(steps):
            inputs = [x]
            if op == "Clip":
                inputs += [self.constant(f"{name}.{bound}", bound) for bound in (0.0, 1.0)]
            elif value is not None:
                inputs.append(self.constant(f"{name}.{index}", value))
            x = self.node(op, inputs, f"/{name}/{op}_{index}")
        return x

    def model(
        self, outputs: dict[str, str], shape: Sequence[int | str | None] | None = ("N", 5), **options: Any
    ) -> Any:
        """The model; ``outputs`` are new names of tensors, ``options`` go to ``onnx.helper.make_model``."""
        renamed = {tensor: name for name, tensor in outputs.items()}
        for node in self.nodes:
            node.input[:] = [renamed.get(t, t) for t in node.input]
            node.output[:] = [renamed.get(t, t) for t in node.output]
        types = options.pop("types", {})
        shapes = options.pop("shapes", {})
        declared = [
            helper.make_tensor_value_info(name, types.get(name, TensorProto.FLOAT), shapes.get(name, shape))
            for name in outputs
        ]
        graph = helper.make_graph(self.nodes, "network", self.inputs, declared, self.weights)
        options = {"opset_imports": [helper.make_opsetid("", OPSET)], "ir_version": 9, **options}
        return helper.make_model(graph, **options)


def residual_network(seed: int = 0, *, grid: bool = False, batch: int | str = "N") -> onnx.ModelProto:
    """[N, 2, 12, 12] to five logits: a stem with BatchNormalization and MaxPool, a residual block that joins trains of
    4 and 8 steps, another MaxPool, AveragePool, two linear layers. The levels are 4, 8, 2, 4 and 3 (on the grid 4), and
    the second neuron has one threshold a channel."""
    b = Builder(seed, grid=grid)
    theta = np.array([1.0, 2.0, 0.5, 1.0, 2.0, 1.0]) if grid else b.rng.uniform(0.8, 1.6, 6)
    x = b.conv(b.input("image", [batch, 2, 12, 12]), "conv1", (2, 6))
    if not grid:
        x = b.batch_norm(x, "bn1", 6)
    x = b.node("MaxPool", [x], "maxpool", kernel_shape=[2, 2], strides=[2, 2])
    stem = b.qcfs(x, "stem", 4, 1.0 if grid else 1.3)
    x = b.conv(stem, "conv2", (6, 6))
    x = b.qcfs(x, "left", 8, theta.reshape(1, 6, 1, 1))
    x = b.conv(x, "conv3", (6, 6))
    x = b.node("Add", [x, stem], "add")
    x = b.qcfs(x, "join", 2, 1.0 if grid else 1.7)
    x = b.conv(x, "conv4", (6, 8))
    x = b.node("MaxPool", [x], "maxpool2", kernel_shape=[2, 2], strides=[2, 2])
    x = b.qcfs(x, "deep", 4, 1.0 if grid else 1.1)
    x = b.node("AveragePool", [x], "avgpool", kernel_shape=[2, 2], strides=[1, 1])
    x = b.node("Flatten", [x], "flatten")
    x = b.gemm(x, "fc1", (32, 16), shift=1.5)
    x = b.qcfs(x, "hidden", 4 if grid else 3, 1.0 if grid else 1.2)
    return b.model({"logits": b.gemm(x, "fc2", (16, 5))}, (batch, 5))


def gated_network(seed: int = 3, *, grid: bool = False) -> onnx.ModelProto:
    """[N, 2, 12, 12] to five logits: squeeze-and-excite, whose gate is a train of 8 steps with one value a channel, and
    a product of trains of 8 and 2 steps. A product joins spikes, another feeds a convolution."""
    b = Builder(seed, grid=grid)
    x = b.qcfs(b.conv(b.input("image", ["N", 2, 12, 12]), "conv1", (2, 6)), "stem", 4)
    squeezed = b.node("ReduceSum", [x, b.constant("places", [2, 3], np.int64)], "squeeze", keepdims=1)
    squeezed = b.node("Mul", [squeezed, b.constant("share", 1 / 64)], "squeezed")
    gate = b.qcfs(b.conv(squeezed, "excite", (6, 6), 1), "gate", 8)
    gated = b.node("Mul", [x, gate], "gated")
    left = b.qcfs(b.node("Add", [gated, x], "add"), "left", 8, 2.0)
    right = b.qcfs(b.conv(gated, "conv2", (6, 6)), "right", 2)
    both = b.node("Mul", [left, right], "both")
    x = b.qcfs(b.conv(both, "conv3", (6, 4)), "deep", 4)
    x = b.node("Flatten", [b.node("MaxPool", [x], "pool", kernel_shape=[4, 4], strides=[4, 4])], "flatten")
    return b.model({"logits": b.gemm(x, "fc", (36, 5))})


def attention_network(seed: int = 4, *, grid: bool = False) -> onnx.ModelProto:
    """[N, 6, 8] to [N, 6, 8]: two heads over six tokens. Queries, keys, values and scores are spikes, of 4, 2, 8 and 4
    levels."""
    b = Builder(seed, grid=grid)
    for name, shape in (("heads", [0, 6, 2, 4]), ("tokens", [0, 6, 8])):
        b.constant(name, shape, np.int64)

    def dense(x: str, name: str) -> str:
        product = b.node("MatMul", [x, b.random(f"{name}.weight", (8, 8), 0.5)], f"{name}.product")
        return b.node("Add", [product, b.random(f"{name}.bias", (8,), 0.3)], name)

    x = b.qcfs(b.input("x", ["N", 6, 8]), "embedding", 8, 2.0)
    parts = {}
    for name, levels, order in (("q", 4, [0, 2, 1, 3]), ("k", 2, [0, 2, 3, 1]), ("v", 8, [0, 2, 1, 3])):
        part = b.node("Reshape", [b.qcfs(dense(x, name), f"{name}.act", levels), "heads"], f"{name}.heads")
        parts[name] = b.node("Transpose", [part], f"{name}.turned", perm=order)
    scores = b.qcfs(b.node("MatMul", [parts["q"], parts["k"]], "scores"), "weights", 4, 2.0)
    mixed = b.node("Transpose", [b.node("MatMul", [scores, parts["v"]], "mix")], "back", perm=[0, 2, 1, 3])
    mixed = b.node("Reshape", [mixed, "tokens"], "merged")
    return b.model({"y": b.node("Add", [x, dense(mixed, "project")], "residual")}, ("N", 6, 8))


def linear_network(levels: float = 4, theta: Any = 1.5) -> onnx.ModelProto:
    """[N, 6] to five logits through one layer of neurons."""
    b = Builder(7)
    x = b.gemm(b.input("x", ["N", 6]), "fc1", (6, 12))
    x = b.qcfs(x, "act", levels, theta)
    return b.model({"logits": b.gemm(x, "fc2", (12, 5))})


def images(count: int, seed: int = 1, *, grid: bool = False) -> Array:
    """Inputs of :func:`residual_network`."""
    values = np.random.default_rng(seed).normal(0, 1, (count, 2, 12, 12))
    return (np.round(values * 16) / 16 if grid else values).astype(np.float32)


def rows(count: int, seed: int = 1) -> Array:
    """Inputs of :func:`linear_network`."""
    return np.random.default_rng(seed).normal(0, 1, (count, 6)).astype(np.float32)


def tokens(count: int, seed: int = 1, *, grid: bool = False) -> Array:
    """Inputs of :func:`attention_network`."""
    values = np.random.default_rng(seed).normal(0.5, 1, (count, 6, 8))
    return (np.round(values * 16) / 16 if grid else values).astype(np.float32)


def write(model: onnx.ModelProto, path: Path) -> Path:
    onnx.save(model, path)
    return path
