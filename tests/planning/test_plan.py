"""pascalc.plan: what excludes what is the same in Python and on the command line, and so are the files that come out.

A message is compared as it is, so that it names the same things in both.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import pascalc
from pascalc.al import Plan
from pascalc.cli import main
from pascalc.errors import CompileError
from pascalc.inspector import inspect
from pascalc.planning.plan import OPTIONS
from pascalc.planning.planner import correct_levels
from tests.small_networks import images, residual_network, write

NAMES = ["stem", "left", "join", "deep", "hidden"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write(residual_network(), tmp_path / "model.onnx")
    np.savez(tmp_path / "data.npz", image=images(60), y=np.random.default_rng(0).integers(0, 5, 60))
    (tmp_path / "plan.json").write_text('{"layers": [{"name": "left", "levels": 1}]}')
    (tmp_path / "h.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


#: Every parameter with a value, in Python and on the command line.
VALUES: dict[str, tuple[Any, str | None]] = {
    "clusters": (2, "2"),
    "budget": (0.2, "20%"),
    "steps": (2.5, "2.5"),
    "plan": ("plan.json", "plan.json"),
    "levels": ([4, 1], "4,1"),
    "calibration": ("data.npz", "data.npz"),
    "histograms": (["h.json"], "h.json"),
    "correct": (True, None),
    "workers": (2, "2"),
    "dask": ("tcp://127.0.0.1:1", "tcp://127.0.0.1:1"),
}
#: What is given, and which of it, or of what lacks, the message names.
WRONG = [
    ("clusters budget calibration", "clusters budget"),
    ("clusters steps calibration", "clusters steps"),
    ("budget steps calibration", "budget steps"),
    ("clusters budget steps", "clusters budget steps"),
    ("plan clusters", "plan clusters"),
    ("plan budget calibration", "plan budget"),
    ("plan steps calibration", "plan steps"),
    ("levels", "levels clusters"),
    ("levels budget calibration", "levels clusters"),
    ("levels steps calibration", "levels clusters"),
    ("levels plan", "levels clusters"),
    ("histograms", "histograms clusters"),
    ("histograms budget calibration", "histograms clusters"),
    ("histograms steps calibration", "histograms clusters"),
    ("histograms plan", "histograms clusters"),
    ("histograms clusters calibration", "histograms calibration"),
    ("histograms clusters correct", "correct calibration"),
    ("budget", "budget calibration"),
    ("steps", "steps calibration"),
    ("correct", "correct calibration"),
    ("correct clusters", "correct calibration"),
    ("correct plan", "correct calibration"),
    ("", "clusters budget steps"),
    ("calibration", "calibration clusters budget steps"),
    ("calibration correct", "calibration correct clusters budget steps"),
    ("workers calibration", "workers calibration clusters budget steps"),
    ("dask", "dask clusters budget steps"),
]


def commands(parameters: list[str]) -> list[str]:
    """The commands that have these parameters as options, and do not do without."""
    options = {name: {p.name for p in main.commands[name].params} for name in ("plan", "compile")}
    return [name for name in options if set(parameters) <= options[name] and (parameters or name == "plan")]


def arguments(parameters: list[str]) -> list[str]:
    return [text for p in parameters for text in (OPTIONS[p], VALUES[p][1]) if text is not None]


@pytest.mark.parametrize(("given", "named"), WRONG)
def test_what_does_not_go_together(folder: Path, given: str, named: str) -> None:
    parameters, before = given.split(), sorted(folder.iterdir())
    with pytest.raises(CompileError) as caught:
        pascalc.plan("model.onnx", **{p: VALUES[p][0] for p in parameters})
    for parameter in named.split():
        assert f"{parameter} ({OPTIONS[parameter]})" in str(caught.value)
    for command in commands(parameters):
        result = CliRunner().invoke(main, [command, "model.onnx", "-o", "out", *arguments(parameters)])
        assert (result.exit_code, result.output) == (2, f"pascalc: {caught.value}\n")
    assert commands(parameters) or {"plan", "histograms"} <= set(parameters)
    assert sorted(folder.iterdir()) == before


def test_workers_of_nothing_are_refused_alike(folder: Path) -> None:
    for given in ("clusters workers", "plan dask", "clusters calibration workers dask"):
        parameters = given.split()
        with pytest.raises(CompileError, match=r"both given|no data for workers") as caught:
            pascalc.plan("model.onnx", **{p: VALUES[p][0] for p in parameters})
        for command in commands(parameters):
            result = CliRunner().invoke(main, [command, "model.onnx", "-o", "out", *arguments(parameters)])
            assert (result.exit_code, result.output) == (2, f"pascalc: {caught.value}\n")


def test_options_are_called_as_messages_call_them() -> None:
    for name in ("plan", "compile"):
        found = {p.name: p.opts[0] for p in main.commands[name].params}
        assert {p: option for p, option in OPTIONS.items() if p in found} == {
            p: option for p, option in found.items() if p in OPTIONS
        }
    assert set(OPTIONS) <= {p.name for name in ("plan", "compile") for p in main.commands[name].params}


ASKED = ["clusters levels", "steps", "plan"]


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("correct", [False, True])
def test_python_alone_writes_the_files_of_the_command_line(folder: Path, asked: str, correct: bool) -> None:
    parameters = [*asked.split(), "calibration", *(["correct"] if correct else [])]
    options = ["-o", "cli.onnx", "--save-ann", "cli-ann.onnx", "--json", "-"]
    result = CliRunner().invoke(main, ["compile", "model.onnx", *options, *arguments(parameters)])
    assert result.exit_code == 0, result.output
    planned = pascalc.plan("model.onnx", **{p: VALUES[p][0] for p in parameters})
    made = pascalc.compile("model.onnx", "api.onnx", levels=planned, save_ann="api-ann.onnx")
    for name in ("onnx", "ann.onnx"):
        separator = "." if name == "onnx" else "-"
        assert Path(f"api{separator}{name}").read_bytes() == Path(f"cli{separator}{name}").read_bytes()
    assert json.loads(result.output)["al"] == planned.to_json()
    assert planned.effects is not None
    assert (planned.correction is not None) == (planned.effects.corrected is not None) == correct
    assert made.verifiable
    assert pascalc.verify("api-ann.onnx", "api.onnx", "data.npz").equivalent


def test_a_plan_made_with_a_correction_is_compiled_with_it(folder: Path) -> None:
    planned = pascalc.plan("model.onnx", clusters=1, levels=[1], calibration="data.npz", correct=True)
    assert planned.correction is not None
    assert planned.correction.as_pass() is not None
    made = pascalc.compile("model.onnx", "o.onnx", levels=planned)
    assert inspect("o.onnx").metadata["pascalc.correction"] == planned.correction.method
    assert (made.ann, made.verifiable) == (None, False)
    made = pascalc.compile("model.onnx", "o.onnx", levels=planned, save_ann="ann.onnx")
    assert (made.ann, made.verifiable) == (Path("ann.onnx"), True)
    made = pascalc.compile("model.onnx", "plain.onnx", levels=planned.plan)
    assert "pascalc.correction" not in inspect("plain.onnx").metadata
    assert (made.ann, made.verifiable) == (None, True)
    with pytest.raises(CompileError, match="the plan holds a correction, and another was given"):
        pascalc.compile("model.onnx", "two.onnx", levels=planned, correction=planned.correction)
    assert not Path("two.onnx").exists()


def test_a_correction_belongs_to_its_levels(folder: Path) -> None:
    planned = pascalc.plan("model.onnx", plan="plan.json", calibration="data.npz", correct=True)
    pascalc.compile("model.onnx", "same.onnx", levels=planned.levels, correction=planned.correction)
    before = set(folder.iterdir())
    for levels in ({"left": 2}, {"left": 1, "stem": 2}, None):
        with pytest.raises(CompileError, match=r"the correction was fitted at L = ., and the network is compiled at"):
            pascalc.compile("model.onnx", "o.onnx", levels=levels, correction=planned.correction, save_ann="a.onnx")
    assert set(folder.iterdir()) == before


def test_what_was_asked_for_is_not_stopped_before(folder: Path) -> None:
    planned = pascalc.plan("model.onnx", plan="plan.json", calibration="data.npz", correct=True)
    before = set(folder.iterdir())
    for options, stop, left_out in (
        ({"levels": planned}, "recognise-qcfs", "annotate-al, apply-correction"),
        ({"levels": planned}, "annotate-al", "apply-correction"),
        ({"levels": planned.plan, "save_ann": "a.onnx"}, "infer-shapes", "annotate-al"),
        ({"levels": planned.plan, "dynamic_batch": True}, "annotate-al", "free-batch"),
        ({"dynamic_batch": True}, "fold-constants", "free-batch"),
    ):
        with pytest.raises(CompileError, match=f"to stop after {stop} leaves out what was asked for: {left_out}. Give"):
            pascalc.compile("model.onnx", "o.onnx", stop_after=stop, dump_ir="ir", **options)
    assert set(folder.iterdir()) == before
    pascalc.compile("model.onnx", "o.onnx", levels=planned, stop_after="apply-correction", save_ann="a.onnx")
    for file in ("o.onnx", "a.onnx"):
        assert {n.name: n.levels for n in inspect(file).neurons}["left"] == 1
    pascalc.compile("model.onnx", "o.onnx", stop_after="infer-shapes", save_ann="a.onnx")


def test_a_plan_in_memory_is_that_of_its_file(folder: Path) -> None:
    read = pascalc.plan("model.onnx", plan="plan.json", calibration="data.npz", correct=True)
    given = pascalc.plan("model.onnx", plan=Plan.read("plan.json"), calibration="data.npz", correct=True)
    assert {**given.to_json(), "statistics": ""} == {**read.to_json(), "statistics": ""}
    assert (given.statistics, read.statistics) == ("a plan that was given", "read from plan.json")


def test_a_plan_that_changes_nothing_has_no_effect(folder: Path) -> None:
    same = Plan.from_json('{"layers": [{"name": "left", "levels": 8}]}')
    unchanged = pascalc.plan("model.onnx", plan=same, calibration="data.npz", correct=True)
    assert not unchanged.requantised
    assert unchanged.effects is None
    assert unchanged.correction is not None
    assert unchanged.correction.as_pass() is None
    assert correct_levels("model.onnx", "data.npz", {}).method == "none"


def test_a_plan_of_another_network_is_refused_before_anything_is_measured(folder: Path) -> None:
    other = Plan.from_json('{"layers": [{"name": "rihgt", "levels": 3}]}')
    with pytest.raises(CompileError, match=r"^model.onnx: the plan names 'rihgt'"):
        pascalc.plan("model.onnx", plan=other, calibration="missing.npz")


def test_what_is_no_plan_is_refused(folder: Path) -> None:
    with pytest.raises(CompileError, match="'plan' must be a path"):
        pascalc.plan("model.onnx", plan={"left": 1})
    with pytest.raises(CompileError, match="'histograms' must be a list of paths"):
        pascalc.plan("model.onnx", clusters=2, histograms="h.json")


def test_progress_is_of_every_pass(folder: Path) -> None:
    told: list[tuple[int, int]] = []
    asked = {"clusters": 2, "calibration": "data.npz", "correct": True}
    pascalc.plan("model.onnx", **asked, progress=lambda done, total: told.append((done, total)))
    assert [pair for pair in told if pair[0] == pair[1]] == [(60, 60), (5, 5), (60, 60)]
