"""What verify-types is for: a wrong unrolling, of whatever origin, does not become a file."""

from __future__ import annotations

from collections.abc import Callable

import onnx_graphsurgeon as gs
import pytest

from pascalc import pipeline
from pascalc.errors import CompileError
from pascalc.graph import Model
from pascalc.passes import UNROLLED
from tests.helpers import loaded, parse, run_pass

NETWORK = """
network (float[N,2] x) => (float[N,1] y) <float theta = {2}, float[2,2] w = {1, 2, 3, 4}, float[2,1] v = {1, -1}> {
  h = ai.pascalc.QCFS <levels = 4, phi = 0.5, label = "h"> (x, theta)
  [layer] g = Gemm (h, w)
  i = ai.pascalc.QCFS <levels = 2, phi = 0.5, label = "i"> (g, theta)
  [join] a = Add (h, i)
  [magnitude] m = Abs (a)
  y = Gemm (m, v)
  }
"""


def unrolled() -> Model:
    model = loaded(parse(NETWORK))
    pipeline.run(model, UNROLLED, stop_after="unroll-time")
    return model


def node(model: Model, op: str, index: int = 0) -> gs.Node:
    return [n for n in model.graph.nodes if n.op == op][index]


def wrong_steps(model: Model) -> None:
    node(model, "PascIF", 1).attrs["steps_in"] = 1


def no_alignment(model: Model) -> None:
    align = node(model, "Align")
    node(model, "Add").inputs[1] = align.inputs[0]


def no_accumulation(model: Model) -> None:
    accumulate = node(model, "Accumulate")
    node(model, "Abs").inputs[0] = accumulate.inputs[0]


def train_as_output(model: Model) -> None:
    model.graph.outputs[0] = node(model, "Gemm").outputs[0]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (wrong_steps, "PascIF declares 1 steps and gets 4"),
        (no_alignment, "Add gets"),
        (no_accumulation, "Abs gets a train, but Abs has no spiking form"),
        (train_as_output, "an output is still a train"),
    ],
)
def test_damage_is_found(damage: Callable[[Model], None], message: str) -> None:
    model = unrolled()
    assert run_pass(model, "verify-types") == 0
    damage(model)
    with pytest.raises(CompileError) as caught:
        run_pass(model, "verify-types")
    assert message in str(caught.value)
    assert "internal error of pascalc" in str(caught.value)
    assert caught.value.node


PRODUCTS = """
network (float[N,2,2] x) => (float[N,2,2] y) <float theta = {2}> {
  h = ai.pascalc.QCFS <levels = 4, phi = 0.5, label = "h"> (x, theta)
  i = ai.pascalc.QCFS <levels = 2, phi = 0.5, label = "i"> (x, theta)
  [gated] g = Mul (h, i)
  y = MatMul (h, g)
  }
"""


def held_longer(model: Model) -> None:
    node(model, "Hold").attrs["steps"] = 3


def not_summed(model: Model) -> None:
    hold = node(model, "Hold")
    accumulate = hold.inputs[0].inputs[0]
    hold.inputs[0] = accumulate.inputs[0]


def not_held(model: Model) -> None:
    hold = node(model, "Hold")
    (user,) = hold.outputs[0].outputs
    user.inputs[[t is hold.outputs[0] for t in user.inputs].index(True)] = hold.inputs[0]


def two_held(model: Model) -> None:
    product = node(model, "Mul")
    held = node(model, "Hold").outputs[0]
    product.inputs[0] = held
    product.inputs[1] = held


def held_as_output(model: Model) -> None:
    model.graph.outputs[0] = node(model, "Hold").outputs[0]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (held_longer, "Mul gets"),
        (not_summed, "Hold declares 1 steps and gets"),
        (not_held, "Mul gets"),
        (two_held, "what is held meets no train"),
        (held_as_output, "an output is still a train"),
    ],
)
def test_damaged_products_are_found(damage: Callable[[Model], None], message: str) -> None:
    model = loaded(parse(PRODUCTS))
    pipeline.run(model, UNROLLED, stop_after="unroll-time")
    assert run_pass(model, "verify-types") == 0
    damage(model)
    with pytest.raises(CompileError) as caught:
        run_pass(model, "verify-types")
    assert message in str(caught.value)
