"""What commands print: tables or JSON, and progress on a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from pascalc.files import write_atomically


def show(text: str, values: dict[str, Any], json_file: str | None) -> None:
    """The table on stdout, or JSON there; the table too where the JSON goes to a file."""
    if json_file == "-":
        click.echo(json.dumps(values, indent=2))
        return
    click.echo(text)
    if json_file is not None:
        write_atomically(Path(json_file), [json.dumps(values, indent=2).encode() + b"\n"])


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar on a terminal; nothing when piped."""
    if not sys.stderr.isatty():
        yield None
        return
    with click.progressbar(length=1, label=label, file=sys.stderr) as bar:

        def update(done: int, total: int) -> None:
            bar.length = total
            bar.update(done - bar.pos)

        yield update


def macs(total: int | None, on_spikes: int | None) -> str:
    """The multiply-accumulates of a sample and what share of them is on spikes, as words."""
    if total is None or on_spikes is None:
        return "multiply-accumulates not known: a size other than the batch is free"
    share = f", {on_spikes / total:.0%} of them on trains of spikes" if total else ""
    return f"{total / 1e6:.1f} M multiply-accumulates a sample{share}"
