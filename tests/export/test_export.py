"""`pascalc export`: its targets, what it refuses, and the folder that it writes whole or not at all."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from click.testing import CliRunner, Result

import pascalc
from pascalc.cli import main
from pascalc.export import TARGETS, Target, Weights, export
from pascalc.export.base import Refusal
from pascalc.network import Layout
from tests.small_networks import images, residual_network, write


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    source = write(residual_network(), folder / "model.onnx")
    pascalc.compile(source, folder / "snn.onnx")
    pascalc.compile(source, folder / "collapsed.onnx", schedule="collapsed")
    np.savez(folder / "data.npz", x=images(12))
    np.savez(folder / "other.npz", x=images(12)[:, :1])
    return folder


def run(*words: object) -> Result:
    return CliRunner().invoke(main, ["export", *map(str, words)])


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_the_command(built: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run(built / "snn.onnx", "--to", "weights", "-o", out, "--data", built / "data.npz", "--json", "-")
    assert done.exit_code == 0, done.output
    sizes = {name: (out / name).stat().st_size for name in ("arrays.npz", "network.json")}
    assert json.loads(done.stdout) == {"output": str(out), "target": "weights", "files": sizes}
    assert np.load(out / "arrays.npz")["stem.train"].shape[1] == 10
    assert listing(tmp_path) == ["out", "out/arrays.npz", "out/network.json"]


def test_targets_say_what_they_are(built: Path) -> None:
    done = run("--list")
    assert done.exit_code == 0
    for target in TARGETS:
        for text in (target.name, target.summary(), target.carries, target.loses, target.proved):
            assert text
            assert text in done.stdout


def test_a_target_that_is_not_there(built: Path, tmp_path: Path) -> None:
    done = run(built / "snn.onnx", "--to", "loihi", "-o", tmp_path / "out")
    assert (done.exit_code, listing(tmp_path)) == (2, [])
    assert "there is no target 'loihi'. There is: weights." in done.stderr


@dataclass(frozen=True)
class Names(Target):
    """The labels of the neurons."""

    name: ClassVar[str] = "names"
    carries: ClassVar[str] = "labels"
    loses: ClassVar[str] = "all else"
    proved: ClassVar[str] = "nothing"

    def refusals(self, network: Layout) -> list[Refusal]:
        return []

    def write(self, network: Layout, folder: Path) -> None:
        (folder / "names.txt").write_text(" ".join(neuron.name for neuron in network.neurons))


def test_a_target_is_added_by_its_class_and_a_name(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pascalc.export.TARGETS", (*TARGETS, Names))
    assert run(built / "snn.onnx", "--to", "names", "-o", tmp_path / "out").exit_code == 0
    assert (tmp_path / "out" / "names.txt").read_text() == "stem left join deep hidden"
    assert "names: The labels of the neurons." in run("--list").stdout
    done = run(built / "snn.onnx", "--to", "names", "-o", tmp_path / "more", "--data", built / "data.npz")
    assert (done.exit_code, listing(tmp_path)) == (2, ["out", "out/names.txt"])
    assert "the target 'names' takes no data. --data belongs to --to weights." in done.stderr


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("model.onnx", "this is a source network: nothing in it spikes, so it has no trains to export. Compile it: "),
        ("collapsed.onnx", "this network is compiled to spike counts, without time steps, so it has no trains"),
    ],
)
def test_networks_without_time_are_refused(model: str, message: str, built: Path, tmp_path: Path) -> None:
    done = run(built / model, "--to", "weights", "-o", tmp_path / "out")
    assert (done.exit_code, listing(tmp_path)) == (2, [])
    assert f"{model}: {message}" in done.stderr
    assert "pascalc compile MODEL.onnx -o SNN.onnx" in done.stderr


def test_a_folder_with_something_in_it_stays(built: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "network.json").write_text("mine")
    done = run(built / "snn.onnx", "--to", "weights", "-o", tmp_path / "out")
    assert (done.exit_code, listing(tmp_path)) == (2, ["out", "out/network.json"])
    assert (
        "out: this folder has something in it. Nothing was written; name a new folder, or an empty one." in done.stderr
    )
    assert (tmp_path / "out" / "network.json").read_text() == "mine"


def test_an_empty_folder_is_written(built: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert run(built / "snn.onnx", "--to", "weights", "-o", tmp_path / "link").exit_code == 0
    assert listing(tmp_path) == ["link", "real", "real/arrays.npz", "real/network.json"]


@pytest.mark.parametrize("mode", [0o750, 0o700, 0o2775])
def test_an_empty_folder_keeps_its_mode(mode: int, built: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    out.chmod(mode)
    assert run(built / "snn.onnx", "--to", "weights", "-o", out).exit_code == 0
    assert listing(out) == ["arrays.npz", "network.json"]
    assert out.stat().st_mode & 0o7777 == mode


@pytest.mark.parametrize("name", ["-", "/dev/stdout"])
def test_stdout(name: str, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(built / "snn.onnx", "--to", "weights", "-o", name)
    assert (done.exit_code, listing(tmp_path)) == (2, [])
    assert "a folder cannot go to stdout" in done.stderr


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("file", "the output cannot be written: this is a file, and a folder is to be written"),
        ("missing/out", "the output cannot be written: the folder"),
        ("file/out", "the output cannot be written: Not a directory"),
    ],
)
def test_places_where_no_folder_can_be(place: str, reason: str, built: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    done = run(built / "snn.onnx", "--to", "weights", "-o", tmp_path / place)
    assert (done.exit_code, listing(tmp_path)) == (2, ["file"])
    assert f"{place}: {reason}" in done.stderr
    assert (tmp_path / "file").read_text() == "mine"


def test_nothing_is_left_of_an_export_that_fails(built: Path, tmp_path: Path) -> None:
    done = run(built / "snn.onnx", "--to", "weights", "-o", tmp_path / "out", "--data", built / "other.npz")
    assert (done.exit_code, listing(tmp_path)) == (2, [])
    assert "other.npz" in done.stderr


def test_a_disk_that_is_full(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(pascalc.CompileError, match="out: the output cannot be written: No space left on device"):
        export(built / "snn.onnx", Weights(), tmp_path / "out")
    assert listing(tmp_path) == []


def test_a_limit_without_data(built: Path, tmp_path: Path) -> None:
    done = run(built / "snn.onnx", "--to", "weights", "-o", tmp_path / "out", "--limit", 3)
    assert (done.exit_code, listing(tmp_path)) == (2, [])
    assert "only the first 3 samples are asked for, but there is no data" in done.stderr
