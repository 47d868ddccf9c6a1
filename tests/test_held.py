"""Products of two computed tensors: one stays a train, the other is held, and their sum over time is the product."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import pascalc
from pascalc.ops import OPERATORS
from tests.helpers import run
from tests.small_networks import Array, attention_network, gated_network, images, tokens, write

NETWORKS = {"gates": gated_network, "attention": attention_network}
DATA = {"gates": ("image", images), "attention": ("x", tokens)}


def given(name: str, folder: Path, count: int = 12, *, grid: bool = False) -> dict[str, Array]:
    """Data for a network, also as data.npz."""
    tensor, make = DATA[name]
    feeds = {tensor: make(count, grid=grid)}
    np.savez(folder / "data.npz", **feeds)
    return feeds


@pytest.mark.parametrize("name", NETWORKS)
def test_on_a_grid_products_of_trains_are_exact(name: str, tmp_path: Path) -> None:
    network = NETWORKS[name](grid=True)
    source, feeds = write(network, tmp_path / "source.onnx"), given(name, tmp_path, grid=True)
    result = pascalc.compile(source, tmp_path / "out.onnx")
    assert result.network.not_spiking == []
    compiled = onnx.load(tmp_path / "out.onnx")
    held = [node for node in compiled.graph.node if node.op_type == "Hold"]
    assert len(held) == 2
    assert all(neuron.steps_in > 1 for neuron in result.network.neurons[1:])
    (expected,), (got,) = run(network, feeds), run(compiled, feeds)
    np.testing.assert_array_equal(got, expected, strict=True)
    assert np.ptp(got, axis=0).min() > 0
    for file in (tmp_path / "data.npz", None):
        verified = pascalc.verify(source, tmp_path / "out.onnx", file)
        assert verified.equivalent, verified.findings()
        assert sum(layer.root_mismatches for layer in verified.layers) == 0
    assert all(x.spike_rate for x in pascalc.evaluate(source, tmp_path / "data.npz").layers)


@pytest.mark.parametrize("schedule", ["unrolled", "collapsed"])
@pytest.mark.parametrize("name", NETWORKS)
def test_with_any_weights_they_are_equivalent(name: str, schedule: str, tmp_path: Path) -> None:
    source = write(NETWORKS[name](), tmp_path / "source.onnx")
    given(name, tmp_path)
    result = pascalc.compile(source, schedule=schedule)
    for file in (tmp_path / "data.npz", None):
        verified = pascalc.verify(source, result.output, file)
        assert verified.equivalent, verified.findings()


def emitted(name: str, folder: Path) -> tuple[Path, onnx.ModelProto]:
    """A source on the grid, its data, and what is compiled from it."""
    source = write(NETWORKS[name](grid=True), folder / "source.onnx")
    given(name, folder, 4, grid=True)
    return source, onnx.load(pascalc.compile(source).output)


def node(model: onnx.ModelProto, operator: str, index: int = 0) -> onnx.NodeProto:
    return [n for n in model.graph.node if n.op_type == operator][index]


def product(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(n for n in model.graph.node if n.name == name)


def insert(model: onnx.ModelProto, user: onnx.NodeProto, index: int, *new: onnx.NodeProto) -> None:
    """Nodes in front of an input of a node; "<in>" is what it was, "<out>" what it becomes."""
    names = {"<in>": user.input[index], "<out>": "edited"}
    for step in new:
        step.input[:] = [names.get(n, n) for n in step.input]
        step.output[:] = [names.get(n, n) for n in step.output]
        step.name = f"new/{step.output[0]}"
    user.input[index] = "edited"
    at = next(i for i, n in enumerate(model.graph.node) if n is user or n.name == user.name)
    for step in reversed(new):
        model.graph.node.insert(at, step)


def another_sample(model: onnx.ModelProto) -> None:
    """The held tensor of the sample before, the first with the last's."""
    hold = node(model, "Hold")
    for name, values in (("first", [0]), ("second", [1]), ("end", [2**62]), ("batch_axis", [0])):
        model.graph.initializer.append(numpy_helper.from_array(np.array(values), name))
    insert(
        model,
        hold,
        0,
        helper.make_node("Slice", ["<in>", "second", "end", "batch_axis"], ["rest"]),
        helper.make_node("Slice", ["<in>", "first", "second", "batch_axis"], ["front"]),
        helper.make_node("Concat", ["rest", "front"], ["<out>"], axis=0),
    )


def spread_instead(model: onnx.ModelProto) -> None:
    node(model, "Hold").op_type = "Spread"
    model.functions.append(OPERATORS["Spread"].function(17))


def a_step_more_and_less(model: onnx.ModelProto) -> None:
    """Not the same in every step, but the same sum over time."""
    hold = node(model, "Hold")
    steps = hold.attribute[0].i
    user = next(n for n in model.graph.node if hold.output[0] in n.input)
    change = np.zeros([steps, 1], np.float32)
    change[0], change[-1] = 0.5, -0.5
    model.graph.initializer.append(numpy_helper.from_array(change, "change"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([steps, -1]), "by_step"))
    insert(
        model,
        user,
        list(user.input).index(hold.output[0]),
        helper.make_node("Shape", ["<in>"], ["whole"]),
        helper.make_node("Reshape", ["<in>", "by_step"], ["steps"]),
        helper.make_node("Add", ["steps", "change"], ["changed"]),
        helper.make_node("Reshape", ["changed", "whole"], ["<out>"]),
    )


def scaled(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.float32(1.25), "factor"))
    insert(model, node(model, "Hold"), 0, helper.make_node("Mul", ["<in>", "factor"], ["<out>"]))


def unlike_steps(model: onnx.ModelProto) -> None:
    node(model, "Hold").attribute[0].i += 1


def a_train_instead(model: onnx.ModelProto) -> None:
    """The product of two trains step by step, as no Hold were needed."""
    hold = node(model, "Hold", -1)
    user = next(n for n in model.graph.node if hold.output[0] in n.input)
    user.input[list(user.input).index(hold.output[0])] = next(n for n in user.input if n != hold.output[0])


@pytest.mark.parametrize(
    "damage", [another_sample, spread_instead, a_step_more_and_less, scaled, unlike_steps, a_train_instead]
)
@pytest.mark.parametrize("name", NETWORKS)
def test_an_edited_hold_is_found(name: str, damage: Callable[[onnx.ModelProto], None], tmp_path: Path) -> None:
    source, model = emitted(name, tmp_path)
    damage(model)
    broken = write(model, tmp_path / "broken.onnx")
    for file in (tmp_path / "data.npz", None):
        verified = pascalc.verify(source, broken, file, seed=1)
        assert not verified.equivalent


@pytest.mark.parametrize(("name", "operator"), [("gates", "both"), ("attention", "scores"), ("attention", "mix")])
def test_swapped_operands(name: str, operator: str, tmp_path: Path) -> None:
    """A product of matrices is another one; of numbers it is the same, but its inputs are no longer where they were."""
    source, model = emitted(name, tmp_path)
    inputs = product(model, operator).input
    inputs[:] = [inputs[1], inputs[0]]
    broken = write(model, tmp_path / "broken.onnx")
    for file in (tmp_path / "data.npz", None):
        assert not pascalc.verify(source, broken, file, seed=1).equivalent
