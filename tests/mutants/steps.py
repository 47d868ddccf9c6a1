"""Time: steps in another order, operators of the domain ai.pascalc where they do not belong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import helper

from tests.mutants.edits import DOMAIN, Net
from tests.mutants.inserted import reverse
from tests.mutants.kinds import kind


@kind("steps in another order")
def _(net: Net) -> str | None:
    """Backwards in time, sample by sample: sums over time stay what they are."""

    def make(net: Net, x: str) -> str:
        rest = net.shape(x)[1:]
        apart = net.node("Reshape", [x, net.const([net.steps(x), -1, *rest], np.int64)])
        return net.node("Reshape", [reverse(net, apart, 0), net.const([-1, *rest], np.int64)])

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
         ("Hold", made("Hold", steps=1)), ("Hold 2", made("Hold", steps=2)),
         ("Align", made("Align", steps_in=1, steps_out=2)), ("Align 1", made("Align", steps_in=1, steps_out=1)),
         ("neuron", neuron), ("neuron", neuron)]
    )  # fmt: skip
    where = net.through(make, lambda x: len(net.shape(x)) > 1)
    return where and f"{name} {where}"


@kind("operator of ours missing")
def _(net: Net) -> str | None:
    node = net.pick(n for n in net.ours if n.op_type in ("Accumulate", "Spread", "Hold", "Align"))
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
