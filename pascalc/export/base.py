"""What an exporter is: a target that a spiking network is written for, and what that target cannot hold."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

from pascalc.network import Layout


class Refusal(NamedTuple):
    """Something of a network that a target cannot hold: at which node, and what."""

    node: str
    reason: str


@dataclass(frozen=True)
class Target(ABC):
    """What a network is exported to. Its fields are its options; the first line of its documentation is its summary.

    Attributes:
        name: its name on the command line, ``--to NAME``.
        carries: which networks it holds, and what of them, for people.
        loses: what of a network it does not hold, for people.
        proved: the software, with its version, that ran what is written and gave every train.
    """

    name: ClassVar[str]
    carries: ClassVar[str]
    loses: ClassVar[str]
    proved: ClassVar[str]

    @classmethod
    def summary(cls) -> str:
        """The first line of the target's documentation."""
        return (cls.__doc__ or "").strip().splitlines()[0]

    @abstractmethod
    def refusals(self, network: Layout) -> list[Refusal]:
        """What the target cannot hold of a network; nothing where it can be written."""

    @abstractmethod
    def write(self, network: Layout, folder: Path) -> None:
        """Write a network of which nothing is refused.

        Args:
            network: an unrolled network.
            folder: an empty folder.

        Raises:
            CompileError: an option does not fit the network, or a file cannot be written.
        """
