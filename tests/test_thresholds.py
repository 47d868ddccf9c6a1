"""Activations whose thresholds are given one by one: quantisers that round half to even are exact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import pascalc
from pascalc.activations import has_thresholds
from pascalc.cli import main
from pascalc.errors import CompileError
from pascalc.ops import DOMAIN, OPERATORS
from pascalc.passes import COLLAPSED, UNROLLED
from pascalc.runtime import InferenceSession, reference_ops
from pascalc.runtime.kernels.multi_threshold import multi_threshold, multi_threshold_if, multi_threshold_if_staged
from tests.helpers import Array, compiled, constant, loaded, model_of, operators, run, session, up_to
from tests.test_quantisers import one_quant, parameters, qonnx_network, quant, saved

SLOW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def around(thresholds: Array) -> Array:
    """Every threshold with the float below it and the float above it."""
    below, above = (np.nextafter(thresholds, np.asarray(to, thresholds.dtype)) for to in (-np.inf, np.inf))
    return np.concatenate([below, thresholds, above])


def assert_exact(source: onnx.ModelProto, schedules: Any = (UNROLLED, COLLAPSED)) -> None:
    """The one activation of the source, of x of the shape [N, C, 1], has in the compiled network the source's levels at
    every threshold and at the floats beside it, and no threshold could be another float."""
    model, count = up_to(source, "recognise-qcfs")
    assert count == 1
    (node,) = (n for n in model.graph.nodes if has_thresholds(n))
    tau = np.asarray(node.inputs[1].values)[:, 0]
    levels, dtype = len(tau), tau.dtype
    assert np.all(tau[1:] >= tau[:-1])
    x = around(np.broadcast_to(tau, (levels, *(int(d) for d in model.graph.inputs[0].shape[1:]))))
    wanted = run(loaded(source), {"x": x}, optimised=False)[0]
    for passes in schedules:
        given = run(compiled(source, passes), {"x": x})[0]
        if passes is COLLAPSED or levels == 1:
            np.testing.assert_array_equal(given, wanted, strict=True)
        np.testing.assert_allclose(given, wanted, rtol=levels * np.finfo(dtype).eps)  # a sum of L spikes rounds
    below, at, _ = np.split(np.rint(wanted / np.asarray(node.inputs[2].values)).astype(int), 3)
    level = np.arange(1, levels + 1).reshape(-1, 1, 1)
    assert np.all(at >= level)
    assert np.all(below < level)


def three_channels(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same for x of the shape [N, 3, 1]."""
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[1].dim_value = 3
        value.type.tensor_type.shape.dim[2].dim_value = 1
    return model


scales = st.one_of(st.floats(2.0**-10, 2.0**6, width=32), st.integers(-8, 4).map(lambda k: 2.0**k))
per_channel = st.one_of(scales, st.lists(scales, min_size=3, max_size=3).map(lambda s: np.float32(s).reshape(3, 1)))


@SLOW
@given(
    scale=per_channel, bits=st.integers(1, 8), narrow=st.integers(0, 1), mode=st.sampled_from(["ROUND", "HALF_DOWN"])
)
def test_quant_of_qonnx(scale: Any, bits: int, narrow: int, mode: str) -> None:
    if bits == narrow == 1:
        return
    node = quant(narrow=narrow, rounding_mode=mode)
    assert_exact(three_channels(one_quant(node, parameters(scale=scale, bits=bits))))


@SLOW
@given(
    scale=st.one_of(scales, st.lists(scales, min_size=3, max_size=3)),
    zero=st.integers(0, 120),
    kind=st.sampled_from([np.uint8, np.int8]),
)
def test_quantise_dequantise(scale: Any, zero: int, kind: Any) -> None:
    """Behind a Relu, with any zero point: the levels below it are out of reach."""
    zeros = np.full(np.shape(scale), zero, kind)
    constants = [constant("s", scale), numpy_helper.from_array(zeros, "z")]
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], "relu"),
        helper.make_node("QuantizeLinear", ["a", "s", "z"], ["q"], "act_QuantizeLinear", axis=1),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], "act_DequantizeLinear", axis=1),
    ]
    assert_exact(model_of(nodes, {"x": ["N", 3, 1]}, {"y": ["N", 3, 1]}, constants))


