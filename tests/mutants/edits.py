"""A compiled file in the making of a mutant: finding places, and putting operators there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from tests.mutants.networks import NEURONS, Subject
from tests.small_networks import Array

DOMAIN = "ai.pascalc"
#: An operator to be put behind a tensor: (the file, its name) to the name of what replaces it.
Make = Callable[["Net", str], str]


class Net:
    """The file, changed in place. New nodes wait in ``made`` until :meth:`place` puts them in front of a node."""

    def __init__(self, subject: Subject, proto: onnx.ModelProto, rng: np.random.Generator) -> None:
        self.subject, self.proto, self.rng = subject, proto, rng
        self.graph = proto.graph
        self.made: list[onnx.NodeProto] = []
        self.tensors, self.peak = dict(subject.tensors), dict(subject.peak)

    # --- looking ------------------------------------------------------------------------------------------------------

    @property
    def opset(self) -> int:
        return next(o.version for o in self.proto.opset_import if o.domain in ("", "ai.onnx"))

    @property
    def nodes(self) -> list[onnx.NodeProto]:
        return list(self.graph.node)

    @property
    def ours(self) -> list[onnx.NodeProto]:
        return [n for n in self.graph.node if n.domain == DOMAIN]

    @property
    def neurons(self) -> list[onnx.NodeProto]:
        return [n for n in self.ours if n.op_type in NEURONS]

    @property
    def outputs(self) -> list[str]:
        return [v.name for v in self.graph.output]

    def initializers(self, kind: str = "f") -> list[onnx.TensorProto]:
        return [t for t in self.graph.initializer if helper.tensor_dtype_to_np_dtype(t.data_type).kind in kind]

    def initializer(self, name: str) -> onnx.TensorProto | None:
        return next((t for t in self.graph.initializer if t.name == name), None)

    def known(self, name: str, kinds: str = "f") -> bool:
        """Whether it is a tensor whose shape is known, of this kind."""
        return name in self.tensors and self.tensors[name][0].kind in kinds

    def shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name][1]

    def dtype(self, name: str) -> Any:
        return self.tensors[name][0]

    def steps(self, name: str) -> int:
        """Time steps of a tensor, as far as its size tells."""
        shape = self.shape(name)
        return shape[0] // self.subject.rows if shape and shape[0] and shape[0] % self.subject.rows == 0 else 1

    def edges(self, kinds: str = "f") -> list[tuple[onnx.NodeProto, int]]:
        """Inputs of nodes that are computed, of known shape."""
        return [(n, k) for n in self.graph.node for k, t in enumerate(n.input) if self.known(t, kinds)]

    def producer(self, name: str) -> onnx.NodeProto | None:
        return next((n for n in self.graph.node if name in n.output), None)

    def pick(self, items: Iterable[Any]) -> Any:
        """One of them; None if there is none."""
        items = list(items)
        return items[int(self.rng.integers(len(items)))] if items else None

    # --- changing -----------------------------------------------------------------------------------------------------

    def change(self, tensor: onnx.TensorProto, values: Array) -> None:
        kind = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        tensor.CopyFrom(numpy_helper.from_array(np.asarray(values, kind), tensor.name))

    def own(self, node: onnx.NodeProto, index: int) -> onnx.TensorProto | None:
        """The initializer of an input, which from now on is this node's alone."""
        tensor = self.initializer(node.input[index])
        if tensor is None:
            return None
        copy = self.graph.initializer.add()
        copy.CopyFrom(tensor)
        copy.name = self.fresh(tensor.name)
        node.input[index] = copy.name
        return copy

    def fresh(self, name: str) -> str:
        taken = {t for n in (*self.graph.node, *self.made) for t in (*n.input, *n.output)}
        taken |= {t.name for t in self.graph.initializer} | {v.name for v in self.graph.input} | set(self.outputs)
        number = 0
        while f"{name}.{number}" in taken:
            number += 1
        return f"{name}.{number}"

    def const(self, values: Any, dtype: Any) -> str:
        name = self.fresh("constant")
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def node(self, op: str, inputs: list[str], **attributes: Any) -> str:
        """A new node, waiting to be placed; gives its output."""
        out = self.fresh(op.lower())
        domain = attributes.pop("domain", "")
        self.made.append(helper.make_node(op, inputs, [out], name=out, domain=domain, **attributes))
        return out

    def place(self, before: onnx.NodeProto | None = None) -> None:
        """Put what was made in front of a node, or at the end."""
        at = self.nodes.index(before) if before is not None else len(self.graph.node)
        nodes = [*self.nodes[:at], *self.made, *self.nodes[at:]]
        copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
        del self.graph.node[:]
        self.graph.node.extend(copies)
        self.made = []

    def rename(self, old: str, new: str) -> None:
        """Give a tensor another name everywhere but in the declared inputs and outputs."""
        for node in self.graph.node:
            _rename(node, old, new)
        for value in self.graph.value_info:
            if value.name == old:
                value.name = new

    def through(self, make: Make, fits: Callable[[str], bool] | None = None, kinds: str = "f") -> str | None:
        """Put operators on an edge, behind a tensor, or in front of an output; gives where, or None if nowhere."""
        fits = fits or (lambda name: True)
        ways: list[Callable[[], str | None]] = [
            lambda: self._edge(make, fits, kinds),
            lambda: self._edge(make, fits, kinds),
            lambda: self._tensor(make, fits, kinds),
            lambda: self._output(make, fits, kinds),
        ]
        self.rng.shuffle(ways)  # type: ignore[arg-type]
        return next((where for way in ways if (where := way()) is not None), None)

    def _edge(self, make: Make, fits: Callable[[str], bool], kinds: str) -> str | None:
        edge = self.pick((n, k) for n, k in self.edges(kinds) if fits(n.input[k]))
        if edge is None:
            return None
        node, index = edge
        name = node.input[index]
        new = make(self, name)
        node.input[index] = new
        where = f"on the edge from {name} to {node.name or node.output[0]}"
        self.place(node)
        return where

    def _tensor(self, make: Make, fits: Callable[[str], bool], kinds: str) -> str | None:
        name = self.pick(sorted({n.input[k] for n, k in self.edges(kinds) if fits(n.input[k])} - set(self.outputs)))
        if name is None:
            return None
        first = next(n for n in self.graph.node if name in _reads(n))
        new = make(self, name)
        made = {n.output[0] for n in self.made}
        self.place(first)
        for node in self.graph.node:
            if not made.intersection(node.output):
                _rename(node, name, new, reads_only=True)
        return f"behind {name}"

    def _output(self, make: Make, fits: Callable[[str], bool], kinds: str) -> str | None:
        name = self.pick(t for t in self.outputs if self.known(t, kinds) and fits(t) and self.producer(t) is not None)
        if name is None:
            return None
        hidden = self.fresh(f"{name}/hidden")
        self.rename(name, hidden)
        self.tensors.setdefault(hidden, self.tensors[name])
        if name in self.peak:
            self.peak.setdefault(hidden, self.peak[name])
        new = make(self, hidden)
        if new == hidden or not self.made:
            self.rename(hidden, name)
            return None
        for node in self.made:
            node.output[:] = [name if t == new else t for t in node.output]
        self.place()
        return f"in front of the output {name}"


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    yield from node.input
    for graph in subgraphs(node):
        yield from (v.name for v in graph.output)
        for inner in graph.node:
            yield from _reads(inner)


def _rename(node: onnx.NodeProto, old: str, new: str, reads_only: bool = False) -> None:
    node.input[:] = [new if t == old else t for t in node.input]
    if not reads_only:
        node.output[:] = [new if t == old else t for t in node.output]
    for graph in subgraphs(node):
        for inner in graph.node:
            _rename(inner, old, new, reads_only)
        for value in graph.output:
            value.name = new if value.name == old else value.name


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g


def attribute(node: onnx.NodeProto, name: str) -> onnx.AttributeProto | None:
    return next((a for a in node.attribute if a.name == name), None)


def set_int(node: onnx.NodeProto, name: str, value: int) -> None:
    found = attribute(node, name)
    if found is not None:
        found.i = value


def float_type(dtype: np.dtype[Any]) -> int:
    return int(helper.np_dtype_to_tensor_dtype(dtype)) if dtype.kind == "f" else TensorProto.FLOAT


def copied(node: onnx.NodeProto) -> onnx.NodeProto:
    return onnx.NodeProto.FromString(node.SerializeToString())
