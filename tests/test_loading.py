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
from tests.helpers import Array, loaded, parse, run, with_bodies
from tests.small_networks import Builder

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
        model = declared([node("Upsample", ["x"], ["y"], mode=mode, scales=scales)], opset, IMAGE, {}, 1)
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
    ("slice-10", (10, 11, 12), [node("Slice", ["x", "s", "e", "a", "t"], ["y"])], IMAGE,
     {"s": I64([5]), "e": I64([0]), "a": I64([3]), "t": I64([-2])}, 1),
    ("dropout", (7, 8, 10, 11), [node("Dropout", ONE, ["y"], ratio=0.3)], IMAGE, {}, 1),
    ("dropout-default", (7, 10), [node("Dropout", ONE, ["y"])], IMAGE, {}, 1),
    ("dropout-mask", (10, 11), [node("Dropout", ONE, ["y0", "y1"], ratio=0.3)], IMAGE, {}, 2),
    ("bn", (7, 8, 9, 13, 14), [node("BatchNormalization", ["x", "s", "b", "m", "v"], ["y"], epsilon=0.1)], IMAGE, C3, 1),
    ("bn-momentum", (7, 9), [node("BatchNormalization", ["x", "s", "b", "m", "v"], ["y"], momentum=0.3)], IMAGE, C3, 1),
    ("bn-spatial", (7, 8), [node("BatchNormalization", ["x", "s", "b", "m", "v"], ["y"], spatial=1)], IMAGE, C3, 1),
    ("squeeze", (8, 11, 12), [node("Squeeze", ONE, ["y"], axes=[0, 2])], IMAGE[:1, :, :1], {}, 1),
    ("squeeze-all", (8, 12), [node("Squeeze", ONE, ["y"])], IMAGE[:1, :, :1], {}, 1),
    ("squeeze-minus", (11, 12), [node("Squeeze", ONE, ["y"], axes=[-4, -2])], IMAGE[:1, :, :1], {}, 1),
    ("unsqueeze", (8, 11, 12), [node("Unsqueeze", ONE, ["y"], axes=[0, 3])], IMAGE, {}, 1),
    ("unsqueeze-minus", (11, 12), [node("Unsqueeze", ONE, ["y"], axes=[-1, 1])], IMAGE, {}, 1),
    *(
        (f"{op}-{tag}", (8, 10, 11, 12), [node(op, ONE, ["y"], **attributes)],
         np.abs(IMAGE), {}, 1)
        for op in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2",
                   "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare")
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
    ("onehot", (9, 10, 11), [node("Abs", ONE, ["a"]), node("OneHot", ["a", "d", "v"], ["y"], axis=1)],
     np.round(ROWS), {"d": I64(3), "v": np.float32([2, 5])}, 1),
    ("scatter", (9, 10), [node("Scatter", ["x", "i", "u"], ["y"], axis=1)], ROWS,
     {"i": I64([[0, 2], [1, 0]]), "u": np.float32([[1, 2], [3, 4]])}, 1),
    ("scatter-default", (9, 10), [node("Scatter", ["x", "i", "u"], ["y"])], ROWS,
     {"i": I64([[0, 2], [1, 0]]), "u": np.float32([[1, 2], [3, 4]])}, 1),
    ("scatternd", (11, 12), [node("ScatterND", ["x", "i", "u"], ["y"])], ROWS,
     {"i": I64([[0, 2], [1, 0]]), "u": np.float32([1, 2])}, 1),
    ("cumsum", (11, 12, 13), [node("CumSum", ["x", "a"], ["y"], exclusive=1, reverse=1)], ROWS, {"a": np.int32(1)}, 1),
    ("gemm", (7, 8, 9, 10, 12), [node("Gemm", ["x", "w", "c"], ["y"], transB=1, alpha=0.5, beta=2.0)], ROWS,
     {"w": ROWS[:3], "c": np.float32([1, 2, 3])}, 1),
    ("gemm-two", (11, 12), [node("Gemm", ["x", "w"], ["y"], transB=1)], ROWS, {"w": ROWS[:3]}, 1),
    ("flatten", (7, 8, 9, 10, 12), [node("Flatten", ONE, ["y"])], IMAGE, {}, 1),
    ("flatten-2", (7, 8, 9, 11), [node("Flatten", ONE, ["y"], axis=2)], IMAGE, {}, 1),
    ("flatten-0", (7, 8, 9, 11), [node("Flatten", ONE, ["y"], axis=0)], IMAGE, {}, 1),
    ("concat", (8, 10, 12), [node("Concat", ["x", "x"], ["y"], axis=2)], IMAGE, {}, 1),
    ("maxpool", (7, 8, 10, 11), [node("MaxPool", ONE, ["y"], kernel_shape=[2, 3], strides=[2, 1], pads=[1, 1, 0, 1])],
     IMAGE, {}, 1),
    ("maxpool-indices", (8, 10, 11), [node("MaxPool", ONE, ["y0", "y1"], kernel_shape=[2, 2])], IMAGE, {}, 2),
    ("maxpool-auto", (8, 11), [node("MaxPool", ONE, ["y"], kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER")],
     IMAGE, {}, 1),
    ("maxpool-ceil", (10, 11), [node("MaxPool", ONE, ["y"], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)],
     IMAGE, {}, 1),
    ("maxpool-default", (8, 10, 11), [node("MaxPool", ONE, ["y"], kernel_shape=[3, 3])], IMAGE, {}, 1),
    ("averagepool", (7, 8, 10, 11), [node("AveragePool", ONE, ["y"], kernel_shape=[2, 2], pads=[1, 1, 0, 0])],
     IMAGE, {}, 1),
    ("averagepool-pad", (7, 10), [node("AveragePool", ONE, ["y"], kernel_shape=[2, 2], pads=[1, 1, 0, 0],
     count_include_pad=1)], IMAGE, {}, 1),
    ("lppool", (8, 11), [node("LpPool", ONE, ["y"], kernel_shape=[2, 2], p=3)], IMAGE, {}, 1),
    ("globalpools", (8, 11), [node("GlobalAveragePool", ONE, ["y0"]), node("GlobalMaxPool", ONE, ["y1"])], IMAGE, {}, 2),
    ("prelu", (7, 8, 9, 12), [node("PRelu", ["x", "a"], ["y"])], IMAGE, {"a": np.float32([[[0.1]], [[0.5]], [[2]]])}, 1),
    ("constantofshape", (9, 12), [node("Shape", ONE, ["s"]), node("ConstantOfShape", ["s"], ["c"]),
     node("Add", ["x", "c"], ["y"])], IMAGE, {}, 1),
    ("cast", (8, 9, 12), [node("Cast", ONE, ["i"], to=7), node("Cast", ["i"], ["y"], to=1)], IMAGE, {}, 1),
    ("conv", (7, 8, 10), [node("Conv", ["x", "w"], ["y"], pads=[1, 0, 1, 1], strides=[2, 1])], IMAGE, W, 1),
    ("conv-auto", (8, 10), [node("Conv", ["x", "w"], ["y"], auto_pad="SAME_LOWER", strides=[2, 2])], IMAGE, W, 1),
    ("convtranspose", (8, 10), [node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], output_padding=[1, 0])],
     IMAGE, {"w": np.ascontiguousarray(W["w"].transpose(1, 0, 2, 3))}, 1),
    ("convtranspose-shape", (8, 10), [node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], output_shape=[8, 12])],
     IMAGE, {"w": np.ascontiguousarray(W["w"].transpose(1, 0, 2, 3))}, 1),
    ("instancenorm", (7, 12), [node("InstanceNormalization", ["x", "s", "b"], ["y"], epsilon=0.1)], IMAGE, C3, 1),
    ("lrn", (7, 12), [node("LRN", ONE, ["y"], size=3, alpha=0.5, beta=0.7, bias=2.0)], IMAGE, {}, 1),
    ("depthtospace", (8, 10, 11, 12), [node("Concat", ["x"] * 4, ["c"], axis=1),
     node("DepthToSpace", ["c"], ["y"], blocksize=2)], IMAGE, {}, 1),
    ("spacetodepth", (8, 12), [node("SpaceToDepth", ONE, ["y"], blocksize=2)], IMAGE, {}, 1),
    ("elementwise", (7, 8, 12, 13), [node("Add", ["x", "s"], ["a"]), node("Sub", ["a", "m"], ["b1"]),
     node("Mul", ["b1", "s"], ["c"]), node("Div", ["c", "v"], ["y"])], IMAGE,
     {"s": np.float32([[[1]], [[2]], [[3]]]), "m": np.float32(2), "v": np.float32([[[1]], [[2]], [[0.5]]])}, 1),
    ("pow", (7, 11, 12, 13, 14), [node("Abs", ONE, ["a"]), node("Pow", ["a", "e"], ["y"])], IMAGE, {"e": np.float32(1.5)}, 1),
    ("minmax", (8, 11, 12), [node("Min", ["x", "h"], ["a"]), node("Max", ["a", "x", "l"], ["y"])], IMAGE,
     {"h": np.float32(1), "l": np.float32(-1)}, 1),
    ("sum-mean", (8, 12), [node("Sum", ["x", "s"], ["a"]), node("Mean", ["a", "x"], ["y"])], IMAGE, {"s": np.float32(2)}, 1),
    ("gather", (8, 10, 12), [node("Gather", ["x", "i"], ["y"], axis=3)], IMAGE, {"i": I64([[0, 2], [5, 1]])}, 1),
    ("transpose", (8, 12), [node("Transpose", ONE, ["y"])], IMAGE, {}, 1),
    ("reshape", (8, 12, 13), [node("Reshape", ["x", "s"], ["y"])], IMAGE, {"s": I64([0, -1, 6])}, 1),
    ("expand-tile", (8, 12), [node("Expand", ["x", "s"], ["a"]), node("Tile", ["a", "t"], ["y"])], IMAGE[:, :1],
     {"s": I64([1, 3, 1, 1]), "t": I64([1, 1, 2, 1])}, 1),
    ("compare", (9, 11, 12), [node("Greater", ["x", "z"], ["g"]), node("Less", ["x", "h"], ["l"]),
     node("And", ["g", "l"], ["a"]), node("Where", ["a", "x", "z"], ["y"])], IMAGE,
     {"z": np.float32(0), "h": np.float32(1)}, 1),
    ("unary", (8, 12, 13), [node("Sigmoid", ONE, ["a"]), node("Tanh", ["a"], ["b"]), node("Exp", ["b"], ["c"]),
     node("Sqrt", ["c"], ["d"]), node("Neg", ["d"], ["e"]), node("Reciprocal", ["e"], ["f"]), node("Floor", ["f"], ["g"]),
     node("Ceil", ["b"], ["h"]), node("Add", ["g", "h"], ["i"]), node("Log", ["c"], ["j"]), node("Add", ["i", "j"], ["y"])],
     IMAGE, {}, 1),
    ("activations", (8, 12, 13), [node("Relu", ONE, ["r"]), node("LeakyRelu", ONE, ["l"], alpha=0.3),
     node("Elu", ONE, ["e"], alpha=2.0), node("Selu", ONE, ["s"]), node("HardSigmoid", ONE, ["h"]),
     node("Softplus", ONE, ["p"]), node("Softsign", ONE, ["t"]), node("ThresholdedRelu", ONE, ["u"]) ,
     node("Sum", ["r", "l", "e", "s", "h", "p", "t", "u"], ["y"])], IMAGE, {}, 1),
    ("quantize", (10, 12), [node("QuantizeLinear", ["x", "s", "z"], ["q"]), node("DequantizeLinear", ["q", "s", "z"], ["y"])],
     IMAGE, {"s": np.float32(0.1), "z": np.uint8(128)}, 1),
    ("matmul", (8, 9, 12), [node("MatMul", ["x", "w"], ["y"])], IMAGE, {"w": RNG.normal(0, 1, (6, 2)).astype(np.float32)}, 1),
    ("lstm", (7, 12, 13), [node("LSTM", ["x", "w", "r"], ["y"], hidden_size=2, direction="reverse")], IMAGE[0],
     {"w": RNG.normal(0, 1, (1, 8, 6)).astype(np.float32), "r": RNG.normal(0, 1, (1, 8, 2)).astype(np.float32)}, 1),
    ("gru", (7, 12, 13), [node("GRU", ["x", "w", "r"], ["y"], hidden_size=2, linear_before_reset=1)], IMAGE[0],
     {"w": RNG.normal(0, 1, (1, 6, 6)).astype(np.float32), "r": RNG.normal(0, 1, (1, 6, 2)).astype(np.float32)}, 1),
    ("round-mod", (11, 12), [node("Round", ONE, ["r"]), node("Mod", ["r", "m"], ["y"], fmod=1)], IMAGE, {"m": np.float32(3)}, 1),
    ("einsum", (12, 13), [node("Einsum", ONE, ["y"], equation="nchw->nhc")], IMAGE, {}, 1),
    ("resize-11", (11, 12), [node("Resize", ["x", "", "s"], ["y"], mode="linear")], IMAGE, {"s": np.float32([1, 1, 2, 1.5])}, 1),
    ("lpnorm", (8, 12), [node("LpNormalization", ONE, ["y"], axis=1)], IMAGE, {}, 1),
    ("shape", (8, 12, 14), [node("Shape", ONE, ["y0"]), node("Size", ONE, ["y1"])], IMAGE, {}, 2),
]  # fmt: skip


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
