"""The plain integrate-and-fire neuron, which is not lossless: from its kernel to what verify says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import helper

import pascalc
from pascalc.cli import main
from pascalc.errors import CompileError
from pascalc.ops import DOMAIN
from pascalc.runtime import InferenceSession
from pascalc.runtime.kernels.integrate_and_fire import integrate_and_fire, integrate_and_fire_counted
from tests.helpers import run
from tests.runtime.networks import adversarial_currents, model
from tests.runtime.test_executors import EXECUTORS, THRESHOLDS, onnxruntime
from tests.small_networks import Array, images, residual_network, write


def one_neuron(threshold: Any, steps: int, levels: int = 4, phi: float = 0.5) -> bytes:
    options = {"levels": levels, "steps_in": steps, "steps_out": steps, "phi": phi, "label": "act"}
    node = helper.make_node("IF", ["X", "theta"], ["Y"], domain=DOMAIN, **options)
    return model([node], ["Y"], {"theta": threshold}).SerializeToString()


def simulate(currents: Array, threshold: np.float32, phi: float) -> Array:
    """One neuron in scalar Python, its membrane in units of a spike."""
    steps = len(currents)
    gain, unit = np.float32(steps) / threshold, threshold / np.float32(steps)
    total, count, train = np.float32(0), 0, []
    for current in currents:
        total = np.float32(total + current)
        fires = np.float32(np.float32(total * gain) + np.float32(phi)) >= count + 1
        count += bool(fires)
        train.append(unit if fires else np.float32(0))
    return np.array(train, np.float32)


@pytest.mark.parametrize("threshold", THRESHOLDS.values(), ids=THRESHOLDS.keys())
@pytest.mark.parametrize(("steps", "phi"), [(1, 0.5), (4, 0.5), (7, 0.0), (32, 0.5)])
def test_every_executor_gives_the_same_bits(threshold: Array, steps: int, phi: float) -> None:
    network = one_neuron(threshold, steps, phi=phi)
    x = adversarial_currents(np.random.default_rng(0), steps, (5, 3, 4, 4), 1.7 / steps)
    expected = onnxruntime("native")(network, x)
    assert expected.shape == x.shape
    assert not np.isnan(expected).any()
    for name, execute in EXECUTORS.items():
        assert execute(network, x).tobytes() == expected.tobytes(), name


@pytest.mark.parametrize("steps", [1, 2, 5, 16])
@np.errstate(all="ignore")
def test_the_kernel_is_the_scalar_simulation(steps: int) -> None:
    threshold = np.float32(1.7)
    x = adversarial_currents(np.random.default_rng(steps), steps, (80,), 1.7 / steps)
    options = {"levels": 4, "steps_in": steps, "steps_out": steps, "phi": 0.5}
    train, events = integrate_and_fire_counted(x, np.array(threshold), **options)
    by_step = x.reshape(steps, 80)
    expected = np.stack([simulate(by_step[:, n], threshold, 0.5) for n in range(80)], axis=1)
    np.testing.assert_array_equal(train.reshape(steps, 80), expected)
    assert (events.neurons, events.inhibitory) == (80, 0)
    assert events.excitatory == events.emitted == np.count_nonzero(expected)


def test_a_constant_current_gives_the_level_of_qcfs() -> None:
    total = np.linspace(-1, 3, 401, dtype=np.float32)
    steps = 8
    x = np.tile(total / 8, steps)
    train = integrate_and_fire(x, np.array(2, np.float32), levels=8, steps_in=steps, steps_out=steps, phi=0.5)
    level = np.clip(np.floor(total * 4 + 0.5), 0, 8)
    count = np.count_nonzero(train.reshape(steps, -1), axis=0)
    half_points = np.abs(total * 4 + 0.5 - np.rint(total * 4 + 0.5)) < 1e-5
    np.testing.assert_array_equal(count[~half_points], level[~half_points])


def test_trains_of_two_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="not 3 for 4"):
        integrate_and_fire(
            np.zeros((4, 2), np.float32), np.array(1, np.float32), levels=4, steps_in=4, steps_out=3, phi=0.5
        )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("if")
    write(residual_network(), folder / "source.onnx")
    np.savez(folder / "data.npz", image=images(40))
    return folder


@pytest.mark.parametrize("steps", [1, 4, 8, 64])
def test_verify_passes_the_translation_and_reports_the_error(steps: int, folder: Path) -> None:
    result = pascalc.compile(folder / "source.onnx", folder / "out.onnx", neuron="if", steps=steps)
    assert {(n.steps_in, n.steps_out) for n in result.network.neurons} == {(steps, steps)}
    for data in (folder / "data.npz", None):
        verified = pascalc.verify(folder / "source.onnx", folder / "out.onnx", data, seed=28)
        assert verified.translated, verified.findings()
        assert verified.lossy
        assert not verified.equivalent
        assert all(layer.root_mismatches == 0 and layer.most == steps for layer in verified.layers)
    values = pascalc.verify(folder / "source.onnx", folder / "out.onnx", folder / "data.npz").to_json()
    errors = [layer["conversion_error"] for layer in values["layers"]]
    assert (values["equivalent"], values["translated"], values["lossy"]) == (False, True, True)
    assert all(0 <= error < 0.6 for error in errors)
    assert max(errors) > 0.01
    assert all(layer["own_error"] <= 0.6 for layer in values["layers"])


def test_the_error_falls_with_the_steps_to_that_of_the_levels(folder: Path) -> None:
    """Many steps approach the clipped ReLU, of which QCFS is a step function with an error of a quarter of a level."""

    def error(steps: int) -> float:
        pascalc.compile(folder / "source.onnx", folder / "out.onnx", neuron="if", steps=steps)
        result = pascalc.verify(folder / "source.onnx", folder / "out.onnx", folder / "data.npz")
        return float(np.mean([layer.conversion_error for layer in result.layers]))

    assert error(128) < error(16) < error(2)


def test_conversion_errors_are_those_of_the_trains(folder: Path) -> None:
    pascalc.compile(folder / "source.onnx", folder / "out.onnx", neuron="if", steps=4)
    pascalc.compile(folder / "source.onnx", folder / "right.onnx")
    feeds = {"image": images(40)}
    trains, right = (InferenceSession(folder / name).trace(feeds) for name in ("out.onnx", "right.onnx"))
    result = pascalc.verify(folder / "source.onnx", folder / "out.onnx", folder / "data.npz")
    for layer in result.layers:
        values = trains[layer.name].sum(0) / 4, right[layer.name].sum(0) / layer.levels
        if values[0].shape != values[1].shape:
            assert layer.name in ("stem", "deep")  # a PASC neuron fires before its MaxPool
            continue
        assert layer.conversion_error == pytest.approx(float(np.mean(np.abs(values[0] - values[1]))), rel=1e-3)


@pytest.mark.parametrize("change", ["weight", "phi", "steps", "threshold"])
def test_a_wrong_translation_is_found(change: str, folder: Path) -> None:
    pascalc.compile(folder / "source.onnx", folder / "out.onnx", neuron="if", steps=4)
    broken = onnx.load(folder / "out.onnx")
    neuron = next(n for n in broken.graph.node if n.op_type == "IF" and n.name.startswith("left"))
    if change == "phi":
        next(a for a in neuron.attribute if a.name == "phi").f = 0.25
    elif change == "steps":
        next(a for a in neuron.attribute if a.name == "steps_out").i = 3
    else:
        layer = next(n for n in broken.graph.node if n.name == "conv3")
        name = neuron.input[1] if change == "threshold" else layer.input[1]
        tensor = next(t for t in broken.graph.initializer if t.name == name)
        tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) * np.float32(1.01), name))
    for data in (folder / "data.npz", None):
        verified = pascalc.verify(folder / "source.onnx", write(broken, folder / "broken.onnx"), data)
        assert not verified.translated
        assert not verified.equivalent


def test_one_lossy_neuron_in_a_lossless_network_is_no_equivalence(folder: Path) -> None:
    """Whatever the file says of itself."""
    pascalc.compile(folder / "source.onnx", folder / "if.onnx", neuron="if", steps=4)
    entry = next(p for p in onnx.load(folder / "if.onnx").metadata_props if p.key == "pascalc.neuron")
    assert entry.value == "if"
    changed = onnx.load(folder / "if.onnx")
    next(p for p in changed.metadata_props if p.key == "pascalc.neuron").value = "pasc"
    verified = pascalc.verify(folder / "source.onnx", write(changed, folder / "changed.onnx"), folder / "data.npz")
    assert not verified.equivalent


def test_its_own_operations_are_counted(folder: Path) -> None:
    pascalc.compile(folder / "source.onnx", folder / "out.onnx", neuron="if", steps=6)
    result = pascalc.report(folder / "out.onnx", folder / "data.npz")
    layers = [layer for layer in result.layers if layer.neuron]
    assert [layer.stage_operations for layer in layers] == [(6 * layer.neurons,) for layer in layers]
    assert all(layer.code == "rate" and layer.inhibitory == 0 for layer in layers)
    assert all(layer.excitatory == layer.emitted for layer in layers)
    assert result.paper_steps.mean == 6  # r_E is 1: it is what PASC is compared with
    evaluated = pascalc.evaluate(folder / "out.onnx", folder / "data.npz")
    assert [layer.spike_rate for layer in evaluated.layers] == pytest.approx([layer.output_rate for layer in layers])


def test_a_maxpool_is_computed_on_sums(folder: Path) -> None:
    """The maximum of rate-coded trains is not that of every step."""
    result = pascalc.compile(folder / "source.onnx", folder / "out.onnx", neuron="if", steps=4)
    assert any(line.startswith("maxpool2") for line in result.network.not_spiking)
    (given,) = run(onnx.load(folder / "out.onnx"), {"image": images(8)})
    assert given.shape == (8, 5)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"neuron": "if"}, "needs a number of steps"),
    ({"neuron": "if", "steps": 0}, "must be 1 to 255, not 0"),
    ({"neuron": "if", "steps": 256}, "must be 1 to 255, not 256"),
    ({"neuron": "pasc", "steps": 4}, "has no steps to choose"),
    ({"neuron": "if", "steps": 4, "schedule": "collapsed"}, "the collapsed schedule has no time"),
    ({"neuron": "lif"}, "there is no neuron model 'lif'"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_options_that_do_not_go_together(options: dict[str, Any], message: str, folder: Path) -> None:
    with pytest.raises(CompileError, match=message) as caught:
        pascalc.compile(folder / "source.onnx", folder / "refused.onnx", **options)
    assert caught.value.hint or "255" in message


@pytest.mark.parametrize("options", [{"neuron": "if"}, {"steps": 4}])
def test_a_missing_option_is_named_as_in_python_and_on_the_command_line(options: dict[str, Any], folder: Path) -> None:
    with pytest.raises(CompileError, match=r"steps \(--steps\)"):
        pascalc.compile(folder / "source.onnx", folder / "refused.onnx", **options)
    assert not (folder / "refused.onnx").exists()


def test_on_the_command_line(folder: Path) -> None:
    source, out = str(folder / "source.onnx"), str(folder / "out.onnx")
    compiled = CliRunner().invoke(main, ["compile", source, "-o", out, "--neuron", "if", "--steps", "4"])
    assert compiled.exit_code == 0
    assert "layers of if neurons" in compiled.output
    verified = CliRunner().invoke(main, ["verify", source, out, "--data", str(folder / "data.npz")])
    assert verified.exit_code == 0
    assert verified.output.strip().splitlines()[-1].startswith("translated")
    assert "conversion error" in verified.output
    refused = CliRunner().invoke(main, ["compile", source, "--neuron", "if"])
    assert (refused.exit_code, "--steps" in refused.output) == (2, True)
