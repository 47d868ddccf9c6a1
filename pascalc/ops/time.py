"""The three operators that change what a tensor means over time. Each keeps the sum over time.

The time axis is folded into the batch, step by step: ``[T*N, ...]`` reshapes to ``[T, N, ...]``. Sums run over the
steps in order, as in the neurons (pascalc/ops/pasc.py says why they are an Einsum).
"""

from __future__ import annotations

from pascalc.ops.base import Attribute, Operator

ACCUMULATE = Operator(
    name="Accumulate",
    doc="The sum of a train over its time steps: the source network's tensor.",
    inputs={"X": "[steps*N, ...], a train"},
    outputs={"Y": "[N, ...], its sum over time"},
    attributes=(Attribute("steps", "int", "time steps of X"),),
    body="""
    one = Constant <value_ints: ints = [1]> ()
    minus_one = Constant <value_ints: ints = [-1]> ()
    steps_int = Constant <value_int: int = @steps> ()
    steps = Reshape (steps_int, one)
    by_step = Concat <axis: int = 0> (steps, minus_one)
    sample = Shape <start: int = 1> (X)
    by_sample = Concat <axis: int = 0> (minus_one, sample)
    rows = Reshape (X, by_step)
    sum = Einsum <equation: string = "tm->m"> (rows)
    Y = Reshape (sum, by_sample)
    """,
)

ALIGN = Operator(
    name="Align",
    doc="A train prolonged by steps of zeros, so that it can join a longer one.",
    inputs={"X": "[steps_in*N, ...], a train"},
    outputs={"Y": "[steps_out*N, ...], X and then zeros"},
    attributes=(
        Attribute("steps_in", "int", "time steps of X"),
        Attribute("steps_out", "int", "time steps of Y, more than steps_in"),
    ),
    body="""
    steps_in = Constant <value_int: int = @steps_in> ()
    steps_out = Constant <value_int: int = @steps_out> ()
    more = Sub (steps_out, steps_in)
    rows = Shape <start: int = 0, end: int = 1> (X)
    batch = Div (rows, steps_in)
    extra = Mul (batch, more)
    sample = Shape <start: int = 1> (X)
    shape = Concat <axis: int = 0> (extra, sample)
    silence = ConstantOfShape (shape)
    zeros = CastLike (silence, X)
    Y = Concat <axis: int = 0> (X, zeros)
    """,
)

SPREAD = Operator(
    name="Spread",
    doc="An analog tensor as a constant current: X/steps in every step.",
    inputs={"X": "[N, ...], an analog tensor"},
    outputs={"Y": "[steps*N, ...], X/steps in every step"},
    attributes=(Attribute("steps", "int", "time steps of Y"),),
    body="""
    one = Constant <value_ints: ints = [1]> ()
    zero = Constant <value_ints: ints = [0]> ()
    minus_one = Constant <value_ints: ints = [-1]> ()
    steps_int = Constant <value_int: int = @steps> ()
    steps_float = CastLike (steps_int, X)
    share = Div (X, steps_float)
    steps = Reshape (steps_int, one)
    whole = Shape (X)
    repeated = Concat <axis: int = 0> (steps, whole)
    front = Unsqueeze (share, zero)
    every_step = Expand (front, repeated)
    sample = Shape <start: int = 1> (X)
    by_sample = Concat <axis: int = 0> (minus_one, sample)
    Y = Reshape (every_step, by_sample)
    """,
)
