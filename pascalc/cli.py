"""The command line: click only; every command is one call of the Python API and a table."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pascalc.errors import CompileError
from pascalc.files import write_atomically
from pascalc.ops import NEURON_MODELS
from pascalc.passes import SCHEDULES
from pascalc.tables import table
from pascalc.version import __version__

if TYPE_CHECKING:
    from pascalc.graph import Note
    from pascalc.inspector import Inspection
    from pascalc.planning.adjustable import Effect
    from pascalc.planning.correction import Correction
    from pascalc.planning.planner import Planned

_FILE = click.Path(path_type=Path)

_json = click.option("--json", "json_file", metavar="FILE", help="Write the report as JSON; '-' for stdout.")
_limit = click.option("--limit", type=click.IntRange(min=1), help="Only the first N samples.", metavar="N")
_batch = click.option("--batch", type=click.IntRange(min=1), default=16, show_default=True, help="Samples a run.")
_data = click.option("--data", type=_FILE, required=True, metavar="DATA.npz", help="x: inputs, y: labels.")


class _Command(click.Command):
    """Refuses to write the report over another file of the command."""

    def invoke(self, ctx: click.Context) -> Any:
        report = ctx.params.get("json_file")
        if report not in (None, "-"):
            for path in ctx.params.values():
                if isinstance(path, Path) and path.resolve() == Path(report).resolve():
                    raise CompileError(
                        "the report would overwrite this file", file=path, hint="Choose another --json FILE."
                    )
        return super().invoke(ctx)


class _Cli(click.Group):
    """Turns every error into one paragraph on stderr and an exit status."""

    command_class = _Command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except CompileError as error:
            if ctx.params.get("debug"):
                raise
            click.echo(f"pascalc: {error}", err=True)
            sys.exit(2)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:  # a bug of ours: no traceback unless asked for, and never status 0
            if ctx.params.get("debug"):
                raise
            message = (
                f"internal error: {type(error).__name__}: {error}. 'pascalc --debug ...' shows where; please report it."
            )
            click.echo(f"pascalc: {message}", err=True)
            sys.exit(2)


def _numbers(text: str) -> list[int]:
    """Integers separated by commas."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise click.BadParameter(f"'{text}' is not a list of integers such as 8,4,1") from None


def _share(text: str) -> float:
    """A share, written in percent."""
    try:
        share = float(text.removesuffix("%")) / 100 if text.endswith("%") else -1.0
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise click.BadParameter(f"'{text}' is not a percentage from 0% to below 100%, such as 0.5%")
    return share


_clusters = click.option(
    "--al-clusters", type=click.IntRange(min=1), metavar="N", help="Layerwise L from the AL metric in N clusters."
)
_levels = click.option(
    "--al-levels", type=_numbers, metavar="8,4,1", help="L of each cluster from lowest to highest metric [halving]."
)
_budget = click.option(
    "--al-budget",
    type=_share,
    metavar="P%",
    help="Layerwise L of fewest steps with at most P% of the classifications changed; needs --calib.",
)
_steps = click.option(
    "--al-steps",
    type=click.FloatRange(min=0, min_open=True),
    metavar="T",
    help="Layerwise L of least loss at T effective time steps (paper's estimator); needs --calib.",
)
_correct = click.option(
    "--correct", is_flag=True, help="Correct shifts and thresholds of the requantised network; needs --calib."
)
_calibration = click.option("--calib", type=_FILE, metavar="DATA.npz", help="x: inputs to calibrate on; y: labels.")


