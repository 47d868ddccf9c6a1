"""Samples that are mixed, and what is wrong at some batch sizes or in some rows only."""

from __future__ import annotations

import numpy as np
from onnx import helper

from tests.mutants.edits import Net
from tests.mutants.inserted import reverse, simple, times
from tests.mutants.kinds import kind

BATCHES = (1, 2, 3, 5, 7, 16)


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
    ways = {"rolled": _roll, "their mean": _mean, "two swapped": _pair, "backwards": lambda n, x: reverse(n, x, 0)}
    name = net.pick(ways)
    where = net.through(ways[name], lambda x: len(net.shape(x)) > 1)
    return where and f"{name} {where}"


def rows_of(net: Net, x: str) -> str:
    """The size of axis 0, as one number in one dimension."""
    return net.node("Shape", [x], start=0, end=1)


def where_wrong(net: Net, condition: str, x: str) -> str:
    wrong = net.pick([times(1.1), times(0), simple("Neg")])(net, x)
    return net.node("Where", [condition, wrong, x])


@kind("one batch size")
def _(net: Net) -> str | None:
    """Wrong where the batch has exactly so many samples."""
    size = net.pick(BATCHES)

    def make(net: Net, x: str) -> str:
        rows = net.const([size * net.steps(x)], np.int64)
        return where_wrong(net, net.node("Equal", [rows_of(net, x), rows]), x)

    where = net.through(make, lambda x: len(net.shape(x)) > 1)
    return where and f"{size} {where}"


@kind("batches above a size")
def _(net: Net) -> str | None:
    size = net.pick([2, 4, 6, 10])

    def make(net: Net, x: str) -> str:
        rows = net.const([size * net.steps(x)], np.int64)
        return where_wrong(net, net.node("Greater", [rows_of(net, x), rows]), x)

    where = net.through(make, lambda x: len(net.shape(x)) > 1)
    return where and f"{size} {where}"


@kind("batches above a size, told by a sum")
def _(net: Net) -> str | None:
    """The size of the batch as a sum of ones: no operator that is not a sum of products or bounded by its input."""
    size = net.pick([1, 2, 4, 6, 10])

    def make(net: Net, x: str) -> str:
        kind_of = net.dtype(x)
        ones = net.node("Add", [net.node("Mul", [x, net.const(0, kind_of)]), net.const(1, kind_of)])
        rows = net.node("ReduceSum", [ones, net.const([0], np.int64)], keepdims=1)
        more = net.node("Sub", [rows, net.const(size * net.steps(x), kind_of)])
        more = net.node("Clip", [more, net.const(0, kind_of), net.const(1, kind_of)])
        return net.node("Add", [x, net.node("Mul", [x, more])])

    where = net.through(make, lambda x: len(net.shape(x)) > 1)
    return where and f"{size} {where}"


@kind("later rows of a batch")
def _(net: Net) -> str | None:
    size = net.pick([1, 4, 6])

    def make(net: Net, x: str) -> str:
        zero, one = net.const(0, np.int64), net.const(1, np.int64)
        count = net.node("Squeeze", [rows_of(net, x)])
        row = net.node("Range", [zero, count, one])
        later = net.node("GreaterOrEqual", [row, net.const(size * net.steps(x), np.int64)])
        shape = net.const([-1, *[1] * (len(net.shape(x)) - 1)], np.int64)
        return where_wrong(net, net.node("Reshape", [later, shape]), x)

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
        condition = net.node("Equal", [rows_of(net, x), rows])
        branches = {}
        for name, op in (("then_branch", "Neg"), ("else_branch", "Identity")):
            out = net.fresh(f"{name}.of")
            value = helper.make_tensor_value_info(out, int(helper.np_dtype_to_tensor_dtype(net.dtype(x))), None)
            branches[name] = helper.make_graph([helper.make_node(op, [x], [out])], name, [], [value])
        return net.node("If", [condition], **branches)

    where = net.through(make, lambda x: len(net.shape(x)) > 1)
    return where and f"{size} {where}"
