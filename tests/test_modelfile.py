"""ONNX files in and out: what is read is what is written, and a bad file is told in one sentence that names it."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.external_data_helper
import onnxruntime as ort
import pytest

import pascalc.modelfile
from pascalc.errors import CompileError
from pascalc.modelfile import load, save, to_bytes
from tests.helpers import Array, constant, model_of, parse, run, with_bodies

node = onnx.helper.make_node
X = {"x": np.arange(6, dtype=np.float32).reshape(3, 2)}


def big_model(columns: int = 4096) -> onnx.ModelProto:
    """A weight that stays out of the skeleton, and a bias that does not."""
    rng = np.random.default_rng(0)
    weight, bias = rng.standard_normal((2, columns)), rng.standard_normal(columns)
    return model_of(
        [node("Gemm", ["x", "w", "b"], ["y"], name="/fc/Gemm")],
        {"x": ["N", 2]},
        {"y": ["N", columns]},
        [constant("w", weight), constant("b", bias[:columns])],
    )


def written(proto: onnx.ModelProto, folder: Path, name: str = "model.onnx") -> Path:
    path = folder / name
    path.write_bytes(proto.SerializeToString())
    return path


def assert_round_trip(proto: onnx.ModelProto, folder: Path, feeds: dict[str, Array] | None = None) -> onnx.ModelProto:
    """Loaded and saved, the model computes the same; loaded and saved again, the file is the same."""
    path = written(proto, folder)
    expected = run(proto, feeds or X)
    save(load(path), folder / "again.onnx")
    again = onnx.load(folder / "again.onnx")
    onnx.checker.check_model(again, full_check=True)
    for wanted, got in zip(expected, run(again, feeds or X), strict=True):
        np.testing.assert_array_equal(got, wanted, strict=True)
    save(load(folder / "again.onnx"), folder / "third.onnx")
    assert (folder / "third.onnx").read_bytes() == (folder / "again.onnx").read_bytes()
    return again


def test_round_trip_of_big_weights(tmp_path: Path) -> None:
    proto = big_model()
    again = assert_round_trip(proto, tmp_path)
    values = {t.name: onnx.numpy_helper.to_array(t) for t in again.graph.initializer}
    for tensor in proto.graph.initializer:
        np.testing.assert_array_equal(values[tensor.name], onnx.numpy_helper.to_array(tensor), strict=True)
    assert [i.name for i in again.graph.input] == ["x"]


def test_bytes_are_the_file(tmp_path: Path) -> None:
    model = load(written(big_model(), tmp_path))
    save(model, tmp_path / "out.onnx")
    assert to_bytes(model) == (tmp_path / "out.onnx").read_bytes()


@pytest.mark.parametrize("columns", [3, 4096])
def test_float_data_and_raw_data_are_the_same(columns: int, tmp_path: Path) -> None:
    proto = big_model(columns)
    for tensor in proto.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        tensor.CopyFrom(onnx.helper.make_tensor(tensor.name, tensor.data_type, tensor.dims, values.reshape(-1)))
        assert tensor.float_data
    assert_round_trip(proto, tmp_path)


@pytest.mark.parametrize("columns", [3, 4096])
def test_constant_nodes_become_initializers(columns: int, tmp_path: Path) -> None:
    proto = big_model(columns)
    nodes = [node("Constant", [], [t.name], value=t) for t in proto.graph.initializer]
    rest = [onnx.NodeProto.FromString(n.SerializeToString()) for n in proto.graph.node]
    del proto.graph.initializer[:], proto.graph.node[:]
    proto.graph.node.extend([*nodes, *rest])
    again = assert_round_trip(proto, tmp_path)
    assert [n.op_type for n in again.graph.node] == ["Gemm"]
    assert sorted(t.name for t in again.graph.initializer) == ["b", "w"]


def test_constant_nodes_of_numbers_and_lists(tmp_path: Path) -> None:
    proto = parse("""network (float[N,2] x) => (float[N,2] y, int64[2] z, int64 s) {
        f = Constant <value_float = 1.5> ()
        l = Constant <value_floats = [2.0, 3.0]> ()
        z = Constant <value_ints = [4, 5]> ()
        s = Constant <value_int = 7> ()
        a = Mul (x, f)
        y = Add (a, l)
    }""")
    path = written(proto, tmp_path)
    save(load(path), tmp_path / "again.onnx")
    again = onnx.load(tmp_path / "again.onnx")
    for wanted, got in zip(run(proto, X), run(again, X), strict=True):
        np.testing.assert_array_equal(got, wanted, strict=True)


@pytest.mark.parametrize("columns", [3, 4096])
def test_initializers_that_are_inputs_too(columns: int, tmp_path: Path) -> None:
    proto = big_model(columns)
    for tensor in proto.graph.initializer:
        proto.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    again = assert_round_trip(proto, tmp_path)
    assert [i.name for i in again.graph.input] == ["x"]


def test_weights_of_other_types(tmp_path: Path) -> None:
    """Doubles, booleans, strings and packed 4-bit integers, small and big."""
    for count in (3, 5000):
        constants = [
            constant("double", np.linspace(0, 1, count), np.float64),
            constant("truth", np.arange(count) % 2, np.bool_),
            onnx.numpy_helper.from_array(np.array([f"s{i}" for i in range(count)], object), "text"),
            onnx.helper.make_tensor("four", onnx.TensorProto.INT4, [count], [i % 8 for i in range(count)]),
        ]
        nodes = [node("Identity", [t.name], [f"{t.name}_out"]) for t in constants] + [node("Identity", ["x"], ["y"])]
        proto = model_of(nodes, {"x": ["N", 2]}, {"y": ["N", 2]}, constants, opset=21)
        for tensor in constants:
            proto.graph.output.append(
                onnx.helper.make_tensor_value_info(f"{tensor.name}_out", tensor.data_type, tensor.dims)
            )
        path = written(proto, tmp_path)
        save(load(path), tmp_path / "again.onnx")
        again = {t.name: t for t in onnx.load(tmp_path / "again.onnx").graph.initializer}
        for tensor in constants:
            np.testing.assert_array_equal(
                onnx.numpy_helper.to_array(again[tensor.name]), onnx.numpy_helper.to_array(tensor), strict=True
            )


def test_metadata_and_interface_are_kept(tmp_path: Path) -> None:
    proto = big_model(3)
    onnx.helper.set_model_props(proto, {"licence": "MIT", "classes": "a,b"})
    model = load(written(proto, tmp_path))
    assert model.metadata == {"licence": "MIT", "classes": "a,b"}
    model.metadata["pascalc.neuron"] = "pasc"
    save(model, tmp_path / "out.onnx")
    out = onnx.load(tmp_path / "out.onnx")
    assert {p.key: p.value for p in out.metadata_props} == model.metadata
    assert list(out.graph.input) == list(proto.graph.input)
    assert list(out.graph.output) == list(proto.graph.output)


def test_functions_of_the_model_are_inlined(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["": 18, "local": 1]>
        network (float[N,2] x) => (float[N,2] y) { y = local.twice <by = 3.0> (x) }
        <domain: "local", opset_import: ["": 18]>
        twice <by> (a) => (b) { c = Constant <value_float: float = @by> () d = Mul (a, c) b = Add (d, d) }
    """)
    model = load(written(proto, tmp_path))
    assert [n.op for n in model.graph.nodes] == ["Mul", "Add"]
    np.testing.assert_array_equal(run(model, X)[0], run(proto, X)[0])


