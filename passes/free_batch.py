"""A batch size that the export fixed becomes dynamic, where every sample is computed by itself.

Each operator must be known to keep samples apart: its row in pascalc/operators.py says so. Its results must have the
batch in front and nowhere else. ``Reshape`` and ``Resize`` are freed of it by infer-shapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_graphsurgeon as gs

from pascalc.errors import CompileError
from pascalc.graph import BATCH, Model, captured, has_tensor, is_constant, is_ours
from pascalc.operators import Apart, operator
from pascalc.ops import OPERATORS
from pascalc.passes.base import Pass
from pascalc.passes.facts import BATCHES, QCFS, Fact
from pascalc.timing import axes_of

#: Of operators along one axis, that where none is given.
_DEFAULT_AXIS = {Apart.FIRST_AXIS: 0, Apart.LAST_AXIS: -1}


@dataclass(frozen=True)
class FreeBatch(Pass):
    """Make the batch size of the network's inputs and outputs dynamic."""

    requires: ClassVar[frozenset[Fact]] = frozenset({QCFS})
    provides: ClassVar[frozenset[Fact]] = frozenset({BATCHES})

    def run(self, model: Model) -> int:
        values = [*model.interface_inputs, *model.interface_outputs]
        fixed = [v.type.tensor_type.shape.dim[0] for v in values if v.type.tensor_type.shape.dim]
        fixed = [dim for dim in fixed if dim.HasField("dim_value")]
        if not fixed:
            return 0
        dependent = {id(t) for t in model.graph.inputs}
        for tensor in model.graph.inputs:
            _check(model, tensor, f"the input '{tensor.name}'")
        for node in model.graph.nodes:
            if any(id(t) in dependent for t in (*node.inputs, *captured(node))):
                if not _keeps_samples_apart(node):
                    raise _refusal(model, node.name or node.outputs[0].name, f"{node.op} may mix samples")
                for tensor in node.outputs:
                    dependent.add(id(tensor))
                    _check(model, tensor, f"the result of {node.op}", node.name)
        for tensor in model.graph.outputs:
            _check(model, tensor, f"the output '{tensor.name}'")
        for dim in fixed:
            dim.dim_param = BATCH
        return len(fixed)


def _keeps_samples_apart(node: gs.Node) -> bool:
    if is_ours(node, *OPERATORS):
        return True
    apart = operator(node).apart
    if captured(node) or apart is Apart.UNKNOWN:
        return False
    if apart in _DEFAULT_AXIS:
        axis, rank = node.attrs.get("axis", _DEFAULT_AXIS[apart]), len(node.inputs[0].shape or ())
        return bool(rank) and axis % rank != 0
    if apart is Apart.AXES:
        return has_tensor(node, 3) and is_constant(node.inputs[3]) and 0 not in axes_of(node, 3)
    return True


def _check(model: Model, tensor: gs.Tensor, what: str, node: str = "") -> None:
    shape = tensor.shape
    if not tensor.name or is_constant(tensor):
        return
    if not shape or shape[0] != BATCH or None in shape[1:]:
        raise _refusal(model, node or tensor.name, f"{what} does not have the batch as its first axis and nowhere else")


def _refusal(model: Model, node: str, reason: str) -> CompileError:
    return CompileError(
        f"the batch size cannot be made dynamic: {reason}",
        file=model.file,
        node=node,
        hint="Compile without --dynamic-batch, or export the network with a dynamic batch.",
    )
