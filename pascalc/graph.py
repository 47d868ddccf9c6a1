"""The network in memory: an onnx-graphsurgeon graph with what ONNX files carry beside it, and the few edits passes use.

Tensors and nodes are compared by identity here: graphsurgeon's ``==`` compares tensors by name and nodes by structure.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from pascalc.errors import CompileError
from pascalc.ops import DOMAIN
from pascalc.protos import copy

#: The name of the batch dimension in the shapes that shape inference leaves on tensors.
BATCH = "batch"

Array = NDArray[Any]


class NoteKind(Enum):
    """What a note is about. Readers ask for this, never for who wrote the note."""

    OTHER_BODY = auto()  #: the file has a body of an operator of ours that is not this version's
    NEAR_MISS = auto()  #: an activation that is nearly QCFS, and stays as it is
    NOT_SPIKING = auto()  #: an operator that is computed on sums over time
    REFUSED = auto()  #: another rewrite that was not made
    WARNING = auto()  #: what everybody has to know; shown unasked


@dataclass(frozen=True)
class Note:
    """Something that loading or a pass, ``source``, wants the user to know of a node; its text is "node: reason"."""

    source: str
    node: str
    reason: str
    kind: NoteKind

    def __str__(self) -> str:
        return f"{self.node}: {self.reason}"

    @property
    def warning(self) -> bool:
        """Whether it is shown unasked."""
        return self.kind is NoteKind.WARNING


@dataclass
class Model:
    """A network on its way through the compiler.

    ``interface_inputs`` and ``interface_outputs`` are the source's own declarations; they go into the emitted file
    unchanged, save for a batch that free-batch makes dynamic. On tensors, ``shape`` is a list whose first entry is
    :data:`BATCH` where axis 0 is the batch, or None where nothing is known. ``rewritten``: the file has operators that
    no stock runtime knows, and loading wrote them out in standard ones.
    """

    graph: gs.Graph
    opset: int
    ir_version: int
    interface_inputs: list[onnx.ValueInfoProto]
    interface_outputs: list[onnx.ValueInfoProto]
    file: Path | None = None
    digest: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    rewritten: bool = False
    _names: set[str] | None = None

    def copy(self) -> Model:
        """The same network, to be changed apart from this one; the values of weights are shared."""
        graph = self.graph.copy()
        for part in (graph, *graph.subgraphs(recursive=True)):
            for tensor in part.tensors(check_duplicates=False).values():
                if not isinstance(tensor, gs.Constant) and tensor.shape is not None:
                    tensor.shape = list(tensor.shape)
            for node in part.nodes:
                node.attrs.update((key, list(value)) for key, value in node.attrs.items() if isinstance(value, list))
        declared = [[copy(value) for value in values] for values in (self.interface_inputs, self.interface_outputs)]
        return replace(
            self,
            graph=graph,
            interface_inputs=declared[0],
            interface_outputs=declared[1],
            metadata=dict(self.metadata),
            notes=list(self.notes),
            _names=None,
        )

    def note(self, source: str, node: str, reason: str, kind: NoteKind = NoteKind.REFUSED) -> None:
        """Tell the user something; shown by ``--explain`` and in reports, a warning unasked."""
        self.notes.append(Note(source, node, reason, kind))

    def noted(self, kind: NoteKind) -> list[Note]:
        """The notes of a kind."""
        return [note for note in self.notes if note.kind is kind]

    def unique_name(self, wanted: str) -> str:
        """``wanted``, or ``wanted`` with a number, such that no tensor, node or graph input has it."""
        if self._names is None:
            names = {t.name for t in self.graph.tensors().values()} | {n.name for n in self.graph.nodes}
            for subgraph in self.graph.subgraphs(recursive=True):
                names |= set(subgraph.tensors()) | {n.name for n in subgraph.nodes}
            names |= {v.name for v in (*self.interface_inputs, *self.interface_outputs)}
            self._names = names
        name, number = wanted, 1
        while name in self._names:
            number += 1
            name = f"{wanted}_{number}"
        self._names.add(name)
        return name

    def constant(self, wanted_name: str, values: Array) -> gs.Constant:
        """A new initializer of a name near ``wanted_name``."""
        return gs.Constant(self.unique_name(wanted_name), np.ascontiguousarray(values).reshape(values.shape))

    def variable(self, wanted_name: str, like: gs.Tensor, shape: list[Any] | None = None) -> gs.Variable:
        """A new tensor of ``like``'s type, of a name near ``wanted_name``."""
        return gs.Variable(self.unique_name(wanted_name), like.dtype, like.shape if shape is None else shape)

    def domain_version(self, domain: str) -> int:
        """The version of an operator domain that the file imports."""
        return next((int(o.version) for o in self.graph.import_domains or [] if o.domain == domain), 1)

    def is_output(self, tensor: gs.Tensor) -> bool:
        """Whether the tensor is an output of the network."""
        return any(tensor is output for output in self.graph.outputs)

    def uses_more(self, node: gs.Node) -> bool:
        """Whether anything uses another output of the node than its first: the indices of maxima, a mask, statistics.
        An output of the network is used."""
        return any(tensor.outputs or self.is_output(tensor) for tensor in node.outputs[1:])


