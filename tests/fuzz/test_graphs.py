"""Every random network, and every damaged file, verifies or is refused with a reason. A long run: ``make fuzz``."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import onnx
from hypothesis import HealthCheck, event, given, settings

from pascalc.errors import CompileError
from tests.fuzz.graphs import wild_networks
from tests.fuzz.limits import COMPILED, REFUSED, compile_only, limited
from tests.fuzz.run import fuzz
from tests.fuzz.verdict import check

#: Where the smallest network that fails is left.
FAILURES = Path("fuzz-failures")


def compile_and_check(path: Path) -> str:
    """Compile the file and check the outcome; a `CompileError` of the compiler refuses."""
    compile_only(path)
    try:
        return check(path)
    except CompileError as error:  # no refusal: it compiled
        raise AssertionError(f"verify refuses it: {error}") from error


@given(wild_networks())
@settings(
    max_examples=int(os.environ.get("FUZZ_GRAPHS", "25")),
    derandomize="FUZZ_GRAPHS" not in os.environ,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
def test_every_network_verifies_or_is_refused(model: onnx.ModelProto) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model.SerializeToString())
        outcome = limited(compile_and_check, path, seconds=60, memory=8 << 30)
        left = {p.name for p in path.parent.iterdir()}
    if not outcome.good:
        FAILURES.mkdir(exist_ok=True)
        (FAILURES / "graph.onnx").write_bytes(model.SerializeToString())  # the last one is the smallest
    assert outcome.good, outcome.message
    assert outcome.verdict == COMPILED or left == {"model.onnx"}
    event(REFUSED if outcome.verdict == REFUSED else outcome.message)


def test_every_damaged_file_verifies_or_is_refused(tmp_path: Path) -> None:
    found = fuzz(range(60), seed=0, jobs=2, keep=tmp_path)
    assert not list(tmp_path.iterdir()), found
    assert found["verified"] > 0
    assert found["refused"] > 0
