"""Old and odd files: what exporters of other years and other toolchains wrote compiles, and verifies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import pascalc
from pascalc.errors import CompileError
from pascalc.runtime import InferenceSession
from tests.small_networks import Array, Builder, write


def qcfs(b: Builder, x: str, name: str, levels: int, theta: float, opset: int) -> str:
    """The usual module, with the bounds of Clip where the opset has them."""
    x = b.node("Div", [x, b.constant(f"{name}.theta", theta)], f"/{name}/Div")
    if opset < 11:
        x = b.node("Clip", [x], f"/{name}/Clip", min=0.0, max=1.0)
    else:
        x = b.node("Clip", [x, b.constant(f"{name}.0", 0.0), b.constant(f"{name}.1", 1.0)], f"/{name}/Clip")
    x = b.node("Mul", [x, b.constant(f"{name}.levels", levels)], f"/{name}/Mul")
    x = b.node("Floor", [b.node("Add", [x, b.constant(f"{name}.half", 0.5)], f"/{name}/Add")], f"/{name}/Floor")
    x = b.node("Div", [x, b.constant(f"{name}.levels2", levels)], f"/{name}/Div2")
    return b.node("Mul", [x, b.constant(f"{name}.theta2", theta)], f"/{name}/Mul2")


def network(opset: int, batch: int | str = "N") -> onnx.ModelProto:
    """NHWC at the door, BatchNormalization, an enlargement as the opset has it, Dropout, a Reshape with the batch."""
    b = Builder(2)
    b.input("x", [batch, 6, 6, 2])
    x = b.node("Transpose", ["x"], "to_nchw", perm=[0, 3, 1, 2])
    x = b.batch_norm(b.conv(x, "conv1", (2, 4)), "bn", 4)
    x = qcfs(b, x, "a", 4, 1.5, opset)
    x = b.node("MaxPool", [x], "pool", kernel_shape=[2, 2], strides=[2, 2])
    scales = b.constant("scales", [1, 1, 2, 2])
    if opset < 9:
        del b.weights[-1]
        x = b.node("Upsample", [x], "up", mode="nearest", scales=[1.0, 1.0, 2.0, 2.0])
    elif opset < 10:
        x = b.node("Upsample", [x, scales], "up", mode="nearest")
    elif opset < 11:
        x = b.node("Resize", [x, scales], "up", mode="nearest")
    else:
        x = b.node("Resize", [x, b.constant("roi", []), scales], "up", mode="nearest")
    x = b.node("Dropout", [x], "drop", **({"ratio": 0.5} if opset < 12 else {}))
    x = qcfs(b, b.conv(x, "conv2", (4, 3)), "b", 2, 1.0, opset)
    x = b.node("AveragePool", [x], "mean", kernel_shape=[6, 6])
    rows = b.constant("shape", [-1 if isinstance(batch, str) else batch, 3], np.int64)
    x = b.gemm(b.node("Reshape", [x, rows], "flat"), "fc", (3, 4))
    return b.model(
        {"y": x}, [batch, 4], opset_imports=[helper.make_opsetid("", opset)], ir_version=3 if opset < 9 else 6
    )


def data_of(shape: tuple[int, ...], folder: Path, dtype: Any = np.float32) -> Path:
    np.savez(folder / "data.npz", x=np.random.default_rng(3).normal(0, 1, shape).astype(dtype))
    return folder / "data.npz"


def assert_lossless(model: onnx.ModelProto, data: Path, schedule: str = "unrolled") -> pascalc.Compilation:
    """Compile, verify, and the interface is the source's."""
    source = write(model, data.with_name("source.onnx"))
    result = pascalc.compile(source, schedule=schedule)
    check = pascalc.verify(source, result.output, data)
    assert check.equivalent, check.findings()
    emitted = onnx.load(result.output)
    weights = {t.name for t in model.graph.initializer}
    assert list(emitted.graph.input) == [v for v in model.graph.input if v.name not in weights]
    assert list(emitted.graph.output) == list(model.graph.output)
    return result


