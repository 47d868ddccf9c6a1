"""Effective time steps of a network at given levels.

The network is unrolled at these levels, and counted by the same walk as `pascalc report` counts it (`pascalc.network`):
what is said of a plan is what the report says of the network that is compiled with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pascalc import energy, pipeline
from pascalc.al.metrics import Histogram
from pascalc.errors import CompileError
from pascalc.network import LayerNode, layout
from pascalc.passes import ANALYSIS, UNROLLED
from pascalc.passes.annotate_al import AnnotateAl
from pascalc.rates import network_spike_rate
from pascalc.source import Network, network_of


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


def fed_layers(source: Network, levels: Mapping[str, int]) -> list[LayerNode]:
    """The layers of neurons of a network at other levels, with what feeds them.

    Args:
        source: the ONNX file of the network.
        levels: L of the activations that change, by label.

    Raises:
        CompileError: the network cannot be compiled at these levels.
    """
    model = network_of(source)
    pipeline.run(model, [*ANALYSIS, AnnotateAl(levels), *UNROLLED[len(ANALYSIS) :]])
    network = layout(model)
    network.check_sizes()
    found = [layer for layer in network.layers if layer.neuron is not None]
    if not found:
        raise CompileError("this network has no QCFS activation to plan levels for", file=source)
    return found


def paper_steps(layers: Sequence[energy.Layer], levels: Mapping[str, int]) -> float:
    """T_eff by the paper's estimator, of layers that are named by their neurons, at other levels."""
    return energy.effective_steps_paper([replace(x, levels=levels[x.name]) for x in layers]).mean


def effective_steps(
    source: Network, levels: Mapping[str, int], histograms: Mapping[str, Histogram] | None = None
) -> Steps:
    """Both estimates of T_eff at a plan's levels.

    Args:
        source: the ONNX file of the network.
        levels: L of the activations that change, by label.
        histograms: level histograms by label, measured at the network's own levels: a layer's spike rate at other
            levels is taken to be the mean count times the ratio of the levels. None assumes the paper's rate.

    Raises:
        CompileError: as `fed_layers`.
    """
    layers = fed_layers(source, levels)
    own = {x.neuron.name: (x.neuron.levels, x.energy_layer(None).neurons) for x in layers if x.neuron is not None}
    rates = None
    if histograms is not None:
        rates = {name: (mean_count(h) * own[name][0] / h.levels, own[name][1]) for name, h in histograms.items()}
    rows = [layer.energy_layer(_rate_read(layer, rates)) for layer in layers]
    return Steps(
        mean_levels=sum(count for count, _ in own.values()) / len(own),
        paper=energy.effective_steps_paper(rows).mean,
        full=energy.effective_steps_full(rows).mean,
        rates=f"{energy.ASSUMED_SPIKE_RATE} spikes a neuron assumed" if rates is None else "spike rates of its levels",
    )


def _rate_read(layer: LayerNode, rates: Mapping[str, tuple[float, int]] | None) -> float:
    """Spikes of one of the layer's inputs: those of the neurons whose trains it reads, as no data says more."""
    if rates is None or not layer.sources:
        return energy.ASSUMED_SPIKE_RATE
    return network_spike_rate(rates[name] for name in layer.sources) or 0.0


def mean_count(histogram: Histogram) -> float:
    """Spikes of a neuron over all steps, on average."""
    return float(histogram.counts @ np.arange(histogram.levels + 1.0)) / max(1, histogram.samples)