def is_constant(tensor: gs.Tensor) -> bool:
    """Whether the tensor is an initializer."""
    return isinstance(tensor, gs.Constant)


def producer(tensor: gs.Tensor) -> gs.Node | None:
    """The node that computes the tensor; None for graph inputs and initializers."""
    return tensor.inputs[0] if tensor.inputs else None


def is_operator(node: gs.Node | None, *names: str, domain: str = "") -> TypeGuard[gs.Node]:
    """Whether the node is one of the named operators of a domain (the standard one unless told)."""
    return node is not None and node.op in names and (node.domain or "") == domain


def is_ours(node: gs.Node | None, *names: str) -> TypeGuard[gs.Node]:
    """Whether the node is one of the named operators of the domain ``ai.pascalc``."""
    return node is not None and node.domain == DOMAIN and node.op in names


def has_tensor(node: gs.Node, index: int) -> bool:
    """Whether the optional input is given."""
    return len(node.inputs) > index and not node.inputs[index].is_empty()


def set_input(node: gs.Node, index: int, tensor: gs.Tensor) -> None:
    """Replace one input, or append it where the node had fewer."""
    while len(node.inputs) < index:
        node.inputs.append(gs.Variable.empty())
    if len(node.inputs) == index:
        node.inputs.append(tensor)
    else:
        node.inputs[index] = tensor


def sort(model: Model) -> None:
    """Order the nodes so that every tensor is computed before it is used; nodes keep their order where they can.

    Raises:
        CompileError: the graph has a cycle.
    """
    nodes = model.graph.nodes
    position = {id(node): index for index, node in enumerate(nodes)}
    state: dict[int, int] = {}
    ordered: list[gs.Node] = []
    for root in nodes:
        stack = [(root, iter(_needs(root, position)))] if id(root) not in state else []
        if stack:
            state[id(root)] = 1
        while stack:
            node, needs = stack[-1]
            for need in needs:
                if id(need) not in state:
                    state[id(need)] = 1
                    stack.append((need, iter(_needs(need, position))))
                    break
                if state[id(need)] == 1:
                    raise CompileError("the graph has a cycle", file=model.file, node=need.name)
            else:
                stack.pop()
                state[id(node)] = 2
                ordered.append(node)
    nodes[:] = ordered


def _needs(node: gs.Node, position: dict[int, int]) -> list[gs.Node]:
    tensors = [*node.inputs, *captured(node)]
    return [p for t in tensors for p in t.inputs if id(p) in position]


def captured(node: gs.Node) -> list[gs.Tensor]:
    """The tensors of the main graph that the node's subgraphs (If, Loop, Scan) use."""
    found: dict[int, gs.Tensor] = {}
    for value in node.attrs.values():
        if isinstance(value, gs.Graph):
            local = {id(t) for n in value.nodes for t in n.outputs} | {id(t) for t in value.inputs}
            for inner in value.nodes:
                for tensor in (*inner.inputs, *captured(inner)):
                    if id(tensor) not in local and not is_constant(tensor) and not tensor.is_empty():
                        found[id(tensor)] = tensor
            for tensor in value.outputs:
                if id(tensor) not in local and not is_constant(tensor):
                    found[id(tensor)] = tensor
    return list(found.values())


def living(model: Model) -> list[gs.Node]:
    """The nodes that an output of the network depends on, in the order of the graph."""
    alive: set[int] = set()
    stack = [p for t in model.graph.outputs for p in t.inputs]
    while stack:
        node = stack.pop()
        if id(node) not in alive:
            alive.add(id(node))
            stack += [p for t in (*node.inputs, *captured(node)) for p in t.inputs]
    return [node for node in model.graph.nodes if id(node) in alive]


def sweep(model: Model) -> int:
    """Remove the nodes that no output of the network depends on; returns how many."""
    kept = living(model)
    alive = {id(node) for node in kept}
    dead = [node for node in model.graph.nodes if id(node) not in alive]
    model.graph.nodes[:] = kept
    for node in dead:
        node.inputs.clear()
        node.outputs.clear()
    return len(dead)


def sizes_hint(model: Model, tensor: gs.Tensor) -> str:
    """The way out where the sizes of a tensor are not known: the input's, or those of the first operator behind which
    they are lost."""
    if all(is_sized(value) for value in model.graph.inputs):
        before, stack = set[int](), [*tensor.inputs]
        while stack:
            node = stack.pop()
            if id(node) not in before and not all(is_sized(t) for t in node.outputs):
                before.add(id(node))
                stack += [p for t in (*node.inputs, *captured(node)) for p in t.inputs]
        for node in model.graph.nodes:
            if id(node) in before:
                name = node.name or node.outputs[0].name
                return f"They are not known behind '{name}' ({node.op}), which no sizes can be inferred through."
    return "Export the model with a fixed input size; only the batch may be free."


def is_sized(tensor: gs.Tensor) -> bool:
    """Whether the sizes of a sample are known."""
    return tensor.shape is not None and all(isinstance(size, int) for size in tensor.shape[1:])


def operators(model: Model) -> Counter[str]:
    """How often each operator occurs, for messages."""
    return Counter(node.op for node in model.graph.nodes)