@pytest.mark.parametrize("schedule", ["unrolled", "collapsed"])
@pytest.mark.parametrize("batch", ["N", 1])
@pytest.mark.parametrize("opset", [8, 9, 10, 11, 12, 13])
def test_old_opsets(opset: int, batch: int | str, schedule: str, tmp_path: Path) -> None:
    model = network(opset, batch)
    if opset < 9:  # IR 3: every initializer is an input, too
        model.graph.input.extend(
            helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in model.graph.initializer
        )
    result = assert_lossless(model, data_of((6, 6, 6, 2), tmp_path), schedule)
    assert [n.levels for n in result.network.neurons] == [4, 2]
    assert result.network.not_spiking == []


@pytest.mark.parametrize("coordinates", ["asymmetric", "half_pixel"])
def test_resize_to_the_sizes_of_the_export(coordinates: str, tmp_path: Path) -> None:
    """As PyTorch wrote it: a batch of 1 among the sizes, region and scales empty."""
    b = Builder(8)
    x = b.qcfs(b.conv(b.input("x", [1, 2, 4, 4]), "conv1", (2, 3)), "a", 4)
    empty = [b.constant("roi", []), b.constant("scales", [])]
    sizes = b.constant("sizes", [1, 3, 8, 6], np.int64)
    x = b.node("Resize", [x, *empty, sizes], "up", mode="linear", coordinate_transformation_mode=coordinates)
    x = b.qcfs(b.conv(x, "conv2", (3, 2)), "b", 2)
    model = b.model({"y": x}, [1, 2, 8, 6], opset_imports=[helper.make_opsetid("", 11)])
    result = assert_lossless(model, data_of((3, 2, 4, 4), tmp_path))
    assert result.network.not_spiking == []


def test_unnamed_nodes(tmp_path: Path) -> None:
    model = network(13)
    for node in model.graph.node:
        node.name = ""
    result = assert_lossless(model, data_of((4, 6, 6, 2), tmp_path))
    assert len({n.name for n in result.network.neurons} - {""}) == 2


def test_constant_nodes(tmp_path: Path) -> None:
    model = network(13)
    constants = [helper.make_node("Constant", [], [t.name], value=t) for t in model.graph.initializer]
    nodes = [*constants, *model.graph.node]
    nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    assert_lossless(model, data_of((4, 6, 6, 2), tmp_path))


def perceptron() -> onnx.ModelProto:
    """Two layers of neurons and a residual; onnxruntime has no float64 convolution, with or without neurons."""
    b = Builder(6)
    x = b.qcfs(b.gemm(b.input("x", ["N", 6]), "one", (6, 8)), "a", 4, 1.5)
    x = b.node("Add", [x, b.qcfs(b.gemm(x, "two", (8, 8)), "b", 8)], "add")
    return b.model({"y": b.gemm(x, "out", (8, 3))}, ["N", 3])


def doubled(model: onnx.ModelProto) -> onnx.ModelProto:
    """The network in float64."""
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.DOUBLE
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    return model


@pytest.mark.parametrize("schedule", ["unrolled", "collapsed"])
def test_float64(schedule: str, tmp_path: Path) -> None:
    data = data_of((6, 6), tmp_path, np.float64)
    result = assert_lossless(doubled(perceptron()), data, schedule)
    feeds = {"x": np.load(data)["x"]}
    (y,) = InferenceSession(result.output).run(None, feeds)
    assert y.dtype == np.float64
    np.testing.assert_allclose(y, InferenceSession(result.source).run(None, feeds)[0], rtol=1e-12)
    if schedule == "unrolled":
        with pytest.raises(CompileError, match="float"):
            InferenceSession(result.output, "numpy").run(None, feeds)


def sparse_model(folder: Path, rows: int) -> Path:
    """A network whose first weight of ``rows`` x 4096 floats lies in a file without disk blocks: all zeros."""
    b = Builder(4)
    x = b.node("MatMul", [b.input("x", ["N", rows]), "wide"], "wide_layer")
    x = b.node("Add", [x, b.random("bias", (4096,), 1.0)], "add")
    x = b.qcfs(x, "act", 4, 1.5)
    model = b.model({"y": b.gemm(x, "fc", (4096, 2))}, ["N", 2])
    tensor = TensorProto(name="wide", dims=[rows, 4096], data_type=TensorProto.FLOAT)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    model.graph.initializer.append(tensor)
    with (folder / "weights.bin").open("wb") as file:
        file.truncate(rows * 4096 * 4)
    path = folder / "source.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("rows", [64, pytest.param(150_000, marks=pytest.mark.slow)])
