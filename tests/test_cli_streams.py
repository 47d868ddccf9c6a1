"""The command line and its streams: what goes to stdout, stdout that fails, odd paths, and names that are no text."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper

import pascalc
from pascalc.cli import main
from tests.small_networks import images, linear_network, residual_network, rows, write

PASCALC = [sys.executable, "-c", "from pascalc.cli import main; main(prog_name='pascalc')"]
ROOT = Path(__file__).parent.parent
STDOUT = ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("streams")
    write(residual_network(), folder / "model.onnx")
    pascalc.compile(folder / "model.onnx", folder / "snn.onnx")
    np.savez(folder / "data.npz", x=images(6), y=np.arange(6) % 5)
    return folder


def commands(built: Path, out: Path) -> dict[str, list[str]]:
    """One call of every command, and what it writes goes to ``out``."""
    model, snn, data = (str(built / name) for name in ("model.onnx", "snn.onnx", "data.npz"))
    return {
        "compile": ["compile", model, "-o", f"{out}/o.onnx", "--save-ann", f"{out}/a.onnx", "--al-clusters", "2"],
        "plan": ["plan", model, "--al-clusters", "2", "--calib", data, "-o", f"{out}/p.json"],
        "histogram": ["histogram", model, "--calib", data, "-o", f"{out}/h.json"],
        "verify": ["verify", model, snn, "--data", data],
        "eval": ["eval", model, "--data", data],
        "inspect": ["inspect", snn],
        "report": ["report", snn, "--data", data, "--html", f"{out}/r.html"],
        "reduce": ["reduce", model, "--fails", "false", "-o", f"{out}/r.onnx"],
        "passes": ["passes"],
        "help": ["compile", "--help"],
        "version": ["--version"],
    }


COMMANDS = list(commands(Path(), Path()))


def process(
    arguments: Sequence[object], stdout: int | IO[bytes] = subprocess.PIPE, cwd: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    command = [*PASCALC, *(a if isinstance(a, bytes) else str(a) for a in arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, timeout=100, cwd=cwd, env=environment)


def shell(command: str, cwd: Path) -> subprocess.CompletedProcess[bytes]:
    """A line for bash, in which ``pascalc`` is this one."""
    line = f'pascalc() {{ {shlex.join(PASCALC)} "$@"; }}\n{command}'
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(["bash", "-c", line], capture_output=True, timeout=100, cwd=cwd, env=environment)


def refused(*arguments: object) -> str:
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert "internal error" not in result.stderr
    return result.stderr


# --- stdout ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("redirected", [False, True])
@pytest.mark.parametrize("name", STDOUT)
def test_an_output_to_stdout_is_alone_there(name: str, redirected: bool, built: Path, tmp_path: Path) -> None:
    target = os.readlink("/dev/stdout")
    if redirected:
        with (tmp_path / "out").open("wb") as file:
            result = process(["compile", built / "model.onnx", "-o", name], stdout=file)
        content = (tmp_path / "out").read_bytes()
    else:
        result = process(["compile", built / "model.onnx", "-o", name])
        content = result.stdout
    assert result.returncode == 0
    assert content == (built / "snn.onnx").read_bytes()
    assert result.stderr.startswith(str(built / "model.onnx").encode() + b" -> stdout\n5 layers of pasc neurons")
    assert os.readlink("/dev/stdout") == target


@pytest.mark.parametrize("command", ["plan", "histogram", "report", "reduce"])
def test_every_output_may_go_to_stdout(command: str, built: Path, tmp_path: Path) -> None:
    arguments = commands(built, tmp_path)[command]
    said = process(arguments).stdout
    (written,) = tmp_path.iterdir()
    result = process(["-" if a == str(written) else a for a in arguments])
    assert (result.returncode, result.stdout) == (0, written.read_bytes())
    assert b"/dev/" not in result.stderr
    assert result.stderr.replace(b"stdout: ", str(written).encode() + b": ") == said


@pytest.mark.parametrize("name", STDOUT)
def test_the_report_to_stdout_by_any_name(name: str, built: Path) -> None:
    result = process(["inspect", built / "snn.onnx", "--json", name])
    assert json.loads(result.stdout) == pascalc.inspect(built / "snn.onnx").to_json()


@pytest.mark.parametrize("name", STDOUT)
def test_one_thing_at_most_to_stdout(name: str, built: Path) -> None:
    for more in (["--json", "-"], ["--save-ann", "/dev/stdout"]):
        assert f"-o and {more[0]} cannot both go to stdout" in refused(
            "compile", built / "model.onnx", "-o", name, *more
        )


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_stdout(command: str, built: Path, tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full:
        result = process(commands(built, tmp_path)[command], stdout=full)
    assert result.returncode == 2
    assert result.stderr == b"pascalc: stdout cannot be written: No space left on device.\n"
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("command", ["compile", "inspect", "help", "version"])
def test_a_reader_that_goes_away(command: str, built: Path, tmp_path: Path) -> None:
    """The process ends as any filter does, and with no status that means something else."""
    reader, writer = os.pipe()
    os.close(reader)
    result = process(commands(built, tmp_path)[command], stdout=writer)
    os.close(writer)
    assert (result.returncode, result.stderr) == (-signal.SIGPIPE, b"")


def test_a_network_into_a_pipe_that_nobody_reads(built: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    result = process(["compile", built / "model.onnx", "-o", "-"], stdout=writer)
    os.close(writer)
    assert result.returncode == -signal.SIGPIPE


def test_a_closed_stdout_is_refused_before_any_work(built: Path, tmp_path: Path) -> None:
    result = shell(f"pascalc compile {built / 'model.onnx'} -o out.onnx >&-", tmp_path)
    assert (result.returncode, list(tmp_path.iterdir())) == (2, [])
    assert result.stderr == b"pascalc: stdout is closed. Send it to /dev/null if it is not wanted.\n"


def test_closed_and_full_error_streams_keep_the_status(tmp_path: Path) -> None:
    for redirection in ("2>&-", "2>/dev/full", ">/dev/full 2>/dev/full", "<&-", "<&- 2>&-"):
        assert shell(f"pascalc inspect none.onnx {redirection}", tmp_path).returncode == 2
    assert shell("pascalc --unknown 2>/dev/full", tmp_path).returncode == 2


# --- files that a command must not destroy ---------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def test_no_file_of_a_command_is_written_over(built: Path, tmp_path: Path) -> None:
    for name in ("model.onnx", "snn.onnx", "data.npz"):
        (tmp_path / name).write_bytes((built / name).read_bytes())
    (tmp_path / "link").symlink_to("data.npz")
    (tmp_path / "hard.onnx").hardlink_to(tmp_path / "model.onnx")
    before = contents(tmp_path)
    model, snn, data, link, new = (tmp_path / n for n in ("model.onnx", "snn.onnx", "data.npz", "link", "new"))
    planning = ["--al-clusters", 2, "--calib", data]
    for arguments in (
        ["compile", model, *planning, "-o", data],
        ["compile", model, *planning, "-o", link],
        ["compile", model, "-o", tmp_path / "hard.onnx"],
        ["compile", model, *planning, "-o", new, "--save-ann", data],
        ["compile", model, "-o", new, "--save-ann", new],
        ["compile", model, "--json", tmp_path / "model.snn.onnx"],
        ["plan", model, *planning, "-o", data],
        ["plan", model, *planning, "-o", model],
        ["plan", model, "--al-clusters", 2, "--histograms", data, "--histograms", snn, "-o", snn],
        ["histogram", model, "--calib", data, "-o", data],
        ["report", snn, "--data", data, "--html", data],
        ["report", snn, "--data", data, "--html", snn],
        ["report", snn, "--html", new, "--json", new],
        ["reduce", model, "--fails", "false", "-o", model],
        ["reduce", model, "--fails", "false", "-o", new, "--json", new],
        ["verify", model, snn, "--data", data, "--json", snn],
    ):
        assert "would overwrite" in refused(*arguments)
        assert contents(tmp_path) == before


def external(folder: Path) -> Path:
    path = folder / "model.onnx"
    onnx.save(linear_network(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


def test_external_data_is_not_written_over(tmp_path: Path) -> None:
    model, weights = external(tmp_path), tmp_path / "weights.bin"
    np.savez(tmp_path / "data.npz", x=rows(4))
    before = contents(tmp_path)
    for arguments in (
        ["compile", model, "-o", weights],
        ["compile", model, "-o", tmp_path / "out.onnx", "--save-ann", weights],
        ["inspect", model, "--json", weights],
        ["histogram", model, "--calib", tmp_path / "data.npz", "-o", weights],
        ["reduce", model, "--fails", "false", "-o", weights],
    ):
        assert "would overwrite the weights of" in refused(*arguments)
    for call in (lambda: pascalc.compile(model, weights), lambda: pascalc.compile(model, save_ann=weights)):
        with pytest.raises(pascalc.CompileError, match="would overwrite the weights of"):
            call()
    assert contents(tmp_path) == before


def test_an_older_ann_survives_an_output_that_cannot_be_written(built: Path, tmp_path: Path) -> None:
    (tmp_path / "ann.onnx").write_bytes(b"older")
    (tmp_path / "out.onnx").mkdir()
    with pytest.raises(pascalc.CompileError, match="Is a directory"):
        pascalc.compile(built / "model.onnx", tmp_path / "out.onnx", save_ann=tmp_path / "ann.onnx")
    assert contents(tmp_path) == {"ann.onnx": b"older"}


def test_a_report_that_cannot_be_written_is_refused_before_any_work(built: Path, tmp_path: Path) -> None:
    message = refused("compile", built / "model.onnx", "-o", tmp_path / "out.onnx", "--json", tmp_path / "no" / "x")
    assert f"the output cannot be written: the folder {tmp_path / 'no'} does not exist" in message
    assert list(tmp_path.iterdir()) == []


def test_two_outputs_may_go_to_one_device(built: Path) -> None:
    result = CliRunner().invoke(
        main, ["compile", str(built / "model.onnx"), "-o", "/dev/null", "--json", "/dev/null", "--timing"]
    )
    assert result.exit_code == 0


# --- odd paths --------------------------------------------------------------------------------------------------------


def test_an_empty_path(built: Path) -> None:
    model, data = built / "model.onnx", built / "data.npz"
    for arguments in (
        ["inspect", ""],
        ["compile", model, "-o", ""],
        ["compile", model, "--dump-ir", ""],
        ["inspect", model, "--json", ""],
        ["eval", model, "--data", ""],
        ["verify", model, "", "--data", data],
        ["plan", model, "--histograms", ""],
    ):
        assert "the path is empty" in refused(*arguments)


@pytest.mark.parametrize("path", ["/", ".", ".."])
def test_a_directory_without_a_name(path: str) -> None:
    for arguments in (["compile", path], ["reduce", path, "--fails", "false"]):
        assert f"{path}: this is a directory" in refused(*arguments)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in ("passes", "help", "version")])
def test_pipes_and_devices_are_not_read(command: str, built: Path, tmp_path: Path) -> None:
    """As models and as data, at once: nothing waits for a writer, or reads without end."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        for which in ("model.onnx", "snn.onnx", "data.npz"):
            arguments = commands(built, tmp_path)[command]
            if str(built / which) in arguments:
                changed = [str(path) if a == str(built / which) else a for a in arguments]
                assert f"{path}: this is a pipe or a device" in refused(*changed)
    assert [p.name for p in tmp_path.iterdir()] == ["pipe"]


