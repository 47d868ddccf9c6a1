"""QCFS in every form that exporters and optimisers write, its near misses, and what is broken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx.helper
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pascalc.errors import CompileError
from pascalc.graph import Model
from pascalc.modelfile import to_bytes
from tests.helpers import Array, assert_same_outputs, constant, model_of, operators, parse, reasons, run, up_to

#: One step of a chain: an operator and its constants; an operator that ends in "<" takes its constant first.
Step = tuple[Any, ...]
EPS = float(np.finfo(np.float32).eps)


def f32(values: Any) -> Array:
    return np.asarray(values, np.float32)


#: Each form: the chain from the threshold t, the number of levels L and the shift p (float32 arithmetic, as an
#: optimiser does it).
FORMS: dict[str, Callable[[Array, Array, Array], list[Step]]] = {
    "clip, scale, floor": lambda t, L, p: [
        ("Div", t), ("Clip", 0, 1), ("Mul", L), ("Add", p), ("Floor",), ("Div", L), ("Mul", t),
    ],
    "scale, floor, clip": lambda t, L, p: [
        ("Div", t), ("Mul", L), ("Add", p), ("Floor",), ("Div", L), ("Clip", 0, 1), ("Mul", t),
    ],
    "scales merged": lambda t, L, p: [("Mul", L / t), ("Add", p), ("Floor",), ("Clip", 0, L), ("Mul", t / L)],
    "scales merged, constants first": lambda t, L, p: [
        ("Mul<", L / t), ("Add<", p), ("Floor",), ("Clip", 0, L), ("Mul<", t / L),
    ],
    "scale as a division": lambda t, L, p: [("Div", t / L), ("Add", p), ("Floor",), ("Clip", 0, L), ("Div", L / t)],
    "division as multiplication by the reciprocal": lambda t, L, p: [
        ("Mul", 1 / t), ("Clip", 0, 1), ("Mul", L), ("Add", p), ("Floor",), ("Mul", 1 / L), ("Mul", t),
    ],
    "shift before the scale": lambda t, L, p: [
        ("Add", p * t / L), ("Mul", L / t), ("Floor",), ("Clip", 0, L), ("Mul", t / L),
    ],
    "shift by subtraction": lambda t, L, p: [("Mul", L / t), ("Sub", -p), ("Floor",), ("Clip", 0, L), ("Mul", t / L)],
    "bounds behind the shift": lambda t, L, p: [
        ("Mul", L / t), ("Add", p), ("Clip", 0, L), ("Floor",), ("Mul", t / L),
    ],
    "upper bound behind the shift, shifted": lambda t, L, p: [
        ("Mul", L / t), ("Add", p), ("Clip", 0, L + p), ("Floor",), ("Mul", t / L),
    ],
    "bounds on the pre-activation": lambda t, L, p: [
        ("Max", 0), ("Min", t), ("Mul", L / t), ("Add", p), ("Floor",), ("Mul", t / L),
    ],
    "bounds at the end": lambda t, L, p: [
        ("Mul", L / t), ("Add", p), ("Floor",), ("Mul", t / L), ("Max", 0), ("Min", t),
    ],
    "Min and Max": lambda t, L, p: [
        ("Div", t), ("Max", 0), ("Min", 1), ("Mul", L), ("Add", p), ("Floor",), ("Div", L), ("Mul", t),
    ],
    "Min and Max, constants first": lambda t, L, p: [
        ("Div", t), ("Min<", 1), ("Max<", 0), ("Mul", L), ("Add", p), ("Floor",), ("Div", L), ("Mul", t),
    ],
    "Relu and Min": lambda t, L, p: [
        ("Div", t), ("Relu",), ("Min", 1), ("Mul", L), ("Add", p), ("Floor",), ("Div", L), ("Mul", t),
    ],
    "one bound before and one behind the Floor": lambda t, L, p: [
        ("Relu",), ("Mul", L / t), ("Add", p), ("Floor",), ("Min", L), ("Mul", t / L),
    ],
    "Clip in two halves": lambda t, L, p: [
        ("Clip", 0, None), ("Mul", L / t), ("Add", p), ("Floor",), ("Clip", None, L), ("Mul", t / L),
    ],
    "Identity between": lambda t, L, p: [
        ("Identity",), ("Mul", L / t), ("Identity",), ("Add", p),
        ("Floor",), ("Identity",), ("Clip", 0, L), ("Mul", t / L),
    ],
}  # fmt: skip


def chain(steps: list[Step], shape: tuple[int | str, ...]) -> onnx.ModelProto:
    """The steps one behind the other, from x to y; the Floor is named /act/Floor, further ones after their place."""
    nodes, constants, tensor = [], [], "x"
    for index, (operator, *values) in enumerate(steps):
        names = []
        for value in values:
            names.append("" if value is None else f"c{index}_{len(names)}")
            if value is not None:
                constants.append(constant(names[-1], value))
        out = "y" if index == len(steps) - 1 else f"t{index}"
        inputs = [*names, tensor] if operator.endswith("<") else [tensor, *names]
        floor = "/act/Floor" if all(node.op_type != "Floor" for node in nodes) else f"/act{index}/Floor"
        name = floor if operator == "Floor" else f"n{index}"
        nodes.append(onnx.helper.make_node(operator.rstrip("<"), inputs, [out], name=name))
        tensor = out
    return model_of(nodes, {"x": shape}, {"y": shape}, constants)


def probes(theta: Array, levels: int, phi: float, count: int) -> Array:
    """Pre-activations [count, channels]: random ones, the exact half points and their neighbours, and far ones."""
    rng = np.random.default_rng(levels)
    per_channel = []
    for t in np.atleast_1d(theta).astype(np.float64):
        steps = f32((np.arange(-1, levels + 2) - phi) * t / levels)
        near = [
            steps,
            np.nextafter(steps, f32(np.inf)),
            np.nextafter(steps, f32(-np.inf)),
            f32([-1e4, 1e4, 0]) * f32(t),
        ]
        values = np.concatenate(near)
        rest = rng.uniform(-0.5 * t, 1.5 * t, max(count - values.size, 0))
        per_channel.append(np.concatenate([values, f32(rest)])[:count])
    return np.stack(per_channel, axis=1)


def the_neuron(model: Model) -> Any:
    (node,) = (n for n in model.graph.nodes if n.op == "QCFS")
    return node


def assert_same_levels(source: onnx.ModelProto, model: Model, x: Array, theta: Array, levels: int, phi: float) -> None:
    """Source and result are at the same level, save where float32 rounding itself decides."""
    unit = theta.astype(np.float64) / levels
    expected = np.round(run(source, {"x": x})[0] / unit)
    actual = np.round(run(model, {"x": x})[0] / unit)
    u = np.clip(x / unit + phi, -1, levels + 1)
    decided_by_rounding = np.abs(u - np.round(u)) <= 4 * EPS * np.maximum(np.abs(u), 1)
    assert expected.max() == levels
    assert expected.min() == 0
    assert np.all((expected == actual) | (decided_by_rounding & (np.abs(expected - actual) == 1)))


@pytest.mark.parametrize("per_channel", [False, True], ids=["one threshold", "per channel"])
@pytest.mark.parametrize(
    ("form", "phi"),
    # without the half, t * (L/t) may fall short of L: test_level_lost_to_rounding_is_refused
    [(form, phi) for form in FORMS for phi in (0.5, 0.0) if (form, phi) != ("bounds on the pre-activation", 0.0)],
)
def test_form_is_recognised(form: str, per_channel: bool, phi: float) -> None:
    theta = f32([2.7, 0.31, 5.0]) if per_channel else f32(2.7)
    source = chain(FORMS[form](theta, f32(6), f32(phi)), ("N", 3))

    model, count = up_to(source, "recognise-qcfs")

    assert count == 1
    assert operators(model) == ["QCFS"]
    neuron = the_neuron(model)
    assert (neuron.attrs["levels"], neuron.attrs["phi"], neuron.attrs["label"]) == (6, phi, "act")
    np.testing.assert_allclose(neuron.inputs[1].values, theta, rtol=4 * EPS)
    x = np.broadcast_to(probes(theta, 6, phi, 10_000), (10_000, 3))
    assert_same_levels(source, model, x, theta, 6, phi)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    form=st.sampled_from(sorted(FORMS)),
    levels=st.integers(1, 255),
    thetas=st.lists(st.floats(-3, 3).map(lambda e: 10**e), min_size=2, max_size=2),
)
def test_any_level_and_threshold(form: str, levels: int, thetas: list[float]) -> None:
    theta = f32(thetas)
    source = chain(FORMS[form](theta, f32(levels), f32(0.5)), ("N", 2))

    model, _ = up_to(source, "recognise-qcfs")

    assert operators(model) == ["QCFS"]
    assert the_neuron(model).attrs["levels"] == levels
    assert_same_levels(source, model, probes(theta, levels, 0.5, 2_000), theta, levels, 0.5)


@settings(max_examples=250, deadline=None, derandomize=True)
@given(st.data())
def test_every_neuron_of_a_row_is_recognised(data: st.DataObject) -> None:
    usual = ["clip, scale, floor", "scale, floor, clip"]
    forms = data.draw(st.lists(st.sampled_from([*usual, *usual, *usual, *FORMS]), min_size=2, max_size=3))
    scales = st.sampled_from([0.5, 1.0, 1.0, 2.0, 4.0])
    steps: list[Step] = []
    for form in forms:
        theta = data.draw(scales | st.lists(scales, min_size=3, max_size=3))
        steps += FORMS[form](f32(theta), f32(data.draw(st.sampled_from([1, 2, 4, 4, 8]))), f32(0.5))
    source = chain(steps, ("N", 3))

    model, count = up_to(source, "recognise-qcfs")

    assert count == len(forms)
    assert {"Floor", "Clip", "Min", "Max", "Relu"}.isdisjoint(operators(model))
    assert_same_outputs(source, model, batch=500)


def test_a_row_of_different_levels_and_thresholds_keeps_the_order() -> None:
    first = FORMS["scale, floor, clip"](f32(1), f32(8), f32(0.5))
    second = FORMS["clip, scale, floor"](f32([1, 0.5, 2]), f32(2), f32(0.5))
    model, _ = up_to(chain([*first, *second, *second], ("N", 3)), "recognise-qcfs")
    assert [node.attrs["levels"] for node in model.graph.nodes] == [8, 2, 2]
    assert [node.inputs[1].values.tolist() for node in model.graph.nodes] == [1.0, [1, 0.5, 2], [1, 0.5, 2]]


def test_per_channel_threshold_loses_the_batch_axis() -> None:
    theta = f32([2.0, 4.0]).reshape(1, 2, 1, 1)
    source = chain(FORMS["clip, scale, floor"](theta, f32(4), f32(0.5)), ("N", 2, 3, 3))
    model, _ = up_to(source, "recognise-qcfs")
    assert the_neuron(model).inputs[1].shape == [2, 1, 1] or the_neuron(model).inputs[1].shape == (2, 1, 1)
    assert_same_outputs(source, model)


#: Straight-through estimators in ONNX text. Around the Floor and around the whole activation; the sum either way.
ESTIMATORS = {
    "around the Floor": """
        v = Add (levels, half)
        ["/act/Floor"] k = Floor (v)
        r = Sub (k, v)
        count = Add (r, v)
        normal = Div (count, L)
        y = Mul (normal, theta)""",
    "around the Floor, v first": """
        v = Add (levels, half)
        ["/act/Floor"] k = Floor (v)
        r = Sub (k, v)
        count = Add (v, r)
        normal = Div (count, L)
        y = Mul (normal, theta)""",
    "around floor(v)": """
        v = Add (levels, half)
        ["/act/Floor"] k = Floor (v)
        r = Sub (k, levels)
        count = Add (levels, r)
        normal = Div (count, L)
        y = Mul (normal, theta)""",
    "around the activation": """
        v = Add (levels, half)
        ["/act/Floor"] k = Floor (v)
        normal = Div (k, L)
        h = Mul (normal, theta)
        r = Sub (h, x)
        y = Add (r, x)""",
}


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_straight_through_estimator(estimator: str) -> None:
    source = parse(
        "network (float[N,1] x) => (float[N,1] y) <float theta = {2.5}, float L = {5}, float half = {0.5}, "
        "float zero = {0}, float one = {1}> {\n scaled = Div (x, theta)\n clipped = Clip (scaled, zero, one)\n"
        f"levels = Mul (clipped, L) {ESTIMATORS[estimator]}\n}}"
    )
    model, _ = up_to(source, "recognise-qcfs")
    assert operators(model) == ["QCFS"]
    assert_same_levels(source, model, probes(f32(2.5), 5, 0.5, 10_000), f32(2.5), 5, 0.5)


def test_bias_before_the_activation_stays() -> None:
    """A bias is no shift of QCFS, unless float32 cannot tell it from none beside the 1/2."""
    for bias in (0.25, 1e-5, [0.25, -0.5]):
        steps = [("Add", bias), *FORMS["clip, scale, floor"](f32(4), f32(4), f32(0.5))]
        source = chain(steps, ("N", 2))
        model, _ = up_to(source, "recognise-qcfs")
        assert operators(model) == ["Add", "QCFS"]
        assert_same_outputs(source, model)


def test_other_users_of_the_inside_keep_it() -> None:
    """The scaled pre-activation is an output too: the neuron is recognised, and the Div stays for it."""
    source = parse("""
        network (float[N,4] x) => (float[N,4] y, float[N,4] scaled)
        <float theta = {2}, float L = {4}, float half = {0.5}, float zero = {0}, float one = {1}> {
          scaled = Div (x, theta)
          clipped = Clip (scaled, zero, one)
          levels = Mul (clipped, L)
          shifted = Add (levels, half)
          count = Floor (shifted)
          normal = Div (count, L)
          y = Mul (normal, theta)
        }""")
    model, count = up_to(source, "recognise-qcfs")
    assert count == 1
    assert sorted(operators(model)) == ["Div", "QCFS"]
    assert_same_outputs(source, model)


#: Near misses, each with the reason that the user is told.
NEAR_MISSES: dict[str, tuple[list[Step], str]] = {
    "no upper bound": ([("Relu",), ("Add", 0.5), ("Floor",)], "nothing bounds it above"),
    "no lower bound": ([("Min", 4), ("Add", 0.5), ("Floor",)], "nothing bounds it below"),
    "levels from one": ([("Clip", 1, 4), ("Add", 0.5), ("Floor",)], "its lowest level is not zero"),
    "signed": ([("Clip", -4, 4), ("Add", 0.5), ("Floor",)], "its lowest level is not zero"),
    "shift by channel": (
        [("Clip", 0, 4), ("Add", [0.25, 0.5]), ("Floor",)],
        "the shift before the Floor is not one number",
    ),
    "levels by channel": (
        [("Mul", 2), ("Max", 0), ("Min", [2, 4]), ("Add", 0.5), ("Floor",)],
        "its channels have different numbers of levels",
    ),
    "too many levels": ([("Clip", 0, 300), ("Add", 0.5), ("Floor",)], "300 levels, more than 255"),
    "constant divided by it": ([("Clip", 0, 4), ("Add", 0.5), ("Div<", 1), ("Floor",)], "nothing bounds it below"),
}


@pytest.mark.parametrize("case", NEAR_MISSES)
def test_near_miss_is_refused_with_its_reason(case: str) -> None:
    steps, reason = NEAR_MISSES[case]
    source = chain(steps, ("N", 2))
    model, count = up_to(source, "recognise-qcfs")
    assert count == 0
    assert [note.node for note in model.notes] == ["/act/Floor"]
    (told,) = reasons(model, "recognise-qcfs")
    assert reason in told
    assert operators(model) == [node.op_type for node in source.graph.node]


def test_offset_behind_the_floor_is_left_behind_the_neuron() -> None:
    """min(max(k, 0), 4) + 1 is QCFS and then an addition."""
    source = chain([("Add", 0.5), ("Floor",), ("Clip", 0, 4), ("Add", 1)], ("N", 2))
    model, _ = up_to(source, "recognise-qcfs")
    assert operators(model) == ["QCFS", "Add"]
    assert_same_outputs(source, model)


def test_constant_that_enlarges_the_tensor_stays_outside() -> None:
    """[N, 1] / [3] is [N, 3]: the neuron has three thresholds only behind the division."""
    steps = FORMS["clip, scale, floor"](f32([2, 4, 8]), f32(4), f32(0.5))
    source = chain(steps, ("N", 1))
    del source.graph.output[:]
    source.graph.output.append(onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 3]))
    model, _ = up_to(source, "recognise-qcfs")
    assert "QCFS" in operators(model)
    assert_same_outputs(source, model)


def test_constant_by_sample_is_no_threshold() -> None:
    """A batch of exactly two with a constant for each sample: only the scalar part is the neuron."""
    theta = f32([[2], [4]])
    source = chain(FORMS["clip, scale, floor"](theta, f32(4), f32(0.5)), (2, 2))
    model, _ = up_to(source, "recognise-qcfs")
    assert_same_outputs(source, model)


#: Parameters that are no QCFS although the form is; the error names the Floor.
BROKEN: dict[str, tuple[list[Step], str]] = {
    "one channel's threshold is negative": (
        FORMS["clip, scale, floor"](f32([2, -1]), f32(4), f32(0.5)),
        "its threshold is zero, negative or NaN",
    ),
    "half a level": (FORMS["scale, floor, clip"](f32(2), f32(3.5), f32(0.5)), "3.5, is not an integer"),
    "no level": ([("Clip", 0, 0), ("Add", 0.5), ("Floor",)], "no level above zero"),
}  # fmt: skip


@pytest.mark.parametrize("theta", [0.0, -1.0, np.nan])
@pytest.mark.parametrize("form", FORMS)
def test_broken_threshold_in_any_form(form: str, theta: float) -> None:
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = FORMS[form](f32([2, theta]), f32(4), f32(0.5))
    with pytest.raises(CompileError, match=r"zero, negative or NaN|a bound is NaN") as caught:
        up_to(chain(steps, ("N", 2)), "recognise-qcfs")
    assert caught.value.node == "/act/Floor"
    assert "initial threshold" in caught.value.hint


@pytest.mark.parametrize("case", BROKEN)
def test_broken_parameters_are_an_error_that_names_the_node(case: str) -> None:
    steps, message = BROKEN[case]
    with pytest.raises(CompileError) as caught:
        up_to(chain(steps, ("N", 2)), "recognise-qcfs")
    assert caught.value.node == "/act/Floor"
    assert message in str(caught.value)
    assert caught.value.hint


def test_negative_scale_of_a_neighbour_is_no_threshold() -> None:
    """A scale of -2 before the neuron, and theta/L merged into what follows: valid, the neuron starts behind it."""
    source = chain([("Mul", -2), ("Mul", 2), ("Add", 0.5), ("Floor",), ("Clip", 0, 4), ("Mul", 3)], ("N", 2))
    model, count = up_to(source, "recognise-qcfs")
    assert count == 1
    assert_same_outputs(source, model)


def test_level_lost_to_rounding_is_refused() -> None:
    """Without a shift by 1/2, min(z, t) * (L/t) may round to just below L: the source never reaches level L."""
    t, L = f32(0.7), f32(5)
    gain = np.nextafter(L / t, f32(0))
    assert np.floor(t * gain) == 4  # the case is what it says
    source = chain([("Max", 0), ("Min", t), ("Mul", gain), ("Floor",), ("Mul", t / L)], ("N", 2))
    model, count = up_to(source, "recognise-qcfs")
    assert count == 0
    assert "rounding keeps its highest level at 4" in reasons(model, "recognise-qcfs")[0]


def explicit(
    threshold: Any, levels: Any = 4, phi: Any = 0.5, shape: tuple[int | str, ...] = ("N", 2, 4, 4)
) -> onnx.ModelProto:
    node = onnx.helper.make_node(
        "QCFS", ["x", "theta"], ["y"], name="/act/QCFS", domain="ai.pascalc", levels=levels, phi=phi, label="act"
    )
    return model_of([node], {"x": shape}, {"y": shape}, [constant("theta", threshold)])


@pytest.mark.parametrize(
    ("threshold", "wanted"),
    [
        (2, ()),
        ([2], ()),
        ([[[[2]]]], ()),
        (np.full((1, 2, 1, 1), 2), (2, 1, 1)),
        (np.full((2, 1, 1), 2), (2, 1, 1)),
        (np.full((4, 4), 2), (4, 4)),
    ],
)
def test_explicit_threshold_is_brought_to_one_shape(threshold: Any, wanted: tuple[int, ...]) -> None:
    source = explicit(threshold)
    model, _ = up_to(source, "recognise-qcfs")
    assert the_neuron(model).inputs[1].values.shape == wanted
    assert_same_outputs(source, model)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"threshold": 0}, "zero, negative or NaN"),
        ({"threshold": [2, np.nan, 1, 1]}, "zero, negative or NaN"),
        ({"threshold": np.ones((2, 2, 4, 4))}, "does not broadcast against one sample"),
        ({"threshold": np.ones(3)}, "does not broadcast against one sample"),
        ({"threshold": np.ones(0)}, "does not broadcast against one sample"),
        ({"threshold": 1, "levels": 0}, "levels of QCFS must be an integer from 1 to 255"),
        ({"threshold": 1, "levels": 256}, "levels of QCFS must be an integer from 1 to 255"),
        ({"threshold": 1, "levels": 2.5}, "levels of QCFS must be an integer from 1 to 255"),
        ({"threshold": 1, "phi": 1.0}, r"phi of QCFS must be in \[0, 1\)"),
        ({"threshold": 1, "phi": -0.5}, r"phi of QCFS must be in \[0, 1\)"),
    ],
)
def test_explicit_with_bad_parameters(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(CompileError, match=message) as caught:
        up_to(explicit(**arguments), "recognise-qcfs")
    assert caught.value.node == "/act/QCFS"


def test_explicit_with_a_computed_threshold() -> None:
    source = explicit(1)
    del source.graph.initializer[:]
    source.graph.input.append(onnx.helper.make_tensor_value_info("theta", onnx.TensorProto.FLOAT, []))
    with pytest.raises(CompileError, match="must be an initializer"):
        up_to(source, "recognise-qcfs")


def test_labels_are_unique() -> None:
    """Two neurons of one scope: reports tell them apart by their labels."""
    nodes = [
        onnx.helper.make_node(
            "QCFS", [a, "theta"], [b], name="/act/QCFS", domain="ai.pascalc", levels=4, phi=0.5, label="act"
        )
        for a, b in (("x", "h"), ("h", "y"))
    ]
    model, count = up_to(model_of(nodes, {"x": ["N", 2]}, {"y": ["N", 2]}, [constant("theta", 1)]), "recognise-qcfs")
    assert count == 2
    assert [n.attrs["label"] for n in model.graph.nodes] == ["act", "act_2"]


@pytest.mark.parametrize(("kind", "name"), [(10, "float16"), (16, "bfloat16")])
def test_half_precision_behind_a_cast_is_refused(kind: int, name: str) -> None:
    """As files of mixed precision have it: the inputs and outputs are float32."""
    source = parse(f"""
        network (float[N,2] x) => (float[N,2] y) <{name} theta = {{2}}> {{
          half = Cast <to = {kind}> (x)
          h = ai.pascalc.QCFS <levels = 4, phi = 0.5, label = "act"> (half, theta)
          y = Cast <to = 1> (h)
        }}""")
    with pytest.raises(CompileError, match=f"computes in {name}") as caught:
        up_to(source, "recognise-qcfs")
    assert caught.value.node == "act"


def test_compiled_network_is_refused() -> None:
    compiled, _ = up_to(explicit(2), "unroll-time")
    with pytest.raises(CompileError, match="it is a spiking network already"):
        up_to(onnx.load_from_string(to_bytes(compiled)), "recognise-qcfs")