def test_external_data(rows: int, tmp_path: Path) -> None:
    """With 150,000 rows the weights are 2.3 GiB."""
    source = sparse_model(tmp_path, rows)
    result = pascalc.compile(source)
    assert [n.levels for n in result.network.neurons] == [4]
    feeds: dict[str, Array] = {"x": np.ones((2, rows), np.float32)}
    before, after = (InferenceSession(path).run(None, feeds)[0] for path in (source, result.output))
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)
    assert (tmp_path / "source.snn.onnx.data").exists() == (rows > 64)


@pytest.mark.parametrize("schedule", ["unrolled", "collapsed"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32])
def test_preprocessing_in_the_network(dtype: Any, schedule: str, tmp_path: Path) -> None:
    """Pixels from 0 to 255, channels last: cast, mean, deviation, channels first."""
    b = Builder(4)
    b.input("x", ["N", 8, 8, 3], helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
    x = b.node("Cast", ["x"], "cast", to=TensorProto.FLOAT)
    x = b.node("Sub", [x, b.constant("mean", [123.7, 116.3, 103.5])], "centre")
    x = b.node("Div", [x, b.constant("std", [58.4, 57.1, 57.4])], "scale")
    x = b.node("Transpose", [x], "first", perm=[0, 3, 1, 2])
    x = b.qcfs(b.conv(x, "conv1", (3, 4)), "a", 4, 1.5)
    x = b.qcfs(b.conv(b.node("MaxPool", [x], "pool", kernel_shape=[2, 2], strides=[2, 2]), "conv2", (4, 4)), "b", 2)
    x = b.gemm(b.node("Flatten", [x], "flat"), "fc", (64, 5))
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(3).integers(0, 256, (8, 8, 8, 3)).astype(dtype))
    result = assert_lossless(b.model({"y": x}), tmp_path / "data.npz", schedule)
    assert result.network.spiking_macs == result.network.macs - 3 * 4 * 9 * 64
    assert result.network.not_spiking == []


@pytest.mark.parametrize("schedule", ["unrolled", "collapsed"])
def test_a_part_of_the_batch(schedule: str, tmp_path: Path) -> None:
    """What lies behind it has another number of samples, whatever the batch is."""
    b = Builder(0)
    x = b.qcfs(b.gemm(b.input("x", ["N", 6]), "fc1", (6, 6)), "a", 4, 1.0)
    bounds = [b.constant(name, [value], np.int64) for name, value in (("start", 0), ("end", 2), ("axis", 0))]
    x = b.node("Slice", [b.gemm(x, "fc2", (6, 6)), *bounds], "slice")
    x = b.qcfs(b.node("Sigmoid", [x], "sigmoid"), "b", 4, 1.0)
    source = write(b.model({"y": b.gemm(x, "fc3", (6, 5))}, ["M", 5]), tmp_path / "model.onnx")
    compiled = pascalc.compile(source, schedule=schedule).output
    for count in (1, 2, 5):
        x = np.random.default_rng(count).normal(size=(count, 6)).astype(np.float32)
        (before,), (after,) = (InferenceSession(path).run(None, {"x": x}) for path in (source, compiled))
        assert after.shape == (min(count, 2), 5)
        np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)