def test_a_plan_may_come_through_a_pipe(built: Path, tmp_path: Path) -> None:
    model = built / "model.onnx"
    line = f"pascalc plan {model} --al-clusters 2 -o - 2>plan.txt | pascalc compile {model} --plan /dev/stdin -o o.onnx"
    assert shell(line, tmp_path).returncode == 0
    assert (tmp_path / "o.onnx").exists()
    assert "device, not a plan" in refused("compile", model, "--plan", "/dev/zero", "-o", tmp_path / "o.onnx")


def test_paths_that_are_no_text(built: Path, tmp_path: Path) -> None:
    """Every command reads and writes them, and its report is still text."""
    folder = tmp_path / os.fsdecode(b"f\xff")
    folder.mkdir()
    for name in ("model.onnx", "snn.onnx", "data.npz"):
        (folder / os.fsdecode(b"\xe9" + name.encode())).write_bytes((built / name).read_bytes())
    for name, arguments in commands(built, folder).items():
        words = [a.replace(f"{built}/", f"{folder}/{os.fsdecode(bytes([0xE9]))}") for a in arguments]
        more = [] if name in ("histogram", "help", "version") else ["--json", "-"]
        result = CliRunner().invoke(main, [*words, *more])
        assert (result.exit_code, result.stderr) == (0, ""), name
        assert not more or json.loads(result.stdout)
    result = process([b"plan", os.fsencode(folder) + b"/\xe9model.onnx", "--al-clusters", "2"])
    assert (result.returncode, result.stderr) == (0, b"")
    result = process([b"inspect", b"none\xff.onnx"])
    assert (result.returncode, result.stderr.count(b"\n")) == (2, 1)
    assert result.stderr.startswith(b"pascalc: none\\udcff.onnx: the file cannot be read: No such file")


