"""Thresholds into the weights: theta becomes L, so that a spike is 1 and a synaptic operation a true accumulate.

(L is the count that stands for theta; neuron models that do not send L spikes for it have another, such as T.)

A neuron fires c = clip(floor(z*L/theta + phi), 0, L) spikes of height theta/L. With z' = z*L/theta computed by the
layer before (its weights and bias multiplied by L/theta) and the layer behind multiplied by theta/L, the same spikes
have height 1. Done only where every layer before and behind can take its factor: linear layers with a weight of their
own, reached through additions, pooling and shape operators alone.

Neurons whose thresholds are given one by one are left as they are: scaling would round each of them, and they are there
to be exact.

Neurons on an analog current are left as they are: the layer before them multiplies real numbers anyway, and flat
regions of an image give the same current many times over, so that one rounded weight would decide a tie in all of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from pascalc.activations import is_activation
from pascalc.graph import Model, captured, has_tensor, is_constant, is_operator, is_ours, producer, set_input
from pascalc.linear import Scale, is_layer, owns_weight, scale_layer
from pascalc.operators import Factor, operator
from pascalc.ops import NeuronModel, Pasc
from pascalc.passes.base import Pass
from pascalc.passes.facts import QCFS, THRESHOLDS, Fact


@dataclass(frozen=True)
class FoldThresholds(Pass):
    """Scale the layers around a neuron so that its threshold is L and a spike is 1, where all of them can take it."""

    neuron: NeuronModel = field(default_factory=Pasc)

    requires: ClassVar[frozenset[Fact]] = frozenset({QCFS, THRESHOLDS})

    def run(self, model: Model) -> int:
        outputs: dict[int, Scale] = {}
        inputs: dict[int, Scale] = {}
        layers: dict[int, gs.Node] = {}
        count = 0
        behind = _behind_neurons(model)
        for neuron in model.graph.nodes:
            if not is_ours(neuron, "QCFS") or id(neuron.inputs[0]) not in behind:
                continue
            theta, levels = neuron.inputs[1].values.astype(np.float64), neuron.attrs["levels"]
            most = self.neuron.most(levels, self.neuron.steps_out(levels))
            before = _layers_before(model, neuron.inputs[0], theta)
            after = _layers_behind(model, neuron.outputs[0], theta)
            if before is None or after is None:
                continue
            for layer in before:
                outputs[id(layer)] = (most / theta).reshape(-1)
                layers[id(layer)] = layer
            for layer in after:
                inputs[id(layer)] = (theta / most).reshape(-1)
                layers[id(layer)] = layer
            dtype = neuron.inputs[1].dtype
            set_input(neuron, 1, model.constant(f"{neuron.attrs['label']}/threshold", np.asarray(most, dtype)))
            count += 1
        for key, layer in layers.items():
            scale_layer(model, layer, outputs.get(key), inputs.get(key))
        return count


def _behind_neurons(model: Model) -> set[int]:
    """The tensors that depend on a neuron's output, by identity; the others are analog."""
    found: set[int] = set()
    for node in model.graph.nodes:
        if is_activation(node) or any(id(t) in found for t in (*node.inputs, *captured(node))):
            found.update(id(t) for t in node.outputs)
    return found


def _layers_before(model: Model, tensor: gs.Tensor, theta: Scale) -> list[gs.Node] | None:
    """The layers whose sum the neuron integrates, or None where one of them cannot be scaled."""
    passes = (Factor.CHANNEL,) if theta.size > 1 else (Factor.CHANNEL, Factor.SCALAR)
    found: list[gs.Node] = []
    pending = [tensor]
    while pending:
        tensor = pending.pop()
        node = producer(tensor)
        if node is None or len(tensor.outputs) != 1 or model.is_output(tensor):
            return None
        if is_layer(node):
            bias_is_own = not has_tensor(node, 2) or is_constant(node.inputs[2])
            if not (owns_weight(node) and bias_is_own and _channels_fit(node, theta)):
                return None
            found.append(node)
        elif operator(node).factor is Factor.COMMON:
            pending += node.inputs
        elif operator(node).factor in passes:
            pending.append(node.inputs[0])
        else:
            return None
    return found


def _layers_behind(model: Model, tensor: gs.Tensor, theta: Scale) -> list[gs.Node] | None:
    """The layers that the neuron's train reaches, or None where something else uses it too."""
    passes = (Factor.CHANNEL,) if theta.size > 1 else (Factor.CHANNEL, Factor.SCALAR)
    found: list[gs.Node] = []
    pending = [tensor]
    while pending:
        tensor = pending.pop()
        if model.is_output(tensor) or not tensor.outputs:
            return None
        for node in tensor.outputs:
            if node.inputs[0] is not tensor or any(t is tensor for t in node.inputs[1:]):
                return None
            if is_layer(node):
                if not owns_weight(node) or not _inputs_fit(node, theta):
                    return None
                found.append(node)
            elif operator(node).factor in passes:
                pending.append(node.outputs[0])
            else:
                return None
    return found


def _channels_fit(node: gs.Node, theta: Scale) -> bool:
    """Whether thresholds of this shape run along the layer's output channels."""
    rank = len(node.outputs[0].shape or ())
    return theta.size == 1 or (theta.ndim == rank - 1 and theta.shape[0] == theta.size and _plain(node, rank))


def _inputs_fit(node: gs.Node, theta: Scale) -> bool:
    rank = len(node.inputs[0].shape or ())
    return theta.size == 1 or (
        theta.ndim == rank - 1
        and theta.shape[0] == theta.size
        and _plain(node, rank)
        and not node.attrs.get("group", 1) > 1
    )


def _plain(node: gs.Node, rank: int) -> bool:
    return is_operator(node, "Conv", "ConvTranspose") or rank == 2
