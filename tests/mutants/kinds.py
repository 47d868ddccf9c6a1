"""The register of mutations: each changes a file in place and says what it did; None where it does not apply."""

from __future__ import annotations

from collections.abc import Callable

from tests.mutants.edits import Net

Mutation = Callable[[Net], "str | None"]
#: Every kind by its name, from the modules that `tests.mutants.mutations` names.
KINDS: dict[str, Mutation] = {}
#: Kinds that must never be run: they take more memory than there is. onnxruntime computes what is dead, too.
HEAVY = frozenset({"a million steps, live", "a million steps, dead"})

LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization")


def kind(name: str) -> Callable[[Mutation], Mutation]:
    def register(function: Mutation) -> Mutation:
        KINDS[name] = function
        return function

    return register
