"""compile, and the commands that decide its levels: plan, histogram."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pascalc.cli.group import Command
from pascalc.cli.options import (
    FILE,
    OUTPUT,
    Output,
    batch_option,
    budget_option,
    calib_option,
    clusters_option,
    correct_option,
    json_option,
    levels_option,
    steps_option,
    workers_options,
)
from pascalc.cli.output import macs, named, progress_bar, say, show
from pascalc.files import write_atomically
from pascalc.metadata import recorded_correction
from pascalc.ops import NEURON_MODELS
from pascalc.passes import SCHEDULES
from pascalc.source import Network, Source
from pascalc.tables import counted, table

if TYPE_CHECKING:
    from pascalc.graph import Note
    from pascalc.planning.adjustable import Effect
    from pascalc.planning.correction import Correction
    from pascalc.planning.planner import Planned


@click.command("compile", cls=Command, default_output="snn")
@click.argument("model", type=FILE, metavar="MODEL.onnx")
@click.option("-o", "--output", type=OUTPUT, metavar="OUT.onnx", help="Default: MODEL.snn.onnx beside the model.")
@click.option(
    "--neuron",
    type=click.Choice(list(NEURON_MODELS)),
    default="pasc",
    show_default=True,
    help="Neuron model; 'if' is the usual rate-coded baseline, which is not lossless.",
)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    metavar="T",
    help="Time steps of every neuron, for neuron models that leave them free ('if').",
)
@click.option(
    "--schedule",
    type=click.Choice(list(SCHEDULES)),
    default="unrolled",
    show_default=True,
    help="unrolled: stepped through time; collapsed: neurons hand over spike counts, every layer runs once.",
)
@click.option("--stop-after", metavar="PASS", help="Stop after this pass and write the network as it is then.")
@click.option("--dump-ir", type=FILE, metavar="DIR", help="Write the network as ONNX text after every pass.")
@click.option("--explain", is_flag=True, help="Show what was refused or does not spike, and why.")
@click.option("--timing", is_flag=True, help="Show rewrites and time of every pass.")
@click.option("--plan", "plan_file", type=FILE, metavar="PLAN.json", help="Layerwise L from a file of `pascalc plan`.")
@clusters_option
@levels_option
@budget_option
@steps_option
@correct_option
@calib_option
@workers_options
@click.option("--dynamic-batch", is_flag=True, help="Make a batch size that the export fixed dynamic, if safe.")
@click.option(
    "--save-ann", type=Output("the ANN"), metavar="FILE", help="Write the requantised network itself, for `verify`."
)
@json_option
def compile_command(
    model: Path,
    output: Path | None,
    neuron: str,
    steps: int | None,
    schedule: str,
    stop_after: str | None,
    dump_ir: Path | None,
    explain: bool,
    timing: bool,
    plan_file: Path | None,
    al_clusters: int | None,
    al_levels: list[int] | None,
    al_budget: float | None,
    al_steps: float | None,
    correct: bool,
    calib: Path | None,
    workers: int | None,
    dask: str | None,
    dynamic_batch: bool,
    save_ann: Path | None,
    json_file: str | None,
) -> None:
    """Compile MODEL.onnx into a spiking network."""
    from pascalc.compiler import compile_model

    asked = {"--plan": plan_file, "--al-clusters": al_clusters, "--al-budget": al_budget, "--al-steps": al_steps}
    source = Source(model) if any(value is not None for value in asked.values()) else model
    dask = _shared(workers, dask, calib)
    planned = _planned(source, asked, al_levels, calib, [], correct, dask)
    corrected = _corrected(source, planned, calib, dask) if correct and planned is not None else None
    result = compile_model(
        source,
        output,
        neuron=neuron,
        steps=steps,
        schedule=schedule,
        stop_after=stop_after,
        dump_ir=dump_ir,
        levels=None if planned is None else planned.plan,
        correction=corrected,
        save_ann=save_ann,
        dynamic_batch=dynamic_batch,
    )
    found = result.network.neurons
    not_spiking = result.network.not_spiking
    lines = [
        f"{result.source} -> {named(result.output)}",
        f"{counted(len(found), 'layer')} of {neuron} neurons, {schedule}; levels {_span([n.levels for n in found])}, "
        f"{macs(result.network.macs, result.network.spiking_macs)}",
    ]
    values = result.to_json()
    if planned is not None:
        text, values["al"] = _plan_report(source, planned, calib, corrected, dask)
        lines.insert(1, text + "\n")
    if not_spiking:
        lines.append(f"Computed, not spiking ({len(not_spiking)}): " + "; ".join(_some(not_spiking)))
    lines += [f"Warning: {text}" for text in _warnings(result.notes)]
    if recorded_correction(result.network.metadata) and save_ann is None:
        lines.append(
            "Note: the spiking network is that of the corrected network, which was not kept, and `verify` compares it "
            "with that alone: --save-ann FILE keeps it"
        )
    if explain:
        notes = [(n.source, n.node, n.reason) for n in result.notes]
        lines.append("\n" + (table(["pass", "node", "why"], notes) if notes else "Nothing was refused."))
    if timing:
        rows = [(name, count, f"{s * 1e3:.1f} ms") for name, count, s in result.timing]
        lines.append("\n" + table(["pass", "rewrites", "time"], rows))
    show("\n".join(lines), values, json_file)


@click.command("plan", cls=Command)
@click.argument("model", type=FILE, metavar="MODEL.onnx")
@clusters_option
@levels_option
@budget_option
@steps_option
@correct_option
@calib_option
@workers_options
@click.option(
    "--histograms",
    type=FILE,
    multiple=True,
    metavar="H.json",
    help="Histograms of `pascalc histogram`, in place of --calib; several are added.",
)
@click.option(
    "-o", "--output", type=OUTPUT, metavar="PLAN.json", help="Where the plan goes, to be edited and compiled."
)
@json_option
def plan_command(
    model: Path,
    al_clusters: int | None,
    al_levels: list[int] | None,
    al_budget: float | None,
    al_steps: float | None,
    correct: bool,
    calib: Path | None,
    workers: int | None,
    dask: str | None,
    histograms: tuple[Path, ...],
    output: Path | None,
    json_file: str | None,
) -> None:
    """Plan the levels of every layer of MODEL.onnx."""
    asked = {"--al-clusters": al_clusters, "--al-budget": al_budget, "--al-steps": al_steps}
    source = Source(model)
    dask = _shared(workers, dask, calib)
    planned = _planned(source, asked, al_levels, calib, histograms, correct, dask)
    if planned is None:
        raise click.UsageError("say how to choose the levels: --al-clusters N, --al-budget P% or --al-steps T")
    corrected = _corrected(source, planned, calib, dask) if correct else None
    text, values = _plan_report(source, planned, calib, corrected, dask)
    if output is not None and corrected is not None and corrected.as_pass() is not None:
        text += (
            "\nNote: the plan file holds the levels and not the correction, which `compile --plan` makes again where "
            "it is given --calib and --correct too"
        )
    if output is not None:
        write_atomically(output, [planned.plan.to_json().encode()])
    show(text, {"plan": json.loads(planned.plan.to_json()), **values}, json_file)


@click.command("histogram", cls=Command)
@click.argument("model", type=FILE, metavar="MODEL.onnx")
@click.option(
    "--calib", type=FILE, metavar="DATA", required=True, help="Inputs to calibrate on, as for --data of `eval`."
)
@click.option("-o", "--output", type=OUTPUT, metavar="H.json", required=True, help="Where the histograms go.")
@batch_option
@workers_options
def histogram_command(
    model: Path, calib: Path, output: Path, batch: int, workers: int | None, dask: str | None
) -> None:
    """Count how often every layer of MODEL.onnx has each of its levels; histograms of shards can be added."""
    from pascalc.al import histograms
    from pascalc.planning import calibrate

    with progress_bar("counting") as progress:
        found = calibrate.measure(model, calib, batch=batch, workers=workers, dask=dask, progress=progress)
    write_atomically(output, [histograms.to_json(found).encode()])
    say(f"{named(output)}: {counted(len(found), 'layer')}, {sum(h.samples for h in found.values())} activations")


def _shared(workers: int | None, dask: str | None, calib: Path | None) -> str | None:
    """The address of the Dask scheduler for all passes over the data of this command; None where none is asked for."""
    from pascalc.workers import working

    pool = click.get_current_context().with_resource(working(workers, dask, calib))
    return None if pool is None else pool.address


def _planned(
    model: Network,
    asked: dict[str, Any],
    levels: list[int] | None,
    calib: Path | None,
    histograms: Sequence[Path],
    correct: bool,
    dask: str | None,
) -> Planned | None:
    """The plan that the options ask for, of which at most one may decide the levels; None where none does."""
    from pascalc.al.plan import Plan
    from pascalc.planning import planner

    given = {option: value for option, value in asked.items() if value is not None}
    if len(given) > 1:
        raise click.UsageError(f"{' and '.join(given)} exclude one another: each decides the levels")
    option = next(iter(given), None)
    value: Any = given.get(option or "")
    if levels is not None and option != "--al-clusters":
        raise click.UsageError("--al-levels needs --al-clusters N")
    if option is None:
        if calib is not None or correct:
            raise click.UsageError("--calib and --correct need a way to choose levels, such as --al-clusters N")
        return None
    if calib is None and (correct or option in ("--al-budget", "--al-steps")):
        raise click.UsageError(f"{'--correct' if correct else option} needs calibration data: --calib DATA.npz")
    if option == "--plan":
        return planner.describe(model, Plan.read(value), None, f"read from {value.name}")
    with progress_bar("choosing levels") as progress:
        if option == "--al-clusters":
            return planner.plan_by_metric(
                model, value, levels, calibration=calib, shards=histograms, dask=dask, progress=progress
            )
        if histograms or calib is None:
            raise click.UsageError(f"{option} measures on data: give --calib DATA.npz, not --histograms")
        if option == "--al-budget":
            return planner.plan_by_budget(model, calib, value, correct=correct, dask=dask, progress=progress)
        return planner.plan_by_steps(model, calib, value, dask=dask, progress=progress)


def _corrected(model: Network, planned: Planned, calib: Path | None, dask: str | None) -> Correction:
    from pascalc.planning.planner import correct_levels

    assert calib is not None  # _planned has asked for it
    with progress_bar("correcting") as progress:
        return correct_levels(model, calib, planned.levels, dask=dask, progress=progress)


def _plan_report(
    model: Network, planned: Planned, calib: Path | None, corrected: Correction | None, dask: str | None
) -> tuple[str, dict[str, Any]]:
    """The plan as a table, what it does to the network, and both as values."""
    from pascalc.planning.planner import measure_effect

    rows = [
        (
            layer.name,
            "" if layer.metric is None else f"{layer.metric:.3g}",
            "" if layer.cluster is None else layer.cluster,
            f"{planned.source_levels.get(layer.name, '?')} -> {layer.levels}",
        )
        for layer in planned.plan.layers
    ]
    before, after = planned.before, planned.after
    lines = [
        table(["layer", "AL metric", "cluster", "L"], rows),
        "",
        f"Levels decided from: {planned.statistics}",
        f"Mean L {before.mean_levels:.2f} -> {after.mean_levels:.2f}; effective time steps {before.paper:.2f} -> "
        f"{after.paper:.2f} by the paper's estimator (0.75 spikes a neuron assumed), {before.full:.2f} -> "
        f"{after.full:.2f} by the full one ({after.rates})",
    ]
    lines += [f"Warning: {text}" for text in planned.warnings]
    values = planned.to_json()
    if any(planned.source_levels.get(name, level) != level for name, level in planned.levels.items()):
        lines.append("Requantising changes the function of the network.")
        if calib is not None:
            with progress_bar("measuring") as progress:
                source, effect = measure_effect(model, calib, planned.levels, dask=dask, progress=progress)
            values["effect"] = {"source": asdict(source), "plan": asdict(effect)}
            lines.append(_effect(source, effect, calib))
            if corrected is not None:
                with progress_bar("measuring") as progress:
                    _, effect = measure_effect(model, calib, planned.levels, corrected, dask=dask, progress=progress)
                decided = {"divergence": dict(corrected.divergence), "samples": corrected.samples}
                values["correction"] = {"method": corrected.method, "decided": decided, **asdict(effect)}
                lines.append(f"Corrected ({corrected.method}): {_effect(source, effect, calib)}")
                lines += _decided(corrected)
        else:
            lines.append("What that does to the accuracy is not known without data: --calib DATA.npz.")
    return "\n".join(lines), values


def _effect(source: Effect, effect: Effect, calib: Path) -> str:
    text = f"On the {counted(effect.samples, 'sample')} of {calib.name}: "
    if effect.agreement is None:
        return f"{text}the output is no classification, so what changes is not known"
    text += f"{effect.agreement:.2%} classified as by the source, divergence from it {effect.divergence:.3g}"
    if source.accuracy is None or effect.accuracy is None:
        return text
    return f"{text}; accuracy {source.accuracy:.2%} -> {effect.accuracy:.2%}"


def _decided(corrected: Correction) -> list[str]:
    """Why that correction, which need not be the one of the best accuracy."""
    if not corrected.divergence:
        return []
    each = ", ".join(f"{name} {value:.3g}" for name, value in corrected.divergence.items())
    return [
        f"The correction is the one of the least divergence, not of the best accuracy, on the "
        f"{counted(corrected.samples, 'sample')} held out from the fit: {each}"
    ]


def _span(levels: list[int]) -> str:
    return str(levels[0]) if len(set(levels)) == 1 else ",".join(map(str, levels))


def _some(items: list[str], most: int = 5) -> list[str]:
    return items if len(items) <= most else [*items[:most], f"and {len(items) - most} more (--explain)"]


def _warnings(notes: list[Note]) -> list[str]:
    """One line for each warning, with the nodes that it is about."""
    nodes: dict[str, list[str]] = {}
    for note in notes:
        if note.warning:
            nodes.setdefault(note.reason, []).append(note.node)
    return [f"{reason}: {', '.join(_some(names))}" for reason, names in nodes.items()]
