"""Function bodies: ours edited, others that hide or shadow something."""

from __future__ import annotations

import onnx
from onnx import AttributeProto, helper

from tests.mutants.edits import Net, copied, subgraphs
from tests.mutants.kinds import kind


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


def add_function(net: Net, domain: str, name: str, inputs: int, body: str, overload: str = "") -> None:
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
    add_function(net, domain, node.op_type, len(node.input), net.pick(["Identity", "Neg", "twice"]))
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
        add_function(net, "com.microsoft", name, inputs, "Neg")
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
    inner = copied(node)
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
