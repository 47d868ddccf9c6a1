"""The operators that change what a tensor means over time. Each keeps the weighted sum over time (pascalc/codes.py),
save Hold, which repeats a tensor for a train to be multiplied by.

Accumulate, Align and Spread are for trains whose steps all count 1, Retime for every other weighting, Hold for all of
them, and Bias for constants that the steps do not share alike.

The time axis is folded into the batch, step by step: ``[T*N, ...]`` reshapes to ``[T, N, ...]``. Sums run over the
steps in order, as in the neurons (pascalc/ops/pasc.py says why they are an Einsum).
"""

from __future__ import annotations

from pascalc.ops.base import Attribute, Operator
from pascalc.ops.statements import rows


def _in_every_step(tensor: str, before: str = "") -> str:
    """The body that repeats a tensor of the shape of X, which the statements ``before`` compute, ``steps`` times."""
    return f"""
    one = Constant <value_ints: ints = [1]> ()
    zero = Constant <value_ints: ints = [0]> ()
    minus_one = Constant <value_ints: ints = [-1]> ()
    steps_int = Constant <value_int: int = @steps> ()
    {before}
    steps = Reshape (steps_int, one)
    whole = Shape (X)
    repeated = Concat <axis: int = 0> (steps, whole)
    front = Unsqueeze ({tensor}, zero)
    every_step = Expand (front, repeated)
    sample = Shape <start: int = 1> (X)
    by_sample = Concat <axis: int = 0> (minus_one, sample)
    Y = Reshape (every_step, by_sample)
    """


ACCUMULATE = Operator(
    name="Accumulate",
    doc="The sum of a train over its time steps: the source network's tensor.",
    inputs={"X": "[steps*N, ...], a train"},
    outputs={"Y": "[N, ...], its sum over time"},
    attributes=(Attribute("steps", "int", "time steps of X"),),
    body="""
    one = Constant <value_ints: ints = [1]> ()
    minus_one = Constant <value_ints: ints = [-1]> ()
    """
    + rows("steps", "steps", "rows")
    + """
    sum = Einsum <equation: string = "tm->m"> (rows)
    Y = Reshape (sum, by_sample)
    """,
)

ALIGN = Operator(
    name="Align",
    doc="A train prolonged by steps of zeros, so that it can join a longer one.",
    inputs={"X": "[steps_in*N, ...], a train, or an analog tensor as one of one step"},
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
    body=_in_every_step(
        "share",
        """
    steps_float = CastLike (steps_int, X)
    share = Div (X, steps_float)
""",
    ),
)

HOLD = Operator(
    name="Hold",
    doc="An analog tensor in every step as it is, so that a train can be multiplied by it step by step.",
    inputs={"X": "[N, ...], an analog tensor"},
    outputs={"Y": "[steps*N, ...], X in every step"},
    attributes=(Attribute("steps", "int", "time steps of Y"),),
    body=_in_every_step("X"),
)

RETIME = Operator(
    name="Retime",
    doc="Another number of steps, each a sum of the old ones: their weighted sum, shares of an analog tensor, or a "
    "train prolonged by zeros, for weightings whose steps do not all count 1.",
    inputs={"X": "[steps_in*N, ...], a train or an analog tensor", "matrix": "[steps_out, steps_in]"},
    outputs={"Y": "[steps_out*N, ...], matrix times the steps of X"},
    attributes=(
        Attribute("steps_in", "int", "time steps of X"),
        Attribute("steps_out", "int", "time steps of Y"),
        Attribute("weighting", "string", "the weighting of Y; empty where Y is analog"),
    ),
    body="""
    one = Constant <value_ints: ints = [1]> ()
    minus_one = Constant <value_ints: ints = [-1]> ()
    """
    + rows("steps_in", "steps", "rows")
    + """
    mixed = Einsum <equation: string = "st,tm->sm"> (matrix, rows)
    Y = Reshape (mixed, by_sample)
    """,
)

BIAS = Operator(
    name="Bias",
    doc="An additive constant on a train whose steps do not all get the same share of it.",
    inputs={
        "X": "[steps*N, ...], a train",
        "constant": "what the weighted sum of X grows by, shaped to broadcast against a sample",
        "shares": "[steps]",
    },
    outputs={"Y": "[steps*N, ...], X + shares[t]*constant in every step"},
    attributes=(Attribute("steps", "int", "time steps of X"),),
    body="""
    one = Constant <value_ints: ints = [1]> ()
    minus_one = Constant <value_ints: ints = [-1]> ()
    steps_int = Constant <value_int: int = @steps> ()
    steps = Reshape (steps_int, one)
    sample = Shape <start: int = 1> (X)
    by_step = Concat <axis: int = 0> (steps, minus_one, sample)
    by_sample = Concat <axis: int = 0> (minus_one, sample)
    rows = Reshape (X, by_step)
    rank = Shape (by_step)
    ones = Expand (one, rank)
    from_second = Slice (ones, one, rank)
    column_shape = Concat <axis: int = 0> (steps, from_second)
    column = Reshape (shares, column_shape)
    share = Mul (column, constant)
    sum = Add (rows, share)
    Y = Reshape (sum, by_sample)
    """,
)
