"""The whole pipeline on small networks of mixed levels: the spiking network computes exactly what the source computes.

Weights, thresholds and inputs lie on a grid on which every float32 sum is exact in any order, so equality is exact.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from pascalc import pipeline
from pascalc.errors import CompileError
from pascalc.ops import Pasc
from pascalc.passes import COLLAPSED, SCHEDULES, UNROLLED
from pascalc.passes.base import Pass
from tests.helpers import assert_same_outputs, compiled, loaded, parse, reasons, with_output_ranks


def q(name: str, source: str, levels: int, theta: str = "theta") -> str:
    """A QCFS in ONNX text."""
    return f'{name} = ai.pascalc.QCFS <levels = {levels}, phi = 0.5, label = "{name}"> ({source}, {theta})\n'


SQUARE = "float[2,2] w = {0.5, -1, 1.5, 2}, float[2] b = {4, -2}"

#: Name: inputs, constants, body; the output is y, and z where the body has it.
NETWORKS: dict[str, tuple[str, str, str]] = {
    "join of unequal T": (
        "float[N,2] x", SQUARE, q("h", "x", 8) + "g = Gemm (h, w, b)\n" + q("i", "g", 2) + "y = Add (i, h)",
    ),
    "join of three": (
        "float[N,2] x",
        "",
        q("h", "x", 8) + q("i", "x", 1) + q("j", "x", 4) + "s = Sum (h, i, j, x)\n" + q("y", "s", 2),
    ),
    "difference": ("float[N,2] x", "", q("h", "x", 2) + q("i", "x", 4) + "d = Sub (h, i)\n" + q("y", "d", 2)),
    "analog join": (
        "float[N,2] x", SQUARE, q("h", "x", 4) + "a = Add (x, h)\n" + q("i", "a", 2) + "y = Gemm (i, w, b)",
    ),
    "constant join": ("float[N,2] x", "float[2] k = {4, 8}", q("h", "x", 4) + "a = Add (k, h)\n" + q("y", "a", 2)),
    "Concat of unequal T": (
        "float[N,2,2,2] x",
        "float[1,4,1,1] w = {1, -1, 0.5, 2}",
        q("h", "x", 4) + q("i", "x", 2) + "c = Concat <axis = 1> (h, i)\nv = Conv (c, w)\n" + q("y", "v", 4),
    ),
    "Concat of spikes and analog": (
        "float[N,2] x", "float[4,1] w = {1, 2, -1, 0.5}", q("h", "x", 4)
        + "c = Concat <axis = 1> (x, h)\ny = Gemm (c, w)",
    ),
    "Relu between": ("float[N,2] x", SQUARE, q("h", "x", 4) + "g = Gemm (h, w, b)\nr = Relu (g)\n" + q("y", "r", 2)),
    "Abs of a spike train and onwards": (
        "float[N,2] x", SQUARE, q("h", "x", 4) + "r = Abs (h)\ng = Gemm (r, w, b)\n" + q("i", "g", 2)
        + "y = Add (i, h)",
    ),
    "product of two trains": (
        "float[N,2] x", "", q("h", "x", 4) + q("i", "x", 2) + "m = Mul (h, i)\n" + q("y", "m", 4),
    ),
    "Softmax at the end": ("float[N,2] x", SQUARE, q("h", "x", 4) + "g = Gemm (h, w, b)\ny = Softmax <axis = 1> (g)"),
    "Sigmoid between": (
        "float[N,2] x", SQUARE, q("h", "x", 4) + "s = Sigmoid (h)\n" + q("i", "s", 2) + "y = Gemm (i, w, b)",
    ),
    "neuron train as output": ("float[N,2] x", "", q("y", "x", 4)),
    "train that is an output and goes on": (
        "float[N,2] x", SQUARE, q("z", "x", 4) + "g = Gemm (z, w, b)\n" + q("y", "g", 2),
    ),
    "first operator a neuron": ("float[N,2] x", SQUARE, q("h", "x", 4) + "y = Gemm (h, w, b)"),
    "two neurons in a row": ("float[N,2] x", "float four = {4}", q("h", "x", 8) + q("y", "h", 2, "four")),
    "three neurons in a row, more levels each": (
        "float[N,2] x", "float four = {4}", q("h", "x", 1) + q("i", "h", 4, "four") + q("y", "i", 8),
    ),
    "one neuron, two layers of one weight": (
        "float[N,2] x", SQUARE, q("h", "x", 4) + "g = Gemm (h, w, b)\n" + q("i", "g", 2) + "y = Gemm (i, w, b)",
    ),
    "two inputs and outputs": (
        "float[N,2] x, float[N,2] u",
        SQUARE,
        q("h", "x", 4) + q("i", "u", 2) + "g = Gemm (i, w, b)\ny = Add (h, g)\nz = Gemm (h, w)",
    ),
    "input is an output": ("float[N,2] x", "", q("y", "x", 4) + "z = Identity (x)"),
    "static batch 1": (
        "float[1,1,2,2] x",
        "int64[2] shape = {1, -1}, float[4,1] w = {1, 2, -1, 0.5}",
        q("h", "x", 4) + "f = Reshape (h, shape)\ny = Gemm (f, w)",
    ),
    "static batch 1, all sizes baked in": (
        "float[1,1,2,2] x",
        "int64[2] shape = {1, 4}, int64[4] back = {1, 1, 2, 2}, float[1,1,1,1] w = {2}",
        q("h", "x", 4) + "f = Reshape (h, shape)\nr = Reshape (f, back)\nc = Conv (r, w)\n" + q("y", "c", 2),
    ),
    "shape by Shape, Gather, Concat": (
        "float[N,1,2,2] x",
        "int64 first = {0}, int64[1] zero = {0}, int64[1] rest = {-1}, float[4,1] w = {1, 2, -1, 0.5}",
        q("h", "x", 4)
        + "s = Shape (h)\nn = Gather (s, first)\nn1 = Unsqueeze (n, zero)\nt = Concat <axis = 0> (n1, rest)\n"
        "f = Reshape (h, t)\ny = Gemm (f, w)",
    ),
    "reshape that mixes the batch": (
        "float[N,4] x",
        "int64[2] shape = {-1, 2}, int64[2] back = {-1, 4}, float[4,1] v = {1, 2, -1, 0.5}",
        q("h", "x", 4) + "m = Reshape (h, shape)\n" + q("i", "m", 2) + "f = Reshape (i, back)\ny = Gemm (f, v)",
    ),
    "MaxPool before and behind": (
        "float[N,1,4,4] x",
        "float[2,1,1,1] w = {0.5, -1}, float[2] b = {1, 2}, float[2,1,1] thetas = {2, 4}",
        "c = Conv (x, w, b)\np = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (c)\n"
        + q("h", "p", 4, "thetas") + "y = MaxPool <kernel_shape = [2, 2]> (h)",
    ),
    "MaxPool with a window over padding": (
        "float[N,1,4,4] x",
        "float[1,1,1,1] w = {-1}",
        "c = Conv (x, w)\np = MaxPool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, "
        "1]> (c)\n" + q("y", "p", 4),
    ),
    "average pool, normalisation, transposed convolution": (
        "float[N,1,4,4] x",
        "float[2,1,2,2] w = {1, -1, 0.5, 2, 1, 1, -1, 0.5}, float[2] g = {2, 1}, float[2] s = {4, -4}, "
        "float[2] m = {8, 4}, "
        "float[2] v = {4, 16}, float[2,1,2,2] t = {1, 2, -1, 1, 1, 0.5, 1, -1}",
        q("h", "x", 4)
        + "c = Conv (h, w)\nn = BatchNormalization <epsilon = 0.0> (c, g, s, m, v)\n" + q("i", "n", 2)
        + "a = AveragePool <kernel_shape = [2, 2]> (i)\nd = ConvTranspose <strides = [2, 2]> (a, t)\n" + q("y", "d", 8),
    ),
    "grouped convolution": (
        "float[N,2,2,2] x",
        "float[4,1,1,1] w = {1, -1, 0.5, 2}, float[4] b = {4, 8, -4, -8}, float[4,1,1] thetas = {2, 4, 1, 8}, "
        "float[2,2,1,1] v = {1, -1, 0.5, 2}",
        q("h", "x", 4) + "c = Conv <group = 2> (h, w, b)\n" + q("i", "c", 2, "thetas") + "y = Conv <group = 2> (i, v)",
    ),
    "matrix from the left": (
        "float[N,2,3] x", "float[4,2] a = {1, 2, -1, 0.5, 1, 1, 0, -2}", q("h", "x", 4) + "y = MatMul (a, h)",
    ),
    "levels 255": ("float[N,2] x", SQUARE, q("h", "x", 255) + "y = Identity (h)"),
    "constant output": ("float[N,2] x", SQUARE, q("y", "x", 2) + "z = Add (w, w)"),
}  # fmt: skip


def network(name: str) -> onnx.ModelProto:
    inputs, constants, body = NETWORKS[name]
    outputs = "float[] y, float[] z" if "\nz = " in f"\n{body}" else "float[] y"
    text = (
        f"network ({inputs}) => ({outputs}) <float theta = {{2}}{', ' + constants if constants else ''}> {{ {body} }}"
    )
    return with_output_ranks(parse(text))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", NETWORKS)
def test_network_is_compiled_losslessly(name: str, schedule: str) -> None:
    source = network(name)
    model = compiled(source, SCHEDULES[schedule](Pasc()))
    assert_same_outputs(source, model, batch=3)
    assert_same_outputs(source, model, batch=1)


IF = """
network (float[N,2] x, bool flag) => (float[N,2] y) <float theta = {2}, float[2,2] w = {0.5, -1, 1.5, 2}> {
  %s
  g = Gemm (h, w)
  y = If (flag) <
    then_branch = yes () => (float[N,2] u) { u = Add (h, g) },
    else_branch = no () => (float[N,2] v) {
      v = If (flag) <then_branch = inner () => (float[N,2] r) { r = Neg (g) },
                     else_branch = other () => (float[N,2] s) { s = Neg (h) }>
    }
  >
}
""" % q("h", "x", 4)  # noqa: UP031


@pytest.mark.parametrize("flag", [True, False])
def test_subgraphs_capture_trains_as_sums(flag: bool) -> None:
    source = parse(IF)
    model = compiled(source)
    assert "If: its subgraph has no spiking form" in reasons(model, "unroll-time")
    assert_same_outputs(source, model, feeds={"flag": np.array(flag)})


def test_interface_stays_the_sources() -> None:
    source = network("two inputs and outputs")
    model = compiled(source)
    assert model.interface_inputs == list(source.graph.input)
    assert model.interface_outputs == list(source.graph.output)


def test_what_does_not_spike_is_noted() -> None:
    assert reasons(compiled(network("Sigmoid between")), "unroll-time") == ["Sigmoid: Sigmoid has no spiking form"]
    assert reasons(compiled(network("join of unequal T")), "unroll-time") == []


def test_file_does_not_depend_on_names() -> None:
    """Two tensors named so that the names that the compiler would like are taken."""
    source = parse(
        "network (float[N,2] x) => (float[N,2] y) <float theta = {2}, float[2] b = {4, 8}> {\n"
        f'{q("h", "x", 4)} "h/sum" = Neg (x)\n "b/4" = Abs (h)\n "y/train" = Add ("h/sum", "b/4")\n'
        'k = Add (h, b)\n y = Add (k, "y/train") }'
    )
    assert_same_outputs(source, compiled(source))


def test_pipeline_order_is_checked() -> None:
    for passes in (UNROLLED, COLLAPSED):
        provided: set[str] = set()
        for step in passes:
            assert step.requires <= provided
            provided |= step.provides
    with pytest.raises(ValueError, match="recognise-qcfs requires constants, shapes, which no pass before it provides"):
        pipeline.run(loaded(network("analog join")), UNROLLED[2:])


def test_unknown_stop_is_refused() -> None:
    with pytest.raises(CompileError, match=r"no pass 'nonsense'.*It has: infer-shapes, fold-constants"):
        pipeline.run(loaded(network("analog join")), UNROLLED, stop_after="nonsense")


def test_stop_after() -> None:
    model = loaded(network("analog join"))
    timing = pipeline.Timing()
    pipeline.run(model, UNROLLED, [timing], stop_after="recognise-qcfs")
    assert [(name, rewrites) for name, rewrites, _ in timing.rows] == [
        ("infer-shapes", 0),
        ("fold-constants", 0),
        ("recognise-qcfs", 2),
    ]
    assert all(seconds > 0 for _, _, seconds in timing.rows)


def test_dump_writes_a_readable_file_a_pass(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "ir"
    pipeline.run(loaded(network("analog join")), UNROLLED, [pipeline.Dump(folder)])
    files = sorted(path.name for path in folder.iterdir())
    assert files == [f"{i:02d}-{step.name()}.onnxtxt" for i, step in enumerate(UNROLLED, 1)]
    for path in folder.iterdir():
        onnx.checker.check_model(parse(path.read_text()))


def test_dump_into_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CompileError, match="the folder cannot be made"):
        pipeline.Dump(tmp_path / "file" / "ir")


def test_passes_are_named_after_their_files() -> None:
    for step in UNROLLED:
        assert isinstance(step, Pass)
        assert type(step).__module__ == f"pascalc.passes.{step.name().replace('-', '_')}"
        assert step.summary().endswith(".")
