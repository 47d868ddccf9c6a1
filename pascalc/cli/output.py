"""What commands print: tables or JSON, and progress on a terminal."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click

from pascalc.cli.options import Output
from pascalc.errors import CompileError
from pascalc.files import is_stdout, write_atomically


def show(text: str, values: dict[str, Any], json_file: str | None) -> None:
    """The table on stdout, or JSON there; the table too where the JSON goes to a file."""
    if json_file is None:
        say(text)
        return
    report = json.dumps(values, indent=2)
    if is_stdout(Path(json_file)):
        say(report)
        return
    write_atomically(Path(json_file), [report.encode() + b"\n"])
    say(text)


def say(text: str) -> None:
    """Print a report: on stdout, or on stderr where the command has written a file to stdout."""
    context = click.get_current_context()
    taken = any(
        isinstance(p.type, Output) and p.name != "json_file" and path is not None and is_stdout(Path(path))
        for p in context.command.params
        for path in [context.params.get(p.name or "")]
    )
    with writing_to_stdout():
        click.echo("\n".join(map(harmless, text.split("\n"))), err=taken)


def harmless(text: str) -> str:
    """The text with escapes for control characters, which names in a file may hold and a terminal would obey."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@contextmanager
def writing_to_stdout() -> Iterator[None]:
    """Tell of a stdout that cannot be written.

    Raises:
        CompileError: it is full or closed, or nobody reads it.
    """
    try:
        yield
    except OSError as error:
        with suppress(OSError):  # what is still in the buffer would fail once more at the end of the process
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise CompileError(f"stdout cannot be written: {error.strerror or error}") from error


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar on a terminal; nothing when piped."""
    if not sys.stderr.isatty():
        yield None
        return
    with click.progressbar(length=1, label=label, file=sys.stderr) as bar:

        def update(done: int, total: int) -> None:
            bar.length, bar.finished = total, False  # of several passes each begins anew
            bar.make_step(done - bar.pos)
            bar.render_progress()

        yield update


def macs(total: int | None, on_spikes: int | None) -> str:
    """The multiply-accumulates of a sample and what share of them is on spikes, as words."""
    if total is None or on_spikes is None:
        return "multiply-accumulates not known: a size other than the batch is free"
    share = f", {on_spikes / total:.0%} of them on trains of spikes" if total else ""
    return f"{total / 1e6:.1f} M multiply-accumulates a sample{share}"


def named(path: Path | str) -> str:
    """An output's name, as it is told."""
    return "stdout" if is_stdout(Path(path)) else str(path)
