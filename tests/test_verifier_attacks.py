"""Wrong files that once passed, and right files that once did not: one test a kind, written so that the next of its
kind is caught too. tests/mutants breaks networks at random; here somebody means it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper

import pascalc
from pascalc.cli import main
from pascalc.errors import CompileError
from pascalc.ops import DOMAIN
from pascalc.runtime import InferenceSession
from pascalc.verifier.chance import random_levels
from pascalc.verifier.networks import CompiledNetworks
from pascalc.verifier.outputs import Answers
from pascalc.verifier.record import Verification
from tests.small_networks import Array, Builder, images, linear_network, residual_network, rows, write
from tests.test_mutations import Emitted

Break = Callable[[Emitted], None]


class Case:
    """A source network, compiled, and data for it; verified as it is first, which must succeed."""

    def __init__(self, folder: Path, source: onnx.ModelProto, data: dict[str, Array], **options: Any) -> None:
        self.folder = folder
        write(source, folder / "source.onnx")
        pascalc.compile(folder / "source.onnx", folder / "out.onnx", **options)
        np.savez(folder / "data.npz", **data)  # type: ignore[arg-type]
        honest = self.verify()
        assert honest.equivalent, honest.findings()
        self.emitted = Emitted(onnx.load(folder / "out.onnx"))

    def verify(self, model: onnx.ModelProto | None = None, *, data: bool = True, **options: Any) -> Verification:
        path = self.folder / "out.onnx" if model is None else write(model, self.folder / "broken.onnx")
        file = self.folder / "data.npz" if data else None
        return pascalc.verify(self.folder / "source.onnx", path, file, threads=1, **options)

    def is_caught(self, first: str | None = None) -> Verification:
        """The emitted network, as it is now, is found out on data."""
        result = self.verify(self.emitted.model)
        assert not result.equivalent
        assert first is None or result.first_difference == first, result.findings()
        return result


def behind(b: Builder, x: str, channels: int = 12) -> str:
    return b.gemm(x, "last", (channels, 5))


# --- absence is no agreement ----------------------------------------------------------------------------------------

NAMES = ("sum:{}", "current:{}", "fed:{}", "pascalc fed:{}", "abs:{}", "off:{}", "count:{}", "canonical:{}")


@pytest.mark.parametrize("pattern", NAMES)
@pytest.mark.parametrize("what", ["tensor", "node"])
def test_names_like_those_of_probes(pattern: str, what: str, tmp_path: Path) -> None:
    """In an honest file they change nothing; in a wrong one they hide nothing."""
    case = Case(tmp_path, residual_network(), {"x": images(6)})
    train = case.emitted.node("left/PascIF").output[0]
    name = pattern.format(train)
    decoy = helper.make_node(
        "Neg", [case.emitted.node("left/PascIF").input[0]], [name if what == "tensor" else "decoy"]
    )
    decoy.name = name if what == "node" else "decoy"
    case.emitted.put_behind("left/PascIF", decoy)
    assert case.verify(case.emitted.model).equivalent
    case.emitted.edit("conv3", 2, lambda bias: bias + np.float32(0.01))
    case.is_caught("join")


@pytest.mark.parametrize("pattern", NAMES)
def test_such_names_in_the_source(pattern: str, tmp_path: Path) -> None:
    """Tensors of the source that are named like probes of its own neuron."""
    b = Builder(3)
    x = b.qcfs(b.gemm(b.input("x", ["N", 6]), "fc1", (6, 12)), "act", 4, 1.5)
    b.nodes[0].output[0] = pattern.format(x)
    b.nodes[1].input[0] = pattern.format(x)
    case = Case(tmp_path, b.model({"y": behind(b, x)}), {"x": rows(8)})
    case.emitted.edit("last", 2, lambda bias: bias + np.float32(0.01))
    case.is_caught("the outputs")


# --- what is computed -----------------------------------------------------------------------------------------------


def preprocessing(b: Builder) -> str:
    """A normalisation in front of a Tanh: no neuron is near."""
    x = b.node("Sub", [b.input("x", ["N", 6]), b.constant("mean", np.linspace(-0.5, 0.5, 6))], "normalise")
    return b.node("Tanh", [x], "tanh")


def test_a_normalisation_dropped_before_a_computed_operator(tmp_path: Path) -> None:
    b = Builder(3)
    x = b.qcfs(b.gemm(preprocessing(b), "fc1", (6, 12)), "act", 4, 1.5)
    case = Case(tmp_path, b.model({"y": behind(b, x)}), {"x": rows(8)})
    case.emitted.node("tanh").input[0] = "x"
    case.is_caught("tanh")


def chain(b: Builder) -> str:
    x = b.qcfs(b.gemm(b.input("x", ["N", 6]), "fc1", (6, 12)), "act", 4, 1.5)
    return behind(b, b.node("Tanh", [b.node("Sigmoid", [x], "sigmoid")], "tanh"))


def test_an_operator_between_two_computed_ones(tmp_path: Path) -> None:
    b = Builder(3)
    case = Case(tmp_path, b.model({"y": chain(b)}), {"x": rows(8)})
    case.emitted.insert_behind("sigmoid", helper.make_node("Neg", ["<in>"], ["<out>"]))
    assert case.is_caught().findings()


@pytest.mark.parametrize("skipped", ["sigmoid", "tanh"])
def test_a_computed_operator_that_is_bypassed(skipped: str, tmp_path: Path) -> None:
    b = Builder(3)
    case = Case(tmp_path, b.model({"y": chain(b)}), {"x": rows(8)})
    node = case.emitted.node(skipped)
    for user in case.emitted.graph.node:
        user.input[:] = [node.input[0] if t == node.output[0] else t for t in user.input]
    assert case.is_caught().findings()


def test_two_network_inputs_swapped(tmp_path: Path) -> None:
    b = Builder(3)
    left, right = (b.node("Tanh", [b.input(n, ["N", 6])], f"tanh_{n}") for n in ("a", "b"))
    x = b.node("Sub", [b.gemm(left, "fc_a", (6, 12)), b.gemm(right, "fc_b", (6, 12))], "sub")
    case = Case(tmp_path, b.model({"y": behind(b, b.qcfs(x, "act", 4, 1.5))}), {"a": rows(8, 1), "b": rows(8, 2)})
    first, second = case.emitted.node("tanh_a"), case.emitted.node("tanh_b")
    first.input[0], second.input[0] = second.input[0], first.input[0]
    case.is_caught("tanh_a")


def test_an_attribute_that_is_a_tensor(tmp_path: Path) -> None:
    b = Builder(3)
    x = b.input("x", ["N", 6])
    fill = helper.make_tensor("value", TensorProto.FLOAT, [1], [0.25])
    more = b.node("ConstantOfShape", [b.node("Shape", [b.node("NonZero", [x], "places")], "shape")], "fill", value=fill)
    total = b.node("ReduceSum", [more], "total", keepdims=0)
    x = b.qcfs(b.gemm(b.node("Add", [x, total], "add"), "fc1", (6, 12)), "act", 4, 1.5)
    case = Case(tmp_path, b.model({"y": behind(b, x)}), {"x": rows(8)})
    case.emitted.attribute("fill", "value").t.CopyFrom(helper.make_tensor("value", TensorProto.FLOAT, [1], [0.26]))
    assert [check.name for check in case.is_caught().computed if check.problems] == ["fill"]


def branching(threshold: float = 0.0) -> onnx.ModelProto:
    """A branch taken by the sum of the whole input: its condition is a scalar truth value."""
    b = Builder(3)
    x = b.input("x", ["N", 6])
    condition = b.node(
        "Greater", [b.node("ReduceSum", [x], "total", keepdims=0), b.constant("t", threshold)], "is_large"
    )
    x = b.qcfs(b.gemm(x, "fc1", (6, 12)), "act", 4, 1.5)

    def branch(name: str, op: str) -> onnx.GraphProto:
        out = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node(op, [x], [f"{name}_out"], name=f"{name}_{op}")], name, [], [out])

    x = b.node("If", [condition], "choice", then_branch=branch("then", "Identity"), else_branch=branch("else", "Neg"))
    return b.model({"y": behind(b, x)})


def test_a_scalar_truth_value_and_a_branch(tmp_path: Path) -> None:
    case = Case(tmp_path, branching(), {"x": rows(8)})
    (body,) = (a.g for a in case.emitted.node("choice").attribute if a.name == "else_branch")
    body.node[0].op_type = "Abs"
    case.is_caught("choice")


def test_the_condition_of_a_branch(tmp_path: Path) -> None:
    case = Case(tmp_path, branching(), {"x": rows(8)})
    case.emitted.edit("is_large", 1, lambda value: value + np.float32(0.5))
    case.is_caught("is_large")


def test_an_operator_of_ours_beside_a_computed_one(tmp_path: Path) -> None:
    """What gives the computed operator's tensor is an operator of the project's domain."""
    b = Builder(3)
    case = Case(tmp_path, b.model({"y": chain(b)}), {"x": rows(8)})
    node = case.emitted.node("sigmoid")
    node.op_type, node.domain = "Accumulate", DOMAIN
    node.attribute.append(helper.make_attribute("steps", 1))
    case.is_caught("sigmoid")


# --- outputs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["unrolled", "collapsed"])
@pytest.mark.parametrize("reader", ["output", "softmax"])
def test_an_activation_scaled_with_its_threshold(reader: str, schedule: str, tmp_path: Path) -> None:
    """Spikes twice as high, the layer behind them halved: right for the neurons, wrong for whoever reads the value."""
    b = Builder(3)
    x = b.qcfs(b.gemm(b.input("x", ["N", 6]), "fc1", (6, 12)), "act", 4, 1.5)
    other = b.node("Softmax", [x], "softmax", axis=1) if reader == "softmax" else x
    model = b.model({"y": behind(b, x), "seen": other}, shapes={"seen": ("N", 12)})
    case = Case(tmp_path, model, {"x": rows(8)}, schedule=schedule)
    neuron = case.emitted.node("act/PascIF" if schedule == "unrolled" else "act/QCFS")
    case.emitted.edit(neuron.name, 1, lambda theta: theta * np.float32(2))
    case.emitted.edit("fc1", 1, lambda weight: weight * np.float32(2))
    case.emitted.edit("fc1", 2, lambda bias: bias * np.float32(2))
    case.emitted.edit("last", 1, lambda weight: weight * np.float32(0.5))
    case.is_caught("the outputs" if reader == "output" else "softmax")


TAILS: dict[str, tuple[Callable[[Builder, str], str], int, str]] = {
    "label + 1": (
        lambda b, x: b.node(
            "Add", [b.node("ArgMax", [x], "argmax", axis=1, keepdims=0), b.constant("one", 1, np.int64)], "plus"
        ),
        TensorProto.INT64,
        "plus",
    ),
    "truth": (
        lambda b, x: b.node("Greater", [x, b.constant("limit", 0.125)], "plus"),
        TensorProto.BOOL,
        "plus",
    ),
    "float16": (
        lambda b, x: b.node(
            "Add", [b.node("Cast", [x], "cast", to=TensorProto.FLOAT16), b.constant("c", 1, np.float16)], "plus"
        ),
        TensorProto.FLOAT16,
        "plus",
    ),
}


@pytest.mark.parametrize("tail", TAILS)
def test_outputs_that_are_no_floats(tail: str, tmp_path: Path) -> None:
    make, kind, node = TAILS[tail]
    b = Builder(3)
    x = b.qcfs(b.gemm(b.input("x", ["N", 6]), "fc1", (6, 12)), "act", 4, 1.5)
    shape = ("N",) if tail == "label + 1" else ("N", 5)
    model = b.model({"y": make(b, behind(b, x))}, shape, types={"y": kind})
    case = Case(tmp_path, model, {"x": rows(20)})
    case.emitted.edit(node, 1, lambda value: np.asarray(value + value.dtype.type(7), value.dtype))
    case.is_caught()


def test_the_real_outputs_are_compared(tmp_path: Path) -> None:
    """All layers are as they should be; what the file gives is another tensor of the same name elsewhere."""
    case = Case(tmp_path, linear_network(), {"x": rows(20)})
    case.emitted.insert_behind(
        "logits/train/Accumulate",
        helper.make_node("Neg", ["<in>"], ["turned"]),
        helper.make_node("Neg", ["turned"], ["<out>"]),
    )
    assert case.verify(case.emitted.model).answers_compared == 20
    case.emitted.graph.node[-2].op_type = "Relu"
    case.is_caught("the outputs")


# --- which axis is the batch ----------------------------------------------------------------------------------------


def tokens() -> onnx.ModelProto:
    """[N, 4, 6] to [N*4, 6] and on: the first axis of its activations is no batch."""
    b = Builder(3)
    x = b.node("Reshape", [b.input("x", ["N", 4, 6]), b.constant("flat", [-1, 6], np.int64)], "tokens")
    x = b.qcfs(b.gemm(x, "fc1", (6, 12)), "act", 4, 1.5)
    return b.model({"y": behind(b, x)}, ("M", 5))


def test_positions_behind_the_first_samples(tmp_path: Path) -> None:
    """Every row but the first few is another's."""
    x = np.random.default_rng(0).normal(0, 1, (5, 4, 6)).astype(np.float32)
    case = Case(tmp_path, tokens(), {"x": x})
    order = case.emitted.constant("order", np.array([0, 1, 2, 3, 4, 5, 6, 7, 9, 8, *range(10, 20)]))
    case.emitted.insert_behind("last", helper.make_node("Gather", ["<in>", order], ["<out>"], axis=0))
    case.is_caught()


