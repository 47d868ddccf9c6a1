"""Spike rates of whole networks. There are two, they answer different questions, and each is defined here alone.

A *layer's* rate is the spikes of one of its neurons, or of one of the entries that a linear layer reads, for one sample
and over all time steps. It may exceed 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence


def network_spike_rate(layers: Iterable[tuple[float, int]]) -> float | None:
    """The spike rate of a network: all spikes over all neurons, for one sample.

    Args:
        layers: for every layer of neurons the spikes a neuron, and the number of its neurons for one sample. A layer
            counts by its neurons.

    Returns:
        None without neurons.
    """
    counted = list(layers)
    neurons = sum(size for _, size in counted)
    return math.fsum(rate * size for rate, size in counted) / neurons if neurons else None


def mean_input_rate(rates: Sequence[float]) -> float | None:
    """b of PASCAL's energy formula: the mean over the *linear layers* that read spikes, each counting alike, of the
    spikes of one of its inputs.

    It is not :func:`network_spike_rate`: a formula that multiplies b by the MACs of all layers asks what arrives at a
    synapse, behind pooling and as often as layers read it, and not what a neuron sends.

    Args:
        rates: the rate of what each of these layers reads.

    Returns:
        None where no layer reads spikes.
    """
    return math.fsum(rates) / len(rates) if rates else None
