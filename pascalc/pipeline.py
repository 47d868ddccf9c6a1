"""Runs passes over a model; everything that only watches is an observer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import onnx.printer

from pascalc.errors import CompileError
from pascalc.files import write_atomically
from pascalc.graph import Model
from pascalc.modelfile import skeleton
from pascalc.passes.base import Pass


class Observer(Protocol):
    """Called after every pass with its number of rewrites and the seconds that it took."""

    def after(self, index: int, step: Pass, model: Model, rewrites: int, seconds: float) -> None: ...


@dataclass
class Timing:
    """Collects name, rewrites and seconds of every pass."""

    rows: list[tuple[str, int, float]] = field(default_factory=list)

    def after(self, index: int, step: Pass, model: Model, rewrites: int, seconds: float) -> None:
        self.rows.append((step.name(), rewrites, seconds))


@dataclass
class Dump:
    """Writes the model as ONNX text after every pass: ``01-infer-shapes.onnxtxt``, ... Big weights appear as inputs."""

    folder: Path

    def __post_init__(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CompileError(f"the folder cannot be made: {error.strerror}", file=self.folder) from error

    def after(self, index: int, step: Pass, model: Model, rewrites: int, seconds: float) -> None:
        text = onnx.printer.to_text(skeleton(model)[0])
        write_atomically(self.folder / f"{index:02d}-{step.name()}.onnxtxt", [text.encode()])


def run(
    model: Model, passes: Sequence[Pass], observers: Sequence[Observer] = (), stop_after: str | None = None
) -> None:
    """Run the passes in order, up to and including ``stop_after``.

    Raises:
        CompileError: a pass cannot compile the model, or ``stop_after`` is none of the passes.
        ValueError: a pass requires what no earlier pass provides.
    """
    names = [step.name() for step in passes]
    if stop_after is not None and stop_after not in names:
        raise CompileError(f"there is no pass '{stop_after}' in this pipeline", hint=f"It has: {', '.join(names)}.")
    provided: set[str] = set()
    for index, step in enumerate(passes, 1):
        missing = step.requires - provided
        if missing:
            raise ValueError(f"{step.name()} requires {', '.join(sorted(missing))}, which no pass before it provides")
        started = time.perf_counter()
        rewrites = step.run(model)
        seconds = time.perf_counter() - started
        provided |= step.provides
        for observer in observers:
            observer.after(index, step, model, rewrites, seconds)
        if step.name() == stop_after:
            return
