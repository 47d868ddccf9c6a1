"""The operator table: for every rule what it accepts and what it declines, each checked against the source network.

Thresholds, weights and inputs lie on a grid on which every float32 sum is exact, so equality is exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest

from pascalc.codes import THERMOMETER
from pascalc.graph import Model, is_constant, is_ours, producer
from pascalc.ops import OPERATORS
from pascalc.passes import ANALYSIS
from pascalc.passes.lower_neurons import LowerNeurons
from pascalc.passes.unroll_time import UnrollTime
from pascalc.passes.verify_types import VerifyTypes
from pascalc.timing import MIXED, PER_CHANNEL, RULES, Analog, Const, Current, Spikes, TimeType, decide, own_output
from tests.helpers import Array, assert_same_outputs, compiled, parse, reasons, with_output_ranks

#: Without the passes that fold and move, so that each rule meets its operator.
PASSES = (*ANALYSIS, LowerNeurons(), UnrollTime(), VerifyTypes())

NEURON = 'ai.pascalc.QCFS <levels = 4, phi = 0.5, label = "h">'


@dataclass(frozen=True)
class Case:
    """A network whose node [op] is looked at.

    ``h`` is a train of 4 steps from the input x of the given shape, ``c`` a current and ``a`` an analog tensor of its
    shape. ``expect`` is the type that comes out, or part of the reason for which the rule declines.
    """

    op: str
    expect: str
    body: str
    shape: str = "N,2,4,4"
    constants: str = ""
    inputs: str = ""
    opset: int = 18
    feeds: Mapping[str, Array] = field(default_factory=dict)

    def source(self) -> onnx.ModelProto:
        constants = f", {self.constants}" if self.constants else ""
        inputs = f", {self.inputs}" if self.inputs else ""
        lines = self.body.split("\n")
        if not any(line.strip().startswith("h =") for line in lines):
            lines.insert(0, f"h = {NEURON} (x, theta)")
        first = next(i for i, line in enumerate(lines) if line.strip().startswith("h ="))
        lines[first + 1 : first + 1] = ["c = Mul (h, two)", "a = Abs (x)"]
        text = (
            f'<ir_version: 10, opset_import: ["": {self.opset}, "ai.pascalc": 1]>\n'
            f"network (float[{self.shape}] x{inputs}) => (float[] y) <float theta = {{2}}, float two = {{2}}"
            f"{constants}>\n"
            "{ " + "\n".join(lines) + " }"
        )
        return with_output_ranks(parse(text), self.feeds)


KERNEL = "float[1,2,1,1] w = {0.5, -1}, float[1] b = {8}"
BY_CHANNEL = f"h = {NEURON} (x, thetas)\n"
THETAS = "float[2,1,1] thetas = {2, 4}"
#: A neuron on values that were moved between samples: its train does not belong to samples.
NO_BATCH = f"flat = Reshape (x, mix)\n h = {NEURON} (flat, theta)\n"
MIX = "int64[4] mix = {-1, 4, 2, 2}"

CASES = [
    Case("Conv", "current", "[op] y = Conv (h, w, b)", constants=KERNEL),
    Case("Conv", "current", "[op] y = Conv (c, w)", constants=KERNEL),
    Case("Conv", "depends on the input", "[op] y = Conv (h, v)", inputs="float[1,2,1,1] v"),
    Case("Conv", "additive constant is computed",
         "r = RandomUniform <shape = [1], low = 4.0, high = 4.0> ()\n[op] y = Conv (h, w, r)",
         constants=KERNEL),
    Case("ConvTranspose", "current", "[op] y = ConvTranspose <strides = [2, 2]> (h, w, b)",
         constants="float[2,1,2,2] w = {1, 2, 3, 4, 1, 2, -3, -4}, float[1] b = {8}"),
    Case("ConvTranspose", "depends on the input", "[op] y = ConvTranspose (h, v)", inputs="float[2,1,1,1] v"),
    Case("Gemm", "current", "[op] y = Gemm <alpha = 0.5, beta = 2.0, transB = 1> (h, w, b)", "N,2",
         "float[3,2] w = {1, 2, 3, 4, 5, 6}, float[1,3] b = {4, 8, -4}"),
    Case("Gemm", "current", "[op] y = Gemm (h, w, s)", "N,2", "float[2,1] w = {1, 2}, float s = {4}"),
    Case("Gemm", "not the batch", "[op] y = Gemm <transA = 1> (h, w)", "3,2", "float[3,1] w = {1, 2, 4}"),
    Case("Gemm", "not the batch", "[op] y = Gemm (w, h)", "2,2", "float[2,2] w = {1, 2, 4, 3}"),
    Case("Gemm", "depends on the input", "[op] y = Gemm (h, w, x)", "N,2", "float[2,2] w = {1, 2, 4, 3}"),
    Case("Gemm", "a row for every sample", "[op] y = Gemm (h, w, b)", "2,2",
         "float[2,2] w = {1, 2, 4, 3}, float[2,2] b = {4, 8, -4, 8}"),
    Case("MatMul", "current", "[op] y = MatMul (h, w)", "N,2", "float[2,1] w = {1, 2}"),
    Case("MatMul", "current", "[op] y = MatMul (h, w)", "N,2", "float[2] w = {1, 2}"),
    Case("MatMul", "current", "[op] y = MatMul (w, h)", "N,2,3", "float[3,2] w = {1, 2, 3, 4, 5, 6}"),
    Case("MatMul", "current", "[op] y = MatMul (h, w)", "N,2,2", "float[1,2,1] w = {1, 2}"),
    Case("MatMul", "current", "[op] y = MatMul (h, h)", "N,2,2"),
    Case("MatMul", "current", "[op] y = MatMul (a, h)", "N,2,2"),
    Case("MatMul", "current", "[op] y = MatMul (h, c)", "N,2,2,2"),
    Case("MatMul", "neither of its tensors is spikes", "[op] y = MatMul (c, a)", "N,2,2"),
    Case("MatMul", "contracts over the batch", "[op] y = MatMul (h, v)", "N,2", inputs="float[2,2] v"),
    Case("MatMul", "broadcasts against the batch", "[op] y = MatMul (h, v)", "N,2,2,2", inputs="float[2,2,2] v"),
    Case("MatMul", "broadcasts against the batch", "[op] y = MatMul (h, v)", "N,2,2", inputs="float[1,2,2] v"),
    Case("MatMul", "not the batch", "[op] y = MatMul (w, h)", "2,2", "float[2,2] w = {1, 2, 3, 4}"),
    Case("MatMul", "not the batch", "[op] y = MatMul (h, w)", "2,2,2", "float[2,2,1] w = {1, 2, 3, 4}"),
    Case("AveragePool", "current", "[op] y = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (h)"),
    Case("AveragePool", "not the batch", NO_BATCH + "[op] y = AveragePool <kernel_shape = [2, 2]> (h)", constants=MIX),
    Case("GlobalAveragePool", "current", "[op] y = GlobalAveragePool (c)"),
    Case("GlobalAveragePool", "not the batch", NO_BATCH + "[op] y = GlobalAveragePool (h)", constants=MIX),
    Case("ReduceMean", "current", "[op] y = ReduceMean (h, axes)", constants="int64[2] axes = {2, -1}"),
    Case("ReduceMean", "current", "[op] y = ReduceMean <axes = [2, 3], keepdims = 0> (h)", opset=17),
    Case("ReduceMean", "not the batch", "[op] y = ReduceMean <keepdims = 1> (h)", "4,2,2,2"),
    Case("ReduceSum", "current", "[op] y = ReduceSum <keepdims = 0> (h, axes)", constants="int64[1] axes = {1}"),
    Case("ReduceSum", "not the batch", "[op] y = ReduceSum <keepdims = 1> (h, axes)",
         constants="int64[2] axes = {0, 1}"),
    Case("Mul", "current", "[op] y = Mul (w, h)", constants="float[2,1,1] w = {1, 2}"),
    Case("Mul", "current", "[op] y = Mul (h, w)", constants="float[1,2,1,1] w = {1, 2}"),
    Case("Mul", "current", "[op] y = Mul (h, h)"),
    Case("Mul", "current", "[op] y = Mul (a, h)"),
    Case("Mul", "current", "g = GlobalAveragePool (c)\n[op] y = Mul (g, h)"),
    Case("Mul", "current", "g = GlobalAveragePool (h)\n[op] y = Mul (a, g)"),
    Case("Mul", "not the batch", "[op] y = Mul (h, w)", "2,2", "float[2,1] w = {1, 2}"),
    Case("Mul", "not the batch", "[op] y = Mul (h, w)", "2,2", "float[1,2,2] w = {1, 2, 3, 4}"),
    Case("Mul", "current", "[op] y = Mul (c, a)"),
    Case("Mul", "broadcasts against the batch", "[op] y = Mul (h, v)", "N,2", inputs="float[2] v"),
    Case("Mul", "broadcasts against the batch", "[op] y = Mul (h, v)", "N,2", inputs="float[1,2] v"),
    Case("Div", "current", "[op] y = Div (h, w)", constants="float w = {4}"),
    Case("Div", "it divides by what depends on the input", "p = Add (h, two)\n[op] y = Div (a, p)"),
    Case("Div", "it divides by what depends on the input", "p = Add (h, two)\n[op] y = Div (two, p)"),
    Case("Div", "it divides by what depends on the input", "p = Add (a, two)\n[op] y = Div (h, p)"),
    Case("Neg", "current", "[op] y = Neg (h)"),
    Case("Neg", "not the batch", NO_BATCH + "[op] y = Neg (h)", constants=MIX),
    Case("BatchNormalization", "current", "[op] y = BatchNormalization <epsilon = 0.0> (h, g, s, m, v)",
         constants="float[2] g = {2, 4}, float[2] s = {4, -4}, float[2] m = {8, 4}, float[2] v = {4, 16}"),
    Case("BatchNormalization", "training mode",
         "[op] y, m1, v1 = BatchNormalization <training_mode = 1> (h, g, s, m, v)",
         constants="float[2] g = {2, 4}, float[2] s = {4, -4}, float[2] m = {8, 4}, float[2] v = {4, 16}"),
    Case("Resize", "spikes",
         '[op] y = Resize <mode = "nearest"> (h, , scales)', constants="float[4] scales = {1, 1, 2, 2}"),
    Case("Resize", "current",
         '[op] y = Resize <mode = "linear"> (h, , scales)', constants="float[4] scales = {1, 1, 2, 2}"),
    Case("Resize", "extrapolates",
         '[op] y = Resize <mode = "linear", coordinate_transformation_mode = "tf_crop_and_resize", '
         "extrapolation_value = 3.0> (h, roi, scales)",
         constants="float[8] roi = {0, 0, 0, 0, 1, 1, 2, 2}, float[4] scales = {1, 1, 2, 2}"),
    Case("Resize", "spikes", '[op] y = Resize <mode = "nearest"> (h, , , sizes)', "1,2,4,4",
         constants="int64[4] sizes = {1, 2, 8, 8}"),
    Case("Resize", "not the batch", '[op] y = Resize <mode = "nearest"> (h, , , sizes)', "1,2,4,4",
         "int64[4] sizes = {2, 2, 8, 8}"),
    Case("Pad", "spikes", "[op] y = Pad (h, pads)", constants="int64[8] pads = {0, 0, 1, 1, 0, 0, 1, 1}"),
    Case("Pad", "spikes",
         '[op] y = Pad <mode = "reflect"> (h, pads)', constants="int64[8] pads = {0, 0, 1, 1, 0, 0, 1, 1}"),
    Case("Pad", "spikes", "[op] y = Pad (h, pads, zero, axes)",
         constants="int64[2] pads = {1, 0}, float zero = {0}, int64[1] axes = {-1}"),
    Case("Pad", "current", "[op] y = Pad (c, pads)", constants="int64[8] pads = {0, 0, 1, 1, 0, 0, 1, 1}"),
    Case("Pad", "a value other than zero", "[op] y = Pad (h, pads, two)",
         constants="int64[8] pads = {0, 0, 1, 1, 0, 0, 1, 1}"),
    Case("Pad", "not the batch", "[op] y = Pad (h, pads)", constants="int64[8] pads = {1, 0, 0, 0, 0, 0, 0, 0}"),
    Case("MaxPool", "spikes", "[op] y = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (h)"),
    Case("MaxPool", "spikes", BY_CHANNEL + "[op] y = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (h)",
         constants=THETAS),
    Case("MaxPool", "spikes", "[op] y = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], dilations = [2, 2], "
         "ceil_mode = 1> (h)", "N,2,8,8"),
    Case("MaxPool", "the maximum of a sum", "[op] y = MaxPool <kernel_shape = [2, 2]> (c)"),
    Case("MaxPool", "the indices of its maxima",
         "[op] p, i = MaxPool <kernel_shape = [2, 2]> (h)\n j = Cast <to = 1> (i)\n y = Add (p, j)"),
    Case("MaxPool", "spikes", "[op] y, i = MaxPool <kernel_shape = [2, 2]> (h)\n j = Identity (i)\n"),
    Case("MaxPool", "different heights", BY_CHANNEL + "t = Transpose <perm = [0, 3, 1, 2]> (h)\n"
         "[op] y = MaxPool <kernel_shape = [2, 2]> (t)", constants=THETAS),
    Case("MaxPool", "different heights", BY_CHANNEL + "t = DepthToSpace <blocksize = 2> (h)\n"
         "[op] y = MaxPool <kernel_shape = [2, 2]> (t)", "N,4,2,2", "float[4,1,1] thetas = {2, 4, 8, 16}"),
    Case("MaxPool", "different heights",
         BY_CHANNEL + "t = Reshape (h, lines)\n[op] y = MaxPool <kernel_shape = [3]> (t)",
         "N,2,2,2", THETAS + ", int64[3] lines = {-1, 1, 8}"),
    Case("MaxPool", "different heights", 'g = ai.pascalc.QCFS <levels = 4, phi = 0.5, label = "g"> (x, two4)\n'
         "t = Concat <axis = 2> (h, g)\n[op] y = MaxPool <kernel_shape = [3, 3]> (t)", constants="float two4 = {8}"),
    Case("MaxPool", "different heights", BY_CHANNEL + "[op] y = MaxPool <kernel_shape = [2, 2]> (h)", "N,1,2,2",
         "float[1,2,2] thetas = {2, 4, 4, 8}"),
    Case("MaxPool", "spikes", BY_CHANNEL + "t = Reshape (h, lines)\n[op] y = MaxPool <kernel_shape = [3]> (t)",
         "N,2,2,2", THETAS + ", int64[3] lines = {-1, 2, 4}"),
    Case("GlobalMaxPool", "spikes", "[op] y = GlobalMaxPool (h)"),
    Case("GlobalMaxPool", "the maximum of a sum", "[op] y = GlobalMaxPool (c)"),
    Case("Add", "current", "[op] y = Add (h, c)"),
    Case("Add", "current", "[op] y = Add (a, h)"),
    Case("Add", "current", "[op] y = Add (w, h)", constants="float[2,1,1] w = {4, 8}"),
    Case("Add", "current", 'g = ai.pascalc.QCFS <levels = 2, phi = 0.5, label = "g"> (x, theta)\n[op] y = Add (g, h)'),
    Case("Add", "not the batch", "[op] y = Add (h, w)", "2,2", "float[2,1] w = {4, 8}"),
    Case("Add", "broadcasts against the batch", "[op] y = Add (h, v)", "N,2", inputs="float[2] v"),
    Case("Sub", "current", "[op] y = Sub (w, h)", constants="float w = {4}"),
    Case("Sub", "current", "[op] y = Sub (h, a)"),
    Case("Sub", "broadcasts against the batch", "[op] y = Sub (v, h)", "N,2", inputs="float[2] v"),
    Case("Sum", "current", "[op] y = Sum (h, w, a, c)", constants="float w = {4}"),
    Case("Sum", "spikes", "[op] y = Sum (h)"),
    Case("GlobalAveragePool", "spikes", "[op] y = GlobalAveragePool (h)", "N,2,1,1"),
    Case("AveragePool", "spikes", "[op] y = AveragePool <kernel_shape = [1, 1], strides = [2, 2]> (h)"),
    Case("AveragePool", "current", "[op] y = AveragePool <kernel_shape = [1, 1]> (c)"),
    Case("ReduceMean", "spikes", "[op] y = ReduceMean <keepdims = 0> (h, axes)", "N,2,1,1",
         "int64[2] axes = {2, -1}"),
    Case("ReduceSum", "spikes", "[op] y = ReduceSum <noop_with_empty_axes = 1> (h)"),
    Case("ReduceSum", "current", "[op] y = ReduceSum (h, axes)", "N,2,1,4", "int64[2] axes = {2, 3}"),
    Case("Sum", "not the batch", "[op] y = Sum (h, w)", "2,2", "float[2,1] w = {4, 8}"),
    Case("Concat", "spikes", 'g = ai.pascalc.QCFS <levels = 2, phi = 0.5, label = "g"> (x, theta)\n'
         "[op] y = Concat <axis = 1> (g, h)"),
    Case("Concat", "current", "[op] y = Concat <axis = -1> (a, h)"),
    Case("Concat", "not the batch", "[op] y = Concat <axis = 0> (h, h)"),
    Case("Concat", "not the batch", "[op] y = Concat <axis = 1> (h, w)", "1,2", "float[1,2] w = {4, 8}"),
    Case("Identity", "spikes", "[op] y = Identity (h)"),
    Case("Identity", "not the batch", NO_BATCH + "[op] y = Identity (h)", constants=MIX),
    Case("Dropout", "spikes", "[op] y = Dropout (h)"),
    Case("Dropout", "its mask is used", "[op] d, m = Dropout (h)\n n = Cast <to = 1> (m)\n y = Add (d, n)"),
    Case("Dropout", "training mode", "[op] y = Dropout (h, ratio, train)",
         constants="float ratio = {0}, bool train = {1}"),
    Case("Flatten", "spikes", "[op] y = Flatten (h)"),
    Case("Flatten", "spikes", "[op] y = Flatten <axis = -3> (h)"),
    Case("Flatten", "not the batch", "[op] y = Flatten <axis = 2> (h)"),
    Case("Flatten", "more than a sample", "[op] y = Flatten <axis = 2> (h)", "N,1,2,2"),
    Case("Reshape", "spikes", "[op] y = Reshape (h, shape)", constants="int64[3] shape = {0, 4, -1}"),
    Case("Reshape", "spikes", "[op] y = Reshape (h, shape)", constants="int64[2] shape = {-1, 32}"),
    Case("Reshape", "spikes", "[op] y = Reshape (h, shape)", "1,2,4,4", "int64[2] shape = {1, 32}"),
    Case("Reshape", "not the batch", "[op] y = Reshape (h, shape)", constants="int64[2] shape = {-1, 8}"),
    Case("Reshape", "not the batch", "[op] y = Reshape (h, shape)", inputs="int64[2] shape", shape="N,2",
         feeds={"shape": np.array([-1, 2])}),
    Case("Transpose", "spikes", "[op] y = Transpose <perm = [0, 2, 3, 1]> (h)"),
    Case("Transpose", "not the batch", "[op] y = Transpose (h)"),
    Case("Transpose", "not the batch", "[op] y = Transpose <perm = [1, 0, 2, 3]> (h)"),
    Case("Squeeze", "spikes", "[op] y = Squeeze (h, axes)", "N,2,1", "int64[1] axes = {-1}"),
    Case("Squeeze", "may squeeze the batch", "[op] y = Squeeze (h)", "N,2,1"),
    Case("Unsqueeze", "spikes", "[op] y = Unsqueeze (h, axes)", "N,2", "int64[1] axes = {1}"),
    Case("Unsqueeze", "not the batch", "[op] y = Unsqueeze (h, axes)", "N,2", "int64[1] axes = {0}"),
    Case("Slice", "spikes", "[op] y = Slice (h, from, to, axes)",
         constants="int64[1] from = {1}, int64[1] to = {3}, int64[1] axes = {-1}"),
    Case("Slice", "slices the batch", "[op] y = Slice (h, from, to, axes, steps)",
         constants="int64[1] from = {-1}, int64[1] to = {-1000}, int64[1] axes = {0}, int64[1] steps = {-1}"),
    Case("Split", "spikes", "[op] y, z = Split <axis = 1, num_outputs = 2> (h)"),
    Case("Split", "not the batch", NO_BATCH + "[op] y, z = Split <axis = 1, num_outputs = 2> (h)", constants=MIX),
    Case("Gather", "spikes", "[op] y = Gather <axis = 1> (h, index)", constants="int64 index = {1}"),
    Case("Gather", "depends on the input", "[op] y = Gather <axis = 1> (h, i)", inputs="int64[1] i",
         feeds={"i": np.array([1])}),
    Case("Gather", "not the batch", "[op] y = Gather (h, index)", constants="int64[1] index = {0}"),
    Case("DepthToSpace", "spikes", "[op] y = DepthToSpace <blocksize = 2> (h)", "N,4,2,2"),
    Case("DepthToSpace", "not the batch", NO_BATCH + "[op] y = DepthToSpace <blocksize = 2> (h)", constants=MIX),
    Case("SpaceToDepth", "spikes", "[op] y = SpaceToDepth <blocksize = 2> (h)"),
    Case("SpaceToDepth", "not the batch", NO_BATCH + "[op] y = SpaceToDepth <blocksize = 2> (h)", constants=MIX),
]  # fmt: skip


def type_of(model: Model, tensor: gs.Tensor) -> TimeType:
    """The time type of a tensor in an unrolled network of neurons of 4 levels."""
    node = producer(tensor)
    if is_ours(node, *OPERATORS):
        return own_output(node, type_of(model, node.inputs[0]))
    if is_constant(tensor) or tensor.is_empty():
        return Const()
    if isinstance(tensor.shape, list) and tensor.shape and str(tensor.shape[0]).endswith("*batch"):
        assert node is not None
        return decide(model, node, tuple(type_of(model, t) for t in node.inputs)).output
    return Analog()


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.op}-{case.expect}")
def test_rule(case: Case) -> None:
    source = case.source()
    model = compiled(source, PASSES)

    (node,) = (n for n in model.graph.nodes if n.name == "op")
    assert node.op == case.op
    told = [note.reason for note in model.notes if note.source == "unroll-time" and note.node == "op"]
    if case.expect in ("current", "spikes"):
        assert told == []
        result = decide(model, node, tuple(type_of(model, t) for t in node.inputs)).output
        assert type(result) is {"current": Current, "spikes": Spikes}[case.expect]
        assert result.steps == 4
    else:
        assert len(told) == 1
        assert case.expect in told[0]
    assert_same_outputs(source, model, feeds=case.feeds)


def test_every_rule_has_an_accepted_and_a_declined_case() -> None:
    for accepted in (True, False):
        covered = {case.op for case in CASES if (case.expect in ("current", "spikes")) is accepted}
        assert covered == set(RULES)


@pytest.mark.parametrize("operator", ["Softmax <axis = 1>", "Sigmoid", "Exp", "Relu", "Abs", "Sqrt", "LRN <size = 1>"])
def test_operator_without_a_rule_is_computed_on_the_sum(operator: str) -> None:
    case = Case(operator.split()[0], "has no spiking form", f"[op] y = {operator} (h)")
    source = case.source()
    model = compiled(source, PASSES)
    assert any("has no spiking form" in reason for reason in reasons(model, "unroll-time"))
    assert_same_outputs(source, model)


@pytest.mark.parametrize(
    ("body", "height"),
    [
        ("[op] y = Identity (h)", PER_CHANNEL),
        ("[op] y = Transpose <perm = [0, 1, 3, 2]> (h)", PER_CHANNEL),
        ("[op] y = Transpose <perm = [0, 2, 1, 3]> (h)", MIXED),
        ("[op] y = Flatten (h)", MIXED),
        ("[op] y = Slice (h, one1, two1, one1)", PER_CHANNEL),
        ("[op] y = Gather <axis = 1> (h, one)", MIXED),
        ("[op] y = Gather <axis = 2> (h, one)", PER_CHANNEL),
        ("[op] y = Concat <axis = 1> (h, h)", PER_CHANNEL),
        ("[op] y = Concat <axis = 2> (h, h)", MIXED),
        ("[op] y = Pad (h, pads)", PER_CHANNEL),
    ],
)
def test_height_of_spikes(body: str, height: str) -> None:
    """Channels keep their own height of spike as long as axis 1 is the channel."""
    indices = "int64[1] one1 = {1}, int64[1] two1 = {2}, int64 one = {1}, int64[8] pads = {0, 0, 1, 1, 0, 0, 1, 1}"
    constants = f"{THETAS}, {indices}"
    source = Case("", "spikes", BY_CHANNEL + body, constants=constants).source()
    model = compiled(source, PASSES)
    (node,) = (n for n in model.graph.nodes if n.name == "op")
    assert decide(model, node, tuple(type_of(model, t) for t in node.inputs)).output == Spikes.of(
        THERMOMETER, 4, height
    )
    assert_same_outputs(source, model)
