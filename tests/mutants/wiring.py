"""Which tensor goes where, and which operator stands where."""

from __future__ import annotations

import onnx
from onnx import helper

from tests.mutants.edits import Net
from tests.mutants.kinds import kind


@kind("inputs of a node swapped")
def _(net: Net) -> str | None:
    node = net.pick(n for n in net.nodes if len(set(n.input) - {""}) > 1)
    if node is None:
        return None
    a, b = net.rng.choice([k for k, t in enumerate(node.input) if t], 2, replace=False)
    node.input[a], node.input[b] = node.input[b], node.input[a]
    return f"{node.op_type} {node.name}: {a} and {b}"


@kind("inputs of the network swapped")
def _(net: Net) -> str | None:
    names = [v.name for v in net.graph.input if net.initializer(v.name) is None]
    if len(names) < 2:
        return None
    a, b = net.rng.choice(names, 2, replace=False)
    if net.rng.random() < 0.5:
        for node in net.graph.node:
            node.input[:] = [{a: b, b: a}.get(t, t) for t in node.input]
        return f"all that reads {a} and {b}"
    values = [onnx.ValueInfoProto.FromString(v.SerializeToString()) for v in net.graph.input]
    del net.graph.input[:]
    net.graph.input.extend(values[::-1])
    return "as they are declared"


@kind("outputs swapped")
def _(net: Net) -> str | None:
    names = net.outputs
    if len(names) < 2:
        return None
    a, b = (str(t) for t in net.rng.choice(names, 2, replace=False))
    if net.rng.random() < 0.7:
        hidden = net.fresh(a)
        for old, new in ((a, hidden), (b, a), (hidden, b)):
            net.rename(old, new)
        if net.rng.random() < 0.5:  # with their types
            first, second = (next(v for v in net.graph.output if v.name == t) for t in (a, b))
            kind_of = onnx.TypeProto.FromString(first.type.SerializeToString())
            first.type.CopyFrom(second.type)
            second.type.CopyFrom(kind_of)
        return f"{a} and {b}"
    values = [onnx.ValueInfoProto.FromString(v.SerializeToString()) for v in net.graph.output]
    del net.graph.output[:]
    net.graph.output.extend(values[::-1])
    return "as they are declared"


@kind("another tensor of the shape")
def _(net: Net) -> str | None:
    order = {t: k for k, n in enumerate(net.nodes) for t in n.output} | {v.name: -1 for v in net.graph.input}
    places = []
    for node, index in net.edges("fiub"):
        name = node.input[index]
        at = order.get(node.output[0], 0)
        others = [
            t for t, info in net.tensors.items() if t != name and info == net.tensors[name] and order.get(t, at) < at
        ]
        if others:
            places.append((node, index, others))
    found = net.pick(places)
    if found is None:
        return None
    node, index, others = found
    before, node.input[index] = node.input[index], net.pick(others)
    return f"{node.name}: {node.input[index]} in place of {before}"


@kind("node bypassed")
def _(net: Net) -> str | None:
    nodes = [
        (n, t)
        for n in net.nodes
        if n.output and n.output[0] in net.tensors
        for t in n.input
        if t in net.tensors and net.tensors[t] == net.tensors[n.output[0]]
    ]
    found = net.pick(nodes)
    if found is None:
        return None
    node, name = found
    op = node.op_type
    node.CopyFrom(helper.make_node("Identity", [name], [node.output[0]], name=node.name))
    return f"{op} {node.name}: gives its input {name}"


@kind("node missing")
def _(net: Net) -> str | None:
    node = net.pick(net.nodes)
    what = f"{node.op_type} {node.name}"
    net.graph.node.remove(node)
    return what


@kind("another operator")
def _(net: Net) -> str | None:
    groups = [
        ("MaxPool", "AveragePool"), ("GlobalAveragePool", "GlobalMaxPool"), ("Add", "Sub", "Mul", "Max", "Min"),
        ("ReduceMean", "ReduceSum", "ReduceMax"), ("Relu", "Neg", "Abs", "Identity", "Floor", "Sigmoid", "Tanh"),
        ("ArgMax", "ArgMin"), ("Greater", "Less", "GreaterOrEqual"), ("Softmax", "LogSoftmax", "Hardmax"),
    ]  # fmt: skip
    places = [(n, g) for n in net.nodes for g in groups if n.op_type in g]
    found = net.pick(places)
    if found is None:
        return None
    node, group = found
    before = node.op_type
    node.op_type = net.pick(op for op in group if op != before)
    return f"{node.name}: {before} to {node.op_type}"
