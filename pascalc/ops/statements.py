"""Statements that the bodies of several operators share, as ONNX text."""

from __future__ import annotations

#: ``levels`` and ``phi``, the attributes of the same names in the type of X.
LEVELS_AND_PHI = """
    levels_int = Constant <value_int: int = @levels> ()
    levels = CastLike (levels_int, X)
    phi_float = Constant <value_float: float = @phi> ()
    phi = CastLike (phi_float, X)
"""

#: ``count``, the level of QCFS for X: clip(floor(X*L/theta + phi), 0, L).
LEVEL = (
    LEVELS_AND_PHI
    + """
    zero_int = Constant <value_int: int = 0> ()
    zero = CastLike (zero_int, X)
    gain = Div (levels, threshold)
    scaled = Mul (X, gain)
    shifted = Add (scaled, phi)
    floored = Floor (shifted)
    count = Clip (floored, zero, levels)
"""
)


def rows(attribute: str, steps: str, result: str) -> str:
    """X with a row for each of its steps, whose number is the attribute; and ``by_sample``, the shape that rows are
    reshaped to in the end, ``[-1, ...]``. The constants ``one`` and ``minus_one`` come before it, each of one value."""
    return f"""
    {steps}_int = Constant <value_int: int = @{attribute}> ()
    {steps} = Reshape ({steps}_int, one)
    by_step = Concat <axis: int = 0> ({steps}, minus_one)
    sample = Shape <start: int = 1> (X)
    by_sample = Concat <axis: int = 0> (minus_one, sample)
    {result} = Reshape (X, by_step)
"""


#: ``total``, the sum of the steps of X in order, in the shape of a step.
TOTAL = (
    rows("steps_in", "steps_in", "currents")
    + """
    sum = Einsum <equation: string = "tm->m"> (currents)
    total = Reshape (sum, by_sample)
"""
)
