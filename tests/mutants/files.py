"""What the file says of itself: declared shapes, opsets, metadata, the order of nodes."""

from __future__ import annotations

import json

from onnx import TensorProto, helper

from tests.mutants.attributes import claim
from tests.mutants.edits import Net, copied
from tests.mutants.kinds import kind


@kind("value_info")
def _(net: Net) -> str | None:
    values = list(net.graph.value_info) + list(net.graph.output)
    value = net.pick(values)
    if value is None or net.rng.random() < 0.3:
        name = net.pick(t for t in net.tensors if net.producer(t) is not None)
        value = net.graph.value_info.add()
        shape = [int(d) + int(net.rng.integers(0, 2)) for d in net.shape(name)[::-1]]
        value.CopyFrom(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return f"{name} declared {shape}"
    tensor = value.type.tensor_type
    if net.rng.random() < 0.2:
        tensor.elem_type = net.pick([TensorProto.INT64, TensorProto.DOUBLE, TensorProto.FLOAT16])
        return f"type of {value.name}"
    dims = tensor.shape.dim
    if not dims:
        return None
    at = int(net.rng.integers(len(dims)))
    dims[at].dim_value = int(net.rng.integers(1, 9))
    return f"axis {at} of {value.name} to {dims[at].dim_value}"


@kind("opset")
def _(net: Net) -> str | None:
    entry = net.pick(net.proto.opset_import)
    before = entry.version
    entry.version = max(1, before + net.pick([-4, -2, -1, 1, 2, 4]))
    for function in net.proto.functions:
        if net.rng.random() < 0.5:
            for own in function.opset_import:
                if own.domain == entry.domain:
                    own.version = entry.version
    return f"'{entry.domain}' from {before} to {entry.version}"


@kind("initializer as an input")
def _(net: Net) -> str | None:
    tensor = net.pick(net.graph.initializer)
    if tensor is None:
        return None
    net.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    return tensor.name


@kind("metadata")
def _(net: Net) -> str | None:
    entry = net.pick(net.proto.metadata_props)
    if entry is None:
        return None
    if entry.key == "pascalc.levels":
        label = net.pick(json.loads(entry.value))
        claim(net, label, net.pick([1, 3, 16]))
    else:
        entry.value = "other"
    return entry.key


@kind("nodes in another order")
def _(net: Net) -> str | None:
    nodes = [copied(n) for n in net.nodes]
    if len(nodes) < 2:
        return None
    a, b = sorted(net.rng.choice(len(nodes), 2, replace=False))
    nodes.insert(a, nodes.pop(b))
    del net.graph.node[:]
    net.graph.node.extend(nodes)
    return f"{nodes[a].name} moved to place {a}"


@kind("weight in a node's place")
def _(net: Net) -> str | None:
    """A tensor becomes a constant: its values on the first batch of the data, at one sample, for all."""
    places = [(n, k) for n, k in net.edges() if len(net.shape(n.input[k])) > 1 and net.producer(n.input[k]) is not None]
    found = net.pick(places)
    if found is None:
        return None
    node, index = found
    shape = net.shape(node.input[index])
    before = node.input[index]
    values = net.rng.uniform(0, net.peak.get(before, 1), [1, *shape[1:]])
    zero = net.node("Mul", [before, net.const(0, net.dtype(before))])
    new = net.node("Add", [zero, net.const(values, net.dtype(before))])
    node.input[index] = new
    net.place(node)
    return f"{before} for {node.name}"