def test_an_output_with_the_batch_behind(tmp_path: Path) -> None:
    b = Builder(3)
    x = b.qcfs(b.gemm(b.input("x", ["N", 6]), "fc1", (6, 12)), "act", 4, 1.5)
    y = b.node("Transpose", [behind(b, x)], "turn", perm=[1, 0])
    case = Case(tmp_path, b.model({"y": y}, (5, "N")), {"x": rows(3)})
    case.emitted.edit("last", 2, lambda bias: bias + np.float32([0, 0, 0, 0, 0.1]))
    case.is_caught()


def test_a_file_that_is_right_at_one_batch_size_only(tmp_path: Path) -> None:
    """With as many samples as the data has it gives the source's answers; with fewer it fails, or gives others."""
    case = Case(tmp_path, linear_network(), {"x": rows(16)})
    shape = case.emitted.constant("sixteen", np.array([16, 5]))
    case.emitted.insert_behind("logits/train/Accumulate", helper.make_node("Reshape", ["<in>", shape], ["<out>"]))
    result = case.is_caught("the outputs")
    assert any("cannot be run" in line for line in result.findings())


def test_another_network_at_other_batch_sizes(tmp_path: Path) -> None:
    case = Case(tmp_path, linear_network(), {"x": rows(16)})
    e = case.emitted
    sizes = [e.constant("first", np.array([0])), e.constant("sixteen", np.array([16]))]
    nodes = [
        helper.make_node("Shape", ["<in>"], ["shape"]),
        helper.make_node("Gather", ["shape", sizes[0]], ["size"]),
        helper.make_node("Equal", ["size", sizes[1]], ["is_sixteen"]),
        helper.make_node("Neg", ["<in>"], ["turned"]),
        helper.make_node("Where", ["is_sixteen", "<in>", "turned"], ["<out>"]),
    ]
    e.insert_behind("logits/train/Accumulate", *nodes)
    assert case.is_caught("the outputs").batch_sizes == [1, 2, 5, 16]


