"""QCFS, the activation of the source network.

    c = clip(floor(X*L/theta + phi), 0, L)        the level
    Y = c * theta/L

QCFS: Bu et al., ICLR 2022, with phi = 1/2. CQReLU (CASC) is the same with phi = 0. All arithmetic is float32:
``gain = L/theta``, ``u = X*gain + phi`` (two roundings), ``unit = theta/L``.
"""

from __future__ import annotations

from pascalc.ops.base import Attribute, Operator

MAX_LEVELS = 255
"""The most levels L of an activation, so that spike counts fit into one byte; the fewest are 1."""

QCFS = Operator(
    name="QCFS",
    doc="Quantisation-clip-floor-shift activation: clip(floor(X*L/theta + phi), 0, L) * theta/L. "
    "In a collapsed network it hands over the spike count (times theta/L) in one tensor.",
    inputs={
        "X": "[N, ...], the pre-activation",
        "threshold": "theta > 0: a scalar, or one value a channel, shaped to broadcast against a sample",
    },
    outputs={"Y": "[N, ...], level * theta/L"},
    attributes=(
        Attribute("levels", "int", "L, the number of levels above zero"),
        Attribute("phi", "float", "the shift before the floor: 1/2 in QCFS"),
        Attribute("label", "string", "the name of the neuron in the source network"),
    ),
    body="""
    levels_int = Constant <value_int: int = @levels> ()
    levels = CastLike (levels_int, X)
    phi_float = Constant <value_float: float = @phi> ()
    phi = CastLike (phi_float, X)
    zero_int = Constant <value_int: int = 0> ()
    zero = CastLike (zero_int, X)
    gain = Div (levels, threshold)
    scaled = Mul (X, gain)
    shifted = Add (scaled, phi)
    floored = Floor (shifted)
    count = Clip (floored, zero, levels)
    unit = Div (threshold, levels)
    Y = Mul (count, unit)
    """,
)
