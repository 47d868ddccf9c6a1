"""How numbers travel over time: weightings and codes.

A train x[1..T] stands for a tensor through the weights of its steps,

    value = sum_t w_t * x[t]

Linear operators do not care, W(sum_t w_t x[t]) = sum_t w_t (W x[t]). So all that they have to know of a train, spikes
or currents, is its :class:`Weighting`: what a step counts, how an additive constant is dealt out to the steps, and at
which end zero steps may be added. A :class:`Code` says more: which spikes a neuron sends for a count. It matters to the
neurons alone, and to a maximum taken step by step.

Trains of one weighting join, whatever their codes; trains of different weightings meet as sums.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Floats = NDArray[np.float64]


class Weighting(ABC):
    """What the steps of a train count; ``name`` stands in files."""

    name: ClassVar[str]
    #: Whether the zero steps that prolong a train come before its own, which count the least; else they come behind.
    prolonged_in_front: ClassVar[bool] = False

    @abstractmethod
    def weights(self, steps: int) -> Floats:
        """w, float64 ``[steps]``: what a step of such a train counts."""

    @abstractmethod
    def shares(self, steps: int) -> Floats:
        """b, float64 ``[steps]``: the share of an additive constant in every step; sum_t w_t b_t = 1."""


class Unit(Weighting):
    """Every step counts 1, and gets 1/T of a constant [PASCAL, Invariant 2]."""

    name = "unit"

    def weights(self, steps: int) -> Floats:
        return np.ones(steps)

    def shares(self, steps: int) -> Floats:
        return np.full(steps, 1 / steps)


UNIT = Unit()

#: Every weighting, by the name that files have for it.
WEIGHTINGS: dict[str, Weighting] = {weighting.name: weighting for weighting in (UNIT,)}


@dataclass(frozen=True)
class Code(ABC):
    """Which spikes stand for a count. A spike is 0 or 1 here; its height belongs to the neuron."""

    name: ClassVar[str]
    weighting: ClassVar[Weighting]
    #: Whether the maximum of trains, taken in every step, is the train of the largest count.
    maximum_by_step: ClassVar[bool]

    @abstractmethod
    def encode(self, counts: Array, steps: int) -> NDArray[np.bool_]:
        """A train for every count, bool ``[steps, ...]`` for counts ``[...]``."""

    def decode(self, train: NDArray[np.bool_]) -> Array:
        """The counts that a train ``[steps, ...]`` stands for, int64 ``[...]``."""
        weights = self.weighting.weights(len(train))
        if (weights == 1).all():
            return np.asarray(np.count_nonzero(train, axis=0))
        return np.asarray(np.rint(np.tensordot(weights, train, axes=1)), np.int64)

    @abstractmethod
    def disorder(self, train: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
        """Where a train ``[steps, ...]`` is none of the code's; None where any order of spikes is one."""


class Thermometer(Code):
    """All spikes first: a count c is c spikes, in the steps 1..c [PASCAL, Algorithm 1]."""

    name = "thermometer"
    weighting = UNIT
    maximum_by_step = True  # an OR of spikes

    def encode(self, counts: Array, steps: int) -> NDArray[np.bool_]:
        return np.asarray(counts >= np.arange(1, steps + 1, dtype=counts.dtype).reshape(-1, *[1] * counts.ndim))

    def disorder(self, train: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return np.asarray(self.encode(np.count_nonzero(train, axis=0), len(train)) != train)


class Rate(Code):
    """Any order: a count c is c spikes, whenever they come."""

    name = "rate"
    weighting = UNIT
    maximum_by_step = False

    def encode(self, counts: Array, steps: int) -> NDArray[np.bool_]:
        return THERMOMETER.encode(counts, steps)

    def disorder(self, train: NDArray[np.bool_]) -> None:
        return None


THERMOMETER = Thermometer()
RATE = Rate()
