"""Every executor of a neuron gives the same bits: the function body in onnxruntime, the NumPy kernels in onnxruntime,
and both under the reference evaluator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from pascalc.ops import DOMAIN
from pascalc.runtime import InferenceSession, reference_ops
from pascalc.runtime.kernels import KERNELS
from tests.runtime.networks import adversarial_currents, one_pasc_if, one_qcfs, spiking_cnn

Array = NDArray[np.float32]


def onnxruntime(kernels: Any, **options: Any) -> Callable[[bytes, Array], Array]:
    return lambda model, x: InferenceSession(model, kernels, **options).run(None, {"X": x})[0]


def reference(**options: Any) -> Callable[[bytes, Array], Array]:
    return lambda model, x: reference_result(onnx.load_from_string(model), {"X": x}, **options)


def reference_result(model: onnx.ModelProto, feeds: dict[str, Array], **options: Any) -> Array:
    with np.errstate(all="ignore"):
        (y,) = ReferenceEvaluator(model, **options).run(None, feeds)
    assert isinstance(y, np.ndarray)
    return y


def walked(model: bytes, x: Array) -> dict[str, Array]:
    """Every tensor of a network, node by node: an executor of its own, to whom the table of kernels is all that there
    is to know of neurons. What is no neuron the reference evaluator computes."""
    network = onnx.load_from_string(model)
    tensors = {"X": x} | {t.name: onnx.numpy_helper.to_array(t) for t in network.graph.initializer}
    for node in network.graph.node:
        inputs = [tensors[name] for name in node.input]
        if node.domain == DOMAIN and node.op_type in KERNELS:
            kernel = KERNELS[node.op_type]
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute if a.name != "label"}
            tensors[node.output[0]] = kernel.run(*inputs, **attributes)
        else:
            part = onnx.helper.make_graph(
                [node],
                "part",
                [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in node.input],
                [onnx.helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, None)],
            )
            one = onnx.helper.make_model(part, opset_imports=network.opset_import, functions=network.functions)
            tensors[node.output[0]] = reference_result(one, dict(zip(node.input, inputs, strict=True)))
    return tensors


EXECUTORS: dict[str, Callable[[bytes, Array], Array]] = {
    "onnxruntime, NumPy": onnxruntime("numpy"),
    "onnxruntime, NumPy, staged": onnxruntime("numpy", staged=True),
    "reference, NumPy": reference(new_ops=reference_ops()),
    "reference, NumPy, staged": reference(new_ops=reference_ops(staged=True)),
    "reference, body": reference(),
    "node by node": lambda model, x: walked(model, x)["Y"],
}

THRESHOLDS = {
    "scalar": np.array(1.7),
    "one": np.array([1.7]),
    "channel": np.array([0.3, 1.7, 5.0]).reshape(3, 1, 1),
    "batch and channel": np.array([0.3, 1.7, 5.0]).reshape(1, 3, 1, 1),
    "tiny": np.array(1e-40),
    "huge": np.array(3e38),
}


@pytest.mark.parametrize("threshold", THRESHOLDS.values(), ids=THRESHOLDS.keys())
@pytest.mark.parametrize(("levels", "steps_in", "phi"), [(4, 4, 0.5), (1, 7, 0.5), (16, 1, 0.0), (255, 3, 0.5)])
def test_pasc_if(threshold: Array, levels: int, steps_in: int, phi: float) -> None:
    model = one_pasc_if(threshold, levels, steps_in, phi=phi)
    x = adversarial_currents(np.random.default_rng(0), steps_in, (5, 3, 9, 8), 1.7 / levels)
    expected = onnxruntime("native")(model, x)
    assert expected.shape == (5 * levels, 3, 9, 8)
    assert not np.isnan(expected).any()
    for name, run in EXECUTORS.items():
        y = run(model, x)
        assert y.tobytes() == expected.tobytes(), name
        assert y.shape == expected.shape, name


@pytest.mark.parametrize("threshold", THRESHOLDS.values(), ids=THRESHOLDS.keys())
@pytest.mark.parametrize(("levels", "phi"), [(1, 0.5), (4, 0.5), (16, 0.0), (255, 0.25)])
def test_qcfs(threshold: Array, levels: int, phi: float) -> None:
    model = one_qcfs(threshold, levels, phi=phi)
    x = adversarial_currents(np.random.default_rng(1), 1, (5, 3, 9, 8), 1.7 / levels)
    expected = onnxruntime("native")(model, x)
    for name, run in EXECUTORS.items():
        y = run(model, x)
        np.testing.assert_array_equal(y, expected, name, strict=True)
        assert np.signbit(y)[~np.isnan(y)].tobytes() == np.signbit(expected)[~np.isnan(expected)].tobytes(), name


@pytest.mark.parametrize("threads", [1, 2])
def test_function_body_adds_the_steps_in_order(threads: int) -> None:
    """Cancelling currents: added in the opposite order, they give other spikes."""
    rng = np.random.default_rng(2)
    backwards = 0
    for steps_in in (*range(1, 34), 63, 64, 65, 127, 128, 129, 200, 255):
        model = one_pasc_if(1.0, 16, steps_in)
        native, numpy = InferenceSession(model, threads=threads), InferenceSession(model, "numpy")
        for neurons in (1, 2, 3, 7, 8, 17, 64, 67):
            x = rng.normal(0, 1, (steps_in, neurons)) * 10.0 ** rng.integers(0, 8, (steps_in, neurons))
            x[-1] -= x.sum(axis=0) - rng.uniform(0, 1, neurons)
            feeds = {"X": x.astype(np.float32)}
            expected = numpy.run(None, feeds)[0]
            assert native.run(None, feeds)[0].tobytes() == expected.tobytes(), (steps_in, neurons)
            backwards += not np.array_equal(numpy.run(None, {"X": feeds["X"][::-1]})[0], expected)
    assert backwards > 200


@pytest.mark.parametrize("batch", [0, 1, 3])
def test_whole_network(batch: int) -> None:
    model = spiking_cnn()
    x = np.random.default_rng(3).normal(0, 1, (batch, 2, 8, 8)).astype(np.float32)
    native, numpy = InferenceSession(model.SerializeToString()), InferenceSession(model.SerializeToString(), "numpy")
    staged = InferenceSession(model.SerializeToString(), "numpy", staged=True)
    expected = native.run(None, {"X": x})[0]
    assert expected.shape == (batch, 3)
    spikes = native.trace({"X": x})
    for session in (numpy, staged):
        np.testing.assert_array_equal(session.run(None, {"X": x})[0], expected)
        for label, train in session.trace({"X": x}).items():
            np.testing.assert_array_equal(train, spikes[label], label, strict=True)
    if batch:
        y = reference(new_ops=reference_ops())(model.SerializeToString(), x)
        np.testing.assert_allclose(y, expected, atol=1e-5)
        tensors = walked(model.SerializeToString(), x)
        np.testing.assert_array_equal(tensors["Y"], y)
        for label, name in (("first", "s1"), ("second", "s2")):
            np.testing.assert_array_equal(tensors[name].reshape(spikes[label].shape) > 0, spikes[label], label)