@SLOW
@given(scale=st.floats(2.0**-10, 2.0**6), levels=st.integers(1, 20))
def test_rounding_in_float64(scale: float, levels: int) -> None:
    constants = [numpy_helper.from_array(np.float64(v), n) for n, v in (("s", scale), ("lo", 0), ("hi", levels))]
    nodes = [
        helper.make_node("Div", ["x", "s"], ["a"], "div"),
        helper.make_node("Round", ["a"], ["b"], "act/Round"),
        helper.make_node("Clip", ["b", "lo", "hi"], ["c"], "clip"),
        helper.make_node("Mul", ["c", "s"], ["y"], "mul"),
    ]
    model = model_of(nodes, {"x": ["N", 2, 3]}, {"y": ["N", 2, 3]}, constants)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    assert_exact(model)


# --- the operators ----------------------------------------------------------------------------------------------------


def neuron_model(name: str, thresholds: Array, unit: Array, **attributes: Any) -> bytes:
    """A network of one such neuron, X to Y."""
    kind = helper.np_dtype_to_tensor_dtype(thresholds.dtype)
    node = helper.make_node(name, ["X", "thresholds", "unit"], ["Y"], domain=DOMAIN, label="a", **attributes)
    values = [helper.make_tensor_value_info(n, kind, None) for n in ("X", "Y")]
    constants = [numpy_helper.from_array(v, n) for n, v in (("thresholds", thresholds), ("unit", unit))]
    graph = helper.make_graph([node], "one", values[:1], values[1:], constants)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, 1)]
    functions = [OPERATORS[name].function(18)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=functions).SerializeToString()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("levels", [1, 3, 15, 255])
@pytest.mark.parametrize(
    ("sample", "channels"), [((3, 2, 2), (3, 1, 1)), ((3, 2, 2), (1, 1, 1)), ((), ()), ((4,), (4,))]
)
@pytest.mark.parametrize("steps_in", [0, 1, 3])
def test_every_executor_gives_the_same_bits(
    steps_in: int, sample: tuple[int, ...], channels: tuple[int, ...], levels: int, dtype: Any
) -> None:
    """``steps_in`` 0: the activation; currents on thresholds, beside them, cancelling, infinite and NaN."""
    rng = np.random.default_rng(levels)
    tau = np.sort(rng.normal(0, 1, (levels, 1, *channels)).astype(dtype), axis=0)
    if levels > 3:
        tau[0], tau[4], tau[-1] = -np.inf, tau[3], np.inf  # levels that nothing or everything reaches, or in one leap
    unit = rng.random(channels).astype(dtype)
    x = around(rng.choice(tau.reshape(-1), (5 * max(1, steps_in), *sample)))
    with np.errstate(over="ignore"):
        x[-2:] *= 2.0**60
    x.flat[:5] = [np.nan, np.inf, -np.inf, 0.0, -0.0]
    attributes: dict[str, Any] = {"levels": levels, "phi": 0.5}
    if steps_in:
        attributes |= {"steps_in": steps_in, "steps_out": levels}
    model = neuron_model("MultiThresholdIF" if steps_in else "MultiThreshold", tau, unit, **attributes)
    expected = session(model).run(None, {"X": x})[0]
    total = x
    with np.errstate(all="ignore"):
        for step in range(steps_in):
            part = x.reshape(steps_in, -1, *sample)[step]
            total = total + part if step else part
        counts = (total >= tau).sum(axis=0)
    spikes = counts >= np.arange(1, levels + 1).reshape(-1, *[1] * counts.ndim) if steps_in else counts
    by_hand = (spikes.astype(dtype) * unit).reshape(-1, *sample)
    np.testing.assert_array_equal(expected, by_hand, strict=True)
    with np.errstate(all="ignore"):
        body = ReferenceEvaluator(onnx.load_from_string(model)).run(None, {"X": x})[0]
        kernels = [multi_threshold_if, multi_threshold_if_staged] if steps_in else [multi_threshold]
        found = [body, *(kernel(x, tau, unit, **attributes) for kernel in kernels)]
        for staged in (False, True):
            ops = reference_ops(staged=staged)
            found += ReferenceEvaluator(onnx.load_from_string(model), new_ops=ops).run(None, {"X": x})
            if dtype == np.float32:
                found += InferenceSession(model, "numpy", staged=staged).run(None, {"X": x})
    for y in found:
        train = y[0] if isinstance(y, tuple) else y
        assert train.tobytes() == expected.tobytes()
        assert train.shape == expected.shape


