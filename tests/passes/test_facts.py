"""Facts: what passes promise is looked up in the graph, and a pass that does not keep it is told."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from pascalc import pipeline
from pascalc.graph import Model, NoteKind
from pascalc.passes import ANALYSIS, FRONT, UNROLLED, Pass
from pascalc.passes.facts import (
    BATCHES,
    BIASES,
    CONSTANTS,
    FACTS,
    INTACT,
    NEURONS,
    QCFS,
    SHAPES,
    THRESHOLDS,
    TIME,
    Fact,
)
from tests.helpers import compiled, loaded, parse

NETWORK = """
network (float[N,2] x) => (float[N,2] y)
  <float theta = {2}, float[2,2] w = {0.5, -1, 1.5, 2}, float[2] b = {1, 2}, float[2] v = {3, 4}> {
  k = Neg (b)
  f = Gemm (x, w, k)
  h = ai.pascalc.QCFS <levels = 4, phi = 0.5, label = "h"> (f, theta)
  g = Gemm (h, w)
  n = BatchNormalization (g, b, b, b, v)
  i = ai.pascalc.QCFS <levels = 2, phi = 0.5, label = "i"> (n, theta)
  s = Add (h, i)
  y = Gemm (s, w)
}
"""


def network(passes: tuple[Pass, ...]) -> Model:
    return compiled(parse(NETWORK), passes)


def set_attribute(name: str, value: object, *operators: str) -> Callable[[Model], None]:
    def change(model: Model) -> None:
        next(n for n in model.graph.nodes if n.op in operators).attrs[name] = value

    return change


def set_threshold(value: float) -> Callable[[Model], None]:
    def change(model: Model) -> None:
        neuron = next(n for n in model.graph.nodes if n.op == "QCFS")
        neuron.inputs[1] = model.constant("theta", np.float32(value))

    return change


def reverse(model: Model) -> None:
    model.graph.nodes.reverse()


def rename_output(model: Model) -> None:
    model.graph.outputs[0].name = "z"


def forget_output(model: Model) -> None:
    model.graph.nodes.remove(model.graph.outputs[0].inputs[0])


def drop_an_axis(model: Model) -> None:
    model.graph.inputs[0].shape = model.graph.inputs[0].shape[1:]


def fix_the_batch(model: Model) -> None:
    model.graph.inputs[0].shape = [1, 2]


def compute_a_threshold(model: Model) -> None:
    neuron = next(n for n in model.graph.nodes if n.op == "QCFS")
    neuron.inputs[1] = model.graph.inputs[0]


def output_a_train(model: Model) -> None:
    model.graph.outputs[0].shape = ["4*batch", 2]


def nothing(model: Model) -> None:
    return None


#: A fact, the pipeline behind which it is looked up, what is done to the network, and what is wrong then.
BROKEN: list[tuple[Fact, tuple[Pass, ...], Callable[[Model], None], str]] = [
    (INTACT, FRONT, reverse, "uses '.*', which nothing before it computes"),
    (INTACT, FRONT, rename_output, r"the outputs are \['z'\], not \['y'\]"),
    (INTACT, FRONT, forget_output, "nothing computes the output 'y'"),
    (SHAPES, ANALYSIS, drop_an_axis, r"the input 'x' has 2 dimensions, but the shape \[2\]"),
    (SHAPES, ANALYSIS, fix_the_batch, "the first axis of the input 'x' is 1, not the batch"),
    (CONSTANTS, ANALYSIS[:1], nothing, "k depends on constants alone"),
    (QCFS, ANALYSIS, set_attribute("label", "i", "QCFS"), "i has no label of its own"),
    (QCFS, ANALYSIS, set_attribute("levels", 256, "QCFS"), "h has 256 levels"),
    (QCFS, ANALYSIS, set_attribute("levels", 2.0, "QCFS"), "h has 2.0 levels"),
    (QCFS, ANALYSIS, set_attribute("phi", None, "QCFS"), "h has no phi"),
    (QCFS, ANALYSIS, compute_a_threshold, "a parameter of h is not a constant"),
    (QCFS, UNROLLED, nothing, "is a PascIF, which is no activation of a source"),
    (THRESHOLDS, ANALYSIS, set_threshold(0.0), "a threshold of h is zero, negative, infinite or NaN"),
    (THRESHOLDS, ANALYSIS, set_threshold(np.nan), "a threshold of h is zero"),
    (BIASES, ANALYSIS, nothing, "n is a BatchNormalization, and no note says why"),
    (NEURONS, FRONT, nothing, "h is a QCFS, which is no spiking neuron"),
    (NEURONS, UNROLLED, set_attribute("steps_out", 0, "PascIF"), "h/PascIF takes 1 steps and sends 0"),
    (TIME, UNROLLED, set_attribute("steps_in", 3, "PascIF"), "h/PascIF takes 3 steps and gets 1"),
    (TIME, UNROLLED, set_attribute("steps_in", 3, "Align"), "takes 3 steps and gets 2"),
    (TIME, UNROLLED, output_a_train, "the output 'y' is a train"),
    (BATCHES, ANALYSIS, lambda model: model.interface_inputs[0].CopyFrom(FIXED), "the batch size of 'x' is 5"),
]
FIXED = parse("network (float[5,2] x) => (float[5,2] y) { y = Neg (x) }").graph.input[0]


@pytest.mark.parametrize(("fact", "passes", "change", "wrong"), BROKEN)
def test_fact_that_does_not_hold(
    fact: Fact, passes: tuple[Pass, ...], change: Callable[[Model], None], wrong: str
) -> None:
    model = network(passes)
    if change is not nothing:
        assert fact.holds(model) == ""
    change(model)
    assert re.search(wrong, fact.holds(model))


def test_every_fact_is_broken_once() -> None:
    assert {fact for fact, *_ in BROKEN} == set(FACTS)
    assert len({fact.name for fact in FACTS}) == len(FACTS)


def test_what_a_note_names_may_stay() -> None:
    model = network(ANALYSIS[:1])
    for name in ("k", "n"):
        model.note("a pass", name, "it has to")
    assert (CONSTANTS.holds(model), BIASES.holds(model)) == ("", "")
    model.notes.clear()
    model.note("a pass", "n", "it is slow", NoteKind.WARNING)
    assert BIASES.holds(model)


@dataclass(frozen=True)
class Idle(Pass):
    """Promises that no normalisation is left, and does nothing."""

    provides: ClassVar[frozenset[Fact]] = frozenset({BIASES})

    def run(self, model: Model) -> int:
        return 0


@dataclass(frozen=True)
class Unsorted(Pass):
    """Leaves the nodes in another order."""

    def run(self, model: Model) -> int:
        model.graph.nodes.reverse()
        return 1


@dataclass(frozen=True)
class Relabel(Pass):
    """Gives all activations one label."""

    def run(self, model: Model) -> int:
        for node in model.graph.nodes:
            if node.op == "QCFS":
                node.attrs["label"] = "act"
        return 1


def test_pass_that_breaks_its_promise_is_told() -> None:
    with pytest.raises(ValueError, match=r"a fault of ours: .*test-facts provides the fact 'biases', but n is a Batch"):
        pipeline.run(loaded(parse(NETWORK)), (*ANALYSIS, Idle()))
    with pytest.raises(ValueError, match="provides the fact 'intact', but y uses 's', which nothing before it"):
        pipeline.run(loaded(parse(NETWORK)), (*ANALYSIS, Unsorted()))


def test_pass_that_breaks_what_a_later_one_requires_is_told() -> None:
    passes = (*ANALYSIS, Relabel(), *UNROLLED[len(ANALYSIS) :])
    with pytest.raises(ValueError, match="check-thresholds requires the fact 'qcfs', but i has no label of its own"):
        pipeline.run(loaded(parse(NETWORK)), passes)


def test_pipeline_says_what_it_established() -> None:
    model = loaded(parse(NETWORK))
    assert pipeline.run(model, UNROLLED, stop_after="fold-constants") == {SHAPES, CONSTANTS}
