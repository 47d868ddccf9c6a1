"""Activation forms: monotone operators before a quantiser become one neuron with it, exactly; and a test adds one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import pascalc
from pascalc import step_functions
from pascalc.errors import CompileError
from pascalc.step_functions import Monotone
from tests.helpers import constant, loaded, model_of, operators, run, up_to
from tests.test_quantisers import parameters, quant, saved
from tests.test_thresholds import assert_exact

Node = onnx.NodeProto
X = np.random.default_rng(0).normal(0, 3, (50, 3, 1)).astype(np.float32)


def chain(*nodes: Node, scale: Any = 0.11, bits: int = 3) -> onnx.ModelProto:
    """x of the shape [N, 3, 1] through the nodes, the last of which reads "a" and gives y by a quantiser q."""
    constants = [*parameters(scale=scale, bits=bits), constant("half", 0.5), constant("eight", 8)]
    model = model_of(list(nodes), {"x": ["N", 3, 1]}, {"y": ["N", 3, 1]}, constants)
    model.opset_import.append(helper.make_opsetid("qonnx.custom_op.general", 1))
    return model


def before_a_quantiser(op: str, **attributes: Any) -> onnx.ModelProto:
    form = helper.make_node(op, ["x"], ["a"], op.lower(), **attributes)
    return chain(form, quant(source="a"), scale=np.float32([0.11, 0.07, 0.13]).reshape(3, 1))


FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "HardSigmoid": ("HardSigmoid", {}),
    "HardSigmoid of PyTorch": ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}),
    "LeakyRelu": ("LeakyRelu", {"alpha": 0.1}),
    "ThresholdedRelu": ("ThresholdedRelu", {"alpha": 0.3}),
}


@pytest.mark.parametrize("form", FORMS)
def test_form_before_a_quantiser_is_one_exact_neuron(form: str) -> None:
    op, attributes = FORMS[form]
    source = before_a_quantiser(op, **attributes)
    assert_exact(source)
    assert operators(up_to(source, "recognise-qcfs")[0]) == ["MultiThreshold"]


def test_every_form_of_the_table_is_tested() -> None:
    assert {op for op, _ in FORMS.values()} == set(step_functions.MONOTONE)


def test_forms_before_a_floor_and_behind_one_another() -> None:
    """The bounds of HardSigmoid are those of the levels: nothing else bounds this Floor."""
    source = chain(
        helper.make_node("LeakyRelu", ["x"], ["l"], "leaky", alpha=0.5),
        helper.make_node("HardSigmoid", ["l"], ["h"], "hard"),
        helper.make_node("Mul", ["h", "eight"], ["m"], "mul"),
        helper.make_node("Add", ["m", "half"], ["s"], "add"),
        helper.make_node("Floor", ["s"], ["f"], "act/Floor"),
        helper.make_node("Div", ["f", "eight"], ["y"], "div"),
    )
    assert_exact(source)
    assert operators(up_to(source, "recognise-qcfs")[0]) == ["MultiThreshold"]


@pytest.mark.parametrize(
    ("op", "attributes"),
    [("LeakyRelu", {"alpha": -0.5}), ("Sigmoid", {}), ("Tanh", {}), ("HardSigmoid", {"alpha": 0.0})],
    ids=["falling", "Sigmoid", "Tanh", "constant"],
)
def test_what_is_not_monotone_to_the_last_bit_is_computed(op: str, attributes: dict[str, Any]) -> None:
    source = before_a_quantiser(op, **attributes)
    assert operators(up_to(source, "recognise-qcfs")[0]) == [op, "MultiThreshold"]


def test_a_form_that_others_use_stays_for_them() -> None:
    source = chain(
        helper.make_node("HardSigmoid", ["x"], ["a"], "hard"),
        quant(source="a", out="b", rounding_mode="FLOOR"),
        helper.make_node("Add", ["a", "b"], ["y"], "join"),
        scale=0.125,
    )
    model, _ = up_to(source, "recognise-qcfs")
    assert operators(model) == ["HardSigmoid", "MultiThreshold", "Add"]
    np.testing.assert_array_equal(run(model, {"x": X})[0], run(loaded(source), {"x": X})[0])


def test_a_form_is_added_by_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    source = before_a_quantiser("Sign")
    assert operators(up_to(source, "recognise-qcfs")[0]) == ["Sign", "MultiThreshold"]
    source = chain(helper.make_node("Sign", ["x"], ["a"], "sign"), quant(source="a"), scale=1.0, bits=1)
    monkeypatch.setitem(step_functions.MONOTONE, "Sign", Monotone(lambda node: True, -1, 1))
    model, _ = up_to(source, "recognise-qcfs")
    assert operators(model) == ["MultiThreshold"]
    assert_exact(source)


def network() -> onnx.ModelProto:
    """A HardSigmoid and a LeakyRelu, each before a quantiser, between convolutions."""
    rng = np.random.default_rng(3)
    constants = [
        constant("w", rng.normal(0, 0.5, (4, 2, 3, 3))),
        constant("v", rng.normal(0, 0.5, (4, 4, 3, 3))),
        constant("u", rng.normal(0, 0.5, (64, 3))),
        *parameters("first", 1 / 15, 4),
        *parameters("second", 0.3, 2),
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("HardSigmoid", ["a"], ["b"], "hard"),
        quant("first", "b", "c"),
        helper.make_node("Conv", ["c", "v"], ["d"], "conv2", pads=[1, 1, 1, 1]),
        helper.make_node("LeakyRelu", ["d"], ["e"], "leaky", alpha=0.1),
        quant("second", "e", "f"),
        helper.make_node("Flatten", ["f"], ["g"], "flatten"),
        helper.make_node("MatMul", ["g", "u"], ["y"], "classify"),
    ]
    model = model_of(nodes, {"x": ["N", 2, 4, 4]}, {"y": ["N", 3]}, constants)
    model.opset_import.append(helper.make_opsetid("qonnx.custom_op.general", 1))
    return model


@pytest.mark.parametrize("schedule", ["unrolled", "collapsed"])
def test_network_is_verified(schedule: str, tmp_path: Path) -> None:
    x = np.random.default_rng(1).normal(0, 1, (20, 2, 4, 4)).astype(np.float32)
    source, data = saved(network(), tmp_path, x)
    result = pascalc.compile(source, schedule=schedule)
    assert [(n.name, n.levels) for n in result.network.neurons] == [("first", 15), ("second", 3)]
    assert result.network.not_spiking == []
    assert not {"HardSigmoid", "LeakyRelu"} & {node.op_type for node in onnx.load(result.output).graph.node}
    for given in (data, None):
        check = pascalc.verify(source, result.output, given)
        assert check.equivalent, check.findings()
    given = run(onnx.load(result.output), {"x": x})[0]
    assert np.ptp(given) > 0


def test_levels_that_are_not_evenly_spaced_stay_as_they_are(tmp_path: Path) -> None:
    source, _ = saved(network(), tmp_path, np.zeros((1, 2, 4, 4), np.float32))
    for options in ({"levels": {"first": 3}}, {"neuron": "if", "steps": 15}):
        with pytest.raises(
            CompileError, match=r"its levels are not evenly spaced.*\(node 'first'\)\. Leave it out of the plan"
        ):
            pascalc.compile(source, tmp_path / "no.onnx", **options)
    assert pascalc.compile(source, levels={"second": 2}).network.neurons[1].levels == 2
