"""The command that writes spiking networks for other engines and toolchains."""

from __future__ import annotations

from pathlib import Path

import click

from pascalc.cli.group import Command
from pascalc.cli.options import FILE, json_option
from pascalc.cli.output import show
from pascalc.files import STDOUT


def _list_targets(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    """For each target: what it carries, what it loses, which software and version proved it."""
    if not wanted or context.resilient_parsing:
        return
    from pascalc.export import TARGETS

    blocks = []
    for target in TARGETS:
        lines = [f"  carries: {target.carries}", f"  loses:   {target.loses}", f"  proved:  {target.proved}"]
        blocks.append("\n".join([f"{target.name}: {target.summary()}", *lines]))
    click.echo("\n\n".join(blocks))
    context.exit()


@click.command("export", cls=Command)
@click.argument("model", type=FILE, metavar="SNN.onnx")
@click.option("--to", "name", required=True, metavar="TARGET", help="One of those that --list shows.")
@click.option(
    "-o",
    "--output",
    type=FILE,
    required=True,
    metavar="OUT",
    help="The folder to write; a new one, or an empty one.",
)
@click.option("--data", type=FILE, metavar="DATA", help="Inputs whose spike trains are written too, as for `eval`.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N of them [10].")
@click.option(
    "--list", is_flag=True, is_eager=True, expose_value=False, callback=_list_targets, help="List the targets, and end."
)
@json_option
def export_command(
    model: Path, name: str, output: Path, data: Path | None, limit: int | None, json_file: str | None
) -> None:
    """Write SNN.onnx for another engine or toolchain, as a folder."""
    from pascalc.export import export, target

    output = STDOUT if str(output) == "-" else output
    export(model, target(name, {"data": data, "limit": limit}), output)
    files = {file.name: file.stat().st_size for file in sorted(output.iterdir())}
    text = f"{output}: {', '.join(f'{file} ({size:,} bytes)' for file, size in files.items())}"
    show(text, {"output": str(output), "target": name, "files": files}, json_file)
