"""plan: what a user asks of a plan, in one call: the levels, the correction, and what both do to the network.

What excludes what, and what needs what, is said here and nowhere else: the command line only asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pascalc.al.plan import Plan
from pascalc.errors import CompileError
from pascalc.folding import Progress
from pascalc.planning.planner import (
    Effects,
    Planned,
    correct_levels,
    describe,
    measure_effect,
    plan_by_budget,
    plan_by_metric,
    plan_by_steps,
)
from pascalc.source import Network, Source
from pascalc.workers import working

OPTIONS = {
    "clusters": "--al-clusters",
    "budget": "--al-budget",
    "steps": "--al-steps",
    "plan": "--plan",
    "levels": "--al-levels",
    "calibration": "--calib",
    "histograms": "--histograms",
    "correct": "--correct",
    "workers": "--workers",
    "dask": "--dask",
}
"""What the parameters of `plan` are called on the command line: messages name both."""

#: Each decides the levels, so there is one of them.
_WAYS = ("clusters", "budget", "steps", "plan")
#: What a parameter means nothing without, and why.
_NEEDS = {
    "levels": ("clusters", "They are the levels of the clusters."),
    "histograms": ("clusters", "The AL metric alone is computed from histograms."),
    "budget": ("calibration", "It is measured on data."),
    "steps": ("calibration", "Sensitivities are measured on data."),
    "correct": ("calibration", "A correction is fitted on data."),
}


def plan(
    source: Network,
    *,
    clusters: int | None = None,
    levels: Sequence[int] | None = None,
    budget: float | None = None,
    steps: float | None = None,
    plan: Plan | str | Path | None = None,
    calibration: str | Path | None = None,
    histograms: Sequence[str | Path] = (),
    correct: bool = False,
    batch: int = 64,
    workers: int | None = None,
    dask: str | None = None,
    progress: Progress | None = None,
) -> Planned:
    """Plan the levels of a network, correct it at these, and measure what both do to it.

    One of ``clusters``, ``budget``, ``steps`` and ``plan`` decides the levels. `pascalc.compile` takes the result as
    its ``levels``, with the correction that it holds.

    Args:
        source: the ONNX file of the network.
        clusters: by the AL metric in so many clusters (`plan_by_metric`).
        levels: the levels of each cluster from lowest to highest metric; default L, L/2, L/4, ...
        budget: by measured sensitivity, for the largest share of samples that may be classified otherwise, in [0, 1)
            (`plan_by_budget`); the plans are measured with their corrections where there is to be one.
        steps: by measured sensitivity, for so many effective time steps (`plan_by_steps`).
        plan: a plan that was made before, or its JSON file. It may leave layers out, which keep their levels.
        calibration: inputs (`pascalc.stream`) that levels are decided from, the correction is fitted on, and the effect
            is measured on, with labels where accuracy is wanted.
        histograms: files of histograms, as `pascalc histogram` writes them, to be added; instead of ``calibration``.
        correct: find the correction that brings the network at these levels nearest to the source (`correct_levels`).
        batch: samples a run.
        workers: share the data among so many processes of one thread each (`pascalc.workers`).
        dask: share it among the workers of the Dask scheduler at this address.
        progress: called with what is done and what there is in all, for one pass after the other.

    Raises:
        CompileError: nothing decides the levels, or more than one thing does; something is missing that another
            parameter needs; a file cannot be read or does not fit the network; a value is out of its range; the network
            does not classify, and its sensitivity was to be measured.
    """
    asked = {
        "clusters": clusters is not None,
        "budget": budget is not None,
        "steps": steps is not None,
        "plan": plan is not None,
        "levels": levels is not None,
        "calibration": calibration is not None,
        "histograms": len(histograms) > 0,
        "correct": correct,
        "workers": workers is not None,
        "dask": dask is not None,
    }
    _check([parameter for parameter, given in asked.items() if given])
    source = Source.of(source)
    with working(workers, dask, calibration) as pool:
        shared: dict[str, Any] = {
            "batch": batch,
            "dask": None if pool is None else pool.address,
            "progress": progress,
        }
        if clusters is not None:
            planned = plan_by_metric(source, clusters, levels, calibration=calibration, shards=histograms, **shared)
        elif budget is not None and calibration is not None:
            planned = plan_by_budget(source, calibration, budget, correct=correct, **shared)
        elif steps is not None and calibration is not None:
            planned = plan_by_steps(source, calibration, steps, **shared)
        elif isinstance(plan, Plan):
            planned = describe(source, plan, None, "a plan that was given")
        else:
            assert plan is not None  # since something decides the levels
            planned = describe(source, Plan.read(plan), None, f"read from {Path(plan).name}")
        if calibration is None:
            return planned
        correction = correct_levels(source, calibration, planned.levels, **shared) if correct else None
        planned = replace(planned, correction=correction)
        if not planned.requantised:
            return planned
        before, after, *corrected = measure_effect(source, calibration, planned.levels, correction, **shared)
    effects = Effects(Path(calibration), before, after, corrected[0] if corrected else None)
    return replace(planned, effects=effects)


def _check(given: Sequence[str]) -> None:
    """Refuse parameters that do not go together.

    Raises:
        CompileError: none or several of them decide the levels, or one lacks what it needs.
    """
    ways = [parameter for parameter in _WAYS if parameter in given]
    if len(ways) > 1:
        raise CompileError(f"{_named(ways)} exclude one another: each decides the levels", hint="Give one of them.")
    for parameter, (needed, why) in _NEEDS.items():
        if parameter in given and needed not in given:
            raise CompileError(f"{_named([parameter])} needs {_named([needed])}, which was not given", hint=why)
    if not ways:
        found = f"there is {_named(given)}, but nothing that" if given else "nothing"
        raise CompileError(f"{found} decides the levels", hint=f"Give one of {_named(_WAYS[:3])}, or a plan.")


def _named(parameters: Sequence[str]) -> str:
    """Parameters with the options that they are on the command line."""
    names = [f"{parameter} ({OPTIONS[parameter]})" for parameter in parameters]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
