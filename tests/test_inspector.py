"""inspect: thresholds, levels, steps and operation counts of source and compiled networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import pascalc
from pascalc.passes import SCHEDULES
from tests.small_networks import Builder, residual_network, write


def test_a_source_is_shown_as_it_would_be_compiled(tmp_path: Path) -> None:
    source = write(residual_network(grid=True), tmp_path / "model.onnx")
    found = pascalc.inspect(source)
    assert [n.name for n in found.neurons] == ["stem", "left", "join", "deep", "hidden"]
    assert [n.theta for n in found.neurons] == [1.0, [0.5, 2.0], 1.0, 1.0, 1.0]
    assert [n.levels for n in found.neurons] == [4, 8, 2, 4, 4]
    assert [n.steps_in for n in found.neurons] == [1, 4, 8, 2, 4]
    assert [n.steps_out for n in found.neurons] == [4, 8, 2, 4, 4]
    assert [n.fan_in for n in found.neurons] == [18, 54, None, 54, 32]
    assert found.metadata == {}
    assert source.read_bytes() == residual_network(grid=True).SerializeToString()


def test_a_compiled_network_shows_folded_thresholds_and_where_it_comes_from(tmp_path: Path) -> None:
    source = write(residual_network(grid=True), tmp_path / "model.onnx")
    for schedule in SCHEDULES:
        pascalc.compile(source, tmp_path / "out.onnx", schedule=schedule)
        found = pascalc.inspect(tmp_path / "out.onnx")
        # the stem's train joins the residual sum, so neither it nor the neuron behind the sum is folded
        assert [n.theta for n in found.neurons] == [1.0, 8.0, 1.0, 4.0, 4.0]
        steps = [1, 4, 8, 2, 4] if schedule == "unrolled" else [1] * 5
        assert [n.steps_in for n in found.neurons] == steps
        assert found.metadata["pascalc.schedule"] == schedule
        assert found.metadata["pascalc.source"] == "model.onnx"
        assert found.macs == pascalc.inspect(source).macs


def test_interfaces_of_every_kind(tmp_path: Path) -> None:
    b = Builder()
    x = b.node("Reshape", [b.input("x", [None, "rows", 4]), b.constant("shape", [0, -1, 2], np.int64)], "reshape")
    where = b.node("Cast", [x], "cast", to=onnx.TensorProto.BOOL)
    types, shapes = {"mask": onnx.TensorProto.BOOL}, {"mask": [None, None, 2]}
    model = b.model({"y": x, "mask": where}, ["N", None, 2], types=types, shapes=shapes)
    found = pascalc.inspect(write(model, tmp_path / "model.onnx"))
    assert found.inputs == ["x: float[?xrowsx4]"]
    assert found.outputs == ["y: float[Nx?x2]", "mask: bool[?x?x2]"]
    assert (found.neurons, found.macs) == ([], 0)


@pytest.mark.parametrize("entry", ["no json", '{"a": 1}', "", "[", "12", "null", "[" * 20_000, '[[["x"]], 3]'])
def test_metadata_that_is_not_the_compilers(entry: str, tmp_path: Path) -> None:
    pascalc.compile(write(residual_network(), tmp_path / "model.onnx"), tmp_path / "out.onnx")
    model = onnx.load(tmp_path / "out.onnx")
    for item in model.metadata_props:
        if item.key in ("pascalc.not_spiking", "pascalc.levels"):
            item.value = entry
    found = pascalc.inspect(write(model, tmp_path / "out.onnx"))
    assert found.not_spiking == []
    assert len(found.neurons) == 5


def test_a_spiking_network_that_lost_its_metadata(tmp_path: Path) -> None:
    pascalc.compile(write(residual_network(), tmp_path / "model.onnx"), tmp_path / "out.onnx")
    model = onnx.load(tmp_path / "out.onnx")
    expected = pascalc.inspect(tmp_path / "out.onnx")
    del model.metadata_props[:]
    found = pascalc.inspect(write(model, tmp_path / "out.onnx"))
    assert found.neurons == expected.neurons
    assert found.macs == expected.macs


def test_a_neuron_whose_threshold_is_computed(tmp_path: Path) -> None:
    pascalc.compile(write(residual_network(), tmp_path / "model.onnx"), tmp_path / "out.onnx")
    model = onnx.load(tmp_path / "out.onnx")
    neuron = next(n for n in model.graph.node if n.name == "join/PascIF")
    neuron.input[1] = neuron.input[0]
    with pytest.raises(
        pascalc.CompileError, match=r"the threshold of a neuron must be an initializer \(node 'join/PascIF'"
    ):
        pascalc.inspect(write(model, tmp_path / "out.onnx"))
