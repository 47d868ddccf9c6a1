"""NumPy kernels of the neurons, one function a neuron, as pure functions on arrays of float32, or of float64 in
networks that compute in it.

Each kernel keeps the float semantics of its operator in :mod:`pascalc.ops` bit for bit, so that its spikes are those
of the ONNX function body in any runtime. The time axis is folded into the batch, step by step: ``[T*N, d...]``
reshapes to ``[T, N, d...]``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

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


def pasc_if(
    x: FloatArray, threshold: FloatArray, *, levels: int, steps_in: int, steps_out: int, phi: float
) -> FloatArray:
    """The PASC neuron in closed form.

        u = (x[1] + ... + x[T_in]) * (L/threshold) + phi        s[t] = (u >= t)        y[t] = s[t] * threshold/L

    The count, sum_t s[t], is clip(floor(u), 0, L), the level of QCFS; the train is its thermometer code. This is what
    the three stages of PASCAL (Ramesh & Srinivasan 2025, Algorithm 1) arrive at; :func:`pasc_if_staged` runs them.
    All arithmetic is that of x's type: the sum runs over the steps in order, u takes two roundings. NaN does not fire.

    Args:
        x: input currents, float32 ``[steps_in*N, d...]``.
        threshold: theta > 0, float32, a scalar or shaped to broadcast against a sample ``[d...]``.
        levels: L, at least 1.
        steps_in: time steps of ``x``.
        steps_out: time steps of the emitted train, L in PASCAL.
        phi: the membrane at the start, in units of threshold/L.

    Returns:
        The spike train, float32 ``[steps_out*N, d...]``, C-contiguous: threshold/L where the neuron fires, else 0.

    Raises:
        ValueError: a wrong dtype, a shape that does not fit, or an attribute below 1.
    """
    currents, gain, unit = _prepare(x, threshold, levels, steps_in, steps_out)
    size = currents.shape[1]
    kind = x.dtype.type
    shift = kind(phi)
    train = np.empty((steps_out, size), kind)
    membrane_buffer = np.empty(min(BLOCK, size), kind)
    fires_buffer = np.empty(min(BLOCK, size), np.bool_)
    with np.errstate(all="ignore"):
        for block, neurons in _blocks(size, gain):
            now = currents[:, block]
            membrane = membrane_buffer[: now.shape[1]]
            fires = fires_buffer[: now.shape[1]]
            if steps_in == 1:
                np.multiply(now[0], gain[neurons], out=membrane)
            else:
                np.add(now[0], now[1], out=membrane)
                for current in now[2:]:
                    np.add(membrane, current, out=membrane)
                np.multiply(membrane, gain[neurons], out=membrane)
            np.add(membrane, shift, out=membrane)
            for t, spikes in enumerate(train[:, block], start=1):
                np.greater_equal(membrane, kind(t), out=fires)
                spikes[...] = fires
                np.multiply(spikes, unit[neurons], out=spikes)
    return train.reshape(x.shape[0] // steps_in * steps_out, *x.shape[1:])


def pasc_if_staged(
    x: FloatArray, threshold: FloatArray, *, levels: int, steps_in: int, steps_out: int, phi: float
) -> tuple[FloatArray, Events]:
    """The PASC neuron step by step, in the three stages of PASCAL (Ramesh & Srinivasan 2025, Algorithm 1).

    The paper's membrane is phi*theta* + sum(x) - c*theta*, with theta* = threshold/L and c the spikes so far. Here it
    is the pair of the prefix sum S and the integer counter c, so that no rounding piles up:

        u_t = S_t * (L/threshold) + phi        mem >= theta*  <=>  u_t >= c + 1        mem < 0  <=>  u_t < c

    1. T_in steps: S_t = S_{t-1} + x[t]; c += 1 if u_t >= c + 1.
    2. max(T_in, L) - 1 steps without input: c += 1 if u >= c + 1; c -= 1 (inhibitory) if u < c.
    3. y[t] = threshold/L if t <= c, else 0, for t = 1..T_out.

    The train equals that of :func:`pasc_if` for every input. Two things the paper leaves open make it so: a NaN
    membrane counts as u < c, so that the spikes that came before it are taken back, and stage 2 is long enough for
    steps_out where that is more than both T_in and L.

    Args, returns and errors are those of :func:`pasc_if`, and the :class:`Events` come with the train.
    """
    currents, gain, unit = _prepare(x, threshold, levels, steps_in, steps_out)
    size, kind = currents.shape[1], x.dtype.type
    train = np.empty((steps_out, size), kind)
    silent_steps = max(steps_in, levels, steps_out) - 1
    # The narrowest type that holds a counter and one more: it stays in -silent_steps..steps_in + silent_steps.
    counter: type[np.signedinteger[Any]] = np.int16 if steps_in + silent_steps + 1 < 2**15 else np.int32
    events = Events()
    with np.errstate(all="ignore"):
        for block, neurons in _blocks(size, gain):
            now, scale = currents[:, block], gain[neurons]
            count: NDArray[np.signedinteger[Any]] = np.zeros(now.shape[1], counter)
            total = u = np.zeros(now.shape[1], kind)
            excitatory = inhibitory = 0
            for t, current in enumerate(now):
                total = total + current if t else current
                u = total * scale + kind(phi)
                up = u >= count + 1
                count += up
                excitatory += int(np.count_nonzero(up))
            for _ in range(silent_steps):
                up = u >= count + 1
                down = ~(u >= count)
                ups, downs = int(np.count_nonzero(up)), int(np.count_nonzero(down))
                if not ups and not downs:
                    break  # without input and without an event the neurons stay as they are
                count += up
                count -= down
                excitatory += ups
                inhibitory += downs
            fires = count >= np.arange(1, steps_out + 1)[:, np.newaxis]
            np.multiply(fires, unit[neurons], out=train[:, block])
            events += Events(now.shape[1], excitatory, inhibitory, int(np.count_nonzero(fires)))
    return train.reshape(x.shape[0] // steps_in * steps_out, *x.shape[1:]), events


def qcfs(x: FloatArray, threshold: FloatArray, *, levels: int, phi: float) -> FloatArray:
    """The quantisation-clip-floor-shift activation (Bu et al., ICLR 2022), with phi = 1/2 there.

        y = clip(floor(x * (L/threshold) + phi), 0, L) * threshold/L

    All arithmetic is that of x's type, with two roundings before the floor. NaN stays NaN.

    Args:
        x: pre-activations, float32 ``[N, d...]``.
        threshold: theta > 0, float32, a scalar or shaped to broadcast against a sample ``[d...]``.
        levels: L, at least 1.
        phi: the shift before the floor.

    Returns:
        Activations, float32 in the shape of ``x``, C-contiguous.

    Raises:
        ValueError: a wrong dtype, a shape that does not fit, or levels below 1.
    """
    (values,), gain, unit = _prepare(x, threshold, levels, 1, 1)
    kind = x.dtype.type
    shift = kind(phi)
    y = np.empty(values.size, kind)
    with np.errstate(all="ignore"):
        for block, neurons in _blocks(values.size, gain):
            level = y[block]
            np.multiply(values[block], gain[neurons], out=level)
            np.add(level, shift, out=level)
            np.floor(level, out=level)
            np.clip(level, kind(0), kind(levels), out=level)
            np.multiply(level, unit[neurons], out=level)
    return y.reshape(x.shape)


def _prepare(
    x: FloatArray, threshold: FloatArray, levels: int, steps_in: int, steps_out: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Checks a neuron's inputs; gives the currents ``[steps_in, neurons]``, L/threshold and threshold/L, each ``[1]``
    or one value for each neuron of whole samples, as many as fit in a block."""
    if x.dtype not in (np.float32, np.float64) or threshold.dtype != x.dtype:
        raise ValueError(f"X and threshold must be float32, or both float64, not {x.dtype} and {threshold.dtype}")
    if min(levels, steps_in, steps_out) < 1:
        raise ValueError(f"levels, steps_in and steps_out must be at least 1, not {levels}, {steps_in}, {steps_out}")
    if x.ndim == 0 or x.shape[0] % steps_in:
        raise ValueError(f"the first axis of X {list(x.shape)} does not hold {steps_in} time steps")
    batch, sample = x.shape[0] // steps_in, x.shape[1:]
    with np.errstate(all="ignore"):
        gain, unit = x.dtype.type(levels) / threshold, threshold / x.dtype.type(levels)
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


def _blocks(size: int, gain: FloatArray) -> Iterator[tuple[slice, slice]]:
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


#: The closed form of every neuron, by its operator; it takes X, the threshold and the attributes save the label.
CLOSED_FORMS: Mapping[str, Callable[..., FloatArray]] = {"PascIF": pasc_if, "QCFS": qcfs}
