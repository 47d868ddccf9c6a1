"""The command line: every command and option, the names in its JSON, its exit status, and the same words in Python."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from click.testing import CliRunner

import pascalc
from pascalc.al.plan import LayerPlan, Plan
from pascalc.cli import main
from pascalc.cli.output import progress_bar
from pascalc.inspector import inspect
from pascalc.ops import Pasc
from pascalc.passes import SCHEDULES, UNROLLED
from pascalc.runtime import InferenceSession
from pascalc.tables import counted
from tests.small_networks import images, residual_network, write

NEURONS = ["stem", "left", "join", "deep", "hidden"]
LEVELS = [4, 8, 2, 4, 3]
SAMPLES = 6
PROCESS = [sys.executable, "-c", "from pascalc.cli import main; main()"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("cli")
    source = write(residual_network(), place / "model.onnx")
    labels = InferenceSession(source).run(None, {"image": images(SAMPLES)})[0].argmax(1)
    labels[0] = (labels[0] + 1) % 5
    np.savez(place / "data.npz", image=images(SAMPLES), y=labels)
    pascalc.compile(source, place / "snn.onnx")
    return place


def run(*arguments: object, status: int = 0) -> str:
    """What a command prints; nothing on stderr, and no control characters: it is not a terminal."""
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == status, result.output
    assert result.stderr == ""
    assert "\x1b" not in result.stdout
    assert "\r" not in result.stdout
    return result.stdout


def run_json(*arguments: object) -> Any:
    """The report on stdout, which holds nothing else."""
    return json.loads(run(*arguments, "--json", "-"))


# --- compile ------------------------------------------------------------------------------------------------------


def test_compile_beside_the_model(folder: Path, tmp_path: Path) -> None:
    source = write(residual_network(), tmp_path / "model.onnx")
    text = run("compile", source)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx", "model.snn.onnx"]
    assert (tmp_path / "model.snn.onnx").read_bytes() == (folder / "snn.onnx").read_bytes()
    assert text.splitlines() == [
        f"{source} -> {tmp_path / 'model.snn.onnx'}",
        "5 layers of pasc neurons, unrolled; levels 4,8,2,4,3, 0.1 M multiply-accumulates a sample, "
        "71% of them on trains of spikes",
    ]


def test_compile_json(folder: Path, tmp_path: Path) -> None:
    values = run_json("compile", folder / "model.onnx", "-o", tmp_path / "out.onnx")
    assert values["source"] == str(folder / "model.onnx")
    assert values["output"] == str(tmp_path / "out.onnx")
    assert [n["name"] for n in values["neurons"]] == NEURONS
    assert [n["steps_in"] for n in values["neurons"]] == [1, 4, 8, 2, 4]
    assert [n["steps_out"] for n in values["neurons"]] == LEVELS
    assert [p["name"] for p in values["passes"]] == [p.name() for p in UNROLLED]
    assert all(set(p) == {"name", "rewrites", "seconds"} for p in values["passes"])
    assert (values["not_spiking"], values["notes"]) == ([], [])


def test_compile_json_into_a_file_leaves_the_text(folder: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    text = run("compile", folder / "model.onnx", "-o", tmp_path / "out.onnx", "--json", report)
    assert text.startswith(f"{folder / 'model.onnx'} -> ")
    assert [n["levels"] for n in json.loads(report.read_text())["neurons"]] == LEVELS


def test_compile_collapsed(folder: Path, tmp_path: Path) -> None:
    text = run(
        "compile", folder / "model.onnx", "-o", tmp_path / "out.onnx", "--schedule", "collapsed", "--neuron", "pasc"
    )
    assert "5 layers of pasc neurons, collapsed" in text
    operators = {n.op_type for n in onnx.load(tmp_path / "out.onnx").graph.node if n.domain == "ai.pascalc"}
    assert operators == {"QCFS"}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_dump_ir_writes_one_readable_file_a_pass(schedule: str, folder: Path, tmp_path: Path) -> None:
    ir = tmp_path / "new" / "ir"
    run("compile", folder / "model.onnx", "-o", tmp_path / "out.onnx", "--dump-ir", ir, "--schedule", schedule)
    names = [f"{i:02d}-{p.name()}.onnxtxt" for i, p in enumerate(SCHEDULES[schedule](Pasc()), 1)]
    assert sorted(p.name for p in ir.iterdir()) == names
    models = [onnx.parser.parse_model((ir / name).read_text()) for name in names]
    for model in models:
        onnx.checker.check_model(model)
    kinds = [sum(n.op_type in ("QCFS", "PascIF") for n in m.graph.node) for m in models]
    assert kinds == [0, 0, *[5] * (len(names) - 2)]


@pytest.mark.parametrize(
    ("stop", "present", "absent"),
    [("infer-shapes", "Floor", "QCFS"), ("recognise-qcfs", "QCFS", "Floor"), ("sink-maxpool", "QCFS", "PascIF")],
)
def test_stop_after_writes_the_network_as_it_is(
    stop: str, present: str, absent: str, folder: Path, tmp_path: Path
) -> None:
    out, ir = tmp_path / "out.onnx", tmp_path / "ir"
    run("compile", folder / "model.onnx", "-o", out, "--stop-after", stop, "--dump-ir", ir)
    operators = [n.op_type for n in onnx.load(out).graph.node]
    assert operators.count(present) == 5
    assert absent not in operators
    assert max(p.name for p in ir.iterdir()).endswith(f"-{stop}.onnxtxt")
    expected = InferenceSession(folder / "model.onnx").run(None, {"image": images(3)})
    actual = InferenceSession(out).run(None, {"image": images(3)})
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_timing_and_explain(folder: Path, tmp_path: Path) -> None:
    text = run("compile", folder / "model.onnx", "-o", tmp_path / "out.onnx", "--timing", "--explain")
    assert "Nothing was refused." in text
    rows = [line.split() for line in text.splitlines() if line.endswith(" ms")]
    assert [row[0] for row in rows] == [p.name() for p in UNROLLED]
    assert {row[0]: int(row[1]) for row in rows}["recognise-qcfs"] == 5


def test_explain_tells_what_does_not_spike(tmp_path: Path) -> None:
    model = residual_network()
    pool = next(n for n in model.graph.node if n.name == "avgpool")
    pool.op_type = "LpPool"
    source = write(model, tmp_path / "model.onnx")
    text = run("compile", source, "--explain")
    assert "Computed, not spiking (1): avgpool: LpPool: LpPool has no spiking form" in text
    assert "unroll-time" in text.split("why")[1]
    assert run_json("inspect", tmp_path / "model.snn.onnx")["not_spiking"] == [
        "avgpool: LpPool: LpPool has no spiking form"
    ]


# --- verify, eval, inspect, passes --------------------------------------------------------------------------------


def test_verify_json(folder: Path) -> None:
    values = run_json("verify", folder / "model.onnx", folder / "snn.onnx", "--data", folder / "data.npz", "--batch", 4)
    assert values["equivalent"] is True
    assert values["samples"] == SAMPLES
    assert values["argmax_mismatches"] == 0
    assert values["source_self_mismatches"] == 0
    assert 0 <= values["max_abs_output_diff"] < 1e-5
    fields = {"name", "levels", "steps_in", "steps_out", "neurons"}
    fields |= {"root_mismatches", "count_mismatches", "max_root_margin"}
    assert all(fields <= set(x) for x in values["layers"])
    assert [(x["name"], x["levels"], x["steps_out"]) for x in values["layers"]] == list(
        zip(NEURONS, LEVELS, LEVELS, strict=True)
    )
    assert [x["neurons"] for x in values["layers"]] == [SAMPLES * n for n in (216, 216, 216, 72, 16)]


def test_verify_of_the_first_samples(folder: Path) -> None:
    arguments = ["verify", folder / "model.onnx", folder / "snn.onnx", "--data", folder / "data.npz", "--limit", 2]
    assert run_json(*arguments)["samples"] == 2
    text = run(*arguments)
    assert text.splitlines()[-1] == "equivalent"
    assert "2 samples, 1472 neurons: 0 root mismatches" in text
    assert "disturbed inputs: 8 samples" in text


@pytest.mark.parametrize(("options", "samples"), [((), 32), (("--limit", 3), 3), (("--limit", 40), 40)])
def test_verify_of_random_samples(options: tuple[Any, ...], samples: int, folder: Path) -> None:
    values = run_json("verify", folder / "model.onnx", folder / "snn.onnx", *options)
    assert (values["samples"], values["data"]) == (samples, False)
    assert values["layers"][0]["neurons"] == samples * 216


def test_verify_of_a_broken_network_has_status_1(folder: Path, tmp_path: Path) -> None:
    model = onnx.load(folder / "snn.onnx")
    next(n for n in model.graph.node if n.name == "avgpool").op_type = "MaxPool"
    broken, report = write(model, tmp_path / "broken.onnx"), tmp_path / "report.json"
    arguments = ["verify", folder / "model.onnx", broken, "--data", folder / "data.npz", "--seed", "7"]
    assert run(*arguments, "--json", report, status=1).splitlines()[-1] == "NOT equivalent: hidden"
    values = json.loads(report.read_text())
    assert (values["equivalent"], values["first_difference"]) == (False, "hidden")
    assert values == json.loads(run(*arguments, "--json", "-", status=1))


def test_verify_of_a_wrong_pair_says_so_before_what_follows_from_it(folder: Path, tmp_path: Path) -> None:
    other = write(residual_network(1), tmp_path / "other.onnx")
    lines = run("verify", other, folder / "snn.onnx", "--data", folder / "data.npz", status=1).splitlines()
    told = lines.index(f"the file says that it was compiled from another file than {other}")
    assert any(line.startswith("root: ") for line in lines)
    findings = [i for i, line in enumerate(lines) if line.startswith(("root: ", *(f"{name}: " for name in NEURONS)))]
    assert told < min(findings)


@pytest.mark.parametrize("name", ["model.onnx", "snn.onnx"])
@pytest.mark.parametrize("kernels", ["native", "numpy"])
def test_eval_json(name: str, kernels: str, folder: Path) -> None:
    values = run_json("eval", folder / name, "--data", folder / "data.npz", "--kernels", kernels)
    assert {"samples", "top1", "seconds", "layers"} <= set(values)
    assert (values["samples"], values["top1"]) == (SAMPLES, (SAMPLES - 1) / SAMPLES)
    assert values["seconds"] > 0
    assert [x["name"] for x in values["layers"]] == NEURONS
    assert all({"name", "levels", "steps_out", "spike_rate"} <= set(x) for x in values["layers"])


def test_eval_text(folder: Path) -> None:
    text = run("eval", folder / "snn.onnx", "--data", folder / "data.npz", "--limit", 5, "--batch", 2)
    assert "5 samples: accuracy 80.00%, " in text.splitlines()[-1]


@pytest.mark.parametrize("name", ["model.onnx", "snn.onnx"])
def test_inspect_json(name: str, folder: Path) -> None:
    values = run_json("inspect", folder / name)
    assert values["inputs"] == ["image: float[Nx2x12x12]"]
    assert values["outputs"] == ["logits: float[Nx5]"]
    assert values["not_spiking"] == []
    assert [n["name"] for n in values["neurons"]] == NEURONS
    fields = {"name", "theta", "levels", "steps_in", "steps_out", "fan_in"}
    assert all(fields <= set(n) for n in values["neurons"])
    assert [n["levels"] for n in values["neurons"]] == LEVELS
    convolutions = 6 * 2 * 9 * 144 + 2 * 6 * 6 * 9 * 36 + 8 * 6 * 9 * 36
    assert values["macs"] == convolutions + 32 * 16 + 16 * 5


def test_passes(folder: Path) -> None:
    values = run_json("passes")
    assert {name: [p["name"] for p in passes] for name, passes in values.items()} == {
        name: [p.name() for p in passes(Pasc())] for name, passes in SCHEDULES.items()
    }
    lines = run("passes").splitlines()
    assert len(lines) == sum(len(passes(Pasc())) for passes in SCHEDULES.values())
    assert "Replace every form of the QCFS activation by one explicit operator: " in run("passes")


def test_one_of_something(folder: Path) -> None:
    data = ["--data", folder / "data.npz", "--limit", 1]
    assert "\n1 sample, 736 neurons: 0 root mismatches, " in run(
        "verify", folder / "model.onnx", folder / "snn.onnx", *data
    )
    assert "1 sample: accuracy" in run("eval", folder / "snn.onnx", *data)
    assert "measured on 1 sample\n" in run("report", folder / "snn.onnx", *data)
    assert (counted(0, "node"), counted(1, "mismatch", "mismatches")) == ("0 nodes", "1 mismatch")


def test_the_help_calls_a_number_n() -> None:
    for name in main.commands:
        assert "RANGE" not in run(name, "--help")
        assert "INTEGER" not in run(name, "--help")


def test_help_and_version() -> None:
    assert run("--version") == f"pascalc, version {pascalc.__version__}\n"
    overview = run("--help")
    for command in main.commands:
        assert f"\n  {command}" in overview
        assert "Usage: " in run(command, "--help")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_shows_every_pass_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress_bar("planning") as progress:
        shown = []
        for done, total in [(30, 60), (60, 60), (1, 5), (2, 5), (5, 5)]:
            progress(done, total)
            shown.append(re.findall(r"\d+%", sys.stderr.getvalue())[-1])
    assert shown == ["50%", "100%", "20%", "40%", "100%"]


# --- as a process, and in Python ----------------------------------------------------------------------------------


def test_a_process_is_quiet_when_piped(folder: Path) -> None:
    command = [*PROCESS, "eval", str(folder / "snn.onnx"), "--data", str(folder / "data.npz")]
    result = subprocess.run([*command, "--json", "-"], capture_output=True, text=True, timeout=100)
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout)["samples"] == SAMPLES


def test_it_runs_as_a_module(folder: Path) -> None:
    command = [sys.executable, "-m", "pascalc", "inspect", str(folder / "snn.onnx"), "--json", "-"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert json.loads(result.stdout) == run_json("inspect", folder / "snn.onnx")
    usage = subprocess.run([*command[:3], "-h"], capture_output=True, text=True, timeout=100)
    assert usage.stdout.startswith("Usage: pascalc [OPTIONS]")


def test_a_reader_that_goes_away_is_no_error(folder: Path) -> None:
    command = [*PROCESS, "inspect", str(folder / "snn.onnx")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(100) != 0


def test_the_python_api_gives_the_same_reports(folder: Path, tmp_path: Path) -> None:
    source, snn, data = folder / "model.onnx", folder / "snn.onnx", folder / "data.npz"
    assert pascalc.inspect(snn).to_json() == run_json("inspect", snn)
    shown = run_json("verify", source, snn, "--data", data, "--seed", "7")
    assert pascalc.verify(source, snn, data, seed=7).to_json() == shown
    mine, shown = pascalc.evaluate(snn, data).to_json(), run_json("eval", snn, "--data", data)
    assert {**mine, "seconds": 0} == {**shown, "seconds": 0}
    mine = pascalc.compile(source, tmp_path / "out.onnx").to_json()
    shown = run_json("compile", source, "-o", tmp_path / "out.onnx")
    for values in (mine, shown):
        for row in values["passes"]:
            row["seconds"] = 0
    assert mine == shown


def test_the_python_api_raises_one_error(folder: Path, tmp_path: Path) -> None:
    none = str(tmp_path / "none.onnx")
    for call in (
        lambda: pascalc.compile(none),
        lambda: pascalc.inspect(none),
        lambda: pascalc.evaluate(none, "d.npz"),
        lambda: pascalc.verify(none, none, "d.npz"),
        lambda: pascalc.compile(folder / "model.onnx", tmp_path / "o.onnx", schedule="both"),
        lambda: pascalc.compile(folder / "model.onnx", tmp_path / "o.onnx", neuron="lif"),
        lambda: pascalc.evaluate(folder / "snn.onnx", folder / "data.npz", limit=0),
        lambda: pascalc.evaluate(folder / "snn.onnx", folder / "data.npz", batch=0),
        lambda: pascalc.verify(folder / "model.onnx", folder / "snn.onnx", folder / "data.npz", batch=0),
    ):
        with pytest.raises(pascalc.CompileError):
            call()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "way"),
    [
        (onnx.ModelProto(), "onnx.save"),
        (np.zeros((2, 3)), "numpy.savez"),
        ({"x": np.zeros(2)}, "numpy.savez"),
        ([np.zeros(2)], "numpy.savez"),
        (Plan((LayerPlan(name="a", levels=2),)), "plan.to_json"),
        (SimpleNamespace(state_dict=dict), "pascalc.train.export"),
        (b"model.onnx", "as text or a pathlib.Path"),
        (None, "as text or a pathlib.Path"),
        (7, "as text or a pathlib.Path"),
    ],
    ids=lambda x: type(x).__name__,
)
def test_what_is_no_path_is_refused_wherever_the_api_is_entered(
    given: Any, way: str, folder: Path, tmp_path: Path
) -> None:
    model, snn, data = folder / "model.onnx", folder / "snn.onnx", folder / "data.npz"
    out = tmp_path / "out.onnx"
    calls: dict[str, Callable[[], Any]] = {
        "source": lambda: pascalc.compile(given, out),
        "path": lambda: pascalc.inspect(given),
        "compiled": lambda: pascalc.verify(model, given, data),
        "calibration": lambda: pascalc.plan_by_budget(model, given, 0.1),
    }
    if given is not None:  # which is no output, no data
        calls |= {
            "output": lambda: pascalc.compile(model, given),
            "save_ann": lambda: pascalc.compile(model, out, save_ann=given),
            "dump_ir": lambda: pascalc.compile(model, out, dump_ir=given),
            "data": lambda: pascalc.report(snn, data=given),
            "plan": lambda: pascalc.report(snn, plan=given),
            "shards": lambda: pascalc.plan_by_metric(model, 2, shards=[given]),
        }
    for name, call in calls.items():
        with pytest.raises(pascalc.CompileError, match=f"'{name}' must be a .*, not") as caught:
            call()
        assert way in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "kind", "wrong"),
    [
        ("compile.steps", "a whole number", [2.5, "4", True, np.float64(4)]),
        ("compile.neuron", "text", [1, None, b"if"]),
        ("compile.dynamic_batch", "True or False", [1, "yes", None]),
        ("compile.correction", "a Correction", ["mean shift", {}]),
        ("plan.clusters", "a whole number", [2.0, "2", True]),
        (
            "plan.levels",
            "a list of whole numbers",
            [np.array([8, 4]), 8, {8: 4}, {8, 4}, "84", [8.5, 4], [True], [None]],
        ),
        ("plan.budget", "a number", ["1%", False, [0.1], np.array(0.1)]),
        ("plan.steps", "a number", ["2", True]),
        ("plan.batch", "a whole number", [2.5, "3", None]),
        ("plan.workers", "a whole number", ["2", 1.5]),
        ("plan.dask", "text", [1]),
        ("plan.progress", "a function", ["yes"]),
        ("verify.limit", "a whole number", ["8"]),
        ("verify.seed", "a whole number", [0.5]),
        ("evaluate.kernels", "'native' or 'numpy'", ["cuda", 1]),
    ],
)
def test_what_is_of_another_kind_is_refused_wherever_the_api_is_entered(
    name: str, kind: str, wrong: list[Any], folder: Path, tmp_path: Path
) -> None:
    function, parameter = name.split(".")
    model, data = folder / "model.onnx", folder / "data.npz"
    paths: dict[str, tuple[Any, ...]] = {
        "compile": (model, tmp_path / "o.onnx"),
        "plan": (model,),
        "verify": (model, folder / "snn.onnx", data),
        "evaluate": (model, data),
    }
    for value in wrong:
        with pytest.raises(pascalc.CompileError) as caught:
            getattr(pascalc, function)(*paths[function], **{parameter: value})
        assert str(caught.value).startswith(f"'{parameter}' must be {kind}, not ")
    assert list(tmp_path.iterdir()) == []


def test_numbers_of_numpy_are_numbers(folder: Path, tmp_path: Path) -> None:
    model, data, out = folder / "model.onnx", folder / "data.npz", tmp_path / "o.onnx"
    options = {"clusters": np.int64(2), "levels": [np.uint8(4), np.int32(1)], "batch": np.int16(7)}
    planned = pascalc.plan(model, calibration=data, **options)
    assert planned == pascalc.plan(model, calibration=data, clusters=2, levels=(4, 1), batch=7)
    pascalc.plan(model, calibration=data, steps=np.float32(2.5), correct=np.False_)
    pascalc.plan(model, calibration=data, steps=np.int64(3))
    given = {"stem": np.int64(2), "left": 2}
    found = pascalc.compile(model, out, neuron="if", steps=np.int64(4), levels=given).network.neurons
    assert [n.levels for n in found][:2] == [2, 2]
    for levels, message in (
        ({0: 2}, "the plan names 0"),
        ({None: 2}, "the plan names None"),
        ({"stem": np.True_}, "got True"),
        ({"stem": np.float32(2)}, "got 2.0"),
    ):
        with pytest.raises(pascalc.CompileError, match=message):
            pascalc.compile(model, out, levels=levels)


def test_calls_that_do_not_fit_read_as_those_of_python(folder: Path) -> None:
    model = folder / "model.onnx"
    calls: list[tuple[Callable[[], Any], str]] = [
        (lambda: pascalc.compile(model, clusters=3), r"compile\(\) got an unexpected keyword argument 'clusters'"),
        (lambda: pascalc.compile(model, source=model), r"compile\(\) got multiple values for argument 'source'"),
        (lambda: pascalc.inspect(model, model), r"inspect\(\) got too many positional arguments"),
        (lambda: pascalc.evaluate(model), r"evaluate\(\) missing a required argument: 'data'"),
    ]
    for call, message in calls:
        with pytest.raises(TypeError, match=f"^{message}$"):
            call()


def test_every_path_of_the_api_is_known_as_one(folder: Path) -> None:
    with pytest.raises(pascalc.CompileError, match="'shards' must be a list of paths, not str"):
        pascalc.plan_by_metric(folder / "model.onnx", 2, shards=str(folder / "model.onnx"))
    with pytest.raises(pascalc.CompileError, match="'data' must be a path"):
        pascalc.evaluate(folder / "model.onnx", None)
    with pytest.raises(TypeError, match="data"):
        pascalc.evaluate(folder / "model.onnx")
    assert pascalc.compile is pascalc.compile
    assert pascalc.inspect.__doc__ == inspect.__doc__
