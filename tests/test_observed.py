"""Where onnx's inference gives up or is wrong, onnxruntime is asked: all that can spike spikes, no type is guessed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import onnxruntime.capi.onnxruntime_pybind11_state as runtime
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import helper

import pascalc
from pascalc import observed
from pascalc.errors import CompileError
from pascalc.passes.infer_shapes import InferShapes
from tests.helpers import loaded, session
from tests.small_networks import Array, Builder, residual_network, write

MICROSOFT = "com.microsoft"


@st.composite
def pools(draw: st.DrawFn) -> tuple[onnx.NodeProto, list[int], int]:
    """A pool of two axes that onnx may get wrong, the sizes before it, and an opset."""
    opset = draw(st.sampled_from([15, 17, 18, 19, 21, 22]))
    op = draw(st.sampled_from(["MaxPool", "AveragePool", "LpPool"][: 3 if opset >= 18 else 2]))
    two = st.lists(st.integers(1, 3), min_size=2, max_size=2)
    attributes: dict[str, Any] = {"kernel_shape": draw(two)}
    if draw(st.booleans()):
        attributes["strides"] = draw(two)
    if draw(st.booleans()) and (op == "MaxPool" or opset >= 19):
        attributes["dilations"] = draw(two)
    automatic = draw(st.sampled_from([None, None, "SAME_UPPER", "SAME_LOWER", "VALID"]))
    if automatic:
        attributes["auto_pad"] = automatic
    elif draw(st.booleans()):
        attributes["pads"] = [draw(st.integers(0, k - 1)) for k in attributes["kernel_shape"] * 2]
    ceil = draw(st.sampled_from([0, 1, 1]))
    node = helper.make_node(op, ["x"], ["y"], name="pool", ceil_mode=ceil, **attributes)
    return node, draw(st.lists(st.integers(4, 9), min_size=2, max_size=2)), opset


@settings(max_examples=200, deadline=None, derandomize=True)
@given(pools())
def test_the_size_behind_a_pool_is_the_true_one(case: tuple[onnx.NodeProto, list[int], int]) -> None:
    node, sizes, opset = case
    graph = helper.make_graph(
        [node],
        "pool",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 3, *sizes])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None] * 4)],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    try:
        (y,) = session(proto).run(None, {"x": np.zeros((5, 3, *sizes), np.float32)})
    except (runtime.Fail, runtime.RuntimeException):
        assume(
            False
        )  # onnxruntime cannot run it: a window larger than the image, a SAME that pads by less than nothing
    model = loaded(proto)
    InferShapes().run(model)
    assert model.graph.outputs[0].shape == ["batch", *y.shape[1:]]


def test_a_pool_that_onnx_infers_as_onnxruntime_does_is_not_asked_for() -> None:
    plain = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], pads=[1, 1, 0, 0])
    assert not observed.is_doubtful(plain)


def test_a_pool_too_large_to_run_is_left_to_onnx() -> None:
    node = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2**20], ceil_mode=1)
    assert observed.pooled(node, [2**20], 18) is None
    assert observed.pooled(node, [0], 18) is None


#: Multiply-accumulates of the last layer, which reads averages.
LAST = 6 * 5


def network_with(pool: dict[str, Any], op: str, size: int) -> onnx.ModelProto:
    """Spikes from the first layer on, through two such pools. Behind them no weight depends on their size: onnxruntime
    itself refuses to load what onnx infers a contradiction of."""
    b = Builder(5)
    x = b.qcfs(b.input("x", ["N", 2, size, size]), "pixels", 4)
    x = b.qcfs(b.conv(x, "conv1", (2, 4)), "a", 4)
    x = b.qcfs(b.conv(b.node(op, [x], "pool1", **pool), "conv2", (4, 4)), "b", 2)
    x = b.qcfs(b.conv(b.node(op, [x], "pool2", **pool), "conv3", (4, 6)), "c", 4)
    x = b.node("Flatten", [b.node("GlobalAveragePool", [x], "mean")], "flat")
    return b.model({"y": b.gemm(x, "last", (6, 5))}, opset_imports=[helper.make_opsetid("", 18)])


@pytest.mark.parametrize("schedule", ["unrolled", "collapsed"])
@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize(
    ("kernel", "stride", "pad", "size"), [(2, 2, 1, 9), (2, 3, 1, 11), (3, 2, 0, 10), (3, 3, 1, 10), (2, 2, 0, 9)]
)
def test_everything_spikes_behind_pools_that_round_up(
    kernel: int, stride: int, pad: int, size: int, op: str, schedule: str, tmp_path: Path
) -> None:
    pool = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4, "ceil_mode": 1}
    source = write(network_with(pool, op, size), tmp_path / "source.onnx")
    result = pascalc.compile(source, schedule=schedule)
    assert result.network.macs is not None
    # what reads averages reads trains, but of currents
    reads_spikes = result.network.macs - LAST if op == "MaxPool" else 4 * 2 * 9 * size**2
    assert result.network.spiking_macs == reads_spikes
    assert result.network.not_spiking == []
    assert_verifies(source, result.output, {"x": normal(6, 2, size, size)})


def test_everything_spikes_behind_a_dilated_pool_that_pads_itself(tmp_path: Path) -> None:
    pool = {"kernel_shape": [2, 2], "dilations": [2, 2], "auto_pad": "SAME_UPPER"}
    source = write(network_with(pool, "MaxPool", 8), tmp_path / "source.onnx")
    result = pascalc.compile(source)
    assert result.network.macs is not None
    assert result.network.spiking_macs == result.network.macs - LAST
    assert_verifies(source, result.output, {"x": normal(6, 2, 8, 8)})


#: Operators of onnxruntime's own domain: what they compute of [N, 6] (the last of [N, 2, 6, 6]).
FOREIGN = (
    "FusedMatMul",
    "Gelu",
    "FastGelu",
    "QuickGelu",
    "BiasGelu",
    "SkipLayerNormalization",
    "FusedGemm",
    "FusedConv",
)


def foreign_network(op: str, form: str = "decomposed") -> onnx.ModelProto:
    """The operator, a neuron, and a spiking layer behind it."""
    b = Builder(6)
    matrix = b.random("matrix", (6, 6), 0.6)
    row = b.random("row", (6,), 0.4)
    inputs = {
        "FusedMatMul": [matrix],
        "BiasGelu": [row],
        "SkipLayerNormalization": ["skip", row],
        "FusedGemm": [matrix, row],
        "FusedConv": [b.random("kernel", (2, 2, 3, 3), 0.4)],
    }.get(op, [])
    attributes = {
        "FusedGemm": {"activation": "LeakyRelu", "activation_alpha": 0.5},
        "FusedConv": {"activation": "Relu"},
        "FusedMatMul": {"alpha": 2.0},
    }.get(op, {})
    if op == "SkipLayerNormalization":
        b.node("Neg", ["x"], "negative")
        inputs[0] = "negative_out"
    shape = ["N", 2, 6, 6] if op == "FusedConv" else ["N", 6]
    x = b.node(op, [b.input("x", shape), *inputs], "foreign", domain=MICROSOFT, **attributes)
    x = b.qcfs(x, "a", 4)
    x = b.gemm(b.node("Flatten", [x], "flat"), "fc", (32 if op == "FusedConv" else 6, 4))
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(MICROSOFT, 1)]
    return b.model({"y": b.gemm(b.qcfs(x, "b", 2), "last", (4, 3))}, ("N", 3), opset_imports=opsets)


@pytest.mark.parametrize("schedule", ["unrolled", "collapsed"])
@pytest.mark.parametrize("op", FOREIGN)
def test_operators_of_onnxruntime_keep_their_type(op: str, schedule: str, tmp_path: Path) -> None:
    source = write(foreign_network(op), tmp_path / "source.onnx")
    result = pascalc.compile(source, schedule=schedule)
    assert {t.data_type for t in onnx.load(result.output).graph.initializer} == {onnx.TensorProto.FLOAT}
    assert [layer.levels for layer in result.network.neurons] == [4, 2]
    assert result.network.spiking_macs == result.network.macs
    assert_verifies(source, result.output, {"x": normal(20, *((2, 6, 6) if op == "FusedConv" else (6,)))})


@pytest.mark.parametrize("schedule", ["unrolled", "collapsed"])
@pytest.mark.parametrize("level", ["BASIC", "EXTENDED", "LAYOUT", "ALL"])
def test_a_source_that_onnxruntime_has_optimised(level: str, schedule: str, tmp_path: Path) -> None:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    options.optimized_model_filepath = str(tmp_path / "source.onnx")
    ort.InferenceSession(residual_network().SerializeToString(), options, providers=["CPUExecutionProvider"])
    result = pascalc.compile(tmp_path / "source.onnx", schedule=schedule)
    assert len(result.network.neurons) == 5
    assert_verifies(tmp_path / "source.onnx", result.output, {"image": normal(6, 2, 12, 12)})


def test_a_type_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    model = foreign_network("Gelu")
    node = next(n for n in model.graph.node if n.name == "foreign")
    node.op_type = "Mystery"
    with pytest.raises(CompileError, match="the type of its result '/a/Mul_6_out' is not known") as caught:
        pascalc.compile(write(model, tmp_path / "source.onnx"))
    assert caught.value.node == "/a/Floor_4"
    assert "value_info" in caught.value.hint
    assert [p.name for p in tmp_path.iterdir()] == ["source.onnx"]


def normal(*shape: int) -> Array:
    return np.random.default_rng(8).normal(0.3, 1, shape).astype(np.float32)


def assert_verifies(source: Path, output: Path, feeds: dict[str, Array]) -> None:
    np.savez(source.with_name("data.npz"), **feeds)
    check = pascalc.verify(source, output, source.with_name("data.npz"))
    assert check.equivalent, check.findings()
    session(onnx.load(output)).run(None, feeds)  # stock onnxruntime takes it