def test_what_was_tried_is_said_and_nothing_else(tmp_path: Path) -> None:
    case = Case(tmp_path, residual_network(batch=2), {"x": images(3)})
    result = case.verify()
    assert (result.batch_sizes, result.probes, result.threads, result.data) == ([2], 24, 1, True)
    assert result.disturbed == 8
    case = Case(tmp_path, linear_network(), {"x": rows(3)})
    assert case.verify(data=False).data is False
    assert case.verify(data=False).disturbed == 8


def test_a_source_that_takes_no_disturbed_inputs(tmp_path: Path) -> None:
    """Of negative numbers there is no root: nothing is tried there, and that is said."""
    b = Builder(3)
    x = b.qcfs(b.node("Sqrt", [b.input("x", ["N", 6])], "root"), "act", 4, 1.5)
    case = Case(tmp_path, b.model({"y": behind(b, x, 6)}), {"x": np.abs(rows(8))})
    result = case.verify()
    assert (result.equivalent, result.disturbed) == (True, 0)
    arguments = [str(tmp_path / name) for name in ("source.onnx", "out.onnx")]
    text = CliRunner().invoke(main, ["verify", *arguments, "--data", str(tmp_path / "data.npz")]).stdout
    assert "disturbed inputs: none, since the source refuses them" in text


# --- tolerances -----------------------------------------------------------------------------------------------------


def test_a_train_of_a_million_steps_widens_no_bound(tmp_path: Path) -> None:
    case = Case(tmp_path, linear_network(), {"x": rows(16)})
    wide, narrow = (
        helper.make_node(op, [], [], domain=DOMAIN, name=op, steps=10**6) for op in ("Spread", "Accumulate")
    )
    wide.input.append("<in>")
    wide.output.append("wide")
    narrow.input.append("wide")
    narrow.output.append("<out>")
    case.emitted.insert_behind("fc1", wide, narrow)
    case.emitted.edit("fc1", 2, lambda bias: bias * np.float32(1.01))
    assert any("1000000 steps" in line for line in case.is_caught().findings())


@pytest.mark.parametrize("theta", [5e-38, 1e-44, 1e38])
def test_a_threshold_that_overflows(theta: float, tmp_path: Path) -> None:
    """L/theta or theta/L is no number, so that no bound means anything."""
    case = Case(tmp_path, linear_network(), {"x": rows(16)})
    case.emitted.edit("act/PascIF", 1, lambda value: np.full_like(value, theta))
    case.is_caught("act")


# --- operators that are the source's by name alone --------------------------------------------------------------------


def tailed(op: str, **attributes: Any) -> onnx.ModelProto:
    b = Builder(3)
    x = b.qcfs(b.gemm(b.input("x", ["N", 6]), "fc1", (6, 12)), "act", 4, 1.5)
    return b.model({"y": b.node(op, [behind(b, x)], "tail", **attributes)})


