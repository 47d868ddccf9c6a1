"""Thresholds that floats can compute with.

A neuron multiplies by L/theta and its spikes are theta/L high. Both must be normal floats of the network's type: with
an infinite L/theta every positive current fires, and below the smallest normal float digits are lost. Checked when the
levels and thresholds are those of the network that is compiled, and before thresholds are folded into weights.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from pascalc.activations import is_activation, theta
from pascalc.errors import CompileError
from pascalc.graph import Model
from pascalc.ops import NeuronModel, Pasc
from pascalc.passes.base import Pass
from pascalc.passes.facts import QCFS, THRESHOLDS, Fact


@dataclass(frozen=True)
class CheckThresholds(Pass):
    """Check that theta/L and L/theta are ordinary floats; rewrites nothing."""

    neuron: NeuronModel = field(default_factory=Pasc)

    requires: ClassVar[frozenset[Fact]] = frozenset({QCFS})
    provides: ClassVar[frozenset[Fact]] = frozenset({THRESHOLDS})

    def run(self, model: Model) -> int:
        for node in model.graph.nodes:
            if not is_activation(node):
                continue
            threshold, levels = theta(node), node.attrs["levels"]
            levels = self.neuron.most(levels, self.neuron.steps_out(levels))
            limits = np.finfo(threshold.dtype)
            low, high = levels * float(limits.tiny), min(float(limits.max), levels / float(limits.tiny))
            beyond = threshold[(threshold < low) | (threshold > high)]
            if beyond.size:
                size = "small" if beyond.flat[0] < low else "large"
                raise CompileError(
                    f"a threshold of {beyond.flat[0]:g} is too {size} for {levels} levels: theta/L or L/theta is not a "
                    f"normal {threshold.dtype.name}, and counts would be wrong",
                    file=model.file,
                    node=node.attrs["label"],
                    hint=f"It must lie from {low:.3g} to {high:.3g}: train again, or scale the layers around it.",
                )
        return 0
