"""Decoys: true nodes under true names that nothing real reads, and names like those of probes."""

from __future__ import annotations

from onnx import helper, numpy_helper

from tests.mutants.edits import DOMAIN, Net, attribute, copied, subgraphs
from tests.mutants.inserted import INSERTED
from tests.mutants.kinds import KINDS, kind


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
    copy = copied(node)
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
        copy = copied(node)
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
