"""What shows on rare values only."""

from __future__ import annotations

from tests.mutants.batches import where_wrong
from tests.mutants.edits import Net
from tests.mutants.kinds import kind


def _limit(net: Net, x: str) -> str:
    """Beyond what the data reaches, more or less."""
    return net.const(net.pick([0.9, 1.2, 2, 5]) * (net.peak.get(x, 1) or 1), net.dtype(x))


@kind("clipped at a large value")
def _(net: Net) -> str | None:
    return net.through(lambda net, x: net.node("Min", [x, _limit(net, x)]), lambda x: len(net.shape(x)) > 1)


@kind("bent above a large value")
def _(net: Net) -> str | None:
    """With operators that are bounded by what goes in."""

    def make(net: Net, x: str) -> str:
        beyond = net.node("Relu", [net.node("Sub", [x, _limit(net, x)])])
        return net.node("Add", [x, beyond])

    return net.through(make, lambda x: len(net.shape(x)) > 1)


@kind("wrong above a large value")
def _(net: Net) -> str | None:
    def make(net: Net, x: str) -> str:
        return where_wrong(net, net.node("Greater", [x, _limit(net, x)]), x)

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
        return where_wrong(net, net.node("Greater", [top, _limit(net, x)]), x)

    return net.through(make, lambda x: len(net.shape(x)) > 1)
