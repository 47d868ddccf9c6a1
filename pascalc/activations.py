"""The activations of a source as operators: QCFS, which is told by theta, and the form with one threshold a level."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from pascalc import ops
from pascalc.errors import CompileError
from pascalc.graph import Array, Model, is_ours

_WITH_THRESHOLDS = (ops.MULTI_THRESHOLD.name, ops.MULTI_THRESHOLD_IF.name)


def is_activation(node: gs.Node | None) -> bool:
    """Whether the node is an activation of a source, or a neuron of a collapsed network."""
    return is_ours(node, *ops.ACTIVATIONS)


def has_thresholds(node: gs.Node | None) -> bool:
    """Whether the node, an activation or a spiking neuron, has its thresholds given one by one."""
    return is_ours(node, *_WITH_THRESHOLDS)


def theta(node: gs.Node) -> Array:
    """The threshold theta of an activation or a spiking neuron: L times the height of a level."""
    if not has_thresholds(node):
        return np.asarray(node.inputs[1].values)
    unit = node.inputs[2].values
    with np.errstate(all="ignore"):
        return np.asarray(unit * unit.dtype.type(node.attrs["levels"]))


def is_per_channel(node: gs.Node, rank: int) -> bool:
    """Whether an activation's parameters are the same within every channel of its input, which has this rank."""
    shapes = [theta(node).shape]
    if has_thresholds(node):
        shapes.append(node.inputs[1].values.shape[2:])
    return all(int(np.prod(s)) == 1 or (len(s) == rank - 1 and s[0] == np.prod(s)) for s in shapes)


def to_qcfs(model: Model, node: gs.Node) -> None:
    """Let an activation with thresholds be the QCFS that comes nearest, as where it is given other levels.

    Raises:
        CompileError: none comes near: a threshold is half a level away or more.
    """
    if has_thresholds(node):
        tau, unit = (node.inputs[index].values.astype(np.float64) for index in (1, 2))
        level = np.arange(1, len(tau) + 1).reshape(-1, *[1] * (tau.ndim - 1))
        if not np.all(np.abs(tau - (level - node.attrs["phi"]) * unit) < unit / 2):
            raise CompileError(
                "its levels are not evenly spaced from zero on, as those of QCFS are, so that it can only be compiled "
                "as it is: with its own levels, by a neuron model that takes thresholds one by one",
                file=model.file,
                node=node.attrs["label"],
                hint="Leave it out of the plan and the correction, and compile with --neuron pasc.",
            )
        threshold = model.constant(f"{node.attrs['label']}/threshold", theta(node))
        current = node.inputs[0]
        node.inputs.clear()
        node.inputs.extend([current, threshold])
        node.op = ops.QCFS.name
