"""The bundle of plain arrays: a reader that knows NumPy alone gives every train, spike for spike."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

import pascalc
from pascalc.export import Weights, export
from pascalc.reporter import report
from tests.small_networks import Builder, gated_network, images, residual_network, write

ROOT = Path(__file__).parents[2]
FASHION = ROOT / "examples" / "fashion-mnist"
READER = runpy.run_path(str(ROOT / "examples" / "weights-bundle" / "run.py"))


def all_kinds() -> onnx.ModelProto:
    """What the residual network lacks: groups, dilations, Concat, Spread, thresholds one by one, MatMul with a bias of
    its own, Reshape."""
    b = Builder(8)
    image = b.input("image", ["N", 2, 12, 12])
    x = b.qcfs(b.conv(image, "stem", (2, 4)), "act", 4)
    options = {"group": 2, "dilations": [2, 1], "strides": [2, 1], "pads": [2, 0, 1, 1]}
    x = b.conv(x, "grouped", (2, 6), **options)
    side = b.conv(image, "side", (2, 6), strides=[2, 1], pads=[0, 0, 1, 1])
    x = b.node("Add", [x, side], "join")  # of a train and what the image gives
    scale, zero = b.constant("scale", 0.3), b.constant("zero", 0, np.uint8)
    quantised = b.node("QuantizeLinear", [x, scale, zero], "quantise")
    left = b.node("DequantizeLinear", [quantised, scale, zero], "dequantise")
    left = b.node("Clip", [left, b.constant("low", 0.0), b.constant("high", 1.5)], "clip")
    right = b.qcfs(x, "right", 2)
    x = b.node("Concat", [left, right], "both", axis=1)
    x = b.node("GlobalAveragePool", [x], "average")
    x = b.node("Reshape", [x, b.constant("flat", [0, 12], np.int64)], "flatten")
    x = b.node("MatMul", [x, b.random("product.weight", (12, 8), 0.8)], "product")
    x = b.qcfs(b.node("Add", [x, b.random("product.bias", (8,), 0.3, 0.5)], "shifted"), "hidden", 3)
    return b.model({"logits": b.gemm(x, "fc", (8, 5))})


def compiled(model: onnx.ModelProto, folder: Path, **options: Any) -> Path:
    source = write(model, folder / "model.onnx")
    return pascalc.compile(source, folder / "snn.onnx", **options).output


def saved_images(folder: Path, count: int) -> Path:
    np.savez(folder / "data.npz", x=images(count))
    return folder / "data.npz"


@pytest.mark.parametrize("name", ["vgg", "resnet"])
def test_the_reader_gives_every_train_of_the_shipped_networks(name: str, tmp_path: Path) -> None:
    snn = pascalc.compile(FASHION / f"{name}.onnx", tmp_path / "snn.onnx").output
    export(snn, Weights(FASHION / "test-1000.npz", limit=3), tmp_path / "out")
    found = READER["run"](tmp_path / "out")
    assert list(found) == [neuron.name for neuron in pascalc.inspect(snn).neurons]
    assert min(spikes for spikes, _ in found.values()) > 0
    assert {others for _, others in found.values()} == {0}


@pytest.mark.parametrize("network", [residual_network, all_kinds])
def test_the_reader_gives_every_train_of_small_networks(network: Callable[[], onnx.ModelProto], tmp_path: Path) -> None:
    snn = compiled(network(), tmp_path)
    export(snn, Weights(saved_images(tmp_path, 40), limit=30), tmp_path / "out")
    found = READER["run"](tmp_path / "out")
    assert [spikes > 0 for spikes, _ in found.values()] == [True] * len(pascalc.inspect(snn).neurons)
    assert {others for _, others in found.values()} == {0}


def test_all_kinds_of_operations_have_been_read(tmp_path: Path) -> None:
    kinds: set[str] = set()
    for network in (residual_network, all_kinds):
        (tmp_path / network.__name__).mkdir()
        export(compiled(network(), tmp_path / network.__name__), Weights(), tmp_path / network.__name__ / "out")
        kinds |= {op["kind"] for op in description(tmp_path / network.__name__ / "out")["operations"]}
    assert kinds == set(READER["KINDS"])


def test_the_reader_sees_another_network(tmp_path: Path) -> None:
    export(compiled(residual_network(), tmp_path), Weights(saved_images(tmp_path, 5)), tmp_path / "out")
    arrays = dict(np.load(tmp_path / "out" / "arrays.npz"))
    arrays["conv3.weight"] *= np.float32(1.5)
    np.savez(tmp_path / "out" / "arrays.npz", allow_pickle=False, **arrays)
    found = READER["run"](tmp_path / "out")
    assert next(name for name, (_, others) in found.items() if others) == "join"


def description(folder: Path) -> Any:
    return json.loads((folder / "network.json").read_text())


def test_what_is_in_the_bundle(tmp_path: Path) -> None:
    snn = compiled(residual_network(), tmp_path)
    export(snn, Weights(saved_images(tmp_path, 20), limit=7), tmp_path / "out")
    found, arrays = description(tmp_path / "out"), np.load(tmp_path / "out" / "arrays.npz")
    assert (found["format"], found["version"], found["model"]) == ("pascalc weights", 1, "snn.onnx")
    assert found["inputs"] == [{"name": "image", "shape": [2, 12, 12]}]
    steps = {op["name"]: (op["gives"], op["steps_out"]) for op in found["operations"]}
    assert (steps["conv1"], steps["stem"], steps["conv2"]) == (("analog", 1), ("spikes", 4), ("currents", 4))
    assert arrays["image.input"].tobytes() == images(7).tobytes()
    assert (arrays["left.train"].shape, arrays["left.train"].dtype) == ((8, 7, 6, 6, 6), np.uint8)
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(snn).graph.initializer}
    nodes = {node.name: node for node in onnx.load(snn).graph.node}
    for role, index in (("weight", 1), ("bias", 2)):
        np.testing.assert_array_equal(arrays[f"conv3.{role}"], weights[nodes["conv3"].input[index]])
    np.testing.assert_array_equal(arrays["fc1.weight"], weights[nodes["fc1"].input[1]].T)
    runtime = pascalc.runtime.InferenceSession(snn, kernels="numpy", optimised=False)
    assert arrays["logits.output"].tobytes() == runtime.run(None, {"image": images(7)})[0].tobytes()
    rows = [(row["operation"], row["neuron"], row["fan_in"], row["macs"], row["neurons"]) for row in found["layers"]]
    assert rows == [(x.name, x.neuron, x.fan_in, x.macs, x.neurons) for x in report(snn).layers]
    edges = {edge["to"]: (sorted(edge["from"]), len(edge["through"])) for edge in found["edges"]}
    assert edges["join"] == (["conv3", "stem"], 3)  # Add, Align, MaxPool


def test_without_data_there_are_no_trains(tmp_path: Path) -> None:
    export(compiled(residual_network(), tmp_path), Weights(), tmp_path / "out")
    assert {name.rpartition(".")[2] for name in np.load(tmp_path / "out" / "arrays.npz")} == {
        *("weight", "bias", "threshold"),
    }


def test_every_field_is_on_the_page(tmp_path: Path) -> None:
    export(compiled(all_kinds(), tmp_path), Weights(saved_images(tmp_path, 2)), tmp_path / "out")
    found, page = description(tmp_path / "out"), (ROOT / "docs" / "export.md").read_text()
    parts = [found, *(row for rows in found.values() if isinstance(rows, list) for row in rows)]
    roles = {name.rpartition(".")[2] for name in np.load(tmp_path / "out" / "arrays.npz")}
    fields = {key for part in parts for key in part} | set(READER["KINDS"]) | roles
    assert not [field for field in sorted(fields) if f"`{field}`" not in page]


# --- what it cannot hold ------------------------------------------------------------------------------------------


def with_sigmoid() -> onnx.ModelProto:
    b = Builder()
    x = b.qcfs(b.conv(b.input("image", ["N", 2, 12, 12]), "one", (2, 4)), "act", 4)
    x = b.node("Sigmoid", [b.conv(x, "two", (4, 4))], "gate")
    return b.model({"out": x}, ("N", 4, 12, 12))


def one_dimensional() -> onnx.ModelProto:
    b = Builder()
    weight = b.random("conv.weight", (4, 2, 3), 0.5)
    x = b.node("Conv", [b.input("x", ["N", 2, 12]), weight], "conv")
    return b.model({"out": b.qcfs(x, "act", 4)}, ("N", 4, 10))


@pytest.mark.parametrize(
    ("network", "options", "node", "reason"),
    [
        (with_sigmoid, {}, "gate", "it has no operator Sigmoid"),
        (gated_network, {}, "squeeze", "it has no operator ReduceSum; and "),
        (residual_network, {"neuron": "if", "steps": 4}, "stem/IF", "it has no operator IF; and 4 more such nodes"),
        (one_dimensional, {}, "conv", "Conv over other than two axes"),
    ],
)
def test_networks_that_it_cannot_hold(
    network: Callable[[], onnx.ModelProto], options: dict[str, Any], node: str, reason: str, tmp_path: Path
) -> None:
    snn = compiled(network(), tmp_path, **options)
    with pytest.raises(pascalc.CompileError) as error:
        export(snn, Weights(), tmp_path / "out")
    assert error.value.node == node
    assert error.value.message.startswith(f"the target 'weights' cannot hold this network: {reason}")
    assert not (tmp_path / "out").exists()


def test_a_network_of_another_float_type(tmp_path: Path) -> None:
    b = Builder()
    weight = b.constant("weight", np.ones((3, 4)), np.float64)
    x = b.node("MatMul", [b.input("x", ["N", 3], TensorProto.DOUBLE), weight], "product")
    x = b.node("Cast", [x], "cast", to=TensorProto.FLOAT)
    snn = compiled(b.model({"out": b.qcfs(x, "act", 4)}, ("N", 4)), tmp_path)
    with pytest.raises(pascalc.CompileError, match=r"MatMul on float64, not float32.* \(node 'product'\)"):
        export(snn, Weights(), tmp_path / "out")


def test_a_body_of_another_version(tmp_path: Path) -> None:
    snn = compiled(residual_network(), tmp_path)
    model = onnx.load(snn)
    function = next(f for f in model.functions if f.name == "PascIF")
    next(node for node in function.node if node.op_type == "GreaterOrEqual").op_type = "Greater"
    with pytest.raises(pascalc.CompileError, match="the file's body of PascIF is not this version's"):
        export(write(model, snn), Weights(), tmp_path / "out")
