"""What a pass is: one rewrite of the graph, valid network in, valid network out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from pascalc.graph import Model
from pascalc.passes.facts import Fact


@dataclass(frozen=True)
class Pass(ABC):
    """One rewrite. A pass is a frozen dataclass whose fields are its options.

    ``requires`` and ``provides`` are facts about the graph (passes/facts.py); the pipeline refuses an order in which a
    fact is required before it is provided, and looks each of them up. The pass's name is its file's, with dashes.
    """

    requires: ClassVar[frozenset[Fact]] = frozenset()
    provides: ClassVar[frozenset[Fact]] = frozenset()

    @classmethod
    def name(cls) -> str:
        """The name on the command line, in dumps and in docs."""
        return cls.__module__.rpartition(".")[2].replace("_", "-")

    @classmethod
    def summary(cls) -> str:
        """The first line of the pass's documentation."""
        return (cls.__doc__ or "").strip().splitlines()[0]

    @abstractmethod
    def run(self, model: Model) -> int:
        """Rewrite the model in place; returns the number of rewrites.

        Raises:
            pascalc.errors.CompileError: the network cannot be compiled, with the node and the way out.
        """
