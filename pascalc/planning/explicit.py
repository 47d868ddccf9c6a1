"""QCFS activations written out in standard operators, so that a run can look inside them or set their parameters.

    u = clip(floor((z + shift)*(L/theta) + phi), 0, L),   h = u*(theta/L)

with the operations, and so the float rounding, of the QCFS operator; ``shift`` is there only where it is an input.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from pascalc.graph import Model, sort
from pascalc.neurons import Neuron, neurons
from pascalc.rounding import declare


def expose_counts(model: Model) -> list[str]:
    """Make the spike counts of every activation an output of the network, with every QCFS written out.

    Args:
        model: a network with explicit QCFS activations; changed in place.

    Returns:
        The names of the outputs, uint8, shaped like the activations and in the order of `neurons`.
    """
    names = []
    for neuron in neurons(model):
        if neuron.thresholds is not None:
            divided = _append(model, neuron, "Div", [neuron.node.outputs[0], neuron.node.inputs[2]])
            count = _append(model, neuron, "Round", [divided])
        else:
            dtype = neuron.threshold.dtype
            levels = model.constant(f"{neuron.name}/levels", np.asarray(neuron.levels, dtype))
            count = _write_out(model, neuron, neuron.node.inputs[0], levels, neuron.node.inputs[1])
        out = gs.Variable(model.unique_name(f"count:{neuron.name}"), np.uint8, None)
        _append(model, neuron, "Cast", [count], out, to=int(onnx.TensorProto.UINT8))
        model.interface_outputs.append(declare(out))
        names.append(out.name)
    sort(model)
    return names


def make_adjustable(model: Model) -> dict[str, gs.Tensor]:
    """Write every activation out, as the QCFS that it is or comes nearest to, with its parameters as inputs of the
    network.

    The inputs, of the activation's float type, are ``levels:<label>``, a scalar; ``threshold:<label>``, theta; and
    ``shift:<label>``, added to the pre-activation. The last two broadcast against a sample.

    Args:
        model: a network with explicit QCFS activations; changed in place.

    Returns:
        The pre-activations, before any shift, by label.
    """
    before = {neuron.name: neuron.node.inputs[0] for neuron in neurons(model)}
    for neuron in neurons(model):
        levels, threshold, shift = (_input(model, f"{kind}:{neuron.name}", neuron) for kind in PARAMETERS)
        shifted = _append(model, neuron, "Add", [neuron.node.inputs[0], shift])
        _write_out(model, neuron, shifted, levels, threshold)
    sort(model)
    return before


#: What `make_adjustable` makes an input of the network, by the start of the input's name.
PARAMETERS = ("levels", "threshold", "shift")


def _write_out(model: Model, neuron: Neuron, z: gs.Tensor, levels: gs.Tensor, threshold: gs.Tensor) -> gs.Tensor:
    """Put operators in the place of the node; returns the tensor of spike counts."""
    node, out = neuron.node, neuron.node.outputs[0]
    node.inputs.clear()
    node.outputs.clear()
    model.graph.nodes[:] = [n for n in model.graph.nodes if n is not node]
    dtype = neuron.threshold.dtype
    phi = model.constant(f"{neuron.name}/phi", np.asarray(neuron.phi, dtype))
    zero = model.constant(f"{neuron.name}/zero", np.asarray(0, dtype))
    gain = _append(model, neuron, "Div", [levels, threshold])
    scaled = _append(model, neuron, "Mul", [z, gain])
    floored = _append(model, neuron, "Floor", [_append(model, neuron, "Add", [scaled, phi])])
    count = _append(model, neuron, "Clip", [floored, zero, levels])
    _append(model, neuron, "Mul", [count, _append(model, neuron, "Div", [threshold, levels])], out)
    return count


def _append(
    model: Model, neuron: Neuron, op: str, inputs: list[gs.Tensor], out: gs.Tensor | None = None, **attrs: Any
) -> gs.Tensor:
    if out is None:
        out = gs.Variable(model.unique_name(f"{neuron.name}/{op}"), neuron.threshold.dtype, None)
    name = model.unique_name(f"{neuron.name}/{op}_node")
    model.graph.nodes.append(gs.Node(op, name, inputs=inputs, outputs=[out], attrs=attrs))
    return out


def _input(model: Model, name: str, neuron: Neuron) -> gs.Variable:
    tensor = gs.Variable(model.unique_name(name), neuron.threshold.dtype, None)
    model.graph.inputs.append(tensor)
    model.interface_inputs.append(declare(tensor))
    return tensor
