"""Each pass on small networks in ONNX text: tests/golden/<pass>/<case>.in.onnxtxt gives <case>.out.onnxtxt.

The case is run through the pipeline up to the pass. The golden file holds the pass's number of rewrites, its notes and
the network behind it; the bodies of the project's operators are left out (tests/test_ops.py has them). The network
behind the pass also computes, bit for bit, what the source computes.

After an intended change: ``pytest tests/passes/test_golden.py --update-golden``, and read the diff.
"""

from __future__ import annotations

from pathlib import Path

import onnx.printer
import pytest

from pascalc.modelfile import skeleton
from pascalc.passes import UNROLLED
from tests.helpers import assert_same_outputs, parse, up_to

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = sorted(GOLDEN.glob("*/*.in.onnxtxt"))

#: Behind lower-neurons neurons emit trains that the layers behind do not expect yet.
NOT_RUNNABLE = {"lower-neurons"}


@pytest.mark.parametrize("case", CASES, ids=lambda path: f"{path.parent.name}-{path.name.split('.')[0]}")
def test_pass_gives_the_golden_network(case: Path, request: pytest.FixtureRequest) -> None:
    name = case.parent.name
    source = parse(case.read_text())
    model, rewrites = up_to(source, name)

    proto, _ = skeleton(model)
    del proto.functions[:]
    notes = [f"# note: {note.node}: {note.reason}\n" for note in model.notes if note.source == name]
    text = f"# rewrites: {rewrites}\n{''.join(notes)}{onnx.printer.to_text(proto)}\n"
    golden = case.with_name(case.name.replace(".in.", ".out."))
    if request.config.getoption("--update-golden"):
        golden.write_text(text)
    assert golden.exists(), "no golden file: run pytest with --update-golden, and read it"
    assert text == golden.read_text()

    if name not in NOT_RUNNABLE:
        assert_same_outputs(source, model)


def test_every_pass_has_golden_cases() -> None:
    assert {case.parent.name for case in CASES} == {step.name() for step in UNROLLED}


def test_every_golden_file_has_its_case() -> None:
    outputs = {path.name.replace(".out.", ".in.") for path in GOLDEN.glob("*/*.out.onnxtxt")}
    assert outputs == {path.name for path in CASES}
