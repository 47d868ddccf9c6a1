"""compile, and the commands that decide its levels: plan, histogram."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pascalc.cli.group import Command
from pascalc.cli.options import (
    FILE,
    OUTPUT,
    Output,
    batch_option,
    json_option,
    plan_options,
    workers_options,
)
from pascalc.cli.output import macs, named, progress_bar, say, show
from pascalc.files import write_atomically
from pascalc.ops import NEURON_MODELS
from pascalc.passes import SCHEDULES
from pascalc.source import Network, Source
from pascalc.tables import counted, table

if TYPE_CHECKING:
    from pascalc.graph import Note
    from pascalc.planning.adjustable import Effect
    from pascalc.planning.correction import Correction
    from pascalc.planning.planner import Effects, Planned


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
    "neuron_steps",
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
@click.option("--plan", type=FILE, metavar="PLAN.json", help="Layerwise L from a file of `pascalc plan`.")
@plan_options
@click.option("--dynamic-batch", is_flag=True, help="Make a batch size that the export fixed dynamic, if safe.")
@click.option(
    "--save-ann", type=Output("the ANN"), metavar="FILE", help="Write the requantised network itself, for `verify`."
)
@json_option
def compile_command(
    model: Path,
    output: Path | None,
    neuron: str,
    neuron_steps: int | None,
    schedule: str,
    stop_after: str | None,
    dump_ir: Path | None,
    explain: bool,
    timing: bool,
    dynamic_batch: bool,
    save_ann: Path | None,
    json_file: str | None,
    **asked: Any,
) -> None:
    """Compile MODEL.onnx into a spiking network."""
    from pascalc.compiler import compile_model

    planning = any(value is not None and value is not False for value in asked.values())
    source = Source(model) if planning else model
    planned = _planned(source, asked) if planning else None
    result = compile_model(
        source,
        output,
        neuron=neuron,
        steps=neuron_steps,
        schedule=schedule,
        stop_after=stop_after,
        dump_ir=dump_ir,
        levels=planned,
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
        values["al"] = planned.to_json()
        lines.insert(1, _plan_text(planned) + "\n")
    if not_spiking:
        lines.append(f"Computed, not spiking ({len(not_spiking)}): " + "; ".join(_some(not_spiking)))
    lines += [f"Warning: {text}" for text in _warnings(result.notes)]
    if not result.verifiable:
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
@plan_options
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
def plan_command(model: Path, output: Path | None, json_file: str | None, **asked: Any) -> None:
    """Plan the levels of every layer of MODEL.onnx."""
    planned = _planned(model, asked)
    plan, text = planned.plan.to_json(), _plan_text(planned)
    if output is not None:
        write_atomically(output, [plan.encode()])
        if planned.correction is not None and planned.correction.as_pass() is not None:
            text += (
                "\nNote: the plan file holds the levels and not the correction, which `compile --plan` makes again "
                "where it is given --calib and --correct too"
            )
    show(text, {"plan": json.loads(plan), **planned.to_json()}, json_file)


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


def _planned(model: Network, asked: dict[str, Any]) -> Planned:
    from pascalc.planning.plan import plan

    with progress_bar("planning") as progress:
        return plan(model, **asked, progress=progress)


def _plan_text(planned: Planned) -> str:
    """The plan as a table, and what it does to the network."""
    rows = [
        (
            layer.name,
            "" if layer.metric is None else f"{layer.metric:.3g}",
            "" if layer.cluster is None else layer.cluster,
            f"{planned.source_levels[layer.name]} -> {layer.levels}",
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
    if planned.requantised:
        lines.append("Requantising changes the function of the network.")
        if planned.effects is None:
            lines.append("What that does to the accuracy is not known without data: --calib DATA.npz.")
        else:
            lines += _effects(planned.effects, planned.correction)
    return "\n".join(lines)


def _effects(effects: Effects, correction: Correction | None) -> list[str]:
    """What a plan does on data, without its correction and with it."""
    lines = [_effect(effects.source, effects.plan, effects.data)]
    if correction is not None and effects.corrected is not None:
        corrected = _effect(effects.source, effects.corrected, effects.data)
        lines += [f"Corrected ({correction.method}): {corrected}", *_decided(correction)]
    return lines


def _effect(source: Effect, effect: Effect, data: Path) -> str:
    text = f"On the {counted(effect.samples, 'sample')} of {data.name}: "
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
