"""Plans from measured sensitivity: the search against brute force, and plans that keep what they promise."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

import pascalc
from pascalc.answers import classes
from pascalc.errors import CompileError
from pascalc.modelfile import load
from pascalc.planning.adjustable import AdjustableNetwork, Setting, effects
from pascalc.planning.sensitivity import Search, candidate_levels
from pascalc.runtime import InferenceSession
from pascalc.stream import open_samples
from tests.small_networks import Builder, images, residual_network, write


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("sensitivity")
    source = write(residual_network(), place / "model.onnx")
    logits = InferenceSession(source).run(None, {"image": images(120)})[0]
    labels = logits.argmax(1)
    labels[:6] = (labels[:6] + 1) % 5
    np.savez(place / "data.npz", image=images(120), y=labels)
    return place


@pytest.fixture(scope="module")
def search(folder: Path) -> Search:
    return Search(folder / "model.onnx", folder / "data.npz")


def test_candidates() -> None:
    assert candidate_levels(16) == [16, 12, 8, 6, 4, 3, 2, 1]
    assert candidate_levels(4) == [4, 3, 2, 1]
    assert candidate_levels(1) == [1]
    for levels in range(1, 256):
        assert {1, levels} <= set(candidate_levels(levels)) <= set(range(1, levels + 1))


def test_the_source_is_itself(folder: Path) -> None:
    network = AdjustableNetwork(folder / "model.onnx")
    samples = open_samples(folder / "data.npz", load(folder / "model.onnx"))
    (source,) = effects(network, samples, [Setting()])
    assert (source.samples, source.agreement, source.accuracy) == (120, 1.0, 114 / 120)
    assert source.divergence == pytest.approx(0, abs=1e-12)


def test_an_effect_is_that_of_the_requantised_network(folder: Path) -> None:
    levels = {"stem": 2, "left": 3, "hidden": 1}
    plain = {"stem": 4, "left": 8, "join": 2, "deep": 4, "hidden": 3} | levels
    ann = folder / "ann.onnx"
    compiled = folder / "snn.onnx"
    pascalc.compile(folder / "model.onnx", compiled, levels=levels, save_ann=ann)
    assert pascalc.verify(ann, compiled, folder / "data.npz", limit=20).equivalent
    given = InferenceSession(ann).run(None, {"image": images(120)})[0]
    network = AdjustableNetwork(folder / "model.onnx")
    assert network.run({"image": images(120)}, Setting(plain)) == pytest.approx(given, abs=1e-4)
    samples = open_samples(folder / "data.npz", load(folder / "model.onnx"))
    (effect,) = effects(network, samples, [Setting(levels)], batch=7)
    expected = InferenceSession(folder / "model.onnx").run(None, {"image": images(120)})[0]
    assert effect.agreement == pytest.approx(np.mean(classes(given) == classes(expected)))


def test_divergence_does_not_depend_on_the_scale_or_the_batch(folder: Path, search: Search) -> None:
    samples = open_samples(folder / "data.npz", load(folder / "model.onnx"))
    setting = Setting({"join": 1})
    a, b = (effects(search.network, samples, [setting], batch=n)[0] for n in (7, 120))
    assert a.divergence == pytest.approx(b.divergence)


def test_plans_are_the_best_of_all(search: Search) -> None:
    choices = [[(name, level) for level in found] for name, found in search.divergence.items()]
    every = [dict(plan) for plan in itertools.product(*choices)]
    costs = [(search.steps(plan), sum(search.divergence[n][v] for n, v in plan.items())) for plan in every]
    for target in (1.5, 2.0, 2.7, 4.0):
        plan = search.at_most(target)
        assert search.steps(plan) <= target
        loss = sum(search.divergence[n][v] for n, v in plan.items())
        # costs are rounded up to 1/4000 of the target a layer
        assert loss <= min(d for cost, d in costs if cost <= target * (1 - 2e-3))


def test_steps_that_cannot_be_reached(search: Search) -> None:
    with pytest.raises(CompileError, match=r"0.5 effective time steps cannot be reached: .* takes \d"):
        search.at_most(0.5)


def test_the_fewest_steps_are_reached_and_not_exceeded(search: Search) -> None:
    fewest = dict.fromkeys(search.network.labels, 1)
    least = search.steps(fewest)
    for target in (least, np.nextafter(least, np.inf), 1.0001 * least):
        assert search.at_most(target) == fewest
    with pytest.raises(CompileError, match=r"cannot be reached: .* Give at least \d"):
        search.at_most(np.nextafter(least, 0))
    targets = np.linspace(least, 40, 200).tolist()
    for plan, target in zip(search._plans(targets), targets, strict=True):
        assert search.steps(plan) <= target


@pytest.mark.parametrize(("levels", "layers"), [(8, 1), (8, 3), (8, 5), (1, 2)])
def test_every_plain_network_has_a_plan_for_a_budget(tmp_path: Path, levels: int, layers: int) -> None:
    b = Builder()
    x = b.input("image", ["N", 2, 12, 12])
    for index in range(layers):
        x = b.qcfs(b.conv(x, f"conv{index}", (6 if index else 2, 6)), f"act{index}", levels)
    source = write(b.model({"logits": b.gemm(b.node("Flatten", [x], "flat"), "fc", (864, 5))}), tmp_path / "plain.onnx")
    np.savez(tmp_path / "data.npz", image=images(20))
    search = Search(source, tmp_path / "data.npz")
    for budget in (0.0, 0.01, 0.999):
        assert search.within(budget).agreement >= 1 - budget
    fewest = dict.fromkeys(search.network.labels, 1)
    assert fewest in [candidate.levels for candidate in search.frontier]


def test_the_frontier_ends_with_the_source(search: Search) -> None:
    steps = [candidate.steps for candidate in search.frontier]
    assert steps == sorted(steps)
    assert search.frontier[-1].levels == search.network.levels
    assert search.frontier[-1].agreement == 1


@pytest.mark.parametrize("correct", [False, True])
def test_budgets_are_kept_on_both_halves(search: Search, correct: bool) -> None:
    last = np.inf
    for budget in (0.0, 0.1, 0.3, 0.99):
        chosen = search.within(budget, correct=correct)
        assert min(chosen.searched.agreement, chosen.held_out.agreement) >= 1 - budget
        assert chosen.steps <= search.within(budget).steps
        if not correct:
            assert chosen.steps <= last
            last = chosen.steps


def test_halves_share_no_sample(search: Search) -> None:
    a, b = (next(f["image"] for f, *_ in half.batches(200)) for half in (search.searched, search.held_out))
    assert len(a) + len(b) == 120
    assert not any(np.array_equal(x, y) for x in a for y in b)


def test_one_sample_is_too_few(folder: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", image=images(1))
    with pytest.raises(CompileError, match="1 samples are too few"):
        Search(folder / "model.onnx", tmp_path / "one.npz")
