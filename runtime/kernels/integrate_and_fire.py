"""The plain integrate-and-fire neuron (pascalc/ops/integrate_and_fire.py)."""

from __future__ import annotations

import numpy as np

from pascalc.ops import IntegrateAndFire
from pascalc.runtime.kernels.common import Events, FloatArray, Kernel, blocks, prepare


def integrate_and_fire(
    x: FloatArray, threshold: FloatArray, *, levels: int, steps_in: int, steps_out: int, phi: float
) -> FloatArray:
    """The integrate-and-fire neuron with soft reset: see :func:`integrate_and_fire_counted`."""
    return integrate_and_fire_counted(x, threshold, levels=levels, steps_in=steps_in, steps_out=steps_out, phi=phi)[0]


def integrate_and_fire_counted(
    x: FloatArray, threshold: FloatArray, *, levels: int, steps_in: int, steps_out: int, phi: float
) -> tuple[FloatArray, Events]:
    """The integrate-and-fire neuron with soft reset, and its spikes.

        S_t = S_{t-1} + x[t]                u_t = S_t * (T/threshold) + phi
        s[t] = (u_t >= c_{t-1} + 1)         c_t = c_{t-1} + s[t]            y[t] = s[t] * threshold/T

    All arithmetic is that of x's type; u takes two roundings. NaN does not fire.

    Args:
        x: input currents, float32 ``[steps_in*N, d...]``.
        threshold: theta > 0, float32, a scalar or shaped to broadcast against a sample ``[d...]``.
        levels: L of the activation that it stands for; it changes nothing.
        steps_in: T, time steps of ``x``.
        steps_out: T, time steps of the train: the same.
        phi: the membrane at the start, in units of threshold/T.

    Returns:
        The spike train, float32 ``[steps_out*N, d...]``, C-contiguous, and the events: every spike is excitatory.

    Raises:
        ValueError: a wrong dtype, a shape that does not fit, an attribute below 1, or two numbers of steps.
    """
    if steps_in != steps_out:
        raise ValueError(f"an IF neuron sends as many steps as it gets, not {steps_out} for {steps_in}")
    currents, gain, unit = prepare(x, threshold, levels, steps_in, steps_out, most=steps_out)
    size, kind = currents.shape[1], x.dtype.type
    train = np.empty((steps_out, size), kind)
    spikes = 0
    with np.errstate(all="ignore"):
        for block, neurons in blocks(size, gain):
            total, count = np.zeros((2, currents[:, block].shape[1]), kind)
            for t, current in enumerate(currents[:, block]):
                total = total + current
                fires = total * gain[neurons] + kind(phi) >= count + 1
                count += fires
                np.multiply(fires, unit[neurons], out=train[t, block])
            spikes += int(count.sum(dtype=np.float64))
    return train.reshape(x.shape), Events(size, spikes, 0, spikes)


KERNEL = Kernel(IntegrateAndFire.operator, integrate_and_fire, integrate_and_fire_counted)
