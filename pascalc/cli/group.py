"""One paragraph on stderr and an exit status for every error, and no file written over another of the command."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import click

from pascalc.cli.options import Output
from pascalc.cli.output import harmless, writing_to_stdout
from pascalc.errors import CompileError
from pascalc.files import beside, check_writable, is_stdout, is_stream, same
from pascalc.modelfile import check_output


class Command(click.Command):
    """A command that knows its files: it writes none over another, one at most to stdout, and looks before it works.

    Args:
        default_output: where the option ``output`` is left out, ``model.onnx`` gives ``model.<default_output>.onnx``.
    """

    def __init__(self, *args: Any, default_output: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.default_output = default_output

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with writing_to_stdout():  # --help
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        if self.default_output is not None and ctx.params["output"] is None:
            ctx.params["output"] = beside(ctx.params["model"], self.default_output)
        _check_files(ctx)
        return super().invoke(ctx)


def _check_files(ctx: click.Context) -> None:
    """Refuse outputs that would destroy a file of the command, or that cannot be written."""
    others: list[Path] = []
    written: dict[str, tuple[Output, Path]] = {}
    for parameter in ctx.command.params:
        value = ctx.params.get(parameter.name or "")
        if isinstance(parameter.type, Output) and value is not None:
            written[parameter.opts[0]] = parameter.type, Path(value)
        elif isinstance(parameter.type, click.Path) and value is not None:
            others += value if isinstance(value, tuple) else [value]
    to_stdout = [option for option, (_, path) in written.items() if is_stdout(path)]
    if len(to_stdout) > 1:
        raise click.UsageError(f"{' and '.join(to_stdout)} cannot both go to stdout", ctx)
    models = [ctx.params[p.name] for p in ctx.command.params if isinstance(p, click.Argument) and p.name]
    for option, (kind, path) in written.items():
        if is_stream(path):  # nothing there to destroy
            continue
        for model in models:
            check_output(model, path, kind.what, option)
        for other in others:
            if same(path, other) or (path.suffix == ".npz" and other.is_dir() and same(path.parent, other)):
                raise CompileError(
                    f"{kind.what} would overwrite this file", file=path, hint=f"Choose another {option} FILE."
                )
        check_writable(path)
        others.append(path)


class Group(click.Group):
    """Turns every error into one paragraph on stderr and an exit status."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with _told(debug=False), writing_to_stdout():  # --help and --version
            _prepare_streams()
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        with _told(debug=ctx.params["debug"]):
            return super().invoke(ctx)


def _prepare_streams() -> None:
    """Make stdin, stdout and stderr safe to have.

    One that is closed leaves its number to the next file that is opened, and what a library prints would go into that
    file. And paths and names may hold what the streams' encoding lacks.

    Raises:
        CompileError: stdout was closed from the start.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if sys.stdout is None:
        raise CompileError("stdout is closed", hint="Send it to /dev/null if it is not wanted.")


@contextmanager
def _told(debug: bool) -> Iterator[None]:
    """Every error becomes a paragraph on stderr and status 2; with ``debug`` a traceback.

    Interruptions end the process by their signal, so that a shell sees what happened.
    """
    try:
        yield
    except KeyboardInterrupt:
        _die_of(signal.SIGINT)
    except click.ClickException as error:
        with suppress(OSError):  # of a full stderr
            error.show()
        sys.exit(error.exit_code)
    except CompileError as error:
        if isinstance(error.__cause__, BrokenPipeError):
            _die_of(signal.SIGPIPE)
        if debug:
            raise
        _fail(str(error))
    except (click.exceptions.Exit, click.Abort):
        raise
    except MemoryError:
        if debug:
            raise
        _fail("there is not enough memory for this. A smaller --batch needs less.")
    except Exception as error:  # a bug of ours: no traceback unless asked for, and never status 0
        if debug:
            raise
        _fail(f"internal error: {type(error).__name__}: {error}. 'pascalc --debug ...' shows where; please report it.")


def _fail(message: str) -> NoReturn:
    with suppress(OSError):  # of a full stderr
        click.echo(f"pascalc: {harmless(message)}", err=True)
    sys.exit(2)


def _die_of(number: int) -> None:
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
