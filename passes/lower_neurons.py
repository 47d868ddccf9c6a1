"""QCFS activations become spiking neurons.

The neuron model (pascalc/ops/models.py) says how many time steps a neuron of L levels wants and sends. A PASC neuron
takes a train of any length and sends L steps [PASCAL, Algorithm 1].

An activation whose thresholds are given one by one becomes the model's form with thresholds. A model that has none only
approaches the levels, and stands for the QCFS that comes nearest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import onnx_graphsurgeon as gs

from pascalc.activations import has_thresholds, is_activation, to_qcfs
from pascalc.errors import CompileError
from pascalc.graph import Model, NoteKind
from pascalc.ops import NeuronModel, Pasc
from pascalc.passes.base import Pass
from pascalc.passes.facts import NEURONS, QCFS, Fact

#: Trains this long are told: they come from quantisers of many bits, and cost as many runs of the layers behind.
_MANY_STEPS = 64


@dataclass(frozen=True)
class LowerNeurons(Pass):
    """Replace every activation by the spiking neuron that sends its level as spikes."""

    neuron: NeuronModel = field(default_factory=Pasc)

    requires: ClassVar[frozenset[Fact]] = frozenset({QCFS})
    provides: ClassVar[frozenset[Fact]] = frozenset({NEURONS})

    def run(self, model: Model) -> int:
        neuron = self.neuron
        count = 0
        longest: gs.Node | None = None
        for node in model.graph.nodes:
            if is_activation(node):
                levels = node.attrs["levels"]
                if 0 in (node.inputs[0].shape or []):
                    raise CompileError(
                        f"an activation of the shape {node.inputs[0].shape} holds no values",
                        file=model.file,
                        node=node.attrs["label"],
                        hint="Leave it out of the model, or compile with --schedule collapsed.",
                    )
                if neuron.threshold_form is None:
                    to_qcfs(model, node)
                operator = neuron.threshold_form if has_thresholds(node) else neuron.operator
                assert operator is not None
                node.op = operator.name
                node.name = model.unique_name(f"{node.attrs['label']}/{node.op}")
                # where any number of steps will do, it is known once time is unrolled
                node.attrs.update(
                    steps_in=1 if neuron.any_length else neuron.steps_out(levels),
                    steps_out=neuron.steps_out(levels),
                    phi=neuron.start(node.attrs["phi"]),
                )
                if longest is None or node.attrs["steps_out"] > longest.attrs["steps_out"]:
                    longest = node
                count += 1
        if longest is not None and longest.attrs["steps_out"] >= _MANY_STEPS:
            reason = (
                f"trains of up to {longest.attrs['steps_out']} time steps; levels of 4 bits and fewer need at most 15"
            )
            model.note(self.name(), longest.attrs["label"], reason, NoteKind.WARNING)
        return count
