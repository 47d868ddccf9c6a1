"""Effective time steps of a network at given levels, from its graph.

`pascalc.energy` has the two estimators; this module reads what they need from a network with explicit QCFS activations:
for every activation the linear layers whose sums reach it, and the activations whose spikes these layers see.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_graphsurgeon as gs

from pascalc import energy
from pascalc.al.metrics import Histogram
from pascalc.graph import Model, is_constant, is_ours, producer
from pascalc.linear import fan_in, is_layer, macs
from pascalc.neurons import neurons
from pascalc.ops import QCFS


@dataclass(frozen=True)
class FedLayer:
    """An activation and what feeds it.

    Attributes:
        name: its label.
        levels: its L in the source.
        fan_in: inputs of one output of the linear layer that feeds it, the largest where several do (the branches of a
            residual block); at least 1.
        macs: multiply-accumulates for one sample of all layers that feed it; at least 1.
        neurons: activations for one sample; 0 where shapes are not known.
        sources: labels of the activations whose spikes reach it, through these layers or past them; empty where its
            input is analog.
    """

    name: str
    levels: int
    fan_in: int
    macs: int
    neurons: int
    sources: tuple[str, ...]

    def at(self, levels: Mapping[str, int], rates: Mapping[str, float] | None = None) -> energy.Layer:
        """The layer as the estimators take it.

        Args:
            levels: L of every activation, by label.
            rates: spikes a neuron over all steps, by label; None assumes the paper's for all.
        """
        rate: float | None = None
        if self.sources:
            seen = [energy.ASSUMED_SPIKE_RATE if rates is None else rates[name] for name in self.sources]
            rate = sum(seen) / len(seen)
        return energy.Layer(
            name=self.name,
            fan_in=self.fan_in,
            macs=self.macs,
            neurons=self.neurons,
            levels=levels[self.name],
            steps_in=max((levels[name] for name in self.sources), default=1),
            spike_rate=rate,
        )

    def paper_steps(self, levels: int) -> float:
        """The layer's own term r_E * L of T_eff by the paper's estimator (PASCAL, section 4.2)."""
        operations = energy.neuron_operations(levels, levels)
        return energy.relative_cost(self.fan_in, levels, energy.ASSUMED_SPIKE_RATE, operations) * levels


@dataclass(frozen=True)
class Steps:
    """Effective time steps of one network at one plan, by both estimators (never compare one with the other).

    Attributes:
        mean_levels: the mean L over the layers: time steps without the neurons' own cost.
        paper: T_eff of PASCAL, section 4.2, which assumes 0.75 spikes a neuron.
        full: T_eff with every layer's own steps in and spike rate.
        rates: where these spike rates come from.
    """

    mean_levels: float
    paper: float
    full: float
    rates: str


def fed_layers(model: Model) -> list[FedLayer]:
    """What feeds each QCFS activation of a network with shapes, in the order of the graph."""
    found = []
    for neuron in neurons(model):
        layers, direct = _back(neuron.node.inputs[0], through_layers=False)
        sources = dict.fromkeys(direct)
        for layer in layers:
            sources.update(dict.fromkeys(_back(layer.inputs[0], through_layers=True)[1]))
        shape = list(neuron.node.outputs[0].shape or ())[1:]
        found.append(
            FedLayer(
                name=neuron.name,
                levels=neuron.levels,
                fan_in=max((fan_in(layer) for layer in layers), default=1),
                macs=max(1, sum(macs(layer) or 0 for layer in layers)),
                neurons=prod(shape) if all(isinstance(d, int) for d in shape) else 0,
                sources=tuple(sources),
            )
        )
    return found


def effective_steps(
    layers: list[FedLayer], levels: Mapping[str, int], histograms: Mapping[str, Histogram] | None = None
) -> Steps:
    """Both estimates of T_eff at a plan's levels.

    Args:
        layers: as `fed_layers` gives them.
        levels: L of every activation, by label.
        histograms: level histograms by label, measured at the network's own levels: a layer's spike rate at other
            levels is taken to be the mean count times the ratio of the levels. None assumes the paper's rate.
    """
    rates = None
    if histograms is not None:
        rates = {name: mean_count(h) * levels[name] / h.levels for name, h in histograms.items()}
    rows = [layer.at(levels, rates) for layer in layers]
    return Steps(
        mean_levels=sum(levels[layer.name] for layer in layers) / len(layers),
        paper=energy.effective_steps_paper(rows).mean,
        full=energy.effective_steps_full(rows).mean,
        rates=f"{energy.ASSUMED_SPIKE_RATE} spikes a neuron assumed" if rates is None else "spike rates of its levels",
    )


def mean_count(histogram: Histogram) -> float:
    """Spikes of a neuron over all steps, on average."""
    return float(histogram.counts @ np.arange(histogram.levels + 1.0)) / max(1, histogram.samples)


def _back(tensor: gs.Tensor, through_layers: bool) -> tuple[list[gs.Node], list[str]]:
    """The nearest linear layers that a tensor's values come from, and the activations met on other ways back."""
    layers: list[gs.Node] = []
    labels: list[str] = []
    stack, seen = [tensor], {id(tensor)}
    while stack:
        node = producer(stack.pop())
        if node is None:
            continue
        if is_ours(node, QCFS.name):
            labels.append(node.attrs["label"])
        elif is_layer(node) and not through_layers:
            layers.append(node)
        else:
            for needed in node.inputs:
                if not is_constant(needed) and id(needed) not in seen:
                    seen.add(id(needed))
                    stack.append(needed)
    return layers, labels
