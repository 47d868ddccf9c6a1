"""The commands that look at networks: verify, eval, inspect, report, reduce, passes."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pascalc.cli.group import Command
from pascalc.cli.options import (
    FILE,
    OUTPUT,
    Positive,
    batch_option,
    data_option,
    json_option,
    limit_option,
    workers_options,
)
from pascalc.cli.output import macs, named, progress_bar, show
from pascalc.files import printable, write_atomically
from pascalc.ops import Pasc
from pascalc.passes import SCHEDULES
from pascalc.tables import counted, table

if TYPE_CHECKING:
    from pascalc.verifier.record import Verification

#: Findings that are printed; JSON has them all.
_SHOWN = 20


@click.command("verify", cls=Command)
@click.argument("model", type=FILE, metavar="MODEL.onnx")
@click.argument("compiled", type=FILE, metavar="OUT.onnx")
@click.option(
    "--data",
    type=FILE,
    metavar="DATA",
    help="An .npz (x: inputs), a .npy, or a folder of .npz shards; without it, random inputs.",
)
@click.option("--no-trust", is_flag=True, help="Other levels than the source's are a fault, whatever OUT.onnx says.")
@click.option("--seed", type=click.IntRange(min=0), metavar="N", help="Of the random levels; another one each time.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    help="Only the first N samples; without data, N random ones [32].",
)
@batch_option
@workers_options
@json_option
def verify_command(
    model: Path,
    compiled: Path,
    data: Path | None,
    no_trust: bool,
    seed: int | None,
    limit: int | None,
    batch: int,
    workers: int | None,
    dask: str | None,
    json_file: str | None,
) -> None:
    """Check that OUT.onnx is the network MODEL.onnx, on data and random levels; exit status 1 if it is not."""
    from pascalc.verifier import verify

    with progress_bar("verifying") as progress:
        result = verify(
            model,
            compiled,
            data,
            limit=limit,
            batch=batch,
            trust=not no_trust,
            seed=seed,
            workers=workers,
            dask=dask,
            progress=progress,
        )
    rows = [
        (
            x.name,
            x.levels,
            x.steps_in,
            x.steps_out,
            x.neurons,
            x.root_mismatches,
            f"{x.max_root_margin:.1e}",
            f"{x.current_excess:.2f}",
            x.count_mismatches,
        )
        for x in result.layers
    ]
    header = [
        "layer",
        "L",
        "steps in",
        "steps out",
        "neurons",
        "root mismatches",
        "largest margin",
        "current off/bound",
        "counts differing",
    ]
    total = sum(x.neurons for x in result.layers)
    roots = sum(x.root_mismatches for x in result.layers)
    lines = [
        table(header, rows),
        "",
        f"{counted(result.samples, 'sample')}, {counted(total, 'neuron')}: "
        f"{counted(roots, 'root mismatch', 'root mismatches')}, "
        f"{sum(x.roots_beyond_bound for x in result.layers)} of them beyond the rounding bound",
        f"classifications differing: {result.argmax_mismatches} (the source from itself, unoptimised: "
        f"{result.source_self_mismatches}); largest output difference {result.max_abs_output_diff:.2g}",
        f"the files' own outputs had to agree in {counted(result.answers_compared, 'sample')}, in which no count "
        "differs",
        f"random levels: {counted(result.probes, 'sample')}, in batches of "
        f"{', '.join(map(str, result.batch_sizes)) or 'none'}",
        f"disturbed inputs: {_disturbed(result)}",
    ]
    if not result.data:
        lines.append(
            "no data was used: the inputs are random too. That shows what the file computes, layer by layer, not how "
            "often rounding crosses a half point on real inputs (--data)"
        )
    lines += [f"taken from the file's own word: {line}" for line in result.trusted]
    if result.source_recorded is False:
        lines.append(f"the file says that it was compiled from another file than {model}")
    if result.corrected and not result.equivalent:
        lines.append(
            f"the file says that it was corrected ({result.corrected}): compare it with the network that "
            "`compile --save-ann` wrote"
        )
    for root in result.roots[:10]:
        lines.append(
            f"root: {root.layer} sample {root.sample} {root.index}: {root.source_count} -> {root.count}, "
            f"margin {root.margin:.2e}, bound {root.bound:.2e}"
        )
    findings = result.findings()
    lines += findings[:_SHOWN]
    if len(findings) > _SHOWN:
        lines.append(f"... and {len(findings) - _SHOWN} more")
    levels = ", at the levels that the file says that it was compiled to" if result.requantised else ""
    if not result.translated:
        verdict = f"NOT equivalent: {result.first_difference or result.problems[0]}"
    elif result.lossy:
        lines += ["", *_lossy(result)]
        verdict = f"translated{levels}: every layer computes what it says, but the neurons are lossy, not the source's"
    else:
        verdict = f"equivalent{levels}"
    if not result.translated and json_file is None:
        lines += ["", _shows_more(model, compiled, data, limit, result.seed)]
    show("\n".join([*lines, "", verdict]), result.to_json(), json_file)
    if not result.translated:
        sys.exit(1)


def _disturbed(result: Verification) -> str:
    """How many there were; in a file that is faulty anyway, nobody may have got that far."""
    if result.disturbed:
        return counted(result.disturbed, "sample")
    return "none, since the source refuses them" if result.translated else "none"


def _lossy(result: Verification) -> list[str]:
    """The conversion errors of lossy neurons."""
    rows = [
        (x.name, x.levels, x.most, f"{x.conversion_error:.4f}", f"{x.own_error:.4f}")
        for x in result.layers
        if not x.lossless
    ]
    header = ["layer", "L", "most spikes", "conversion error", "its own part"]
    note = "conversion error: the mean difference of an activation from the source's, in units of theta"
    return [table(header, rows), note]


def _shows_more(model: Path, compiled: Path, data: Path | None, limit: int | None, seed: int) -> str:
    """The command that shows all layers, roots and problems."""
    words = ["pascalc", "verify", str(model), str(compiled)]
    words += [] if data is None else ["--data", str(data)]
    words += [] if limit is None else ["--limit", str(limit)]
    return f"All layers, roots and problems: {shlex.join([*words, '--seed', str(seed), '--json', '-'])}"


@click.command("eval", cls=Command)
@click.argument("model", type=FILE, metavar="ANY.onnx")
@data_option
@limit_option
@batch_option
@workers_options
@click.option(
    "--kernels",
    type=click.Choice(["native", "numpy"]),
    default="native",
    show_default=True,
    help="What computes the neurons: onnxruntime's kernels, or the NumPy library.",
)
@json_option
def eval_command(
    model: Path,
    data: Path,
    limit: int | None,
    batch: int,
    workers: int | None,
    dask: str | None,
    kernels: Any,
    json_file: str | None,
) -> None:
    """Accuracy, spike rates and time of a network, source or compiled."""
    from pascalc.evaluator import evaluate

    with progress_bar("evaluating") as progress:
        result = evaluate(
            model, data, limit=limit, batch=batch, kernels=kernels, workers=workers, dask=dask, progress=progress
        )
    rows = [(x.name, x.levels, x.steps_out, x.neurons, f"{x.spike_rate:.3f}") for x in result.layers]
    accuracy = "no labels" if result.top1 is None else f"accuracy {result.top1:.2%}"
    text = f"{counted(result.samples, 'sample')}: {accuracy}, {result.seconds / result.samples * 1e3:.2f} ms a sample"
    if rows:
        text = table(["layer", "L", "steps", "neurons", "spikes a neuron"], rows) + "\n\n" + text
    if result.spike_rate is not None:
        text += f", {result.spike_rate:.3f} spikes a neuron (all spikes over all neurons)"
    show(text, result.to_json(), json_file)


@click.command("inspect", cls=Command)
@click.argument("model", type=FILE, metavar="ANY.onnx")
@json_option
def inspect_command(model: Path, json_file: str | None) -> None:
    """Neurons, thresholds, levels, time steps and operation counts of a network, source or compiled."""
    from pascalc.inspector import inspect

    result = inspect(model)
    rows = [
        (n.name, _number(n.theta), n.levels, n.steps_in, n.steps_out, "mixed" if n.fan_in is None else n.fan_in)
        for n in result.neurons
    ]
    lines = [
        table(["neuron", "theta", "L", "steps in", "steps out", "fan-in"], rows),
        "",
        f"inputs: {', '.join(result.inputs)}; outputs: {', '.join(result.outputs)}",
        macs(result.macs, result.spiking_macs),
        *(f"not spiking: {line}" for line in result.not_spiking),
    ]
    show("\n".join(lines), result.to_json(), json_file)


@click.command("report", cls=Command)
@click.argument("model", type=FILE, metavar="SNN.onnx")
@click.option(
    "--data",
    type=FILE,
    metavar="DATA",
    help="An .npz (x: inputs), a .npy, or a folder of .npz shards; without it, spike rates are assumed.",
)
@click.option(
    "--plan", "plan_file", type=FILE, metavar="PLAN.json", help="The plan behind its levels, for the HTML and T_norm."
)
@click.option("--html", "html_file", type=OUTPUT, metavar="OUT.html", help="Write the report with plots, in one file.")
@limit_option
@batch_option
@workers_options
@json_option
def report_command(
    model: Path,
    data: Path | None,
    plan_file: Path | None,
    html_file: Path | None,
    limit: int | None,
    batch: int,
    workers: int | None,
    dask: str | None,
    json_file: str | None,
) -> None:
    """Operations, spikes, effective time steps and energy of SNN.onnx, layer by layer."""
    from pascalc.reporter import html, report, text

    with progress_bar("measuring") as progress:
        result = report(
            model, data, plan=plan_file, limit=limit, batch=batch, workers=workers, dask=dask, progress=progress
        )
    if html_file is not None:
        write_atomically(html_file, [printable(html(result)).encode()])
    show(text(result), result.to_json(), json_file)


@click.command("reduce", cls=Command, default_output="reduced")
@click.argument("model", type=FILE, metavar="MODEL.onnx")
@click.option(
    "--fails",
    required=True,
    metavar="COMMAND",
    help="Fails with its status on MODEL.onnx, not 0. Run without a shell; {} is the model to try, else it comes last.",
)
@click.option("-o", "--output", type=OUTPUT, metavar="OUT.onnx", help="Default: MODEL.reduced.onnx beside the model.")
@click.option(
    "--timeout",
    type=Positive(),
    default=60,
    show_default=True,
    metavar="S",
    help="Seconds for one run; a model that takes longer is not tried again.",
)
@json_option
def reduce_command(model: Path, fails: str, output: Path | None, timeout: float, json_file: str | None) -> None:
    """Shrink MODEL.onnx to a small model on which COMMAND still ends with the same status other than 0."""
    from pascalc.reducer import reduce_model

    with progress_bar("reducing") as progress:
        result = reduce_model(model, fails, output, timeout=timeout, progress=progress)
    before, after = result.nodes
    text = f"{named(result.output)}: {before} -> {counted(after, 'node')}; status {result.status}; "
    text += counted(result.runs, "run")
    values = {"output": str(result.output), "status": result.status, "nodes": [before, after], "runs": result.runs}
    show(text, values, json_file)


@click.command("passes", cls=Command)
@json_option
def passes_command(json_file: str | None) -> None:
    """List the passes of every schedule, in order."""
    schedules = {name: passes(Pasc()) for name, passes in SCHEDULES.items()}
    rows = [(name, i, p.name(), p.summary()) for name, passes in schedules.items() for i, p in enumerate(passes, 1)]
    values = {name: [{"name": p.name(), "summary": p.summary()} for p in passes] for name, passes in schedules.items()}
    show("\n".join(f"{s:10} {i:2}  {n:18} {d}" for s, i, n, d in rows), values, json_file)


def _number(theta: float | list[float]) -> str:
    return f"{theta:.4g}" if isinstance(theta, float) else f"{theta[0]:.4g} to {theta[1]:.4g}"
