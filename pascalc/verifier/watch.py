"""What the neurons of the compiled network did: checked by itself, and then made small.

A neuron must fire, for the current that it really got, what its model's kernel fires, to the bit; and what it sends
must be a train of its code. That needs the trains whole. All else needs the sums of the currents and the counts alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pascalc.codes import UNIT, Weighting
from pascalc.graph import Array
from pascalc.neurons import Neuron
from pascalc.runtime.kernels import KERNELS
from pascalc.verifier.networks import Values, encode
from pascalc.verifier.pairing import Layer


@dataclass(frozen=True)
class Watched:
    """One layer in one batch.

    Attributes:
        current: the sum of its current over time; None where it is not known.
        counts: its spike counts, behind the MaxPools that moved behind it; -1 where the values are no spikes. None
            where they are not known.
        misfired: values of its train that are not what the kernel gives for its current.
        not_binary: values of the train behind the pools that are not those of a train of its code.
        problem: why something is not known, or an empty text.
    """

    current: Array | None = None
    counts: Array | None = None
    misfired: int = 0
    not_binary: int = 0
    problem: str = ""


def watch(layer: Layer, seen: Values, fed: Mapping[str, Array]) -> Watched:
    """A layer, from the tensors of the compiled network; ``fed`` is what users of cut tensors got instead."""
    current = fed.get(layer.current, seen.get(layer.current))
    fired, train = seen.get(layer.fired), seen.get(layer.train)
    if current is None or fired is None or train is None:
        return Watched(problem="its current and its spikes could not be measured")
    neuron = layer.compiled
    kernel = KERNELS[neuron.node.op]
    try:
        right = kernel.run(current, *neuron.parameters, **{name: neuron.node.attrs[name] for name in kernel.attributes})
    except ValueError as error:
        return Watched(problem=f"it cannot be computed: {error}")
    if right.shape != fired.shape:
        return Watched(problem=f"it gives the shape {list(fired.shape)}, not {list(right.shape)}")
    different = right != fired
    if different.any():
        different &= ~(np.isnan(right) & np.isnan(fired))
    misfired = int(np.count_nonzero(different))
    counts, not_binary = counts_of(neuron, train)
    if counts is None:
        return Watched(problem=f"its train has the type {train.dtype} and the shape {list(train.shape)}")
    steps, reads = neuron.steps_in, None if neuron.model is None else neuron.model.reads
    if steps > 1 and reads is not None:
        current = weighted_sum(current.reshape(steps, len(current) // steps, *current.shape[1:]), reads)
    return Watched(current, counts, misfired, not_binary)


def weighted_sum(train: Array, weighting: Weighting) -> Array:
    """The weighted sum over time of a train ``[steps, ...]``, in its own type."""
    weights = weighting.weights(len(train)).astype(train.dtype).reshape(-1, *[1] * (train.ndim - 1))
    with np.errstate(all="ignore"):
        return np.asarray((train if weighting is UNIT else train * weights).sum(axis=0))


def counts_of(neuron: Neuron, train: Array) -> tuple[Array | None, int]:
    """Counts from a train, and how many of its values are not those of a train of the neuron's code.

    Where values are no spikes at all the counts are -1; None where the train does not even hold the neuron's steps.
    """
    if train.dtype != neuron.threshold.dtype or train.ndim == 0:
        return None, 0
    try:
        if neuron.model is not None:
            code = neuron.model.code
            steps = train.reshape(neuron.steps_out, len(train) // neuron.steps_out, *train.shape[1:])
            spikes = steps != 0
            counts = code.decode(spikes).astype(np.int16)
            wrong = np.multiply(spikes, neuron.unit, dtype=train.dtype) != steps
            disorder = code.disorder(spikes)
            wrong = (wrong if disorder is None else wrong | disorder).reshape(train.shape)
        else:
            with np.errstate(all="ignore"):
                counts = np.rint(train / neuron.unit)
                counts = np.where((counts >= 0) & (counts <= neuron.most), counts, -1).astype(np.int16)
            wrong = encode(neuron, counts) != train
    except ValueError:  # steps or a threshold that do not fit
        return None, 0
    if wrong.shape != train.shape:
        return None, 0
    if not wrong.any():
        return counts, 0
    with np.errstate(invalid="ignore"):
        no_spikes = wrong & (train != 0) & (train != neuron.unit)
    by_neuron = no_spikes.reshape(-1, *counts.shape).any(axis=0) | (counts > neuron.most)
    return np.where(by_neuron, -1, counts).astype(np.int16), int(np.count_nonzero(wrong))
