"""The operators of the project's domain: their bodies are valid ONNX and do what their documentation says."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import onnx
import pytest

from pascalc.ops import DOMAIN, DOMAIN_VERSION, MIN_OPSET, OPERATORS
from tests.helpers import Array, run

OPSETS = (MIN_OPSET, 18, onnx.defs.onnx_opset_version() - 1)
SHAPES = [(), (3,), (2, 3), (2, 1, 3), (2, 2, 2, 2)]


def one_node(operator: str, dtype: Any, sample: tuple[int, ...], opset: int = 18, **attributes: Any) -> onnx.ModelProto:
    """A model of one operator; the threshold, where it has one, is an input too: one value a channel, or a scalar."""
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    inputs = list(OPERATORS[operator].inputs)
    values = [onnx.helper.make_tensor_value_info("X", kind, ["rows", *sample])]
    by_channel = [size if axis == 0 else 1 for axis, size in enumerate(sample)]
    shapes: dict[str, Any] = {
        "matrix": ["a", "b"],
        "shares": ["t"],
        "thresholds": [attributes.get("levels", 1), 1, *by_channel],
    }
    values += [onnx.helper.make_tensor_value_info(name, kind, shapes.get(name, by_channel)) for name in inputs[1:]]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(operator, inputs, ["Y"], domain=DOMAIN, **attributes)],
        "one",
        values,
        [onnx.helper.make_tensor_value_info("Y", kind, ["out", *sample])],
    )
    opsets = [onnx.helper.make_opsetid("", opset), onnx.helper.make_opsetid(DOMAIN, DOMAIN_VERSION)]
    functions = [OPERATORS[operator].function(opset)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=functions)


#: What only readers of a file need: the level that an IF neuron stands for, what the rows of a matrix mean.
UNUSED: dict[str, set[str]] = {
    "IF": {"levels"},
    "Retime": {"steps_out", "weighting"},
    "MultiThreshold": {"phi"},
    "MultiThresholdIF": {"levels", "steps_out", "phi"},
}
ATTRIBUTES: dict[str, dict[str, Any]] = {
    "QCFS": {"levels": 4, "phi": 0.5, "label": "a"},
    "PascIF": {"levels": 4, "phi": 0.5, "label": "a", "steps_in": 1, "steps_out": 4},
    "MultiThreshold": {"levels": 4, "phi": 0.5, "label": "a"},
    "MultiThresholdIF": {"levels": 4, "phi": 0.5, "label": "a", "steps_in": 1, "steps_out": 4},
    "Accumulate": {"steps": 3},
    "Align": {"steps_in": 1, "steps_out": 3},
    "Spread": {"steps": 3},
    "Hold": {"steps": 3},
    "Retime": {"steps_in": 2, "steps_out": 3, "weighting": "unit"},
    "Bias": {"steps": 3},
    "IF": {"levels": 4, "steps_in": 3, "steps_out": 3, "phi": 0.5, "label": "act"},
}


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("name", OPERATORS)
def test_body_is_valid_and_uses_what_is_declared(name: str, opset: int) -> None:
    operator = OPERATORS[name]
    function = operator.function(opset)
    assert (function.domain, function.name) == (DOMAIN, name)
    assert list(function.attribute) == [a.name for a in operator.attributes]
    used = set(re.findall(r"@(\w+)", operator.body))
    # a label is for people; a shape tells Align, Spread and Hold the rest
    assert used == {a.name for a in operator.attributes} - {"label"} - UNUSED.get(name, set())
    onnx.checker.check_model(one_node(name, np.float32, (2,), opset, **ATTRIBUTES[name]), full_check=True)


@pytest.mark.parametrize("name", OPERATORS)
def test_everything_is_documented(name: str) -> None:
    operator = OPERATORS[name]
    assert operator.name == name
    assert operator.doc.endswith(".")
    for text in (*operator.inputs.values(), *operator.outputs.values(), *(a.doc for a in operator.attributes)):
        assert text


def train(steps: int, batch: int, sample: tuple[int, ...], dtype: Any) -> Array:
    """Multiples of 1/4: their sums are exact."""
    return np.asarray(np.random.default_rng(steps).integers(-8, 9, (steps * batch, *sample)) / 4, dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sample", SHAPES)
@pytest.mark.parametrize("batch", [1, 2])
def test_time_operators(batch: int, sample: tuple[int, ...], dtype: Any) -> None:
    x = train(4, batch, sample, dtype)

    (total,) = run(one_node("Accumulate", dtype, sample, steps=4), {"X": x})
    np.testing.assert_array_equal(total, x.reshape(4, batch, *sample).sum(0), strict=True)

    (longer,) = run(one_node("Align", dtype, sample, steps_in=4, steps_out=7), {"X": x})
    zeros = np.zeros((3 * batch, *sample), dtype)
    np.testing.assert_array_equal(longer, np.concatenate([x, zeros]), strict=True)

    (current,) = run(one_node("Spread", dtype, sample, steps=8), {"X": x})
    np.testing.assert_array_equal(current, np.concatenate([x / 8] * 8).astype(dtype), strict=True)

    (held,) = run(one_node("Hold", dtype, sample, steps=3), {"X": x})
    np.testing.assert_array_equal(held, np.concatenate([x] * 3), strict=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sample", SHAPES)
@pytest.mark.parametrize("batch", [1, 2])
def test_time_operators_of_any_weighting(batch: int, sample: tuple[int, ...], dtype: Any) -> None:
    x = train(4, batch, sample, dtype)
    matrix = np.asarray([[8, 4, 2, 1], [0, 0, 0, 0], [0, 1, 0, -1]], dtype)
    retime = one_node("Retime", dtype, sample, steps_in=4, steps_out=3, weighting="")
    (mixed,) = run(retime, {"X": x, "matrix": matrix})
    expected = np.tensordot(matrix, x.reshape(4, batch, *sample), axes=1).reshape(3 * batch, *sample)
    np.testing.assert_array_equal(mixed, expected, strict=True)

    constant = (
        np.arange(sample[0] if sample else 1).reshape([-1] + [1] * (len(sample) - 1) if sample else []).astype(dtype)
    )
    shares = np.asarray([0, 0.5, 2, -1], dtype)
    (shifted,) = run(one_node("Bias", dtype, sample, steps=4), {"X": x, "constant": constant, "shares": shares})
    expected = x.reshape(4, batch, *sample) + shares.reshape(-1, *[1] * (1 + len(sample))) * constant
    np.testing.assert_array_equal(shifted, expected.reshape(x.shape), strict=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("steps_in", [1, 2, 8])
@pytest.mark.parametrize("levels", [1, 2, 4, 16])
@pytest.mark.parametrize("phi", [0.5, 0.0])
def test_neuron_emits_the_level_of_qcfs_as_a_thermometer(phi: float, levels: int, steps_in: int, dtype: Any) -> None:
    """On a grid of exact sums, half points included: the train's sum is QCFS of the current's sum, bit for bit."""
    sample, theta = (2, 3), np.asarray([[2], [4]], dtype)
    x = train(steps_in, 50, sample, dtype)
    attributes = {"levels": levels, "phi": phi, "label": "a"}
    pasc = one_node("PascIF", dtype, sample, steps_in=steps_in, steps_out=levels, **attributes)
    (spikes,) = run(pasc, {"X": x, "threshold": theta})
    total = x.reshape(steps_in, 50, *sample).sum(0)
    (level,) = run(one_node("QCFS", dtype, sample, **attributes), {"X": total, "threshold": theta})

    unit = theta / levels
    np.testing.assert_array_equal(level, np.clip(np.floor(total / unit + phi), 0, levels) * unit, strict=True)
    by_step = spikes.reshape(levels, 50, *sample)
    np.testing.assert_array_equal(by_step.sum(0), level, strict=True)
    assert np.all(by_step[:-1] >= by_step[1:])
    assert np.all((by_step == 0) | (by_step == unit))
    assert 0 < np.count_nonzero(by_step) < by_step.size


def test_train_longer_than_the_levels_is_silent_at_the_end() -> None:
    pasc = one_node("PascIF", np.float32, (), levels=2, phi=0.5, label="a", steps_in=1, steps_out=2)
    (spikes,) = run(pasc, {"X": np.float32([100, -100]), "threshold": np.ones((), np.float32)})
    np.testing.assert_array_equal(spikes, np.float32([0.5, 0, 0.5, 0]))
