"""Labels of neurons: what everything that is said of a neuron is filed under, so no two neurons may share one."""

from __future__ import annotations

from pascalc.errors import CompileError
from pascalc.graph import Model
from pascalc.neurons import Neuron


def distinct(model: Model, found: list[Neuron]) -> list[Neuron]:
    """The neurons of a network, if their labels differ.

    Raises:
        CompileError: two neurons have one label.
    """
    seen: set[str] = set()
    for neuron in found:
        if neuron.name in seen:
            raise CompileError(
                "two layers of neurons have this label",
                file=model.file,
                node=neuron.name,
                hint="Compile the source network again, or give each neuron a label of its own.",
            )
        seen.add(neuron.name)
    return found
