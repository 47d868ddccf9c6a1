"""What load reads of a file is what onnxruntime runs: functions with defaults, old opsets, bodies that came along."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from pascalc.compiler import compile_model
from pascalc.errors import CompileError
from pascalc.modelfile import load
from pascalc.verifier import verify
from tests.helpers import Array, loaded, parse, run, with_bodies

node = helper.make_node
RNG = np.random.default_rng(0)
IMAGE = RNG.normal(0, 2, (2, 3, 4, 6)).astype(np.float32)
ROWS = RNG.normal(0, 2, (4, 5)).astype(np.float32)


def declared(nodes: Sequence[onnx.NodeProto], opset: int, x: Array, constants: Mapping[str, Any], outputs: int) -> Any:
    """A model of an old opset from x to y (y0, y1, ...), with the types and ranks of outputs declared."""
    weights = [onnx.numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()]
    inputs = [helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)]
    if opset < 9:  # IR 3: every initializer is an input, too
        inputs += [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in weights]
    names = ["y"] if outputs == 1 else [f"y{i}" for i in range(outputs)]
    graph = helper.make_graph(nodes, "g", inputs, [onnx.ValueInfoProto(name=n) for n in names], weights)
    ir_version = 3 if opset < 9 else 7
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    values = run(model, {"x": x})
    for output, value in zip(model.graph.output, values, strict=True):
        kind = helper.np_dtype_to_tensor_dtype(value.dtype)
        dims = [f"{output.name}_{axis}" for axis in range(value.ndim)]
        output.CopyFrom(helper.make_tensor_value_info(output.name, kind, dims))
    return model


def assert_reads_as_it_runs(model: onnx.ModelProto, x: Array) -> None:
    for optimised in (True, False):
        expected = run(model, {"x": x}, optimised=optimised)
        for wanted, got in zip(expected, run(loaded(model), {"x": x}, optimised=optimised), strict=True):
            assert got.dtype == wanted.dtype
            assert got.shape == wanted.shape
            np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-6)


def hidden(nodes: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """The nodes behind a Reshape whose result has no rank that onnx can tell."""
    first = [
        node("Shape", ["x"], ["sh~"]),
        node("NonZero", ["sh~"], ["nz~"]),
        node("Squeeze", ["nz~"], ["idx~"], axes=[0]),
        node("Gather", ["sh~", "idx~"], ["shape~"]),
        node("Reshape", ["x", "shape~"], ["x~"]),
    ]
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    for copy in copies:
        copy.input[0] = "x~"
    return [*first, *copies]


# -- old opsets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("known_rank", [True, False], ids=["rank", "norank"])
@pytest.mark.parametrize("axis", [None, 0, 1, 2, 3, -1, -2, -4])
@pytest.mark.parametrize("op", ["Hardmax", "Softmax", "LogSoftmax"])
@pytest.mark.parametrize("opset", [9, 11, 12])
def test_maxima_along_several_axes(opset: int, op: str, axis: int | None, known_rank: bool) -> None:
    if opset < 11 and axis is not None and axis < 0:
        pytest.skip("negative axes came with opset 11")
    attributes = {} if axis is None else {"axis": axis}
    nodes = [node(op, ["x"], ["y"], **attributes)]
    if not known_rank:
        nodes = hidden(nodes)
    assert_reads_as_it_runs(declared(nodes, opset, IMAGE, {}, 1), IMAGE)


SCALES = [[1, 1, 2, 2], [1, 1, 2.5, 2.5], [1, 1, 1.7, 3.2], [1, 1, 1, 1], [1, 1, 1, 4]]
SHRUNK = [[1, 1, 0.5, 0.5], [1, 1, 0.6, 0.4], [1, 1, 2, 0.5], [1, 1, 0.7, 1.6], [1, 1, 1, 0.3]]


@pytest.mark.parametrize("scales", SCALES, ids=str)
@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("opset", [7, 8, 9])
def test_upsample(opset: int, mode: str, scales: list[float]) -> None:
    given = np.float32(scales)
    if opset < 9:
        model = declared([node("Upsample", ["x"], ["y"], mode=mode, scales=given.tolist())], opset, IMAGE, {}, 1)
    else:
        model = declared([node("Upsample", ["x", "s"], ["y"], mode=mode)], opset, IMAGE, {"s": given}, 1)
    assert_reads_as_it_runs(model, IMAGE)


@pytest.mark.parametrize("where", ["initializer", "computed", "norank"])
@pytest.mark.parametrize("scales", [*SCALES, *SHRUNK], ids=str)
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_resize_of_opset_10(mode: str, scales: list[float], where: str) -> None:
    nodes = [node("Resize", ["x", "s"], ["y"], mode=mode)]
    constants = {"s": np.float32(scales)}
    if where == "computed":
        nodes = [node("Neg", ["minus"], ["s"]), *nodes]
        constants = {"minus": -np.float32(scales)}
    if where == "norank":
        nodes = hidden(nodes)
    x = RNG.normal(0, 2, (2, 3, 9, 7)).astype(np.float32)
    assert_reads_as_it_runs(declared(nodes, 10, x, constants, 1), x)


def test_resize_with_its_mode_left_out_and_in_a_subgraph() -> None:
    def branch(op: str, **attributes: Any) -> onnx.GraphProto:
        value = helper.make_tensor_value_info("b", TensorProto.FLOAT, ["n", "c", "h", "w"])
        return helper.make_graph([node(op, ["x", "s"], ["b"], **attributes)], "branch", [], [value])

    nodes = [node("If", ["yes"], ["y"], then_branch=branch("Resize"), else_branch=branch("Resize", mode="linear"))]
    for yes in (True, False):
        model = declared(nodes, 10, IMAGE, {"yes": yes, "s": np.float32([1, 1, 0.5, 2.5])}, 1)
        assert_reads_as_it_runs(model, IMAGE)


def test_hardmax_in_a_subgraph() -> None:
    def branch(**attributes: Any) -> onnx.GraphProto:
        value = helper.make_tensor_value_info("b", TensorProto.FLOAT, ["n", "c", "h", "w"])
        return helper.make_graph([node("Hardmax", ["x"], ["b"], **attributes)], "branch", [], [value])

    nodes = [node("If", ["yes"], ["y"], then_branch=branch(), else_branch=branch(axis=2))]
    for yes in (True, False):
        assert_reads_as_it_runs(declared(nodes, 11, IMAGE, {"yes": yes}, 1), IMAGE)


I64 = np.int64
C3 = {n: np.float32(v) for n, v in (("s", [1, 2, 3]), ("b", [0, 1, -1]), ("m", [0.5, 0, 1]), ("v", [1, 2, 0.5]))}
W = {"w": RNG.normal(0, 1, (4, 3, 3, 3)).astype(np.float32)}
ONE = ("x",)

#: name, opsets, nodes, x, constants, outputs
SWEEP: list[tuple[str, Sequence[int], list[onnx.NodeProto], Array, Mapping[str, Any], int]] = [
    ("clip", (7, 8, 9, 10), [node("Clip", ONE, ["y"], min=-0.5, max=1.0)], IMAGE, {}, 1),
    ("clip-min", (7, 8, 9, 10), [node("Clip", ONE, ["y"], min=-0.5)], IMAGE, {}, 1),
    ("clip-max", (8, 10), [node("Clip", ONE, ["y"], max=0.5)], IMAGE, {}, 1),
    ("clip-none", (8, 10), [node("Clip", ONE, ["y"])], IMAGE, {}, 1),
    ("clip-11", (11, 12, 13), [node("Clip", ["x", "", "h"], ["y"])], IMAGE, {"h": np.float32(1)}, 1),
    ("pad", (7, 8, 10), [node("Pad", ONE, ["y"], pads=[0, 0, 1, 2, 0, 0, 0, 1], value=0.5)], IMAGE, {}, 1),
    ("pad-default", (8, 10), [node("Pad", ONE, ["y"], pads=[0, 0, 1, 2, 0, 0, 0, 1])], IMAGE, {}, 1),
    ("pad-minus", (8, 10), [node("Pad", ONE, ["y"], pads=[0, 0, -1, 2, 0, 0, 0, -1])], IMAGE, {}, 1),
    ("pad-reflect", (8, 10), [node("Pad", ONE, ["y"], pads=[0, 0, 1, 2, 0, 0, 1, 1], mode="reflect")], IMAGE, {}, 1),
    ("pad-edge", (8, 10), [node("Pad", ONE, ["y"], pads=[0, 0, 1, 2, 0, 0, 1, 1], mode="edge")], IMAGE, {}, 1),
    ("slice", (7, 8, 9), [node("Slice", ONE, ["y"], starts=[1, -3], ends=[100, -1], axes=[1, 3])], IMAGE, {}, 1),
    ("slice-axes", (8, 9), [node("Slice", ONE, ["y"], starts=[0, 1], ends=[1, 3])], IMAGE, {}, 1),
    (
        "slice-10",
        (10, 11, 12),
        [node("Slice", ["x", "s", "e", "a", "t"], ["y"])],
        IMAGE,
        {"s": I64([5]), "e": I64([0]), "a": I64([3]), "t": I64([-2])},
        1,
    ),
    ("dropout", (7, 8, 10, 11), [node("Dropout", ONE, ["y"], ratio=0.3)], IMAGE, {}, 1),
    ("dropout-default", (7, 10), [node("Dropout", ONE, ["y"])], IMAGE, {}, 1),
    (
        "bn",
        (7, 8, 9, 13, 14),
        [node("BatchNormalization", ["x", "s", "b", "m", "v"], ["y"], epsilon=0.1)],
        IMAGE,
        C3,
        1,
    ),
    ("bn-momentum", (7, 9), [node("BatchNormalization", ["x", "s", "b", "m", "v"], ["y"], momentum=0.3)], IMAGE, C3, 1),
    ("bn-spatial", (7, 8), [node("BatchNormalization", ["x", "s", "b", "m", "v"], ["y"], spatial=1)], IMAGE, C3, 1),
    ("squeeze", (8, 11, 12), [node("Squeeze", ONE, ["y"], axes=[0, 2])], IMAGE[:1, :, :1], {}, 1),
    ("squeeze-all", (8, 12), [node("Squeeze", ONE, ["y"])], IMAGE[:1, :, :1], {}, 1),
    ("squeeze-minus", (11, 12), [node("Squeeze", ONE, ["y"], axes=[-4, -2])], IMAGE[:1, :, :1], {}, 1),
    ("unsqueeze", (8, 11, 12), [node("Unsqueeze", ONE, ["y"], axes=[0, 3])], IMAGE, {}, 1),
    ("unsqueeze-minus", (11, 12), [node("Unsqueeze", ONE, ["y"], axes=[-1, 1])], IMAGE, {}, 1),
    *(
        (f"{op}-{tag}", (8, 10, 11, 12), [node(op, ONE, ["y"], **attributes)], np.abs(IMAGE), {}, 1)
        for op in (
            "ReduceSum",
            "ReduceMean",
            "ReduceMax",
            "ReduceMin",
            "ReduceProd",
            "ReduceL1",
            "ReduceL2",
            "ReduceLogSum",
            "ReduceLogSumExp",
            "ReduceSumSquare",
        )
        for tag, attributes in (("axes", {"axes": [1, 3]}), ("all", {}), ("flat", {"axes": [2], "keepdims": 0}))
    ),
    ("split", (8, 11, 12), [node("Split", ONE, ["y0", "y1"], axis=3, split=[2, 4])], IMAGE, {}, 2),
    ("split-equal", (8, 11, 12), [node("Split", ONE, ["y0", "y1", "y2"], axis=1)], IMAGE, {}, 3),
    ("split-default", (8, 12), [node("Split", ONE, ["y0", "y1"])], IMAGE, {}, 2),
    ("topk", (7, 8, 9), [node("TopK", ONE, ["y0", "y1"], axis=3, k=2)], IMAGE, {}, 2),
    ("topk-default", (8, 9), [node("TopK", ONE, ["y0", "y1"], k=2)], IMAGE, {}, 2),
    ("topk-10", (10, 11), [node("TopK", ["x", "k"], ["y0", "y1"], axis=1)], IMAGE, {"k": I64([2])}, 2),
    *(
        (f"{op}-{tag}", (8, 11, 12), [node(op, ONE, ["y"], **attributes)], np.round(IMAGE), {}, 1)
        for op in ("ArgMax", "ArgMin")
        for tag, attributes in (("axis", {"axis": 1}), ("default", {}), ("flat", {"axis": 3, "keepdims": 0}))
    ),
    (
        "onehot",
        (9, 10, 11),
        [node("Cast", ONE, ["i"], to=7), node("OneHot", ["i", "d", "v"], ["y"], axis=1)],
        np.round(ROWS),
        {"d": I64(3), "v": np.float32([2, 5])},
        1,
    ),
    (
        "scatter",
        (9, 10),
        [node("Scatter", ["x", "i", "u"], ["y"], axis=1)],
        ROWS,
        {"i": I64([[0, 2], [1, 0]]), "u": np.float32([[1, 2], [3, 4]])},
        1,
    ),
    (
        "scatter-default",
        (9, 10),
        [node("Scatter", ["x", "i", "u"], ["y"])],
        ROWS,
        {"i": I64([[0, 2], [1, 0]]), "u": np.float32([[1, 2], [3, 4]])},
        1,
    ),
    (
        "scatternd",
        (11, 12),
        [node("ScatterND", ["x", "i", "u"], ["y"])],
        ROWS,
        {"i": I64([[0, 2], [1, 0]]), "u": np.float32([1, 2])},
        1,
    ),
    ("cumsum", (11, 12, 13), [node("CumSum", ["x", "a"], ["y"], exclusive=1, reverse=1)], ROWS, {"a": np.int32(1)}, 1),
    (
        "gemm",
        (7, 8, 9, 10, 12),
        [node("Gemm", ["x", "w", "c"], ["y"], transB=1, alpha=0.5, beta=2.0)],
        ROWS,
        {"w": ROWS[:3], "c": np.float32([1, 2, 3])},
        1,
    ),
    ("gemm-two", (11, 12), [node("Gemm", ["x", "w"], ["y"], transB=1)], ROWS, {"w": ROWS[:3]}, 1),
    ("flatten", (7, 8, 9, 10, 12), [node("Flatten", ONE, ["y"])], IMAGE, {}, 1),
    ("flatten-2", (7, 8, 9, 11), [node("Flatten", ONE, ["y"], axis=2)], IMAGE, {}, 1),
    ("flatten-0", (7, 8, 9, 11), [node("Flatten", ONE, ["y"], axis=0)], IMAGE, {}, 1),
    ("concat", (8, 10, 12), [node("Concat", ["x", "x"], ["y"], axis=2)], IMAGE, {}, 1),
    (
        "maxpool",
        (7, 8, 10, 11),
        [node("MaxPool", ONE, ["y"], kernel_shape=[2, 3], strides=[2, 1], pads=[1, 1, 0, 1])],
        IMAGE,
        {},
        1,
    ),
    ("maxpool-indices", (8, 10, 11), [node("MaxPool", ONE, ["y0", "y1"], kernel_shape=[2, 2])], IMAGE, {}, 2),
    (
        "maxpool-auto",
        (8, 11),
        [node("MaxPool", ONE, ["y"], kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER")],
        IMAGE,
        {},
        1,
    ),
    (
        "maxpool-ceil",
        (10, 11),
        [node("MaxPool", ONE, ["y"], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)],
        IMAGE,
        {},
        1,
    ),
    ("maxpool-default", (8, 10, 11), [node("MaxPool", ONE, ["y"], kernel_shape=[3, 3])], IMAGE, {}, 1),
    (
        "averagepool",
        (7, 8, 10, 11),
        [node("AveragePool", ONE, ["y"], kernel_shape=[2, 2], pads=[1, 1, 0, 0])],
        IMAGE,
        {},
        1,
    ),
    (
        "averagepool-pad",
        (7, 10),
        [node("AveragePool", ONE, ["y"], kernel_shape=[2, 2], pads=[1, 1, 0, 0], count_include_pad=1)],
        IMAGE,
        {},
        1,
    ),
    ("lppool", (8, 11), [node("LpPool", ONE, ["y"], kernel_shape=[2, 2], p=3)], IMAGE, {}, 1),
    (
        "globalpools",
        (8, 11),
        [node("GlobalAveragePool", ONE, ["y0"]), node("GlobalMaxPool", ONE, ["y1"])],
        IMAGE,
        {},
        2,
    ),
    (
        "prelu",
        (7, 8, 9, 12),
        [node("PRelu", ["x", "a"], ["y"])],
        IMAGE,
        {"a": np.float32([[[0.1]], [[0.5]], [[2]]])},
        1,
    ),
    (
        "constantofshape",
        (9, 12),
        [node("Shape", ONE, ["s"]), node("ConstantOfShape", ["s"], ["c"]), node("Add", ["x", "c"], ["y"])],
        IMAGE,
        {},
        1,
    ),
    ("cast", (8, 9, 12), [node("Cast", ONE, ["i"], to=7), node("Cast", ["i"], ["y"], to=1)], IMAGE, {}, 1),
    ("conv", (7, 8, 10), [node("Conv", ["x", "w"], ["y"], pads=[1, 0, 1, 1], strides=[2, 1])], IMAGE, W, 1),
    ("conv-auto", (8, 10), [node("Conv", ["x", "w"], ["y"], auto_pad="SAME_LOWER", strides=[2, 2])], IMAGE, W, 1),
    (
        "convtranspose",
        (8, 10),
        [node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], output_padding=[1, 0])],
        IMAGE,
        {"w": np.ascontiguousarray(W["w"].transpose(1, 0, 2, 3))},
        1,
    ),
    (
        "convtranspose-shape",
        (8, 10),
        [node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], output_shape=[8, 12])],
        IMAGE,
        {"w": np.ascontiguousarray(W["w"].transpose(1, 0, 2, 3))},
        1,
    ),
    ("instancenorm", (7, 12), [node("InstanceNormalization", ["x", "s", "b"], ["y"], epsilon=0.1)], IMAGE, C3, 1),
    ("lrn", (7, 12), [node("LRN", ONE, ["y"], size=3, alpha=0.5, beta=0.7, bias=2.0)], IMAGE, {}, 1),
    (
        "depthtospace",
        (8, 10, 11, 12),
        [node("Concat", ["x"] * 4, ["c"], axis=1), node("DepthToSpace", ["c"], ["y"], blocksize=2)],
        IMAGE,
        {},
        1,
    ),
    ("spacetodepth", (8, 12), [node("SpaceToDepth", ONE, ["y"], blocksize=2)], IMAGE, {}, 1),
    (
        "elementwise",
        (7, 8, 12, 13),
        [
            node("Add", ["x", "s"], ["a"]),
            node("Sub", ["a", "m"], ["b1"]),
            node("Mul", ["b1", "s"], ["c"]),
            node("Div", ["c", "v"], ["y"]),
        ],
        IMAGE,
        {"s": np.float32([[[1]], [[2]], [[3]]]), "m": np.float32(2), "v": np.float32([[[1]], [[2]], [[0.5]]])},
        1,
    ),
    (
        "pow",
        (7, 11, 12, 13, 14),
        [node("Abs", ONE, ["a"]), node("Pow", ["a", "e"], ["y"])],
        IMAGE,
        {"e": np.float32(1.5)},
        1,
    ),
    (
        "minmax",
        (8, 11, 12),
        [node("Min", ["x", "h"], ["a"]), node("Max", ["a", "x", "l"], ["y"])],
        IMAGE,
        {"h": np.float32(1), "l": np.float32(-1)},
        1,
    ),
    (
        "sum-mean",
        (8, 12),
        [node("Sum", ["x", "s"], ["a"]), node("Mean", ["a", "x"], ["y"])],
        IMAGE,
        {"s": np.float32(2)},
        1,
    ),
    ("gather", (8, 10, 12), [node("Gather", ["x", "i"], ["y"], axis=3)], IMAGE, {"i": I64([[0, 2], [5, 1]])}, 1),
    ("transpose", (8, 12), [node("Transpose", ONE, ["y"])], IMAGE, {}, 1),
    ("reshape", (8, 12, 13), [node("Reshape", ["x", "s"], ["y"])], IMAGE, {"s": I64([0, -1, 6])}, 1),
    (
        "expand-tile",
        (8, 12),
        [node("Expand", ["x", "s"], ["a"]), node("Tile", ["a", "t"], ["y"])],
        IMAGE[:, :1],
        {"s": I64([1, 3, 1, 1]), "t": I64([1, 1, 2, 1])},
        1,
    ),
    (
        "compare",
        (9, 11, 12),
        [
            node("Greater", ["x", "z"], ["g"]),
            node("Less", ["x", "h"], ["l"]),
            node("And", ["g", "l"], ["a"]),
            node("Where", ["a", "x", "z"], ["y"]),
        ],
        IMAGE,
        {"z": np.float32(0), "h": np.float32(1)},
        1,
    ),
    (
        "unary",
        (8, 12, 13),
        [
            node("Sigmoid", ONE, ["a"]),
            node("Tanh", ["a"], ["b"]),
            node("Exp", ["b"], ["c"]),
            node("Sqrt", ["c"], ["d"]),
            node("Neg", ["d"], ["e"]),
            node("Reciprocal", ["e"], ["f"]),
            node("Floor", ["f"], ["g"]),
            node("Ceil", ["b"], ["h"]),
            node("Add", ["g", "h"], ["i"]),
            node("Log", ["c"], ["j"]),
            node("Add", ["i", "j"], ["y"]),
        ],
        IMAGE,
        {},
        1,
    ),
    (
        "activations",
        (8, 12, 13),
        [
            node("Relu", ONE, ["r"]),
            node("LeakyRelu", ONE, ["l"], alpha=0.3),
            node("Elu", ONE, ["e"], alpha=2.0),
            node("Selu", ONE, ["s"]),
            node("HardSigmoid", ONE, ["h"]),
            node("Softplus", ONE, ["p"]),
            node("Softsign", ONE, ["t"]),
            node("Sum", ["r", "l", "e", "s", "h", "p", "t"], ["y"]),
        ],
        IMAGE,
        {},
        1,
    ),
    (
        "quantize",
        (10, 12),
        [node("QuantizeLinear", ["x", "s", "z"], ["q"]), node("DequantizeLinear", ["q", "s", "z"], ["y"])],
        IMAGE,
        {"s": np.float32(0.1), "z": np.uint8(128)},
        1,
    ),
    (
        "matmul",
        (8, 9, 12),
        [node("MatMul", ["x", "w"], ["y"])],
        IMAGE,
        {"w": RNG.normal(0, 1, (6, 2)).astype(np.float32)},
        1,
    ),
    (
        "lstm",
        (7, 12, 13),
        [node("LSTM", ["x", "w", "r"], ["y"], hidden_size=2, direction="reverse")],
        IMAGE[0],
        {"w": RNG.normal(0, 1, (1, 8, 6)).astype(np.float32), "r": RNG.normal(0, 1, (1, 8, 2)).astype(np.float32)},
        1,
    ),
    (
        "gru",
        (7, 12, 13),
        [node("GRU", ["x", "w", "r"], ["y"], hidden_size=2, linear_before_reset=1)],
        IMAGE[0],
        {"w": RNG.normal(0, 1, (1, 6, 6)).astype(np.float32), "r": RNG.normal(0, 1, (1, 6, 2)).astype(np.float32)},
        1,
    ),
    (
        "round-mod",
        (11, 12),
        [node("Round", ONE, ["r"]), node("Mod", ["r", "m"], ["y"], fmod=1)],
        IMAGE,
        {"m": np.float32(3)},
        1,
    ),
    ("einsum", (12, 13), [node("Einsum", ONE, ["y"], equation="nchw->nhc")], IMAGE, {}, 1),
    (
        "resize-11",
        (11, 12),
        [node("Resize", ["x", "roi", "s"], ["y"], mode="linear")],
        IMAGE,
        {"s": np.float32([1, 1, 2, 1.5]), "roi": np.zeros(0, np.float32)},
        1,
    ),
    ("lpnorm", (8, 12), [node("LpNormalization", ONE, ["y"], axis=1)], IMAGE, {}, 1),
    ("shape", (8, 12, 14), [node("Shape", ONE, ["y0"]), node("Size", ONE, ["y1"])], IMAGE, {}, 2),
]


@pytest.mark.parametrize(
    ("opset", "nodes", "x", "constants", "outputs"),
    [
        pytest.param(opset, nodes, x, constants, outputs, id=f"{name}-opset{opset}")
        for name, opsets, nodes, x, constants, outputs in SWEEP
        for opset in opsets
    ],
)
def test_operators_of_old_opsets(
    opset: int, nodes: list[onnx.NodeProto], x: Array, constants: Mapping[str, Any], outputs: int
) -> None:
    assert_reads_as_it_runs(declared(nodes, opset, x, constants, outputs), x)


@pytest.mark.parametrize("opset", [10, 11])
def test_a_mask_that_is_used_is_refused(opset: int, tmp_path: Path) -> None:
    """onnxruntime gives another mask for the Dropout of later opsets."""
    x = np.float32([[1, 2]])
    model = declared([node("Dropout", ["x"], ["y0", "y1"], name="drop")], opset, x, {}, 2)
    refused(model, tmp_path, "the mask of Dropout is used", "drop")
    del model.graph.output[1]
    assert_reads_as_it_runs(model, x)


def refused(model: onnx.ModelProto | bytes, folder: Path, message: str, at: str | None = None) -> None:
    path = folder / "model.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    with pytest.raises(CompileError) as caught:
        load(path)
    assert message in str(caught.value)
    assert caught.value.file == str(path)
    assert caught.value.hint
    if at is not None:
        assert caught.value.node == at


# -- functions ---------------------------------------------------------------------------------------------------------


def with_functions(body: str, functions: str, opset: int = 18) -> onnx.ModelProto:
    model = parse(f"""<ir_version: 10, opset_import: ["": {opset}, "custom": 1]>
        network (float[N,3] x) => (float[N,3] y) {{ {body} }}
        {functions}""")
    onnx.checker.check_model(model)
    return model


def function(text: str, opset: int = 18) -> str:
    return f'<domain: "custom", opset_import: ["": {opset}, "custom": 1]> {text}\n'


ELU = function("F <alpha: float = 3.0> (a) => (b) { b = Elu <alpha: float = @alpha> (a) }")
THREE = np.float32([[-1, 0.5, -3], [2, -0.25, 0.25]])


@pytest.mark.parametrize(
    ("body", "functions"),
    [
        ("y = custom.F (x)", ELU),
        ("y = custom.F <alpha = 0.5> (x)", ELU),
        ("a = custom.F (x) b = custom.F <alpha = 0.5> (a) y = custom.F (b)", ELU),
        ("y = custom.G (x)", ELU + function("G (a) => (b) { b = custom.F (a) }")),
        ("y = custom.G (x)", ELU + function("G (a) => (b) { c = custom.F (a) b = custom.F <alpha = 2.0> (c) }")),
        ("y = custom.G (x)", ELU + function("G <alpha> (a) => (b) { b = custom.F <alpha: float = @alpha> (a) }")),
        (
            "y = custom.G <alpha = 0.1> (x)",
            ELU + function("G <alpha> (a) => (b) { b = custom.F <alpha: float = @alpha> (a) }"),
        ),
        (
            "y = custom.H (x)",
            ELU
            + function("G <alpha: float = 7.0> (a) => (b) { b = custom.F <alpha: float = @alpha> (a) }")
            + function("H (a) => (b) { c = custom.G (a) d = custom.F (c) b = Add (c, d) }"),
        ),
        ("y = custom.S (x)", function("S <axis: int = 0> (a) => (b) { b = Softmax <axis: int = @axis> (a) }")),
        ("y = custom.L (x)", function("L <by: float = 4.0> (a) => (b) { c = Constant <value_float: float = @by> () "
                                      "b = Mul (a, c) }")),
        ("y = custom.N (x)", function("N (a) => (b) { b = Neg (a) }")),
    ],
)  # fmt: skip
def test_defaults_of_functions(body: str, functions: str) -> None:
    for opset in (18, 14, 12):
        source = with_functions(body, functions.replace('"": 18', f'"": {opset}'), opset)
        np.testing.assert_array_equal(run(loaded(source), {"x": THREE})[0], run(source, {"x": THREE})[0])


def test_defaults_of_functions_of_text_and_in_a_subgraph() -> None:
    model = with_functions(
        """no = Constant <value = bool {0}> ()
        y = If (no) <then_branch = t () => (float[N,3] p) { p = Neg (x) },
                     else_branch = e () => (float[N,3] q) { q = custom.M (x) }>""",
        function('M <mode: string = "sum"> (a) => (b) { b = custom.K <mode: string = @mode> (a) }')
        + function('K <mode: string = "none"> (a) => (b) '
                   '{ o = Constant <value_ints = [0, 1]> () i = Constant <value = int64[2, 1] {0, 0}> () '
                   "u = Gather (a, o) b = ScatterND <reduction: string = @mode> (a, i, u) }"),
    )  # fmt: skip
    source = run(model, {"x": THREE})[0]
    assert not np.array_equal(source, THREE)
    model.functions[0].attribute_proto[0].s = b"add"
    np.testing.assert_array_equal(run(loaded(model), {"x": THREE})[0], run(model, {"x": THREE})[0])


def test_a_default_direction_of_an_lstm() -> None:
    rng = np.random.default_rng(1)
    text = parse("""<ir_version: 10, opset_import: ["": 18, "custom": 1]>
        network (float[4,2,3] x, float[1,8,3] w, float[1,8,2] r) => (float[4,1,2,2] y) { y = custom.F (x, w, r) }
        <domain: "custom", opset_import: ["": 18]>
        F <direction: string = "reverse"> (x, w, r) => (y) {
            y = LSTM <hidden_size = 2, direction: string = @direction> (x, w, r) }""")
    feeds = {v.name: rng.normal(size=[d.dim_value for d in v.type.tensor_type.shape.dim]) for v in text.graph.input}
    feeds = {name: values.astype(np.float32) for name, values in feeds.items()}
    np.testing.assert_array_equal(run(loaded(text), feeds)[0], run(text, feeds)[0])


def qcfs_and(body: str, functions: str) -> onnx.ModelProto:
    return parse(f"""<ir_version: 10, opset_import: ["": 18, "custom": 1]>
        network (float[N,3] x) => (float[N,3] y) <float theta = {{2}}, float four = {{4}}, float zero = {{0}},
            float one = {{1}}, float half = {{0.5}}> {{
            q = Div (x, theta) r = Clip (q, zero, one) s = Mul (r, four) t = Add (s, half) u = Floor (t)
            v = Div (u, four) h = Mul (v, theta) {body} }}
        {functions}""")


@pytest.mark.parametrize(
    ("op", "default"),
    [("Elu", 'alpha: float = 3.0'), ("Selu", "alpha: float = 3.0"), ("Celu", "alpha: float = 3.0"),
     ("HardSigmoid", "alpha: float = 0.7"), ("ThresholdedRelu", "alpha: float = 0.4"), ("Shrink", "bias: float = 0.2")],
)  # fmt: skip
def test_a_source_with_defaults_is_compiled_as_it_runs(op: str, default: str, tmp_path: Path) -> None:
    name = default.partition(":")[0]
    source = qcfs_and(
        "m = Sub (h, one) y = custom.F (m)",
        function(f"F <{default}> (a) => (b) {{ b = {op} <{name}: float = @{name}> (a) }}"),
    )
    onnx.save(source, tmp_path / "source.onnx")
    compile_model(tmp_path / "source.onnx", tmp_path / "out.onnx")
    x = np.linspace(-1, 3, 30, dtype=np.float32).reshape(10, 3)
    expected = run(source, {"x": x})[0]
    np.testing.assert_array_equal(run((tmp_path / "out.onnx").read_bytes(), {"x": x})[0], expected)
    source.functions[0].attribute_proto[0].f *= 2
    assert not np.array_equal(run(source, {"x": x})[0], expected)


def test_functions_of_another_opset(tmp_path: Path) -> None:
    same = with_functions("y = custom.F (x)", function("F (a) => (b) { b = Elu (a) }", 12))
    np.testing.assert_array_equal(run(loaded(same), {"x": THREE})[0], run(same, {"x": THREE})[0])
    other = parse("""<ir_version: 10, opset_import: ["": 18, "custom": 1]>
        network (float[N,3] x) => (float[N,3] y) { y = custom.F (x) }
        <domain: "custom", opset_import: ["": 12]> F (a) => (b) { b = Softmax (a) }""")
    refused(other, tmp_path, "the function F is written for opset 12 and the model for opset 18", "F")


# -- operators of ai.pascalc -------------------------------------------------------------------------------------------

EXPLICIT = """g (float[N,2] x) => (float[N,2] y) <float t = {2}>
    { y = ai.pascalc.QCFS <levels = 4, phi = 0.5, label = "a"> (x, t) }"""


def renamed(body: onnx.FunctionProto) -> None:
    names = {name: f"other_{i}" for i, n in enumerate(body.node) for name in n.output if name not in body.output}
    for n in body.node:
        for field in (n.input, n.output):
            for i, name in enumerate(field):
                field[i] = names.get(name, name)


def constants_rewritten(body: onnx.FunctionProto) -> None:
    for n in body.node:
        for a in n.attribute:
            if a.name == "value_int" and not a.ref_attr_name:
                n.attribute[0].CopyFrom(helper.make_attribute("value", helper.make_tensor("", 7, [], [a.i])))


def decorated(body: onnx.FunctionProto) -> None:
    body.doc_string = ""
    for i, n in enumerate(body.node):
        n.name, n.doc_string = f"node {i}", "what it does"
        n.metadata_props.add(key="k", value="v")
    body.metadata_props.add(key="k", value="v")
    body.value_info.add(name=body.node[0].output[0])


def reordered(body: onnx.FunctionProto) -> None:
    nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in body.node]
    constants = [n for n in nodes if n.op_type == "Constant"]
    rest = [n for n in nodes if n.op_type != "Constant"]
    del body.node[:]
    body.node.extend([*reversed(constants), *rest, node("Neg", ["X"], ["unused"])])


@pytest.mark.parametrize("change", [decorated, renamed, constants_rewritten, reordered])
def test_a_body_that_is_written_otherwise_is_this_versions(
    change: Callable[[onnx.FunctionProto], None], tmp_path: Path
) -> None:
    model = with_bodies(parse(EXPLICIT))
    before = model.functions[0].SerializeToString()
    change(model.functions[0])
    assert model.functions[0].SerializeToString() != before
    onnx.save(model, tmp_path / "model.onnx")
    assert load(tmp_path / "model.onnx").notes == []
    compile_model(tmp_path / "model.onnx")


def another_operator(body: onnx.FunctionProto) -> None:
    body.node[-1].op_type = "Div"


def another_input(body: onnx.FunctionProto) -> None:
    body.node[-1].input[1] = "threshold"


def another_constant(body: onnx.FunctionProto) -> None:
    next(a for n in body.node for a in n.attribute if a.name == "value_int" and not a.ref_attr_name).i = 1


def another_default(body: onnx.FunctionProto) -> None:
    body.attribute.remove("phi")
    body.attribute_proto.append(helper.make_attribute("phi", 0.25))


def another_reference(body: onnx.FunctionProto) -> None:
    body.node[0].attribute[0].ref_attr_name = "phi"


@pytest.mark.parametrize(
    "change",
    [another_operator, another_input, another_constant, another_default, another_reference],
)
def test_a_body_that_means_something_else_is_not_compiled(
    change: Callable[[onnx.FunctionProto], None], tmp_path: Path
) -> None:
    model = with_bodies(parse(EXPLICIT))
    change(model.functions[0])
    path, out = tmp_path / "model.onnx", tmp_path / "out.onnx"
    onnx.save(model, path)
    assert [note.reason for note in load(path).notes] == ["the file's body of QCFS is not this version's"]
    with pytest.raises(CompileError, match=r"a function body of ai.pascalc.QCFS that is not this version's") as caught:
        compile_model(path, out)
    assert caught.value.node == "QCFS"
    assert caught.value.hint
    assert not out.exists()


def neuron(op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> onnx.NodeProto:
    return node(op, inputs, outputs, name="here", domain="ai.pascalc", **attributes)


PASC = {"levels": 4, "steps_in": 1, "steps_out": 1, "phi": 0.5, "label": "a"}


@pytest.mark.parametrize("where", ["graph", "branch", "function"])
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (neuron("Accumulate", [], ["y"], steps=1), "Accumulate must have the input X"),
        (neuron("Accumulate", [""], ["y"], steps=1), "Accumulate must have the input X"),
        (neuron("Accumulate", ["x", "x"], ["y"], steps=1), "Accumulate must have the input X"),
        (neuron("Accumulate", ["x"], ["y", "z"], steps=1), "Accumulate must have the output Y"),
        (neuron("Accumulate", ["x"], ["y"]), "steps of Accumulate must be an integer, not None"),
        (neuron("Accumulate", ["x"], ["y"], steps=1.0), "steps of Accumulate must be an integer, not 1.0"),
        (neuron("Spread", ["x"], ["y"], steps=[1]), "steps of Spread must be an integer, not [1]"),
        (neuron("Align", ["x"], ["y"], steps_in=1), "steps_out of Align must be an integer, not None"),
        (neuron("QCFS", ["x"], ["y"], levels=4), "QCFS must have the inputs X, threshold"),
        (neuron("QCFS", ["x", "t"], ["y"]), "levels of QCFS must be an integer from 1 to 255, not None"),
        (neuron("QCFS", ["x", "t"], ["y"], levels=4, phi="a"), "phi of QCFS must be a float, not b'a'"),
        (neuron("QCFS", ["x", "t"], ["y"], levels=4, label=3), "label of QCFS must be text, not 3"),
        (neuron("QCFS", ["x", "t"], ["y"], levels=4, label=b"\xff"), "label of QCFS is not text"),
        (neuron("PascIF", ["x", "t"], ["y"], **{**PASC, "steps_in": "1"}), "steps_in of PascIF must be an integer"),
        (neuron("PascIF", ["x", "i"], ["y"], **PASC), "the threshold of PascIF is of type int64, not float"),
        (neuron("NoSuch", ["x"], ["y"]), "ai.pascalc has no operator NoSuch"),
    ],
)
def test_operators_used_otherwise_than_defined(bad: onnx.NodeProto, message: str, where: str, tmp_path: Path) -> None:
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.pascalc", 1), helper.make_opsetid("custom", 1)]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 2]) for name in "xy"]
    t = helper.make_tensor("t", TensorProto.FLOAT, [], [2])
    i = helper.make_tensor("i", TensorProto.INT64, [], [2])
    yes = helper.make_tensor("yes", TensorProto.BOOL, [], [1])
    nodes, functions = [bad], []
    if where == "branch":
        other = helper.make_graph(
            [node("Identity", ["x"], ["o"])], "o", [], [helper.make_tensor_value_info("o", 1, None)]
        )
        graph = helper.make_graph([bad], "b", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
        nodes = [node("If", ["yes"], ["y~"], then_branch=graph, else_branch=other)]
        values[1].name = "y~"
    elif where == "function":
        functions = [helper.make_function("custom", "F", ["x", "t", "i"], ["y"], [bad], opsets[:2])]
        nodes = [node("F", ["x", "t", "i"], ["y"], domain="custom")]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], [t, i, yes])
    model = helper.make_model(graph, functions=functions, opset_imports=opsets, ir_version=10)
    refused(model, tmp_path, message)


@pytest.mark.parametrize("count", [1, 2000], ids=["small", "big"])
@pytest.mark.parametrize("kind", [TensorProto.INT64, TensorProto.INT8, TensorProto.BOOL, TensorProto.STRING])
def test_thresholds_that_are_no_floats(kind: int, count: int, tmp_path: Path) -> None:
    model = parse(EXPLICIT)
    values: list[Any] = ["2"] * count if kind == TensorProto.STRING else [1] * count
    model.graph.initializer[0].CopyFrom(helper.make_tensor("t", kind, [count], values))
    name = TensorProto.DataType.Name(kind).lower()
    refused(model, tmp_path, f"the threshold of QCFS is of type {name}, not float")


def test_an_operator_of_another_version_with_its_body_is_what_the_body_is(tmp_path: Path) -> None:
    model = parse("""<ir_version: 10, opset_import: ["": 18, "ai.pascalc": 1]>
        network (float[N,3] x) => (float[N,3] y) { y = ai.pascalc.Leaky (x) }
        <domain: "ai.pascalc", opset_import: ["": 18]> Leaky (X) => (Y) { Y = LeakyRelu <alpha = 0.5> (X) }""")
    read = loaded(model)
    assert [note.reason for note in read.notes] == ["the file's body of Leaky is not this version's"]
    np.testing.assert_array_equal(run(read, {"x": THREE})[0], run(model, {"x": THREE})[0])


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["inner_name", "node_name", "inner_out", "weight_name", "fn_inner", "graph_name"])
def test_names_that_are_no_text(name: str, tmp_path: Path) -> None:
    model = parse("""<ir_version: 10, opset_import: ["": 18, "custom": 1]>
        network (float[N,3] x) => (float[N,3] y) <bool yes = {1}> {
          z = custom.F (x)
          y = If (yes) <then_branch = graph_name () => (float[N,3] inner_out) <float weight_name = {2}>
                  { [node_name] inner_name = Neg (z) inner_out = Mul (inner_name, weight_name) },
                else_branch = e () => (float[N,3] q) { q = Neg (z) }> }
        <domain: "custom", opset_import: ["": 18]> F (a) => (b) { fn_inner = Neg (a) b = Neg (fn_inner) }""")
    data = model.SerializeToString()
    assert name.encode() in data
    loaded(model)
    refused(data.replace(name.encode(), b"\xff\xfe" + name.encode()[2:]), tmp_path, "a name in the file is not text")


# -- types -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["input", "output", "value_info", "initializer", "inner output", "inner initializer"])
def test_element_types_that_do_not_exist(where: str, tmp_path: Path) -> None:
    model = parse("""<ir_version: 10, opset_import: ["": 18]>
        network (float[N,3] x) => (float[N,3] y) <bool yes = {1}, float two = {2}, float[N,3] z> {
          z = Mul (x, two)
          y = If (yes) <then_branch = t () => (float[N,3] a) <float three = {3}> { a = Mul (z, three) },
                else_branch = e () => (float[N,3] b) { b = Neg (z) }> }""")
    loaded(model)
    inside = where.startswith("inner ")
    graph = model.graph.node[1].attribute[0].g if inside else model.graph
    value = getattr(graph, where.removeprefix("inner "))[-1]
    if isinstance(value, onnx.TensorProto):
        value.data_type = 80
    else:
        value.type.tensor_type.elem_type = 80
    refused(model, tmp_path, "the element type 80")


def test_constants_behind_what_uses_them(tmp_path: Path) -> None:
    """onnxruntime takes them in any order, and so must what looks into a file."""
    model = parse("""<ir_version: 10, opset_import: ["": 18]>
        network (float[N,3] x) => (float[N,3] y) <float[3,3] w = {1,2,3,4,5,6,7,8,9}> {
          z = MatMul (x, w) a = Div (z, theta) b = Mul (a, levels) c = Add (b, half) d = Floor (c)
          e = Clip (d, low, levels) f = Div (e, levels) y = Mul (f, theta)
          half = Constant <value_float = 0.5> () low = Constant <value_float = 0.0> ()
          levels = Constant <value_float = 4.0> () theta = Constant <value_float = 8.0> () }""")
    onnx.save(model, tmp_path / "model.onnx")
    np.savez(tmp_path / "data.npz", x=THREE)
    compile_model(tmp_path / "model.onnx")
    assert verify(tmp_path / "model.onnx", tmp_path / "model.snn.onnx", tmp_path / "data.npz").equivalent