@pytest.mark.parametrize("name", ["y", "fc1_out"])
@pytest.mark.parametrize("op", ["Relu", "Abs", "LeakyRelu", "Exp", "Sigmoid", "Softmax"])
def test_a_second_operator_under_a_name_of_the_source(op: str, name: str, tmp_path: Path) -> None:
    """One operator stands for one of the source's, and where it stands."""
    case = Case(tmp_path, tailed(op), {"x": rows(30)})
    e = case.emitted
    far = e.constant("far", np.float32(1500))
    e.insert_before(
        "fc1",
        0,
        helper.make_node("Sub", ["<in>", far], ["below"]),
        helper.make_node(op, ["below"], ["bent"], name=name),
        helper.make_node("Mul", ["bent", e.constant("none", np.float32(0))], ["gone"]),
        helper.make_node("Add", ["<in>", "gone"], ["<out>"]),
    )
    case.is_caught()
    assert not case.verify(e.model, data=False).equivalent


def test_a_second_maxpool_under_a_name_of_the_source(tmp_path: Path) -> None:
    """The source's own, which moved behind a neuron, leaves its place free."""
    case = Case(tmp_path, residual_network(), {"image": images(8)})
    e = case.emitted
    none, far = e.constant("none", np.float32(0)), e.constant("far", np.float32(20))
    e.insert_before(
        "conv1",
        0,
        helper.make_node("Mul", ["<in>", none], ["zeros"]),
        helper.make_node("Add", ["zeros", far], ["twenty"]),
        helper.make_node("Concat", ["<in>", "twenty"], ["two"], axis=2),
        helper.make_node("MaxPool", ["two"], ["larger"], name="maxpool_out", kernel_shape=[2, 1], dilations=[12, 1]),
        helper.make_node("Sub", ["larger", far], ["bent"]),
        helper.make_node("Add", ["<in>", "bent"], ["<out>"]),
    )
    result = case.is_caught()
    assert any("(MaxPool) is not in the source" in line for line in result.findings())


@pytest.mark.parametrize("kind", [TensorProto.INT64, TensorProto.INT32, TensorProto.UINT8])
@pytest.mark.parametrize("op", ["Div", "Mul", "Add"])
def test_arithmetic_of_integers(op: str, kind: int, tmp_path: Path) -> None:
    """It rounds, or wraps around, where nobody looks."""
    b = Builder(3)
    x = b.node("Cast", [b.input("x", ["N", 6], kind)], "floats", to=TensorProto.FLOAT)
    x = b.qcfs(b.gemm(x, "fc1", (6, 12)), "act", 4, 1.5)
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    case = Case(tmp_path, b.model({"y": behind(b, x)}), {"x": np.arange(60).reshape(10, 6).astype(dtype) % 90})
    e = case.emitted
    large = e.constant("large", np.asarray({"Div": 100, "Mul": 0, "Add": 0}[op], dtype))
    e.insert_before(
        "floats",
        0,
        helper.make_node(op, ["<in>", large], ["part"]),
        helper.make_node("Sub", ["part", "part"], ["nothing"]),
        helper.make_node("Add", ["<in>", "part" if op == "Div" else "nothing"], ["<out>"]),
    )
    case.is_caught()


# --- floats at their ends ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [True, False])
@pytest.mark.parametrize("exponent", [100, 113, 122])
def test_an_overflow_that_no_data_shows(exponent: int, data: bool, tmp_path: Path) -> None:
    """Times a large number, and times a small one: nothing changes, up to where the largest float is."""
    case = Case(tmp_path, linear_network(), {"x": rows(30)})
    e = case.emitted
    up, down = (e.constant(n, np.float32(2.0**s)) for n, s in (("up", exponent), ("down", -exponent)))
    e.insert_before(
        "fc1", 0, helper.make_node("Mul", ["<in>", up], ["huge"]), helper.make_node("Mul", ["huge", down], ["<out>"])
    )
    assert not case.verify(e.model, data=data).equivalent


def test_what_onnxruntime_makes_of_negative_inputs(tmp_path: Path) -> None:
    """All data is positive, as images are; a Pad that onnxruntime fuses with a MaxPool behind it is right on these."""
    b = Builder(3)
    x = b.input("x", ["N", 2, 4, 4])
    pads = b.constant("pads", [0, 0, 1, 1, 0, 0, 1, 1], np.int64)
    padded = b.node("Pad", [x, pads], "pad")
    pooled = b.node("MaxPool", [padded], "pool", kernel_shape=[3, 3], strides=[2, 2])
    both = b.node("Add", [b.node("GlobalAveragePool", [padded], "mean"), pooled], "both")
    y = b.qcfs(b.conv(both, "conv", (2, 5)), "act", 4, 1.5)
    case = Case(tmp_path, b.model({"y": y}, ("N", 5, None, None)), {"x": np.abs(images(12)[:, :, :4, :4])})
    e = case.emitted
    pool = next(n for n in e.model.graph.node if n.name == "pool")
    e.model.graph.node.insert(0, helper.make_node("Pad", ["x", "pads"], ["own"], name="own_pad"))
    pool.input[0] = "own"
    case.is_caught()


# --- right files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [True, False])
@pytest.mark.parametrize("further", [{"pads": [0, 0, 1, 0]}, {"auto_pad": "SAME_UPPER"}], ids=str)
def test_sizes_that_onnxruntime_gets_wrong(further: dict[str, Any], data: bool, tmp_path: Path) -> None:
    """It infers one size behind such a pool and computes another; no network that verify makes may state a third."""
    b = Builder(3)
    pooled = b.node(
        "MaxPool", [b.input("x", ["N", 2, 4, 4])], "pool", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1, **further
    )
    pads = b.constant("pads", [0, 0, 1, 0, 0, 0, 0, 0], np.int64)
    padded = b.node("Pad", [pooled, pads], "pad")
    doubled = b.node("Add", [padded, padded], "doubled")
    scaled = b.node("Mul", [doubled, b.constant("gain", [[[0.9]], [[0.2]]])], "scaled")
    x = b.qcfs(b.node("Add", [padded, scaled], "both"), "act", 4, 1.5)
    slices = [b.constant(name, [value], np.int64) for name, value in (("first", 1), ("last", 3), ("axis", 2))]
    y = b.node("Slice", [x, *slices], "some")
    case = Case(tmp_path, b.model({"y": y}, ("N", 2, 2, None)), {"x": images(12)[:, :, :4, :4]})
    assert case.verify(data=data).equivalent


