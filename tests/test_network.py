"""The one walk over the layers of a network: planning, reports and inspection say the same of one network."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

import pascalc
from pascalc.al import Plan
from pascalc.al.plan import LayerPlan
from pascalc.cli import main
from pascalc.energy import relative_cost
from pascalc.modelfile import load
from pascalc.network import layout
from pascalc.neurons import analysed_neurons
from pascalc.planning import planner
from pascalc.planning.calibrate import measure
from pascalc.planning.sensitivity import Search
from pascalc.planning.steps import effective_steps
from pascalc.reporter import LayerReport, html, report, text
from tests.small_networks import Builder, images, residual_network, write


def shared_convolution() -> onnx.ModelProto:
    """Two activations behind one convolution, of which one joins a 1x1 shortcut to it."""
    b = Builder(3)
    x = b.qcfs(b.conv(b.input("image", ["N", 2, 12, 12]), "stem", (2, 4)), "first", 4)
    shared = b.conv(x, "shared", (4, 4))
    left = b.qcfs(shared, "left", 2)
    right = b.qcfs(b.node("Add", [shared, b.conv(x, "side", (4, 4), kernel=1)], "add"), "right", 8)
    x = b.node("Concat", [left, right], "concat", axis=1)
    x = b.qcfs(b.conv(x, "last", (8, 4)), "last", 4)
    x = b.node("Flatten", [b.node("GlobalAveragePool", [x], "pool")], "flatten")
    return b.model({"logits": b.gemm(x, "fc", (4, 5))})


def computed_between() -> onnx.ModelProto:
    """A sigmoid, which cannot spike, between a convolution that reads spikes and its neurons."""
    b = Builder(4)
    x = b.qcfs(b.conv(b.input("image", ["N", 2, 12, 12]), "one", (2, 4), strides=[2, 2]), "first", 4, 0.2)
    x = b.node("Sigmoid", [b.conv(x, "two", (4, 4))], "sigmoid")
    x = b.qcfs(x, "second", 4)
    x = b.node("Flatten", [b.node("MaxPool", [x], "pool", kernel_shape=[6, 6])], "flatten")
    return b.model({"logits": b.gemm(x, "fc", (4, 5))})


NETWORKS: dict[str, Callable[[], onnx.ModelProto]] = {
    "residual": residual_network,
    "shared": shared_convolution,
    "computed": computed_between,
}


def by_name(result: Any) -> dict[str, LayerReport]:
    return {layer.name: layer for layer in result.layers}


@pytest.mark.parametrize("network", NETWORKS)
def test_a_plan_has_the_steps_that_the_report_has(network: str, tmp_path: Path) -> None:
    source = write(NETWORKS[network](), tmp_path / "model.onnx")
    levels = {n.name: n.levels for n in pascalc.inspect(source).neurons}
    plan = Plan(tuple(LayerPlan(name=name, levels=max(1, n // 2)) for name, n in levels.items()))
    described = planner.describe(source, plan, None, "by hand")
    pascalc.compile(source, tmp_path / "a.onnx")
    pascalc.compile(source, tmp_path / "b.onnx", levels=plan)
    for steps, file in ((described.before, "a.onnx"), (described.after, "b.onnx")):
        found = report(tmp_path / file)
        assert (steps.paper, steps.full) == (found.paper_steps.mean, found.full_steps.mean)
    np.savez(tmp_path / "data.npz", x=images(8))
    search = Search(source, tmp_path / "data.npz")
    assert search.steps(levels) == described.before.paper
    assert search.steps({x.name: x.levels for x in plan.layers}) == described.after.paper


def test_neurons_that_share_a_convolution_have_its_fan_in(tmp_path: Path) -> None:
    found = report(write(shared_convolution(), tmp_path / "model.onnx"))
    rows = [(x.name, x.neuron, x.fan_in, x.macs, x.reads, x.steps_read, x.steps_in) for x in found.layers if x.neurons]
    assert rows == [
        ("stem", "first", 18, 18 * 576, "analog", 1, 1),
        ("shared", "left", 36, 36 * 576, "spikes", 4, 4),
        ("right", "right", 36, 0, "spikes", 4, 4),  # and not that of the shortcut, which is its own row
        ("last", "last", 72, 72 * 576, "spikes", 8, 8),
    ]
    assert (by_name(found)["side"].neurons, by_name(found)["side"].macs) == (0, 4 * 576)
    fan_in, levels = (18, 36, 36, 72), (4, 2, 8, 4)
    expected = [L * relative_cost(f, L, 0.75, 5 * L - 2) for f, L in zip(fan_in, levels, strict=True)]
    assert found.paper_steps.layers == pytest.approx(expected)


def test_rates_of_a_plan_are_those_of_what_the_layers_read(tmp_path: Path) -> None:
    """Nothing pools in this network, so what a layer reads is what the neurons before it send."""
    source, data = write(shared_convolution(), tmp_path / "model.onnx"), tmp_path / "data.npz"
    np.savez(data, x=images(12))
    levels = {n.name: n.levels for n in pascalc.inspect(source).neurons}
    steps = effective_steps(source, levels, measure(source, data))
    assert steps.full == pytest.approx(report(source, data).full_steps.mean, rel=1e-4)


def test_a_sum_over_time_before_the_neurons(tmp_path: Path) -> None:
    """The layer reads 4 steps, of more than one spike an input, and its neurons get one sum."""
    source, data = write(computed_between(), tmp_path / "model.onnx"), tmp_path / "data.npz"
    np.savez(data, x=np.full((3, 2, 12, 12), 5, np.float32))
    two = by_name(report(source, data))["two"]
    assert (two.reads, two.steps_read, two.steps_in, two.neuron) == ("spikes", 4, 1, "second")
    assert two.spike_rate_measured is not None
    assert two.spike_rate_measured > 1


@pytest.mark.parametrize("network", NETWORKS)
def test_multiply_accumulates_are_counted_once(network: str, tmp_path: Path) -> None:
    source = write(NETWORKS[network](), tmp_path / "model.onnx")
    found = report(source)
    for path in (source, *(tmp_path / f"{s}.onnx" for s in ("unrolled", "collapsed"))):
        if path != source:
            pascalc.compile(source, path, schedule=path.stem)
        seen = pascalc.inspect(path)
        assert (seen.macs, seen.spiking_macs) == (found.macs.total, found.macs.on_spikes)
    assert found.macs.total == sum(x.macs for x in found.layers)
    assert found.macs.on_spikes == sum(x.macs for x in found.layers if x.reads == "spikes") < found.macs.total
    values = found.to_json()
    assert (values["macs"], values["spiking_macs"]) == (found.macs.total, found.macs.on_spikes)
    assert values["spiking_share"] == pytest.approx(found.macs.on_spikes / found.macs.total)
    share = f"{found.macs.total:,} multiply-accumulates of the ANN, {values['spiking_share']:.1%}"
    assert share in text(found)
    assert f"{values['spiking_share']:.1%} on spikes" in html(found)


def test_products_of_computed_tensors_cost_something(tmp_path: Path) -> None:
    """As in attention: their multiply-accumulates are in the report as they are in inspect."""
    b = Builder(5)
    x = b.node("MatMul", [b.input("x", ["N", 4, 6]), b.random("w", (6, 8), 0.5)], "embed")
    x = b.qcfs(x, "act", 4)
    y = b.node("MatMul", [x, b.node("Transpose", [x], "turn", perm=[0, 2, 1])], "scores")
    y = b.node("MatMul", [y, x], "mix")
    model = b.model({"y": b.node("MatMul", [b.constant("mean", np.full((1, 4), 0.25)), y], "mean")}, ("N", 1, 8))
    source = write(model, tmp_path / "model.onnx")
    found = report(source)
    assert [(x.name, x.macs, x.reads, x.fan_in) for x in found.layers] == [
        ("embed", 4 * 6 * 8, "analog", 6),
        ("scores", 4 * 4 * 8, "spikes", 8),
        ("mix", 4 * 4 * 8, "spikes", 4),
        ("mean", 4 * 8, "currents", 4),
    ]
    assert [x.reads for x in report(pascalc.compile(source).output).layers] == [x.reads for x in found.layers]
    assert found.macs.total == pascalc.inspect(source).macs


def edges(path: Path) -> dict[str, tuple[list[str], list[str]]]:
    """What reaches each layer and each neuron, by its name: from where, and through which operators."""
    model = load(path)
    analysed_neurons(model)
    network = layout(model)
    names = {id(x.node): x.name for x in network.layers if x.node is not None}
    names |= {id(neuron.node): neuron.name for neuron in network.neurons}
    found = {}
    for key, feed in network.feeds.items():
        origins = [names[id(node)] for node in (*feed.layers, *feed.neurons)] + [tensor.name for tensor in feed.inputs]
        found[names[key]] = (sorted(origins), sorted(node.op for node in feed.through))
    return found


def test_edges_lead_through_joins_and_pools(tmp_path: Path) -> None:
    source = write(residual_network(), tmp_path / "model.onnx")
    pascalc.compile(source, tmp_path / "snn.onnx")
    assert edges(tmp_path / "snn.onnx") == {
        "conv1": (["image"], []),
        "stem": (["conv1"], []),
        "conv2": (["stem"], ["MaxPool"]),  # maxima are taken of the spikes
        "left": (["conv2"], []),
        "conv3": (["left"], []),
        "join": (["conv3", "stem"], ["Add", "Align", "MaxPool"]),
        "conv4": (["join"], []),
        "deep": (["conv4"], []),
        "fc1": (["deep"], ["AveragePool", "Flatten", "MaxPool"]),
        "hidden": (["fc1"], []),
        "fc2": (["hidden"], []),
    }


def test_a_sum_over_time_hides_the_layer_behind_it(tmp_path: Path) -> None:
    """The fan-in of inspect is that of one layer which feeds the neuron step by step."""
    source = write(computed_between(), tmp_path / "model.onnx")
    for path in (source, pascalc.compile(source, tmp_path / "snn.onnx").output):
        assert [n.fan_in for n in pascalc.inspect(path).neurons] == [18, None]
    pascalc.compile(source, tmp_path / "collapsed.onnx", schedule="collapsed")
    assert [n.fan_in for n in pascalc.inspect(tmp_path / "collapsed.onnx").neurons] == [18, 36]


def test_shapes_that_are_not_known(tmp_path: Path) -> None:
    b = Builder()
    x = b.qcfs(b.conv(b.input("image", ["N", 2, "H", "W"]), "conv", (2, 4)), "act", 4)
    model = b.model({"out": b.node("GlobalAveragePool", [x], "pool")}, ("N", 4, 1, 1))
    source = write(model, tmp_path / "model.onnx")
    seen = pascalc.inspect(source)
    assert (seen.macs, seen.spiking_macs) == (None, None)
    for command in (["inspect", source], ["compile", source, "-o", tmp_path / "o.onnx"]):
        done = CliRunner().invoke(main, [str(a) for a in command])
        assert "multiply-accumulates not known" in done.output
    with pytest.raises(
        pascalc.CompileError, match=r"model.onnx: the shapes of this layer are not known \(node 'conv'\)"
    ):
        report(source)


# --- what reads spikes --------------------------------------------------------------------------------------------

MOVES: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    "SpaceToDepth": ("SpaceToDepth", {"blocksize": 2}, (16, 3)),
    "DepthToSpace": ("DepthToSpace", {"blocksize": 2}, (1, 12)),
    "Identity": ("Identity", {}, (4, 6)),
    "Transpose": ("Transpose", {"perm": [0, 1, 3, 2]}, (4, 6)),
    "MaxPool": ("MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2]}, (4, 3)),
    "an average of one value": ("AveragePool", {"kernel_shape": [1, 1]}, (4, 6)),
    "a sum of one tensor": ("Sum", {}, (4, 6)),
}


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", [*MOVES, "an average", "a negative"])
def test_what_moves_spikes_leaves_them_spikes(name: str, compiled: bool, tmp_path: Path) -> None:
    others = {"an average": ("AveragePool", {"kernel_shape": [2, 2]}, (4, 5)), "a negative": ("Neg", {}, (4, 6))}
    op, attributes, (channels, size) = {**MOVES, **others}[name]
    b = Builder()
    x = b.qcfs(b.conv(b.input("image", ["N", 2, 6, 6]), "one", (2, 4)), "act", 4)
    x = b.node(op, [x], "moved", **attributes)
    x = b.qcfs(b.conv(x, "two", (channels, 3)), "act2", 4)
    x = b.node("MaxPool", [x], "pool", kernel_shape=[size, size])
    source = write(b.model({"out": x}, ("N", 3, 1, 1)), tmp_path / "model.onnx")
    np.savez(tmp_path / "d.npz", x=images(4)[:, :, :6, :6])
    path = tmp_path / "snn.onnx" if compiled else source
    pascalc.compile(source, tmp_path / "snn.onnx")
    found = report(path, tmp_path / "d.npz")
    assert by_name(found)["two"].reads == ("spikes" if name in MOVES else "currents")
    assert (found.macs.on_spikes > 0) == (name in MOVES)
    assert pascalc.inspect(path).spiking_macs == found.macs.on_spikes
    if name in MOVES:
        assert pascalc.verify(source, tmp_path / "snn.onnx", tmp_path / "d.npz").equivalent


def test_synapses_that_read_averages_alone_are_not_free(tmp_path: Path) -> None:
    b = Builder()
    x = b.qcfs(b.conv(b.input("image", ["N", 2, 12, 12]), "conv", (2, 4)), "act", 4)
    x = b.node("Flatten", [b.node("GlobalAveragePool", [x], "pool")], "flatten")
    source = write(b.model({"logits": b.gemm(x, "fc", (4, 5))}), tmp_path / "model.onnx")
    np.savez(tmp_path / "d.npz", x=images(4))
    for data in (None, tmp_path / "d.npz"):
        found = report(source, data)
        fc = by_name(found)["fc"]
        rate = fc.spike_rate_assumed if data is None else fc.spike_rate_measured
        assert rate
        for energy in (found.paper_energy[0], found.full_energy[0]):
            assert energy.currents == pytest.approx(20 * rate * 4.6)
            assert energy.synapses == 0
        assert found.mean_spike_rate is None
        json.dumps(found.to_json(), allow_nan=False)
        assert "b = -" in text(found)
        assert "b = -" in html(found)


def test_a_network_that_does_nothing_on_the_data(tmp_path: Path) -> None:
    """Neurons that read the image and stay silent, and one convolution behind them: nothing is spent."""
    b = Builder()
    x = b.conv(b.qcfs(b.input("image", ["N", 2, 6, 6]), "encoder", 4), "conv", (2, 4))
    source = write(b.model({"out": x}, ("N", 4, 6, 6)), tmp_path / "model.onnx")
    np.savez(tmp_path / "d.npz", x=np.zeros((2, 2, 6, 6), np.float32))
    found = report(source, tmp_path / "d.npz")
    assert found.paper_energy[0].ratio is None
    assert found.spike_rate == 0
    json.dumps(found.to_json(), allow_nan=False)
    assert text(found)
    assert html(found)


# --- rates of whole networks --------------------------------------------------------------------------------------


def test_the_rate_of_a_network_is_all_spikes_over_all_neurons(tmp_path: Path) -> None:
    source, data = write(residual_network(grid=True), tmp_path / "model.onnx"), tmp_path / "data.npz"
    pascalc.compile(source, tmp_path / "snn.onnx")
    np.savez(data, x=images(10, grid=True))
    found, evaluated = report(tmp_path / "snn.onnx", data), pascalc.evaluate(tmp_path / "snn.onnx", data)
    spikes = sum(x.emitted or 0 for x in found.layers)
    neurons = sum(x.neurons for x in found.layers)
    assert found.spike_rate == pytest.approx(spikes / neurons, rel=1e-12)
    assert evaluated.spike_rate == pytest.approx(found.spike_rate, rel=1e-12)
    assert [(x.name, x.neurons) for x in evaluated.layers] == [(x.neuron, x.neurons) for x in found.layers if x.neuron]
    layers = [x.spike_rate for x in evaluated.layers]
    assert abs(np.mean(layers) - spikes / neurons) > 0.05  # the mean over layers is something else
    assert found.to_json()["spike_rate"] == found.spike_rate
    assert evaluated.to_json()["spike_rate"] == evaluated.spike_rate
    assert f"{found.spike_rate:.3f} spikes a neuron" in text(found)
    assert f"<b>{found.spike_rate:.3f}</b>" in html(found)
    done = CliRunner().invoke(main, ["eval", str(tmp_path / "snn.onnx"), "--data", str(data)])
    assert f"{found.spike_rate:.3f} spikes a neuron (all spikes over all neurons)" in done.output
    assert report(source).spike_rate is None


# --- labels -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["eval", "report", "inspect", "report --data"])
@pytest.mark.parametrize("schedule", ["unrolled", "collapsed"])
def test_two_neurons_of_one_label(command: str, schedule: str, tmp_path: Path) -> None:
    source, data = write(residual_network(), tmp_path / "model.onnx"), tmp_path / "data.npz"
    np.savez(data, x=images(3))
    pascalc.compile(source, tmp_path / "snn.onnx", schedule=schedule)
    changed = onnx.load(tmp_path / "snn.onnx")
    (label,) = (a for n in changed.graph.node for a in n.attribute if a.name == "label" and a.s == b"left")
    label.s = b"stem"
    snn = write(changed, tmp_path / "changed.onnx")
    name, *more = command.split()
    options = ["--data", str(data)] if more or name == "eval" else []
    done = CliRunner().invoke(main, [name, str(snn), *options, "--json", str(tmp_path / "out.json")])
    assert done.exit_code == 2
    assert "changed.onnx: two layers of neurons have this label (node 'stem')" in done.stderr
    assert not (tmp_path / "out.json").exists()


def test_activations_of_one_label_in_a_source_get_their_own(tmp_path: Path) -> None:
    source = write(residual_network(), tmp_path / "model.onnx")
    pascalc.compile(source, tmp_path / "snn.onnx", save_ann=tmp_path / "ann.onnx")
    changed = onnx.load(tmp_path / "ann.onnx")
    (label,) = (a for n in changed.graph.node for a in n.attribute if a.name == "label" and a.s == b"left")
    label.s = b"stem"
    found = pascalc.inspect(write(changed, tmp_path / "changed.onnx"))
    assert [n.name for n in found.neurons] == ["stem", "stem_2", "join", "deep", "hidden"]
