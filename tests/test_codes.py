"""What carries a number over time is one object: here a code with unequal step weights, 4, 2, 1, is added with a neuron
that sends it, as anybody would add one, and networks run with both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import pascalc
from pascalc import codes, ops
from pascalc.codes import RATE, THERMOMETER, UNIT, Code, Floats, Weighting
from pascalc.ops import PASC_IF, NeuronModel, Operator
from pascalc.ops.statements import LEVEL
from pascalc.runtime import kernels
from pascalc.runtime.kernels import Kernel
from pascalc.runtime.kernels.qcfs import qcfs
from tests.helpers import run
from tests.small_networks import (
    Array,
    Builder,
    attention_network,
    gated_network,
    images,
    residual_network,
    tokens,
    write,
)


class Binary(Weighting):
    """..., 4, 2, 1: the digits of a number, the largest first; a constant comes in the last step."""

    name = "binary"
    prolonged_in_front = True

    def weights(self, steps: int) -> Floats:
        return 2.0 ** np.arange(steps - 1, -1, -1)

    def shares(self, steps: int) -> Floats:
        return np.eye(steps)[-1]


BINARY = Binary()


class Radix(Code):
    name = "radix"
    weighting = BINARY
    maximum_by_step = False

    def encode(self, counts: Array, steps: int) -> Array:
        digits = np.arange(steps - 1, -1, -1).reshape(-1, *[1] * counts.ndim)
        return np.asarray(counts >> digits & 1, bool)

    def disorder(self, train: Array) -> None:
        return None


RADIX = Radix()

DIGITS = Operator(
    name="Digits",
    doc="The level of QCFS, as binary digits.",
    inputs=PASC_IF.inputs,
    outputs=PASC_IF.outputs,
    attributes=PASC_IF.attributes,
    body=LEVEL
    + """
    row = Constant <value_ints: ints = [1, -1]> ()
    counts = Reshape (count, row)
    steps_out = Constant <value_int: int = @steps_out> ()
    one = Constant <value_int: int = 1> ()
    minus_one = Constant <value_int: int = -1> ()
    first = Sub (steps_out, one)
    places = Range (first, minus_one, minus_one)
    column = Constant <value_ints: ints = [-1, 1]> ()
    exponents_int = Reshape (places, column)
    exponents = CastLike (exponents_int, X)
    two_int = Constant <value_int: int = 2> ()
    two = CastLike (two_int, X)
    weights = Pow (two, exponents)
    quotient = Div (counts, weights)
    whole = Floor (quotient)
    half = Div (whole, two)
    halved = Floor (half)
    even = Mul (halved, two)
    digits = Sub (whole, even)
    sample = Shape <start: int = 1> (X)
    minus_ones = Constant <value_ints: ints = [-1]> ()
    by_sample = Concat <axis: int = 0> (minus_ones, sample)
    train = Reshape (digits, by_sample)
    unit = Div (threshold, levels)
    Y = Mul (train, unit)
    """,
)


@dataclass(frozen=True)
class Digital(NeuronModel):
    """A neuron that sends the binary digits of its level."""

    name = "digital"
    operator = DIGITS
    code = RADIX
    reads = None  # sums over time
    any_length = True
    lossless = True

    def steps_out(self, levels: int) -> int:
        return levels.bit_length()

    @staticmethod
    def misfit(levels: int, steps_in: int, steps_out: int) -> str:
        return "" if (steps_in, steps_out) == (1, levels.bit_length()) else "its digits are too few, or too many"

    @staticmethod
    def most(levels: int, steps_out: int) -> int:
        return levels

    @staticmethod
    def start(phi: float) -> float:
        return phi

    @staticmethod
    def operations(most: int, steps_in: int) -> tuple[int, ...]:
        return (most.bit_length(),)


def digits(x: Array, threshold: Array, *, levels: int, steps_in: int, steps_out: int, phi: float) -> Array:
    level = np.rint(qcfs(x, threshold, levels=levels, phi=phi) / (threshold / np.float32(levels))).astype(np.int64)
    train = RADIX.encode(level, steps_out) * (threshold / np.float32(levels))
    return np.asarray(train.reshape(steps_out * len(x), *x.shape[1:]), x.dtype)


@pytest.fixture
def digital(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(codes.WEIGHTINGS, BINARY.name, BINARY)
    monkeypatch.setitem(ops.NEURON_MODELS, Digital.name, Digital)
    monkeypatch.setitem(ops.OPERATORS, DIGITS.name, DIGITS)
    monkeypatch.setitem(kernels.KERNELS, DIGITS.name, Kernel(DIGITS, digits))


def branches() -> onnx.ModelProto:
    """Trains of 3, 2 and 4 digits that meet in an Add and in a Concat; biases and a constant on trains; a scale."""
    b = Builder(5, grid=True)
    x = b.input("image", ["N", 2, 12, 12])
    three = b.qcfs(b.conv(x, "conv1", (2, 4)), "three", 7, 1.75)
    two = b.qcfs(b.conv(three, "conv2", (4, 4)), "two", 2, 0.5)
    four = b.qcfs(b.conv(three, "conv3", (4, 4)), "four", 8, np.array([1.0, 2.0, 0.5, 4.0]).reshape(4, 1, 1))
    added = b.node("Add", [b.node("Add", [two, three], "add"), b.constant("shift", [[[0.25]]])], "shifted")
    joined = b.node("Concat", [added, four, two], "concat", axis=1)
    scaled = b.node("Mul", [joined, b.constant("scale", np.arange(12).reshape(12, 1, 1) / 4)], "scaled")
    last = b.qcfs(b.conv(scaled, "conv4", (12, 3)), "last", 4, 2.0)
    pooled = b.node("ReduceSum", [last, b.constant("axes", [2, 3], np.int64)], "sum", keepdims=0)
    return b.model({"logits": b.gemm(pooled, "fc", (3, 5))})


@pytest.mark.usefixtures("digital")
@pytest.mark.parametrize(
    "network",
    [branches(), residual_network(grid=True), gated_network(grid=True)],
    ids=["branches", "residual", "gated"],
)
def test_a_code_of_unequal_weights(network: onnx.ModelProto, tmp_path: Path) -> None:
    source, data = write(network, tmp_path / "source.onnx"), images(24, grid=True)
    np.savez(tmp_path / "data.npz", image=data)
    result = pascalc.compile(source, tmp_path / "out.onnx", neuron="digital")
    compiled = onnx.load(tmp_path / "out.onnx")
    operators = {node.op_type for node in compiled.graph.node}
    assert {"Digits", "Retime", "Bias"} <= operators
    assert not operators & {"PascIF", "Accumulate", "Align", "Spread"}
    assert {n.steps_out for n in result.network.neurons} == {n.levels.bit_length() for n in result.network.neurons}
    (expected,), (given,) = run(network, {"image": data}), run(compiled, {"image": data})
    np.testing.assert_array_equal(given, expected, strict=True)
    assert np.ptp(given, axis=0).min() > 0
    for file in (tmp_path / "data.npz", None):
        verified = pascalc.verify(source, tmp_path / "out.onnx", file)
        assert verified.equivalent, verified.findings()
        assert sum(layer.count_mismatches for layer in verified.layers) == 0
    shares = pascalc.report(tmp_path / "out.onnx").layers
    assert [x.stage_operations for x in shares if x.neuron] == [
        (x.levels.bit_length() * x.neurons,) for x in shares if x.neuron
    ]


@pytest.mark.usefixtures("digital")
def test_products_of_trains_of_unequal_weights(tmp_path: Path) -> None:
    """Attention: what is held is the same in every step, whatever the steps of the train that it multiplies count; and
    what is compared is the weighted sum of that train."""
    network, data = attention_network(grid=True), tokens(24, grid=True)
    source = write(network, tmp_path / "source.onnx")
    np.savez(tmp_path / "data.npz", x=data)
    result = pascalc.compile(source, tmp_path / "out.onnx", neuron="digital")
    assert result.network.not_spiking == []
    compiled = onnx.load(tmp_path / "out.onnx")
    (expected,), (given,) = run(network, {"x": data}), run(compiled, {"x": data})
    np.testing.assert_array_equal(given, expected, strict=True)
    for file in (tmp_path / "data.npz", None):
        verified = pascalc.verify(source, tmp_path / "out.onnx", file)
        assert verified.equivalent, verified.findings()
    holds = [node for node in compiled.graph.node if node.op_type == "Hold"]
    sums = next(node for node in compiled.graph.node if holds[0].input[0] in node.output)
    matrix = next(tensor for tensor in compiled.graph.initializer if tensor.name == sums.input[1])
    weights = onnx.numpy_helper.to_array(matrix) * np.eye(matrix.dims[1], dtype=np.float32)[0]
    matrix.CopyFrom(onnx.numpy_helper.from_array(weights.astype(np.float32), matrix.name))
    assert not pascalc.verify(source, write(compiled, tmp_path / "broken.onnx"), tmp_path / "data.npz").equivalent


@pytest.mark.usefixtures("digital")
@pytest.mark.parametrize("kind", ["matrix", "shares", "bias"])
def test_what_deals_out_is_verified(kind: str, tmp_path: Path) -> None:
    source = write(branches(), tmp_path / "source.onnx")
    np.savez(tmp_path / "data.npz", image=images(8, grid=True))
    pascalc.compile(source, tmp_path / "out.onnx", neuron="digital")
    model = onnx.load(tmp_path / "out.onnx")
    tensor = next(t for t in model.graph.initializer if t.name.endswith(f"/{kind}"))
    values = onnx.numpy_helper.to_array(tensor).copy()
    values.flat[-1] += 0.5
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    assert not pascalc.verify(source, write(model, tmp_path / "broken.onnx"), tmp_path / "data.npz").equivalent


CODES: list[Code] = [THERMOMETER, RATE, RADIX]


@pytest.mark.parametrize("code", CODES, ids=lambda code: code.name)
@pytest.mark.parametrize("shape", [(), (5,), (3, 4, 2)])
def test_what_is_encoded_is_decoded(code: Code, shape: tuple[int, ...]) -> None:
    counts = np.random.default_rng(2).integers(0, 8, shape)
    steps = 7 if code.weighting is UNIT else 3
    train = code.encode(counts, steps)
    assert (train.dtype, train.shape) == (bool, (steps, *shape))
    np.testing.assert_array_equal(code.decode(train), counts)
    disorder = code.disorder(train)
    assert disorder is None or not disorder.any()


@pytest.mark.parametrize("weighting", [UNIT, BINARY], ids=lambda weighting: weighting.name)
@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_shares_of_a_constant_add_up_to_it(weighting: Weighting, steps: int) -> None:
    assert weighting.weights(steps) @ weighting.shares(steps) == 1


def test_disorder_in_a_thermometer() -> None:
    train = np.array([[1, 0, 1], [0, 1, 1], [0, 0, 1]], bool)
    disorder = THERMOMETER.disorder(train)
    np.testing.assert_array_equal(disorder, [[0, 1, 0], [0, 1, 0], [0, 0, 0]])


def test_prolonged_trains_keep_their_value() -> None:
    counts: Any = np.arange(8)
    train = RADIX.encode(counts, 3)
    longer = np.concatenate([np.zeros((2, 8), bool), train])
    np.testing.assert_array_equal(RADIX.decode(longer), counts)
