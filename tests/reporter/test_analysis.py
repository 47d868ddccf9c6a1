"""The report's figures: against hand counts, against the energy formulas, against spikes that were traced."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

import pascalc
from pascalc.al import Histogram, make_plan
from pascalc.energy import FP32, INT8, Layer, effective_steps_full, energy_full, relative_cost
from pascalc.errors import CompileError
from pascalc.modelfile import load, save
from pascalc.reporter import LayerReport, Report, report
from pascalc.runtime import InferenceSession
from tests.small_networks import Builder, images, linear_network, residual_network, write

SAMPLES = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    pascalc.compile(write(residual_network(), folder / "net.onnx"), folder / "net.snn.onnx")
    np.savez(folder / "data.npz", x=images(SAMPLES))
    return folder


@pytest.fixture(scope="module")
def measured(folder: Path) -> Report:
    return report(folder / "net.snn.onnx", folder / "data.npz", batch=4)  # the last batch is not full


@pytest.fixture(scope="module")
def trains(folder: Path) -> dict[str, np.ndarray]:
    return InferenceSession(folder / "net.snn.onnx").trace({"image": images(SAMPLES)})


def by_name(result: Report) -> dict[str, LayerReport]:
    return {layer.name: layer for layer in result.layers}


def test_structure_by_hand(measured: Report) -> None:
    found = [
        (x.name, x.neuron, x.levels, x.steps_in, x.steps_out, x.reads, x.fan_in, x.macs, x.neurons)
        for x in measured.layers
    ]
    assert found == [
        # MaxPool moved behind the neurons, so that these are as many as the convolution has outputs
        ("conv1", "stem", 4, 1, 4, "analog", 18, 18 * 6 * 144, 6 * 144),
        ("conv2", "left", 8, 4, 8, "spikes", 54, 54 * 6 * 36, 6 * 36),
        # 4 steps of the shortcut are aligned to the 8 of the branch
        ("conv3", "join", 2, 8, 2, "spikes", 54, 54 * 6 * 36, 6 * 36),
        ("conv4", "deep", 4, 2, 4, "spikes", 54, 54 * 8 * 36, 8 * 36),
        ("fc1", "hidden", 3, 4, 3, "currents", 32, 32 * 16, 16),
        ("fc2", None, 1, 3, None, "spikes", 16, 16 * 5, 0),
    ]
    assert sum(x.macs for x in measured.layers) == pascalc.inspect(measured.path).macs


def test_stages_of_a_neuron(measured: Report) -> None:
    join = by_name(measured)["conv3"]  # L = 2, T = 8: 8 steps with input, 7 without, 2 of emission
    assert join.stage_operations == (2 * 8 * 216, 2 * 7 * 216, 2 * 216)
    for layer in measured.layers:
        L, T = layer.levels, layer.steps_in
        assert sum(layer.stage_operations) == layer.neurons * (2 * T + 2 * (max(T, L) - 1) + L)


def test_spike_rates_are_those_of_the_traced_spikes(measured: Report, trains: dict[str, np.ndarray]) -> None:
    layers = by_name(measured)
    for name, source in (("conv3", "left"), ("conv4", "join"), ("fc2", "hidden")):
        assert layers[name].spike_rate_measured == pytest.approx(trains[source].sum(0).mean(), rel=1e-12)
    # conv2 reads the maximum over 2 x 2 neurons, which spikes where one of them does
    stem = trains["stem"]
    pooled = stem.reshape(*stem.shape[:3], 6, 2, 6, 2).max((4, 6))
    assert layers["conv2"].spike_rate_measured == pytest.approx(pooled.sum(0).mean(), rel=1e-12)
    assert layers["conv1"].spike_rate_measured is None
    for layer in measured.layers:
        if layer.neuron is not None:
            assert layer.output_rate == pytest.approx(trains[layer.neuron].sum(0).mean(), rel=1e-12)
            assert layer.emitted == pytest.approx(trains[layer.neuron].sum() / SAMPLES, rel=1e-12)


def test_events_are_those_of_the_staged_kernels(measured: Report, folder: Path) -> None:
    session = InferenceSession(folder / "net.snn.onnx", kernels="numpy", staged=True)
    session.run(None, {"image": images(SAMPLES)})
    inhibitory = {layer.neuron: layer.inhibitory for layer in measured.layers if layer.neuron}
    assert inhibitory == {label: events.inhibitory / SAMPLES for label, events in session.events.items()}
    assert sum(session.events[label].inhibitory for label in inhibitory) > 0


def test_the_first_samples_spikes(measured: Report, trains: dict[str, np.ndarray]) -> None:
    assert list(measured.trains) == list(trains)
    for label, train in trains.items():
        np.testing.assert_array_equal(measured.trains[label], train[:, 0].reshape(len(train), -1))


def test_effective_steps_by_hand(measured: Report) -> None:
    fan_in, levels = (18, 54, 54, 54, 32), (4, 8, 2, 4, 3)
    expected = [L * relative_cost(f, L, 0.75, 5 * L - 2) for f, L in zip(fan_in, levels, strict=True)]
    assert measured.paper_steps.layers == pytest.approx(expected, rel=1e-12)
    assert measured.uniform_levels == 8
    uniform = [8 * relative_cost(f, 8, 0.75, 38) for f in fan_in]
    assert measured.normalised_steps.mean == pytest.approx(np.mean(uniform), rel=1e-12)
    assert [x.relative_cost_paper for x in measured.layers if x.neurons] == pytest.approx(
        [e / L for e, L in zip(expected, levels, strict=True)]
    )


def test_energy_by_hand(measured: Report) -> None:
    layers = [
        Layer(
            *(x.name, x.fan_in, x.macs, x.neurons, x.levels, x.steps_in, x.spike_rate_measured, x.folded),
            graded=x.reads == "currents",
            steps_read=x.steps_read,
        )
        for x in measured.layers
    ]
    assert measured.full_energy == (energy_full(layers, FP32), energy_full(layers, INT8))
    assert measured.full_steps == effective_steps_full([x for x in layers if x.neurons])
    fp32 = measured.full_energy[0]
    assert fp32.analog == pytest.approx(18 * 6 * 144 * 4.6)
    assert fp32.neurons == pytest.approx(0.9 * sum(sum(x.stage_operations) for x in measured.layers))
    unfolded = [x for x in measured.layers if not x.folded and x.reads == "spikes"]
    assert fp32.scaling == pytest.approx(3.7 * sum(x.macs / x.fan_in * x.steps_read for x in unfolded))
    # the linear layer behind the AveragePool multiplies, for every entry that is not zero
    averaged = by_name(measured)["fc1"]
    assert averaged.spike_rate_measured is not None
    assert fp32.currents == pytest.approx(averaged.macs * averaged.spike_rate_measured * 4.6)
    # The paper's: one mean rate for all, and neither neurons nor scaling.
    rates = [x.spike_rate_measured for x in measured.layers if x.reads == "spikes"]
    assert measured.mean_spike_rate == pytest.approx(np.mean(rates))  # type: ignore[arg-type]
    paper = measured.paper_energy[0]
    spiking = sum(x.macs for x in measured.layers if x.reads == "spikes")
    assert (paper.currents, paper.analog) == (fp32.currents, fp32.analog)
    assert paper.synapses == pytest.approx(spiking * measured.mean_spike_rate * 0.9)
    assert (paper.neurons, paper.scaling) == (0, 0)


def test_folded_where_all_spikes_have_height_1(folder: Path, measured: Report) -> None:
    heights = {n.name: n.theta == n.levels for n in pascalc.inspect(folder / "net.snn.onnx").neurons}
    sources = {"conv2": "stem", "conv3": "left", "conv4": "join", "fc2": "hidden"}
    assert {name: by_name(measured)[name].folded for name in sources} == {n: heights[s] for n, s in sources.items()}
    assert set(heights.values()) == {True, False}
    assert not by_name(measured)["fc1"].folded  # it reads averages


def test_without_data_rates_are_assumed(folder: Path) -> None:
    result = report(folder / "net.snn.onnx")
    assert (result.samples, result.mean_spike_rate, result.trains) == (0, 0.75, {})
    for layer in result.layers:
        assert layer.spike_rate_assumed == (None if layer.reads == "analog" else 0.75)
        assert {layer.spike_rate_measured, layer.r_measured, layer.inhibitory, layer.output_rate} == {None}
        assert layer.r_assumed == pytest.approx(1 / (0.75 * layer.fan_in))


def test_source_and_collapsed_networks_are_taken_as_unrolled(folder: Path, measured: Report, tmp_path: Path) -> None:
    collapsed = tmp_path / "collapsed.onnx"
    pascalc.compile(folder / "net.onnx", collapsed, schedule="collapsed")
    assert report(folder / "net.onnx", folder / "data.npz").layers == measured.layers
    assert report(collapsed, folder / "data.npz").layers == measured.layers


def test_json_is_plain_and_finite(measured: Report) -> None:
    values = json.loads(json.dumps(measured.to_json(), allow_nan=False))
    assert values["effective_steps"]["paper"]["mean"] == measured.paper_steps.mean
    assert values["energy"]["constants_pj"]["INT8"]["add"] == 0.03
    assert values["energy"]["paper"]["FP32"]["ratio"] != values["energy"]["full"]["FP32"]["ratio"]
    assert [layer["macs"] for layer in values["layers"]] == [layer.macs for layer in measured.layers]


def test_a_shortcut_with_a_layer_of_its_own_has_no_neurons(tmp_path: Path) -> None:
    b = Builder()
    x = b.qcfs(b.conv(b.input("image", ["N", 2, 6, 6]), "stem", (2, 4)), "first", 4)
    y = b.conv(x, "main", (4, 6))
    z = b.conv(x, "side", (4, 6), kernel=1)
    x = b.qcfs(b.node("Add", [y, z], "add"), "second", 4)
    model = b.model({"out": b.node("GlobalAveragePool", [x], "pool")}, ("N", 6, 1, 1))
    layers = by_name(report(write(model, tmp_path / "a.onnx")))
    assert (layers["main"].neuron, layers["main"].neurons) == ("second", 6 * 36)
    assert (layers["side"].neuron, layers["side"].neurons, layers["side"].levels) == (None, 0, 4)
    assert layers["side"].relative_cost_paper is None


def test_neurons_that_no_layer_is_left_for_stand_alone(tmp_path: Path) -> None:
    """One reads the input, one a sum of spikes, and two share a convolution."""
    b = Builder()
    source = b.input("image", ["N", 2, 6, 6])
    first = b.qcfs(source, "encoder", 4)
    shared = b.conv(first, "conv", (2, 2))
    left, right = b.qcfs(shared, "left", 2), b.qcfs(shared, "right", 4, 2.0)
    x = b.qcfs(b.node("Add", [left, right], "add"), "sum", 4)
    model = b.model({"out": b.node("GlobalAveragePool", [x], "pool")}, ("N", 2, 1, 1))
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(0).random((3, 2, 6, 6), np.float32))
    result = report(write(model, tmp_path / "a.onnx"), tmp_path / "d.npz")
    found = [(x.name, x.neuron, x.fan_in, x.macs, x.neurons, x.reads) for x in result.layers]
    assert found == [
        ("encoder", "encoder", 1, 0, 72, "analog"),
        ("conv", "left", 18, 18 * 72, 72, "spikes"),
        ("right", "right", 18, 0, 72, "spikes"),  # what its layer reads
        ("sum", "sum", 1, 0, 72, "currents"),
    ]
    operations = sum(2 * T + 2 * (max(T, L) - 1) + L for L, T in ((4, 1), (2, 4), (4, 4), (4, 4)))
    assert result.full_energy[0].neurons == pytest.approx(0.9 * 72 * operations)


def test_a_network_that_never_spikes(tmp_path: Path) -> None:
    b = Builder()
    x = b.qcfs(b.gemm(b.input("x", ["N", 6]), "fc1", (6, 12)), "act", 4, 1e6)
    model = b.model({"logits": b.gemm(x, "fc2", (12, 5))})
    np.savez(tmp_path / "d.npz", x=np.zeros((2, 6), np.float32))
    result = report(write(model, tmp_path / "a.onnx"), tmp_path / "d.npz")
    silent = by_name(result)["fc2"]
    assert (silent.spike_rate_measured, silent.accumulates_measured, silent.r_measured) == (0, 0, None)
    json.dumps(result.to_json(), allow_nan=False)


@pytest.mark.parametrize("samples", [1, 3, 6, 8])
def test_what_fills_a_fixed_batch_up_is_not_counted(samples: int, tmp_path: Path) -> None:
    fixed = write(residual_network(batch=4, grid=True), tmp_path / "a.onnx")
    free = write(residual_network(grid=True), tmp_path / "b.onnx")
    np.savez(tmp_path / "d.npz", x=images(samples, grid=True))
    result, expected = report(fixed, tmp_path / "d.npz"), report(free, tmp_path / "d.npz")
    assert result.samples == samples
    assert result.layers == expected.layers
    assert result.spike_rate == expected.spike_rate


def test_metadata_with_histograms_gives_metrics(tmp_path: Path) -> None:
    model = load(write(linear_network(), tmp_path / "a.onnx"))
    model.metadata["pascalc.histograms"] = '{"act": [5, 3, 2, 0, 1, 0, 0, 0, 2]}'
    save(model, tmp_path / "b.onnx")
    result = report(tmp_path / "b.onnx")
    assert result.plan == make_plan({"act": Histogram(np.array([5, 3, 2, 0, 1, 0, 0, 0, 2]))}, 1)
    assert result.uniform_levels == 8  # the network had them before


def test_plans_come_from_a_file_or_the_metadata(tmp_path: Path) -> None:
    plan = make_plan({"act": Histogram(np.array([5, 3, 2, 0, 1]))}, 1)
    source = write(linear_network(), tmp_path / "a.onnx")
    (tmp_path / "plan.json").write_text(plan.to_json())
    assert report(source).plan is None
    assert report(source, plan=tmp_path / "plan.json").plan == plan
    pascalc.compile(source, tmp_path / "b.onnx", levels=plan)
    assert report(tmp_path / "b.onnx").plan == plan
    pascalc.compile(source, tmp_path / "c.onnx", levels={"act": 2})
    assert report(tmp_path / "c.onnx").plan is None


def test_a_plan_counts_without_the_html(tmp_path: Path) -> None:
    source = write(linear_network(), tmp_path / "a.onnx")
    (tmp_path / "plan.json").write_text(
        make_plan({"act": Histogram(np.array([5, 3, 0, 0, 0, 0, 0, 0, 2]))}, 1).to_json()
    )
    without, given = report(source), report(source, plan=tmp_path / "plan.json")
    assert (without.uniform_levels, given.uniform_levels) == (4, 8)
    assert given.normalised_steps.mean > without.normalised_steps.mean


def test_samples_are_of_data(folder: Path) -> None:
    with pytest.raises(CompileError, match="only the first 5 samples are asked for, but there is no data"):
        report(folder / "net.snn.onnx", limit=5)
    assert report(folder / "net.snn.onnx", batch=5).layers == report(folder / "net.snn.onnx").layers


def test_what_is_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(CompileError, match="cannot be read"):
        report(tmp_path / "missing.onnx")
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "relu",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
    )
    relu = write(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "r.onnx"
    )
    with pytest.raises(CompileError, match="no layer of this network spikes") as error:
        report(relu)
    assert error.value.hint
    np.savez(tmp_path / "bad.npz", x=np.zeros((2, 3), np.float32))
    with pytest.raises(CompileError, match="shape"):
        report(folder / "net.snn.onnx", tmp_path / "bad.npz")
    (tmp_path / "plan.json").write_text('{"layers": [{"name": "other", "levels": 2}]}')
    with pytest.raises(CompileError, match="does not have") as error:
        report(folder / "net.snn.onnx", plan=tmp_path / "plan.json")
    assert (error.value.node, error.value.file) == ("other", str(tmp_path / "plan.json"))


def test_layers_of_unknown_size_are_refused(tmp_path: Path) -> None:
    b = Builder()
    x = b.qcfs(b.conv(b.input("image", ["N", 2, "H", "W"]), "conv", (2, 4)), "act", 4)
    model = b.model({"out": b.node("GlobalAveragePool", [x], "pool")}, ("N", 4, 1, 1))
    with pytest.raises(CompileError, match="not known") as error:
        report(write(model, tmp_path / "a.onnx"))
    assert "fixed input size" in error.value.hint


@pytest.mark.parametrize(("mode", "reads"), [("nearest", "spikes"), ("linear", "currents")])
def test_resized_spikes(tmp_path: Path, mode: str, reads: str) -> None:
    b = Builder()
    x = b.qcfs(b.conv(b.input("image", ["N", 2, 6, 6]), "conv1", (2, 2)), "act1", 4)
    x = b.node("Resize", [x, "", b.constant("scales", [1.0, 1.0, 2.0, 2.0])], "resize", mode=mode)
    x = b.qcfs(b.conv(x, "conv2", (2, 4)), "act2", 4)
    model = b.model({"out": b.node("GlobalAveragePool", [x], "pool")}, ("N", 4, 1, 1))
    assert by_name(report(write(model, tmp_path / "a.onnx")))["conv2"].reads == reads
