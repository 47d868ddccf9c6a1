"""Networks at the edge of what ONNX allows: odd outputs, second outputs, tensors and weights without values, sizes that
no inference sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

import pascalc
from pascalc.errors import CompileError
from pascalc.export import Weights, export
from pascalc.passes import SCHEDULES
from pascalc.reporter import report
from tests.small_networks import Builder, write

WAYS = [{"schedule": schedule} for schedule in SCHEDULES] + [{"neuron": "if", "steps": 3}, {"dynamic_batch": True}]


def stem(b: Builder) -> str:
    return b.qcfs(b.conv(b.input("x", ["N", 2, 6, 6]), "stem", (2, 4)), "act", 4)


def head(b: Builder, x: str, size: int = 144) -> str:
    return b.gemm(b.node("Flatten", [x], "flat"), "fc", (size, 5))


def second(b: Builder, op: str, x: str, **attributes: object) -> tuple[str, str]:
    b.nodes.append(helper.make_node(op, [x], [f"{op}_first", f"{op}_second"], name=op, **attributes))
    return f"{op}_first", f"{op}_second"


def assert_translated(source: Path, out: Path) -> None:
    found = pascalc.verify(source, out, limit=4)
    assert found.translated, found.findings()
    assert report(out).layers


@pytest.mark.parametrize("options", WAYS, ids=str)
def test_an_output_that_is_listed_twice(options: dict[str, object], tmp_path: Path) -> None:
    b = Builder(1)
    model = b.model({"y": head(b, stem(b))})
    model.graph.output.append(model.graph.output[0])
    source = write(model, tmp_path / "model.onnx")
    for look in (lambda: pascalc.compile(source, **options), lambda: report(source), lambda: pascalc.inspect(source)):
        with pytest.raises(CompileError, match=r"lists this output 2 times .*'y'"):
            look()
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("options", WAYS, ids=str)
def test_a_mask_that_is_an_output(options: dict[str, object], tmp_path: Path) -> None:
    b = Builder(1)
    x, mask = second(b, "Dropout", stem(b))
    model = b.model({"y": head(b, x), "mask": mask}, types={"mask": TensorProto.BOOL}, shapes={"mask": ["N", 4, 6, 6]})
    source = write(model, tmp_path / "model.onnx")
    result = pascalc.compile(source, **options)
    assert_translated(source, result.output)
    if options != {"schedule": "collapsed"}:
        assert any("its mask is used" in line for line in pascalc.compile(source, **options).network.not_spiking)


def test_indices_that_are_an_output(tmp_path: Path) -> None:
    b = Builder(1)
    x, indices = second(b, "MaxPool", stem(b), kernel_shape=[2, 2], strides=[2, 2])
    x = b.qcfs(b.conv(x, "conv", (4, 4)), "deep", 2)
    model = b.model({"y": head(b, x, 36), "i": indices}, types={"i": TensorProto.INT64}, shapes={"i": ["N", 4, 3, 3]})
    source = write(model, tmp_path / "model.onnx")
    assert_translated(source, pascalc.compile(source).output)


def empty(b: Builder, x: str, name: str) -> str:
    bounds = [b.constant(f"{name}.{k}", [value], np.int64) for k, value in enumerate((0, 0, 1))]
    return b.node("Slice", [x, *bounds], name)


def test_an_output_of_no_size(tmp_path: Path) -> None:
    b = Builder(1)
    y = head(b, stem(b))
    source = write(b.model({"y": y, "e": empty(b, y, "none")}, shapes={"e": ["N", 0]}), tmp_path / "model.onnx")
    with pytest.raises(CompileError, match=r"the shape \['batch', 0\] holds no values .*'e'"):
        pascalc.compile(source, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()
    assert_outputs_run(source, pascalc.compile(source, schedule="collapsed").output)


def assert_outputs_run(source: Path, out: Path) -> None:
    assert pascalc.verify(source, out, limit=4).equivalent


def test_a_sum_of_no_size(tmp_path: Path) -> None:
    b = Builder(1)
    x = stem(b)
    none = b.node("Abs", [empty(b, x, "none")], "abs")  # computed on a sum
    x = b.node("Concat", [x, none], "both", axis=1)
    source = write(b.model({"y": head(b, x)}), tmp_path / "model.onnx")
    with pytest.raises(CompileError, match=r"holds no values"):
        pascalc.compile(source)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_weight_of_no_size(schedule: str, tmp_path: Path) -> None:
    b = Builder(1)
    y = head(b, stem(b))
    none = b.node("MatMul", [y, b.constant("w0", np.zeros((5, 0)))], "narrow")
    back = b.node("MatMul", [none, b.constant("w1", np.zeros((0, 5)))], "wide")
    source = write(b.model({"y": b.node("Add", [y, back], "add")}), tmp_path / "model.onnx")
    for look in (lambda: pascalc.compile(source, schedule=schedule), lambda: report(source)):
        with pytest.raises(CompileError, match=r"its weight \[5, 0\] holds no values .*'narrow'"):
            look()


@pytest.mark.parametrize("what", ["initializer", "Constant"])
def test_an_output_that_is_a_constant_is_not_exported(what: str, tmp_path: Path) -> None:
    b = Builder(1)
    y = head(b, stem(b))
    if what == "Constant":
        b.nodes.append(helper.make_node("Constant", [], ["k"], value_floats=[1.0, 2.0]))
    else:
        b.constant("k", [1.0, 2.0])
    source = write(b.model({"y": y, "k": "k"}, shapes={"k": [2]}), tmp_path / "model.onnx")
    out = pascalc.compile(source).output
    assert_translated(source, out)
    with pytest.raises(CompileError, match=r"its output is a constant \(node 'k'\)"):
        export(out, Weights(), tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_an_input_that_is_an_output(schedule: str, tmp_path: Path) -> None:
    b = Builder(1)
    source = write(b.model({"y": head(b, stem(b)), "x": "x"}, shapes={"x": ["N", 2, 6, 6]}), tmp_path / "model.onnx")
    out = pascalc.compile(source, schedule=schedule).output
    assert_translated(source, out)
    assert report(source).macs.total == report(out).macs.total == 36 * 4 * 2 * 9 + 144 * 5
    if schedule == "unrolled":
        export(out, Weights(), tmp_path / "folder")


def test_sizes_that_a_loop_hides(tmp_path: Path) -> None:
    b = Builder(1)
    x = stem(b)
    values = [helper.make_tensor_value_info(name, kind, []) for name, kind in (("i", 7), ("go", 9))]
    value, out, going = (
        helper.make_tensor_value_info(name, kind, shape)
        for name, kind, shape in (("v", 1, None), ("w", 1, None), ("on", 9, []))
    )
    inner = [helper.make_node("Neg", ["v"], ["w"]), helper.make_node("Identity", ["go"], ["on"])]
    body = helper.make_graph(inner, "body", [*values, value], [going, out])
    x = b.node("Loop", [b.constant("times", 2, np.int64), "", x], "loop", body=body)
    x = b.qcfs(b.conv(x, "conv", (4, 4)), "deep", 2)
    source = write(b.model({"y": head(b, x)}), tmp_path / "model.onnx")
    for network in (source, pascalc.compile(source).output):
        with pytest.raises(CompileError, match=r"not known .*'conv'.*behind 'loop' \(Loop\)") as error:
            report(network)
        assert "fixed input size" not in str(error.value)
