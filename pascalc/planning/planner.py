"""The parts of a plan: levels by the AL metric or by measured sensitivity, a correction, and what both do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pascalc import pipeline
from pascalc.al import histograms
from pascalc.al.histograms import Histograms
from pascalc.al.plan import LayerPlan, Plan, make_plan
from pascalc.errors import CompileError
from pascalc.folding import Progress
from pascalc.graph import Model
from pascalc.passes import ANALYSIS
from pascalc.planning import bn_statistics, correction
from pascalc.planning.adjustable import AdjustableNetwork, Effect, Setting, effects, planned_neurons
from pascalc.planning.calibrate import measure
from pascalc.planning.correction import Correction
from pascalc.planning.sensitivity import MOST_SAMPLES, Search, check_budget, check_steps
from pascalc.planning.steps import Steps, effective_steps
from pascalc.source import Network, network_of
from pascalc.stream import open_samples
from pascalc.tables import counted
from pascalc.workers import check_sharing, working


@dataclass(frozen=True)
class Effects:
    """What a plan does on data.

    Attributes:
        data: the data.
        source: the effect of the source itself, which has its accuracy.
        plan: that of the plan's levels.
        corrected: that of the levels with the correction; None without one.
    """

    data: Path
    source: Effect
    plan: Effect
    corrected: Effect | None


@dataclass(frozen=True)
class Planned:
    """A plan, what it rests on, the time steps that it needs, and what it does to the network.

    Attributes:
        plan: the levels of every layer and why; a correction is no part of it.
        source_levels: the levels of the source, by layer.
        statistics: where the histograms come from, as a sentence.
        before: effective time steps at the source's levels.
        after: effective time steps at the plan's.
        warnings: what makes the plan worth less than was asked for, a sentence each.
        correction: the correction that goes with the levels; None where none was asked for.
        effects: what they do on the calibration data; None without any, and where no level changes.
    """

    plan: Plan
    source_levels: dict[str, int]
    statistics: str
    before: Steps
    after: Steps
    warnings: tuple[str, ...] = ()
    correction: Correction | None = None
    effects: Effects | None = None

    @property
    def levels(self) -> dict[str, int]:
        """The new levels, by layer."""
        return {layer.name: layer.levels for layer in self.plan.layers}

    @property
    def requantised(self) -> bool:
        """Whether any layer has other levels than in the source, so that the network's function changes."""
        return self.levels != {name: self.source_levels[name] for name in self.levels}

    def to_json(self) -> dict[str, Any]:
        """What `--json` reports beside the plan itself."""
        values = {
            "statistics": self.statistics,
            "source_levels": self.source_levels,
            "levels": self.levels,
            "effective_steps": {"source": asdict(self.before), "plan": asdict(self.after)},
            "warnings": list(self.warnings),
        }
        if self.effects is None:
            return values
        values["effect"] = {"source": asdict(self.effects.source), "plan": asdict(self.effects.plan)}
        if self.correction is not None and self.effects.corrected is not None:
            decided = {"divergence": dict(self.correction.divergence), "samples": self.correction.samples}
            effect = asdict(self.effects.corrected)
            values["correction"] = {"method": self.correction.method, "decided": decided, **effect}
        return values


def plan_by_metric(
    source: Network,
    clusters: int,
    levels: Sequence[int] | None = None,
    *,
    calibration: str | Path | None = None,
    shards: Sequence[str | Path] = (),
    batch: int = 64,
    workers: int | None = None,
    dask: str | None = None,
    progress: Progress | None = None,
) -> Planned:
    """Levels by the AL metric (PASCAL, section 3.3).

    Args:
        source: the ONNX file of the network.
        clusters: the number of clusters, 1..number of layers.
        levels: the levels of each cluster from lowest to highest metric; default L, L/2, L/4, ...
        calibration: inputs to count levels on (`pascalc.stream`).
        shards: files of histograms, as `pascalc.histograms` has them, to be added; instead of ``calibration``.
        batch: samples a run.
        workers: share the data among so many processes of one thread each (`pascalc.workers`).
        dask: share it among the workers of the Dask scheduler at this address.
        progress: called with (samples done, samples in all).

    Raises:
        CompileError: a file cannot be read or does not fit the network; there is nothing to make histograms from;
            clusters or levels do not fit the network.
    """
    counted, statistics = level_histograms(
        source, calibration=calibration, shards=shards, batch=batch, workers=workers, dask=dask, progress=progress
    )
    try:
        plan = make_plan(counted, clusters, levels)
    except CompileError as error:
        raise CompileError(error.message, file=source, node=error.node, hint=error.hint) from None
    return describe(source, plan, counted, statistics)


