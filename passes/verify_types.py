"""The check behind the pipeline: time types are inferred anew on the finished graph, and every rule must be content."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_graphsurgeon as gs

from pascalc.errors import CompileError
from pascalc.graph import Model, captured
from pascalc.ops import DOMAIN
from pascalc.passes.base import Pass
from pascalc.passes.facts import TIME, Fact
from pascalc.timing import Analog, Const, Declined, Held, TimeType, Train, decide, own_output, own_steps_in


@dataclass(frozen=True)
class VerifyTypes(Pass):
    """Check the time types of the unrolled network; rewrites nothing."""

    requires: ClassVar[frozenset[Fact]] = frozenset({TIME})

    def run(self, model: Model) -> int:
        types: dict[int, TimeType] = {id(t): Analog() for t in model.graph.inputs}
        for node in model.graph.nodes:
            given = tuple(types.get(id(t), Const()) for t in node.inputs)
            output = _output(model, node, given)
            inside = captured(node)
            if any(isinstance(types.get(id(t)), (Train, Held)) for t in inside):
                raise _bug(model, node.name, "a subgraph uses a train")
            types.update((id(t), Analog() if inside else output) for t in node.outputs)
        for tensor in model.graph.outputs:
            if isinstance(types.get(id(tensor)), (Train, Held)):
                raise _bug(model, tensor.name, "an output is still a train")
        return 0


def _output(model: Model, node: gs.Node, given: tuple[TimeType, ...]) -> TimeType:
    if node.domain == DOMAIN:
        if given[0].steps != own_steps_in(node):
            message = f"{node.op} declares {own_steps_in(node)} steps and gets {given[0].steps}"
            raise _bug(model, node.name, message)
        return own_output(node, given[0])
    try:
        decision = decide(model, node, given)
    except Declined as reason:
        raise _bug(model, node.name, f"{node.op} gets a train, but {reason}") from reason
    if decision.inputs != given:
        raise _bug(model, node.name, f"{node.op} gets {given}, but wants {decision.inputs}")
    return decision.output


def _bug(model: Model, node: str, message: str) -> CompileError:
    return CompileError(f"internal error of pascalc: {message}", file=model.file, node=node, hint="Please report it.")
