"""Runs passes over a model; everything that only watches is an observer."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import onnx.printer

from pascalc.errors import CompileError
from pascalc.files import write_atomically
from pascalc.graph import Model
from pascalc.modelfile import skeleton
from pascalc.passes.base import Pass
from pascalc.passes.facts import INTACT, Fact


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
) -> set[Fact]:
    """Run the passes in order, up to and including ``stop_after``.

    Returns:
        The facts that the passes provided.

    Raises:
        CompileError: a pass cannot compile the model, or ``stop_after`` is none of the passes.
        ValueError: a fault of ours: a pass requires what no earlier pass provides, or what it requires or provides is
            not true of the graph.
    """
    names = [step.name() for step in passes]
    if stop_after is not None and stop_after not in names:
        raise CompileError(f"there is no pass '{stop_after}' in this pipeline", hint=f"It has: {', '.join(names)}.")
    provided: set[Fact] = set()
    for index, step in enumerate(passes, 1):
        missing = step.requires - provided
        if missing:
            lacking = ", ".join(sorted(fact.name for fact in missing))
            raise ValueError(f"{step.name()} requires {lacking}, which no pass before it provides")
        _check(model, step, "requires", step.requires)
        started = time.perf_counter()
        rewrites = step.run(model)
        seconds = time.perf_counter() - started
        _check(model, step, "provides", {INTACT, *step.provides})
        provided |= step.provides
        for observer in observers:
            observer.after(index, step, model, rewrites, seconds)
        if step.name() == stop_after:
            break
    return provided


def _check(model: Model, step: Pass, relation: str, facts: Iterable[Fact]) -> None:
    for fact in sorted(facts, key=lambda fact: fact.name):
        wrong = fact.holds(model)
        if wrong:
            raise ValueError(f"a fault of ours: {step.name()} {relation} the fact '{fact.name}', but {wrong}")
