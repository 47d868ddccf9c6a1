"""Subgraphs, and operators that cannot spike."""

from __future__ import annotations

import onnx
from onnx import AttributeProto, numpy_helper

from tests.mutants.edits import Net, copied, subgraphs
from tests.mutants.kinds import kind


@kind("subgraph")
def _(net: Net) -> str | None:
    owner = net.pick(n for n in net.nodes if list(subgraphs(n)))
    if owner is None:
        return None
    graphs = list(subgraphs(owner))
    graph = net.pick(graphs)
    match net.rng.integers(4):
        case 0 if len(graphs) == 2:
            first = onnx.GraphProto.FromString(graphs[0].SerializeToString())
            graphs[0].CopyFrom(graphs[1])
            graphs[1].CopyFrom(first)
            return "branches swapped"
        case 1:
            node = net.pick(n for n in graph.node if n.op_type in ("Mul", "Add", "Sub", "Tanh"))
            if node is None:
                return None
            node.op_type = {"Mul": "Add", "Add": "Mul", "Sub": "Add", "Tanh": "Sigmoid"}[node.op_type]
            return f"an operator to {node.op_type}"
        case 2:
            node = net.pick(n for n in graph.node if len(n.input) == 2)
            if node is None:
                return None
            node.input[0], node.input[1] = node.input[1], node.input[0]
            return f"inputs of {node.op_type} swapped"
        case _:
            found = net.pick(a.t for n in graph.node for a in n.attribute if a.type == AttributeProto.TENSOR)
            if found is None:
                return None
            net.change(found, numpy_helper.to_array(found) * 1.25)
            return "a constant"


COMPUTED = (
    "Sigmoid",
    "Tanh",
    "Softmax",
    "LayerNormalization",
    "ArgMax",
    "Greater",
    "TopK",
    "Mul",
    "Cast",
    "Loop",
    "If",
)


@kind("computed operator twice")
def _(net: Net) -> str | None:
    node = net.pick(
        n
        for n in net.nodes
        if n.op_type in ("Sigmoid", "Tanh", "Softmax", "LayerNormalization") and n.output[0] in net.tensors
    )
    if node is None:
        return None
    old, hidden = node.output[0], net.fresh(node.output[0])
    second = copied(node)
    node.output[0] = hidden
    second.input[0], second.name = hidden, f"{node.name}/again"
    second.output[0] = old
    net.made = [second]
    following = net.nodes.index(node) + 1
    net.place(net.nodes[following] if following < len(net.nodes) else None)
    return f"{node.op_type} {node.name}"


@kind("computed operators change places")
def _(net: Net) -> str | None:
    nodes = [n for n in net.nodes if n.op_type in COMPUTED]
    if len(nodes) < 2:
        return None
    a, b = net.rng.choice(len(nodes), 2, replace=False)
    first, second = nodes[a], nodes[b]
    if first.op_type == second.op_type:
        first.output[0], second.output[0] = second.output[0], first.output[0]
        return f"outputs of {first.name} and {second.name}"
    first.op_type, second.op_type = second.op_type, first.op_type
    return f"{first.name} and {second.name}"


@kind("beside a computed operator")
def _(net: Net) -> str | None:
    """The true one stays, dead; what is used is close to it."""
    node = net.pick(n for n in net.nodes if n.op_type in COMPUTED[:6] and n.output[0] in net.tensors)
    if node is None or node.output[0] in net.outputs:
        return None
    copy = copied(node)
    copy.output[0] = net.fresh(node.output[0])
    swaps = {"Sigmoid": "Tanh", "Tanh": "Sigmoid", "Softmax": "LogSoftmax", "ArgMax": "ArgMin", "Greater": "Less"}
    copy.op_type = swaps.get(copy.op_type, copy.op_type)
    if copy.op_type == "LayerNormalization":
        copy.attribute.add(name="epsilon", f=0.1, type=AttributeProto.FLOAT)
    for other in net.graph.node:
        other.input[:] = [copy.output[0] if t == node.output[0] else t for t in other.input]
    net.made = [copy]
    following = net.nodes.index(node) + 1
    net.place(net.nodes[following] if following < len(net.nodes) else None)
    return f"{node.op_type} {node.name}"
