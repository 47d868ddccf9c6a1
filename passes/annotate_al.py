"""The levels of a plan, written onto the QCFS activations.

    theta * clip(floor(z*L/theta + phi)/L, 0, 1)   ->   theta * clip(floor(z*L'/theta + phi)/L', 0, 1)

theta stays: the activation keeps its range and is requantised to L' levels. This is the one pass that changes the
function of the network [PASCAL, sec. 3.3]; what follows is lossless again, with respect to the requantised network.
A quantiser that rounds half to even is at other levels the QCFS that comes nearest, which rounds halves up.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from pascalc.activations import is_activation, to_qcfs
from pascalc.al.histograms import METADATA_KEY
from pascalc.al.metrics import check_levels
from pascalc.errors import CompileError
from pascalc.graph import Model
from pascalc.passes.base import Pass
from pascalc.passes.facts import QCFS, Fact


@dataclass(frozen=True)
class AnnotateAl(Pass):
    """Give every QCFS activation that a plan names the plan's levels.

    Args:
        levels: the new L, in 1..255, by label; activations that are not named keep theirs.
    """

    levels: Mapping[str, int]

    requires: ClassVar[frozenset[Fact]] = frozenset({QCFS})

    def run(self, model: Model) -> int:
        nodes = {node.attrs["label"]: node for node in model.graph.nodes if is_activation(node)}
        unknown = [name for name in self.levels if name not in nodes]
        if unknown:
            near = difflib.get_close_matches(str(unknown[0]), nodes, n=1, cutoff=0)
            raise CompileError(
                f"the plan names {', '.join(map(repr, unknown))}, which is no QCFS activation of this network",
                file=model.file,
                hint=f"Its activations are: {', '.join(nodes) or 'none'}." + (f" Is it '{near[0]}'?" if near else ""),
            )
        changed = 0
        for name, levels in self.levels.items():
            check_levels(levels, node=name)
            if nodes[name].attrs["levels"] != levels:
                to_qcfs(model, nodes[name])
                nodes[name].attrs["levels"] = levels
                changed += 1
        if changed:  # the histograms that the file may carry are of the old levels
            model.metadata.pop(METADATA_KEY, None)
        return changed
