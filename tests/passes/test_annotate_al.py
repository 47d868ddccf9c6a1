"""annotate-al and apply-correction: what they change, what they leave, and what they refuse."""

from __future__ import annotations

import numpy as np
import onnx.printer
import onnx_graphsurgeon as gs
import pytest

from pascalc import pipeline
from pascalc.errors import CompileError
from pascalc.graph import Model
from pascalc.modelfile import skeleton
from pascalc.neurons import neurons
from pascalc.passes import ANALYSIS
from pascalc.passes.annotate_al import AnnotateAl
from pascalc.passes.apply_correction import ApplyCorrection
from tests.helpers import loaded, parse, run
from tests.small_networks import Builder, images, residual_network

ONE = """
network (float[N,2] x) => (float[N,2] y)
<float theta = {1.5}>
{
  z = Relu (x)
  y = ai.pascalc.QCFS <levels = LEVELS, phi: float = 0.5, label = "act"> (z, theta)
}
"""


def analysed(model: Model) -> Model:
    pipeline.run(model, ANALYSIS)
    return model


def one(levels: int) -> Model:
    return analysed(loaded(parse(ONE.replace("LEVELS", str(levels)))))


def text(model: Model) -> str:
    proto, _ = skeleton(model)
    del proto.functions[:]
    return onnx.printer.to_text(proto)


def test_only_the_levels_change() -> None:
    model = one(8)
    assert AnnotateAl({"act": 3}).run(model) == 1
    assert text(model) == text(one(3))


def test_layers_that_are_not_named_keep_theirs() -> None:
    model = analysed(loaded(residual_network()))
    assert AnnotateAl({"left": 2, "join": 2}).run(model) == 1  # join has 2 already
    assert {n.name: n.levels for n in neurons(model)} == {"stem": 4, "left": 2, "join": 2, "deep": 4, "hidden": 3}


def test_recorded_histograms_go_when_levels_change() -> None:
    model = one(4)
    model.metadata["pascalc.histograms"] = "{}"
    AnnotateAl({"act": 4}).run(model)
    assert "pascalc.histograms" in model.metadata
    AnnotateAl({"act": 2}).run(model)
    assert "pascalc.histograms" not in model.metadata


def test_unknown_layers_are_refused_before_anything_changes() -> None:
    model = analysed(loaded(residual_network()))
    with pytest.raises(CompileError, match=r"names 'lefft', 'x', which is no .* stem, left, join, .* Is it 'left'\?"):
        AnnotateAl({"stem": 1, "lefft": 2, "x": 1}).run(model)
    assert neurons(model)[0].levels == 4


@pytest.mark.parametrize("levels", [0, 256, -1])
def test_levels_out_of_range(levels: int) -> None:
    with pytest.raises(CompileError, match=r"1..255.*'act'"):
        AnnotateAl({"act": levels}).run(one(4))


def corrected(shift: float, theta: float) -> tuple[Model, Model]:
    """A network of every place that a bias can be, and the same with each activation shifted by hand."""
    rng = np.random.default_rng(0)
    names = ["stem", "left", "join", "deep", "hidden"]
    model, by_hand = (analysed(loaded(residual_network())) for _ in range(2))
    ranks = {n.name: len(n.node.inputs[0].shape) for n in neurons(model)}
    channels = {n.name: n.node.inputs[0].shape[1] for n in neurons(model)}
    shifts = {n: shift * rng.normal(size=(channels[n], *[1] * (ranks[n] - 2))) for n in names}
    thresholds = {n: np.asarray(theta) for n in ("left", "hidden")}
    assert ApplyCorrection(shifts, thresholds).run(model) == 5
    for neuron in neurons(by_hand):
        x = neuron.node.inputs[0]
        shifted = gs.Variable(f"{neuron.name}_shifted", np.float32, x.shape)
        value = gs.Constant(f"{neuron.name}_shift", shifts[neuron.name].astype(np.float32))
        by_hand.graph.nodes.append(gs.Node("Add", f"{neuron.name}_add", inputs=[x, value], outputs=[shifted]))
        neuron.node.inputs[0] = shifted
        if neuron.name in thresholds:
            neuron.node.inputs[1] = gs.Constant(f"{neuron.name}_theta", np.asarray(theta, np.float32))
    by_hand.graph.toposort()
    return model, by_hand


def test_a_shift_goes_into_a_bias_and_computes_the_same() -> None:
    before = len(analysed(loaded(residual_network())).graph.nodes)
    model, by_hand = corrected(0.3, 1.4)
    assert len(model.graph.nodes) == before
    feeds = {"image": images(20)}
    assert run(model, feeds)[0] == pytest.approx(run(by_hand, feeds)[0], abs=2e-4)


def test_no_correction_is_no_change() -> None:
    model = analysed(loaded(residual_network()))
    assert ApplyCorrection({}, {}).run(model) == 0
    assert text(model) == text(analysed(loaded(residual_network())))


def test_an_addition_stays_where_nothing_takes_the_shift() -> None:
    b = Builder()
    model = analysed(loaded(b.model({"out": b.qcfs(b.input("x", ["N", 3]), "act", 4, 1.0)}, ("N", 3))))
    ApplyCorrection({"act": np.array([0.25, 0.0, -0.5])}, {}).run(model)
    assert [n.op for n in model.graph.nodes] == ["Add", "QCFS"]
    assert run(model, {"x": np.full((1, 3), 0.5, np.float32)})[0].tolist() == [[0.75, 0.5, 0.0]]


def test_a_bias_that_others_see_is_left_alone() -> None:
    b = Builder()
    z = b.conv(b.input("x", ["N", 2, 4, 4]), "conv", (2, 3))
    h = b.qcfs(z, "act", 4, 1.0)
    total = b.node("Add", [z, h], "both")
    model = analysed(loaded(b.model({"out": total}, ["N", 3, 4, 4])))
    ApplyCorrection({"act": np.ones((3, 1, 1))}, {}).run(model)
    assert sorted(n.op for n in model.graph.nodes) == ["Add", "Add", "Conv", "QCFS"]


@pytest.mark.parametrize(
    ("shifts", "thresholds", "message"),
    [
        ({"x": np.zeros(1)}, {}, "names 'x'"),
        ({}, {"x": np.ones(1)}, "names 'x'"),
        ({}, {"act": np.zeros(())}, r"not positive \(node 'act'\)"),
        ({}, {"act": np.array(np.nan)}, "not positive"),
    ],
)
def test_bad_corrections(shifts: dict[str, np.ndarray], thresholds: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(CompileError, match=message):
        ApplyCorrection(shifts, thresholds).run(one(4))
