"""Corrections: what can be recovered is recovered, and nothing is made worse on the samples that decide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pascalc.errors import CompileError
from pascalc.modelfile import load
from pascalc.planning import correction
from pascalc.planning.adjustable import AdjustableNetwork, Setting, effects
from pascalc.planning.correction import METHODS, _Table, fit
from pascalc.stream import SampleStream, open_samples
from tests.small_networks import images, residual_network, write


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("correction")
    write(residual_network(), place / "model.onnx")
    np.savez(place / "data.npz", x=images(120))
    return place


@pytest.fixture(scope="module")
def network(folder: Path) -> AdjustableNetwork:
    return AdjustableNetwork(folder / "model.onnx")


@pytest.fixture(scope="module")
def samples(folder: Path) -> SampleStream:
    return open_samples(folder / "data.npz", load(folder / "model.onnx"))


def table(given: np.ndarray[Any, Any], z: np.ndarray[Any, Any], levels: int) -> _Table:
    return _Table.of(z, np.clip(np.floor(z * levels + 0.5), 0, levels) / levels, given)


def test_an_unchanged_network_needs_no_correction(network: AdjustableNetwork, samples: SampleStream) -> None:
    found = fit(network, samples, {})
    (effect,) = effects(network, samples, [found.setting])
    assert effect.agreement == 1
    assert effect.divergence == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("levels", [{"left": 2}, {"stem": 1, "left": 3, "deep": 2}, {"left": 1, "hidden": 1}])
def test_the_divergence_never_grows(network: AdjustableNetwork, samples: SampleStream, levels: dict[str, int]) -> None:
    found = fit(network, samples, levels)
    _, held_out = samples.halves(correction.MOST_SAMPLES)
    plain, corrected = effects(network, held_out, [Setting(levels), found.setting])
    assert corrected.divergence <= plain.divergence
    # what it was decided by is told
    assert (found.samples, found.divergence["none"]) == (len(held_out), plain.divergence)
    assert found.divergence[found.method] == corrected.divergence == min(found.divergence.values())
    assert set(found.divergence) == {"none", *METHODS}
    assert (found.as_pass() is None) == (found.method == "none")
    assert found.setting.levels == {**network.levels, **levels}


def test_a_lost_shift_and_gain_are_found() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(0.3, 0.4, (4000, 3, 2))
    lost = np.array([0.1, -0.2, 0.0])
    given = z - lost.reshape(1, 3, 1)
    shift, theta = METHODS["mean shift"](table(given, z, 4), 4, 0.5)
    assert shift == pytest.approx(lost)
    assert theta == 1
    shift, theta = METHODS["shift and threshold of every channel"](table(given, z, 4), 4, 0.5)
    assert shift == pytest.approx(lost, abs=0.021)
    assert theta == pytest.approx(np.ones(3), abs=0.051)


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_the_search_finds_the_least_squared_error(levels: int) -> None:
    rng = np.random.default_rng(levels)
    z = rng.normal(0.3, 0.5, (5000, 1))
    given = z + rng.normal(0, 0.1, z.shape)
    shift, theta = METHODS["shift and threshold of every channel"](table(given, z, 4), levels, 0.5)
    h = np.clip(np.floor(z * 4 + 0.5), 0, 4) / 4

    def error(shift: float, theta: float) -> float:
        activation = np.clip(np.floor((given + shift) * levels / theta + 0.5), 0, levels) * theta / levels
        return float(((h - activation) ** 2).mean())

    best = min(error(s, t) for s in np.linspace(-0.3, 0.3, 31) for t in np.linspace(0.3, 1.2, 19))
    assert error(float(shift[0]), float(theta[0])) <= best * 1.02  # the table has bins
    assert best < error(0.0, 1.0)


def test_the_fit_does_not_depend_on_the_batch(network: AdjustableNetwork, samples: SampleStream) -> None:
    a, b = (fit(network, samples, {"left": 2}, batch=size).setting for size in (7, 60))
    for name in network.labels:
        assert a.shifts[name] == pytest.approx(b.shifts[name], abs=1e-5)


def test_one_sample_is_too_few(folder: Path, network: AdjustableNetwork, tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", x=images(1))
    with pytest.raises(CompileError, match="1 samples are too few"):
        fit(network, open_samples(tmp_path / "one.npz", load(folder / "model.onnx")), {"left": 2})