@click.group(cls=_Cli, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pascalc")
@click.option("--debug", is_flag=True, help="Show a traceback with every error.")
def main(debug: bool) -> None:
    """Turn a trained QCFS network (ONNX) into the spiking network that is mathematically the same (ONNX).

    Exit status: 0 good, 1 the check asked for failed, 2 bad input or usage.
    """


@main.command("compile")
@click.argument("model", type=_FILE, metavar="MODEL.onnx")
@click.option("-o", "--output", type=_FILE, metavar="OUT.onnx", help="Default: MODEL.snn.onnx beside the model.")
@click.option(
    "--neuron", type=click.Choice(list(NEURON_MODELS)), default="pasc", show_default=True, help="Neuron model."
)
@click.option(
    "--schedule",
    type=click.Choice(list(SCHEDULES)),
    default="unrolled",
    show_default=True,
    help="unrolled: stepped through time; collapsed: neurons hand over spike counts, every layer runs once.",
)
@click.option("--stop-after", metavar="PASS", help="Stop after this pass and write the network as it is then.")
@click.option("--dump-ir", type=_FILE, metavar="DIR", help="Write the network as ONNX text after every pass.")
@click.option("--explain", is_flag=True, help="Show what was refused or does not spike, and why.")
@click.option("--timing", is_flag=True, help="Show rewrites and time of every pass.")
@click.option("--plan", "plan_file", type=_FILE, metavar="PLAN.json", help="Layerwise L from a file of `pascalc plan`.")
@_clusters
@_levels
@_budget
@_steps
@_correct
@_calibration
@click.option("--save-ann", type=_FILE, metavar="FILE", help="Write the requantised network itself, for `verify`.")
@_json
def compile_command(
    model: Path,
    output: Path | None,
    neuron: str,
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
    save_ann: Path | None,
    json_file: str | None,
) -> None:
    """Compile MODEL.onnx into a spiking network."""
    from pascalc.compiler import compile_model

    asked = {"--plan": plan_file, "--al-clusters": al_clusters, "--al-budget": al_budget, "--al-steps": al_steps}
    planned = _planned(model, asked, al_levels, calib, [], correct)
    corrected = _corrected(model, planned, calib) if correct and planned is not None else None
    result = compile_model(
        model,
        output,
        neuron=neuron,
        schedule=schedule,
        stop_after=stop_after,
        dump_ir=dump_ir,
        levels=None if planned is None else planned.plan,
        correction=None if corrected is None else corrected.as_pass(),
        save_ann=save_ann,
    )
    found = result.network.neurons
    not_spiking = result.network.not_spiking
    lines = [
        f"{result.source} -> {result.output}",
        f"{len(found)} layers of {neuron} neurons, {schedule}; levels {_span([n.levels for n in found])}, "
        f"{_macs(result.network)}",
    ]
    values = result.to_json()
    if planned is not None:
        text, values["al"] = _plan_report(model, planned, calib, corrected)
        lines.insert(1, text + "\n")
    if not_spiking:
        lines.append(f"Computed, not spiking ({len(not_spiking)}): " + "; ".join(_some(not_spiking)))
    lines += [f"Warning: {text}" for text in _warnings(result.notes)]
    if explain:
        notes = [(n.source, n.node, n.reason) for n in result.notes]
        lines.append("\n" + (table(["pass", "node", "why"], notes) if notes else "Nothing was refused."))
    if timing:
        rows = [(name, count, f"{s * 1e3:.1f} ms") for name, count, s in result.timing]
        lines.append("\n" + table(["pass", "rewrites", "time"], rows))
    _report("\n".join(lines), values, json_file)


@main.command("plan")
@click.argument("model", type=_FILE, metavar="MODEL.onnx")
@_clusters
@_levels
@_budget
@_steps
@_correct
@_calibration
@click.option(
    "--histograms",
    type=_FILE,
    multiple=True,
    metavar="H.json",
    help="Histograms of `pascalc histogram`, in place of --calib; several are added.",
)
@click.option("-o", "--output", type=_FILE, metavar="PLAN.json", help="Where the plan goes, to be edited and compiled.")
@_json
def plan_command(
    model: Path,
    al_clusters: int | None,
    al_levels: list[int] | None,
    al_budget: float | None,
    al_steps: float | None,
    correct: bool,
    calib: Path | None,
    histograms: tuple[Path, ...],
    output: Path | None,
    json_file: str | None,
) -> None:
    """Plan the levels of every layer of MODEL.onnx."""
    asked = {"--al-clusters": al_clusters, "--al-budget": al_budget, "--al-steps": al_steps}
    planned = _planned(model, asked, al_levels, calib, histograms, correct)
    if planned is None:
        raise click.UsageError("say how to choose the levels: --al-clusters N, --al-budget P% or --al-steps T")
    text, values = _plan_report(model, planned, calib, _corrected(model, planned, calib) if correct else None)
    if output is not None:
        write_atomically(output, [planned.plan.to_json().encode()])
    _report(text, {"plan": json.loads(planned.plan.to_json()), **values}, json_file)


@main.command("histogram")
@click.argument("model", type=_FILE, metavar="MODEL.onnx")
@click.option("--calib", type=_FILE, metavar="DATA.npz", required=True, help="x: inputs to calibrate on.")
@click.option("-o", "--output", type=_FILE, metavar="H.json", required=True, help="Where the histograms go.")
@_batch
def histogram_command(model: Path, calib: Path, output: Path, batch: int) -> None:
    """Count how often every layer of MODEL.onnx has each of its levels; histograms of shards can be added."""
    from pascalc.al import histograms
    from pascalc.planning import calibrate

    with _progress("counting") as progress:
        counted = calibrate.measure(model, calib, batch=batch, progress=progress)
    write_atomically(output, [histograms.to_json(counted).encode()])
    click.echo(f"{output}: {len(counted)} layers, {sum(h.samples for h in counted.values())} activations")


@main.command("verify")
@click.argument("model", type=_FILE, metavar="MODEL.onnx")
@click.argument("compiled", type=_FILE, metavar="OUT.onnx")
@_data
@_limit
@_batch
@_json
def verify_command(
    model: Path, compiled: Path, data: Path, limit: int | None, batch: int, json_file: str | None
) -> None:
    """Check on data that OUT.onnx is the network MODEL.onnx; exit status 1 if it is not."""
    from pascalc.verifier import verify

    with _progress("verifying") as progress:
        result = verify(model, compiled, data, limit=limit, batch=batch, progress=progress)
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
        f"{result.samples} samples, {total} neurons: {roots} root mismatches, "
        f"{sum(x.roots_beyond_bound for x in result.layers)} of them beyond the rounding bound",
        f"classifications differing: {result.argmax_mismatches} (the source from itself, unoptimised: "
        f"{result.source_self_mismatches}); largest output difference {result.max_abs_output_diff:.2g}",
    ]
    if result.requantised:
        lines.append(
            f"{len(result.requantised)} layers have other levels than the source; it was taken at those levels"
        )
    for root in result.roots[:10]:
        lines.append(
            f"root: {root.layer} sample {root.sample} {root.index}: {root.source_count} -> {root.count}, "
            f"margin {root.margin:.2e}, bound {root.bound:.2e}"
        )
    lines += result.findings()
    verdict = "equivalent" if result.equivalent else f"NOT equivalent: {result.first_difference or result.problems[0]}"
    _report("\n".join([*lines, "", verdict]), result.to_json(), json_file)
    if not result.equivalent:
        sys.exit(1)


