"""Attributes of nodes, and what the neurons are made of: levels, steps, thresholds, phi, labels."""

from __future__ import annotations

import json

import onnx
from onnx import AttributeProto, helper, numpy_helper

from tests.mutants.constants import spoilt
from tests.mutants.edits import DOMAIN, Net, attribute, set_int
from tests.mutants.kinds import LINEAR, kind

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


def claim(net: Net, label: str, levels: int) -> None:
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
        claim(net, label.s.decode(), levels.i)
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
        values, what = spoilt(values, net)
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