@pytest.mark.parametrize("value", ["nan", "inf", "0", "-1"])
def test_numbers_that_are_none(value: str, built: Path) -> None:
    data = ["--calib", built / "data.npz"]
    assert "Invalid value for '--al-steps'" in refused("plan", built / "model.onnx", "--al-steps", value, *data)
    assert "Invalid value for '--timeout'" in refused(
        "reduce", built / "model.onnx", "--fails", "false", "--timeout", value
    )


# --- names in the file -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hidden", "left", "image", "logits", "conv1.weight", "Conv", "OWNER", "avgpool"])
def test_a_name_that_is_no_text(name: str, tmp_path: Path) -> None:
    model = residual_network()
    model.metadata_props.add(key="OWNER", value="?")
    model.graph.doc_string = "?"
    content = model.SerializeToString()
    assert name.encode() in content
    (tmp_path / "model.onnx").write_bytes(content.replace(name.encode(), b"\xff" + name.encode()[1:]))
    np.savez(tmp_path / "data.npz", x=images(4))
    before = contents(tmp_path)
    for arguments in commands(tmp_path, tmp_path).values():
        if str(tmp_path / "model.onnx") in arguments and "--help" not in arguments:
            message = refused(*arguments)
            assert "a name in the file is not text in UTF-8 (node '" in message
            assert f"\\xff{name[1:]}" in message
    assert contents(tmp_path) == before


