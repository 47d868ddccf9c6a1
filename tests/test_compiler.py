"""The emitted file: its interface, metadata and names, and that any ONNX runtime takes it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import pascalc
from pascalc.ops import OPERATORS
from pascalc.passes import SCHEDULES
from pascalc.runtime import InferenceSession
from tests.small_networks import images, linear_network, residual_network, rows, write


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = residual_network()
    helper.set_model_props(model, {"author": "somebody", "pascalc.version": "0.0.0"})
    return write(model, tmp_path_factory.mktemp("emitted") / "model.onnx")


@pytest.fixture(scope="module", params=SCHEDULES)
def emitted(request: pytest.FixtureRequest, source: Path) -> Path:
    output = source.with_name(f"{request.param}.onnx")
    pascalc.compile(source, output, schedule=request.param)
    return output


def test_the_interface_is_the_sources(source: Path, emitted: Path) -> None:
    a, b = onnx.load(source).graph, onnx.load(emitted).graph
    assert list(b.input) == list(a.input)
    assert list(b.output) == list(a.output)
    assert b.input[0].type.tensor_type.shape.dim[0].dim_param == "N"


def test_the_checker_is_content(emitted: Path) -> None:
    onnx.checker.check_model(str(emitted), full_check=True)


def test_it_has_the_bodies_of_exactly_the_operators_that_it_uses(emitted: Path) -> None:
    model = onnx.load(emitted)
    used = {n.op_type for n in model.graph.node if n.domain == "ai.pascalc"}
    assert used == ({"QCFS"} if emitted.stem == "collapsed" else {"PascIF", "Align", "Accumulate"})
    assert sorted(f.name for f in model.functions) == sorted(used)
    opset = next(o.version for o in model.opset_import if o.domain == "")
    for function in model.functions:
        assert function == OPERATORS[function.name].function(opset)
    assert sorted(o.domain for o in model.opset_import) == ["", "ai.pascalc"]


def test_its_metadata_tells_where_it_comes_from(source: Path, emitted: Path) -> None:
    metadata = {p.key: p.value for p in onnx.load(emitted).metadata_props}
    assert metadata["author"] == "somebody"
    assert metadata["pascalc.version"] == pascalc.__version__
    assert metadata["pascalc.neuron"] == "pasc"
    assert metadata["pascalc.schedule"] == emitted.stem
    assert json.loads(metadata["pascalc.levels"]) == {"stem": 4, "left": 8, "join": 2, "deep": 4, "hidden": 3}
    assert json.loads(metadata["pascalc.not_spiking"]) == []
    assert metadata["pascalc.source"] == "model.onnx"
    assert metadata["pascalc.source_sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()


def test_nodes_have_unique_readable_names_and_keep_the_sources(source: Path, emitted: Path) -> None:
    names = [n.name for n in onnx.load(emitted).graph.node]
    assert len(set(names)) == len(names)
    assert all(name and name.isprintable() and " " not in name for name in names)
    layers = {n.name for n in onnx.load(source).graph.node if n.op_type in ("Conv", "Gemm", "MaxPool", "Flatten")}
    assert layers <= set(names)
    neuron = "QCFS" if emitted.stem == "collapsed" else "PascIF"
    assert {f"{label}/{neuron}" for label in ("stem", "left", "join", "deep", "hidden")} <= set(names)


def test_compiling_again_gives_the_same_bytes(source: Path, emitted: Path, tmp_path: Path) -> None:
    """Also in another process, where hashes of strings differ."""
    call = "import sys, pascalc; pascalc.compile(sys.argv[1], sys.argv[2], schedule=sys.argv[3])"
    command = [sys.executable, "-c", call, str(source), str(tmp_path / "again.onnx"), emitted.stem]
    subprocess.run(command, check=True, timeout=100, env={"PYTHONHASHSEED": "12345"})
    assert (tmp_path / "again.onnx").read_bytes() == emitted.read_bytes()


_STOCK = """
import sys
import numpy as np
import onnxruntime as ort
session = ort.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
(outputs,) = session.run(None, {"image": np.load(sys.argv[2])})
np.save(sys.argv[3], outputs)
assert not [m for m in sys.modules if m.startswith(("pascalc", "onnx_graphsurgeon", "onnxruntime_extensions"))]
"""


def test_it_runs_in_a_stock_onnxruntime(source: Path, emitted: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", images(3))
    command = [sys.executable, "-c", _STOCK, str(emitted), str(tmp_path / "x.npy"), str(tmp_path / "y.npy")]
    subprocess.run(command, check=True, timeout=100)
    expected = InferenceSession(source).run(None, {"image": images(3)})[0]
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_any_batch_size_runs(batch: int, source: Path, emitted: Path) -> None:
    feeds = {"image": images(batch, seed=batch)}
    expected, actual = (InferenceSession(path).run(None, feeds)[0] for path in (source, emitted))
    assert actual.shape == (batch, 5)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_on_a_grid_all_schedules_count_the_same_spikes(tmp_path: Path) -> None:
    """Where every float32 sum is exact, the spiking networks are the source bit for bit, in every order of sums."""
    source = write(residual_network(grid=True), tmp_path / "model.onnx")
    feeds = {"image": images(12, grid=True)}
    counts, outputs = {}, {"source": InferenceSession(source).run(None, feeds)[0]}
    for schedule in SCHEDULES:
        pascalc.compile(source, tmp_path / f"{schedule}.onnx", schedule=schedule)
        session = InferenceSession(tmp_path / f"{schedule}.onnx")
        trace = session.trace(feeds)
        counts[schedule] = {k: v.sum(0) if schedule == "unrolled" else v for k, v in trace.items()}
        outputs[schedule] = session.run(None, feeds)[0]
        np.savez(tmp_path / "data.npz", **feeds)
        result = pascalc.verify(source, tmp_path / f"{schedule}.onnx", tmp_path / "data.npz", threads=1)
        assert (result.output_excess, result.max_abs_output_diff) == (0, 0)
        assert [(x.count_mismatches, x.current_excess) for x in result.layers] == [(0, 0)] * 5
    for label in ("stem", "left", "join", "deep", "hidden"):
        np.testing.assert_array_equal(counts["collapsed"][label], counts["unrolled"][label])
        assert len(np.unique(counts["unrolled"][label])) > 1
    for schedule in SCHEDULES:
        np.testing.assert_array_equal(outputs[schedule], outputs["source"])


def test_a_source_without_names(tmp_path: Path) -> None:
    model = linear_network()
    for node in model.graph.node:
        node.name = ""
    pascalc.compile(write(model, tmp_path / "model.onnx"), tmp_path / "out.onnx")
    np.savez(tmp_path / "data.npz", x=rows(8))
    result = pascalc.verify(tmp_path / "model.onnx", tmp_path / "out.onnx", tmp_path / "data.npz", threads=1)
    assert result.equivalent
    assert len(result.layers) == 1


def test_a_source_that_a_compiled_network_replaces_stays(tmp_path: Path) -> None:
    source, out = write(linear_network(), tmp_path / "model.onnx"), tmp_path / "out.onnx"
    out.write_bytes(b"old")
    content = source.read_bytes()
    pascalc.compile(source, out)
    assert source.read_bytes() == content
    assert onnx.load(out).graph.output[0].name == "logits"