def level_histograms(
    source: Network,
    *,
    calibration: str | Path | None = None,
    shards: Sequence[str | Path] = (),
    batch: int = 64,
    workers: int | None = None,
    dask: str | None = None,
    progress: Progress | None = None,
) -> tuple[Histograms, str]:
    """The level histograms of a network from the best source there is, and which one that was.

    In this order: measured on ``calibration``; the sum of ``shards``; recorded in the file's metadata; estimated from
    BatchNormalization parameters.

    Raises:
        CompileError: as `plan_by_metric`.
    """
    check_sharing(workers, dask, calibration)
    if calibration is not None and shards:
        message = "calibration (--calib) and histograms (--histograms) were both given"
        raise CompileError(message, hint="Give one of them.")
    if calibration is not None:
        counted = measure(source, calibration, batch=batch, workers=workers, dask=dask, progress=progress)
        return counted, f"measured on {Path(calibration).name}"
    model = network_of(source)
    levels = _levels(model)
    if shards:
        read = histograms.merge([histograms.read(shard) for shard in shards])
        what = f"{len(shards)} histogram file{'s' if len(shards) > 1 else ''}"
        return histograms.match(read, levels, file=", ".join(map(str, shards))), f"the sum of {what}"
    if histograms.METADATA_KEY in model.metadata:
        recorded = histograms.from_json(model.metadata[histograms.METADATA_KEY], file=source)
        return histograms.match(recorded, levels, file=source), "histograms recorded in the file"
    if not bn_statistics.has_statistics(model):
        raise CompileError(
            "there is nothing to compute AL metrics from: the file has no recorded histograms, and no "
            "BatchNormalization that was not folded",
            file=source,
            hint="Give calibration data (--calib DATA.npz), or export again with "
            "pascalc.train.export(..., calibration=loader) or fold_bn=False.",
        )
    return bn_statistics.estimate(model), "BatchNormalization parameters in the file (no data)"


def _levels(model: Model) -> dict[str, int]:
    """L of every activation of a source network, by label, in the network's order; its activations become explicit."""
    pipeline.run(model, ANALYSIS)
    return {neuron.name: neuron.levels for neuron in planned_neurons(model)}


def describe(source: Network, plan: Plan, counted: Histograms | None, statistics: str) -> Planned:
    """A plan with the effective time steps of the network before and after it.

    Args:
        source: the ONNX file of the network.
        plan: the plan; it may leave layers out, which keep their levels.
        counted: level histograms of the source, for spike rates; None takes the plan's own, and without these the
            paper's rate.
        statistics: where ``counted`` comes from.

    Raises:
        CompileError: the file cannot be read, or not be compiled at the plan's levels; the plan names a layer that it
            does not have.
    """
    before = _levels(network_of(source))
    after = before | {layer.name: layer.levels for layer in plan.layers}
    if counted is None:
        recorded = {layer.name: layer.histogram for layer in plan.layers if layer.histogram is not None}
        counted = recorded if recorded.keys() == before.keys() else None
    return Planned(
        plan=plan,
        source_levels=before,
        statistics=statistics,
        before=effective_steps(source, before, counted),
        after=effective_steps(source, after, counted),
    )


def plan_by_budget(
    source: Network,
    calibration: str | Path,
    budget: float,
    *,
    correct: bool = False,
    batch: int = 64,
    workers: int | None = None,
    dask: str | None = None,
    progress: Progress | None = None,
) -> Planned:
    """The fewest effective time steps at which the network classifies nearly as its source, see ``sensitivity``.

    Args:
        source: the ONNX file of the network.
        calibration: inputs (`pascalc.stream`); labels are not needed.
        budget: the largest share of samples that may be classified otherwise, in [0, 1), on each half of the data.
        correct: measure plans with the correction that `pascalc.planning.correction.fit` finds for each.
        batch: samples a run.
        workers: share the data among so many processes of one thread each (`pascalc.workers`).
        dask: share it among the workers of the Dask scheduler at this address.
        progress: called with (samples done, samples in all), for one pass after the other.

    Raises:
        CompileError: a file cannot be read or does not fit the network; the budget is outside [0, 1); the network
            does not classify.
    """
    check_budget(budget)
    with working(workers, dask, calibration) as pool:
        search = Search(source, calibration, batch=batch, progress=progress, pool=pool)
        chosen = search.within(budget, correct=correct)
    statistics = (
        f"sensitivities measured on {Path(calibration).name}: at most {_percent(budget)} of the classifications change "
        f"on {counted(len(search.searched), 'sample')} and on {len(search.held_out)} held out"
    )
    planned = describe(source, _as_plan(chosen.levels), None, statistics)
    return replace(planned, warnings=_too_few(budget, min(len(search.searched), len(search.held_out))))


