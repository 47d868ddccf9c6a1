"""Small networks and currents that the runtime's tests share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from pascalc.ops import DOMAIN, OPERATORS

OPSET = 18


def model(
    nodes: Sequence[onnx.NodeProto],
    outputs: Sequence[str],
    constants: dict[str, NDArray[Any]],
    functions: Sequence[str] = tuple(OPERATORS),
) -> onnx.ModelProto:
    """A model with the one input X and the function bodies of the given operators."""
    graph = helper.make_graph(
        list(nodes),
        "network",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in constants.items()],
    )
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)],
        ir_version=10,
        functions=[OPERATORS[name].function(OPSET) for name in functions],
    )


def pasc_if(x: str, threshold: str, y: str, label: str, levels: int, steps_in: int, **more: Any) -> onnx.NodeProto:
    attributes = {"steps_out": levels, "phi": 0.5} | more
    return helper.make_node(
        "PascIF", [x, threshold], [y], domain=DOMAIN, label=label, levels=levels, steps_in=steps_in, **attributes
    )


def qcfs(x: str, threshold: str, y: str, label: str, levels: int, phi: float = 0.5) -> onnx.NodeProto:
    return helper.make_node("QCFS", [x, threshold], [y], domain=DOMAIN, label=label, levels=levels, phi=phi)


def one_pasc_if(threshold: Any = 1.3, levels: int = 4, steps_in: int = 4, label: str = "act", **more: Any) -> bytes:
    """A network of one PascIF layer, X to Y."""
    node = pasc_if("X", "theta", "Y", label, levels, steps_in, **more)
    return model([node], ["Y"], {"theta": threshold}).SerializeToString()


def one_qcfs(threshold: Any = 1.3, levels: int = 4, label: str = "act", phi: float = 0.5) -> bytes:
    """A network of one QCFS layer, X to Y."""
    return model([qcfs("X", "theta", "Y", label, levels, phi)], ["Y"], {"theta": threshold}).SerializeToString()


def spiking_cnn(levels: int = 4, seed: int = 0) -> onnx.ModelProto:
    """Conv, PascIF 'first', MaxPool, Conv, PascIF 'second' (per channel), Flatten, Gemm, Accumulate: [N, 2, 8, 8] to
    [N, 3]."""
    rng = np.random.default_rng(seed)
    nodes = [
        helper.make_node("Conv", ["X", "w1", "b1"], ["z1"], pads=[1, 1, 1, 1]),
        pasc_if("z1", "theta1", "s1", "first", levels, 1),
        helper.make_node("MaxPool", ["s1"], ["p1"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p1", "w2", "b2"], ["z2"], pads=[1, 1, 1, 1]),
        pasc_if("z2", "theta2", "s2", "second", levels, levels),
        helper.make_node("Flatten", ["s2"], ["f"]),
        helper.make_node("Gemm", ["f", "w3"], ["z3"]),
        helper.make_node("Accumulate", ["z3"], ["Y"], domain=DOMAIN, steps=levels),
    ]
    constants = {
        "w1": rng.normal(0, 0.3, (4, 2, 3, 3)),
        "b1": rng.normal(0, 0.1, 4),
        "theta1": np.array(1.1),
        "w2": rng.normal(0, 0.3, (5, 4, 3, 3)),
        "b2": rng.normal(0, 0.1, 5) / levels,
        "theta2": rng.uniform(0.5, 1.5, (5, 1, 1)),
        "w3": rng.normal(0, 0.3, (5 * 4 * 4, 3)),
    }
    return model(nodes, ["Y"], constants)


def adversarial_currents(
    rng: np.random.Generator, steps: int, shape: tuple[int, ...], unit: float
) -> NDArray[np.float32]:
    """Currents ``[steps * shape[0], ...]`` around the firing points: half points, cancellations, extremes, NaN."""
    size = int(np.prod(shape))
    x = rng.normal(0, 2 * unit, (steps, size))
    kind = rng.integers(0, 8, size)
    half_points = (rng.integers(-2, 2 * steps + 4, size) - 0.5) * unit / steps
    x = np.where(kind == 1, half_points, x)
    x = np.where(kind == 2, x * 10.0 ** rng.integers(-30, 30, (steps, size)), x)
    x = np.where(kind == 3, x + np.where(np.arange(steps) % 2, -1e7, 1e7)[:, np.newaxis] * unit, x)
    extremes = np.array([0.0, -0.0, 1e-45, -1e-45, 3e38, -3e38, np.inf, -np.inf, np.nan, unit / 2, unit])
    x = np.where(kind == 4, extremes[rng.integers(0, extremes.size, (steps, size))], x)
    with np.errstate(over="ignore"):
        return x.astype(np.float32).reshape(steps * shape[0], *shape[1:])
