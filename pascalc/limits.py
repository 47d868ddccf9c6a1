"""How large and how deep an untrusted file may be; what is beyond is refused before time or memory is spent on it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx

from pascalc.errors import CompileError
from pascalc.graph import Array
from pascalc.protos import subgraphs

#: Nodes after functions are inlined, inputs, outputs and initializers, subgraphs included. Compiling takes about
#: 0.3 ms and 7 KiB for each.
MAX_ITEMS = 100_000
#: Functions that call functions; onnx's own inliner has the same limit.
MAX_CALLS = 100

Key = tuple[str, str]


def check_size(model: onnx.ModelProto, path: Path) -> None:
    """Refuse a model that is too large as it is, or that its functions make too large.

    Raises:
        CompileError: more than :data:`MAX_ITEMS`, or functions that call each other without end.
    """
    bodies = {(f.domain, f.name): f for f in model.functions}
    sizes: dict[Key, int] = {}

    def size_of(nodes: Iterable[onnx.NodeProto], depth: int) -> int:
        total = 0
        for node in nodes:
            key = (node.domain, node.op_type)
            if key not in bodies:
                total += 1
                continue
            if key not in sizes:
                if depth == MAX_CALLS:
                    raise CompileError(
                        f"its functions call themselves, or one another more than {MAX_CALLS} deep",
                        file=path,
                        node=node.op_type,
                        hint="Export without recursive functions.",
                    )
                sizes[key] = size_of(all_nodes(bodies[key].node), depth + 1)
            total += sizes[key]
        return total

    for function in model.functions:  # onnx looks at those that are never called, too
        size_of(all_nodes(function.node), 1)
    graph = model.graph
    items = size_of(all_nodes(graph.node), 0) + len(graph.input) + len(graph.output) + len(graph.initializer)
    if items > MAX_ITEMS:
        raise CompileError(
            f"the network has {items:,} nodes and tensors of its own; the limit is {MAX_ITEMS:,}",
            file=path,
            hint="Simplify the file first, for example with onnxslim or onnxsim.",
        )


def all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """The nodes, and those of their subgraphs; protobuf itself bounds how deep these nest."""
    for node in nodes:
        yield node
        for graph in subgraphs(node):
            yield from all_nodes(graph.node)


def check_numbers(array: Array, name: str, path: Path) -> None:
    """Refuse weights that are not numbers; thresholds, which run along one axis at most, are told of where they are
    recognised.

    Raises:
        CompileError: a value is NaN.
    """
    if array.dtype.kind == "f" and array.size and max(array.shape, default=1) < array.size:
        with np.errstate(invalid="ignore"):
            smallest = array.min()
        if np.isnan(smallest):
            raise CompileError(
                "a weight is not a number (NaN)", file=path, node=name, hint="The training has diverged: train again."
            )
