"""The operators of the domain ``ai.pascalc``, each defined once."""

from __future__ import annotations

from pascalc.ops.base import DOMAIN, DOMAIN_VERSION, MIN_OPSET, Attribute, Operator
from pascalc.ops.integrate_and_fire import IntegrateAndFire
from pascalc.ops.model import NeuronModel
from pascalc.ops.models import NEURON_MODELS, neuron_model, spiking_neuron
from pascalc.ops.multi_threshold import MULTI_THRESHOLD, MULTI_THRESHOLD_IF
from pascalc.ops.pasc import PASC_IF, Pasc
from pascalc.ops.qcfs import MAX_LEVELS, QCFS
from pascalc.ops.time import ACCUMULATE, ALIGN, BIAS, HOLD, RETIME, SPREAD

#: The operators that stand for the activations of a source, and for the neurons of a collapsed network.
ACTIVATIONS = (QCFS.name, MULTI_THRESHOLD.name)

#: Every operator, by name.
OPERATORS: dict[str, Operator] = {
    op.name: op
    for op in (
        QCFS,
        MULTI_THRESHOLD,
        *(operator for model in NEURON_MODELS.values() for operator in model.operators()),
        *(ACCUMULATE, ALIGN, SPREAD, HOLD, RETIME, BIAS),
    )
}

__all__ = [
    "ACCUMULATE",
    "ACTIVATIONS",
    "ALIGN",
    "BIAS",
    "DOMAIN",
    "DOMAIN_VERSION",
    "HOLD",
    "MAX_LEVELS",
    "MIN_OPSET",
    "MULTI_THRESHOLD",
    "MULTI_THRESHOLD_IF",
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
