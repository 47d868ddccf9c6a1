"""A file that several look at is read once."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

import pascalc
from pascalc import modelfile, pipeline
from pascalc.cli import main
from pascalc.modelfile import load, to_bytes
from pascalc.passes import UNROLLED
from pascalc.source import Source, network_of
from tests.small_networks import images, residual_network, write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(residual_network(), tmp_path / "model.onnx")
    labels = np.random.default_rng(0).integers(0, 5, 60)
    np.savez(tmp_path / "data.npz", image=images(60), y=labels)
    return tmp_path


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are parsed."""
    names: list[str] = []
    parse = modelfile._load

    def counted(data: bytes, path: Path) -> Any:
        names.append(path.name)
        return parse(data, path)

    monkeypatch.setattr(modelfile, "_load", counted)
    return names


PLANS: list[list[str]] = [
    ["--al-clusters", "2", "--calib", "data.npz"],
    ["--al-clusters", "2", "--calib", "data.npz", "--correct"],
    ["--al-budget", "20%", "--calib", "data.npz"],
    ["--al-steps", "5", "--calib", "data.npz", "--correct"],
]


@pytest.mark.parametrize("options", PLANS, ids=" ".join)
@pytest.mark.parametrize("command", ["compile", "plan"])
def test_a_command_with_a_plan_parses_the_source_once(
    command: str, options: list[str], folder: Path, parsed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    saved = ["--save-ann", "ann.onnx"] if command == "compile" else []
    result = CliRunner().invoke(main, [command, "model.onnx", *options, *saved])
    assert result.exit_code == 0, result.output
    assert parsed == ["model.onnx"]


def test_the_api_takes_a_source(folder: Path, parsed: list[str]) -> None:
    source = Source(folder / "model.onnx")
    plan = pascalc.plan_by_metric(source, clusters=2, calibration=folder / "data.npz")
    pascalc.compile(source, folder / "out.onnx", levels=plan, save_ann=folder / "ann.onnx")
    assert parsed == ["model.onnx"]
    assert pascalc.verify(folder / "ann.onnx", folder / "out.onnx", folder / "data.npz").equivalent


def test_a_copy_is_apart_from_what_it_is_a_copy_of(folder: Path) -> None:
    source = Source(folder / "model.onnx")
    fresh = to_bytes(load(folder / "model.onnx"))
    first = source.model()
    pipeline.run(first, UNROLLED)
    assert to_bytes(source.model()) == fresh
    second = source.model()
    pipeline.run(second, UNROLLED)
    assert to_bytes(first) == to_bytes(second)


def test_subgraphs_are_copied_too(tmp_path: Path) -> None:
    model = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["": 18]>
        network (float[N,3] x) => (float[N,3] y) <bool yes = {1}, float two = {2}> {
          z = Mul (x, two)
          y = If (yes) <then_branch = t () => (float[N,3] a) <float three = {3}> { a = Mul (z, three) },
                else_branch = e () => (float[N,3] b) { b = Neg (z) }> }""")
    source = Source(write(model, tmp_path / "model.onnx"))
    before = to_bytes(source.model())
    changed = source.model()
    for graph in changed.graph.subgraphs():
        for node in graph.nodes:
            node.op = {"Mul": "Add", "Neg": "Abs"}[node.op]
    assert to_bytes(source.model()) == before


def test_a_worker_reads_the_file_itself(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    source = Source("model.onnx")
    source.model()
    text = pickle.dumps(source)
    assert len(text) < 1000
    monkeypatch.chdir("/")
    copied = pickle.loads(text)
    assert to_bytes(copied.model()) == to_bytes(network_of(folder / "model.onnx"))
