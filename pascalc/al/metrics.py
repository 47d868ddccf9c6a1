"""The AL metric: which layers can do with fewer levels, decided from histograms of spike counts.

For a layer with counts 0..L (K = L + 1 categories) let H be the histogram of its counts over a calibration
set, n = sum(H), and the count x the random variable. The AL metric of PASCAL (Ramesh & Srinivasan 2025,
section 3.3) is

    M = A * (g^2 + 1) * kurt                                                          (the metric)
    A = 1 - (S - 1) / (K - 1),  S = #{k : H_k >= alpha * n}, at least 1,
        alpha = 1 / (2 * number of layers)                                            (agreement)
    g = m3 / s^3,  m3 = sum((x - mean)^3) / n,  s^2 = sum((x - mean)^2) / (n - 1)     (skewness)
    kurt = (n+1) n / ((n-1)(n-2)(n-3)) * sum((x - mean)^4) / s^4                      (kurtosis)

g is b1 of Joanes & Gill (1998); the kurtosis is the paper's equation 5 as printed, without its usual "-3" term.
A layer whose counts are all the same (dead or saturated) has M = infinity. The higher M, the fewer levels the
layer needs: the metrics are clustered by optimal one-dimensional k-means and each cluster gets its levels.

This follows the paper, not the authors' script, which bins the data's range into 5, sets alpha = 1/bins and takes
the moments of the bin counts.

Everything is computed in exact integer and rational arithmetic. That is cheap, since a histogram has at most
256 categories, and it is needed, since with n = 10^9 and almost all counts 0 central moments taken in float64
cancel. So results depend neither on the order nor on the sharding of the calibration data.
"""

from __future__ import annotations

import math
import reprlib
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from pascalc.errors import CompileError
from pascalc.ops import MAX_LEVELS

_INT64_MAX = 2**63 - 1


@dataclass(frozen=True, eq=False)
class Histogram:
    """How often a layer emitted each spike count: exact, additive over batches, shards and machines.

    Stream over a calibration set with `total = total + Histogram.of(batch, levels)`.

    Args:
        counts: integer array of shape [L + 1], L in 1..255; entry k is how many neurons (over all samples and
            positions) had count k. Stored as a read-only int64 copy.

    Raises:
        CompileError: another shape or dtype, a negative entry, or an entry beyond int64.
    """

    counts: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        counts = np.asarray(self.counts)
        if counts.ndim != 1 or not 2 <= counts.size <= MAX_LEVELS + 1 or counts.dtype.kind not in "iu":
            raise CompileError(
                f"A histogram needs a 1-D integer array of L + 1 entries, L in 1..{MAX_LEVELS}; "
                f"got shape {list(counts.shape)} of {counts.dtype}"
            )
        if counts.min() < 0 or counts.max() > _INT64_MAX:
            raise CompileError("A histogram's entries must lie in 0..2^63-1")
        stored = counts.astype(np.int64)
        stored.flags.writeable = False
        object.__setattr__(self, "counts", stored)

    @classmethod
    def zeros(cls, levels: int) -> Histogram:
        """The histogram of no samples for a layer of `levels` levels: the start of a stream.

        Raises:
            CompileError: levels outside 1..255.
        """
        check_levels(levels)
        return cls(np.zeros(levels + 1, dtype=np.int64))

    @classmethod
    def of(cls, spike_counts: npt.NDArray[Any], levels: int) -> Histogram:
        """The histogram of one batch of spike counts.

        Args:
            spike_counts: array of any shape, integer or float dtype, of whole numbers in 0..levels.
            levels: L of the layer.

        Raises:
            CompileError: levels outside 1..255; an entry that is not a whole number in 0..levels.
        """
        check_levels(levels)
        flat = np.asarray(spike_counts).reshape(-1)
        if flat.dtype.kind not in "iuf":
            raise CompileError(f"Spike counts must be numbers; got {flat.dtype}")
        if flat.size and not (flat.min() >= 0 and flat.max() <= levels):  # written so that NaN fails too
            raise CompileError(f"Spike counts must lie in 0..{levels}; got {flat.min()}..{flat.max()}")
        whole = flat.astype(np.int64)
        if not np.array_equal(whole, flat):
            raise CompileError(
                "Spike counts must be whole numbers",
                hint="Divide the activations by theta/L and round before counting.",
            )
        return cls(np.bincount(whole, minlength=levels + 1))

    @property
    def levels(self) -> int:
        """L: the highest count."""
        return self.counts.size - 1

    @property
    def samples(self) -> int:
        """n: the sum of all entries, as a Python integer (it cannot overflow)."""
        return sum(self.counts.tolist())

    def __add__(self, other: Histogram) -> Histogram:
        """The histogram of both sets of samples together.

        Raises:
            CompileError: the two have different L, or an entry would exceed int64.
        """
        if self.levels != other.levels:
            raise CompileError(f"Histograms of {self.levels} and {other.levels} levels cannot be added")
        total = self.counts + other.counts
        if total.min() < 0:  # int64 wraps round; two non-negative numbers give a negative one only so
            raise CompileError("The sum of the histograms exceeds 2^63-1 in an entry")
        return Histogram(total)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and np.array_equal(self.counts, other.counts)

    def __hash__(self) -> int:
        return hash(self.counts.tobytes())