@main.command("eval")
@click.argument("model", type=_FILE, metavar="ANY.onnx")
@_data
@_limit
@_batch
@click.option(
    "--kernels",
    type=click.Choice(["native", "numpy"]),
    default="native",
    show_default=True,
    help="What computes the neurons: onnxruntime's kernels, or the NumPy library.",
)
@_json
def eval_command(model: Path, data: Path, limit: int | None, batch: int, kernels: Any, json_file: str | None) -> None:
    """Accuracy, spike rates and time of a network, source or compiled."""
    from pascalc.evaluator import evaluate

    with _progress("evaluating") as progress:
        result = evaluate(model, data, limit=limit, batch=batch, kernels=kernels, progress=progress)
    rows = [(x.name, x.levels, x.steps_out, f"{x.spike_rate:.3f}") for x in result.layers]
    accuracy = "no labels" if result.top1 is None else f"accuracy {result.top1:.2%}"
    text = f"{result.samples} samples: {accuracy}, {result.seconds / result.samples * 1e3:.2f} ms a sample"
    if rows:
        text = table(["layer", "L", "steps", "spikes a neuron"], rows) + "\n\n" + text
    _report(text, result.to_json(), json_file)


@main.command("inspect")
@click.argument("model", type=_FILE, metavar="ANY.onnx")
@_json
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
        _macs(result),
        *(f"not spiking: {line}" for line in result.not_spiking),
    ]
    _report("\n".join(lines), result.to_json(), json_file)


