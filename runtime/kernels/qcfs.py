"""QCFS, the activation (pascalc/ops/qcfs.py)."""

from __future__ import annotations

import numpy as np

from pascalc.ops import QCFS
from pascalc.runtime.kernels.common import FloatArray, Kernel, blocks, prepare


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
    (values,), gain, unit = prepare(x, threshold, levels, 1, 1)
    kind = x.dtype.type
    shift = kind(phi)
    y = np.empty(values.size, kind)
    with np.errstate(all="ignore"):
        for block, neurons in blocks(values.size, gain):
            level = y[block]
            np.multiply(values[block], gain[neurons], out=level)
            np.add(level, shift, out=level)
            np.floor(level, out=level)
            np.clip(level, kind(0), kind(levels), out=level)
            np.multiply(level, unit[neurons], out=level)
    return y.reshape(x.shape)


KERNEL = Kernel(QCFS, qcfs)
