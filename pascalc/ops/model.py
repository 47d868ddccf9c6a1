"""What a neuron model is: all that only it knows, beside its kernel (runtime/kernels)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from pascalc.codes import Code, Weighting
from pascalc.ops.base import Operator


@dataclass(frozen=True)
class NeuronModel(ABC):
    """A spiking neuron that stands for a QCFS activation of L levels. Its fields are its options.

    Attributes:
        name: its name on the command line, ``--neuron NAME``.
        operator: its operator, with the attributes levels (L), steps_in, steps_out, phi and label. No two models share
            one, so that a node's operator tells its model.
        threshold_form: the operator, with the same attributes, for activations whose thresholds are given one by one;
            None where it has none, and stands for the QCFS that comes nearest.
        code: the code of the train that it sends.
        reads: the weighting of the trains that it reads, UNIT for sums of steps; None if it reads sums over time alone.
        any_length: whether it takes a train of any length, and an analog current in one step; else a train as long as
            the one that it sends.
        lossless: whether its count is the level of QCFS, for every input; else it only approaches it.
    """

    name: ClassVar[str]
    operator: ClassVar[Operator]
    threshold_form: ClassVar[Operator | None] = None
    code: ClassVar[Code]
    reads: ClassVar[Weighting | None]
    any_length: ClassVar[bool]
    lossless: ClassVar[bool]

    @classmethod
    def summary(cls) -> str:
        """The first line of the model's documentation."""
        return (cls.__doc__ or "").strip().splitlines()[0]

    @classmethod
    def operators(cls) -> tuple[Operator, ...]:
        """All of its operators."""
        return (cls.operator,) if cls.threshold_form is None else (cls.operator, cls.threshold_form)

    @abstractmethod
    def steps_out(self, levels: int) -> int:
        """The time steps of the train that it sends."""

    @staticmethod
    @abstractmethod
    def misfit(levels: int, steps_in: int, steps_out: int) -> str:
        """Why no such neuron has trains of these lengths; an empty text if one may."""

    @staticmethod
    @abstractmethod
    def most(levels: int, steps_out: int) -> int:
        """The count that stands for theta: a spike of weight 1 is theta over this high."""

    @staticmethod
    @abstractmethod
    def start(phi: float) -> float:
        """The membrane at the start, in spikes, for a QCFS with this phi."""

    @staticmethod
    @abstractmethod
    def operations(most: int, steps_in: int) -> tuple[int, ...]:
        """Additions and comparisons of one neuron for one sample, by stage."""