def test_descriptions_that_are_no_text_do_no_harm(tmp_path: Path) -> None:
    model = linear_network()
    for part in (model, model.graph, model.graph.node[0], model.graph.initializer[0], model.graph.input[0]):
        part.doc_string = "DESCRIPTION"
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString().replace(b"DESCRIPTION", b"caf\xe9 a lait"))
    pascalc.compile(tmp_path / "model.onnx")
    assert pascalc.inspect(tmp_path / "model.snn.onnx").neurons


def test_names_that_a_terminal_would_obey(tmp_path: Path) -> None:
    model = linear_network()
    for node in model.graph.node:
        node.name = node.name.replace("act", "\x1b[31mact")
        node.output[:] = [name.replace("logits", "a\nb\x1b[2J") for name in node.output]
    model.graph.output[0].name = "a\nb\x1b[2J"
    write(model, tmp_path / "model.onnx")
    result = CliRunner().invoke(main, ["inspect", str(tmp_path / "model.onnx")])
    assert result.exit_code == 0
    assert "\x1b" not in result.output
    assert "\\x1b[31mact" in result.stdout
    model.graph.node[0].op_type = "\x1b[2J\n"
    write(model, tmp_path / "model.onnx")
    message = refused("inspect", tmp_path / "model.onnx")
    assert "\x1b" not in message
    assert message.count("\n") == 1


def test_an_operator_of_another_version(built: Path, tmp_path: Path) -> None:
    model = onnx.load(built / "snn.onnx")
    for node in model.graph.node:
        node.op_type = "Accumulatf" if node.op_type == "Accumulate" else node.op_type
    onnx.save(model, tmp_path / "snn.onnx")
    assert "ai.pascalc has no operator Accumulatf" in refused("inspect", tmp_path / "snn.onnx")


