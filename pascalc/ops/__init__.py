"""The operators of the domain ``ai.pascalc``, each defined once."""

from __future__ import annotations

from pascalc.ops.base import DOMAIN, DOMAIN_VERSION, MIN_OPSET, Attribute, Operator
from pascalc.ops.integrate_and_fire import IntegrateAndFire
from pascalc.ops.model import NeuronModel
from pascalc.ops.models import NEURON_MODELS, neuron_model, spiking_neuron
from pascalc.ops.pasc import PASC_IF, Pasc
from pascalc.ops.qcfs import MAX_LEVELS, QCFS
from pascalc.ops.time import ACCUMULATE, ALIGN, BIAS, HOLD, RETIME, SPREAD

#: Every operator, by name.
OPERATORS: dict[str, Operator] = {
    op.name: op
    for op in (
        QCFS,
        *(model.operator for model in NEURON_MODELS.values()),
        *(ACCUMULATE, ALIGN, SPREAD, HOLD, RETIME, BIAS),
    )
}

__all__ = [
    "ACCUMULATE",
    "ALIGN",
    "BIAS",
    "DOMAIN",
    "DOMAIN_VERSION",
    "HOLD",
    "MAX_LEVELS",
    "MIN_OPSET",
    "NEURON_MODELS",
    "OPERATORS",
    "PASC_IF",
    "QCFS",
    "RETIME",
    "SPREAD",
    "Attribute",
    "IntegrateAndFire",
    "NeuronModel",
    "Operator",
    "Pasc",
    "neuron_model",
    "spiking_neuron",
]
