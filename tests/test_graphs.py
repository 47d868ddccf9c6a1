"""Shapes of networks as people have them: each compiles in both schedules, verifies, and computes without spikes only
what it must."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import pascalc
from tests.small_networks import Array, Builder, write

SAMPLES = 5


class Network(Builder):
    """A network in the making; inputs have a name and the shape of a sample."""

    def image(self, *shape: int, name: str = "x") -> str:
        return self.input(name, ["N", *shape])

    def weighted(self, op: str, x: str, name: str, *shape: int, bias: int = 0, **attributes: Any) -> str:
        inputs = [x, self.random(f"{name}.weight", shape, (2 / np.prod(shape[1:])) ** 0.5)]
        inputs += [self.random(f"{name}.bias", (bias,), 0.3)] * bool(bias)
        return self.node(op, inputs, name, **attributes)

    def ints(self, name: str, *values: int) -> str:
        return self.constant(name, values, np.int64)

    def split(self, x: str, name: str, parts: int, axis: int = 1) -> list[str]:
        outputs = [f"{name}_{part}" for part in range(parts)]
        self.nodes.append(onnx.helper.make_node("Split", [x], outputs, name=name, axis=axis))
        return outputs


Made = dict[str, str]
Make = Callable[[Network], Made]
#: Name: what makes the network, and the operators that are computed and not spiking.
CASES: dict[str, tuple[Make, list[str]]] = {}


def case(name: str, *computed: str) -> Callable[[Make], Make]:
    def register(make: Make) -> Make:
        CASES[name] = (make, sorted(computed))
        return make

    return register


@case("grouped, depthwise and dilated convolution")
def _(b: Network) -> Made:
    x = b.qcfs(b.weighted("Conv", b.image(2, 9, 9), "stem", 4, 2, 3, 3, bias=4), "a", 4, 1.5)
    x = b.qcfs(b.weighted("Conv", x, "grouped", 8, 2, 3, 3, bias=8, group=2), "b", 2)
    x = b.qcfs(b.weighted("Conv", x, "depthwise", 8, 1, 3, 3, group=8, dilations=[2, 2], pads=[2] * 4), "c", 8)
    return {"y": b.weighted("Conv", x, "last", 3, 8, 1, 1)}


@case("asymmetric and automatic padding")
def _(b: Network) -> Made:
    x = b.qcfs(b.weighted("Conv", b.image(2, 7, 6), "one", 4, 2, 3, 3, bias=4, pads=[0, 1, 2, 0]), "a", 4)
    for index, mode in enumerate(("SAME_UPPER", "SAME_LOWER", "VALID")):
        x = b.weighted("Conv", x, mode, 4, 4, 2, 2, bias=4, auto_pad=mode, strides=[1 + index % 2, 1])
        x = b.qcfs(x, f"{mode}.act", 3)
    x = b.node("MaxPool", [x], "pool", kernel_shape=[2, 2], auto_pad="SAME_UPPER")
    return {"y": b.node("AveragePool", [x], "mean", kernel_shape=[3, 2], pads=[1, 0, 0, 1], count_include_pad=1)}


@case("average pooling that leaves its padding out, with ceil_mode")
def _(b: Network) -> Made:
    x = b.qcfs(b.image(2, 7, 7), "a", 4)
    x = b.node("AveragePool", [x], "mean", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4, ceil_mode=1)
    return {"y": b.qcfs(x, "b", 4)}


@case("one dimension")
def _(b: Network) -> Made:
    x = b.qcfs(b.weighted("Conv", b.image(2, 16), "one", 4, 2, 3, bias=4, dilations=[2]), "a", 4)
    x = b.node("MaxPool", [x], "pool", kernel_shape=[2], strides=[2])
    x = b.qcfs(b.weighted("Conv", x, "two", 4, 1, 3, bias=4, group=4), "b", 2)
    return {"y": b.node("AveragePool", [x], "mean", kernel_shape=[4])}


@case("three dimensions")
def _(b: Network) -> Made:
    x = b.qcfs(b.weighted("Conv", b.image(1, 6, 6, 6), "one", 4, 1, 3, 3, 3, bias=4), "a", 4)
    x = b.node("MaxPool", [x], "pool", kernel_shape=[2, 2, 2], strides=[2, 2, 2])
    x = b.qcfs(b.weighted("ConvTranspose", x, "up", 4, 2, 2, 2, 2, bias=2, strides=[2, 2, 2]), "b", 2)
    return {"y": b.node("GlobalAveragePool", [x], "mean")}


@case("transposed convolution")
def _(b: Network) -> Made:
    x = b.qcfs(b.weighted("Conv", b.image(2, 5, 5), "one", 4, 2, 3, 3, bias=4), "a", 4)
    x = b.weighted("ConvTranspose", x, "up", 4, 3, 3, 3, bias=6, group=2, strides=[2, 2], output_padding=[1, 1])
    x = b.qcfs(x, "b", 3)
    return {"y": b.weighted("ConvTranspose", x, "out", 6, 1, 2, 2, dilations=[2, 1])}


def _resize(mode: str, coordinates: str, fixed: bool, computed: list[str]) -> None:
    @case(f"Resize {mode} {coordinates}{' to sizes' if fixed else ''}", *computed)
    def _(b: Network) -> Made:
        x = b.qcfs(b.weighted("Conv", b.image(2, 4, 4), "one", 4, 2, 3, 3, bias=4, pads=[1] * 4), "a", 4)
        size = ["", "", b.ints("sizes", 1, 4, 8, 6)] if fixed else ["", b.constant("scales", [1, 1, 2, 1.5])]
        x = b.node("Resize", [x, *size], "up", mode=mode, coordinate_transformation_mode=coordinates)
        x = b.qcfs(b.weighted("Conv", x, "two", 2, 4, 3, 3), "b", 2)
        return {"y": b.node("Flatten", [x], "flat")}


_resize("nearest", "asymmetric", False, [])
_resize("linear", "half_pixel", False, [])
_resize("cubic", "align_corners", False, [])


@case("feature pyramid: shapes taken from another tensor")
def _(b: Network) -> Made:
    fine = b.qcfs(b.weighted("Conv", b.image(2, 8, 8), "one", 4, 2, 3, 3, bias=4, pads=[1] * 4), "a", 4)
    coarse = b.node("MaxPool", [fine], "pool", kernel_shape=[2, 2], strides=[2, 2])
    coarse = b.qcfs(b.weighted("Conv", coarse, "two", 4, 4, 1, 1), "b", 8)
    size = b.node("Slice", [b.node("Shape", [fine], "shape"), b.ints("two", 2), b.ints("four", 4)], "size")
    sizes = b.node(
        "Concat",
        [b.node("Slice", [b.node("Shape", [coarse], "s"), b.ints("0", 0), b.ints("2", 2)], "front"), size],
        "sizes",
        axis=0,
    )
    up = b.node("Resize", [coarse, "", "", sizes], "up", mode="nearest")
    return {"y": b.qcfs(b.node("Add", [up, fine], "join"), "c", 4)}


@case("Split, Slice, Concat: channel shuffle and cross stage")
def _(b: Network) -> Made:
    x = b.qcfs(b.weighted("Conv", b.image(2, 6, 6), "one", 8, 2, 3, 3, bias=8), "a", 4)
    left, right = b.split(x, "split", 2)
    right = b.qcfs(b.weighted("Conv", right, "two", 4, 4, 3, 3, pads=[1] * 4), "b", 8)
    x = b.node("Concat", [left, right], "concat", axis=1)
    x = b.node("Reshape", [x, b.ints("apart", 0, 2, 4, 4, 4)], "apart")
    x = b.node("Transpose", [x], "shuffle", perm=[0, 2, 1, 3, 4])
    x = b.node("Reshape", [x, b.ints("together", 0, 8, 4, 4)], "together")
    inner = [b.ints("start", 1, 1), b.ints("end", -1, 9999), b.ints("axes", 2, 3), b.ints("by", 1, 2)]
    x = b.node("Slice", [x, *inner], "slice")
    return {"y": b.weighted("Conv", b.qcfs(x, "c", 2), "last", 3, 8, 1, 1)}


@case("dense block")
def _(b: Network) -> Made:
    x = b.qcfs(b.weighted("Conv", b.image(2, 5, 5), "one", 4, 2, 3, 3, pads=[1] * 4), "a", 8)
    for index, levels in enumerate((2, 4, 1)):
        new = b.batch_norm(x, f"bn{index}", 4 + 2 * index)
        new = b.qcfs(new, f"act{index}", levels)
        new = b.weighted("Conv", new, f"conv{index}", 2, 4 + 2 * index, 3, 3, pads=[1] * 4)
        x = b.node("Concat", [x, new], f"concat{index}", axis=1)
    return {"y": b.node("GlobalAveragePool", [x], "mean")}


@case("squeeze and excite", "Sigmoid")
def _(b: Network) -> Made:
    x = b.qcfs(b.weighted("Conv", b.image(2, 6, 6), "one", 4, 2, 3, 3, bias=4), "a", 4)
    s = b.node("GlobalAveragePool", [x], "squeeze")
    s = b.qcfs(b.weighted("Conv", s, "down", 2, 4, 1, 1, bias=2), "inner", 8, 0.5)
    s = b.node("Sigmoid", [b.weighted("Conv", s, "up", 4, 2, 1, 1, bias=4)], "gate")
    x = b.node("Mul", [x, s], "excite")
    x = b.weighted("Conv", x, "two", 3, 4, 3, 3, bias=3)
    return {"y": b.node("GlobalMaxPool", [b.qcfs(x, "b", 2)], "top")}


@case("several inputs and outputs")
def _(b: Network) -> Made:
    left = b.qcfs(b.weighted("Conv", b.image(2, 4, 4), "one", 3, 2, 1, 1, bias=3), "a", 4)
    right = b.qcfs(b.weighted("Conv", b.image(1, 4, 4, name="mask"), "two", 3, 1, 1, 1), "b", 8)
    join = b.qcfs(b.node("Sum", [left, right, left], "sum"), "c", 2)
    return {"y": b.node("GlobalAveragePool", [join], "mean"), "z": right, "levels": join}


@case("shared weights and shared neurons")
def _(b: Network) -> Made:
    weight = b.random("shared.weight", (4, 4, 1, 1), 0.5)
    x = b.qcfs(b.weighted("Conv", b.image(2, 3, 3), "one", 4, 2, 1, 1), "a", 4)
    y = b.qcfs(b.node("Conv", [x, weight], "first"), "b", 2)
    z = b.qcfs(b.node("Conv", [y, weight], "second"), "c", 8)
    return {"y": b.node("Conv", [z, weight], "third"), "z": b.node("Add", [x, y], "both")}


@case("detection head: boxes and scores, flattened and joined", "Sigmoid")
def _(b: Network) -> Made:
    x = b.qcfs(b.weighted("Conv", b.image(2, 8, 8), "one", 6, 2, 3, 3, bias=6, strides=[2, 2]), "a", 4)
    deep = b.qcfs(b.weighted("Conv", x, "two", 6, 6, 3, 3, bias=6), "b", 8)
    rows = []
    for name, source in (("fine", x), ("coarse", deep)):
        head = b.weighted("Conv", source, name, 10, 6, 1, 1, bias=10)
        head = b.node("Transpose", [head], f"{name}.last", perm=[0, 2, 3, 1])
        rows.append(b.node("Reshape", [head, b.ints(f"{name}.rows", 0, -1, 5)], f"{name}.flat"))
    out = b.node("Concat", rows, "all", axis=1)
    boxes = b.node("Slice", [out, b.ints("b0", 0), b.ints("b1", 4), b.ints("last", 2)], "box")
    scores = b.node("Slice", [out, b.ints("s0", 4), b.ints("s1", 5), b.ints("last_", -1)], "score")
    return {"boxes": boxes, "scores": b.node("Sigmoid", [scores], "sigmoid")}


@case("segmentation: encoder, decoder, classes by position", "ArgMax")
def _(b: Network) -> Made:
    fine = b.qcfs(b.weighted("Conv", b.image(2, 6, 6), "one", 4, 2, 3, 3, bias=4, pads=[1] * 4), "a", 4)
    x = b.node("MaxPool", [fine], "pool", kernel_shape=[2, 2], strides=[2, 2])
    x = b.qcfs(b.weighted("Conv", x, "two", 4, 4, 3, 3, bias=4, pads=[1] * 4), "b", 8)
    x = b.qcfs(b.weighted("ConvTranspose", x, "up", 4, 4, 2, 2, bias=4, strides=[2, 2]), "c", 2)
    x = b.weighted("Conv", b.node("Concat", [x, fine], "skip", axis=1), "classes", 3, 8, 1, 1, bias=3)
    return {"y": x, "best": b.node("ArgMax", [x], "best", axis=1)}


@case("perceptron; first operator a neuron; two neurons in a row")
def _(b: Network) -> Made:
    x = b.qcfs(b.image(6), "input", 8, 2.0)
    x = b.qcfs(b.qcfs(b.gemm(x, "one", (6, 10)), "a", 8, 1.5), "again", 3, 1.0)
    return {"y": b.node("Softmax", [b.gemm(x, "two", (10, 4))], "softmax", axis=1), "h": x}


CASES["perceptron; first operator a neuron; two neurons in a row"][1].append("Softmax")


@case("flattening by Shape, Gather, Concat, Reshape; ReduceMean and Squeeze")
def _(b: Network) -> Made:
    x = b.qcfs(b.weighted("Conv", b.image(2, 4, 4), "one", 4, 2, 3, 3, bias=4), "a", 4)
    batch = b.node("Gather", [b.node("Shape", [x], "shape"), b.constant("first", 0, np.int64)], "batch", axis=0)
    front = b.node("Unsqueeze", [batch, b.ints("zero", 0)], "front")
    flat = b.node("Reshape", [x, b.node("Concat", [front, b.ints("rest", -1)], "target", axis=0)], "flat")
    y = b.gemm(b.qcfs(b.gemm(flat, "fc", (16, 8)), "b", 2), "out", (8, 3))
    mean = b.node("ReduceMean", [x], "mean", axes=[2, 3])
    return {"y": y, "z": b.node("Squeeze", [mean, b.ints("places", 2, 3)], "squeeze")}


@case("transformer block", "LayerNormalization", "LayerNormalization", "Softmax")
def _(b: Network) -> Made:
    tokens, width, heads = 4, 8, 2
    b.constant("gamma", b.rng.uniform(0.5, 1.5, width))
    b.constant("beta", b.rng.normal(0, 0.2, width))
    b.ints("heads", 0, 0, heads, width // heads)
    b.ints("tokens", 0, 0, width)

    def dense(x: str, name: str, inputs: int, outputs: int) -> str:
        product = b.node("MatMul", [x, b.random(f"{name}.weight", (inputs, outputs), inputs**-0.5)], f"{name}.product")
        return b.node("Add", [b.random(f"{name}.bias", (outputs,), 0.2), product], name)

    def attention(x: str) -> str:
        parts = {}
        for name, order in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
            part = b.qcfs(dense(x, name, width, width), f"{name}.act", 4)
            part = b.node("Reshape", [part, "heads"], f"{name}.heads")
            parts[name] = b.node("Transpose", [part], f"{name}.turned", perm=order)
        scores = b.node("MatMul", [parts["q"], parts["k"]], "scores")
        scores = b.node("Softmax", [b.node("Div", [scores, b.constant("root", 2.0)], "scaled")], "weights", axis=-1)
        mixed = b.node("Transpose", [b.node("MatMul", [scores, parts["v"]], "mix")], "back", perm=[0, 2, 1, 3])
        return dense(b.node("Reshape", [mixed, "tokens"], "merged"), "project", width, width)

    x = b.qcfs(b.image(tokens, width), "embedding", 8, 2.0)
    normal = b.node("LayerNormalization", [x, "gamma", "beta"], "norm1", axis=-1)
    x = b.node("Add", [x, attention(normal)], "residual1")
    normal = b.node("LayerNormalization", [x, "gamma", "beta"], "norm2", axis=-1)
    inner = b.qcfs(dense(normal, "up", width, 2 * width), "hidden", 8)
    x = b.node("Add", [x, dense(inner, "down", 2 * width, width)], "residual2")
    return {"y": b.node("ReduceMean", [x], "pool", axes=[1], keepdims=0)}


def built(name: str) -> onnx.ModelProto:
    b = Network(3)
    outputs = CASES[name][0](b)
    types = {"best": onnx.TensorProto.INT64}
    model = b.model(outputs, types=types, shapes=dict.fromkeys(outputs))
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    del model.graph.output[:]
    model.graph.output.extend(inferred.graph.output)
    return model


@pytest.mark.parametrize("schedule", ["unrolled", "collapsed"])
@pytest.mark.parametrize("name", CASES)
def test_graph(name: str, schedule: str, tmp_path: Path) -> None:
    model = built(name)
    source = write(model, tmp_path / "source.onnx")
    rng = np.random.default_rng(11)
    feeds: dict[str, Array] = {}
    for value in model.graph.input:
        shape = [SAMPLES, *(d.dim_value for d in value.type.tensor_type.shape.dim[1:])]
        feeds[value.name] = rng.normal(0.3, 1, shape).astype(np.float32)
    np.savez(tmp_path / "data.npz", **feeds)
    result = pascalc.compile(source, schedule=schedule)
    check = pascalc.verify(source, result.output, tmp_path / "data.npz")
    assert check.equivalent, check.findings()
    assert check.max_abs_output_diff < 1e-3 or sum(layer.root_mismatches for layer in check.layers)
    rates = [layer.spike_rate for layer in pascalc.evaluate(source, tmp_path / "data.npz").layers]
    assert all(rates), "a layer never spikes, so the case tests nothing"
    if schedule == "unrolled":
        computed = sorted(line.split(": ")[1] for line in result.network.not_spiking)
        assert computed == sorted(CASES[name][1]), result.network.not_spiking


@pytest.mark.parametrize("schedule", ["unrolled", "collapsed"])
def test_share_of_the_multiply_accumulates_that_spike(schedule: str, tmp_path: Path) -> None:
    """Of the transformer block: keys, queries and values come from a LayerNormalization, as the first layer of the MLP
    does; scores and their mixture are products of spikes with what is held; what is behind them reads currents."""
    source = write(built("transformer block"), tmp_path / "source.onnx")
    network = pascalc.compile(source, schedule=schedule).network
    tokens, width = 4, 8
    attention = 2 * tokens * tokens * width
    layers = tokens * (3 * width * width + width * width + 2 * 2 * width * width)
    assert network.macs == layers + attention
    assert network.spiking_macs == tokens * 2 * width * width + attention
    assert pascalc.inspect(tmp_path / "source.snn.onnx").spiking_macs == network.spiking_macs
    dense = pascalc.compile(write(built("dense block"), tmp_path / "dense.onnx"), schedule=schedule).network
    assert dense.spiking_macs == dense.macs - 9 * 2 * 4 * 25