@pytest.mark.parametrize("location", ["a\0b", "x" * 300, "loop", ".", "/"])
def test_external_data_under_an_odd_name(location: str, tmp_path: Path) -> None:
    model = external(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    proto = onnx.load(model, load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            entry.value = location if entry.key == "location" else entry.value
    model.write_bytes(proto.SerializeToString())
    assert "external data" in refused("compile", model)


# --- libraries --------------------------------------------------------------------------------------------------------


def with_foreign_constant(kind: int) -> onnx.ModelProto:
    """A network with a constant of a type that NumPy lacks, which passes read."""
    model = residual_network()
    graph = model.graph
    for node in graph.node:
        node.output[:] = ["scores" if name == "logits" else name for name in node.output]
    model.opset_import[0].version = 19
    graph.initializer.append(helper.make_tensor("odd", kind, [1], [1.0]))
    graph.node.append(helper.make_node("Cast", ["odd"], ["plain"], "cast", to=TensorProto.FLOAT))
    graph.node.append(helper.make_node("Add", ["scores", "plain"], ["logits"], "odd"))
    return model


@pytest.mark.parametrize("kind", [TensorProto.BFLOAT16, TensorProto.FLOAT8E4M3FN], ids=TensorProto.DataType.Name)
def test_json_alone_on_stdout(kind: int, built: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """graphsurgeon warns on stdout of types that NumPy lacks, wherever their values are first read."""
    model = write(with_foreign_constant(kind), tmp_path / "model.onnx")
    pascalc.compile(model, tmp_path / "snn.onnx")
    (tmp_path / "data.npz").write_bytes((built / "data.npz").read_bytes())
    assert capfd.readouterr() == ("", "")
    for name, arguments in commands(tmp_path, tmp_path).items():
        if name in ("histogram", "help", "version"):
            continue
        result = CliRunner().invoke(main, [*arguments, "--json", "-"])
        assert (result.exit_code, result.stderr) == (0, ""), name
        assert json.loads(result.stdout)
    assert capfd.readouterr() == ("", "")


def test_a_foreign_constant_keeps_its_type(tmp_path: Path) -> None:
    model = linear_network()
    values = helper.make_tensor("odd", TensorProto.BFLOAT16, [2], [1.5, -2.0])
    model.graph.initializer.append(values)
    model.graph.node.append(helper.make_node("Identity", ["odd"], ["same"], "keep"))
    model.graph.node.append(helper.make_node("Cast", ["x"], ["half"], "half", to=TensorProto.BFLOAT16))
    model.graph.node.append(helper.make_node("CastLike", ["half", "odd"], ["like"], "like"))
    model.graph.node.append(helper.make_node("Cast", ["like"], ["y"], "back", to=TensorProto.FLOAT))
    model.graph.output.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 6]))
    pascalc.compile(write(model, tmp_path / "model.onnx"), tmp_path / "out.onnx")
    (kept,) = (t for t in onnx.load(tmp_path / "out.onnx").graph.initializer if t.name == "odd")
    assert (kept.data_type, list(kept.dims)) == (TensorProto.BFLOAT16, [2])
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(kept).astype(np.float32), [1.5, -2.0])


# --- signals and verdicts ---------------------------------------------------------------------------------------------


def _folders(folder: Path) -> list[Path]:
    """The temporary folders of Python's tempfile; onnxruntime leaves one of its own."""
    return [path for path in folder.iterdir() if path.name.startswith("tmp")]


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_reduce_ends_what_its_command_started(number: signal.Signals, built: Path, tmp_path: Path) -> None:
    """The folder of the candidates goes, and so does what the command itself has started."""
    (tmp_path / "tmp").mkdir()
    fails = f"sh -c 'sleep 61 & echo $! > {tmp_path}/pid; wait; false'"
    arguments = ["reduce", str(built / "model.onnx"), "--fails", fails, "-o", str(tmp_path / "out.onnx")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path / "tmp")}
    with subprocess.Popen([*PASCALC, *arguments], stderr=subprocess.PIPE, env=environment) as running:
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().endswith("\n"):
            assert running.poll() is None
            time.sleep(0.05)
        assert len(_folders(tmp_path / "tmp")) == 1
        running.send_signal(number)
        assert running.wait(30) == -number
        assert running.stderr is not None
        assert running.stderr.read() == b""
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pid", "tmp"]
    assert _folders(tmp_path / "tmp") == []
    state = Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}/stat")
    deadline = time.monotonic() + 10
    while state.exists() and state.read_text().split()[2] != "Z" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not state.exists() or state.read_text().split()[2] == "Z"


def test_a_difference_names_the_command_that_shows_more(built: Path, tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    changed = onnx.load(built / "snn.onnx")
    next(n for n in changed.graph.node if n.name == "avgpool").op_type = "MaxPool"
    broken = write(changed, folder / "it's.onnx")
    arguments = ["verify", str(built / "model.onnx"), str(broken), "--data", str(built / "data.npz"), "--limit", "3"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("All layers, roots and problems: "))
    words = shlex.split(line.split(": ", 1)[1])
    seed = words[words.index("--seed") + 1]
    assert words == ["pascalc", *arguments, "--seed", seed, "--json", "-"]
    shown = CliRunner().invoke(main, words[1:])
    assert (json.loads(shown.stdout)["equivalent"], json.loads(shown.stdout)["seed"]) == (False, int(seed))
    assert "All layers" not in CliRunner().invoke(main, [*arguments, "--json", str(tmp_path / "r.json")]).stdout