def test_a_source_that_overflows_soon(tmp_path: Path) -> None:
    """There is little that it can be tried with beside its data."""
    b = Builder(3)
    x = b.node("Exp", [b.node("Exp", [b.input("x", ["N", 6])], "first")], "second")
    y = b.node("Neg", [b.qcfs(x, "act", 4, 1.5)], "tail")
    Case(tmp_path, b.model({"y": y}, ("N", 6)), {"x": rows(30) / 4})


def test_what_is_computed_is_infinite_here_and_there(tmp_path: Path) -> None:
    b = Builder(3)
    large = b.node("Mul", [b.input("x", ["N", 6]), b.constant("many", 80.0)], "large")
    y = b.qcfs(b.node("Exp", [large], "exp"), "act", 4, 1.5)
    tail = b.node("Neg", [y], "tail")
    case = Case(tmp_path, b.model({"y": tail}, ("N", 6)), {"x": np.minimum(rows(30), np.float32(0.1))})
    for seed in range(5):
        result = case.verify(seed=seed)
        assert result.equivalent, result.findings()


def test_a_maxpool_of_what_is_not_batched(tmp_path: Path) -> None:
    """It is computed on sums, so that it must not move behind its neuron."""
    b = Builder(3)
    scales = b.constant("scales", [1.64, 1.1, 2.8, 2.3])
    larger = b.node("Resize", [b.input("x", ["N", 4, 2, 2]), "", scales], "larger", mode="nearest")
    pooled = b.node("MaxPool", [larger], "pool", kernel_shape=[2, 2], strides=[2, 2])
    y = b.qcfs(pooled, "act", 1, 0.5)
    case = Case(
        tmp_path,
        b.model({"y": y}, (None, 4, None, None)),
        {"x": np.abs(rows(24)[:, :4]).repeat(4).reshape(24, 4, 2, 2)},
    )
    assert case.verify(data=False).equivalent


def test_a_maxpool_behind_a_layer_with_a_threshold_folded_in(tmp_path: Path) -> None:
    """It gets a multiple of what the source's gets."""
    b = Builder(3)
    first = b.qcfs(b.conv(b.input("x", ["N", 2, 8, 8]), "conv1", (2, 5)), "first", 4, 0.75)
    pooled = b.node("GlobalMaxPool", [b.conv(first, "conv2", (5, 5))], "pool")
    act = b.qcfs(pooled, "act", 4, b.rng.uniform(0.5, 2, (1, 5, 1, 1)))
    y = b.conv(act, "conv3", (5, 3))
    case = Case(tmp_path, b.model({"y": y}, ("N", 3, None, None)), {"x": images(12)[:, :, :8, :8]})
    assert "act/threshold_2" in {t.name for t in case.emitted.graph.initializer}
    assert case.verify(data=False).equivalent


@pytest.mark.parametrize("network", ["vgg", "resnet"])
def test_a_half_point_that_only_the_file_itself_crosses(network: str, tmp_path: Path) -> None:
    """onnxruntime fuses where nobody looks, so that the file's own counts may differ from those that were observed."""
    folder = Path(__file__).parents[1] / "examples" / "fashion-mnist"
    pascalc.compile(folder / f"{network}.onnx", tmp_path / "out.onnx", schedule="collapsed")
    result = pascalc.verify(folder / f"{network}.onnx", tmp_path / "out.onnx", folder / "test-1000.npz", limit=32)
    assert result.equivalent, result.findings()


# --- functions, metadata, files -------------------------------------------------------------------------------------


def test_an_edited_function_body(tmp_path: Path) -> None:
    case = Case(tmp_path, linear_network(), {"x": rows(16)})
    (body,) = (f for f in case.emitted.model.functions if f.name == "PascIF")
    (compare,) = (n for n in body.node if n.op_type == "GreaterOrEqual")
    compare.op_type = "Greater"
    assert case.is_caught().problems == ["the file's body of PascIF is not this version's"]


def test_levels_are_taken_on_trust_and_said_so(tmp_path: Path) -> None:
    case = Case(tmp_path, linear_network(), {"x": rows(16)}, schedule="collapsed")
    assert case.verify().source_recorded is True
    case.emitted.set("act/QCFS", levels=2)
    case.is_caught("act")
    for entry in case.emitted.model.metadata_props:
        if entry.key == "pascalc.levels":
            entry.value = json.dumps({"act": 2})
        if entry.key == "pascalc.source_sha256":
            entry.value = "0" * 64
    result = case.verify(case.emitted.model)
    assert result.requantised == {"act": (4, 2)}
    assert result.source_recorded is False
    assert ["act: 4 -> 2" in line for line in result.trusted] == [True]


def test_the_saved_ann_is_the_recorded_source(tmp_path: Path) -> None:
    source = write(linear_network(), tmp_path / "source.onnx")
    pascalc.compile(source, tmp_path / "out.onnx", levels={"act": 2}, save_ann=tmp_path / "ann.onnx")
    np.savez(tmp_path / "data.npz", x=rows(8))
    for file, recorded in ((tmp_path / "ann.onnx", True), (source, True)):
        assert pascalc.verify(file, tmp_path / "out.onnx", tmp_path / "data.npz").source_recorded is recorded
    again = pascalc.compile(tmp_path / "ann.onnx", tmp_path / "again.onnx")
    assert pascalc.verify(tmp_path / "ann.onnx", again.output, tmp_path / "data.npz").source_recorded is True
    assert pascalc.verify(source, again.output, tmp_path / "data.npz").source_recorded is False


@pytest.mark.parametrize("shape", [(5,), (3, 1), (2, 1, 12)])
def test_a_threshold_that_does_not_broadcast(shape: tuple[int, ...], tmp_path: Path) -> None:
    case = Case(tmp_path, linear_network(), {"x": rows(8)})
    case.emitted.edit("act/PascIF", 1, lambda value: np.full(shape, value.flat[0], value.dtype))
    case.is_caught("act")


def test_a_neuron_with_an_attribute_of_another_type(tmp_path: Path) -> None:
    case = Case(tmp_path, linear_network(), {"x": rows(8)})
    attribute = case.emitted.attribute("act/PascIF", "levels")
    attribute.CopyFrom(helper.make_attribute("levels", 4.0))
    with pytest.raises(CompileError, match="levels"):
        case.verify(case.emitted.model)


