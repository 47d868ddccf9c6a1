"""Every neuron model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from pascalc.errors import CompileError
from pascalc.ops.integrate_and_fire import IntegrateAndFire
from pascalc.ops.model import NeuronModel
from pascalc.ops.pasc import Pasc

#: Every neuron model, by its name on the command line.
NEURON_MODELS: dict[str, type[NeuronModel]] = {model.name: model for model in (Pasc, IntegrateAndFire)}


def neuron_model(name: str, options: Mapping[str, Any]) -> NeuronModel:
    """A neuron model with its options; those that are None are not given.

    Raises:
        CompileError: there is no such model, it has no such option, or an option is missing or out of range.
    """
    if name not in NEURON_MODELS:
        raise CompileError(f"there is no neuron model '{name}'", hint=f"There is: {', '.join(NEURON_MODELS)}.")
    model = NEURON_MODELS[name]
    given = {option: value for option, value in options.items() if value is not None}
    known = {field.name: field for field in fields(model)}
    for option in given.keys() - known.keys():
        having = [other.name for other in NEURON_MODELS.values() if option in {f.name for f in fields(other)}]
        raise CompileError(
            f"the neuron model '{name}' has no {option} to choose: {model.summary()[0].lower()}{model.summary()[1:]}",
            hint=f"{option} (--{option}) belongs to neuron (--neuron) {', '.join(having)}." if having else "",
        )
    for option, field in known.items():
        if option not in given and field.default is MISSING:
            raise CompileError(
                f"the neuron model '{name}' needs a number of {option}", hint=f"Give {option} (--{option})."
            )
    return model(**given)


def spiking_neuron(operator: str) -> type[NeuronModel] | None:
    """The neuron model that has an operator of this name."""
    models = NEURON_MODELS.values()
    return next((model for model in models if operator in {own.name for own in model.operators()}), None)
