"""Sessions: running, tracing and counting; what cannot be run says why."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper

from pascalc.errors import CompileError
from pascalc.ops import DOMAIN
from pascalc.runtime import Events, InferenceSession
from pascalc.runtime.kernels.pasc import pasc_if_staged
from tests.runtime.networks import model, one_pasc_if, one_qcfs, pasc_if, qcfs, spiking_cnn

KERNELS: list[dict[str, Any]] = [{"kernels": "native"}, {"kernels": "numpy"}, {"kernels": "numpy", "staged": True}]


def images(batch: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 1, (batch, 2, 8, 8)).astype(np.float32)


@pytest.mark.parametrize("options", KERNELS, ids=str)
def test_trace_gives_every_spike_train(options: dict[str, Any]) -> None:
    network = spiking_cnn(levels=3)
    for output in ("s1", "s2"):
        network.graph.output.append(helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None))
    x = images(5)
    _, first, second = InferenceSession(network.SerializeToString()).run(None, {"X": x})
    session = InferenceSession(spiking_cnn(levels=3).SerializeToString(), **options)
    trains = session.trace({"X": x})
    assert list(trains) == ["first", "second"]
    np.testing.assert_array_equal(trains["first"], (first > 0).astype(np.int8).reshape(3, 5, 4, 8, 8), strict=True)
    np.testing.assert_array_equal(trains["second"], (second > 0).astype(np.int8).reshape(3, 5, 5, 4, 4), strict=True)
    assert 0 < trains["second"].mean() < 1
    only = session.trace({"X": x}, ["second"])
    np.testing.assert_array_equal(only["second"], trains["second"])
    assert list(only) == ["second"]


@pytest.mark.parametrize("options", KERNELS, ids=str)
@pytest.mark.parametrize("threshold", [0.3, [0.3], [[0.3], [7.0], [1e-3]]])
def test_trace_gives_the_levels_of_a_collapsed_network(options: dict[str, Any], threshold: Any) -> None:
    levels = 11
    theta = np.broadcast_to(np.float32(threshold), (3, 1))
    expected = np.random.default_rng(1).integers(0, levels + 1, (6, 3, 4)).astype(np.int32)
    x = (expected * (theta / np.float32(levels))).astype(np.float32)
    levels_traced = InferenceSession(one_qcfs(threshold, levels), **options).trace({"X": x})["act"]
    np.testing.assert_array_equal(levels_traced, expected, strict=True)


def test_trace_of_nan() -> None:
    levels = InferenceSession(one_qcfs(1.0)).trace({"X": np.float32([np.nan, 0.5])})["act"]
    np.testing.assert_array_equal(levels, np.int32([-1, 2]), strict=True)


def test_trace_of_an_output_of_the_network() -> None:
    nodes = [pasc_if("X", "theta", "s", "first", 2, 2), qcfs("s", "theta", "Y", "last", 2)]
    session = InferenceSession(model(nodes, ["Y", "s"], {"theta": np.array(1)}).SerializeToString())
    x = np.ones((4, 3), np.float32)
    assert session.trace({"X": x})["last"].shape == (4, 3)
    assert [output.name for output in session.outputs] == ["Y", "s"]


def test_computed_threshold() -> None:
    nodes = [
        helper.make_node("ReduceMax", ["X"], ["top"], keepdims=0),
        qcfs("X", "top", "Y", "act", 4),
    ]
    x = np.float32([[0, 1, 2, 3, 4]])
    levels = InferenceSession(model(nodes, ["Y"], {}).SerializeToString()).trace({"X": x})["act"]
    np.testing.assert_array_equal(levels, [[0, 1, 2, 3, 4]])


def test_trace_of_a_network_without_neurons() -> None:
    network = model([helper.make_node("Relu", ["X"], ["Y"])], ["Y"], {})
    session = InferenceSession(network.SerializeToString())
    assert session.trace({"X": np.ones((1, 2), np.float32)}) == {}


def test_unknown_label_is_refused_with_the_known_ones() -> None:
    session = InferenceSession(spiking_cnn().SerializeToString())
    with pytest.raises(CompileError, match=r"no such neuron \(node 'third'\)\. There are first, second"):
        session.trace({"X": images(1)}, ["third"])


def test_labels_that_repeat_are_refused() -> None:
    nodes = [pasc_if("X", "theta", "s", "twin", 2, 2), pasc_if("s", "theta", "Y", "twin", 2, 2)]
    network = model(nodes, ["Y"], {"theta": np.array(1)}).SerializeToString()
    session = InferenceSession(network)
    session.run(None, {"X": np.ones((4, 3), np.float32)})
    with pytest.raises(CompileError, match=r"two neurons have this label \(node 'twin'\)"):
        session.trace({"X": np.ones((4, 3), np.float32)})
    with pytest.raises(CompileError, match=r"two neurons have this label \(node 'twin'\)"):
        InferenceSession(network, "numpy")


def test_events_accumulate_over_runs() -> None:
    session = InferenceSession(one_pasc_if(levels=3, steps_in=2, label="a"), "numpy", staged=True)
    assert session.events == {}
    total = Events()
    for seed in range(3):
        x = np.random.default_rng(seed).normal(0, 1, (8, 5)).astype(np.float32)
        (session.trace if seed == 2 else lambda feeds: session.run(None, feeds))({"X": x})
        total += pasc_if_staged(x, np.float32(1.3), levels=3, steps_in=2, steps_out=3, phi=0.5)[1]
        assert session.events == {"a": total}
    assert total.neurons == 3 * 4 * 5
    assert total.excitatory > 0
    assert total.inhibitory > 0
    assert total.emitted > 0


def test_events_of_a_failed_run_do_not_count() -> None:
    nodes = [pasc_if("X", "theta", "s", "good", 4, 2), pasc_if("s", "theta", "Y", "bad", 4, 3)]
    session = InferenceSession(model(nodes, ["Y"], {"theta": np.array(1)}).SerializeToString(), "numpy", staged=True)
    with pytest.raises(CompileError, match="node 'bad'"):
        session.run(None, {"X": np.ones((2, 3), np.float32)})
    assert session.events == {}


@pytest.mark.parametrize("options", KERNELS[:2], ids=str)
def test_only_staged_kernels_count_events(options: dict[str, Any]) -> None:
    session = InferenceSession(one_pasc_if(), **options)
    session.run(None, {"X": np.ones((4, 3), np.float32)})
    assert session.events == {}


def test_sessions_in_threads_keep_to_themselves() -> None:
    """Each thread has a session with its own label; every third one fails in every run."""
    x = np.random.default_rng(0).normal(0, 1, (8, 3000)).astype(np.float32)
    start = threading.Barrier(6)

    def work(number: int) -> None:
        label = f"neuron {number}"
        session = InferenceSession(one_pasc_if(levels=2 + number, label=label), "numpy", staged=True, threads=1)
        _, events = pasc_if_staged(x, np.float32(1.3), levels=2 + number, steps_in=4, steps_out=2 + number, phi=0.5)
        total = Events()
        start.wait()
        for _ in range(30):
            if number % 3 == 0:
                with pytest.raises(CompileError, match=f"node '{label}'"):
                    session.run(None, {"X": x[:7]})
            else:
                session.run(None, {"X": x})
                total += events
        assert session.events == ({label: total} if total.neurons else {})

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))


def test_one_session_in_several_threads() -> None:
    session = InferenceSession(one_pasc_if(), "numpy", staged=True)
    x = np.random.default_rng(0).normal(0, 1, (8, 3000)).astype(np.float32)
    _, events = pasc_if_staged(x, np.float32(1.3), levels=4, steps_in=4, steps_out=4, phi=0.5)

    def work(number: int) -> None:
        for _ in range(20):
            if number == 0:
                with pytest.raises(CompileError, match="node 'act'"):
                    session.run(None, {"X": x[:7]})
            else:
                session.run(None, {"X": x})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert session.events == {"act": sum([events] * 60, Events())}


@pytest.mark.parametrize("options", KERNELS, ids=str)
def test_external_data(tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    expected = InferenceSession(spiking_cnn().SerializeToString()).trace({"X": images(2)})
    path = tmp_path / "network.onnx"
    onnx.save(spiking_cnn(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert path.stat().st_size + (tmp_path / "weights.bin").stat().st_size > path.stat().st_size
    monkeypatch.chdir(tmp_path.parent)
    for name in (path, str(path), path.relative_to(tmp_path.parent)):
        session = InferenceSession(name, **options)
        assert session.run(None, {"X": images(2)})[0].shape == (2, 3)
        for label, train in session.trace({"X": images(2)}).items():
            np.testing.assert_array_equal(train, expected[label])


def test_inputs_and_outputs() -> None:
    session = InferenceSession(spiking_cnn().SerializeToString())
    assert [(value.name, value.type) for value in session.inputs] == [("X", "tensor(float)")]
    assert [value.name for value in session.outputs] == ["Y"]


def test_output_names_choose() -> None:
    nodes = [pasc_if("X", "theta", "s", "a", 2, 2), pasc_if("s", "theta", "Y", "b", 2, 2)]
    session = InferenceSession(model(nodes, ["Y", "s"], {"theta": np.array(1)}).SerializeToString(), "numpy")
    feeds = {"X": np.ones((4, 3), np.float32)}
    np.testing.assert_array_equal(session.run(["s"], feeds)[0], session.run(None, feeds)[1])


@pytest.mark.parametrize(
    ("feeds", "names", "message"),
    [
        ({"Z": np.ones((4, 2), np.float32)}, None, r"Required inputs \(\['X'\]\) are missing"),
        ({"X": np.ones((4, 2))}, None, r"expected: \(tensor\(float\)\)"),
        ({"X": np.ones((4, 2), np.float32)}, ["nope"], "Invalid output name"),
        ({"X": "text"}, None, "onnxruntime cannot run the model"),
    ],
)
@pytest.mark.parametrize("kernels", ["native", "numpy"])
def test_feeds_that_do_not_fit(feeds: Any, names: Any, message: str, kernels: Any) -> None:
    with pytest.raises(CompileError, match=message):
        InferenceSession(one_pasc_if(), kernels).run(names, feeds)


def test_bad_files(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "text.onnx"
    text.write_text("no model")
    truncated = tmp_path / "truncated.onnx"
    truncated.write_bytes(one_pasc_if()[:-50])
    for path in (tmp_path / "absent.onnx", tmp_path, text, truncated):
        for kernels in ("native", "numpy"):
            with pytest.raises(CompileError, match="onnxruntime cannot load the model") as caught:
                InferenceSession(path, kernels)
            assert str(caught.value).startswith(f"{path}: ")
            assert "\n" not in str(caught.value)
    with pytest.raises(CompileError, match="onnxruntime cannot load the model"):
        InferenceSession(b"no model")
    assert capfd.readouterr().err == ""


def test_missing_external_data_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    onnx.save(spiking_cnn(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(CompileError, match=r"network\.onnx: onnxruntime cannot load the model: .*weights\.bin"):
        InferenceSession(path)


def test_a_file_that_vanishes_before_the_trace(tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    path.write_bytes(one_pasc_if())
    session = InferenceSession(path)
    path.unlink()
    with pytest.raises(CompileError, match=r"network\.onnx: the file cannot be read: No such file"):
        session.trace({"X": np.ones((4, 2), np.float32)})


def test_a_neuron_without_a_body_needs_the_library() -> None:
    network = model([pasc_if("X", "theta", "Y", "act", 4, 4)], ["Y"], {"theta": np.array(1)}, functions=())
    with pytest.raises(CompileError, match="no function body for a neuron, kernels='numpy' runs it"):
        InferenceSession(network.SerializeToString())
    feeds = {"X": np.ones((4, 2), np.float32)}
    assert InferenceSession(network.SerializeToString(), "numpy").run(None, feeds)[0].shape == (4, 2)


def test_a_neuron_without_an_attribute_is_refused() -> None:
    network = onnx.load_from_string(one_pasc_if())
    del network.graph.node[0].attribute[:]
    with pytest.raises(CompileError, match="Unable to find attribute"):
        InferenceSession(network.SerializeToString(), "numpy")


def test_other_operators_of_the_domain_run_from_their_bodies() -> None:
    network = model([helper.make_node("Accumulate", ["X"], ["Y"], domain=DOMAIN, steps=2)], ["Y"], {})
    y = InferenceSession(network.SerializeToString(), "numpy").run(None, {"X": np.float32([[1], [2], [3], [4]])})[0]
    np.testing.assert_array_equal(y, [[4], [6]])


@pytest.mark.parametrize(
    ("dtype", "message"),
    [
        (np.float64, "the network computes in float64, which the NumPy kernels of neurons do not know"),
        (np.float16, r"onnxruntime cannot load the model: .*parameter .X. of operator"),
    ],
)
def test_numpy_kernels_are_for_float32(dtype: Any, message: str) -> None:
    network = onnx.load_from_string(one_pasc_if())
    onnx_type = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    network.graph.input[0].type.tensor_type.elem_type = onnx_type
    network.graph.output[0].type.tensor_type.elem_type = onnx_type
    network.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.array(1.3, dtype), "theta"))
    assert InferenceSession(network.SerializeToString()).run(None, {"X": np.ones((4, 3), dtype)})[0].dtype == dtype
    with pytest.raises(CompileError, match=message):
        InferenceSession(network.SerializeToString(), "numpy")


@pytest.mark.parametrize("shape", [(0, 3), (4, 0), (0, 0)])
def test_nothing_to_trace(shape: tuple[int, int]) -> None:
    for options in KERNELS if shape[1] else KERNELS[1:]:  # ONNX Reshape cannot infer a -1 from samples of no neurons
        session = InferenceSession(one_pasc_if(levels=2, steps_in=4), **options)
        train = session.trace({"X": np.ones(shape, np.float32)})["act"]
        assert train.shape == (2, shape[0] // 4, shape[1])


def test_wrong_choices_are_refused() -> None:
    with pytest.raises(CompileError, match="kernels must be 'native' or 'numpy', not 'cuda'"):
        InferenceSession(one_pasc_if(), "cuda")  # type: ignore[arg-type]
    with pytest.raises(CompileError, match="native kernels do not run step by step"):
        InferenceSession(one_pasc_if(), staged=True)
