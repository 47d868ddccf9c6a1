"""Levels from measured sensitivity: what each layer's L does to the network's output, and the best plan for a budget.

1. Every layer alone is set to every candidate level, and the divergence of the network's output from the source's is
   measured on one half of the calibration data. Divergence, unlike agreement, is smooth, and adds up over layers as
   far as their errors are independent.
2. For a number of effective time steps the plan of least total divergence is found exactly, by dynamic programming
   over the layers. Plans for many numbers of steps make up a frontier.
3. The plans of the frontier are measured as whole networks, on both halves: for a budget the one with the fewest
   steps is taken that keeps to it on the half that the sensitivities come from and on the one held out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from pascalc import energy
from pascalc.errors import CompileError
from pascalc.folding import Pool, Progress
from pascalc.planning import correction
from pascalc.planning.adjustable import AdjustableNetwork, Effect, Setting, effects
from pascalc.planning.steps import fed_layers, paper_steps
from pascalc.source import Network, network_of
from pascalc.stream import SampleStream, open_samples

Levels = dict[str, int]

MOST_SAMPLES = 2000
"""Samples that sensitivities are measured on, half of them held out; of a larger file every so many are taken."""

#: Plans on the frontier.
_FRONTIER = 32
#: Units that the total cost is divided into for the dynamic programme.
_UNITS = 4000


@dataclass(frozen=True)
class Candidate:
    """A plan of the frontier and its measured effect.

    Attributes:
        levels: L of every layer.
        steps: T_eff by the paper's estimator.
        searched: the effect on the samples that the sensitivities were measured on.
        held_out: the effect on the other samples.
    """

    levels: Levels
    steps: float
    searched: Effect
    held_out: Effect

    @property
    def agreement(self) -> float:
        """The lower of both agreements with the source."""
        return min(x.agreement or 0.0 for x in (self.searched, self.held_out))


class Search:
    """Sensitivities of one network on calibration data, and the plans that follow from them.

    Args:
        source: the ONNX file of the network.
        calibration: inputs (`pascalc.stream`); labels are not needed.
        batch: samples a run.
        progress: called with (samples done, samples in all).
        pool: the workers that measure; None for this process.

    Attributes:
        network: the network.
        layers: its layers of neurons, by their labels.
        divergence: for every layer, the divergence that each candidate level causes by itself.

    Raises:
        CompileError: a file cannot be read or does not fit the network, there are fewer than 2 samples, or the output
            is no classification, so that there is nothing to keep.
    """

    def __init__(
        self,
        source: Network,
        calibration: str | Path,
        *,
        batch: int = 64,
        progress: Progress | None = None,
        pool: Pool | None = None,
    ) -> None:
        model = network_of(source)
        self.samples = open_samples(calibration, model)
        self.searched, self.held_out = self.samples.halves(MOST_SAMPLES)
        self.source, self.batch, self.progress, self.pool = Path(source), batch, progress, pool
        self.network = AdjustableNetwork(source)
        fed = [(x.neuron, x.energy_layer(energy.ASSUMED_SPIKE_RATE)) for x in fed_layers(source, {})]
        self.layers = [replace(layer, name=neuron.name) for neuron, layer in fed if neuron is not None]
        self.divergence = self._measure_alone()

    def _measure_alone(self) -> dict[str, dict[int, float]]:
        changes = [(x.name, level) for x in self.layers for level in candidate_levels(x.levels) if level != x.levels]
        settings = [Setting({name: level}) for name, level in changes]
        found: dict[str, dict[int, float]] = {layer.name: {layer.levels: 0.0} for layer in self.layers}
        measured = self._effects(self.searched, settings)
        for (name, level), effect in zip(changes, measured, strict=True):
            found[name][level] = self._required(effect.divergence)
        return found

    def _required(self, figure: float | None) -> float:
        """A figure that only classifications have."""
        if figure is None:
            raise CompileError(
                f"its output '{self.network.output}' is no classification, so its sensitivity cannot be measured",
                file=self.source,
                hint="Plan by the metric (--al-clusters N), or give levels in a plan (--plan PLAN.json).",
            )
        return figure

    def steps(self, levels: Mapping[str, int]) -> float:
        """T_eff by the paper's estimator."""
        return paper_steps(self.layers, levels)

    def at_most(self, steps: float) -> Levels:
        """The plan of least total divergence with T_eff of at most ``steps`` by the paper's estimator.

        Raises:
            CompileError: even one level in every layer takes more, or ``steps`` is no positive number.
        """
        check_steps(steps)
        return self._plans([steps])[0]

    @cached_property
    def frontier(self) -> list[Candidate]:
        """Plans from the fewest effective time steps to the source's, measured as whole networks."""
        least, most = self.steps({x.name: 1 for x in self.layers}), self.steps(self.network.levels)
        plans: list[Levels] = []
        for plan in [*self._plans(np.linspace(1.01 * least, most, _FRONTIER).tolist()), self.network.levels]:
            if plan not in plans:
                plans.append(plan)
        return sorted(self._measure([Setting(plan) for plan in plans]), key=lambda candidate: candidate.steps)

    def within(self, budget: float, *, correct: bool = False) -> Candidate:
        """The plan of the frontier with the fewest steps whose agreement is at least 1 - ``budget`` on both halves.

        Args:
            budget: in [0, 1). The source keeps to any, so there is always a plan.
            correct: measure plans with their corrections; found by bisection below the plan without.

        Raises:
            CompileError: the budget is outside [0, 1).
        """
        check_budget(budget)
        high = next(i for i, x in enumerate(self.frontier) if x.agreement >= 1 - budget)
        chosen, low = self.frontier[high], 0
        while correct and low < high:
            middle = (low + high) // 2
            fitted = correction.fit(
                self.network, self.samples, self.frontier[middle].levels, batch=self.batch, pool=self.pool
            )
            (candidate,) = self._measure([fitted.setting])
            if candidate.agreement >= 1 - budget:
                high, chosen = middle, candidate
            else:
                low = middle + 1
        return chosen

    def _measure(self, settings: Sequence[Setting]) -> list[Candidate]:
        halves = (self.searched, self.held_out)
        both = [self._effects(x, settings) for x in halves]
        return [
            Candidate(dict(setting.levels), self.steps(setting.levels), *pair)
            for setting, *pair in zip(settings, *both, strict=True)
        ]

    def _effects(self, samples: SampleStream, settings: Sequence[Setting]) -> list[Effect]:
        return effects(self.network, samples, settings, batch=self.batch, progress=self.progress, pool=self.pool)

    def _plans(self, targets: Sequence[float]) -> list[Levels]:
        """The plan of least total divergence for each T_eff, all from one dynamic programme.

        best[u] is the least divergence of the layers so far that takes at most u units; costs are rounded up, so no
        target is exceeded. A target that only the rounding puts out of reach gets the fewest steps that there are.

        Raises:
            CompileError: even one level in every layer takes more than a target.
        """
        fewest = dict.fromkeys(self.network.labels, 1)
        least = self.steps(fewest)
        unit = max(targets) * len(self.layers) / _UNITS
        best, choices = np.zeros(_UNITS + 1), []
        for layer in self.layers:
            levels = sorted(self.divergence[layer.name])
            totals = np.full((len(levels), _UNITS + 1), np.inf)
            for row, level in enumerate(levels):
                cost = min(math.ceil(paper_steps([layer], {layer.name: level}) / unit), _UNITS + 1)
                totals[row, cost:] = best[: _UNITS + 1 - cost] + self.divergence[layer.name][level]
            rows = totals.argmin(0)
            best = np.asarray(totals.min(0))
            choices.append((layer, [levels[row] for row in rows]))
        plans = []
        for target in targets:
            if target < least:
                raise CompileError(
                    f"{target:g} effective time steps cannot be reached: one level in every layer takes {least:.2f}",
                    file=self.source,
                    hint=f"Give at least {math.ceil(100 * least) / 100:.2f}.",
                )
            units = math.floor(target * len(self.layers) / unit * (1 + 1e-12))
            if not np.isfinite(best[units]):
                plans.append(fewest)
                continue
            plan = {}
            for layer, chosen in reversed(choices):
                plan[layer.name] = chosen[units]
                units -= math.ceil(paper_steps([layer], {layer.name: chosen[units]}) / unit)
            plans.append({name: plan[name] for name in self.network.labels})
        return plans


def check_budget(budget: float) -> None:
    """Refuse a budget that is no share of the classifications.

    Raises:
        CompileError: it is outside [0, 1).
    """
    if not 0 <= budget < 1:
        raise CompileError(
            f"a budget is the share of classifications that may change, in 0..1 without 1; got {budget:g}",
            hint="One percent is 0.01 in Python, and 1% on the command line.",
        )


def check_steps(steps: float) -> None:
    """Refuse what is no number of time steps.

    Raises:
        CompileError: it is not positive and finite.
    """
    if not 0 < steps < math.inf:
        raise CompileError(f"effective time steps must be a positive number; got {steps:g}")


def candidate_levels(levels: int) -> list[int]:
    """L, its halves, and three quarters of these, down to 1: 16, 12, 8, 6, 4, 3, 2, 1."""
    found = {levels >> k for k in range(levels.bit_length())} | {
        3 * levels >> k for k in range(2, 2 + levels.bit_length())
    }
    return sorted((level for level in found if 1 <= level <= levels), reverse=True)