def check_levels(levels: int, *, node: str | None = None) -> None:
    """Raise CompileError unless `levels` is an integer in 1..255."""
    if isinstance(levels, bool) or not isinstance(levels, int) or not 1 <= levels <= MAX_LEVELS:
        raise CompileError(f"Levels must be an integer in 1..{MAX_LEVELS}; got {reprlib.repr(levels)}", node=node)


def agreement(histogram: Histogram, layers: int) -> float:
    """A = 1 - (S - 1)/(K - 1): how few of the K = L + 1 categories carry the layer's counts; in [0, 1].

    S is the number of categories with H_k >= n / (2 * layers), at least 1 (PASCAL, section 3.3).

    Args:
        histogram: the layer's counts.
        layers: the number of QCFS layers of the network, which sets the threshold alpha.

    Raises:
        CompileError: the histogram is empty, or layers is below 1.
    """
    return float(_agreement(histogram, layers))


def skewness(histogram: Histogram) -> float:
    """g = m3 / s^3 with s^2 from n - 1: b1 of Joanes & Gill (1998); NaN where all counts are the same.

    Raises:
        CompileError: the histogram is empty.
    """
    moments = _moments(histogram)
    if moments.m2 == 0:
        return math.nan
    return math.copysign(math.sqrt(_squared_skewness(moments)), moments.m3)


def kurtosis(histogram: Histogram) -> float:
    """(n+1) n / ((n-1)(n-2)(n-3)) * sum((x - mean)^4) / s^4 with s^2 from n - 1 (PASCAL, equation 5, as printed).

    NaN where all counts are the same.

    Raises:
        CompileError: fewer than 4 samples.
    """
    moments = _moments(histogram)
    return math.nan if moments.m2 == 0 else float(_kurtosis(moments))


def metric(histogram: Histogram, layers: int) -> float:
    """M = A * (g^2 + 1) * kurt; infinity where all counts are the same. The higher M, the fewer levels.

    g^2 is rational in the counts, so M is computed as an exact fraction and rounded once.

    Args:
        histogram: the layer's counts.
        layers: the number of QCFS layers of the network.

    Raises:
        CompileError: fewer than 4 samples (unless all counts are the same), or layers is below 1.
    """
    moments = _moments(histogram)
    agreed = _agreement(histogram, layers)
    if moments.m2 == 0:
        return math.inf
    return float(agreed * (_squared_skewness(moments) + 1) * _kurtosis(moments))


@dataclass(frozen=True)
class _Moments:
    """n, and the central power sums scaled to integers: m_r = n^(r-1) * sum((x - mean)^r)."""

    n: int
    m2: int
    m3: int
    m4: int


def _moments(histogram: Histogram) -> _Moments:
    n = histogram.samples
    if n == 0:
        raise CompileError("The histogram is empty", hint="Give at least one calibration sample.")
    s1, s2, s3, s4 = (sum(h * x**r for x, h in enumerate(histogram.counts.tolist())) for r in (1, 2, 3, 4))
    return _Moments(
        n=n,
        m2=n * s2 - s1**2,
        m3=n**2 * s3 - 3 * n * s1 * s2 + 2 * s1**3,
        m4=n**3 * s4 - 4 * n**2 * s1 * s3 + 6 * n * s1**2 * s2 - 3 * s1**4,
    )


def _agreement(histogram: Histogram, layers: int) -> Fraction:
    if layers < 1:
        raise CompileError(f"The number of layers must be at least 1; got {layers}")
    n = histogram.samples
    if n == 0:
        raise CompileError("The histogram is empty", hint="Give at least one calibration sample.")
    filled = max(1, sum(2 * layers * h >= n for h in histogram.counts.tolist()))
    return 1 - Fraction(filled - 1, histogram.levels)


def _squared_skewness(m: _Moments) -> Fraction:
    """g^2 = (m3/n^3)^2 / (m2/(n(n-1)))^3 in the scaled sums; the caller excludes zero variance."""
    return Fraction(m.m3**2 * (m.n - 1) ** 3, m.n**3 * m.m2**3)


def _kurtosis(m: _Moments) -> Fraction:
    """(n+1)n/((n-1)(n-2)(n-3)) * (m4/n^3) / (m2/(n(n-1)))^2, shortened; the caller excludes zero variance."""
    if m.n < 4:
        raise CompileError(f"The kurtosis needs at least 4 samples; got {m.n}", hint="Give more calibration samples.")
    return Fraction((m.n + 1) * (m.n - 1) * m.m4, (m.n - 2) * (m.n - 3) * m.m2**2)
