"""Networks from the quantisation world: QONNX files, and QuantizeLinear with DequantizeLinear."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

import pascalc
from pascalc import step_functions
from pascalc.activations import theta
from pascalc.cli import main
from pascalc.errors import CompileError
from tests.helpers import Array, compiled, constant, loaded, model_of, operators, parse, reasons, run, up_to

QONNX = "qonnx.custom_op.general"
MODES = {
    "ROUND": np.round,
    "HALF_EVEN": np.round,
    "floor": np.floor,
    "CEIL": np.ceil,
    "DOWN": np.trunc,
    "UP": lambda x: np.sign(x) * np.ceil(np.abs(x)),
    "HALF_UP": lambda x: np.sign(x) * np.floor(np.abs(x) + np.float32(0.5)),
    "HALF_DOWN": lambda x: np.sign(x) * np.ceil(np.abs(x) - np.float32(0.5)),
}


def quant(
    name: str = "q", source: str = "x", out: str = "y", op: str = "Quant", domain: str = QONNX, **attributes: Any
) -> onnx.NodeProto:
    """A node with the scale ``<name>.scale``, the zero point ``<name>.zero`` and ``<name>.bits``."""
    inputs = [source, f"{name}.scale", f"{name}.zero", f"{name}.bits"]
    attributes = {"signed": 0, "narrow": 0, "rounding_mode": "ROUND", **attributes}
    return helper.make_node(op, inputs, [out], name=name, domain=domain, **attributes)


def parameters(name: str = "q", scale: Any = 0.5, bits: Any = 4, zero: Any = 0) -> list[onnx.TensorProto]:
    return [constant(f"{name}.{key}", value) for key, value in (("scale", scale), ("zero", zero), ("bits", bits))]


def one_quant(node: onnx.NodeProto, constants: list[onnx.TensorProto], opset: int = 18) -> onnx.ModelProto:
    model = model_of([node], {"x": ["N", 2, 3]}, {"y": ["N", 2, 3]}, constants, opset)
    model.opset_import.append(helper.make_opsetid(node.domain, 1))
    return model


def expected(x: Array, scale: Any, bits: float, zero: float, signed: int, narrow: int, mode: str) -> Array:
    """QONNX's definition of Quant."""
    high = 2 ** (bits - 1) - 1 if signed else 2**bits - 1 - narrow
    low = -(2 ** (bits - 1)) + narrow if signed else 0
    value = np.clip(x / np.float32(scale) + np.float32(zero), np.float32(low), np.float32(high))
    return np.asarray((MODES[mode](value) - np.float32(zero)) * np.float32(scale), np.float32)


