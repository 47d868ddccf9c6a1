"""Neurons whose thresholds are given one by one (pascalc/ops/multi_threshold.py)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pascalc.ops import MULTI_THRESHOLD, MULTI_THRESHOLD_IF
from pascalc.runtime.kernels.common import Events, FloatArray, Kernel


def multi_threshold(x: FloatArray, thresholds: FloatArray, unit: FloatArray, *, levels: int, phi: float) -> FloatArray:
    """The activation: how many thresholds x has reached, times unit. NaN reaches none.

    Args:
        x: pre-activations, float32 ``[N, d...]``.
        thresholds: ascending, ``[levels, 1, d...]``, each of the ``d`` its size or 1.
        unit: the height of a level, a scalar or shaped to broadcast against a sample ``[d...]``.
        levels: L, the number of thresholds.
        phi: of the QCFS that comes nearest; it changes nothing.

    Returns:
        Activations, float32 in the shape of ``x``, C-contiguous.

    Raises:
        ValueError: a wrong dtype, or a shape that does not fit.
    """
    _check(x, thresholds, unit, levels, 1, levels)
    count = np.zeros(x.shape, np.int16)
    for threshold in thresholds:
        count += x >= threshold
    with np.errstate(all="ignore"):
        return np.multiply(count.astype(x.dtype), unit, order="C")


def multi_threshold_if(
    x: FloatArray, thresholds: FloatArray, unit: FloatArray, *, levels: int, steps_in: int, steps_out: int, phi: float
) -> FloatArray:
    """The spiking neuron: S = x[1] + ... + x[T_in], in order; s[t] = (S >= thresholds[t]); y[t] = s[t] * unit.

    Args:
        x: input currents, float32 ``[steps_in*N, d...]``.
        thresholds: ascending, ``[levels, 1, d...]``, each of the ``d`` its size or 1.
        unit: the height of a spike, a scalar or shaped to broadcast against a sample ``[d...]``.
        levels: L, the number of thresholds.
        steps_in: time steps of ``x``.
        steps_out: time steps of the emitted train: L.
        phi: of the QCFS that comes nearest; it changes nothing.

    Returns:
        The spike train, float32 ``[steps_out*N, d...]``, C-contiguous: unit where the neuron fires, else 0.

    Raises:
        ValueError: a wrong dtype, a shape that does not fit, or an attribute below 1.
    """
    currents = _currents(x, thresholds, unit, levels, steps_in, steps_out)
    train = np.empty((levels, *currents.shape[1:]), x.dtype)
    with np.errstate(all="ignore"):
        total = currents[0]
        for current in currents[1:]:
            total = total + current
        for spikes, threshold in zip(train, thresholds, strict=True):
            np.multiply(total >= threshold, unit, out=spikes, dtype=x.dtype)
    return train.reshape(levels * currents.shape[1], *x.shape[1:])


def multi_threshold_if_staged(
    x: FloatArray, thresholds: FloatArray, unit: FloatArray, *, levels: int, steps_in: int, steps_out: int, phi: float
) -> tuple[FloatArray, Events]:
    """The spiking neuron step by step, in the three stages of PASCAL, with the distance to the next threshold in the
    place of theta/L. With S the sum so far, c the spikes so far, tau_0 = -inf and tau_(L+1) never reached:

    1. T_in steps: S += x[t]; c += 1 if S >= tau_(c+1).
    2. max(T_in, L) - 1 steps without input: c += 1 if S >= tau_(c+1); c -= 1 (inhibitory) if S < tau_c, or S is NaN.
    3. y[t] = unit if t <= c, else 0, for t = 1..L.

    The train is that of :func:`multi_threshold_if`. Args and errors are, too; the :class:`Events` come with it.
    """
    currents = _currents(x, thresholds, unit, levels, steps_in, steps_out)
    shape = currents.shape[1:]
    table = np.broadcast_to(thresholds, (levels, 1, *shape[1:]))
    count = np.zeros(shape, np.int16)
    total = np.zeros(shape, x.dtype)
    excitatory = inhibitory = 0

    def reached(number: NDArray[np.int16]) -> NDArray[np.bool_]:
        """Whether the sum has reached the threshold of this number, from 1 on."""
        rows = np.clip(number - 1, 0, levels - 1)[np.newaxis].astype(np.intp)
        tau = np.take_along_axis(np.broadcast_to(table, (levels, *shape)), rows, axis=0)[0]
        return np.asarray(total >= tau)

    with np.errstate(all="ignore"):
        for t, current in enumerate(currents):
            total = total + current if t else current
            up = (count < levels) & reached(count + np.int16(1))
            count += up
            excitatory += int(np.count_nonzero(up))
        for _ in range(max(steps_in, levels) - 1):
            up = (count < levels) & reached(count + np.int16(1))
            down = (count > 0) & ~reached(count)
            if not up.any() and not down.any():
                break
            count += up
            count -= down
            excitatory += int(np.count_nonzero(up))
            inhibitory += int(np.count_nonzero(down))
        fires = count >= np.arange(1, levels + 1).reshape(-1, *[1] * count.ndim)
        train = np.multiply(fires, unit, dtype=x.dtype, order="C")
    events = Events(count.size, excitatory, inhibitory, int(np.count_nonzero(fires)))
    return train.reshape(levels * shape[0], *x.shape[1:]), events


def _currents(
    x: FloatArray, thresholds: FloatArray, unit: FloatArray, levels: int, steps_in: int, steps_out: int
) -> FloatArray:
    """The currents by step, ``[steps_in, N, d...]``."""
    _check(x, thresholds, unit, levels, steps_in, steps_out)
    return x.reshape(steps_in, x.shape[0] // steps_in, *x.shape[1:])


def _check(x: FloatArray, thresholds: FloatArray, unit: FloatArray, levels: int, steps_in: int, steps_out: int) -> None:
    if x.dtype not in (np.float32, np.float64) or thresholds.dtype != x.dtype or unit.dtype != x.dtype:
        types = f"{x.dtype}, {thresholds.dtype} and {unit.dtype}"
        raise ValueError(f"X, thresholds and unit must be float32, or all float64, not {types}")
    if min(levels, steps_in) < 1 or steps_out != levels:
        numbers = f"{levels}, {steps_in}, {steps_out}"
        raise ValueError(f"levels and steps_in must be at least 1, and steps_out must be levels, not {numbers}")
    if x.ndim == 0 or x.shape[0] % steps_in:
        raise ValueError(f"the first axis of X {list(x.shape)} does not hold {steps_in} time steps")
    one = (1, *x.shape[1:])
    if thresholds.shape[:2] != (levels, 1) or not _broadcasts(thresholds.shape[1:], one):
        raise ValueError(f"thresholds {list(thresholds.shape)} are not {levels} for samples {list(x.shape[1:])}")
    if not _broadcasts(unit.shape, one):
        raise ValueError(f"unit {list(unit.shape)} does not broadcast against a sample {list(x.shape[1:])}")


def _broadcasts(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return len(shape) <= len(wanted) and all(
        a in (1, b) for a, b in zip(reversed(shape), reversed(wanted), strict=False)
    )


KERNEL = Kernel(MULTI_THRESHOLD, multi_threshold)
SPIKING_KERNEL = Kernel(MULTI_THRESHOLD_IF, multi_threshold_if, multi_threshold_if_staged)
