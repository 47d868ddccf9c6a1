"""plan and compile at a plan, as commands: sources of histograms, plan files, corrections, and bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

import pascalc
from pascalc.al import Plan, histograms
from pascalc.cli import main
from pascalc.compiler import compile_model
from pascalc.errors import CompileError
from pascalc.inspector import inspect
from pascalc.planning.calibrate import measure
from pascalc.planning.planner import correct_levels, plan_by_metric
from pascalc.runtime import InferenceSession
from tests.small_networks import Builder, images, residual_network, write

NAMES = ["stem", "left", "join", "deep", "hidden"]
LEVELS = [4, 8, 2, 4, 3]


def bn_network() -> onnx.ModelProto:
    """[N, 2, 8, 8] to three logits: two convolutions with BatchNormalization and QCFS of 4 levels, a linear layer."""
    b = Builder(5)
    x = b.batch_norm(b.conv(b.input("x", ["N", 2, 8, 8]), "conv1", (2, 6)), "bn1", 6)
    x = b.qcfs(x, "first", 4, 1.5)
    x = b.batch_norm(b.conv(x, "conv2", (6, 6)), "bn2", 6)
    x = b.qcfs(x, "second", 4, 0.7)
    x = b.node("GlobalAveragePool", [x], "pool")
    x = b.node("Flatten", [x], "flatten")
    return b.model({"logits": b.gemm(x, "fc", (6, 3))}, ("N", 3))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(residual_network(), tmp_path / "model.onnx")
    write(bn_network(), tmp_path / "bn.onnx")
    logits = InferenceSession(tmp_path / "model.onnx").run(None, {"image": images(60)})[0]
    np.savez(tmp_path / "data.npz", x=images(60), y=logits.argmax(1))
    return tmp_path


def run(*arguments: object, status: int = 0) -> str:
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == status, result.output
    return result.output


def levels(path: Path) -> dict[str, int]:
    return {n.name: n.levels for n in inspect(path).neurons}


# --- sources of histograms ---------------------------------------------------------------------------------------


def test_measured_histograms(folder: Path) -> None:
    model, data, plan = folder / "model.onnx", folder / "data.npz", folder / "plan.json"
    shown = run("plan", model, "--al-clusters", 3, "--calib", data, "-o", plan)
    assert "measured on data.npz" in shown
    assert "accuracy 100.00% -> " in shown
    read = Plan.read(plan)
    assert [layer.name for layer in read.layers] == NAMES
    assert {x.name: x.histogram for x in read.layers} == measure(model, data)
    assert {layer.cluster for layer in read.layers} == {0, 1, 2}
    assert [x.levels for x in read.layers] == [
        n >> (x.cluster or 0) or 1 for n, x in zip(LEVELS, read.layers, strict=True)
    ]


def test_histograms_of_shards(folder: Path) -> None:
    model, whole = folder / "model.onnx", folder / "data.npz"
    for index, part in enumerate((slice(0, 25), slice(25, 60))):
        np.savez(folder / f"{index}.npz", x=images(60)[part])
        run("histogram", model, "--calib", folder / f"{index}.npz", "-o", folder / f"{index}.json")
    files = ["--histograms", folder / "0.json", "--histograms", folder / "1.json"]
    run("plan", model, "--al-clusters", 2, *files, "-o", folder / "a.json")
    run("plan", model, "--al-clusters", 2, "--calib", whole, "-o", folder / "b.json")
    assert (folder / "a.json").read_text() == (folder / "b.json").read_text()


def test_recorded_histograms_come_before_batch_normalization(folder: Path) -> None:
    recorded = {"first": [10, 0, 0, 0, 0], "second": [1, 2, 3, 4, 5]}
    model = onnx.load(folder / "bn.onnx")
    onnx.helper.set_model_props(model, {histograms.METADATA_KEY: json.dumps(recorded)})
    onnx.save(model, folder / "recorded.onnx")
    shown = run("compile", folder / "recorded.onnx", "--al-clusters", 2, "-o", folder / "o.onnx")
    assert "histograms recorded in the file" in shown
    assert levels(folder / "o.onnx") == {"first": 2, "second": 4}


def test_recorded_histograms_of_other_layers(folder: Path) -> None:
    model = onnx.load(folder / "bn.onnx")
    onnx.helper.set_model_props(model, {histograms.METADATA_KEY: '{"one": [1, 1, 1, 1, 1], "second": [1, 1, 1, 1, 1]}'})
    onnx.save(model, folder / "recorded.onnx")
    with pytest.raises(
        CompileError, match=r"recorded.onnx: these histograms are of another network: 1 of the 2 layers"
    ):
        plan_by_metric(folder / "recorded.onnx", 2)


def test_batch_normalization_needs_no_data(folder: Path) -> None:
    shown = run("compile", folder / "bn.onnx", "--al-clusters", 2, "--al-levels", "3,1", "-o", folder / "o.onnx")
    assert "BatchNormalization parameters in the file (no data)" in shown
    assert "not known without data" in shown
    assert sorted(levels(folder / "o.onnx").values()) == [1, 3]


def test_nothing_to_plan_from(folder: Path) -> None:
    b = Builder()
    x = b.qcfs(b.gemm(b.input("x", ["N", 4]), "fc", (4, 4)), "act", 4)
    write(b.model({"out": b.gemm(x, "fc2", (4, 2))}, ("N", 2)), folder / "bare.onnx")
    shown = run("compile", folder / "bare.onnx", "--al-clusters", 1, status=2)
    assert "nothing to compute AL metrics from" in shown
    assert "--calib DATA.npz" in shown
    assert not (folder / "bare.snn.onnx").exists()


# --- compiling at a plan -----------------------------------------------------------------------------------------


def test_a_plan_edited_by_hand(folder: Path) -> None:
    (folder / "plan.json").write_text('{"layers": [{"name": "left", "levels": 3}, {"name": "deep", "levels": 1}]}')
    data = folder / "data.npz"
    shown = run(
        "compile", folder / "model.onnx", "--plan", folder / "plan.json", "--calib", data, "-o", folder / "o.onnx"
    )
    assert "read from plan.json" in shown
    assert levels(folder / "o.onnx") == {"stem": 4, "left": 3, "join": 2, "deep": 1, "hidden": 3}
    run("verify", folder / "model.onnx", folder / "o.onnx", "--data", data, "--limit", 20)


@pytest.mark.parametrize("schedule", ["unrolled", "collapsed"])
@pytest.mark.parametrize("correct", [False, True])
def test_the_result_is_its_own_ann(folder: Path, schedule: str, correct: bool) -> None:
    model, data, ann, snn = (folder / name for name in ("model.onnx", "data.npz", "ann.onnx", "snn.onnx"))
    options = ["--al-clusters", 3, "--calib", data, "--schedule", schedule, "--save-ann", ann, "--json", "-"]
    report = json.loads(run("compile", model, "-o", snn, *options, *(["--correct"] if correct else [])))
    run("verify", ann, snn, "--data", data, "--limit", 30)
    given = InferenceSession(ann).run(None, {"image": images(60)})[0]
    expected = InferenceSession(model).run(None, {"image": images(60)})[0]
    agreement = np.mean(given.argmax(1) == expected.argmax(1))
    effect = report["al"]["correction"] if correct else report["al"]["effect"]["plan"]
    assert effect["agreement"] == pytest.approx(agreement, abs=0.02)
    assert report["al"]["levels"] == levels(snn) == levels(ann)


def test_what_is_corrected_says_so(folder: Path) -> None:
    model, data, ann, snn = (folder / name for name in ("model.onnx", "data.npz", "ann.onnx", "snn.onnx"))
    options = ["--al-clusters", 1, "--al-levels", 1, "--calib", data, "--correct"]
    text = run("compile", model, "-o", snn, *options)
    assert "--save-ann FILE keeps it" in text
    method = inspect(snn).metadata["pascalc.correction"]
    assert f"Corrected ({method})" in text
    said = f"the file says that it was corrected ({method}): compare it with the network that `compile --save-ann`"
    assert said in run("verify", model, snn, "--data", data, status=1)
    assert pascalc.verify(model, snn, data).corrected == method
    assert "--save-ann" not in run("compile", model, "-o", snn, *options, "--save-ann", ann)
    run("verify", ann, snn, "--data", data)
    assert pascalc.verify(ann, snn, data).corrected == ""
    # another network than the one that it was made from, which nobody has to be sent to
    write(residual_network(1), ann)
    assert said in run("verify", ann, snn, status=1)


def test_a_correction_shows_what_it_was_decided_by(folder: Path) -> None:
    options = ["--al-clusters", 1, "--al-levels", 1, "--calib", folder / "data.npz", "--correct"]
    found = json.loads(run("plan", folder / "model.onnx", *options, "--json", "-"))
    decided, plan = found["correction"]["decided"], found["effect"]["plan"]
    assert decided["samples"] == 30
    assert min(decided["divergence"], key=decided["divergence"].get) == found["correction"]["method"]
    text = run("plan", folder / "model.onnx", *options)
    assert f"divergence from it {plan['divergence']:.3g}; accuracy" in text
    assert f"divergence from it {found['correction']['divergence']:.3g}; accuracy" in text
    told = ", ".join(f"{name} {value:.3g}" for name, value in decided["divergence"].items())
    assert f"not of the best accuracy, on the 30 samples held out from the fit: {told}" in text


def test_a_plan_file_says_that_it_holds_no_correction(folder: Path) -> None:
    model, data, plan = folder / "model.onnx", folder / "data.npz", folder / "plan.json"
    options = ["--al-clusters", 1, "--al-levels", 1, "--calib", data]
    note = "holds the levels and not the correction, which `compile --plan` makes again"
    text = run("plan", model, *options, "--correct", "-o", plan)
    assert note in text
    assert note not in run("plan", model, *options, "-o", plan)
    assert note not in run("plan", model, *options, "--correct")
    # as it says
    corrected = run("compile", model, "--plan", plan, "--calib", data, "--correct", "-o", folder / "o.onnx")
    assert [x for x in text.splitlines() if x.startswith("Corrected")] == [
        x for x in corrected.splitlines() if x.startswith("Corrected")
    ]
    run("compile", model, "--plan", plan, "-o", folder / "o.onnx")
    assert "pascalc.correction" not in inspect(folder / "o.onnx").metadata


def test_what_is_not_corrected_does_not_say_so(folder: Path) -> None:
    model, data, snn = folder / "model.onnx", folder / "data.npz", folder / "snn.onnx"
    options = ["--al-clusters", 1, "--al-levels", 1, "--calib", data]
    assert "--save-ann" not in run("compile", model, "-o", snn, *options)
    assert "pascalc.correction" not in inspect(snn).metadata
    assert "says that it was corrected" not in run("verify", model, snn, "--no-trust", status=1)
    # stopped before the correction, it would say so of a network that is not
    stop = ["--correct", "--stop-after", "infer-shapes"]
    refused = run("compile", model, "-o", folder / "stopped.onnx", *options, *stop, status=2)
    assert "to stop after infer-shapes leaves out what was asked for: annotate-al, apply-correction." in refused
    assert "Give stop_after (--stop-after) apply-correction, or a later pass." in refused
    assert not (folder / "stopped.onnx").exists()
    # a compiled file is a source like any other, and it is not corrected anew
    run("compile", model, "-o", snn, *options, "--correct", "--schedule", "collapsed")
    assert "pascalc.correction" in inspect(snn).metadata
    run("compile", snn, "-o", folder / "again.onnx")
    assert "pascalc.correction" not in inspect(folder / "again.onnx").metadata


def test_a_correction_that_changes_nothing_is_none(folder: Path) -> None:
    found = correct_levels(folder / "model.onnx", folder / "data.npz", {})
    assert found.method == "none"


@pytest.mark.parametrize(
    "options", [["--al-budget", "20%"], ["--al-steps", "2.5"], ["--al-budget", "20%", "--correct"]]
)
def test_levels_by_sensitivity(folder: Path, options: list[str]) -> None:
    data = folder / "data.npz"
    values = json.loads(run("plan", folder / "model.onnx", *options, "--calib", data, "--json", "-"))
    steps = values["effective_steps"]
    assert steps["plan"]["paper"] <= (2.5 if "--al-steps" in options else steps["source"]["paper"])
    if "--al-budget" in options:
        assert values["correction" if "--correct" in options else "effect"] is not None
    compiled = json.loads(
        run("compile", folder / "model.onnx", *options, "--calib", data, "--json", "-", "-o", folder / "o.onnx")
    )
    assert compiled["al"]["levels"] == values["levels"] == levels(folder / "o.onnx")


@pytest.mark.parametrize(
    ("budget", "told"),
    [
        (
            "3.3%",
            "each half of the data has 30 samples, of which one is more than the budget of 3.3%, so that none may "
            "change: give 62 samples",
        ),
        ("0.7%", "more than the budget of 0.7%, so that none may change: give 286 samples"),
        ("0.05%", "more than the budget of 0.05%, so that none may change: more than 2000 samples are never looked at"),
        ("3.4%", ""),
        ("0%", ""),
    ],
)
def test_a_budget_below_one_sample(budget: str, told: str, folder: Path) -> None:
    options = ["--al-budget", budget, "--calib", folder / "data.npz"]
    text = run("plan", folder / "model.onnx", *options)
    assert f"at most {budget} of the classifications change" in text
    warnings = [line.removeprefix("Warning: ") for line in text.splitlines() if line.startswith("Warning: ")]
    assert len(warnings) == bool(told)
    assert all(told in warning for warning in warnings)
    assert json.loads(run("plan", folder / "model.onnx", *options, "--json", "-"))["warnings"] == warnings


def test_without_a_plan_nothing_is_said_of_one(folder: Path) -> None:
    report = json.loads(run("compile", folder / "model.onnx", "-o", folder / "o.onnx", "--json", "-"))
    assert "al" not in report


def test_the_ann_of_an_unchanged_network_is_the_source(folder: Path) -> None:
    compile_model(folder / "model.onnx", folder / "o.onnx", save_ann=folder / "ann.onnx")
    given, expected = (
        InferenceSession(folder / name).run(None, {"image": images(9)})[0] for name in ("ann.onnx", "model.onnx")
    )
    assert given == pytest.approx(expected, abs=1e-5)


# --- bad input ---------------------------------------------------------------------------------------------------

BAD: dict[str, tuple[list[Any], str]] = {
    "clusters": (["--al-clusters", 6, "--calib", "data.npz"], "has 5 QCFS layers"),
    "no cluster": (["--al-clusters", 0], "0 is not in the range"),
    "levels": (["--al-clusters", 3, "--al-levels", "4,1", "--calib", "data.npz"], "2 levels were given for 3 clusters"),
    "rising levels": (["--al-clusters", 2, "--al-levels", "1,4", "--calib", "data.npz"], "must not increase"),
    "no levels": (["--al-clusters", 2, "--al-levels", "4,0", "--calib", "data.npz"], "1..255"),
    "levels text": (["--al-clusters", 2, "--al-levels", "4;1"], "not a list of integers"),
    "levels alone": (["--al-levels", "4,1"], "levels (--al-levels) needs clusters (--al-clusters)"),
    "two ways": (["--al-clusters", 2, "--al-steps", 2.0, "--calib", "data.npz"], "exclude one another"),
    "budget text": (["--al-budget", "0.5", "--calib", "data.npz"], "not a percentage"),
    "budget of all": (["--al-budget", "100%", "--calib", "data.npz"], "not a percentage"),
    "budget NaN": (["--al-budget", "nan%", "--calib", "data.npz"], "not a percentage"),
    "budget without data": (["--al-budget", "1%"], "budget (--al-budget) needs calibration (--calib)"),
    "steps without data": (["--al-steps", "2"], "steps (--al-steps) needs calibration (--calib)"),
    "too few steps": (["--al-steps", "0.1", "--calib", "data.npz"], "cannot be reached"),
    "correct without data": (["--al-clusters", 2, "--correct"], "correct (--correct) needs calibration (--calib)"),
    "no data": (["--al-clusters", 2, "--calib", "missing.npz"], "cannot be read"),
}


@pytest.mark.parametrize("command", ["plan", "compile"])
@pytest.mark.parametrize("case", BAD)
def test_bad_options(folder: Path, monkeypatch: pytest.MonkeyPatch, command: str, case: str) -> None:
    monkeypatch.chdir(folder)
    options, message = BAD[case]
    before = sorted(folder.iterdir())
    shown = run(command, "model.onnx", "-o", "o", *options, status=2)
    assert message in " ".join(shown.split())
    assert sorted(folder.iterdir()) == before


def test_calibration_without_a_plan(folder: Path) -> None:
    run("compile", folder / "model.onnx", "--calib", folder / "data.npz", status=2)
    run("plan", folder / "model.onnx", status=2)
    files = ["--histograms", folder / "h.json", "--calib", folder / "data.npz"]
    assert "both given" in run("plan", folder / "model.onnx", "--al-clusters", 2, *files, status=2)


def test_compile_takes_what_planning_gives(folder: Path) -> None:
    model, data, out = folder / "model.onnx", folder / "data.npz", folder / "o.onnx"
    planned = pascalc.plan_by_metric(model, 1, [1], calibration=data)
    corrected = correct_levels(model, data, planned.levels)
    for given in (planned, planned.plan, planned.levels):
        pascalc.compile(model, out, levels=given, correction=corrected)
        assert levels(out) == planned.levels == dict.fromkeys(NAMES, 1)
        assert inspect(out).metadata["pascalc.correction"] == corrected.method
        assert ("pascalc.plan" in inspect(out).metadata) == (not isinstance(given, dict))
    out.unlink()
    for wrong in ([1, 1, 1, 1, 1], "plan.json", 2):
        with pytest.raises(CompileError, match=r"levels must be a plan.*Plan\.read"):
            pascalc.compile(model, out, levels=wrong)
    assert not out.exists()


def test_a_plan_of_unknown_layers(folder: Path) -> None:
    (folder / "plan.json").write_text('{"layers": [{"name": "rihgt", "levels": 3}]}')
    shown = run("compile", folder / "model.onnx", "--plan", folder / "plan.json", "-o", folder / "o.onnx", status=2)
    assert "model.onnx: the plan names 'rihgt'" in shown
    assert not (folder / "o.onnx").exists()


@pytest.mark.parametrize("name", ["model.onnx", "o.onnx"])
def test_the_ann_does_not_overwrite(folder: Path, name: str) -> None:
    before = (folder / "model.onnx").read_bytes()
    with pytest.raises(CompileError, match="would overwrite"):
        pascalc.compile(folder / "model.onnx", folder / "o.onnx", save_ann=folder / name)
    assert (folder / "model.onnx").read_bytes() == before
    assert not (folder / "o.onnx").exists()


def test_an_output_that_cannot_be_written_leaves_no_ann(folder: Path) -> None:
    with pytest.raises(CompileError, match="cannot be written"):
        pascalc.compile(folder / "model.onnx", folder / "no" / "o.onnx", save_ann=folder / "ann.onnx")
    assert not (folder / "ann.onnx").exists()
