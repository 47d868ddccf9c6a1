"""Every random network verifies or is refused with a reason. A long run: ``make fuzz``."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import onnx
import pytest
from hypothesis import HealthCheck, event, given, settings

from tests.fuzz.graphs import wild_networks
from tests.fuzz.limits import COMPILED, REFUSED, compile_only, limited
from tests.fuzz.verdict import run_source, verify_compiled


def compile_and_verify(path: Path) -> str:
    """Compile and verify the file; says "not runnable" where there is nothing to verify against."""
    compile_only(path)
    try:
        run_source(path)
    except Exception:
        return "not runnable"
    try:
        return verify_compiled(path) or "verified"
    except Exception as error:
        raise AssertionError(f"{type(error).__name__}: {error}") from error


@pytest.mark.slow
@given(wild_networks())
@settings(
    max_examples=int(os.environ.get("FUZZ_GRAPHS", "200")),
    derandomize=False,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
def test_every_network_verifies_or_is_refused(model: onnx.ModelProto) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model.SerializeToString())
        outcome = limited(compile_and_verify, path, seconds=60, memory=8 << 30)
        left = {p.name for p in path.parent.iterdir()}
    assert outcome.good, outcome.message
    assert outcome.verdict == COMPILED or left == {"model.onnx"}
    event(REFUSED if outcome.verdict == REFUSED else outcome.message)