def test_a_resize_of_the_batch(tmp_path: Path) -> None:
    """0.65 of 2 and 0.65 of 3 samples are one: no proof that the number does not depend on the batch."""
    b = Builder(0)
    x = b.qcfs(b.input("x", ["N", 2, 4, 4]), "a", 1, 1.3)
    x = b.node("Resize", [x, "", b.constant("scales", [0.65, 0.62, 2.0, 2.0])], "resize", mode="nearest")
    x = b.node("Reshape", [b.node("GlobalAveragePool", [x], "mean"), b.constant("pairs", [-1, 2], np.int64)], "pair")
    source = write(b.model({"y": x}, ["M", 2]), tmp_path / "model.onnx")
    compiled = pascalc.compile(source).output
    for count in (4, 7, 10):
        images = np.random.default_rng(count).normal(size=(count, 2, 4, 4)).astype(np.float32)
        (before,), (after,) = (InferenceSession(path).run(None, {"x": images}) for path in (source, compiled))
        np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("schedule", ["unrolled", "collapsed"])
@pytest.mark.parametrize("opset", [8, 13])
def test_a_batch_made_dynamic(opset: int, schedule: str, tmp_path: Path) -> None:
    """A file of batch 1 gives a network that takes any batch, verifies against it, and computes what it does."""
    source = write(network(opset, 1), tmp_path / "source.onnx")
    compiled = pascalc.compile(source, schedule=schedule, dynamic_batch=True).output
    data = data_of((6, 6, 6, 2), tmp_path)
    assert pascalc.verify(source, compiled, data).equivalent
    emitted = onnx.load(compiled).graph
    dims = [v.type.tensor_type.shape.dim[0] for v in (*emitted.input, *emitted.output)]
    assert [d.dim_param for d in dims] == ["batch", "batch"]
    images = np.load(data)["x"]
    together = InferenceSession(compiled).run(None, {"x": images})[0]
    session = InferenceSession(source)
    single = np.concatenate([session.run(None, {"x": image[None]})[0] for image in images])
    np.testing.assert_allclose(together, single, rtol=1e-4, atol=1e-5)


def test_a_batch_that_is_dynamic_stays_as_it_is(tmp_path: Path) -> None:
    source = write(network(13, "N"), tmp_path / "source.onnx")
    plain, freed = (pascalc.compile(source, tmp_path / name, dynamic_batch=name == "b") for name in "ab")
    assert plain.output.read_bytes() == freed.output.read_bytes()


def mixed(b: Builder, x: str, way: str) -> str:
    match way:
        case "Softmax":
            return b.node(way, [x], "mix", axis=0)
        case "ReduceMean":
            return b.node("Add", [x, b.node(way, [x], "mix", axes=[0], keepdims=1)], "join")
        case "CumSum":
            return b.node(way, [x, b.constant("axis", 0, np.int64)], "mix")
        case "MatMul":
            return b.node(way, [x, b.node("Transpose", [x], "turn", perm=[1, 0])], "mix")
        case "Slice":  # backwards
            ends = [("start", -1), ("end", -9), ("axis", 0), ("step", -1)]
            return b.node(way, [x, *(b.constant(name, [value], np.int64) for name, value in ends)], "mix")
        case "Gather":
            best = b.node("ArgMax", [x], "best", axis=1, keepdims=0)
            return b.node(way, [x, best], "mix", axis=0)
        case "Mul":
            return b.node(way, [x, b.constant("by sample", [[2.0], [3.0]])], "mix")
        case _:
            return b.node(way, [x, b.constant("all", [1, -1], np.int64)], "mix")


@pytest.mark.parametrize("way", ["Softmax", "ReduceMean", "CumSum", "MatMul", "Slice", "Gather", "Mul", "Reshape"])
def test_a_batch_whose_samples_are_mixed_stays_fixed(way: str, tmp_path: Path) -> None:
    b = Builder(0)
    x = b.qcfs(b.gemm(b.input("x", [2, 6]), "fc1", (6, 6)), "a", 4, 1.0)
    y = mixed(b, b.gemm(x, "fc2", (6, 6)), way)
    shape = {"MatMul": [2, 2], "Reshape": [1, 12]}.get(way, [2, 6])
    source = write(b.model({"y": y}, shape), tmp_path / "source.onnx")
    with pytest.raises(CompileError, match=r"source\.onnx: the batch size cannot be made dynamic: .*\(node '"):
        pascalc.compile(source, dynamic_batch=True)
    assert not (tmp_path / "source.snn.onnx").exists()
    assert pascalc.compile(source).output.exists()
