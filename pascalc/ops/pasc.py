"""PascIF, the integrate-and-fire neuron of PASCAL with spike accumulation and inhibitory spikes.

With input currents X[1..T_in], levels L and theta* = theta/L the neuron runs three stages (Ramesh & Srinivasan 2025,
Algorithm 1):

1. T_in integrate-and-fire steps from the membrane phi*theta*, soft reset, at most one spike a step;
2. max(T_in, L) - 1 steps without input, firing +1 at mem >= theta* and -1 (inhibitory) at mem < 0;
3. emission: s[t] = 1 for t <= count, t = 1..T_out.

The count is clip(floor(sum(X)*L/theta + phi), 0, L), the level of QCFS, and the train is its thermometer code. The
body below is the closed form of the train, s[t] = (u >= t) with u = sum(X)*L/theta + phi: no floor and no clip.
The sum is an Einsum because onnxruntime adds whole rows in it, in order and on all threads; its ReduceSum goes
through a short first axis element by element on one thread, three to ten times slower for the same result.

The float semantics that every executor keeps, bit for bit, in float32: the sum runs over the steps in order;
``gain = L/theta``; ``u = sum*gain + phi`` in two roundings; ``unit = theta/L``; Y is unit where s is 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from pascalc.codes import THERMOMETER, UNIT
from pascalc.ops.base import LABEL, Attribute, Operator
from pascalc.ops.model import NeuronModel
from pascalc.ops.multi_threshold import MULTI_THRESHOLD_IF
from pascalc.ops.statements import LEVELS_AND_PHI, TOTAL

PASC_IF = Operator(
    name="PascIF",
    doc="PASC integrate-and-fire neuron: the train of clip(floor(sum_t(X)*L/theta + phi), 0, L) spikes, all spikes "
    "first. The batch axis carries time, step by step: [steps*N, ...].",
    inputs={
        "X": "[steps_in*N, ...], the input current of every step",
        "threshold": "theta > 0: a scalar, or one value a channel, shaped to broadcast against a sample; L where "
        "thresholds were folded into the weights, so that one spike is 1",
    },
    outputs={"Y": "[steps_out*N, ...], the spike train: 0 or theta/L in every step"},
    attributes=(
        Attribute("levels", "int", "L, the number of levels above zero"),
        Attribute("steps_in", "int", "time steps of the input current"),
        Attribute("steps_out", "int", "time steps of the emitted train"),
        Attribute("phi", "float", "the membrane at the start, in units of theta/L: 1/2 in PASCAL"),
        LABEL,
    ),
    body="""
    one = Constant <value_ints: ints = [1]> ()
    minus_one = Constant <value_ints: ints = [-1]> ()
    """
    + LEVELS_AND_PHI
    + TOTAL
    + """
    gain = Div (levels, threshold)
    scaled = Mul (total, gain)
    shifted = Add (scaled, phi)
    row = Constant <value_ints: ints = [1, -1]> ()
    u = Reshape (shifted, row)
    first = Constant <value_int: int = 1> ()
    steps_out_int = Constant <value_int: int = @steps_out> ()
    end = Add (steps_out_int, first)
    steps = Range (first, end, first)
    column = Constant <value_ints: ints = [-1, 1]> ()
    step_column = Reshape (steps, column)
    t = CastLike (step_column, X)
    fires = GreaterOrEqual (u, t)
    spikes = CastLike (fires, X)
    train = Reshape (spikes, by_sample)
    unit = Div (threshold, levels)
    Y = Mul (train, unit)
    """,
)


@dataclass(frozen=True)
class Pasc(NeuronModel):
    """A PASC neuron of L levels takes trains of any length and sends L steps: its count is the level of QCFS."""

    name = "pasc"
    operator = PASC_IF
    threshold_form = MULTI_THRESHOLD_IF
    code = THERMOMETER
    reads = UNIT
    any_length = True
    lossless = True

    def steps_out(self, levels: int) -> int:
        return levels

    @staticmethod
    def misfit(levels: int, steps_in: int, steps_out: int) -> str:
        return "" if steps_out == levels else f"it has {levels} levels, but sends a train of {steps_out} steps"

    @staticmethod
    def most(levels: int, steps_out: int) -> int:
        return levels

    @staticmethod
    def start(phi: float) -> float:
        return phi

    @staticmethod
    def operations(most: int, steps_in: int) -> tuple[int, ...]:
        """5L - 2 for T_in = L (PASCAL, appendix A.4): a membrane and a counter update in every step of the first two
        stages, a membrane update in every step of the third. The count for other T_in is ours, of the same stages."""
        return 2 * steps_in, 2 * (max(steps_in, most) - 1), most
