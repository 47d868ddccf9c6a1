"""The PASC neuron (pascalc/ops/pasc.py)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pascalc.ops import PASC_IF
from pascalc.runtime.kernels.common import BLOCK, Events, FloatArray, Kernel, blocks, prepare


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
    currents, gain, unit = prepare(x, threshold, levels, steps_in, steps_out)
    size = currents.shape[1]
    kind = x.dtype.type
    shift = kind(phi)
    train = np.empty((steps_out, size), kind)
    membrane_buffer = np.empty(min(BLOCK, size), kind)
    fires_buffer = np.empty(min(BLOCK, size), np.bool_)
    with np.errstate(all="ignore"):
        for block, neurons in blocks(size, gain):
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
    currents, gain, unit = prepare(x, threshold, levels, steps_in, steps_out)
    size, kind = currents.shape[1], x.dtype.type
    train = np.empty((steps_out, size), kind)
    silent_steps = max(steps_in, levels, steps_out) - 1
    # The narrowest type that holds a counter and one more: it stays in -silent_steps..steps_in + silent_steps.
    counter: type[np.signedinteger[Any]] = np.int16 if steps_in + silent_steps + 1 < 2**15 else np.int32
    events = Events()
    with np.errstate(all="ignore"):
        for block, neurons in blocks(size, gain):
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


KERNEL = Kernel(PASC_IF, pasc_if, pasc_if_staged)
