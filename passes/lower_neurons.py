"""QCFS activations become spiking neurons: QCFS -> PascIF.

A PASC neuron of L levels emits a train of L time steps, whatever the length of its input [PASCAL, Algorithm 1].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pascalc import ops
from pascalc.graph import Model, is_ours
from pascalc.passes.base import Pass


@dataclass(frozen=True)
class LowerNeurons(Pass):
    """Replace every QCFS activation by the spiking neuron that emits its level as spikes."""

    requires: ClassVar[frozenset[str]] = frozenset({"qcfs"})
    provides: ClassVar[frozenset[str]] = frozenset({"neurons"})

    def run(self, model: Model) -> int:
        count = 0
        for node in model.graph.nodes:
            if is_ours(node, ops.QCFS.name):
                node.op = ops.PASC_IF.name
                node.name = model.unique_name(f"{node.attrs['label']}/{ops.PASC_IF.name}")
                # steps_in is known once time is unrolled
                node.attrs.update(steps_in=1, steps_out=node.attrs["levels"])
                count += 1
        return count
