"""Looking into an ONNX file while it runs: tensors as further outputs, and tensors that are fed instead of computed.

The file is taken as it is, as onnxruntime reads it: nothing is inlined, converted or written anew. Names of our own
begin with a prefix that no name in the file has, so that nothing in it can be taken for a probe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from pascalc.errors import CompileError
from pascalc.graph import Array
from pascalc.ops import DOMAIN
from pascalc.protos import subgraphs
from pascalc.runtime import InferenceSession


def main_tensors(proto: onnx.ModelProto) -> set[str]:
    """The names of all tensors of the main graph."""
    return set(_tensors(proto.graph))


def foreign_functions(proto: onnx.ModelProto) -> list[str]:
    """The functions that the file defines outside the project's domain."""
    return sorted(f"{f.domain}.{f.name}" for f in proto.functions if f.domain != DOMAIN)


@dataclass(frozen=True)
class Kind:
    """The type and rank of a tensor that is fed. onnxruntime reuses memory by the shapes that it infers, and infers
    wrong ones behind an input of unknown rank."""

    dtype: np.dtype[np.generic]
    rank: int

    @classmethod
    def of(cls, array: Array) -> Kind:
        """Of an array."""
        return cls(array.dtype, array.ndim)

    def declare(self, name: str) -> onnx.ValueInfoProto:
        """Such an input, of any size."""
        kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype))
        return onnx.helper.make_tensor_value_info(name, kind, [f"{name}/{axis}" for axis in range(self.rank)])


class Probed:
    """A network that shows chosen tensors and takes chosen tensors from outside.

    Args:
        read: gives an ONNX file's contents; called once, so that nobody else holds them.
        outputs: names of the tensors of the main graph that :meth:`run` gives.
        cuts: names of tensors, with their kinds, that all that uses them takes from what is fed; what computes them
            still does, for :meth:`run` to show.
        folder: where the file's external data lies.
        threads: threads of onnxruntime; by default one for each core.
        stock: let onnxruntime do as it does by default, its wrong optimisers included.
        optimised: see :class:`pascalc.runtime.InferenceSession`.

    Raises:
        CompileError: there is no such tensor, or onnxruntime cannot load the network.
    """

    def __init__(
        self,
        read: Callable[[], bytes],
        outputs: Iterable[str],
        cuts: Mapping[str, Kind] | None = None,
        *,
        folder: Path | None = None,
        threads: int | None = None,
        stock: bool = False,
        optimised: bool = True,
    ) -> None:
        proto = onnx.ModelProto.FromString(read())
        self._wanted = list(dict.fromkeys(outputs))
        self._fed = _cut(proto, cuts or {})
        missing = {*self._wanted, *self._fed} - set(_tensors(proto.graph))
        if missing:
            raise CompileError(f"the network has no tensor {', '.join(map(repr, sorted(missing)))}")
        inputs = {v.name for v in proto.graph.input}
        self._computed = [n for n in self._wanted if n not in inputs]
        _show(proto.graph, self._computed)
        data = proto.SerializeToString()
        del proto  # one copy of the weights is enough
        self._session = InferenceSession(data, threads=threads, stock=stock, optimised=optimised, folder=folder)
        self._inputs = [i.name for i in self._session.inputs]

    def run(self, inputs: Mapping[str, Array], fed: Mapping[str, Array] | None = None) -> dict[str, Array]:
        """The tensors asked for, by name.

        Args:
            inputs: an array for every input of the network.
            fed: an array for every cut.

        Raises:
            CompileError: the network cannot be run on these.
        """
        given = {**inputs, **{self._fed[name]: array for name, array in (fed or {}).items() if name in self._fed}}
        feeds = {name: given[name] for name in self._inputs if name in given}
        found = dict(
            zip(self._computed, self._session.run(self._computed, feeds) if self._computed else (), strict=True)
        )
        return {name: found[name] if name in found else inputs[name] for name in self._wanted}


def _cut(proto: onnx.ModelProto, cuts: Mapping[str, Kind]) -> dict[str, str]:
    """Let all that uses these tensors use new inputs; gives the inputs' names."""
    if not cuts:
        return {}
    names = set(_all_names(proto.graph))
    prefix = "fed:"
    while any(name.startswith(prefix) for name in names):
        prefix = f"pascalc {prefix}"
    fed = {name: prefix + name for name in cuts}
    _rename(proto.graph.node, fed)
    proto.graph.input.extend(kind.declare(fed[name]) for name, kind in cuts.items())
    return fed


def _show(graph: onnx.GraphProto, names: Sequence[str]) -> None:
    """Make these tensors the outputs, and drop the nodes that none of them needs: onnxruntime would run them, or plan
    memory by the sizes that it infers for them, which may be wrong."""
    kept = [value for value in graph.output if value.name in names]
    declared = {value.name for value in kept}
    # a name alone: onnxruntime knows the types
    outputs = [*kept, *(onnx.ValueInfoProto(name=name) for name in names if name not in declared)]
    copies = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in outputs]
    del graph.output[:]
    graph.output.extend(copies)
    made_by = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    needed: set[int] = set()
    waiting = list(names)
    while waiting:  # by name: onnxruntime takes constants in any order
        index = made_by.get(waiting.pop())
        if index is not None and index not in needed:
            needed.add(index)
            waiting += _read(graph.node[index])
    nodes = [onnx.NodeProto.FromString(graph.node[index].SerializeToString()) for index in sorted(needed)]
    del graph.node[:]
    graph.node.extend(nodes)


def _read(node: onnx.NodeProto) -> Iterator[str]:
    """The names that a node and its subgraphs read."""
    yield from node.input
    for graph in subgraphs(node):
        yield from (value.name for value in graph.output)
        for inner in graph.node:
            yield from _read(inner)


def _rename(nodes: Sequence[onnx.NodeProto], names: Mapping[str, str]) -> None:
    """Rename what the nodes read, and what their subgraphs read and give of the main graph."""
    for node in nodes:
        node.input[:] = [names.get(n, n) for n in node.input]
        for graph in subgraphs(node):
            _rename(graph.node, names)
            for value in graph.output:
                value.name = names.get(value.name, value.name)


def _tensors(graph: onnx.GraphProto) -> Iterator[str]:
    yield from (v.name for v in graph.input)
    yield from (t.name for t in graph.initializer)
    yield from (t.values.name for t in graph.sparse_initializer)
    yield from (name for node in graph.node for name in node.output if name)


def _all_names(graph: onnx.GraphProto) -> Iterator[str]:
    yield from _tensors(graph)
    yield from (v.name for v in graph.output)
    for node in graph.node:
        yield from node.input
        for subgraph in subgraphs(node):
            yield from _all_names(subgraph)
