"""MaxPool behind the neuron.

An activation is monotone, so QCFS(max(z)) = max(QCFS(z)): a MaxPool between a linear layer and a neuron computes the
same behind the neuron. There it works on spikes: where a train is a thermometer code (all spikes first), the maximum of
trains is an OR of spikes in every time step. In codes of which that is not true it stays where it is, and is computed
on sums.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import onnx_graphsurgeon as gs

from pascalc.activations import is_activation, is_per_channel
from pascalc.graph import Model, is_operator, producer, sort
from pascalc.linear import is_batched
from pascalc.ops import NeuronModel, Pasc
from pascalc.passes.base import Pass
from pascalc.passes.facts import QCFS, Fact


@dataclass(frozen=True)
class SinkMaxpool(Pass):
    """Move a MaxPool that feeds only a neuron behind that neuron."""

    neuron: NeuronModel = field(default_factory=Pasc)

    requires: ClassVar[frozenset[Fact]] = frozenset({QCFS})

    def run(self, model: Model) -> int:
        if not self.neuron.code.maximum_by_step:
            return 0
        count = 0
        for neuron in model.graph.nodes:
            if not is_activation(neuron):
                continue
            pool = producer(neuron.inputs[0])
            while is_operator(pool, "MaxPool") and _feeds_only(model, neuron, pool):
                before, between, after = pool.inputs[0], pool.outputs[0], neuron.outputs[0]
                pool.inputs[0] = between
                between.shape = before.shape
                neuron.inputs[0] = before
                pool.outputs[0] = after
                neuron.outputs[0] = between
                count += 1
                pool = producer(neuron.inputs[0])
        sort(model)
        return count


def _pools_spikes(pool: gs.Node) -> bool:
    """Whether what it pools is a train already; another neuron's pools stay where they are."""
    source = producer(pool.inputs[0])
    while is_operator(source, "MaxPool"):
        source = producer(source.inputs[0])
    return is_activation(source)


def _feeds_only(model: Model, neuron: gs.Node, pool: gs.Node) -> bool:
    between = pool.outputs[0]
    return (
        len(pool.outputs) == 1
        and is_batched(between)  # else it would be computed on sums
        and not _pools_spikes(pool)
        and len(between.outputs) == 1
        and not model.is_output(between)
        # a window takes the maximum within a channel, so the whole channel must have one threshold
        and is_per_channel(neuron, len(pool.inputs[0].shape or ()))
    )