def _too_few(budget: float, samples: int) -> tuple[str, ...]:
    """A warning where even one of the samples of a half is more than the budget, so that it means none."""
    if not 0 < budget < 1 / samples:
        return ()
    needed = 2 * math.ceil(1 / budget)
    way = (
        f"give {needed} samples" if needed <= MOST_SAMPLES else f"more than {MOST_SAMPLES} samples are never looked at"
    )
    return (
        f"each half of the data has {counted(samples, 'sample')}, of which one is more than the budget of "
        f"{_percent(budget)}, so that none may change: {way}",
    )


def _percent(share: float) -> str:
    return f"{100 * share:.6g}%"


def plan_by_steps(
    source: Network,
    calibration: str | Path,
    steps: float,
    *,
    batch: int = 64,
    workers: int | None = None,
    dask: str | None = None,
    progress: Progress | None = None,
) -> Planned:
    """The plan of least divergence from the source at given effective time steps (`pascalc.planning.sensitivity`).

    Args:
        source: the ONNX file of the network.
        calibration: inputs (`pascalc.stream`); labels are not needed.
        steps: the most effective time steps by the paper's estimator.
        batch: samples a run.
        workers: share the data among so many processes of one thread each (`pascalc.workers`).
        dask: share it among the workers of the Dask scheduler at this address.
        progress: called with (samples done, samples in all).

    Raises:
        CompileError: a file cannot be read or does not fit the network; the steps are no positive number, or even one
            level in every layer takes more; the network does not classify.
    """
    check_steps(steps)
    with working(workers, dask, calibration) as pool:
        search = Search(source, calibration, batch=batch, progress=progress, pool=pool)
    statistics = f"sensitivities measured on {counted(len(search.searched), 'sample')} of {Path(calibration).name}"
    return describe(source, _as_plan(search.at_most(steps)), None, statistics)


def correct_levels(
    source: Network,
    calibration: str | Path,
    levels: Mapping[str, int],
    *,
    batch: int = 64,
    workers: int | None = None,
    dask: str | None = None,
    progress: Progress | None = None,
) -> Correction:
    """The correction for a network at other levels, see `pascalc.planning.correction.fit`.

    Raises:
        CompileError: a file cannot be read or does not fit the network.
    """
    samples = open_samples(calibration, network_of(source))
    with working(workers, dask, calibration) as pool:
        return correction.fit(AdjustableNetwork(source), samples, levels, batch=batch, progress=progress, pool=pool)


def _as_plan(levels: Mapping[str, int]) -> Plan:
    return Plan(tuple(LayerPlan(name=name, levels=level) for name, level in levels.items()))


def measure_effect(
    source: Network,
    samples: str | Path,
    levels: Mapping[str, int],
    corrected: Correction | None = None,
    *,
    batch: int = 64,
    workers: int | None = None,
    dask: str | None = None,
    progress: Progress | None = None,
) -> list[Effect]:
    """What other levels do to a network.

    Args:
        source: the ONNX file of the network.
        samples: inputs (`pascalc.stream`), with labels where accuracy is wanted.
        levels: L of the activations that change, by label.
        corrected: the correction that goes with them.
        batch: samples a run.
        workers: share the data among so many processes of one thread each (`pascalc.workers`).
        dask: share it among the workers of the Dask scheduler at this address.
        progress: called with (samples done, samples in all).

    Returns:
        The effect of the source itself, which has its accuracy; that of the levels; and, where there is a correction,
        that of both.

    Raises:
        CompileError: a file cannot be read, or the data does not fit the network.
    """
    settings = [Setting(), Setting(levels), *([] if corrected is None else [corrected.setting])]
    network, stream = AdjustableNetwork(source), open_samples(samples, network_of(source))
    with working(workers, dask, samples) as pool:
        return effects(network, stream, settings, batch=batch, progress=progress, pool=pool)
