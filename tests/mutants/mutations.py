"""All kinds of mutations: importing their modules registers them, in this order."""

from __future__ import annotations

from tests.mutants import (
    attributes,
    batches,
    computed,
    constants,
    decoys,
    files,
    functions,
    inserted,
    rare,
    steps,
    wiring,
)
from tests.mutants.kinds import HEAVY, KINDS

MODULES = (constants, attributes, wiring, inserted, batches, steps, rare, decoys, functions, computed, files)

__all__ = ["HEAVY", "KINDS", "MODULES"]
