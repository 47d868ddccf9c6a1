"""The command line: click only; every command is one call of the Python API and a table."""

from __future__ import annotations

import click

from pascalc.cli.checking import (
    eval_command,
    inspect_command,
    passes_command,
    reduce_command,
    report_command,
    verify_command,
)
from pascalc.cli.compiling import compile_command, histogram_command, plan_command
from pascalc.cli.exporting import export_command
from pascalc.cli.group import Group
from pascalc.version import __version__


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pascalc")
@click.option("--debug", is_flag=True, help="Show a traceback with every error.")
def main(debug: bool) -> None:
    """Turn a trained QCFS network (ONNX) into the spiking network that is mathematically the same (ONNX).

    Exit status: 0 good, 1 the check asked for failed, 2 bad input or usage.
    """


for _command in (
    *(compile_command, plan_command, histogram_command, verify_command, eval_command, inspect_command),
    *(report_command, reduce_command, passes_command, export_command),
):
    main.add_command(_command)