def test_an_activation_of_no_size(tmp_path: Path) -> None:
    b = Builder(3)
    x = b.input("x", ["N", 6])
    none = b.node("Slice", [x, *(b.constant(n, [v], np.int64) for n, v in zip("abc", (0, 0, 1), strict=True))], "none")
    empty = b.qcfs(none, "empty", 4, 1.5)
    x = b.qcfs(b.gemm(x, "fc1", (6, 12)), "act", 4, 1.5)
    y = b.node("Concat", [behind(b, x), empty], "concat", axis=1)
    model = b.model({"y": y})
    Case(tmp_path, model, {"x": rows(8)}, schedule="collapsed")
    with pytest.raises(CompileError, match=r"holds no values .*'empty'"):
        Case(tmp_path, model, {"x": rows(8)})


# --- without data ---------------------------------------------------------------------------------------------------


def test_a_fault_that_the_data_does_not_show(tmp_path: Path) -> None:
    """A weight of a neuron's input that is silent on all data."""
    b = Builder(3)
    x = b.qcfs(b.gemm(b.input("x", ["N", 6]), "fc1", (6, 12), shift=-100), "act", 4, 1.5)
    case = Case(tmp_path, b.model({"y": behind(b, x)}), {"x": rows(30)})
    levels = pascalc.evaluate(tmp_path / "source.onnx", tmp_path / "data.npz").layers[0].spike_rate
    assert levels == 0
    case.emitted.edit("last", 1, lambda weight: weight + np.float32(0.01))
    case.is_caught("the outputs")


def test_a_weight_so_small_that_dense_sums_hide_it(tmp_path: Path) -> None:
    b = Builder(3)
    x = b.qcfs(b.gemm(b.input("x", ["N", 6]), "fc1", (6, 200)), "act", 4, 1.5)
    weight = b.rng.normal(0, 1, (5, 200)).astype(np.float32)
    weight[:, 7] = 2e-6
    name = b.constant("last.weight", weight)
    y = b.node("Gemm", [x, name, b.constant("last.bias", np.zeros(5))], "last", transB=1)
    case = Case(tmp_path, b.model({"y": y}), {"x": rows(30)})

    def turned(values: Array) -> Array:
        values[:, 7] *= -10000
        return values

    case.emitted.edit("last", 1, turned)
    case.is_caught("the outputs")


@pytest.mark.parametrize("op", ["Clip", "Relu", "Min", "Where"])
def test_a_kink_far_from_all_data(op: str, tmp_path: Path) -> None:
    """What differs only on inputs that nobody tried: no random value finds it, its operator gives it away."""
    case = Case(tmp_path, linear_network(), {"x": rows(30)})
    e = case.emitted
    far, near = e.constant("far", np.float32(1e6)), e.constant("near", np.float32(-1e6))
    nodes = {
        "Clip": [helper.make_node("Clip", ["<in>", near, far], ["<out>"])],
        "Relu": [
            helper.make_node("Add", ["<in>", far], ["up"]),
            helper.make_node("Relu", ["up"], ["kinked"]),
            helper.make_node("Sub", ["kinked", far], ["<out>"]),
        ],
        "Min": [helper.make_node("Min", ["<in>", far], ["<out>"])],
        "Where": [
            helper.make_node("Less", ["<in>", far], ["is_near"]),
            helper.make_node("Where", ["is_near", "<in>", near], ["<out>"]),
        ],
    }
    e.insert_behind("fc1", *nodes[op])
    assert any("is not in the source network" in line for line in case.is_caught().findings())


def test_a_kink_of_the_source_that_was_moved(tmp_path: Path) -> None:
    b = Builder(3)
    x = b.node("Clip", [b.input("x", ["N", 6]), b.constant("lo", -9.0), b.constant("hi", 9.0)], "limit")
    x = b.qcfs(b.gemm(x, "fc1", (6, 12)), "act", 4, 1.5)
    case = Case(tmp_path, b.model({"y": behind(b, x)}), {"x": rows(30)})
    case.emitted.edit("limit", 2, lambda value: value * np.float32(2))
    assert any("another Clip in place of the source's" in line for line in case.is_caught().findings())


@pytest.mark.parametrize("node", ["conv1", "conv3", "fc2"])
def test_faults_are_found_without_data(node: str, tmp_path: Path) -> None:
    case = Case(tmp_path, residual_network(), {"x": images(4)})
    assert case.verify(data=False).equivalent
    case.emitted.edit(node, 1, lambda weight: weight * np.float32(1.001))
    result = case.verify(case.emitted.model, data=False)
    assert not result.equivalent
    assert result.data is False


def test_integers_that_are_places_in_a_table(tmp_path: Path) -> None:
    """Random inputs are such places, too."""
    b = Builder(3)
    table = b.random("table", (9, 6), 1)
    x = b.node("Gather", [table, b.input("x", ["N"], TensorProto.INT64)], "embedding", axis=0)
    x = b.qcfs(b.gemm(x, "fc1", (6, 12)), "act", 4, 1.5)
    case = Case(tmp_path, b.model({"y": behind(b, x)}), {"x": np.arange(9)})
    assert case.verify(data=False).equivalent


def test_bytes_and_a_cast(tmp_path: Path) -> None:
    b = Builder(3)
    x = b.node("Cast", [b.input("x", ["N", 6], TensorProto.UINT8)], "cast", to=TensorProto.FLOAT)
    x = b.node("Mul", [x, b.constant("scale", 1 / 255)], "scale")
    x = b.qcfs(b.gemm(x, "fc1", (6, 12)), "act", 4, 1.5)
    pixels = np.random.default_rng(0).integers(0, 256, (9, 6), np.uint8)
    case = Case(tmp_path, b.model({"y": behind(b, x)}), {"x": pixels})
    assert case.verify(data=False).equivalent
    case.emitted.edit("scale", 1, lambda value: value * np.float32(1.001))
    case.is_caught("act")


# --- sizes that depend on values --------------------------------------------------------------------------------------


