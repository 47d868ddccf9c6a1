"""The operators of the domain ``ai.pascalc``, each defined once."""

from __future__ import annotations

from pascalc.ops.base import DOMAIN, DOMAIN_VERSION, MIN_OPSET, Attribute, Operator
from pascalc.ops.neuron import NEURON_MODELS, NeuronModel, spiking_neuron
from pascalc.ops.pasc import PASC_IF
from pascalc.ops.qcfs import MAX_LEVELS, QCFS
from pascalc.ops.time import ACCUMULATE, ALIGN, SPREAD

#: Every operator, by name.
OPERATORS: dict[str, Operator] = {op.name: op for op in (QCFS, PASC_IF, ACCUMULATE, ALIGN, SPREAD)}

__all__ = [
    "ACCUMULATE",
    "ALIGN",
    "DOMAIN",
    "DOMAIN_VERSION",
    "MAX_LEVELS",
    "MIN_OPSET",
    "NEURON_MODELS",
    "OPERATORS",
    "PASC_IF",
    "QCFS",
    "SPREAD",
    "Attribute",
    "NeuronModel",
    "Operator",
    "spiking_neuron",
]