@main.command("report")
@click.argument("model", type=_FILE, metavar="SNN.onnx")
@click.option("--data", type=_FILE, metavar="DATA.npz", help="x: inputs; without it, spike rates are assumed.")
@click.option("--plan", "plan_file", type=_FILE, metavar="PLAN.json", help="The plan behind its levels, for the HTML.")
@click.option("--html", "html_file", type=_FILE, metavar="OUT.html", help="Write the report with plots, in one file.")
@_limit
@_batch
@_json
def report_command(
    model: Path,
    data: Path | None,
    plan_file: Path | None,
    html_file: Path | None,
    limit: int | None,
    batch: int,
    json_file: str | None,
) -> None:
    """Operations, spikes, effective time steps and energy of SNN.onnx, layer by layer."""
    from pascalc.reporter import html, report, text

    with _progress("measuring") as progress:
        result = report(model, data, plan=plan_file, limit=limit, batch=batch, progress=progress)
    if html_file is not None:
        write_atomically(html_file, [html(result).encode()])
    _report(text(result), result.to_json(), json_file)


@main.command("reduce")
@click.argument("model", type=_FILE, metavar="MODEL.onnx")
@click.option(
    "--fails",
    required=True,
    metavar="COMMAND",
    help="Fails with its status on MODEL.onnx, not 0. Run without a shell; {} is the model to try, else it comes last.",
)
@click.option("-o", "--output", type=_FILE, metavar="OUT.onnx", help="Default: MODEL.reduced.onnx beside the model.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=60,
    show_default=True,
    metavar="S",
    help="Seconds for one run; a model that takes longer is not tried again.",
)
@_json
def reduce_command(model: Path, fails: str, output: Path | None, timeout: float, json_file: str | None) -> None:
    """Shrink MODEL.onnx to a small model on which COMMAND still ends with the same status other than 0."""
    from pascalc.reducer import reduce_model

    with _progress("reducing") as progress:
        result = reduce_model(model, fails, output, timeout=timeout, progress=progress)
    before, after = result.nodes
    text = f"{result.output}: {before} -> {after} nodes; status {result.status}; {result.runs} runs"
    values = {"output": str(result.output), "status": result.status, "nodes": [before, after], "runs": result.runs}
    _report(text, values, json_file)


@main.command("passes")
@_json
def passes_command(json_file: str | None) -> None:
    """List the passes of every schedule, in order."""
    rows = [(name, i, p.name(), p.summary()) for name, passes in SCHEDULES.items() for i, p in enumerate(passes, 1)]
    values = {name: [{"name": p.name(), "summary": p.summary()} for p in passes] for name, passes in SCHEDULES.items()}
    _report("\n".join(f"{s:10} {i:2}  {n:18} {d}" for s, i, n, d in rows), values, json_file)