def places_network(kind: str, levels: int = 4) -> onnx.ModelProto:
    """Beside its scores it gives something of as many entries as neurons fire."""
    b = Builder(3)
    x = b.qcfs(b.gemm(b.input("x", ["N", 6]), "fc1", (6, 12)), "act", levels, 1.5)
    fires = b.node("Greater", [x, b.constant("none", 0.0)], "fires")
    if kind == "NonZero":
        places, dtype, shape = b.node("NonZero", [x], "places"), TensorProto.INT64, [2, None]
    elif kind == "turned":
        places = b.node("Transpose", [b.node("NonZero", [x], "found")], "places", perm=[1, 0])
        dtype, shape = TensorProto.INT64, [None, 2]
    elif kind == "Compress":
        flat = [b.node("Reshape", [t, b.constant(f"{t}.all", [-1], np.int64)], f"flat_{t}") for t in (x, fires)]
        places, dtype, shape = b.node("Compress", flat, "places"), TensorProto.FLOAT, [None]
    elif kind == "Unique":
        total = b.node("ReduceSum", [x, b.constant("axes", [1], np.int64)], "total", keepdims=0)
        places, dtype, shape = b.node("Unique", [total], "places"), TensorProto.FLOAT, [None]
    else:  # computed from computed
        found = b.node("Cast", [b.node("NonZero", [x], "found")], "cast", to=TensorProto.FLOAT)
        half = b.node("Mul", [found, b.constant("half", 0.5)], "halve")
        places, dtype, shape = b.node("Sigmoid", [half], "places"), TensorProto.FLOAT, [2, None]
    y = behind(b, x)
    shapes: dict[str, Any] = {"y": ["N", 5], "o": shape}
    return b.model({"y": y, "o": places}, types={"o": dtype}, shapes=shapes)  # type: ignore[no-any-return]


KINDS_OF_SIZES = ["NonZero", "turned", "Compress", "Unique", "chain"]


@pytest.mark.parametrize("kind", KINDS_OF_SIZES)
def test_sizes_that_differ_with_the_counts(kind: str, tmp_path: Path) -> None:
    """A lossy neuron has other counts, and so an output has another size: the file still follows from its counts."""
    source, out = write(places_network(kind), tmp_path / "source.onnx"), tmp_path / "out.onnx"
    pascalc.compile(source, out, neuron="if", steps=2)
    np.savez(tmp_path / "data.npz", x=rows(20))
    sizes = [InferenceSession(path, threads=1).run(["o"], {"x": rows(20)})[0].shape for path in (source, out)]
    assert sizes[0] != sizes[1]  # else nothing is tried
    for batch in (1, 4, 20):
        result = pascalc.verify(source, out, tmp_path / "data.npz", batch=batch, threads=1)
        assert result.translated, result.findings()
    assert pascalc.verify(source, out, threads=1).translated


@pytest.mark.parametrize("kind", KINDS_OF_SIZES)
@pytest.mark.parametrize("lossy", [False, True])
def test_other_neurons_where_sizes_follow(kind: str, lossy: bool, tmp_path: Path) -> None:
    """A wrong weight, which changes the sizes, and a wrong size are found all the same."""
    source, out = write(places_network(kind), tmp_path / "source.onnx"), tmp_path / "out.onnx"
    pascalc.compile(source, out, **({"neuron": "if", "steps": 2} if lossy else {}))
    np.savez(tmp_path / "data.npz", x=rows(20))
    honest = pascalc.verify(source, out, tmp_path / "data.npz", threads=1)
    assert honest.translated, honest.findings()
    emitted = Emitted(onnx.load(out))
    emitted.edit("fc1", 2, lambda bias: bias + np.float32(0.7))
    broken = write(emitted.model, tmp_path / "broken.onnx")
    assert not pascalc.verify(source, broken, tmp_path / "data.npz", threads=1).translated
    emitted = Emitted(onnx.load(out))
    start, end = (emitted.constant(n, np.array([k], np.int64)) for n, k in (("from", 0), ("to", -1)))
    axis = emitted.constant("along", np.array([1 if kind in ("NonZero", "chain") else 0], np.int64))
    emitted.insert_behind("places", helper.make_node("Slice", ["<in>", start, end, axis], ["<out>"]))
    broken = write(emitted.model, tmp_path / "broken.onnx")
    assert not pascalc.verify(source, broken, tmp_path / "data.npz", threads=1).translated


class Altered:
    """A session whose output ``o`` is another, as no file's is that can be looked into."""

    def __init__(self, session: InferenceSession, alter: Callable[[Array], Array]) -> None:
        self.session, self.alter = session, alter

    def run(self, names: list[str], feeds: dict[str, Array]) -> list[Array]:
        found = dict(zip(names, self.session.run(names, feeds), strict=True))
        return [self.alter(found[name]) if name == "o" else found[name] for name in names]


ALTERATIONS: dict[str, Callable[[Array], Array]] = {
    "longer": lambda a: np.repeat(a, 2, axis=-1),
    "shorter": lambda a: a[..., :-1],
    "type": lambda a: a.astype(np.int32 if a.dtype.kind == "i" else np.float64),
    "rank": lambda a: a[None],
}


