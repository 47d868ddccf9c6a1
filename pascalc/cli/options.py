"""Options that several commands share."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import click

from pascalc.errors import CompileError
from pascalc.files import STDOUT


class File(click.Path):
    """A path, which has a name."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not os.fspath(value):
            self.fail("the path is empty", param, ctx)
        return super().convert(value, param, ctx)


class Output(File):
    """Where something is written; "-" is stdout.

    Args:
        what: what is written, for messages.
    """

    def __init__(self, what: str, path_type: type[Path] | type[str] = Path) -> None:
        super().__init__(path_type=path_type)
        self.what = what

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(STDOUT if value == "-" else value, param, ctx)


class Positive(click.FloatRange):
    """A number above 0, and not an infinite one."""

    def __init__(self) -> None:
        super().__init__(min=0, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number", param, ctx)
        return number


FILE = File(path_type=Path)
OUTPUT = Output("the output")

json_option = click.option(
    "--json",
    "json_file",
    type=Output("the report", str),
    metavar="FILE",
    help="Write the report as JSON; '-' for stdout.",
)
limit_option = click.option("--limit", type=click.IntRange(min=1), help="Only the first N samples.", metavar="N")
batch_option = click.option(
    "--batch", type=click.IntRange(min=1), default=16, show_default=True, help="Samples a run.", metavar="N"
)


def workers_options(command: Any) -> Any:
    """The options of commands whose data several processes can share."""
    for option in (
        click.option("--dask", metavar="ADDRESS", help="Share the data among the workers of this Dask scheduler."),
        click.option(
            "--workers", type=click.IntRange(min=1), metavar="N", help="Share the data among N processes of one thread."
        ),
    ):
        command = option(command)
    return command


data_option = click.option(
    "--data",
    type=FILE,
    required=True,
    metavar="DATA",
    help="An .npz (x: inputs, y: labels), a .npy of inputs, or a folder of .npz shards.",
)


def _numbers(text: str) -> list[int]:
    """Integers separated by commas."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise click.BadParameter(f"'{text}' is not a list of integers such as 8,4,1") from None


def _share(text: str) -> float:
    """A share, written in percent."""
    from pascalc.planning.sensitivity import check_budget

    try:
        share = float(text.removesuffix("%")) / 100 if text.endswith("%") else math.nan
        check_budget(share)
    except (ValueError, CompileError):
        raise click.BadParameter(f"'{text}' is not a percentage from 0% to below 100%, such as 0.5%") from None
    return share


def plan_options(command: Any) -> Any:
    """The options of commands that plan levels, by the names of the parameters of `pascalc.plan`."""
    for option in (
        workers_options,
        click.option(
            "--calib", "calibration", type=FILE, metavar="DATA", help="Inputs to calibrate on, as for --data of `eval`."
        ),
        click.option(
            "--correct", is_flag=True, help="Correct shifts and thresholds of the requantised network; needs --calib."
        ),
        click.option(
            "--al-steps",
            "steps",
            type=Positive(),
            metavar="T",
            help="Layerwise L of least loss at T effective time steps (paper's estimator); needs --calib.",
        ),
        click.option(
            "--al-budget",
            "budget",
            type=_share,
            metavar="P%",
            help="Layerwise L of fewest steps with at most P% of the classifications changed; needs --calib.",
        ),
        click.option(
            "--al-levels",
            "levels",
            type=_numbers,
            metavar="8,4,1",
            help="L of each cluster from lowest to highest metric [halving].",
        ),
        click.option(
            "--al-clusters",
            "clusters",
            type=click.IntRange(min=1),
            metavar="N",
            help="Layerwise L from the AL metric in N clusters.",
        ),
    ):
        command = option(command)
    return command
