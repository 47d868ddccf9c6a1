"""QCFS, the activation of the source network.

    c = clip(floor(X*L/theta + phi), 0, L)        the level
    Y = c * theta/L

QCFS: Bu et al., ICLR 2022, with phi = 1/2. CQReLU (CASC) is the same with phi = 0. All arithmetic is float32:
``gain = L/theta``, ``u = X*gain + phi`` (two roundings), ``unit = theta/L``.
"""

from __future__ import annotations

from pascalc.ops.base import LABEL, Attribute, Operator
from pascalc.ops.statements import LEVEL

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
        LABEL,
    ),
    body=LEVEL
    + """
    unit = Div (threshold, levels)
    Y = Mul (count, unit)
    """,
)