def test_staged_neurons_take_back_what_came_too_early() -> None:
    """Currents that go up and down again: spikes that were counted are taken back, and what is sent is the level."""
    tau = np.float32([[0.5], [1.5], [2.5]])
    x = np.float32([3, -2, np.nan, 1, 1, 0])  # three steps of two neurons
    train, events = multi_threshold_if_staged(x, tau, np.float32(1), levels=3, steps_in=3, steps_out=3, phi=0.5)
    np.testing.assert_array_equal(train.reshape(3, 2).sum(axis=0), [0, 0])
    assert (events.neurons, events.emitted) == (2, 0)
    assert events.excitatory == events.inhibitory == 1


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"x": np.zeros(2)}, "must be float32"),
        ({"levels": 2}, "steps_out must be levels"),
        ({"tau": np.zeros((3, 2), np.float32)}, "are not 3 for samples"),
        ({"unit": np.zeros(2, np.float32), "x": np.zeros((3, 3), np.float32)}, r"unit \[2\] does not broadcast"),
        ({"x": np.zeros(4, np.float32)}, "does not hold 3 time steps"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], why: str) -> None:
    given = {"x": np.zeros(3, np.float32), "tau": np.zeros((3, 1), np.float32), "unit": np.float32(1), "levels": 3}
    given |= change
    if given["x"].ndim == 2 and "tau" not in change:
        given["tau"] = np.zeros((3, 1, 1), np.float32)
    x, tau, unit = (np.asarray(given[name]) for name in ("x", "tau", "unit"))
    with pytest.raises(ValueError, match=why):
        multi_threshold_if(x, tau, unit, levels=given["levels"], steps_in=3, steps_out=3, phi=0.5)


# --- whole networks ---------------------------------------------------------------------------------------------------


