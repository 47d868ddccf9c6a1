"""Planning by what the network answers: outputs of every shape, budgets and steps that mean nothing, other networks."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

import pascalc
from pascalc.cli import main
from pascalc.errors import CompileError
from pascalc.planning import planner
from pascalc.planning.sensitivity import Search
from pascalc.runtime import InferenceSession
from tests.small_networks import Builder, rows, write


def network(shape: tuple[int, ...], outputs: int = 5) -> onnx.ModelProto:
    b = Builder(7)
    x = b.qcfs(b.gemm(b.input("x", ["N", 6]), "fc1", (6, 12)), "act", 8, 1.5)
    x = b.gemm(x, "fc2", (12, outputs))
    x = b.node("Reshape", [x, b.constant("shape", [-1, *shape], np.int64)], "reshape")
    return b.model({"out": x}, ("N", *shape))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(network((5,)), tmp_path / "plain.onnx")
    scores = InferenceSession(tmp_path / "plain.onnx").run(None, {"x": rows(40)})[0]
    labels = scores.argmax(1)
    labels[:12] = (labels[:12] + 1) % 5
    np.savez(tmp_path / "data.npz", x=rows(40), y=labels)
    return tmp_path


@pytest.mark.parametrize("shape", [(5,), (5, 1, 1), (1, 1, 5)])
def test_one_accuracy_in_eval_and_in_planning(shape: tuple[int, ...], folder: Path) -> None:
    source, data = write(network(shape), folder / "model.onnx"), folder / "data.npz"
    expected = pascalc.evaluate(source, data).top1
    assert expected == 0.7
    before, after = planner.measure_effect(source, data, {"act": 2})
    assert (before.accuracy, before.agreement) == (expected, 1)
    plain, requantised = planner.measure_effect(folder / "plain.onnx", data, {"act": 2})
    assert (plain, requantised) == (before, after)
    assert 0 < (after.agreement or 0) < 1
    shown = CliRunner().invoke(main, ["plan", str(source), "--al-steps", "3", "--calib", str(data)])
    assert "accuracy 70.00% -> " in shown.output


def test_eval_takes_no_map_of_scores_for_a_class(folder: Path) -> None:
    source = write(network((5, 2, 1), 10), folder / "model.onnx")
    with pytest.raises(CompileError, match="no class for every sample"):
        pascalc.evaluate(source, folder / "data.npz")
    _, effect = planner.measure_effect(source, folder / "data.npz", {"act": 2})
    assert effect.accuracy is None
    assert 0 < (effect.agreement or 0) < 1


@pytest.mark.parametrize("shape", [(1,), ()])
def test_what_does_not_classify_has_no_agreement(shape: tuple[int, ...], folder: Path) -> None:
    """Its one value is the largest at any L, which says nothing."""
    source, data = write(network(shape, 1), folder / "model.onnx"), folder / "data.npz"
    for effect in planner.measure_effect(source, data, {"act": 1}):
        assert (effect.samples, effect.agreement, effect.divergence, effect.accuracy) == (40, None, None, None)
    with pytest.raises(CompileError, match="no class for every sample"):
        pascalc.evaluate(source, data)
    for option, value in (("--al-budget", "1%"), ("--al-steps", "2")):
        done = CliRunner().invoke(main, ["plan", str(source), option, value, "--calib", str(data)])
        assert done.exit_code == 2
        assert "model.onnx: its output 'out' is no classification" in done.stderr
        assert "--al-clusters" in done.stderr
    done = CliRunner().invoke(
        main, ["plan", str(source), "--al-clusters", "1", "--al-levels", "2", "--correct", "--calib", str(data)]
    )
    assert done.exit_code == 0, done.output
    assert "the output is no classification" in done.output
    assert "Corrected (none)" in done.output


def test_one_number_for_a_whole_batch_is_no_classification(folder: Path) -> None:
    b = Builder(7)
    x = b.qcfs(b.gemm(b.input("x", ["N", 6]), "fc1", (6, 12)), "act", 8, 1.5)
    source = write(b.model({"out": b.node("ReduceMean", [x], "mean", keepdims=0)}, ()), folder / "model.onnx")
    for effect in planner.measure_effect(source, folder / "data.npz", {"act": 1}):
        assert (effect.samples, effect.agreement) == (40, None)


@pytest.mark.parametrize("budget", [2.0, 1.0, -0.1, math.nan, math.inf])
def test_budgets_that_are_no_share(budget: float, folder: Path) -> None:
    source, data = folder / "plain.onnx", folder / "data.npz"
    with pytest.raises(CompileError, match=r"a budget is the share of classifications that may change.*; got") as error:
        planner.plan_by_budget(source, data, budget)
    assert "1%" in error.value.hint
    with pytest.raises(CompileError, match="a budget is the share"):
        Search(source, data).within(budget)
    for text in (f"{budget}", f"{100 * budget}%"):
        done = CliRunner().invoke(main, ["plan", str(source), "--al-budget", text, "--calib", str(data)])
        assert done.exit_code == 2
        assert "is not a percentage from 0% to below 100%, such as 0.5%" in done.stderr


@pytest.mark.parametrize("steps", [0.0, -1.0, math.nan, math.inf])
def test_steps_that_are_no_number_of_steps(steps: float, folder: Path) -> None:
    source, data = folder / "plain.onnx", folder / "data.npz"
    with pytest.raises(CompileError, match="effective time steps must be a positive number"):
        planner.plan_by_steps(source, data, steps)
    with pytest.raises(CompileError, match="effective time steps must be a positive number"):
        Search(source, data).at_most(steps)
    done = CliRunner().invoke(main, ["plan", str(source), "--al-steps", str(steps), "--calib", str(data)])
    assert done.exit_code == 2
    assert "internal error" not in done.stderr


def test_more_steps_than_the_source_takes(folder: Path) -> None:
    source, data = folder / "plain.onnx", folder / "data.npz"
    assert planner.plan_by_steps(source, data, 1e300).levels == {"act": 8}


def test_a_plan_for_a_network_without_activations(folder: Path) -> None:
    b = Builder()
    source = write(b.model({"y": b.gemm(b.input("x", ["N", 6]), "fc", (6, 5))}), folder / "linear.onnx")
    (folder / "plan.json").write_text('{"layers": [{"name": "act", "levels": 2}]}')
    done = CliRunner().invoke(main, ["compile", str(source), "--plan", str(folder / "plan.json")])
    assert done.exit_code == 2
    assert "no QCFS activation" in done.stderr
    assert not (folder / "linear.snn.onnx").exists()
