"""Random networks through the whole pipeline: in every schedule the outputs are exactly the source's.

A long run: ``pytest --hypothesis-profile=long tests/passes/test_random_networks.py``.
"""

from __future__ import annotations

import numpy as np
import onnx
from hypothesis import assume, given

from pascalc.errors import CompileError
from pascalc.ops import Pasc
from pascalc.passes import ANALYSIS, SCHEDULES
from pascalc.runtime import RUNTIME_ERRORS
from tests.helpers import compiled, grid_inputs, run, with_bodies
from tests.strategies import networks


@given(networks() | networks(odd=True))
def test_outputs_are_exactly_the_sources(source: onnx.ModelProto) -> None:
    feeds = grid_inputs(source)
    try:
        expected = run(with_bodies(source), feeds, optimised=False)
        compiled(source, ANALYSIS)
    except (*RUNTIME_ERRORS, CompileError):  # sizes that contradict each other, behind pools that round up
        assume(False)
    for passes in (schedule(Pasc()) for schedule in SCHEDULES.values()):
        model = compiled(source, passes)
        assert any(node.op in ("QCFS", "PascIF") for node in model.graph.nodes)
        for wanted, got in zip(expected, run(model, feeds), strict=True):
            np.testing.assert_array_equal(got, wanted, strict=True)
