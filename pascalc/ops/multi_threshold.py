"""The threshold form of an activation: a monotone step function, its steps written down one by one.

    c = number of thresholds tau_1 <= ... <= tau_L that X has reached        the level
    Y = c * unit

QCFS is the case of equal distances. With the thresholds themselves no arithmetic is left in the comparison, so there is
no rounding in it either, and what a quantiser does half way between two levels is said exactly: ``>`` at one threshold
is ``>=`` at the next float. MultiThreshold is the name that FINN and QONNX have for it [Umuroglu & Jahre 2017].

The spiking form sums its input steps in order, S = X[1] + ... + X[T_in], and sends s[t] = (S >= tau_t): all spikes
first, like PascIF (pascalc/ops/pasc.py). NaN reaches no threshold.

The activation's body asks one threshold after the other and counts in bytes, which are the fastest to add. Bisection
asks eight of 255, but has to look each up for every neuron, and for one look-up onnxruntime's Gather takes as long as
thirty comparisons do. (Its GatherElements is fast, but the reference evaluator's takes tables of 64 values at most.)
The count is given the shape of X, because shape inference does not follow it through the Loop.
"""

from __future__ import annotations

from pascalc.ops.base import LABEL, Attribute, Operator
from pascalc.ops.statements import TOTAL

_THRESHOLDS = (
    "ascending, [levels, 1, ...]: a value a level, or a value a level and channel, with an axis of size 1 for the batch"
)
_UNIT = "the height of a level: a scalar, or one value a channel, shaped to broadcast against a sample"
_PHI = Attribute("phi", "float", "the shift of the QCFS that comes nearest, with theta = L*unit; it is not used here")

MULTI_THRESHOLD = Operator(
    name="MultiThreshold",
    doc="Monotone step function: the number of thresholds that X has reached, times unit. The activation whose levels "
    "lie where its thresholds say; in a collapsed network it hands over the spike count (times unit) in one tensor.",
    inputs={"X": "[N, ...], the pre-activation", "thresholds": _THRESHOLDS, "unit": _UNIT},
    outputs={"Y": "[N, ...], level * unit"},
    attributes=(Attribute("levels", "int", "L, the number of thresholds"), _PHI, LABEL),
    body="""
    levels = Constant <value_int: int = @levels> ()
    none = Less (X, X)
    start = Cast <to: int = 2> (none)
    unlimited = Constant <value = bool {1}> ()
    count = Loop <body = step (int64 k, bool more, uint8[] c) => (bool again, uint8[] c_next) {
        again = Identity (more)
        threshold = Gather (thresholds, k)
        fires = GreaterOrEqual (X, threshold)
        one = Cast <to: int = 2> (fires)
        c_next = Add (c, one)
    }> (levels, unlimited, start)
    shape = Shape (X)
    level = Reshape (count, shape)
    number = CastLike (level, X)
    Y = Mul (number, unit)
    """,
)

MULTI_THRESHOLD_IF = Operator(
    name="MultiThresholdIF",
    doc="PASC integrate-and-fire neuron whose thresholds are given one by one: as many spikes as thresholds were "
    "reached by sum_t(X), all spikes first. The batch axis carries time, step by step: [steps*N, ...].",
    inputs={"X": "[steps_in*N, ...], the input current of every step", "thresholds": _THRESHOLDS, "unit": _UNIT},
    outputs={"Y": "[steps_out*N, ...], the spike train: 0 or unit in every step"},
    attributes=(
        Attribute("levels", "int", "L, the number of thresholds"),
        Attribute("steps_in", "int", "time steps of the input current"),
        Attribute("steps_out", "int", "time steps of the emitted train: L"),
        _PHI,
        LABEL,
    ),
    body="""
    one = Constant <value_ints: ints = [1]> ()
    zero = Constant <value_ints: ints = [0]> ()
    minus_one = Constant <value_ints: ints = [-1]> ()
    """
    + TOTAL
    + """
    current = Unsqueeze (total, zero)
    fires = GreaterOrEqual (current, thresholds)
    spikes = CastLike (fires, X)
    train = Reshape (spikes, by_sample)
    Y = Mul (train, unit)
    """,
)