@pytest.mark.parametrize(
    ("domain", "name", "owner"),
    [
        ("", "Relu", "ONNX itself"),
        ("ai.onnx", "Relu", "ONNX itself"),
        ("", "NoSuchOperator", "ONNX itself"),
        ("ai.onnx.ml", "Binarizer", "the domain 'ai.onnx.ml'"),
        ("com.microsoft", "Gelu", "the domain 'com.microsoft'"),
        ("com.microsoft.nchwc", "ReorderInput", "the domain 'com.microsoft.nchwc'"),
        ("com.ms.internal.nhwc", "Conv", "the domain 'com.ms.internal.nhwc'"),
        ("ai.onnx.preview.training", "Adam", "the domain 'ai.onnx.preview.training'"),
    ],
)
def test_functions_that_onnxruntime_ignores_are_refused(domain: str, name: str, owner: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(function_model(domain, name), path)
    with pytest.raises(CompileError, match=f"among the operators of {owner}: onnxruntime ignores it") as caught:
        load(path)
    assert (caught.value.file, caught.value.node) == (str(path), name)
    assert "another domain" in caught.value.hint


@pytest.mark.parametrize(("domain", "name"), [("my.company", "Relu"), ("com.microsoft", "NoSuchOperator")])
def test_functions_that_onnxruntime_takes_are_inlined(domain: str, name: str, tmp_path: Path) -> None:
    model = function_model(domain, name)
    assert run(model, {"x": np.float32([-1, 2])})[0].tolist() == [1, -2]
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    assert [node.op for node in load(path).graph.nodes] == ["Neg"]


@pytest.mark.parametrize("where", ["function", "node"])
def test_overloads_of_our_operators_are_refused(where: str, tmp_path: Path) -> None:
    model = with_bodies(
        parse(
            "g (float[N] x) => (float[N] y) <float t = {2}> "
            '{ y = ai.pascalc.QCFS <levels = 4, phi = 0.5, label = "a"> (x, t) }'
        )
    )
    (model.functions[0] if where == "function" else model.graph.node[0]).overload = "fast"
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    with pytest.raises(CompileError, match="it has the overload 'fast'") as caught:
        load(path)
    assert caught.value.node == "QCFS"


def function_model(domain: str, name: str) -> onnx.ModelProto:
    """y = -x, by a function."""
    opsets = [onnx.helper.make_opsetid("", 18)]
    negate = onnx.helper.make_node("Neg", ["a"], ["b"])
    function = onnx.helper.make_function(domain, name, ["a"], ["b"], [negate], opsets)
    values = [onnx.helper.make_tensor_value_info(v, onnx.TensorProto.FLOAT, ["N"]) for v in "xy"]
    call = onnx.helper.make_node(name, ["x"], ["y"], domain=domain)
    graph = onnx.helper.make_graph([call], "g", values[:1], values[1:])
    opsets += [onnx.helper.make_opsetid(domain, 1)] if domain else []
    return onnx.helper.make_model(graph, functions=[function], opset_imports=opsets, ir_version=10)


def test_function_body_of_ours_that_differs_is_told(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["": 18, "ai.pascalc": 1]>
        network (float[N,2] x) => (float[N,2] y) <float theta = {2}>
        { y = ai.pascalc.QCFS <levels = 4, phi = 0.5, label = "a"> (x, theta) }
        <domain: "ai.pascalc", opset_import: ["": 18]>
        QCFS <levels, phi, label> (X, threshold) => (Y) { Y = Neg (X) }
    """)
    model = load(written(proto, tmp_path))
    assert [(n.source, n.node) for n in model.notes] == [("load", "QCFS")]


def test_old_opset_is_converted(tmp_path: Path) -> None:
    proto = model_of(
        [node("Relu", ["x"], ["r"]), node("Dropout", ["r"], ["y"], ratio=0.5)],
        {"x": ["N", 2]},
        {"y": ["N", 2]},
        opset=9,
    )
    del proto.opset_import[1:]
    model = load(written(proto, tmp_path))
    assert model.opset == 15
    np.testing.assert_array_equal(run(model, X)[0], run(proto, X)[0])


def external_model(folder: Path, location: str = "model.data") -> onnx.ModelProto:
    """The model whose weight lies in a file beside it, behind eight other bytes."""
    proto = big_model()
    (tensor,) = (t for t in proto.graph.initializer if t.name == "w")
    (folder / "model.data").write_bytes(b"8 bytes." + tensor.raw_data)
    length = len(tensor.raw_data)
    onnx.external_data_helper.set_external_data(tensor, location, offset=8, length=length)
    tensor.ClearField("raw_data")
    return proto


def test_external_data_is_read(tmp_path: Path) -> None:
    path = written(external_model(tmp_path), tmp_path)
    np.testing.assert_array_equal(run(load(path), X)[0], run(big_model(), X)[0])


def outside(folder: Path, _: onnx.TensorProto) -> None:
    (folder / "model.data").rename(folder.parent / "outside.data")


def linked(folder: Path, _: onnx.TensorProto) -> None:
    target = folder.parent / "linked.data"
    (folder / "model.data").rename(target)
    (folder / "model.data").symlink_to(target)


def entry(key: str, value: str) -> Callable[[Path, onnx.TensorProto], None]:
    def change(_: Path, tensor: onnx.TensorProto) -> None:
        for item in tensor.external_data:
            if item.key == key:
                item.value = value

    return change


@pytest.mark.parametrize(
    ("location", "change", "message"),
    [
        ("model.data", lambda f, t: (f / "model.data").unlink(), "the external data file 'model.data' is missing"),
        ("../outside.data", outside, "lies outside the model's folder"),
        ("model.data", linked, "lies outside the model's folder"),
        ("/etc/hostname", lambda f, t: None, "lies outside the model's folder"),
        ("", lambda f, t: None, "lies outside the model's folder"),
        (".", lambda f, t: None, "the external data file '.' is missing"),
        ("model.data", entry("length", "8"), "cannot lie at byte 8"),
        ("model.data", entry("offset", "9"), "cannot lie at byte 9"),
        ("model.data", entry("offset", "-8"), "cannot lie at byte -8"),
        ("model.data", entry("offset", "eight"), "no numeric offset and length"),
    ],
)  # fmt: skip
def test_bad_external_data(location: str, change: Any, message: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    proto = external_model(folder, location)
    change(folder, next(t for t in proto.graph.initializer if t.name == "w"))
    path = written(proto, folder)
    with pytest.raises(CompileError) as caught:
        load(path)
    assert message in str(caught.value)
    assert caught.value.file == str(path)
    assert caught.value.node == "w"


@pytest.mark.parametrize("make", [big_model, lambda: big_model(3)], ids=["big", "small"])
def test_truncated_file(make: Callable[[], onnx.ModelProto], tmp_path: Path) -> None:
    """Cut anywhere, the file is refused, or what was lost was not needed; never a crash, never another error."""
    data = make().SerializeToString()
    path = tmp_path / "cut.onnx"
    told = []
    positions = sorted({*range(0, len(data), max(len(data) // 150, 1)), *range(min(len(data), 60))})
    for length in positions:
        path.write_bytes(data[:length])
        try:
            load(path)
        except CompileError as error:
            told.append(error.file)
    assert set(told) == {str(path)}
    assert len(told) >= 0.9 * len(positions)


def unsupported(**change: Any) -> onnx.ModelProto:
    proto = big_model(3)
    for key, value in change.items():
        getattr(proto.graph.initializer[0], key)[:] = value
    return proto


def opset(version: int, operator: str = "Relu") -> onnx.ModelProto:
    proto = model_of([node(operator, ["x"], ["y"])], {"x": ["N", 2]}, {"y": ["N", 2]})
    del proto.opset_import[:]
    proto.opset_import.extend([onnx.helper.make_opsetid("", version)])
    return proto


def two_of_one_name() -> onnx.ModelProto:
    proto = big_model(3)
    proto.graph.initializer.append(proto.graph.initializer[0])
    return proto


def short_data() -> onnx.ModelProto:
    proto = big_model(3)
    proto.graph.initializer[0].raw_data = proto.graph.initializer[0].raw_data[:-4]
    return proto


def unknown_type() -> onnx.ModelProto:
    proto = big_model(3)
    proto.graph.initializer[0].data_type = 999
    return proto


def all_inputs_are_initializers() -> onnx.ModelProto:
    proto = big_model(3)
    proto.graph.initializer.append(constant("x", np.ones((1, 2))))
    return proto


def sparse_constant() -> onnx.ModelProto:
    indices = onnx.helper.make_tensor("", onnx.TensorProto.INT64, [1], [1])
    sparse = onnx.helper.make_sparse_tensor(
        onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [1], [3.0]), indices, [2]
    )
    nodes = [node("Constant", [], ["w"], sparse_value=sparse), node("Mul", ["x", "w"], ["y"])]
    return model_of(nodes, {"x": ["N", 2]}, {"y": ["N", 2]})


def undefined_tensor() -> onnx.ModelProto:
    return model_of([node("Relu", ["nowhere"], ["y"])], {"x": ["N", 2]}, {"y": ["N", 2]})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"import torch\n", "this is text, not an ONNX file"),
        (json.dumps({"model": "onnx"}).encode(), "this is JSON, not an ONNX file"),
        (b"\x00" * 100, "this is nothing but zeros, not an ONNX file"),
        (onnx.ModelProto().SerializeToString() or b"\x08\x0a", "it has no graph with outputs, or no opset"),
        (opset(99), "opset 99 is newer than the installed onnx knows"),
        (opset(3, "Upsample"), "opset 3 cannot be converted to 15"),
        (two_of_one_name(), "two initializers are named 'w'"),
        (short_data(), "an initializer of 6 values holds 5"),
        (unsupported(dims=[-2, 3]), "an initializer has a negative dimension"),
        (unsupported(dims=[2**40, 2**40]), "holds 6"),
        (unknown_type(), "a tensor has the element type 999"),
        (all_inputs_are_initializers(), "every input of the model is an initializer"),
        (sparse_constant(), "a sparse constant is not supported"),
        (undefined_tensor(), "this is not a valid ONNX model"),
        (opset(18, "NoSuchOperator"), "this is not a valid ONNX model"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_file_is_told_in_one_sentence(content: bytes | onnx.ModelProto, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    with pytest.raises(CompileError) as caught:
        load(path)
    assert message in str(caught.value)
    assert caught.value.file == str(path)
    assert "\n" not in str(caught.value)


def test_missing_file_and_directory(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="cannot be read: No such file") as caught:
        load(tmp_path / "none.onnx")
    assert caught.value.file == str(tmp_path / "none.onnx")
    with pytest.raises(CompileError, match="this is a directory") as caught:
        load(tmp_path)
    assert caught.value.file == str(tmp_path)


def test_model_above_the_message_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights go to a file beside the model; onnxruntime and the loader read both."""
    model = load(written(big_model(), tmp_path))
    monkeypatch.setattr(pascalc.modelfile, "_MESSAGE_LIMIT", 10_000)
    folder = tmp_path / "out"
    folder.mkdir()
    save(model, folder / "big.onnx")
    assert sorted(p.name for p in folder.iterdir()) == ["big.onnx", "big.onnx.data"]
    assert (folder / "big.onnx").stat().st_size < 2000
    expected = run(big_model(), X)[0]
    session = ort.InferenceSession(str(folder / "big.onnx"), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, X)[0], expected)
    np.testing.assert_array_equal(run(load(folder / "big.onnx"), X)[0], expected)


def test_write_to_bad_places(tmp_path: Path) -> None:
    model = load(written(big_model(3), tmp_path))
    for path in (tmp_path / "no" / "such" / "folder.onnx", tmp_path):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(CompileError, match="the output cannot be written") as caught:
            save(model, path)
        assert caught.value.file == str(path)
        assert sorted(tmp_path.rglob("*")) == before


SAVE_WITH_LITTLE_ROOM = """
import resource, signal, sys
import pascalc.modelfile
from pascalc.errors import CompileError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
source, output, limit, message_limit = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
model = pascalc.modelfile.load(source)
pascalc.modelfile._MESSAGE_LIMIT = message_limit
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    pascalc.modelfile.save(model, output)
except CompileError as error:
    print(error)
    sys.exit(2)
"""


@pytest.mark.parametrize("message_limit", [2**31, 10_000], ids=["one file", "with external data"])
@pytest.mark.parametrize("limit", [0, 4096, 20_000])
def test_write_that_fails_half_way_leaves_nothing(limit: int, message_limit: int, tmp_path: Path) -> None:
    """The disk is full after some bytes: no output, no temporary file, and an older output is as it was."""
    assert hasattr(resource, "RLIMIT_FSIZE")
    source, folder = written(big_model(), tmp_path), tmp_path / "out"
    folder.mkdir()
    output = folder / "out.onnx"
    output.write_bytes(b"older")
    arguments = [str(source), str(output), str(limit), str(message_limit)]
    done = subprocess.run(
        [sys.executable, "-c", SAVE_WITH_LITTLE_ROOM, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert f"{output}" in done.stdout
    assert "cannot be written" in done.stdout
    assert [p.name for p in folder.iterdir()] == ["out.onnx"]
    assert output.read_bytes() == b"older"


def test_external_data_of_an_older_model_survives_a_failed_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights fit, the model behind them does not: neither file is replaced."""
    model = load(written(big_model(), tmp_path))
    monkeypatch.setattr(pascalc.modelfile, "_MESSAGE_LIMIT", 10_000)
    folder = tmp_path / "out"
    (folder / "big.onnx").mkdir(parents=True)  # a directory where the model should go
    (folder / "big.onnx.data").write_bytes(b"older")
    with pytest.raises(CompileError, match="Is a directory"):
        save(model, folder / "big.onnx")
    assert sorted(p.name for p in folder.iterdir()) == ["big.onnx", "big.onnx.data"]
    assert (folder / "big.onnx.data").read_bytes() == b"older"


def test_written_file_has_ordinary_permissions(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        save(load(written(big_model(3), tmp_path)), tmp_path / "out.onnx")
    finally:
        os.umask(mask)
    assert (tmp_path / "out.onnx").stat().st_mode & 0o777 == 0o640