X = (np.arange(-30, 30, dtype=np.float32) / 4).reshape(10, 2, 3)  # half points among them


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("signed", "narrow"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_quant_is_what_qonnx_defines(mode: str, signed: int, narrow: int) -> None:
    for scale, bits, zero in [(0.5, 3, 0), (np.float32([[0.5], [0.3]]), 4, 0), (0.7, 3, 2), (0.25, 2.5, 0)]:
        node = quant(signed=signed, narrow=narrow, rounding_mode=mode)
        model = loaded(one_quant(node, parameters(scale=scale, bits=bits, zero=zero)))
        assert model.rewritten
        np.testing.assert_array_equal(run(model, {"x": X})[0], expected(X, scale, bits, zero, signed, narrow, mode))


@pytest.mark.parametrize("domain", [QONNX, "onnx.brevitas"])
def test_bipolar(domain: str) -> None:
    of_one_bit = one_quant(quant(signed=1, narrow=1, domain=domain), parameters(bits=1, scale=0.5))
    node = helper.make_node("BipolarQuant", ["x", "q.scale"], ["y"], name="q", domain=domain)
    bipolar = one_quant(node, parameters(scale=0.5)[:1])
    for model in (of_one_bit, bipolar):
        np.testing.assert_array_equal(run(loaded(model), {"x": X})[0], np.where(X >= 0, 0.5, -0.5).astype(np.float32))


@pytest.mark.parametrize("opset", [9, 11, 18])
def test_old_opsets_and_missing_imports(opset: int) -> None:
    model = one_quant(quant(op="IntQuant"), parameters(), opset)
    del model.opset_import[-1]
    np.testing.assert_array_equal(run(loaded(model), {"x": X})[0], expected(X, 0.5, 4, 0, 0, 0, "ROUND"))


def test_default_attributes() -> None:
    node = quant()
    del node.attribute[:]
    np.testing.assert_array_equal(
        run(loaded(one_quant(node, parameters())), {"x": X})[0], expected(X, 0.5, 4, 0, 1, 1, "ROUND")
    )


def test_bad_quantisers_are_told() -> None:
    computed = one_quant(quant(), parameters()[:2])
    computed.graph.node.insert(0, helper.make_node("ReduceSum", ["x"], ["q.bits"], keepdims=0))
    short = quant()
    del short.input[3]
    cases = [
        (one_quant(quant(rounding_mode="NEAREST"), parameters()), "the rounding mode NEAREST of Quant is not known"),
        (computed, "the bit width of Quant is computed"),
        (one_quant(short, parameters()), "Quant needs 4 inputs"),
    ]
    for model, message in cases:
        with pytest.raises(CompileError, match=message):
            loaded(model)


@pytest.mark.parametrize("schedule", ["unrolled", "collapsed"])
@pytest.mark.parametrize("mode", ["ROUND", "FLOOR", "DOWN", "HALF_UP", "HALF_DOWN"])
def test_unsigned_quant_becomes_a_neuron(mode: str, schedule: str, tmp_path: Path) -> None:
    scale = np.float32([0.3, 0.11])[:, None]
    node = quant(rounding_mode=mode, narrow=int(mode == "FLOOR"))
    model, count = up_to(one_quant(node, parameters(scale=scale, bits=3)), "recognise-qcfs")
    assert count == 1
    exact = mode in ("ROUND", "HALF_DOWN")  # what rounds otherwise than a Floor has its own thresholds
    assert operators(model) == ["MultiThreshold" if exact else "QCFS"]
    attributes = model.graph.nodes[0].attrs
    assert attributes["levels"] == (6 if mode == "FLOOR" else 7)
    assert attributes["phi"] == (0.0 if mode in ("FLOOR", "DOWN") else 0.5)
    assert attributes["label"] == "q"
    np.testing.assert_allclose(theta(model.graph.nodes[0]), attributes["levels"] * scale, rtol=1e-6)
    assert not model.notes


@pytest.mark.parametrize(
    ("node", "bits", "zero", "why"),
    [
        (quant(signed=1), 4, 0, "its lowest level is not zero"),
        (quant(signed=1), 1, 0, None),
        (quant(rounding_mode="CEIL"), 4, 0, "the shift before the Floor"),
        (quant(), 9, 0, "it has 511 levels, more than 255"),
        (quant(narrow=1), 1, 0, "it has no level above zero"),
    ],
)
def test_other_quantisers_are_computed(node: onnx.NodeProto, bits: int, zero: int, why: str | None) -> None:
    source = one_quant(node, parameters(bits=bits, zero=zero))
    model, count = up_to(source, "recognise-qcfs")
    assert count == 0
    if why is not None:
        (reason,) = reasons(model, "recognise-qcfs")
        assert any(part in reason for part in why.split("|")), reason
    np.testing.assert_array_equal(run(model, {"x": X})[0], run(loaded(source), {"x": X})[0])


def test_zero_point_is_left_behind_the_neuron() -> None:
    source = one_quant(quant(), parameters(scale=0.3, zero=3))
    model, count = up_to(source, "recognise-qcfs")
    assert count == 1
    assert operators(model) == ["Div", "Add", "MultiThreshold", "Sub", "Mul"]
    x = X + np.float32(0.01)
    for result in (model, compiled(source)):
        np.testing.assert_allclose(run(result, {"x": x})[0], run(loaded(source), {"x": x})[0], rtol=1e-6, atol=1e-6)


def qonnx_network(scale: float = 0.37, domain: str = QONNX) -> onnx.ModelProto:
    """Weights of 3 bits, activations of 4 and 2 bits, a signed activation between, a residual join; as Brevitas
    exports them."""
    rng = np.random.default_rng(5)
    constants = [
        constant("w", rng.normal(0, 0.5, (4, 2, 3, 3))),
        constant("v", rng.normal(0, 0.5, (4, 4, 3, 3))),
        constant("u", rng.normal(0, 0.5, (64, 3))),
        *parameters("weights", np.full((4, 1, 1, 1), 0.2), 3),
        *parameters("first", scale, 4),
        *parameters("second", 1.9 * scale, 2),
        *parameters("between", 0.05, 8),
    ]
    nodes = [
        quant("weights", "w", "w_q", signed=1, narrow=1, domain=domain),
        helper.make_node("Conv", ["x", "w_q"], ["a"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        quant("first", "b", "c", domain=domain),
        helper.make_node("Conv", ["c", "v"], ["d"], "conv2", pads=[1, 1, 1, 1]),
        quant("between", "d", "e", op="IntQuant", signed=1, domain=domain),
        helper.make_node("Add", ["e", "c"], ["f"], "add"),
        quant("second", "f", "g", domain=domain),
        helper.make_node("Flatten", ["g"], ["h"], "flatten"),
        helper.make_node("MatMul", ["h", "u"], ["y"], "classify"),
    ]
    model = model_of(nodes, {"x": ["N", 2, 4, 4]}, {"y": ["N", 3]}, constants)
    model.opset_import.append(helper.make_opsetid(domain, 1))
    return model


def saved(model: onnx.ModelProto, folder: Path, x: Array) -> tuple[Path, Path]:
    onnx.save(model, folder / "source.onnx")
    np.savez(folder / "data.npz", x=x)
    return folder / "source.onnx", folder / "data.npz"


@pytest.mark.parametrize("schedule", ["unrolled", "collapsed"])
@pytest.mark.parametrize("domain", [QONNX, "onnx.brevitas"])
def test_qonnx_network_is_verified(schedule: str, domain: str, tmp_path: Path) -> None:
    x = np.random.default_rng(1).normal(0, 1, (20, 2, 4, 4)).astype(np.float32)
    source, data = saved(qonnx_network(domain=domain), tmp_path, x)
    result = pascalc.compile(source, schedule=schedule)
    assert [(n.name, n.levels) for n in result.network.neurons] == [("first", 15), ("second", 3)]
    if schedule == "unrolled":
        assert any("between/" in line for line in result.network.not_spiking)
    check = pascalc.verify(source, result.output, data)
    assert check.equivalent, check.findings()
    assert check.max_abs_output_diff < 1e-4
    rates = pascalc.evaluate(source, data).layers
    assert [layer.spike_rate for layer in rates] == [
        pytest.approx(layer.spike_rate) for layer in pascalc.evaluate(result.output, data).layers
    ]


@pytest.mark.parametrize("schedule", ["unrolled", "collapsed"])
def test_half_points_are_exact(schedule: str, tmp_path: Path) -> None:
    """On a grid where half of all values lie half way between two levels."""
    source, data = saved(one_quant(quant(), parameters(scale=0.5)), tmp_path, X)
    result = pascalc.compile(source, schedule=schedule)
    assert not [n.reason for n in result.notes if n.warning]
    check = pascalc.verify(source, result.output, data)
    assert check.equivalent
    (layer,) = check.layers
    assert layer.half_points == layer.root_mismatches == layer.count_mismatches == 0


def test_half_points_are_counted_and_are_no_bug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the same grid, where there are too many thresholds to write them down."""
    monkeypatch.setattr(step_functions, "_MOST", 0)
    source, data = saved(one_quant(quant(), parameters(scale=0.5)), tmp_path, X)
    result = pascalc.compile(source)
    assert [n.reason for n in result.notes if n.warning] == [
        "Round may round down a value half way between two levels, which a spiking neuron rounds up"
    ]
    check = pascalc.verify(source, result.output, data)
    assert check.equivalent
    (layer,) = check.layers
    halves = np.count_nonzero(np.isin(X / 0.5, np.arange(0, 15, 2) + 0.5))
    assert layer.half_points == layer.root_mismatches == halves > 0


def test_command_line_warns(tmp_path: Path) -> None:
    source = tmp_path / "source.onnx"
    onnx.save(one_quant(quant(), parameters(bits=8)), source)
    lines = CliRunner().invoke(main, ["compile", str(source)]).output.splitlines()
    assert lines[2:] == [
        "Warning: trains of up to 255 time steps; levels of 4 bits and fewer need at most 15: q",
    ]
    onnx.save(one_quant(quant(rounding_mode="HALF_UP"), parameters()), source)
    assert "Warning" not in CliRunner().invoke(main, ["compile", str(source)]).output


# --- QuantizeLinear and DequantizeLinear ------------------------------------------------------------------------------


def qdq(
    constants: str, before: str = "", dtype: str = "uint8", tail: str = "", attributes: str = ""
) -> onnx.ModelProto:
    """x through ``before`` (x to a) and a quantiser of the scale s and the zero point z."""
    return parse(
        f"""<ir_version: 10, opset_import: ["": 21]>
        network (float[N,2,3] x) => (float[N,2,3] y) <{constants}> {{
          {before or "a = Identity (x)"}
          [act_QuantizeLinear] q = QuantizeLinear {attributes} (a, s, z)
          {tail or f"y = DequantizeLinear {attributes} (q, s, z)"}
        }}"""
    )


@pytest.mark.parametrize(
    ("source", "levels", "height"),
    [
        (qdq("float s = {0.25}, uint8 z = {0}"), 255, 255 * 0.25),
        (qdq("float s = {0.25}, uint4 z = {0}"), 15, 3.75),
        (qdq("float s = {0.25}, int8 z = {0}", "a = Relu (x)"), 127, 127 / 4),
        (qdq("float s = {0.25}, uint8 z = {100}", "a = Relu (x)"), 155, 155 / 4),
        (qdq("float s = {0.25}, uint8 z = {0}, float l = {0}, float h = {2.05}", "a = Clip (x, l, h)"), 8, 2.0),
        (qdq("float[2] s = {0.25, 0.5}, uint8[2] z = {0, 0}", attributes="<axis = 1>"), 255, [[63.75], [127.5]]),
        (
            qdq("float[3] s = {0.25, 0.5, 1}, uint8[3] z = {0, 0, 0}", attributes="<axis = -1>"),
            255,
            [63.75, 127.5, 255],
        ),
        (
            qdq(
                "float s = {0.25}, uint8 z = {0}",
                tail="b = DequantizeLinear (q, s, z)  c = DequantizeLinear (q, s, z)  d = Neg (c)  e = Neg (d)"
                " f = Max (b, e)  y = Identity (f)",
            ),
            255,
            63.75,
        ),
    ],
    ids=["uint8", "uint4", "int8 behind Relu", "zero point behind Relu", "Clip", "axis 1", "last axis", "two users"],
)
def test_unsigned_qdq_becomes_a_neuron(source: onnx.ModelProto, levels: int, height: Any) -> None:
    model, count = up_to(source, "recognise-qcfs")
    assert count == 1
    (node,) = (n for n in model.graph.nodes if n.op == "MultiThreshold")
    assert (node.attrs["levels"], node.attrs["phi"], node.attrs["label"]) == (levels, 0.5, "act")
    np.testing.assert_array_equal(theta(node), np.float32(height))
    assert not {"QuantizeLinear", "DequantizeLinear"} & set(operators(model))
    for result in (model, compiled(source)):
        np.testing.assert_array_equal(run(result, {"x": X})[0], run(source, {"x": X})[0])


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (qdq("float s = {0.25}, int8 z = {0}"), "its lowest level is not zero"),
        (qdq("float s = {0.25}, uint8 z = {128}"), "its lowest level is not zero"),
        (qdq("float s = {0.25}, uint16 z = {0}"), "it has 65535 levels, more than 255"),
        (
            qdq("float s = {0.25}, uint8 z = {0}", tail="b = Cast <to = 1> (q)  y = Mul (b, s)"),
            "its integers are used",
        ),
        (
            qdq(
                "float s = {0.25}, float t = {0.5}, uint8 z = {0}",
                tail="b = DequantizeLinear (q, s, z)  c = DequantizeLinear (q, t, z)  y = Add (b, c)",
            ),
            "its integers are used in several ways",
        ),
    ],
    ids=["signed", "zero point", "uint16", "integers used", "two scales"],
)
def test_other_qdq_are_computed(source: onnx.ModelProto, why: str) -> None:
    model, count = up_to(source, "recognise-qcfs")
    assert count == 0
    assert why in reasons(model, "recognise-qcfs")[0]
    np.testing.assert_array_equal(run(model, {"x": X})[0], run(source, {"x": X})[0])


def test_bound_half_way_between_two_levels_is_no_number_of_levels() -> None:
    """8.5 levels are 8, half to even, but 9 for a QCFS: the Clip stays."""
    source = qdq("float s = {0.25}, uint8 z = {0}, float l = {0}, float h = {2.125}", "a = Clip (x, l, h)")
    model, count = up_to(source, "recognise-qcfs")
    assert count == 1
    assert operators(model) == ["Clip", "MultiThreshold"]


def test_scale_that_is_not_positive_is_refused() -> None:
    with pytest.raises(CompileError, match="the scale of its quantiser is zero, negative or NaN"):
        up_to(qdq("float s = {0}, uint8 z = {0}"), "recognise-qcfs")


def relu_network() -> onnx.ModelProto:
    """A small residual CNN with ReLUs."""
    rng = np.random.default_rng(3)
    weights = {"w": (6, 2, 3, 3), "v": (6, 6, 3, 3), "u": (96, 5)}
    constants = [constant(name, rng.normal(0, 0.3, shape)) for name, shape in weights.items()]
    constants += [constant("b", rng.normal(0, 0.1, 6)), constant("c", rng.normal(0, 0.1, 6))]
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["conv1"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv1"], ["relu1"], "relu1"),
        helper.make_node("Conv", ["relu1", "v", "c"], ["conv2"], "conv2", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["conv2", "relu1"], ["sum"], "add"),
        helper.make_node("Relu", ["sum"], ["relu2"], "relu2"),
        helper.make_node("MaxPool", ["relu2"], ["pool"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["pool"], ["flat"], "flatten"),
        helper.make_node("MatMul", ["flat", "u"], ["y"], "classify"),
    ]
    model = model_of(nodes, {"x": ["N", 2, 8, 8]}, {"y": ["N", 5]}, constants)
    del model.opset_import[1:]
    return model


class Calibration(CalibrationDataReader):
    def __init__(self, x: Array) -> None:
        self.batches: Iterator[dict[str, Array]] = iter([{"x": x}])

    def get_next(self) -> dict[str, Array] | None:  # type: ignore[override]
        return next(self.batches, None)


@pytest.mark.parametrize("schedule", ["unrolled", "collapsed"])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("activations", [QuantType.QUInt8, QuantType.QInt8])
def test_model_of_onnxruntimes_static_quantiser(
    activations: QuantType, per_channel: bool, schedule: str, tmp_path: Path
) -> None:
    rng = np.random.default_rng(4)
    onnx.save(relu_network(), tmp_path / "float.onnx")
    symmetric = {"ActivationSymmetric": activations == QuantType.QInt8}
    quantize_static(
        tmp_path / "float.onnx",
        tmp_path / "source.onnx",
        Calibration(rng.normal(0, 1, (32, 2, 8, 8)).astype(np.float32)),
        quant_format=QuantFormat.QDQ,
        activation_type=activations,
        weight_type=QuantType.QInt8,
        per_channel=per_channel,
        extra_options=symmetric,
    )
    model = onnx.load(tmp_path / "source.onnx")
    assert any(n.op_type == "QuantizeLinear" for n in model.graph.node)
    source, data = saved(model, tmp_path, rng.normal(0, 1, (6, 2, 8, 8)).astype(np.float32))
    result = pascalc.compile(source, schedule=schedule)
    assert len(result.network.neurons) >= 2
    assert {n.levels for n in result.network.neurons} == {255 if activations == QuantType.QUInt8 else 127}
    check = pascalc.verify(source, result.output, data)
    assert check.equivalent, check.findings()


def test_types_of_tensors_are_floats_or_integers() -> None:
    """A file that declares its weights and biases as integers has float weights behind fold-constants."""
    source = parse(
        """<ir_version: 10, opset_import: ["": 21]>
        network (float[N,2] x) => (float[N,3] y) <
          int8[2,3] w = {1, 2, 3, -4, 5, -6}, float[3] ws = {0.5, 0.25, 1}, int8[3] wz = {0, 0, 0},
          int32[3] b = {100, -50, 7}, float[3] bs = {0.125, 0.0625, 0.25}, int32[3] bz = {0, 0, 0},
          float s = {0.25}, uint8 z = {0}> {
          wf = DequantizeLinear <axis = 1> (w, ws, wz)
          bf = DequantizeLinear <axis = 0> (b, bs, bz)
          q = QuantizeLinear (x, s, z)
          a = DequantizeLinear (q, s, z)
          y = Gemm (a, wf, bf)
        }"""
    )
    model = compiled(source)
    assert operators(model) == ["MultiThresholdIF", "Gemm", "Bias", "Accumulate"]
    x = np.float32([[0.3, 1.6], [10.1, -3], [99, 0.6]])
    np.testing.assert_allclose(run(model, {"x": x})[0], run(source, {"x": x})[0], rtol=1e-5)
    assert model.graph.nodes[1].inputs[1].values.dtype == np.float32
    assert model.interface_outputs[0].type.tensor_type.elem_type == TensorProto.FLOAT
