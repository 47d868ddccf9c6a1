"""reduce: the smaller model is valid, and the command fails on it as on the original."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner

from pascalc.cli import main
from pascalc.errors import CompileError
from pascalc.reducer import reduce_model
from tests.small_networks import residual_network, write


def command(folder: Path, operator: str) -> str:
    """Ends with status 7 on models with the operator."""
    script = folder / "has.sh"
    script.write_text(f'! grep -q {operator} "$1" || exit 7\n')
    return f"sh {script}"


@pytest.mark.parametrize(("operator", "most"), [("AveragePool", 1), ("BatchNormalization", 1)])
def test_what_fails_is_all_that_is_left(operator: str, most: int, tmp_path: Path) -> None:
    model = write(residual_network(), tmp_path / "model.onnx")
    before = model.read_bytes()
    result = reduce_model(model, command(tmp_path, operator))
    assert (result.output, result.status) == (tmp_path / "model.reduced.onnx", 7)
    reduced = onnx.load(result.output)
    onnx.checker.check_model(reduced, full_check=True)
    assert [n.op_type for n in reduced.graph.node] == [operator] * most
    assert result.nodes == (len(onnx.load(model).graph.node), most)
    assert model.read_bytes() == before


def test_command_line(tmp_path: Path) -> None:
    model = write(residual_network(), tmp_path / "model.onnx")
    out = tmp_path / "small.onnx"
    done = CliRunner().invoke(
        main, ["reduce", str(model), "--fails", f"{command(tmp_path, 'MaxPool')} {{}}", "-o", str(out)]
    )
    assert done.exit_code == 0, done.output
    assert "-> 1 node;" in done.stdout
    assert [n.op_type for n in onnx.load(out).graph.node] == ["MaxPool"]


@pytest.mark.parametrize(
    ("fails", "message"),
    [
        ("true", "ends with status 0"),
        ("sh -c 'sleep 5'", "takes too long"),
        ("no-such-command-here", "cannot be run"),
        ("'", "cannot be split"),
        ("", "is empty"),
    ],
)
def test_commands_that_do_not_fail_are_told(fails: str, message: str, tmp_path: Path) -> None:
    model = write(residual_network(), tmp_path / "model.onnx")
    with pytest.raises(CompileError, match=message):
        reduce_model(model, fails, timeout=0.5)
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_the_model_is_not_overwritten(tmp_path: Path) -> None:
    model = write(residual_network(), tmp_path / "model.onnx")
    with pytest.raises(CompileError, match="would overwrite"):
        reduce_model(model, "false", model)


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan"), float("inf")])
def test_a_time_that_is_none_is_refused(timeout: float, tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="the timeout must be a positive, finite number of seconds"):
        reduce_model(write(residual_network(), tmp_path / "model.onnx"), "false", timeout=timeout)
