"""A correction of requantised activations: a shift of the pre-activation and another threshold, one value a channel.

The shift goes into a bias that is there anyway: of the BatchNormalization, the linear layer or the addition before the
activation, or through a MaxPool; only where none can take it, an addition stays in front of the activation. What the
numbers are is decided in pascalc/planning/correction.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from pascalc.activations import is_activation, to_qcfs
from pascalc.errors import CompileError
from pascalc.graph import Model, has_tensor, is_constant, is_operator, producer, set_input, sort
from pascalc.linear import is_layer, output_channels, shift_layer
from pascalc.operators import operator
from pascalc.passes.base import Pass
from pascalc.passes.facts import QCFS, Fact

Values = NDArray[Any]


@dataclass(frozen=True)
class ApplyCorrection(Pass):
    """Shift the pre-activations of QCFS activations and set their thresholds.

    Args:
        shifts: by label, what is added to the pre-activation, shaped to broadcast against a sample: a scalar, or
            ``[C, 1, ...]``.
        thresholds: by label, the new theta > 0, shaped likewise.
        method: how they were found, in words, for the file's metadata.
        levels: by label, the L that they were found at; elsewhere they mean nothing.
    """

    shifts: Mapping[str, Values]
    thresholds: Mapping[str, Values]
    method: str = "shifts and thresholds that were given"
    levels: Mapping[str, int] = field(default_factory=dict)

    requires: ClassVar[frozenset[Fact]] = frozenset({QCFS})

    def run(self, model: Model) -> int:
        nodes = {node.attrs["label"]: node for node in model.graph.nodes if is_activation(node)}
        for name in (*self.shifts, *self.thresholds):
            if name not in nodes:
                raise CompileError(
                    f"the correction names '{name}', which is no QCFS activation of this network", file=model.file
                )
        for name, fitted in self.levels.items():
            if name in nodes and nodes[name].attrs["levels"] != fitted:
                levels = nodes[name].attrs["levels"]
                raise CompileError(
                    f"the correction was fitted at L = {fitted}, and the network is compiled at {levels}",
                    file=model.file,
                    node=name,
                    hint="Fit one at these levels, or compile at those of the correction.",
                )
        for name, threshold in self.thresholds.items():
            if not np.all(np.isfinite(threshold)) or not np.all(threshold > 0):
                raise CompileError("a corrected threshold is not positive", file=model.file, node=name)
            to_qcfs(model, nodes[name])
            dtype = nodes[name].inputs[1].dtype
            set_input(nodes[name], 1, model.constant(f"{name}/threshold", np.asarray(threshold).astype(dtype)))
        for name, shift in self.shifts.items():
            node = nodes[name]
            if not _absorb(model, node.inputs[0], np.asarray(shift, np.float64)):
                _insert(model, node, np.asarray(shift))
        sort(model)
        return len({*self.shifts, *self.thresholds})


def _absorb(model: Model, tensor: gs.Tensor, shift: NDArray[np.float64]) -> bool:
    """Add the shift to a bias before the tensor; says whether there was one."""
    node = producer(tensor)
    if node is None or len(tensor.outputs) != 1 or model.is_output(tensor):
        return False
    rank = len(tensor.shape or ())
    if not (shift.size == 1 or (shift.ndim == rank - 1 and shift.shape[0] == shift.size)):
        return False
    values = shift.reshape(-1)
    if is_operator(node, "BatchNormalization") and is_constant(node.inputs[2]):
        bias = node.inputs[2]
        set_input(node, 2, model.constant(bias.name, (bias.values + values).astype(bias.dtype)))
        return True
    if is_layer(node) and is_operator(node, "Conv", "ConvTranspose", "Gemm"):
        if has_tensor(node, 2) and not is_constant(node.inputs[2]):
            return False
        shift_layer(model, node, np.broadcast_to(values, output_channels(node)))
        return True
    if operator(node).shift:
        return _absorb(model, node.inputs[0], shift)
    if is_operator(node, "Add"):
        for index, operand in enumerate(node.inputs):
            if is_constant(operand):
                set_input(node, index, model.constant(operand.name, (operand.values + shift).astype(operand.dtype)))
                return True
        same = [t for t in node.inputs if not is_constant(t) and t.shape == tensor.shape]
        return any(_absorb(model, operand, shift) for operand in same)
    return False


def _insert(model: Model, node: gs.Node, shift: Values) -> None:
    before, label = node.inputs[0], node.attrs["label"]
    constant = model.constant(f"{label}/shift", shift.astype(node.inputs[1].dtype))
    shifted = model.variable(f"{label}/shifted", before)
    name = model.unique_name(f"{label}/Shift")
    model.graph.nodes.append(gs.Node("Add", name, inputs=[before, constant], outputs=[shifted]))
    node.inputs[0] = shifted
