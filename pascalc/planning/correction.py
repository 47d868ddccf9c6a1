"""Correction without training: a shift and a threshold for every channel of a requantised network, from data.

Layer by layer from the input on, the layers before being corrected already, one pass over the calibration samples
compares the reference (the source) with the requantised network:

- z, the source's pre-activation, and z', the requantised network's: the mean difference of each channel;
- h, the source's activation, beside z': for every channel the table of how often z' falls into a bin, and of the sum
  of h there. From it the squared error sum (h - QCFS(z' + shift; theta'))^2 of every shift and theta' follows without
  another look at the data.

Two corrections are made from these, see `METHODS`, and the one is kept, or none, that brings the output of the whole
network nearest to the source's on samples held out from the fit (`Effect.divergence` of ``adjustable``). The mean
difference is the bias correction of DA-QCFS ("Faster and Stronger", ICML 2025); the searches and the choice are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import add

import numpy as np
import numpy.typing as npt

from pascalc.folding import Pool, Progress, fold
from pascalc.passes.apply_correction import ApplyCorrection
from pascalc.planning.adjustable import AdjustableNetwork, Setting, effects
from pascalc.stream import Batch, SampleStream

Values = npt.NDArray[np.float64]

MOST_SAMPLES = 2000
"""Samples that a correction is fitted with, half of them held out; of a larger file every so many are taken."""

#: The range of z' + shift in units of theta, and its bins; beyond it the count is 0 or L for every candidate.
_LOW, _HIGH, _BINS = -1.0, 2.0, 384
_CENTRES = _LOW + (np.arange(_BINS) + 0.5) * (_HIGH - _LOW) / _BINS
#: Candidates for theta' and the shift, in units of theta.
_THETAS = np.linspace(0.3, 1.2, 19)
_SHIFTS = np.linspace(-0.3, 0.3, 31)


@dataclass(frozen=True)
class _Table:
    """What one pass over the samples tells of a layer; z and h are in units of theta.

    Attributes:
        samples: values of a channel.
        differences: the sum of z - z' of each channel, ``[C]``.
        count: how often z' fell into each bin, ``[C, bins]``.
        reference: the sum of h there, ``[C, bins]``.
    """

    samples: int
    differences: Values
    count: Values
    reference: Values

    @classmethod
    def of(cls, z: Values, h: Values, given: Values) -> _Table:
        """The table of one batch: z and h of the source and z' of the requantised network, each ``[N, C, ...]``."""
        channels = z.shape[1]
        bins = np.clip((given - _LOW) * (_BINS / (_HIGH - _LOW)), 0, _BINS - 1).astype(np.int64)
        index = (bins + (np.arange(channels) * _BINS).reshape(-1, *[1] * (z.ndim - 2))).reshape(-1)

        def sums(weights: Values | None) -> Values:
            values = np.bincount(index, weights=weights, minlength=channels * _BINS)
            return np.asarray(values, dtype=np.float64).reshape(channels, _BINS)

        differences = (z - given).sum((0, *range(2, z.ndim)))
        return cls(z.size // channels, differences, sums(None), sums(h.reshape(-1)))

    def __add__(self, other: _Table) -> _Table:
        return _Table(
            self.samples + other.samples,
            self.differences + other.differences,
            self.count + other.count,
            self.reference + other.reference,
        )


@dataclass(frozen=True)
class Correction:
    """A setting with its correction, and how it was decided.

    Attributes:
        setting: the levels, with shifts and thresholds where there is a correction.
        method: which one is kept: one of `METHODS`, or "none".
        divergence: by method, "none" included, the divergence from the source that decides, the least being kept; empty
            where the output has none.
        samples: the samples held out from the fit that it was measured on.
    """

    setting: Setting
    method: str
    divergence: Mapping[str, float]
    samples: int

    def as_pass(self) -> ApplyCorrection | None:
        """The correction as a pass of the compiler; None where none helps."""
        if self.method == "none":
            return None
        return ApplyCorrection(self.setting.shifts, self.setting.thresholds, self.method, self.setting.levels)


def fit(
    network: AdjustableNetwork,
    samples: SampleStream,
    levels: Mapping[str, int],
    *,
    batch: int = 64,
    progress: Progress | None = None,
    pool: Pool | None = None,
) -> Correction:
    """Find the shifts and thresholds that bring a requantised network nearest to its source.

    Args:
        network: the source network.
        samples: calibration samples; every second one is held out. Labels are not needed.
        levels: L of the activations that change, by label.
        batch: samples a run.
        progress: called with (layers done, layers in all).
        pool: the workers that do it; None for this process.

    Returns:
        The levels with thresholds and shifts for every layer, each ``[C, 1, ...]``; or without, where no correction
        helps on the samples held out.

    Raises:
        CompileError: the data is damaged, or there are fewer than 2 samples.
    """
    fitted, held_out = samples.halves(MOST_SAMPLES)
    plain = Setting({**network.levels, **levels})
    found = dict.fromkeys(METHODS, plain)
    for done, label in enumerate(network.labels, 1):
        scale = network.thresholds[label].astype(np.float64)
        shape, tables = _observe(network, fitted, list(found.values()), label, batch, pool)
        for (name, method), table in zip(METHODS.items(), tables, strict=True):
            shift, theta = method(table, plain.levels[label], network.phi[label])
            found[name] = replace(
                found[name],
                shifts={**found[name].shifts, label: shift.reshape(shape) * scale},
                thresholds={**found[name].thresholds, label: _broadcast(theta, shape) * scale},
            )
        if progress is not None:
            progress(done, len(network.labels))
    found = {"none": plain, **found}  # first, so that it is kept where a correction makes no difference
    measured = effects(network, held_out, list(found.values()), batch=batch, pool=pool)
    divergence = {
        name: effect.divergence for name, effect in zip(found, measured, strict=True) if effect.divergence is not None
    }
    best = min(divergence, key=lambda name: divergence[name], default="none")
    return Correction(found[best], best, divergence, len(held_out))


def _observe(
    network: AdjustableNetwork,
    samples: SampleStream,
    settings: Sequence[Setting],
    label: str,
    batch: int,
    pool: Pool | None,
) -> tuple[tuple[int, ...], list[_Table]]:
    """One pass over the samples; the shape of a value for every channel, and a table for each setting."""
    total = fold(_Observing(network, tuple(settings), label), samples, batch, pool=pool)
    return total.shape, list(total.tables)


@dataclass(frozen=True)
class _Observed:
    """The shape of a value for every channel, and the tables of several settings."""

    shape: tuple[int, ...]
    tables: tuple[_Table, ...]

    def __add__(self, other: _Observed) -> _Observed:
        return _Observed(other.shape, tuple(map(add, self.tables, other.tables)))


@dataclass(frozen=True)
class _Observing:
    """The network up to a layer, at several settings."""

    network: AdjustableNetwork
    settings: tuple[Setting, ...]
    label: str

    def open(self, threads: int | None) -> Callable[[Batch], _Observed]:
        network, label = self.network, self.label
        theta, levels, phi = network.thresholds[label].astype(np.float64), network.levels[label], network.phi[label]
        before = network.before(label)

        def run(batch: Batch) -> _Observed:
            z = before(batch.feeds, Setting())[: batch.samples] / theta
            h = np.clip(np.floor(z * levels + phi), 0, levels) / levels
            given = (before(batch.feeds, setting)[: batch.samples] / theta for setting in self.settings)
            return _Observed((z.shape[1], *[1] * (z.ndim - 2)), tuple(_Table.of(z, h, other) for other in given))

        return run


def _broadcast(values: Values, shape: tuple[int, ...]) -> Values:
    """One value for all as a scalar, one a channel as ``[C, 1, ...]``."""
    return values.reshape(()) if values.size == 1 else values.reshape(shape)


def _mean(table: _Table, levels: int, phi: float) -> tuple[Values, Values]:
    """The mean difference; theta stays."""
    return table.differences / table.samples, np.ones(1)


def _search(table: _Table, levels: int, phi: float) -> tuple[Values, Values]:
    """The shift and theta' of each channel that have the least squared error."""
    grid = _activation(_CENTRES, _SHIFTS[:, None], _THETAS[:, None, None], levels, phi).reshape(-1, _BINS)
    errors = table.count @ (grid**2).T - 2 * table.reference @ grid.T
    best = errors.argmin(1)
    return _SHIFTS[best % len(_SHIFTS)], _THETAS[best // len(_SHIFTS)]


def _activation(z: Values, shift: Values, theta: Values, levels: int, phi: float) -> Values:
    return np.asarray(np.clip(np.floor((z + shift) * levels / theta + phi), 0, levels) * theta / levels)


#: From a table, L and phi to shift and theta' in units of theta, each of one value or one a channel.
METHODS: dict[str, Callable[[_Table, int, float], tuple[Values, Values]]] = {
    "mean shift": _mean,
    "shift and threshold of every channel": _search,
}
