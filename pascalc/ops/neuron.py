"""Neuron models: what the compiler has to know of a spiking neuron beside its operator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pascalc.ops.base import Operator
from pascalc.ops.pasc import PASC_IF


@dataclass(frozen=True)
class NeuronModel:
    """A spiking neuron that can stand for a QCFS activation of L levels.

    Attributes:
        name: its name on the command line, ``--neuron NAME``.
        operator: the operator of the neuron, with the attributes levels, steps_in, steps_out, phi and label.
        steps_out: the time steps of the emitted train, from L.
        steps_in: the time steps that it wants of its input current, from L; None where any number will do.
        thermometer: whether the train is a thermometer code, all spikes first; then MaxPool is exact in every step.
    """

    name: str
    operator: Operator
    steps_out: Callable[[int], int]
    steps_in: Callable[[int], int] | None
    thermometer: bool


def _as_many_as_levels(levels: int) -> int:
    return levels


PASC = NeuronModel("pasc", PASC_IF, steps_out=_as_many_as_levels, steps_in=None, thermometer=True)

#: Every neuron model, by its name on the command line.
NEURON_MODELS: dict[str, NeuronModel] = {model.name: model for model in (PASC,)}


def spiking_neuron(operator: str) -> NeuronModel | None:
    """The neuron model whose operator has this name."""
    return next((model for model in NEURON_MODELS.values() if model.operator.name == operator), None)