@pytest.mark.parametrize("alteration", ALTERATIONS)
@pytest.mark.parametrize("kind", KINDS_OF_SIZES)
@pytest.mark.parametrize("lossy", [False, True])
def test_sizes_that_differ_without_counts(
    lossy: bool, kind: str, alteration: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file as it is gives an output that its counts do not explain."""
    source, out = write(places_network(kind), tmp_path / "source.onnx"), tmp_path / "out.onnx"
    pascalc.compile(source, out, **({"neuron": "if", "steps": 2} if lossy else {}))
    np.savez(tmp_path / "data.npz", x=rows(6))

    def itself(networks: CompiledNetworks) -> Altered:
        return Altered(InferenceSession(networks.path, threads=1, stock=True), ALTERATIONS[alteration])

    monkeypatch.setattr(CompiledNetworks, "itself", property(itself))
    result = pascalc.verify(source, out, tmp_path / "data.npz", threads=1)
    assert not result.translated
    assert result.first_difference == "the outputs"
    assert any("'o' of the file is" in p or "do not follow from its spikes" in p for p in result.output_problems)


def test_sizes_are_the_sources_where_no_count_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second comparison by itself, without that of the outputs with the file's own counts."""
    case = Case(tmp_path, places_network("NonZero"), {"x": rows(6)})

    def itself(networks: CompiledNetworks) -> Altered:
        return Altered(InferenceSession(networks.path, threads=1, stock=True), ALTERATIONS["shorter"])

    monkeypatch.setattr(CompiledNetworks, "itself", property(itself))
    monkeypatch.setattr(Answers, "_unlike", lambda self, trial, real: np.zeros(trial.rows, bool))
    assert "where no count differs" in " ".join(case.verify().output_problems)


# --- neurons, statistics and inputs without an axis of their own ------------------------------------------------------


@pytest.mark.parametrize("schedule", ["unrolled", "collapsed"])
def test_one_neuron_a_sample(schedule: str, tmp_path: Path) -> None:
    """Of shape [N]: a single logit."""
    b = Builder(3)
    x = b.qcfs(b.gemm(b.input("x", ["N", 6]), "fc1", (6, 12)), "act", 4, 1.5)
    x = b.qcfs(b.node("ReduceMean", [x], "mean", axes=[1], keepdims=0), "logit", 3, 0.7)
    y = b.node("Mul", [x, b.constant("gain", 2.0)], "gain")
    case = Case(tmp_path, b.model({"y": y}, ("N",)), {"x": rows(20)}, schedule=schedule)
    assert all(case.verify(data=False, seed=seed).equivalent for seed in range(4))
    case.emitted.edit("fc1", 1, lambda weight: weight * np.float32(1.01))
    case.is_caught("act")


def test_levels_of_one_neuron_a_sample_are_sparse_too() -> None:
    levels = random_levels((4000,), 8, np.random.default_rng(0))
    silent, full = (float(np.mean(levels == k)) for k in (0, 8))
    # half or more are uniform; of the others 0.9 of 0.15, and half of 0.25, are silent, and half of 0.25 are not
    assert silent == pytest.approx(0.6 / 9 + 0.15 * (0.9 + 0.1 / 9) + 0.125, abs=0.03)
    assert full == pytest.approx(0.6 / 9 + 0.15 * 0.1 / 9 + 0.125, abs=0.03)


def test_levels_of_several_neurons_are_those_of_the_seed() -> None:
    """Whoever gives a seed gets the same levels in every version."""
    levels = random_levels((40, 3, 2), 8, np.random.default_rng(7))
    assert hashlib.sha256(levels.tobytes()).hexdigest()[:16] == "adb5555ced8e3322"


def test_one_neuron_for_all_samples(tmp_path: Path) -> None:
    b = Builder(3)
    x = b.qcfs(b.gemm(b.input("x", ["N", 6]), "fc1", (6, 12)), "act", 4, 1.5)
    y = b.qcfs(b.node("ReduceMean", [x], "mean", keepdims=0), "all", 3, 0.7)
    source, out = write(b.model({"y": y}, ()), tmp_path / "source.onnx"), tmp_path / "out.onnx"
    pascalc.compile(source, out)
    with pytest.raises(CompileError, match=r"one number for all samples.*'all.*reduce all axes but the first"):
        pascalc.verify(source, out)


@pytest.mark.parametrize("computed", ["training", "mean", "var"])
@pytest.mark.parametrize("schedule", ["unrolled", "collapsed"])
def test_a_normalisation_whose_statistics_are_computed(computed: str, schedule: str, tmp_path: Path) -> None:
    """It is not linear: compared as an operator of which nothing is known."""
    b = Builder(3)
    x = b.qcfs(b.conv(b.input("x", ["N", 2, 8, 8]), "conv1", (2, 4)), "act1", 4, 1.5)
    y = b.batch_norm(x, "norm", 4)
    norm = b.nodes[-1]
    if computed == "training":
        norm.attribute.append(helper.make_attribute("training_mode", 1))
        norm.output.extend(["running_mean", "running_var"])
    else:
        b.nodes.pop()
        mean = b.node("ReduceMean", [x], "mean", axes=[0, 2, 3], keepdims=0)
        norm.input[3 if computed == "mean" else 4] = b.node("Abs", [mean], "abs")
        b.nodes.append(norm)
    x = b.qcfs(b.conv(y, "conv2", (4, 2)), "act2", 3, 1.0)
    data = np.random.default_rng(0).normal(0, 1, (12, 2, 8, 8)).astype(np.float32)
    case = Case(tmp_path, b.model({"y": x}, ("N", 2, 8, 8)), {"x": data}, schedule=schedule)
    for seed in range(3):
        result = case.verify(data=False, seed=seed)
        assert result.equivalent, result.findings()
    assert any(check.operator == "BatchNormalization" for check in case.verify().computed)
    case.emitted.edit("norm", 1, lambda gamma: gamma * np.float32(1.01))
    assert any("norm: the compiled network has another" in line for line in case.is_caught().findings())


@pytest.mark.parametrize("given", [False, True])
def test_an_input_that_is_one_number(given: bool, tmp_path: Path) -> None:
    b = Builder(3)
    x = b.node("Mul", [b.gemm(b.input("x", ["N", 6]), "fc1", (6, 12)), b.input("s", [])], "scale")
    source = write(b.model({"y": behind(b, b.qcfs(x, "act", 4, 1.5))}), tmp_path / "source.onnx")
    pascalc.compile(source, tmp_path / "out.onnx")
    np.savez(tmp_path / "data.npz", x=rows(4), s=np.float32(2))
    with pytest.raises(CompileError, match="'s' is one number for all samples"):
        pascalc.verify(source, tmp_path / "out.onnx", tmp_path / "data.npz" if given else None)


def test_a_pool_that_nothing_uses_in_front_of_a_chain(tmp_path: Path) -> None:
    """Without optimisations onnxruntime keeps the pool, infers its size wrongly, and takes its memory for the chain."""
    b = Builder(3)
    x = b.input("x", ["N", 4, 2, 2])
    b.qcfs(x, "dead", 4)
    b.node("MaxPool", [x], "pool", kernel_shape=[2, 2], strides=[2, 2], pads=[0, 0, 1, 1], ceil_mode=1)
    case = Case(
        tmp_path, b.model({"y": b.qcfs(x, "second", 4)}, ["N", 4, 2, 2]), {"x": images(16)[:, :1, :2, :2].repeat(4, 1)}
    )
    assert case.verify().equivalent
