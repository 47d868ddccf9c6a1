"""The emitted file computes in onnxruntime with its own options what is written: none of its optimisers changes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import pascalc
from pascalc import observed
from pascalc.modelfile import to_bytes
from pascalc.ops import Pasc
from pascalc.passes import SCHEDULES
from pascalc.runtime import RUNTIME_ERRORS
from tests.helpers import compiled, constant, grid_inputs, model_of, run, session, with_bodies
from tests.strategies import Builder, Draw, Tensor, networks, neuron


def assert_stock(emitted: bytes, model: onnx.ModelProto) -> None:
    """Bit for bit: all sums are exact."""
    feeds = grid_inputs(model)
    written, optimised = run(emitted, feeds, optimised=False), run(emitted, feeds)
    for wanted, got in zip(written, optimised, strict=True):
        np.testing.assert_array_equal(got, wanted, strict=True)


@pytest.mark.parametrize("schedule", SCHEDULES)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(networks(12) | networks(odd=True))
def test_random_networks(schedule: str, model: onnx.ModelProto) -> None:
    assert_stock(to_bytes(compiled(model, SCHEDULES[schedule](Pasc()))), model)


def _pad(b: Builder, x: Tensor) -> Tensor:
    sides = b.draw(st.lists(st.integers(0, 2), min_size=4, max_size=4))
    pads = [0, 0, *sides[:2], 0, 0, *sides[2:]]
    value = [b.const(np.float32(0))] if b.draw(st.booleans()) else []
    name = b.apply("Pad", [x.name, b.const(pads, np.int64), *value])
    shape = (x.shape[0], x.shape[1] + sides[0] + sides[2], x.shape[2] + sides[1] + sides[3])
    return Tensor(name, shape, x.grid, x.bound)


def _nothing(b: Builder, x: Tensor) -> Tensor:
    """What onnxruntime removes between a Pad and what uses it."""
    op = b.draw(st.sampled_from(["", "Identity", "Dropout", "Reshape", "Transpose", "Add", "Mul", "Cast"]))
    name = x.name
    if op == "Reshape":
        name = b.apply("Reshape", [name, b.const([-1, int(np.prod(x.shape))], np.int64)])
        name = b.apply("Reshape", [name, b.const([-1, *x.shape], np.int64)])
    elif op == "Transpose":
        name = b.apply("Transpose", [b.apply("Transpose", [name], perm=[0, 2, 3, 1])], perm=[0, 3, 1, 2])
    elif op in ("Add", "Mul"):
        name = b.apply(op, [name, b.const(np.float32(op == "Mul"))])
    elif op:
        name = b.apply(op, [name], **({"to": onnx.TensorProto.FLOAT} if op == "Cast" else {}))
    return Tensor(name, x.shape, x.grid, x.bound)


def _window(b: Builder, x: Tensor) -> Tensor:
    """A pool or a convolution, with or without pads of its own."""
    op = b.draw(st.sampled_from(["MaxPool", "MaxPool", "AveragePool", "LpPool", "Conv"]))
    size = b.draw(st.integers(1, 2))
    attributes: dict[str, Any] = {"kernel_shape": [size, size]}
    pads = b.draw(st.none() | st.lists(st.integers(0, size - 1), min_size=4, max_size=4))
    if pads is not None:
        attributes["pads"] = pads
    if op == "AveragePool":
        attributes["count_include_pad"] = 1
    sides = pads or [0] * 4
    shape = (x.shape[0], x.shape[1] + sides[0] + sides[2] - size + 1, x.shape[2] + sides[1] + sides[3] - size + 1)
    inputs = [x.name]
    if op == "Conv":
        inputs.append(b.const(b.weight(2, x.shape[0], size, size)))
        shape = (2, *shape[1:])
    if op == "LpPool":
        attributes["p"] = 1
    return Tensor(b.apply(op, inputs, **attributes), shape, x.grid + 2, x.bound * 8)


@st.composite
def padded_networks(draw: Draw) -> onnx.ModelProto:
    """Pads, several in a row and with several users, in front of windows, on negative numbers and on spikes."""
    b = Builder(draw, np.random.default_rng(draw(st.integers(0, 2**32 - 1))))
    x = Tensor("x", (2, 3, 3), 2, 4.0)
    outputs = []
    if draw(st.booleans()):
        x = neuron(b, x)
    for _ in range(draw(st.integers(1, 2))):
        for _ in range(draw(st.integers(1, 3))):
            x = _nothing(b, _pad(b, x))
        padded = x
        outputs += [_window(b, padded) for _ in range(draw(st.integers(1, 2)))]
        x = neuron(b, outputs[-1])
    outputs = [x, *outputs[: draw(st.integers(0, 2))]]
    opset = draw(st.sampled_from([15, 17, 18, 21]))
    if opset < 18 and any(node.op_type == "LpPool" for node in b.nodes):
        opset = 18  # onnxruntime has no older LpPool
    names = dict.fromkeys(t.name for t in outputs)
    shapes = {t.name: ["N", *t.shape] for t in outputs}
    return model_of(b.nodes, {"x": ["N", 2, 3, 3]}, {n: shapes[n] for n in names}, b.constants, opset)


@pytest.mark.parametrize("schedule", SCHEDULES)
@settings(max_examples=250, deadline=None, derandomize=True)
@given(padded_networks())
def test_pads_in_front_of_windows(schedule: str, model: onnx.ModelProto) -> None:
    emitted = to_bytes(compiled(model, SCHEDULES[schedule](Pasc())))
    assert_stock(emitted, model)
    feeds = grid_inputs(model)
    for wanted, got in zip(run(compiled(model, []), feeds, optimised=False), run(emitted, feeds), strict=True):
        np.testing.assert_array_equal(got, wanted, strict=True)


@st.composite
def pools_that_round_up(draw: Draw) -> onnx.ModelProto:
    """A pool of a fixed batch whose size onnx may infer wrongly, and reshapes behind it that rely on it."""
    b = Builder(draw, np.random.default_rng(draw(st.integers(0, 2**32 - 1))))
    opset = draw(st.sampled_from([15, 18, 19, 21, 22]))
    op = draw(st.sampled_from(["MaxPool", "AveragePool", "LpPool"][: 3 if opset >= 18 else 2]))
    further = {"count_include_pad": draw(st.integers(0, 1))} if op == "AveragePool" else {}
    kernel = draw(st.sampled_from([2, 4]))
    pads = draw(st.lists(st.integers(0, kernel // 2), min_size=4, max_size=4))
    stride = draw(st.integers(1, 3))
    further |= {"p": 1} if op == "LpPool" else {}
    name = b.apply(op, ["x"], kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads, ceil_mode=1, **further)
    sizes = observed.pooled(b.nodes[0], [5, 6], opset)
    assert sizes is not None
    name = b.apply("Reshape", [name, b.const([-1, 2 * int(np.prod(sizes))], np.int64)])
    name = b.apply("Reshape", [name, b.const([-1, 2, *sizes], np.int64)])
    name = b.apply("QCFS", [name, b.const(np.float32(2))], "ai.pascalc", levels=2, phi=0.5, label="a")
    return model_of(b.nodes, {"x": [3, 2, 5, 6]}, {name: [3, 2, *sizes]}, b.constants, opset)


def _loads(model: onnx.ModelProto) -> bool:
    """Whether onnxruntime finds no contradiction in the sizes."""
    try:
        session(with_bodies(model))
    except RUNTIME_ERRORS:
        return False
    return True


@pytest.mark.parametrize("schedule", SCHEDULES)
@settings(max_examples=150, deadline=None, derandomize=True)
@given(pools_that_round_up())
def test_pools_that_round_up(schedule: str, model: onnx.ModelProto) -> None:
    feeds = {"x": 12 * grid_inputs(model)["x"]}  # so that an average over 1, 2, 3, ... of them is seldom rounded
    emitted = to_bytes(compiled(model, SCHEDULES[schedule](Pasc())))
    if any(a.name == "count_include_pad" and a.i for a in model.graph.node[0].attribute):
        assume(_loads(model))  # such a pool cannot be written otherwise
    for value in (*model.graph.input, *model.graph.output):  # or onnxruntime may find contradictions in the source
        for dim in value.type.tensor_type.shape.dim:
            dim.Clear()
    (wanted,), (got,) = run(with_bodies(model), feeds, optimised=False), run(emitted, feeds)
    np.testing.assert_array_equal(got, wanted, strict=True)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("between", [[], ["Reshape"], ["Transpose"], ["Reshape", "Transpose"]], ids="-".join)
def test_a_normalisation_behind_a_matmul(between: list[str], schedule: str, tmp_path: Path) -> None:
    """Its channels are on axis 1, wherever those of the MatMul are."""
    b = Builder(lambda strategy: None, np.random.default_rng(3))
    name, shape = b.apply("MatMul", ["x", b.const(b.weight(3, 4))]), [4, 4]
    for op in between:
        if op == "Reshape":
            name, shape = b.apply("Reshape", [name, b.const([-1, 4, 2, 2], np.int64)]), [4, 2, 2]
        else:
            axes = list(range(1, len(shape) + 1))
            name, shape = b.apply("Transpose", [name], perm=[0, *axes[::-1]]), shape[::-1]
    parameters = [b.const(b.weight(shape[0])) for _ in range(3)]
    parameters.append(b.const(4.0 ** b.rng.integers(-1, 2, shape[0])))
    name = b.apply("BatchNormalization", [name, *parameters], epsilon=0.0)
    name = b.apply("QCFS", [name, b.const(np.float32(2))], "ai.pascalc", levels=4, phi=0.5, label="a")
    model = model_of(b.nodes, {"x": ["N", 4, 3]}, {name: ["N", *shape]}, b.constants)
    emitted = compiled(model, SCHEDULES[schedule](Pasc()))
    assert_stock(to_bytes(emitted), model)
    source = tmp_path / "source.onnx"
    onnx.save(model, source)
    pascalc.compile(source, schedule=schedule, save_ann=tmp_path / "ann.onnx", levels={"a": 2})
    assert_stock((tmp_path / "ann.onnx").read_bytes(), model)


def test_onnxruntime_still_has_the_optimisers_that_are_avoided() -> None:
    """Once it has not, avoid-fusions can go."""
    nodes = [
        onnx.helper.make_node("Pad", ["x", "pads"], ["p"]),
        onnx.helper.make_node("MaxPool", ["p"], ["y"], kernel_shape=[2, 2]),
    ]
    pads = constant("pads", [0, 0, 1, 1, 0, 0, 1, 1], np.int64)
    model = model_of(nodes, {"x": ["N", 1, 2, 2]}, {"y": ["N", 1, 3, 3]}, [pads])
    x = -np.ones((1, 1, 2, 2), np.float32)
    assert run(model, {"x": x}, optimised=False)[0].max() == 0
    assert run(model, {"x": x})[0].max() == -1
