"""What the kernels share: events, the checks of a neuron's inputs, and blocks that stay in the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pascalc.ops import Operator

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Kernel:
    """What computes an operator.

    Attributes:
        operator: the operator.
        run: takes X, the threshold and, by name, the attributes save the label; gives Y.
        staged: the same step by step, with the events inside; None where nothing happens over time.
    """

    operator: Operator
    run: Callable[..., FloatArray]
    staged: Callable[..., tuple[FloatArray, Events]] | None = None

    @property
    def attributes(self) -> list[str]:
        """The names of the attributes that it takes."""
        return [attribute.name for attribute in self.operator.attributes if attribute.name != "label"]


#: Neurons handled at a time: the block's membranes stay in the cache while its steps are summed and its spikes written.
BLOCK = 32768


@dataclass(frozen=True)
class Events:
    """What happened inside a layer of neurons: totals over its neurons and samples.

    Attributes:
        neurons: neurons times samples.
        excitatory: +1 events, in stages 1 and 2.
        inhibitory: -1 events, in stage 2; they stay inside the neuron.
        emitted: spikes sent to the next layer, in stage 3.
    """

    neurons: int = 0
    excitatory: int = 0
    inhibitory: int = 0
    emitted: int = 0

    def __add__(self, other: Events) -> Events:
        return Events(
            self.neurons + other.neurons,
            self.excitatory + other.excitatory,
            self.inhibitory + other.inhibitory,
            self.emitted + other.emitted,
        )


def prepare(
    x: FloatArray, threshold: FloatArray, levels: int, steps_in: int, steps_out: int, most: int | None = None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Checks a neuron's inputs; gives the currents ``[steps_in, neurons]``, L/threshold and threshold/L, each ``[1]``
    or one value for each neuron of whole samples, as many as fit in a block. ``most``: instead of L."""
    if x.dtype not in (np.float32, np.float64) or threshold.dtype != x.dtype:
        raise ValueError(f"X and threshold must be float32, or both float64, not {x.dtype} and {threshold.dtype}")
    if min(levels, steps_in, steps_out) < 1:
        raise ValueError(f"levels, steps_in and steps_out must be at least 1, not {levels}, {steps_in}, {steps_out}")
    if x.ndim == 0 or x.shape[0] % steps_in:
        raise ValueError(f"the first axis of X {list(x.shape)} does not hold {steps_in} time steps")
    batch, sample = x.shape[0] // steps_in, x.shape[1:]
    with np.errstate(all="ignore"):
        divisor = x.dtype.type(levels if most is None else most)
        gain, unit = divisor / threshold, threshold / divisor
    gain, unit = np.asarray(gain).reshape(threshold.shape), np.asarray(unit).reshape(threshold.shape)
    if threshold.size == 1:
        gain, unit = gain.reshape(1), unit.reshape(1)
    else:
        try:
            # One leading axis of size 1, for the batch, is let through.
            whole = [np.broadcast_to(a, (1, *sample)).reshape(-1) for a in (gain, unit)]
        except ValueError:
            raise ValueError(
                f"threshold {list(threshold.shape)} does not broadcast against a sample {list(sample)}"
            ) from None
        copies = max(1, min(batch, BLOCK // max(1, whole[0].size)))
        gain, unit = np.tile(whole[0], copies), np.tile(whole[1], copies)
    return np.ascontiguousarray(x).reshape(steps_in, -1 if x.size else 0), gain, unit


def blocks(size: int, gain: FloatArray) -> Iterator[tuple[slice, slice]]:
    """Cuts neurons 0..size into blocks; with each, where its part of a per-neuron array like ``gain`` lies."""
    if gain.size == 1:
        for start in range(0, size, BLOCK):
            yield slice(start, min(start + BLOCK, size)), slice(None)
        return
    for first in range(0, size, max(1, gain.size)):
        stop = min(gain.size, size - first)
        for start in range(0, stop, BLOCK):
            end = min(start + BLOCK, stop)
            yield slice(first + start, first + end), slice(start, end)