def _planned(
    model: Path,
    asked: dict[str, Any],
    levels: list[int] | None,
    calib: Path | None,
    histograms: Sequence[Path],
    correct: bool,
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
    with _progress("choosing levels") as progress:
        if option == "--al-clusters":
            return planner.plan_by_metric(model, value, levels, calibration=calib, shards=histograms, progress=progress)
        if histograms or calib is None:
            raise click.UsageError(f"{option} measures on data: give --calib DATA.npz, not --histograms")
        if option == "--al-budget":
            return planner.plan_by_budget(model, calib, value, correct=correct, progress=progress)
        return planner.plan_by_steps(model, calib, value, progress=progress)


def _corrected(model: Path, planned: Planned, calib: Path | None) -> Correction:
    from pascalc.planning.planner import correct_levels

    assert calib is not None  # _planned has asked for it
    with _progress("correcting") as progress:
        return correct_levels(model, calib, planned.levels, progress=progress)


def _plan_report(
    model: Path, planned: Planned, calib: Path | None, corrected: Correction | None
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
    values = planned.to_json()
    if any(planned.source_levels.get(name, level) != level for name, level in planned.levels.items()):
        lines.append("Requantising changes the function of the network.")
        if calib is not None:
            with _progress("measuring") as progress:
                source, effect = measure_effect(model, calib, planned.levels, progress=progress)
            values["effect"] = {"source": asdict(source), "plan": asdict(effect)}
            lines.append(_effect(source, effect, calib))
            if corrected is not None:
                with _progress("measuring") as progress:
                    _, effect = measure_effect(model, calib, planned.levels, corrected, progress=progress)
                values["correction"] = {"method": corrected.method, **asdict(effect)}
                lines.append(f"Corrected ({corrected.method}): {_effect(source, effect, calib)}")
        else:
            lines.append("What that does to the accuracy is not known without data: --calib DATA.npz.")
    return "\n".join(lines), values


def _effect(source: Effect, effect: Effect, calib: Path) -> str:
    text = f"On the {effect.samples} samples of {calib.name}: {effect.agreement:.2%} classified as by the source"
    if source.accuracy is None or effect.accuracy is None:
        return text
    return f"{text}; accuracy {source.accuracy:.2%} -> {effect.accuracy:.2%}"


def _report(text: str, values: dict[str, Any], json_file: str | None) -> None:
    """The table on stdout, or JSON there; the table too where the JSON goes to a file."""
    if json_file == "-":
        click.echo(json.dumps(values, indent=2))
        return
    click.echo(text)
    if json_file is not None:
        write_atomically(Path(json_file), [json.dumps(values, indent=2).encode() + b"\n"])


@contextmanager
def _progress(label: str) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar on a terminal; nothing when piped."""
    if not sys.stderr.isatty():
        yield None
        return
    with click.progressbar(length=1, label=label, file=sys.stderr) as bar:

        def update(done: int, total: int) -> None:
            bar.length = total
            bar.update(done - bar.pos)

        yield update


def _span(levels: list[int]) -> str:
    return str(levels[0]) if len(set(levels)) == 1 else ",".join(map(str, levels))


def _some(items: list[str], most: int = 5) -> list[str]:
    return items if len(items) <= most else [*items[:most], f"and {len(items) - most} more (--explain)"]


def _macs(network: Inspection) -> str:
    share = f", {network.spiking_macs / network.macs:.0%} of them on trains of spikes" if network.macs else ""
    return f"{network.macs / 1e6:.1f} M multiply-accumulates a sample{share}"


def _warnings(notes: list[Note]) -> list[str]:
    """One line for each warning, with the nodes that it is about."""
    nodes: dict[str, list[str]] = {}
    for note in notes:
        if note.warning:
            nodes.setdefault(note.reason, []).append(note.node)
    return [f"{reason}: {', '.join(_some(names))}" for reason, names in nodes.items()]


def _number(theta: float | list[float]) -> str:
    return f"{theta:.4g}" if isinstance(theta, float) else f"{theta[0]:.4g} to {theta[1]:.4g}"
