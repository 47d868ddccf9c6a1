"""IF, the plain integrate-and-fire neuron of rate coding: soft reset, at most one spike a step.

With input currents X[1..T] and spikes of height theta/T,

    S_t = X[1] + ... + X[t]             u_t = S_t * (T/theta) + phi
    s[t] = (u_t >= c_{t-1} + 1)         c_t = c_{t-1} + s[t]           Y[t] = s[t] * theta/T

which is the membrane phi*theta/T + S - c*theta/T and its reset by subtraction, kept as the pair of the sum S and the
number of spikes c: subtracting theta/T in floats, spike by spike, would pile up rounding, in another order in every
executor. Under a constant current the count is clip(floor(sum(X)*T/theta + 1/2), 0, T), which for T = L is the level of
QCFS. Currents that change arrive in any order, and a spike that was sent too early is not taken back: the *unevenness
error* of the conversion [Bu et al., ICLR 2022], which inhibitory spikes remove [PASCAL].

The float semantics that every executor keeps, bit for bit: the sum runs over the steps in order; ``gain = T/theta``;
``u = S*gain + phi`` in two roundings; ``unit = theta/T``. What is compared with c are integers, floor(u): only these go
through the Scan over time, whose body has to declare its types.
"""

from __future__ import annotations

from dataclasses import dataclass

from pascalc.codes import RATE, UNIT
from pascalc.errors import CompileError
from pascalc.ops.base import LABEL, Attribute, Operator
from pascalc.ops.model import NeuronModel
from pascalc.ops.qcfs import MAX_LEVELS

IF = Operator(
    name="IF",
    doc="Integrate-and-fire neuron with soft reset: in a step in which the membrane reaches theta/T it sends one spike "
    "of that height. The batch axis carries time, step by step: [steps*N, ...].",
    inputs={
        "X": "[steps_in*N, ...], the input current of every step",
        "threshold": "theta > 0: a scalar, or one value a channel, shaped to broadcast against a sample; T where "
        "thresholds were folded into the weights, so that one spike is 1",
    },
    outputs={"Y": "[steps_out*N, ...], the spike train: 0 or theta/T in every step"},
    attributes=(
        Attribute("levels", "int", "L, the levels of the activation that it stands for; the neuron does not use it"),
        Attribute("steps_in", "int", "T, time steps of the input current"),
        Attribute("steps_out", "int", "T, time steps of the train"),
        Attribute("phi", "float", "the membrane at the start, in units of theta/T: 1/2"),
        LABEL,
    ),
    body="""
    axis = Constant <value_int: int = 0> ()
    zero_int = Constant <value_int: int = 0> ()
    zero = CastLike (zero_int, X)
    steps_int = Constant <value_int: int = @steps_out> ()
    steps_like = CastLike (steps_int, X)
    phi_float = Constant <value_float: float = @phi> ()
    phi = CastLike (phi_float, X)
    gain = Div (steps_like, threshold)
    unit = Div (threshold, steps_like)
    one = Constant <value_ints: ints = [1]> ()
    minus_one = Constant <value_ints: ints = [-1]> ()
    steps_in_int = Constant <value_int: int = @steps_in> ()
    steps = Reshape (steps_in_int, one)
    sample = Shape <start: int = 1> (X)
    by_step = Concat <axis: int = 0> (steps, minus_one, sample)
    by_row = Concat <axis: int = 0> (steps, minus_one)
    by_sample = Concat <axis: int = 0> (minus_one, sample)
    currents = Reshape (X, by_step)
    totals = CumSum (currents, axis)
    scaled = Mul (totals, gain)
    u = Add (scaled, phi)
    bounded = Clip (u, zero, steps_like)
    floored = Floor (bounded)
    nothing = IsNaN (floored)
    whole = Where (nothing, zero, floored)
    reached = Cast <to: int = 7> (whole)
    rows = Reshape (reached, by_row)
    first = Gather (rows, zero_int)
    start = Sub (first, first)
    count, fired = Scan <num_scan_inputs = 1, body = step (int64[?] c, int64[?] r) => (int64[?] c_next, int64[?] s) {
        fires = Greater (r, c)
        s = Cast <to: int = 7> (fires)
        c_next = Add (c, s)
    }> (start, rows)
    spikes = CastLike (fired, X)
    train = Reshape (spikes, by_sample)
    Y = Mul (train, unit)
    """,
)


@dataclass(frozen=True)
class IntegrateAndFire(NeuronModel):
    """Rate-coded integrate-and-fire neurons with soft reset, for T steps: the usual baseline, not lossless."""

    steps: int

    name = "if"
    operator = IF
    code = RATE
    reads = UNIT
    any_length = False
    lossless = False

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= MAX_LEVELS:
            raise CompileError(f"the number of time steps must be 1 to {MAX_LEVELS}, not {self.steps}")

    def steps_out(self, levels: int) -> int:
        return self.steps

    @staticmethod
    def misfit(levels: int, steps_in: int, steps_out: int) -> str:
        return "" if steps_in == steps_out else f"it gets a train of {steps_in} steps, but sends one of {steps_out}"

    @staticmethod
    def most(levels: int, steps_out: int) -> int:
        return steps_out

    @staticmethod
    def start(phi: float) -> float:
        return 0.5  # the shift for which the error of rounding a constant current is least [Bu et al.]

    @staticmethod
    def operations(most: int, steps_in: int) -> tuple[int, ...]:
        return (steps_in,)  # one update of the membrane a step [PASCAL, section 4.2]
