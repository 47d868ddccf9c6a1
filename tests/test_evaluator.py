"""eval: accuracy and spike rates, on source and compiled networks and on every kind of interface."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

import pascalc
from pascalc.errors import CompileError
from pascalc.passes import SCHEDULES
from pascalc.runtime import InferenceSession
from tests.small_networks import Builder, images, linear_network, residual_network, rows, write

FASHION = Path(__file__).parents[1] / "examples" / "fashion-mnist"


def compiled(source: Path) -> list[Path]:
    """The source and its compiled networks."""
    paths = [source]
    for schedule in SCHEDULES:
        paths.append(source.with_name(f"{source.stem}.{schedule}.onnx"))
        pascalc.compile(source, paths[-1], schedule=schedule)
    return paths


@pytest.mark.parametrize("batch", [1, 4, 64])
def test_rates_and_accuracy_are_those_of_the_outputs_and_trains(batch: int, tmp_path: Path) -> None:
    paths = compiled(write(residual_network(grid=True), tmp_path / "model.onnx"))
    x = images(10, grid=True)
    logits = InferenceSession(paths[0], threads=1).run(None, {"image": x})[0]
    labels = logits.argmax(1)
    labels[:3] = (labels[:3] + 1) % 5
    np.savez(tmp_path / "data.npz", x=x, y=labels)
    trace = InferenceSession(paths[1], threads=1).trace({"image": x})
    rates = {name: train.sum() / train[0].size for name, train in trace.items()}
    assert len({round(float(r), 3) for r in rates.values()}) == 5
    for path in paths:
        result = pascalc.evaluate(path, tmp_path / "data.npz", batch=batch, threads=1)
        assert (result.samples, result.top1) == (10, 0.7)
        measured = {x.name: x.spike_rate for x in result.layers}
        if path == paths[0]:  # the neurons before a MaxPool are there in the spiking network alone
            measured.update({name: rates[name] for name in ("stem", "deep")})
        assert measured == pytest.approx(rates, rel=1e-12)
        assert [x.levels for x in result.layers] == [4, 8, 2, 4, 4]
        steps = [4, 8, 2, 4, 4] if "unrolled" in path.name else [1] * 5
        assert [x.steps_out for x in result.layers] == steps


def test_the_first_samples_and_no_labels(tmp_path: Path) -> None:
    source = write(linear_network(), tmp_path / "model.onnx")
    np.savez(tmp_path / "data.npz", x=rows(9))
    seen: list[tuple[int, int]] = []
    result = pascalc.evaluate(
        source, tmp_path / "data.npz", limit=7, batch=3, progress=lambda done, total: seen.append((done, total))
    )
    assert (result.samples, result.top1) == (7, None)
    assert seen == [(3, 7), (6, 7), (7, 7)]


def test_a_network_without_neurons(tmp_path: Path) -> None:
    b = Builder()
    source = write(b.model({"y": b.gemm(b.input("x", ["N", 6]), "fc", (6, 5))}), tmp_path / "model.onnx")
    np.savez(tmp_path / "data.npz", x=rows(4), y=np.zeros(4, int))
    result = pascalc.evaluate(source, tmp_path / "data.npz")
    assert (result.samples, result.layers) == (4, [])
    assert pascalc.inspect(source).neurons == []


# --- every kind of interface: eval, verify and inspect ------------------------------------------------------------


def equivalent(paths: list[Path], data: Path) -> None:
    for path in paths[1:]:
        result = pascalc.verify(paths[0], path, data, threads=1, batch=4)
        assert result.equivalent, result.findings()
        assert all(x.neurons for x in result.layers)


def test_several_inputs_and_outputs(tmp_path: Path) -> None:
    b = Builder(4)
    left = b.qcfs(b.gemm(b.input("left", ["N", 6]), "fc1", (6, 8)), "one", 4)
    right = b.qcfs(b.gemm(b.input("right", ["N", 3]), "fc2", (3, 8), shift=0.5), "two", 6, 1.4)
    joined = b.qcfs(b.gemm(b.node("Concat", [left, right], "concat", axis=1), "fc3", (16, 8)), "three", 3)
    scores = b.gemm(joined, "fc4", (8, 5))
    model = b.model({"scores": scores, "side": b.gemm(right, "fc5", (8, 2))}, shapes={"side": ["N", 2]})
    paths = compiled(write(model, tmp_path / "model.onnx"))
    data = tmp_path / "data.npz"
    rng = np.random.default_rng(0)
    feeds = {"left": rows(9), "right": rng.normal(size=(9, 3)).astype(np.float32)}
    classes = InferenceSession(paths[0]).run(["scores"], feeds)[0].argmax(1)
    np.savez(data, **feeds, y=classes)
    equivalent(paths, data)
    for path in paths:
        assert pascalc.evaluate(path, data, batch=4).top1 == 1
        found = pascalc.inspect(path)
        assert found.inputs == ["left: float[Nx6]", "right: float[Nx3]"]
        assert found.outputs == ["scores: float[Nx5]", "side: float[Nx2]"]
        assert [n.name for n in found.neurons] == ["one", "two", "three"]
    np.savez(data, left=rows(9), x=feeds["right"])
    with pytest.raises(pascalc.CompileError, match=r"no array for the input 'right' \(the file has left, x\)"):
        pascalc.evaluate(paths[0], data)
    np.savez(data, left=rows(9), right=feeds["right"][:5])
    with pytest.raises(pascalc.CompileError, match=r"different numbers of samples: \[5, 9\]"):
        pascalc.evaluate(paths[0], data)


@pytest.mark.parametrize("samples", [1, 4, 5, 11])
def test_a_static_batch(samples: int, tmp_path: Path) -> None:
    """The last batch is filled up, and what fills it is not counted."""
    paths = compiled(write(residual_network(batch=4, grid=True), tmp_path / "model.onnx"))
    free = write(residual_network(grid=True), tmp_path / "free.onnx")
    data = tmp_path / "data.npz"
    x = images(samples, grid=True)
    np.savez(data, x=x, y=InferenceSession(free, threads=1).run(None, {"image": x})[0].argmax(1))
    for path, other in zip(paths, compiled(free), strict=True):
        result, expected = (pascalc.evaluate(p, data, threads=1) for p in (path, other))
        assert (result.samples, result.top1) == (samples, 1)
        assert result.layers == expected.layers
    for path in paths[1:]:
        result = pascalc.verify(paths[0], path, data, threads=1)
        assert (result.equivalent, result.samples) == (True, samples)
        assert [x.neurons for x in result.layers] == [samples * n for n in (216, 216, 216, 72, 16)]


@pytest.mark.parametrize("keep", [0, 1])
def test_a_class_as_output(keep: int, tmp_path: Path) -> None:
    b = Builder(7)
    x = b.qcfs(b.gemm(b.input("x", ["N", 6]), "fc1", (6, 12)), "act", 4, 1.5)
    x = b.node("ArgMax", [b.gemm(x, "fc2", (12, 5))], "argmax", axis=1, keepdims=keep)
    model = b.model({"class": x}, ["N", 1][: keep + 1], types={"class": TensorProto.INT64})
    paths = compiled(write(model, tmp_path / "model.onnx"))
    data = tmp_path / "data.npz"
    classes = InferenceSession(paths[0]).run(None, {"x": rows(10)})[0].reshape(-1)
    np.savez(data, x=rows(10), y=np.r_[classes[:9], (classes[9] + 1) % 5])
    equivalent(paths, data)
    for path in paths:
        assert pascalc.evaluate(path, data, batch=3).top1 == 0.9
        assert pascalc.inspect(path).outputs == ["class: int64[N" + "x1" * keep + "]"]
    assert pascalc.inspect(paths[1]).not_spiking == ["argmax: ArgMax: ArgMax has no spiking form"]


def test_a_neuron_as_output(tmp_path: Path) -> None:
    b = Builder(7)
    hidden = b.qcfs(b.gemm(b.input("x", ["N", 6]), "fc1", (6, 12)), "inner", 4, 1.5)
    last = b.qcfs(b.gemm(hidden, "fc2", (12, 5)), "last", 3, 2.0)
    model = b.model({"levels": last, "hidden": hidden}, shapes={"hidden": ["N", 12]})
    paths = compiled(write(model, tmp_path / "model.onnx"))
    data = tmp_path / "data.npz"
    np.savez(data, x=rows(10), y=InferenceSession(paths[0]).run(None, {"x": rows(10)})[0].argmax(1))
    equivalent(paths, data)
    rates = []
    for path in paths:
        result = pascalc.evaluate(path, data)
        assert result.top1 == 1
        rates.append([x.spike_rate for x in result.layers])
        assert [n.name for n in pascalc.inspect(path).neurons] == ["inner", "last"]
    assert rates == rates[:1] * 3
    changed = onnx.load(paths[1])
    accumulate = next(n for n in changed.graph.node if n.output[0] == "hidden")
    accumulate.op_type, accumulate.domain = "Identity", ""
    del accumulate.attribute[:]
    result = pascalc.verify(paths[0], write(changed, tmp_path / "broken.onnx"), data, threads=1)
    assert result.first_difference == "inner"


def test_an_output_without_a_class_for_every_sample(tmp_path: Path) -> None:
    b = Builder(7)
    x = b.qcfs(b.gemm(b.input("x", ["N", 6]), "fc1", (6, 12)), "act", 4, 1.5)
    model = b.model({"mean": b.node("ReduceMean", [x], "mean", keepdims=0)}, [])
    paths = compiled(write(model, tmp_path / "model.onnx"))
    np.savez(tmp_path / "plain.npz", x=rows(6))
    np.savez(tmp_path / "labels.npz", x=rows(6), y=np.zeros(6, int))
    for path in paths:
        assert pascalc.evaluate(path, tmp_path / "plain.npz").samples == 6
        with pytest.raises(pascalc.CompileError, match=r"the output 'mean' is float32 .*no class for every sample"):
            pascalc.evaluate(path, tmp_path / "labels.npz")
    for path in paths[1:]:
        assert pascalc.verify(paths[0], path, tmp_path / "plain.npz", threads=1).equivalent


def test_a_float64_network(tmp_path: Path) -> None:
    """Without convolutions, which onnxruntime has in float32 alone."""
    model = linear_network()
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype == np.float32:
            tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float64), tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.DOUBLE
    paths = compiled(write(model, tmp_path / "model.onnx"))
    np.savez(tmp_path / "data.npz", x=rows(12).astype(np.float64))
    equivalent(paths, tmp_path / "data.npz")
    for path in paths:
        assert len(pascalc.evaluate(path, tmp_path / "data.npz").layers) == 1
    for numpy in (
        lambda: pascalc.evaluate(paths[1], tmp_path / "data.npz", kernels="numpy"),
        lambda: pascalc.report(paths[1], tmp_path / "data.npz"),
    ):
        with pytest.raises(CompileError, match=r"float64, which the NumPy kernels of neurons do not know\. Native"):
            numpy()


@pytest.mark.skipif(not (FASHION / "resnet.onnx").exists(), reason="the trained example is not here")
def test_the_trained_example(tmp_path: Path) -> None:
    source, data = FASHION / "resnet.onnx", FASHION / "test-1000.npz"
    pascalc.compile(source, tmp_path / "snn.onnx")
    expected, result = (pascalc.evaluate(path, data, limit=32) for path in (source, tmp_path / "snn.onnx"))
    assert expected.top1 is not None
    assert expected.top1 > 0.8
    checked = pascalc.verify(source, tmp_path / "snn.onnx", data, limit=32)
    assert checked.equivalent
    assert abs(result.top1 - expected.top1) * 32 <= checked.argmax_mismatches
    # one root mismatch can move a thousand of the 10^5 counts behind it
    rates = [[x.spike_rate for x in e.layers] for e in (expected, result)]
    assert rates[0] == pytest.approx(rates[1], rel=0.01)
    assert min(rates[0]) > 0.05
