"""The algebra of QCFS: what scales, shifts and bounds around a rounding amount to. No graphs.

    y = min(max(a*x + b, lo), hi)       before the Floor
    h = min(max(p*k + q, LO), HI)       behind it, k = floor(y)

``floor(min(max(v, lo), hi)) = min(max(floor(v), floor(lo)), floor(hi))``, so h is QCFS exactly if q = 0, the count is
bounded by 0 and an integer L, and 0 <= b < 1; then theta = L/a and phi = b. Where p*a is not 1 (an optimiser moved a
scale into a neighbour) a multiplication by p*a is left behind the neuron. Where to cut the chain is free as well; the
longest cut that gives p*a = 1 and phi = 1/2 wins, else the shortest that is QCFS.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import ClassVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pascalc import ops

#: Scalars, or one number a channel, in float64.
Values = NDArray[np.float64]

#: How far the algebra may be off for constants that went through float32 arithmetic a few times.
TOLERANCE = 1e-6


class NotQcfs(Exception):
    """This is not QCFS, and why."""


class Broken(NotQcfs):
    """This is meant to be QCFS, but its parameters are not valid; ``surely`` so where no other reading may overrule."""

    def __init__(self, reason: str, surely: bool = False) -> None:
        super().__init__(reason)
        self.surely = surely


@dataclass(frozen=True)
class Step:
    """One elementwise map: ``kind`` is scale, shift, low (a lower bound) or high (an upper bound)."""

    kind: str
    value: Values


@dataclass(frozen=True)
class Bounded:
    """The function min(max(scale*x + shift, low), high) with scale > 0; every value a scalar or one a channel.

    ``positive`` is False once a scale was zero, negative or NaN; its absolute value (or 1) stands in for it, so that
    the rest of the form can still be told.
    """

    scale: Values
    shift: Values
    low: Values
    high: Values
    positive: bool = True

    @staticmethod
    def identity() -> Bounded:
        """What changes nothing."""
        return Bounded(np.asarray(1.0), np.asarray(0.0), np.asarray(-np.inf), np.asarray(np.inf))

    def then(self, step: Step) -> Bounded:
        """This function and a step behind it."""
        if step.kind == "scale":
            usable = np.isfinite(step.value) & (step.value != 0)
            factor = np.where(usable, np.abs(step.value), 1.0)
            positive = self.positive and bool(np.all(usable & (step.value > 0)))
            scaled = (self.scale * factor, self.shift * factor, self.low * factor, self.high * factor)
            return Bounded(*scaled, positive)
        if step.kind == "shift":
            shifted = (self.shift + step.value, self.low + step.value, self.high + step.value)
            return Bounded(self.scale, *shifted, self.positive)
        bound = np.maximum if step.kind == "low" else np.minimum
        return replace(self, low=bound(self.low, step.value), high=bound(self.high, step.value))


def composed(steps: Iterable[Step]) -> Bounded:
    """The steps one behind the other."""
    bounded = Bounded.identity()
    for step in steps:
        bounded = bounded.then(step)
    return bounded


@dataclass(frozen=True, order=True)
class Worth:
    """How good a reading of roundings in a row is: neurons, those with nothing behind them, those with phi = 1/2, and
    how much of the chain they take."""

    neurons: int = 0
    complete: int = 0
    centred: int = 0
    length: int = 0

    def __add__(self, other: Worth) -> Worth:
        return Worth(
            self.neurons + other.neurons,
            self.complete + other.complete,
            self.centred + other.centred,
            self.length + other.length,
        )


@dataclass(frozen=True)
class Reading:
    """A chain read as QCFS.

    Attributes:
        ahead, behind: how many links of the chain before and behind the rounding it takes.
        threshold: theta.
        levels: L.
        phi: the shift, in [0, 1).
        height: of a level, behind the chain.
        rest: what remains to be multiplied behind the neuron.
        shape: of all its parameters together.
    """

    ahead: int
    behind: int
    threshold: Values
    levels: int
    phi: float
    height: Values
    rest: Values
    shape: tuple[int, ...]

    BEST_RANK: ClassVar[tuple[bool, bool]] = (False, False)

    @property
    def length(self) -> int:
        """How many links of the chain it takes."""
        return self.ahead + self.behind

    @cached_property
    def rank(self) -> tuple[bool, bool]:
        """Smaller is better: whether something remains behind the neuron, and whether phi is not 1/2."""
        return (not np.allclose(self.rest, 1, rtol=TOLERANCE), self.phi != 0.5)

    @property
    def worth(self) -> Worth:
        """What it adds to the reading of a row."""
        remains, odd = self.rank
        return Worth(1, -remains, -odd, -self.length if remains else self.length)


def readings(
    before: Sequence[Sequence[Step]], after: Sequence[Sequence[Step]], is_floor: bool, dtype: DTypeLike
) -> Iterator[Reading]:
    """The cuts of a chain that are QCFS: first those that leave nothing behind, with phi = 1/2 before another, the
    longest first; then the others, the shortest first.

    Args:
        before: the links before the rounding, the nearest first, each with its steps from the far end to the near one.
        after: the same behind it. The first link of both belongs to the rounding, and is always taken.
        is_floor: whether the rounding is a Floor, not one that rounds the points between two levels otherwise.
        dtype: of what goes into the rounding; None where it is not known.

    Raises:
        NotQcfs: there is none, and why.
    """
    others: list[Reading] = []
    refusals: list[NotQcfs] = []
    any_best = False
    aheads = [composed(chain.from_iterable(reversed(before[: n + 1]))) for n in range(len(before))]
    behinds = [composed(chain.from_iterable(after[: n + 1])) for n in range(len(after))]
    for length in range(len(before) + len(after) - 2, -1, -1):
        for behind in range(min(length, len(after) - 1), -1, -1):
            ahead = length - behind
            if ahead >= len(before):
                continue
            try:
                form = solve(aheads[ahead], behinds[behind], is_floor)
                _check_saturated(before[: ahead + 1], form.levels, dtype)
            except NotQcfs as error:
                if isinstance(error, Broken) and error.surely:
                    raise
                refusals.append(error)
                continue
            reading = replace(form, ahead=ahead, behind=behind)
            if reading.rank == Reading.BEST_RANK:
                any_best = True
                yield reading
            else:
                others.append(reading)
    yield from sorted((r for r in others if not r.rank[0]), key=lambda r: r.rank)
    yield from sorted((r for r in reversed(others) if r.rank[0]), key=lambda r: r.rank)
    if not others and not any_best:
        raise next((r for r in refusals if isinstance(r, Broken)), refusals[0])


def solve(ahead: Bounded, behind: Bounded, is_floor: bool) -> Reading:
    """Read what is before and behind a rounding as QCFS; it takes no links yet.

    Raises:
        NotQcfs: it is none, and why.
    """
    low = np.maximum(np.floor(ahead.low + TOLERANCE), (behind.low - behind.shift) / behind.scale)
    # An upper bound before the shift by b reaches the Floor as L + b, one behind the shift as L.
    shifted = np.where(_is_integer(ahead.high), ahead.high, ahead.high - ahead.shift)
    if not is_floor:
        shifted = np.floor(ahead.high)  # a quantiser may be bounded between its levels
    high = np.minimum(shifted, (behind.high - behind.shift) / behind.scale)
    if np.any(np.isnan(low) | np.isnan(high)):
        raise Broken("a bound is NaN", surely=True)
    if not np.all(np.isfinite(low)) or not np.all(np.isfinite(high)):
        missing = "below" if not np.all(np.isfinite(low)) else "above"
        raise NotQcfs(f"nothing bounds it {missing}")
    if not np.all(np.abs(behind.shift) <= TOLERANCE * behind.scale):
        raise NotQcfs("a constant is added behind the Floor, so that level 0 is not zero")
    levels = np.unique(np.round(high))
    phi = np.unique(np.where(np.abs(ahead.shift - 0.5) <= TOLERANCE, 0.5, ahead.shift))
    if phi.size != 1 or not 0 <= phi[0] < 1:
        raise NotQcfs("the shift before the Floor is not one number in [0, 1)")
    if not is_floor and np.any(_is_integer(ahead.high)):
        raise NotQcfs("its upper bound lies half way between two levels")
    if not (ahead.positive and behind.positive):
        # A negative scale before may be a neighbour's, and the neuron starts behind it; but one that the scale behind
        # undoes is a threshold.
        undone = np.allclose(ahead.scale * behind.scale, 1, rtol=TOLERANCE)
        surely = undone and not ahead.positive and not behind.positive
        raise Broken("its threshold is zero, negative or NaN", surely)
    if not np.all(np.abs(low) <= TOLERANCE):
        raise NotQcfs("its lowest level is not zero")
    if not np.all(_is_integer(high)):
        raise Broken(f"its number of levels, {float(np.max(high)):g}, is not an integer")
    if levels.size != 1:
        raise NotQcfs("its channels have different numbers of levels")
    if levels[0] < 1:
        raise Broken("it has no level above zero")
    if levels[0] > ops.MAX_LEVELS:
        raise NotQcfs(f"it has {levels[0]:.0f} levels, more than {ops.MAX_LEVELS}")
    return Reading(
        ahead=0,
        behind=0,
        threshold=np.asarray(levels[0] / ahead.scale),
        levels=int(levels[0]),
        phi=float(phi[0]),
        height=behind.scale,
        rest=np.asarray(behind.scale * ahead.scale),
        shape=np.broadcast_shapes(*(v.shape for b in (ahead, behind) for v in (b.scale, b.shift, b.low, b.high))),
    )


def _check_saturated(before: Sequence[Sequence[Step]], levels: int, dtype: DTypeLike) -> None:
    """Refuse what does not reach its highest level from an infinite input, in the network's own arithmetic: without a
    shift by 1/2 an upper bound that was rounded down costs a level."""
    if dtype is not None and np.dtype(dtype).kind != "f":
        raise NotQcfs("it does not compute with real numbers")
    top = np.asarray(np.inf, dtype)
    for step in chain.from_iterable(reversed(before)):
        wide = top.astype(np.float64)
        if step.kind == "scale":
            wide = wide * step.value
        elif step.kind == "shift":
            wide = wide + step.value
        else:
            wide = np.maximum(wide, step.value) if step.kind == "low" else np.minimum(wide, step.value)
        top = np.asarray(wide).astype(dtype)
    reached = np.floor(top.astype(np.float64))
    if np.any(np.isfinite(reached) & (reached != levels)):
        raise NotQcfs(f"rounding keeps its highest level at {np.min(reached):g}, below the {levels:g} it means")


def _is_integer(values: Values) -> NDArray[np.bool_]:
    finite = np.where(np.isfinite(values), values, 0.5)
    return np.asarray(np.abs(finite - np.round(finite)) <= TOLERANCE * np.maximum(np.abs(finite), 1))
