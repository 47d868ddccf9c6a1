"""The kinds of mutations: each changes a compiled file in place, and says what it did; None where it does not apply."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from tests.mutants.edits import DOMAIN, Net, attribute, set_int, subgraphs
from tests.small_networks import Array

Mutation = Callable[[Net], "str | None"]
#: Every kind by its name.
KINDS: dict[str, Mutation] = {}
#: Kinds that must never be run: they take more memory than there is.
HEAVY = frozenset({"a million steps, live"})

LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization")
BATCHES = (1, 2, 3, 5, 7, 16)


def kind(name: str) -> Callable[[Mutation], Mutation]:
    def register(function: Mutation) -> Mutation:
        KINDS[name] = function
        return function

    return register


# --- constants --------------------------------------------------------------------------------------------------------


def _spoilt(values: Array, net: Net) -> tuple[Array, str]:
    """One entry changed by a thousandth or more."""
    values = values.copy()
    flat = values.reshape(-1)
    filled = np.nonzero(flat)[0]
    at = int(net.pick(filled) if len(filled) and net.rng.random() < 0.9 else net.rng.integers(flat.size))
    match net.rng.integers(5):
        case 0:
            factor = 1.001
        case 1:
            factor = net.rng.uniform(1.002, 2)
        case 2:
            factor = -1.0
        case 3:
            factor = 0.0
        case _:
            factor = 0.9
    if flat[at] == 0:
        flat[at] = 0.05 * (np.abs(flat).max() or 1)
        return values, f"entry {at} set"
    flat[at] *= factor
    return values, f"entry {at} times {factor:.4g}"


@kind("weight")
def _(net: Net) -> str | None:
    tensor = net.pick(t for t in net.initializers() if len(t.dims) > 1)
    if tensor is None:
        return None
    values, what = _spoilt(numpy_helper.to_array(tensor), net)
    net.change(tensor, values)
    return f"{tensor.name}: {what}"


@kind("bias")
def _(net: Net) -> str | None:
    biases = {n.input[2] for n in net.nodes if n.op_type in LINEAR and len(n.input) > 2}
    biases |= {t for n in net.nodes if n.op_type in ("Add", "Sub") for t in n.input}
    tensor = net.pick(t for t in net.initializers() if t.name in biases)
    if tensor is None:
        return None
    values, what = _spoilt(numpy_helper.to_array(tensor), net)
    if net.rng.random() < 0.3:
        values, what = numpy_helper.to_array(tensor) * 2, "doubled"
    net.change(tensor, values)
    return f"{tensor.name}: {what}"


@kind("channel")
def _(net: Net) -> str | None:
    tensor = net.pick(t for t in net.initializers() if len(t.dims) and max(t.dims) > 1)
    if tensor is None:
        return None
    axis = net.pick(k for k, d in enumerate(tensor.dims) if d > 1)
    values = np.moveaxis(numpy_helper.to_array(tensor).copy(), axis, 0)
    a, b = net.rng.choice(len(values), 2, replace=False)
    if net.rng.random() < 0.5:
        values[[a, b]] = values[[b, a]]
        what = f"{a} and {b} swapped"
    else:
        values[a], what = 0, f"{a} zeroed"
    net.change(tensor, np.moveaxis(values, 0, axis))
    return f"{tensor.name}: {what} along axis {axis}"


@kind("channel of all that a layer has")
def _(net: Net) -> str | None:
    """Two outputs of a layer change places, bias and all."""
    layers = [n for n in net.nodes if n.op_type in ("Conv", "Gemm") and len(n.input) > 2]
    node = net.pick(layers)
    tensors = [] if node is None else [net.initializer(t) for t in node.input[1:3]]
    if node is None or None in tensors or len({t.dims[0] for t in tensors if t is not None}) > 1:
        return None
    size = tensors[0].dims[0]  # type: ignore[union-attr]
    if size < 2:
        return None
    a, b = net.rng.choice(size, 2, replace=False)
    for tensor in tensors:
        values = numpy_helper.to_array(tensor).copy()
        values[[a, b]] = values[[b, a]]
        net.change(tensor, values)  # type: ignore[arg-type]
    return f"{node.name}: {a} and {b} swapped"


@kind("integer constant")
def _(net: Net) -> str | None:
    tensor = net.pick(t for t in net.initializers("iu") if 0 < np.prod(t.dims, dtype=int) < 1000)
    if tensor is None:
        return None
    values = numpy_helper.to_array(tensor).copy()
    flat = values.reshape(-1)
    at = int(net.rng.integers(flat.size))
    more = net.pick([1, -1, 2, 7])
    flat[at] += np.asarray(more).astype(values.dtype)
    net.change(tensor, values)
    return f"{tensor.name}: entry {at} plus {more}"


@kind("weight behind silent channels")
def _(net: Net) -> str | None:
    """What no sample of the data drives."""
    layers = [
        (n, net.initializer(n.input[1]))
        for n in net.nodes
        if n.op_type in ("Conv", "Gemm", "MatMul") and n.input[0] in net.subject.silent
    ]
    layers = [(n, w) for n, w in layers if w is not None and net.subject.silent[n.input[0]]]
    found = net.pick(layers)
    if found is None:
        return None
    node, tensor = found
    channel = net.pick(net.subject.silent[node.input[0]])
    turned = attribute(node, "transB")
    axis = 0 if node.op_type == "MatMul" or (node.op_type == "Gemm" and (turned is None or not turned.i)) else 1
    values = numpy_helper.to_array(tensor).copy()
    if values.ndim < 2 or values.shape[axis] <= channel:
        return None
    np.moveaxis(values, axis, 0)[channel] *= net.pick([-1, 1.5, 1.01])
    net.change(tensor, values)
    return f"{node.name}: the weights of channel {channel}"


@kind("tensor in an attribute")
def _(net: Net) -> str | None:
    owners: list[Any] = list(net.nodes)
    owners += [n for outer in net.nodes for g in subgraphs(outer) for n in g.node]
    tensors = [(n, a.t) for n in owners for a in n.attribute if a.type == AttributeProto.TENSOR]
    found = net.pick(tensors)
    if found is None:
        return None
    node, tensor = found
    values = numpy_helper.to_array(tensor).copy()
    if values.dtype.kind not in "fiu" or not values.size:
        return None
    flat = values.reshape(-1)
    flat[net.rng.integers(flat.size)] += np.asarray(net.pick([1, 2, -1])).astype(values.dtype)
    net.change(tensor, values)
    return f"{node.op_type} {node.output[0]}"


# --- attributes -------------------------------------------------------------------------------------------------------

TEXTS = {
    "mode": ["constant", "reflect", "edge", "nearest", "linear", "cubic", "DCR", "CRD"],
    "auto_pad": ["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"],
    "coordinate_transformation_mode": ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"],
    "nearest_mode": ["round_prefer_floor", "floor", "ceil", "round_prefer_ceil"],
}


def _altered(node: onnx.NodeProto, net: Net) -> str | None:
    """Another value of one attribute."""
    usable = (AttributeProto.INT, AttributeProto.INTS, AttributeProto.FLOAT, AttributeProto.STRING)
    found = net.pick(a for a in node.attribute if a.type in usable and a.name != "label")
    if found is None:
        return None
    before = helper.get_attribute_value(found)
    if net.rng.random() < 0.1:
        what = found.name
        node.attribute.remove(found)
        return f"{node.op_type} {node.name}: no {what}"
    if found.type == AttributeProto.INT:
        found.i += net.pick([1, -1, 1, -1, 2]) if found.i not in (0, 1) else 1 - 2 * found.i
    elif found.type == AttributeProto.FLOAT:
        found.f = net.pick([found.f * 1.5, found.f * 1000 + 0.1, found.f + 0.01, -found.f])
    elif found.type == AttributeProto.STRING:
        found.s = net.pick([t for t in TEXTS.get(found.name, ["other"]) if t != found.s.decode()]).encode()
    else:
        values = list(found.ints)
        if not values:
            return None
        match net.rng.integers(3):
            case 0 if len(values) > 1:
                net.rng.shuffle(values)
            case 1 if found.name == "pads" and any(values):
                half, at = len(values) // 2, net.pick(k for k, v in enumerate(values) if v)
                values[at] -= 1
                values[(at + half) % len(values)] += 1
            case _:
                at = int(net.rng.integers(len(values)))
                values[at] = max(0, values[at] + net.pick([1, -1]))
        found.ints[:] = values
    return f"{node.op_type} {node.name}: {found.name} {before} to {helper.get_attribute_value(found)}"


@kind("attribute")
def _(net: Net) -> str | None:
    node = net.pick(n for n in net.nodes if n.attribute and n.domain != DOMAIN)
    return None if node is None else _altered(node, net)


@kind("steps")
def _(net: Net) -> str | None:
    names = ("steps", "steps_in", "steps_out")
    found = net.pick((n, a) for n in net.ours for a in n.attribute if a.name in names)
    if found is None:
        return None
    node, attr = found
    before = attr.i
    attr.i = max(1, net.pick([before + 1, before - 1, 2 * before, 1]))
    if attr.i == before:
        attr.i += 1
    return f"{node.name}: {attr.name} {before} to {attr.i}"


@kind("steps_in of a neuron in two parts")
def _(net: Net) -> str | None:
    """A divisor of the true steps: shapes still fit, inside and behind."""
    found = net.pick(
        (n, a) for n in net.ours for a in n.attribute if a.name in ("steps", "steps_in") and a.i > 1 and a.i % 2 == 0
    )
    if found is None:
        return None
    found[1].i //= 2
    return f"{found[0].name}: {found[1].name} halved"


def _claim(net: Net, label: str, levels: int) -> None:
    for entry in net.proto.metadata_props:
        if entry.key == "pascalc.levels":
            entry.value = json.dumps({**json.loads(entry.value), label: levels})


def _levels(net: Net, claimed: bool) -> str | None:
    node = net.pick(net.neurons)
    if node is None:
        return None
    levels, steps = attribute(node, "levels"), attribute(node, "steps_out")
    label = attribute(node, "label")
    assert levels is not None
    assert label is not None
    before = levels.i
    levels.i = max(1, before + net.pick([-1, 1, 2])) if before > 1 else before + 1
    what = f"{node.name}: levels {before} to {levels.i}"
    if steps is not None and net.rng.random() < 0.7:
        steps.i = levels.i
        what += ", and its steps"
        if net.rng.random() < 0.5:
            users = {t for n in net.nodes if set(node.output) & set(n.input) for t in n.output} | set(node.output)
            for other in net.ours:
                if users & set(other.input) and other is not node:
                    for name in ("steps", "steps_in"):
                        set_int(other, name, levels.i)
            what += ", and those of what follows"
    if claimed:
        _claim(net, label.s.decode(), levels.i)
    return what


@kind("levels")
def _(net: Net) -> str | None:
    return _levels(net, claimed=False)


@kind("levels that the file claims")
def _(net: Net) -> str | None:
    return _levels(net, claimed=True)


@kind("threshold")
def _(net: Net) -> str | None:
    node = net.pick(net.neurons)
    tensor = None if node is None else net.own(node, 1)
    if node is None or tensor is None:
        return None
    values = numpy_helper.to_array(tensor)
    if values.size > 1 and net.rng.random() < 0.6:
        values, what = _spoilt(values, net)
    else:
        factor = net.pick([1.001, 0.999, 1.25, 2, 0.5, -1, 0])
        values, what = values * factor, f"times {factor}"
    net.change(tensor, values)
    return f"{node.name}: threshold {what}"


@kind("threshold of another neuron")
def _(net: Net) -> str | None:
    node, other = net.pick(net.neurons), net.pick(net.neurons)
    if node is None or node.input[1] == other.input[1]:
        return None
    node.input[1] = other.input[1]
    return f"{node.name}: that of {other.name}"


@kind("phi")
def _(net: Net) -> str | None:
    node = net.pick(net.neurons)
    phi = None if node is None else attribute(node, "phi")
    if node is None or phi is None:
        return None
    phi.f = net.pick([0.0, 0.499, 0.501, 0.25, 0.9, -0.5])
    return f"{node.name}: {phi.f:g}"


@kind("labels")
def _(net: Net) -> str | None:
    neurons = net.neurons
    if not neurons:
        return None
    a, b = attribute(net.pick(neurons), "label"), attribute(net.pick(neurons), "label")
    assert a is not None
    assert b is not None
    if a.s == b.s or net.rng.random() < 0.2:
        a.s = b"another"
        return "a new label"
    a.s, b.s = b.s, a.s
    return f"{a.s!r} and {b.s!r} swapped"


@kind("threshold and weights together")
def _(net: Net) -> str | None:
    """The counts stay what they are, the height of the spikes does not."""
    node = net.pick(net.neurons)
    layer = None if node is None else net.producer(node.input[0])
    if node is None or layer is None or layer.op_type not in LINEAR[:4]:
        return None
    factor = net.pick([2.0, 0.5, 1.01])
    for owner, indices in ((layer, range(1, len(layer.input))), (node, [1])):
        for index in indices:
            tensor = net.own(owner, index)
            if tensor is None:
                return None
            net.change(tensor, numpy_helper.to_array(tensor) * factor)
    what = f"{node.name} and {layer.name} times {factor}"
    users = [n for n in net.nodes if node.output[0] in n.input]
    if net.rng.random() < 0.3 and len(users) == 1 and users[0].op_type in LINEAR[:4]:
        tensor = net.own(users[0], 1)
        if tensor is not None:
            net.change(tensor, numpy_helper.to_array(tensor) / factor)
            what += f", {users[0].name} divided by it"
    return what


# --- wiring -----------------------------------------------------------------------------------------------------------


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


def _mul(factor: float) -> Callable[[Net, str], str]:
    return lambda net, x: net.node("Mul", [x, net.const(factor, net.dtype(x))])


def _one_channel(net: Net, x: str) -> str:
    shape = net.shape(x)
    values = np.ones([1, shape[1], *[1] * (len(shape) - 2)] if len(shape) > 1 else [1])
    values.flat[net.rng.integers(values.size)] = 1.01
    return net.node("Mul", [x, net.const(values, net.dtype(x))])


def _one_place(net: Net, x: str) -> str:
    """One value of every sample is lifted."""
    values = np.zeros([1, *net.shape(x)[1:]])
    values.flat[net.rng.integers(values.size)] = 0.2 * net.peak.get(x, 1)
    return net.node("Add", [x, net.const(values, net.dtype(x))])


def _clip(net: Net, x: str) -> str:
    low, high = sorted(net.rng.uniform(-0.5, 0.8, 2) * net.peak.get(x, 1))
    return net.node("Clip", [x, net.const(low, net.dtype(x)), net.const(high, net.dtype(x))])


def _add(net: Net, x: str) -> str:
    return net.node("Add", [x, net.const(0.02 * (net.peak.get(x, 1) or 1), net.dtype(x))])


def _cast(kind_of: int) -> Callable[[Net, str], str]:
    def make(net: Net, x: str) -> str:
        back = int(helper.np_dtype_to_tensor_dtype(net.dtype(x)))
        return net.node("Cast", [net.node("Cast", [x], to=kind_of)], to=back)

    return make


def _turned(net: Net, x: str) -> str:
    """Backwards along an axis that is not the batch."""
    axis = int(net.rng.integers(1, max(2, len(net.shape(x)))))
    return _reverse(net, x, axis)


def _reverse(net: Net, x: str, axis: int) -> str:
    starts, ends, axes, steps = (net.const([v], np.int64) for v in (-1, -(2**40), axis, -1))
    return net.node("Slice", [x, starts, ends, axes, steps])


def _simple(op: str) -> Callable[[Net, str], str]:
    return lambda net, x: net.node(op, [x])


INSERTED = {
    "Neg": _simple("Neg"), "Relu": _simple("Relu"), "Abs": _simple("Abs"), "Floor": _simple("Floor"),
    "Tanh": _simple("Tanh"), "times 1.01": _mul(1.01), "times 1.001": _mul(1.001), "times 2": _mul(2),
    "times zero": _mul(0), "one channel times 1.01": _one_channel, "one place lifted": _one_place, "Clip": _clip,
    "plus a constant": _add, "turned": _turned,
}  # fmt: skip


@kind("operator inserted")
def _(net: Net) -> str | None:
    name = net.pick(INSERTED)
    where = net.through(INSERTED[name], lambda x: len(net.shape(x)) > 1)
    return where and f"{name} {where}"


@kind("Identity inserted")
def _(net: Net) -> str | None:
    return net.through(_simple("Identity"), kinds="fiub")


@kind("less precision")
def _(net: Net) -> str | None:
    name, make = net.pick(
        [("float16", TensorProto.FLOAT16), ("bfloat16", TensorProto.BFLOAT16), ("int32", TensorProto.INT32)]
    )
    where = net.through(_cast(make))
    return where and f"{name} {where}"


@kind("integers inserted")
def _(net: Net) -> str | None:
    """Another number added to what is an integer, another truth value to what is one."""

    def make(net: Net, x: str) -> str:
        if net.dtype(x).kind == "b":
            return net.node("Not", [x])
        return net.node("Add", [x, net.const(net.pick([1, -1, 7]), net.dtype(x))])

    return net.through(make, kinds="iub")


@kind("random numbers")
def _(net: Net) -> str | None:
    def noise(net: Net, x: str) -> str:
        scale = 0.05 * (net.peak.get(x, 1) or 1)
        like = net.node("RandomNormalLike", [x], scale=scale, mean=0.0)
        return net.node("Add", [x, like])

    def dropout(net: Net, x: str) -> str:
        return net.node("Dropout", [x, net.const(0.5, np.float32), net.const(True, bool)])

    return net.through(net.pick([noise, dropout]))


# --- samples and batches ----------------------------------------------------------------------------------------------


def _roll(net: Net, x: str) -> str:
    zero, one, end = net.const([0], np.int64), net.const([1], np.int64), net.const([2**40], np.int64)
    rest, first = net.node("Slice", [x, one, end, zero]), net.node("Slice", [x, zero, one, zero])
    return net.node("Concat", [rest, first], axis=0)


def _mean(net: Net, x: str) -> str:
    if net.opset >= 18:
        mean = net.node("ReduceMean", [x, net.const([0], np.int64)], keepdims=1)
    else:
        mean = net.node("ReduceMean", [x], axes=[0], keepdims=1)
    share = net.const(net.pick([0.5, 0.01]), net.dtype(x))
    return net.node("Add", [x, net.node("Mul", [mean, share])])


def _pair(net: Net, x: str) -> str:
    order = np.arange(net.shape(x)[0])
    order[:2] = [1, 0]
    return net.node("Gather", [x, net.const(order, np.int64)], axis=0)


@kind("samples mixed")
def _(net: Net) -> str | None:
    ways = {"rolled": _roll, "their mean": _mean, "two swapped": _pair, "backwards": lambda n, x: _reverse(n, x, 0)}
    name = net.pick(ways)
    where = net.through(ways[name], lambda x: len(net.shape(x)) > 1)
    return where and f"{name} {where}"


def _rows(net: Net, x: str) -> str:
    """The size of axis 0, as one number in one dimension."""
    return net.node("Shape", [x], start=0, end=1)


def _where(net: Net, condition: str, x: str) -> str:
    wrong = net.pick([_mul(1.1), _mul(0), _simple("Neg")])(net, x)
    return net.node("Where", [condition, wrong, x])


@kind("one batch size")
def _(net: Net) -> str | None:
    """Wrong where the batch has exactly so many samples."""
    size = net.pick(BATCHES)

    def make(net: Net, x: str) -> str:
        rows = net.const([size * net.steps(x)], np.int64)
        return _where(net, net.node("Equal", [_rows(net, x), rows]), x)

    where = net.through(make, lambda x: len(net.shape(x)) > 1)
    return where and f"{size} {where}"


@kind("batches above a size")
def _(net: Net) -> str | None:
    size = net.pick([2, 4, 6, 10])

    def make(net: Net, x: str) -> str:
        rows = net.const([size * net.steps(x)], np.int64)
        return _where(net, net.node("Greater", [_rows(net, x), rows]), x)

    where = net.through(make, lambda x: len(net.shape(x)) > 1)
    return where and f"{size} {where}"


@kind("later rows of a batch")
def _(net: Net) -> str | None:
    size = net.pick([1, 4, 6])

    def make(net: Net, x: str) -> str:
        zero, one = net.const(0, np.int64), net.const(1, np.int64)
        count = net.node("Squeeze", [_rows(net, x)])
        row = net.node("Range", [zero, count, one])
        later = net.node("GreaterOrEqual", [row, net.const(size * net.steps(x), np.int64)])
        shape = net.const([-1, *[1] * (len(net.shape(x)) - 1)], np.int64)
        return _where(net, net.node("Reshape", [later, shape]), x)

    where = net.through(make, lambda x: len(net.shape(x)) > 1)
    return where and f"from {size} on {where}"


@kind("batch baked in")
def _(net: Net) -> str | None:
    def make(net: Net, x: str) -> str:
        return net.node("Reshape", [x, net.const(net.shape(x), np.int64)])

    def cut(net: Net, x: str) -> str:
        zero, end = net.const([0], np.int64), net.const([net.shape(x)[0]], np.int64)
        return net.node("Slice", [x, zero, end, zero])

    return net.through(net.pick([make, make, cut]), lambda x: len(net.shape(x)) > 1)


@kind("If on the batch")
def _(net: Net) -> str | None:
    size = net.pick(BATCHES)

    def make(net: Net, x: str) -> str:
        rows = net.const([size * net.steps(x)], np.int64)
        condition = net.node("Equal", [_rows(net, x), rows])
        branches = {}
        for name, op in (("then_branch", "Neg"), ("else_branch", "Identity")):
            out = net.fresh(f"{name}.of")
            value = helper.make_tensor_value_info(out, int(helper.np_dtype_to_tensor_dtype(net.dtype(x))), None)
            branches[name] = helper.make_graph([helper.make_node(op, [x], [out])], name, [], [value])
        return net.node("If", [condition], **branches)

    where = net.through(make, lambda x: len(net.shape(x)) > 1)
    return where and f"{size} {where}"


# --- time -------------------------------------------------------------------------------------------------------------


@kind("steps in another order")
def _(net: Net) -> str | None:
    """Backwards in time, sample by sample: sums over time stay what they are."""

    def make(net: Net, x: str) -> str:
        rest = net.shape(x)[1:]
        apart = net.node("Reshape", [x, net.const([net.steps(x), -1, *rest], np.int64)])
        return net.node("Reshape", [_reverse(net, apart, 0), net.const([-1, *rest], np.int64)])

    return net.through(make, lambda x: net.steps(x) > 1)


@kind("operator of ours inserted")
def _(net: Net) -> str | None:
    def made(op: str, **attributes: Any) -> Callable[[Net, str], str]:
        return lambda net, x: net.node(op, [x], domain=DOMAIN, **attributes)

    def neuron(net: Net, x: str) -> str:
        theta = net.const(net.peak.get(x, 1) or 1, net.dtype(x))
        steps = {} if net.rng.random() < 0.5 else {"steps_in": 1, "steps_out": 1}
        op = "PascIF" if steps else "QCFS"
        levels = 1 if steps else 4
        return net.node(op, [x, theta], domain=DOMAIN, levels=levels, phi=0.5, label=net.pick(["new", ""]), **steps)

    name, make = net.pick(
        [("Accumulate", made("Accumulate", steps=1)), ("Accumulate 2", made("Accumulate", steps=2)),
         ("Spread", made("Spread", steps=1)), ("Spread 2", made("Spread", steps=2)),
         ("Align", made("Align", steps_in=1, steps_out=2)), ("Align 1", made("Align", steps_in=1, steps_out=1)),
         ("neuron", neuron), ("neuron", neuron)]
    )  # fmt: skip
    where = net.through(make, lambda x: len(net.shape(x)) > 1)
    return where and f"{name} {where}"


@kind("operator of ours missing")
def _(net: Net) -> str | None:
    node = net.pick(n for n in net.ours if n.op_type in ("Accumulate", "Spread", "Align"))
    if node is None:
        return None
    what = f"{node.op_type} {node.name}"
    op = net.pick(["Identity", "ReduceMean"]) if node.op_type == "Accumulate" else "Identity"
    if op == "ReduceMean":
        if net.opset >= 18:
            new = helper.make_node(op, [node.input[0], net.const([0], np.int64)], list(node.output), keepdims=1)
        else:
            new = helper.make_node(op, [node.input[0]], list(node.output), axes=[0], keepdims=1)
    else:
        new = helper.make_node(op, [node.input[0]], list(node.output))
    new.name = node.name
    node.CopyFrom(new)
    return f"{what}: {op} in its place"


def _million(net: Net, x: str) -> str:
    there = net.node("Spread", [x], domain=DOMAIN, steps=10**6)
    return net.node("Accumulate", [there], domain=DOMAIN, steps=10**6)


@kind("a million steps, live")
def _(net: Net) -> str | None:
    if not {"Spread", "Accumulate"} <= {f.name for f in net.proto.functions}:
        return None
    return net.through(_million, lambda x: len(net.shape(x)) > 1)


@kind("a million steps, dead")
def _(net: Net) -> str | None:
    if not {"Spread", "Accumulate"} <= {f.name for f in net.proto.functions}:
        return None
    name = net.pick(t for t in net.tensors if net.known(t) and net.producer(t) is not None)
    if name is None:
        return None
    _million(net, name)
    net.place()
    return f"behind {name}"


# --- what shows on rare inputs only -----------------------------------------------------------------------------------


def _limit(net: Net, x: str) -> str:
    """Beyond what the data reaches, more or less."""
    return net.const(net.pick([0.9, 1.2, 2, 5]) * (net.peak.get(x, 1) or 1), net.dtype(x))


@kind("clipped at a large value")
def _(net: Net) -> str | None:
    return net.through(lambda net, x: net.node("Min", [x, _limit(net, x)]), lambda x: len(net.shape(x)) > 1)


@kind("wrong above a large value")
def _(net: Net) -> str | None:
    def make(net: Net, x: str) -> str:
        return _where(net, net.node("Greater", [x, _limit(net, x)]), x)

    return net.through(make, lambda x: len(net.shape(x)) > 1)


@kind("wrong at one exact value")
def _(net: Net) -> str | None:
    """Zero, or the largest value that the data gives."""

    def make(net: Net, x: str) -> str:
        value = net.pick([0, net.peak.get(x, 1)])
        condition = net.node("Equal", [x, net.const(value, net.dtype(x))])
        other = net.const(0.3 * (net.peak.get(x, 1) or 1), net.dtype(x))
        return net.node("Where", [condition, other, x])

    return net.through(make, lambda x: len(net.shape(x)) > 1)


@kind("wrong where a tensor has a large value anywhere")
def _(net: Net) -> str | None:
    def make(net: Net, x: str) -> str:
        top = net.node("ReduceMax", [x], keepdims=0)
        return _where(net, net.node("Greater", [top, _limit(net, x)]), x)

    return net.through(make, lambda x: len(net.shape(x)) > 1)


# --- decoys -----------------------------------------------------------------------------------------------------------


def _copied(node: onnx.NodeProto) -> onnx.NodeProto:
    return onnx.NodeProto.FromString(node.SerializeToString())


@kind("wrong copy of a node")
def _(net: Net) -> str | None:
    """The true node stays, with its name; all that used it uses a copy with another constant."""
    nodes = [
        n
        for n in net.nodes
        if len(n.output) == 1
        and n.output[0] not in net.outputs
        and any(net.initializer(t) is not None and t in {i.name for i in net.initializers()} for t in n.input)
    ]
    node = net.pick(nodes)
    if node is None:
        return None
    copy = _copied(node)
    name = net.fresh(node.output[0])
    copy.output[0], copy.name = name, net.pick([node.name, f"{node.name}/copy"])
    label = attribute(copy, "label")
    if label is not None and net.rng.random() < 0.5:
        label.s = net.pick([b"copy", b""])
    floats = {i.name for i in net.initializers()}
    tensor = net.own(copy, net.pick(k for k, t in enumerate(copy.input) if t in floats))
    if tensor is None:
        return None
    net.change(tensor, numpy_helper.to_array(tensor) * 1.25)
    old = node.output[0]
    for other in net.graph.node:
        for index, read in enumerate(other.input):
            if read == old:
                other.input[index] = name
    net.made = [copy]
    following = net.nodes.index(node) + 1
    net.place(net.nodes[following] if following < len(net.nodes) else None)
    return f"{node.op_type} {node.name}"


@kind("a whole network beside the true one")
def _(net: Net) -> str | None:
    """All true nodes stay, under their names; the outputs come from a copy with one wrong weight."""
    taken = set(net.outputs)
    prefix, own_names = "copy/", {t for n in net.nodes for t in n.output}
    copies = []
    for node in net.nodes:
        copy = _copied(node)
        copy.input[:] = [prefix + t if t in own_names else t for t in copy.input]
        copy.output[:] = [prefix + t if t else t for t in copy.output]
        copy.name = prefix + copy.name
        if list(subgraphs(copy)):
            return None
        copies.append(copy)
    labels = net.rng.integers(3)
    for copy in copies:
        label = attribute(copy, "label")
        if label is not None and labels:
            label.s = prefix.encode() + label.s if labels == 1 else b""
    if net.rng.random() < 0.6:  # hidden in functions of another domain
        for function in list(net.proto.functions):
            other = net.proto.functions.add()
            other.CopyFrom(function)
            other.domain = "local"
        for copy in copies:
            copy.domain = "local" if copy.domain == DOMAIN else copy.domain
        net.proto.opset_import.add(domain="local", version=1)
    floats = {i.name for i in net.initializers() if len(i.dims) > 1}
    places = [(c, k) for c in copies for k, t in enumerate(c.input) if t in floats]
    found = net.pick(places)
    if found is None:
        return None
    tensor = net.own(*found)
    if tensor is None:
        return None
    net.change(tensor, numpy_helper.to_array(tensor) * 1.1)
    for name in taken:
        net.rename(name, f"{name}/true")
    for copy in copies:
        copy.output[:] = [t[len(prefix) :] if t[len(prefix) :] in taken else t for t in copy.output]
        copy.input[:] = [
            t[len(prefix) :] if t.startswith(prefix) and t[len(prefix) :] in taken else t for t in copy.input
        ]
    net.made = copies
    net.place()
    return f"wrong in {tensor.name}"


PREFIXES = ("sum:", "current:", "fed:", "abs:", "pascalc fed:", "pascalc pascalc fed:", "count:", "shown:", "levels:")


@kind("names of probes, dead")
def _(net: Net) -> str | None:
    names = [t for t in net.tensors if net.producer(t) is not None]
    made = []
    for _ in range(3):
        name = f"{net.pick(PREFIXES)}{net.pick(names)}"
        if name in made:
            continue
        made.append(name)
        source = net.pick(names)
        net.made.append(helper.make_node("Identity", [source], [name], name=name))
    net.place()
    return ", ".join(made)


@kind("names of probes, and a wrong weight")
def _(net: Net) -> str | None:
    """Tensors of the network, and further ones, are named like a probe of the true ones."""
    names = [t for t in net.tensors if net.producer(t) is not None]
    wrong = KINDS[net.pick(["weight", "bias", "operator inserted", "attribute"])](net)
    if wrong is None:
        return None
    for prefix in PREFIXES:
        name = net.pick(names)
        if net.producer(name) is None or net.producer(prefix + name) is not None:
            continue
        net.made.append(helper.make_node("Identity", [name], [prefix + name], name=prefix + name))
        net.place()
    return f"{wrong}, and names"


@kind("tensor renamed")
def _(net: Net) -> str | None:
    name = net.pick(t for t in net.tensors if net.producer(t) is not None and t not in net.outputs)
    if name is None:
        return None
    new = net.fresh(net.pick([name, f"fed:{name}", f"sum:{name}"]))
    net.rename(name, new)
    return f"{name} to {new}"


@kind("two tensors change names")
def _(net: Net) -> str | None:
    names = [t for t in net.tensors if net.producer(t) is not None and t not in net.outputs]
    if len(names) < 2:
        return None
    a, b = (str(t) for t in net.rng.choice(names, 2, replace=False))
    hidden = net.fresh(a)
    for old, new in ((a, hidden), (b, a), (hidden, b)):
        net.rename(old, new)
    return f"{a} and {b}"


@kind("dead nodes")
def _(net: Net) -> str | None:
    name = net.pick(t for t in net.tensors if net.known(t))
    INSERTED[net.pick(INSERTED)](net, name) if len(net.shape(name)) > 1 else net.node("Neg", [name])
    net.place()
    return f"behind {name}"


# --- functions --------------------------------------------------------------------------------------------------------


@kind("function body")
def _(net: Net) -> str | None:
    function = net.pick(net.proto.functions)
    if function is None:
        return None
    swaps = {
        "Add": "Sub", "Sub": "Add", "Mul": "Div", "Div": "Mul", "Floor": "Ceil", "GreaterOrEqual": "Greater",
        "Clip": "Identity", "Neg": "Abs",
    }  # fmt: skip
    match net.rng.integers(4):
        case 0:
            node = net.pick(n for n in function.node if n.op_type in swaps)
            if node is None:
                return None
            before, node.op_type = node.op_type, swaps[node.op_type]
            if before == "Clip":
                del node.input[1:]
            return f"{function.name}: {before} to {node.op_type}"
        case 1:
            numbers = [
                (n, a)
                for n in function.node
                for a in n.attribute
                if not a.ref_attr_name and a.type in (AttributeProto.INT, AttributeProto.INTS, AttributeProto.FLOAT)
            ]
            found = net.pick(numbers)
            if found is None:
                return None
            node, attr = found
            if attr.type == AttributeProto.INTS:
                attr.ints[0] += net.pick([1, -1])
            elif attr.type == AttributeProto.INT:
                attr.i += 1
            else:
                attr.f += 0.1
            return f"{function.name}: {attr.name} of {node.op_type} {node.output[0]}"
        case 2:
            op = net.pick(["Neg", "Relu", "Identity", "Abs", "Round"])
            last = next((n for n in function.node if function.output[0] in n.output), None)
            if last is None:
                return None
            last.output[0] = "before_the_end"
            function.node.append(helper.make_node(op, ["before_the_end"], [function.output[0]]))
            return f"{function.name}: {op} in the end"
        case _:
            node = net.pick(n for n in function.node if len(n.input) == 2)
            if node is None:
                return None
            node.input[0], node.input[1] = node.input[1], node.input[0]
            return f"{function.name}: inputs of {node.op_type} {node.output[0]} swapped"


def _function(net: Net, domain: str, name: str, inputs: int, body: str, overload: str = "") -> None:
    taken = [f"x{k}" for k in range(inputs)]
    function = net.proto.functions.add(domain=domain, name=name, overload=overload)
    function.input.extend(taken)
    function.output.append("y")
    function.opset_import.add(domain="", version=net.opset)
    if body == "twice":
        function.node.append(helper.make_node("Sum", ["x0", "x0"], ["y"]))
    else:
        function.node.append(helper.make_node(body, ["x0"], ["y"]))


@kind("function with a standard operator's name")
def _(net: Net) -> str | None:
    inner = [n for f in net.proto.functions for n in f.node]
    node = net.pick([n for n in [*net.nodes, *inner] if n.domain in ("", "ai.onnx") and len(n.output) == 1])
    if node is None:
        return None
    domain = net.pick(["", "", "ai.onnx", "com.microsoft"])
    attributes = [a.name for a in node.attribute]
    _function(net, domain, node.op_type, len(node.input), net.pick(["Identity", "Neg", "twice"]))
    net.proto.functions[-1].attribute.extend(attributes)
    what = f"{node.op_type} in the domain '{domain}'"
    if domain == "com.microsoft":
        net.proto.opset_import.add(domain=domain, version=1)
        if net.rng.random() < 0.7:
            node.domain = domain
            what += ", and used"
    return what


FUSED = ("FusedConv", "FusedMatMul", "FusedGemm", "Gelu", "FastGelu", "SkipLayerNormalization", "QuickGelu", "NhwcConv")


@kind("function with the name of a fused operator")
def _(net: Net) -> str | None:
    name = net.pick(FUSED)
    for inputs in (2, 3, 4):
        _function(net, "com.microsoft", name, inputs, "Neg")
        if inputs == 2:
            break
    if not any(o.domain == "com.microsoft" for o in net.proto.opset_import):
        net.proto.opset_import.add(domain="com.microsoft", version=1)
    return name


@kind("function with an overload")
def _(net: Net) -> str | None:
    node = net.pick(net.ours)
    if node is None:
        return None
    function = next((f for f in net.proto.functions if f.name == node.op_type), None)
    if function is None:
        return None
    other = onnx.FunctionProto.FromString(function.SerializeToString())
    last = next(n for n in other.node if other.output[0] in n.output)
    last.output[0] = "before_the_end"
    other.node.append(helper.make_node("Neg", ["before_the_end"], [other.output[0]]))
    way = net.pick(["used", "unused", "first", "second"])
    if way in ("used", "unused"):
        other.overload = "wrong"
        net.proto.functions.append(other)
        if way == "used":
            node.overload = "wrong"
    else:
        functions = [onnx.FunctionProto.FromString(f.SerializeToString()) for f in net.proto.functions]
        at = 0 if way == "first" else len(functions)
        functions.insert(at, other)
        del net.proto.functions[:]
        net.proto.functions.extend(functions)
    if net.rng.random() < 0.5:
        net.proto.ir_version = max(net.proto.ir_version, 10)
    return f"{node.op_type} {node.name}: {way}"


@kind("part of the network in a function")
def _(net: Net) -> str | None:
    """A standard node becomes a call of a function that does the same, or nearly."""
    node = net.pick(
        n for n in net.nodes if n.domain in ("", "ai.onnx") and len(n.output) == 1 and not list(subgraphs(n))
    )
    if node is None:
        return None
    inner = _copied(node)
    names = [f"x{k}" for k in range(len(node.input))]
    inner.input[:] = [n if t else "" for n, t in zip(names, node.input, strict=True)]
    inner.output[0] = "y"
    what = "the same"
    extra = None
    if net.rng.random() < 0.6 and net.known(node.output[0]):
        inner.output[0], extra = "t", helper.make_node(net.pick(["Neg", "Abs", "Floor"]), ["t"], ["y"])
        what = extra.op_type
    function = net.proto.functions.add(domain="local", name="Part")
    function.input.extend(names)
    function.output.append("y")
    function.opset_import.add(domain="", version=net.opset)
    function.node.extend([inner, *([extra] if extra is not None else [])])
    net.proto.opset_import.add(domain="local", version=1)
    what = f"{node.op_type} {node.name}: {what}"
    node.CopyFrom(helper.make_node("Part", list(node.input), list(node.output), name=node.name, domain="local"))
    return what


# --- subgraphs and what is computed -----------------------------------------------------------------------------------


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
    second = _copied(node)
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
    copy = _copied(node)
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


# --- the file ---------------------------------------------------------------------------------------------------------


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
        _claim(net, label, net.pick([1, 3, 16]))
    else:
        entry.value = "other"
    return entry.key


@kind("nodes in another order")
def _(net: Net) -> str | None:
    nodes = [_copied(n) for n in net.nodes]
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