def grid_network(scale: float = 0.5) -> onnx.ModelProto:
    """Weights, scales and inputs on a grid of powers of two: every sum is exact, and half of them are half points. A
    MaxPool stands before the second activation, and the scales of the first are one a channel."""
    rng = np.random.default_rng(7)
    constants = [
        constant("w", rng.integers(-4, 5, (4, 2, 3, 3)) / 4),
        constant("v", rng.integers(-4, 5, (3, 4, 3, 3)) / 4),
        constant("u", rng.integers(-4, 5, (12, 3)) / 4),
        *parameters("first", np.float32([0.5, 1, 0.25, 0.5]).reshape(4, 1, 1), 3),
        *parameters("second", scale, 4),
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "conv1", pads=[1, 1, 1, 1]),
        quant("first", "a", "b"),
        helper.make_node("Conv", ["b", "v"], ["c"], "conv2", pads=[1, 1, 1, 1]),
        helper.make_node("MaxPool", ["c"], ["d"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        quant("second", "d", "e"),
        helper.make_node("Flatten", ["e"], ["f"], "flatten"),
        helper.make_node("MatMul", ["f", "u"], ["y"], "classify"),
    ]
    model = model_of(nodes, {"x": ["N", 2, 4, 4]}, {"y": ["N", 3]}, constants)
    model.opset_import.append(helper.make_opsetid("qonnx.custom_op.general", 1))
    return model


GRID = (np.random.default_rng(2).integers(-16, 17, (40, 2, 4, 4)) / 4).astype(np.float32)


@pytest.mark.parametrize("schedule", ["unrolled", "collapsed"])
def test_no_count_differs_on_a_grid(schedule: str, tmp_path: Path) -> None:
    source, data = saved(grid_network(), tmp_path, GRID)
    result = pascalc.compile(source, schedule=schedule)
    assert not [n for n in result.notes if n.warning]
    kind = "MultiThresholdIF" if schedule == "unrolled" else "MultiThreshold"
    emitted = [n.op_type for n in onnx.load(result.output).graph.node]
    assert emitted.count(kind) == 2
    assert emitted.index("MaxPool") > len(emitted) - 1 - emitted[::-1].index(kind)  # it moved behind the neuron
    check = pascalc.verify(source, result.output, data)
    assert check.equivalent, check.findings()
    assert [(x.root_mismatches, x.half_points, x.count_mismatches) for x in check.layers] == [(0, 0, 0)] * 2
    assert check.max_abs_output_diff == 0


def test_the_same_network_without_thresholds_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail: there are half points, and PascIF rounds them up."""
    monkeypatch.setattr("pascalc.step_functions._MOST", 0)
    source, data = saved(grid_network(), tmp_path, GRID)
    check = pascalc.verify(source, pascalc.compile(source).output, data)
    assert sum(x.half_points for x in check.layers) > 40


@pytest.mark.parametrize("schedule", ["unrolled", "collapsed"])
def test_a_threshold_that_is_off_by_one_float_is_found(schedule: str, tmp_path: Path) -> None:
    source, _ = saved(grid_network(), tmp_path, GRID)
    output = pascalc.compile(source, schedule=schedule).output
    assert pascalc.verify(source, output).equivalent
    for name, place in (("first/thresholds", (4, 0, 2, 0, 0)), ("second/thresholds", (0, 0, 0, 0, 0))):
        model = onnx.load(output)
        (tensor,) = (t for t in model.graph.initializer if t.name == name)
        values = numpy_helper.to_array(tensor).copy()
        values[place] = np.nextafter(values[place], np.float32(np.inf))
        tensor.CopyFrom(numpy_helper.from_array(values, name))
        onnx.save(model, tmp_path / "off.onnx")
        check = pascalc.verify(source, tmp_path / "off.onnx")
        assert not check.equivalent
        label = name.partition("/")[0]
        assert f"{label}: its threshold of level {place[0] + 1} is not the source's" in check.findings()


def test_another_unit_and_another_form_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, _ = saved(grid_network(), tmp_path, GRID)
    output = pascalc.compile(source).output
    model = onnx.load(output)
    (tensor,) = (t for t in model.graph.initializer if t.name == "second/unit")
    tensor.CopyFrom(numpy_helper.from_array(np.nextafter(numpy_helper.to_array(tensor), np.float32(1)), tensor.name))
    onnx.save(model, tmp_path / "off.onnx")
    assert (
        "second: the height of its spikes is not the source's"
        in pascalc.verify(source, tmp_path / "off.onnx").findings()
    )
    with monkeypatch.context() as patch:
        patch.setattr("pascalc.step_functions._MOST", 0)
        old = pascalc.compile(source, tmp_path / "old.onnx").output
    found = pascalc.verify(source, old).findings()
    assert "first: the source's thresholds are given one by one, and it has one theta for all levels" in found


@pytest.mark.parametrize("schedule", ["unrolled", "collapsed"])
def test_other_levels_are_those_of_qcfs(schedule: str, tmp_path: Path) -> None:
    """A plan gives one activation other levels; the other keeps its thresholds."""
    source, data = saved(qonnx_network(), tmp_path, GRID[:8])
    result = pascalc.compile(source, levels={"first": 4}, schedule=schedule)
    kinds = [n.op_type for n in onnx.load(result.output).graph.node if n.domain == DOMAIN]
    wanted = ["PascIF", "MultiThresholdIF"] if schedule == "unrolled" else ["QCFS", "MultiThreshold"]
    assert [kind for kind in kinds if kind in (*wanted,)] == wanted
    check = pascalc.verify(source, result.output, data)
    assert check.equivalent, check.findings()
    assert check.requantised == {"first": (15, 4)}


@pytest.mark.parametrize(
    "options", [["--al-clusters", "2"], ["--al-budget", "1%"], ["--al-clusters", "2", "--correct"]]
)
def test_plans_go_on_working(options: list[str], tmp_path: Path) -> None:
    source, data = saved(qonnx_network(), tmp_path, GRID[:20])
    ann, output = tmp_path / "ann.onnx", tmp_path / "out.onnx"
    files = [str(source), "-o", str(output), "--calib", str(data), "--save-ann", str(ann)]
    result = CliRunner().invoke(main, ["compile", *files, *options])
    assert result.exit_code == 0, result.output
    assert pascalc.verify(ann, output, data).equivalent


def biased_network() -> onnx.ModelProto:
    """The network on a grid with a bias in front of the second activation, and behind it."""
    model = grid_network()
    model.graph.node[2].input.append("bias")
    model.graph.node[-1].op_type = "Gemm"
    model.graph.node[-1].input.append("last_bias")
    model.graph.initializer.extend([constant("bias", [0.25, 0.5, -0.75]), constant("last_bias", [0.25, -1, 3])])
    return model


@pytest.mark.parametrize("schedule", ["unrolled", "collapsed"])
def test_biases_do_not_move_a_count(schedule: str, tmp_path: Path) -> None:
    """Seven shares of a bias do not add up to it, so it comes whole, in the first step."""
    source, data = saved(biased_network(), tmp_path, GRID)
    output = pascalc.compile(source, schedule=schedule).output
    biases = [n for n in onnx.load(output).graph.node if n.op_type == "Bias"]
    assert [n.output[0] for n in biases] == (["c", "y/train"] if schedule == "unrolled" else [])
    for file in (data, None):
        check = pascalc.verify(source, output, file)
        assert check.equivalent, check.findings()
        assert [(x.root_mismatches, x.half_points, x.count_mismatches) for x in check.layers] == [(0, 0, 0)] * 2
    assert pascalc.verify(source, output, data).max_abs_output_diff == 0
    assert [layer.name for layer in pascalc.report(output, data).layers] == ["conv1", "conv2", "classify"]


@pytest.mark.parametrize(("part", "place"), [("c/bias", 1), ("c/shares", 0), ("c/shares", 3)])
def test_a_bias_that_is_dealt_out_wrongly_is_found(part: str, place: int, tmp_path: Path) -> None:
    source, data = saved(biased_network(), tmp_path, GRID)
    model = onnx.load(pascalc.compile(source).output)
    (tensor,) = (t for t in model.graph.initializer if t.name == part)
    values = numpy_helper.to_array(tensor).copy()
    values.flat[place] += 0.25
    tensor.CopyFrom(numpy_helper.from_array(values, part))
    onnx.save(model, tmp_path / "off.onnx")
    for file in (data, None):
        assert not pascalc.verify(source, tmp_path / "off.onnx", file).equivalent


@pytest.mark.parametrize(
    ("bias", "bits", "taken_out"),
    [
        ([0.25, 0.5, -0.75], 3, True),
        ([7, 3.5, -0.875], 3, False),  # sevenths are exact
        ([0, 0, 0], 3, False),
        ([0.25, 0.5, -0.75], 1, False),  # one step
        ([1, np.inf, 0], 3, False),  # no step can do without infinity
        ([1e-45, 0, 0], 3, True),  # the share is too small for a float
    ],
)
def test_what_can_be_divided_is_divided(bias: list[float], bits: int, taken_out: bool) -> None:
    model = biased_network()
    for tensor in model.graph.initializer:
        if tensor.name in ("bias", "last_bias", "first.bits"):
            tensor.CopyFrom(constant(tensor.name, bits if tensor.name == "first.bits" else bias))
    found = [node.outputs[0].name for node in compiled(model).graph.nodes if node.op == "Bias"]
    assert ("c" in found) == taken_out


def test_biases_of_networks_of_any_size_are_divided() -> None:
    """Whole biases take the sizes of a sample."""
    model = biased_network()
    del model.graph.node[-2:]
    model.graph.output[0].name = "e"
    for value, channels in ((model.graph.input[0], 2), (model.graph.output[0], 3)):
        value.CopyFrom(helper.make_tensor_value_info(value.name, onnx.TensorProto.FLOAT, ["N", channels, "H", "W"]))
    assert operators(compiled(model)).count("Bias") == 0
    for size in (4, 6):
        x = np.resize(GRID, (8, 2, size, size))
        np.testing.assert_allclose(run(compiled(model), {"x": x})[0], run(loaded(model), {"x": x})[0], atol=0.5)


def test_networks_of_qcfs_divide_all_biases() -> None:
    model = biased_network()
    for tensor in model.graph.initializer:
        if tensor.name.endswith(".bits"):
            tensor.CopyFrom(constant(tensor.name, 3))
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "rounding_mode":
                attribute.s = b"FLOOR"
    found = operators(compiled(model))
    assert found.count("PascIF") == 2
    assert "Bias" not in found


@st.composite
def quantised_networks(draw: Any) -> onnx.ModelProto:
    """Convolutions, joins, pools, constants and quantisers, unsigned and signed, on a grid of quarters; what every
    quantiser gives is an output."""
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []
    outputs: list[str] = []

    def quarters(*shape: int) -> str:
        constants.append(constant(f"c{len(constants)}", rng.integers(-6, 7, shape) / 4))
        return constants[-1].name

    def node(op: str, *inputs: str, **attributes: Any) -> str:
        name = f"n{len(nodes)}"
        nodes.append(helper.make_node(op, list(inputs), [name], f"{name}/{op}", **attributes))
        return name

    def quantiser(x: str, *, signed: int) -> str:
        name = f"n{len(nodes)}"
        scale = np.float32(2.0 ** rng.integers(-2, 1, draw(st.sampled_from([(), (3, 1, 1)]))))
        constants.extend(parameters(name, scale, draw(st.integers(1 + signed, 4))))
        nodes.append(quant(name, x, name, signed=signed))
        outputs.append(name)
        return name

    def conv(x: str) -> str:
        return node("Conv", x, quarters(3, 3, 3, 3), quarters(3), pads=[1, 1, 1, 1])

    known = [quantiser(conv("x"), signed=0)]
    for _ in range(draw(st.integers(1, 4))):
        x, other = (draw(st.sampled_from(known)) for _ in range(2))
        kind = draw(st.sampled_from(["conv", "add", "sub", "pool", "concat", "signed", "input"]))
        if kind == "conv":
            y = conv(x)
        elif kind == "add":
            y = node("Add", conv(x), conv(other))
        elif kind == "sub":
            y = node("Sub", quarters(3, 1, 1), node("Add", x, other))
        elif kind == "pool":
            y = node("MaxPool", conv(x), kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        elif kind == "concat":
            joined = node("Concat", x, other, "x", axis=1)
            y = node("Conv", joined, quarters(3, 9, 1, 1), quarters(3))
        elif kind == "signed":
            y = node("Add", quantiser(conv(x), signed=1), other)
        else:
            y = node("Add", conv("x"), x)
        known.append(quantiser(y, signed=0))
    flat = node("Flatten", known[-1])
    outputs.append(node("Gemm", flat, quarters(48, 4), quarters(4)))
    shapes = {name: ["N", 3, 4, 4] for name in outputs} | {outputs[-1]: ["N", 4]}
    return model_of(nodes, {"x": ["N", 3, 4, 4]}, shapes, constants)


@SLOW
@given(source=quantised_networks(), seed=st.integers(0, 9))
def test_no_count_differs_in_random_networks_on_a_grid(source: onnx.ModelProto, seed: int) -> None:
    x = {"x": (np.random.default_rng(seed).integers(-8, 9, (6, 3, 4, 4)) / 4).astype(np.float32)}
    wanted = run(loaded(source), x, optimised=False)
    for passes in (UNROLLED, COLLAPSED):
        model = compiled(source, passes)
        assert any(has_thresholds(node) for node in model.graph.nodes)
        for found, expected in zip(run(model, x), wanted, strict=True):
            np.testing.assert_array_equal(found, expected, strict=True)


def test_margins_are_distances_from_the_threshold(tmp_path: Path) -> None:
    """Spikes of the height 0.3 do not add up to multiples of it exactly, so that currents on a threshold may be moved
    across it, and no others."""
    model = grid_network(0.6)
    for tensor in model.graph.initializer:
        if tensor.name == "first.scale":
            tensor.CopyFrom(constant(tensor.name, 0.3))
        if tensor.name == "v":
            tensor.CopyFrom(constant(tensor.name, np.sign(numpy_helper.to_array(tensor))))
    source, data = saved(model, tmp_path, GRID)
    check = pascalc.verify(source, pascalc.compile(source).output, data)
    assert check.equivalent, check.findings()
    first, second = check.layers
    assert first.root_mismatches == 0
    assert second.root_mismatches > second.half_points > 0
    assert len({root.margin for root in check.roots}) > 1
    assert all(root.margin <= root.bound < 1e-4 for root in check.roots)


def test_a_lossy_model_stands_for_the_nearest_qcfs(tmp_path: Path) -> None:
    source, data = saved(grid_network(), tmp_path, GRID)
    result = pascalc.compile(source, neuron="if", steps=8)
    check = pascalc.verify(source, result.output, data)
    assert check.translated, check.findings()
    assert check.lossy


@pytest.mark.parametrize("schedule", ["unrolled", "collapsed"])
def test_inspect_eval_and_report_know_them(schedule: str, tmp_path: Path) -> None:
    source, data = saved(grid_network(), tmp_path, GRID)
    result = pascalc.compile(source, schedule=schedule)
    assert [n.theta for n in pascalc.inspect(result.output).neurons] == [[1.75, 7.0], 7.5]
    rates = [pascalc.evaluate(path, data).layers[0].spike_rate for path in (source, result.output)]
    assert rates[0] == pytest.approx(rates[1]) != 0
    trace = InferenceSession(result.output).trace({"x": GRID})
    levels = {name: t.sum(axis=0) if schedule == "unrolled" else t for name, t in trace.items()}
    assert levels["first"].max() == 7
    assert pascalc.report(result.output, data)


def test_explicit_thresholds_in_a_source(tmp_path: Path) -> None:
    """What --save-ann writes is a source again; its thresholds are checked."""
    source, data = saved(grid_network(), tmp_path, GRID)
    pascalc.compile(source, save_ann=tmp_path / "ann.onnx")
    result = pascalc.compile(tmp_path / "ann.onnx", tmp_path / "again.onnx")
    assert pascalc.verify(source, result.output, data).equivalent
    assert pascalc.verify(tmp_path / "ann.onnx", result.output, data).equivalent


@pytest.mark.parametrize(
    ("tau", "unit", "why"),
    [
        (np.float32([2, 1, 3]).reshape(3, 1, 1), 1, "the thresholds of MultiThreshold do not ascend"),
        (np.float32([1, np.nan, 3]).reshape(3, 1, 1), 1, "the thresholds of MultiThreshold do not ascend"),
        (np.float32([1, 2]).reshape(2, 1, 1), 1, "not one row for each of 3 levels"),
        (np.float32([1, 2, 3]), 1, "not one row for each of 3 levels"),
        (np.ones((3, 1, 5), np.float32), 1, "not one row for each of 3 levels"),
        (np.ones((3, 1, 1), np.float32), 0, "the unit of MultiThreshold is zero, negative or NaN"),
        (np.ones((3, 1, 1), np.float32), [1, 2, 3], r"the unit of MultiThreshold has the shape \[3\]"),
    ],
)
def test_bad_explicit_thresholds_are_refused(tau: Array, unit: Any, why: str) -> None:
    node = helper.make_node("MultiThreshold", ["x", "tau", "unit"], ["y"], domain=DOMAIN, levels=3, label="a")
    constants = [numpy_helper.from_array(tau, "tau"), constant("unit", unit)]
    with pytest.raises(CompileError, match=why):
        compiled(model_of([node], {"x": ["N", 2]}, {"y": ["N", 2]}, constants))


def test_operators_of_both_schedules() -> None:
    assert "MultiThresholdIF" in operators(compiled(grid_network(), UNROLLED))
    assert "MultiThreshold" in operators(compiled(grid_network(), COLLAPSED))
