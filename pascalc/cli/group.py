"""One paragraph on stderr and an exit status for every error."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from pascalc.errors import CompileError


class Command(click.Command):
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


class Group(click.Group):
    """Turns every error into one paragraph on stderr and an exit status."""

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
