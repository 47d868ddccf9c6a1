"""Operators put on an edge, behind a tensor or in front of an output."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import TensorProto, helper

from tests.mutants.edits import Net
from tests.mutants.kinds import kind


def times(factor: float) -> Callable[[Net, str], str]:
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
    return reverse(net, x, axis)


def reverse(net: Net, x: str, axis: int) -> str:
    starts, ends, axes, steps = (net.const([v], np.int64) for v in (-1, -(2**40), axis, -1))
    return net.node("Slice", [x, starts, ends, axes, steps])


def simple(op: str) -> Callable[[Net, str], str]:
    return lambda net, x: net.node(op, [x])


INSERTED = {
    "Neg": simple("Neg"), "Relu": simple("Relu"), "Abs": simple("Abs"), "Floor": simple("Floor"),
    "Tanh": simple("Tanh"), "times 1.01": times(1.01), "times 1.001": times(1.001), "times 2": times(2),
    "times zero": times(0), "one channel times 1.01": _one_channel, "one place lifted": _one_place, "Clip": _clip,
    "plus a constant": _add, "turned": _turned,
}  # fmt: skip


@kind("operator inserted")
def _(net: Net) -> str | None:
    name = net.pick(INSERTED)
    where = net.through(INSERTED[name], lambda x: len(net.shape(x)) > 1)
    return where and f"{name} {where}"


@kind("Identity inserted")
def _(net: Net) -> str | None:
    return net.through(simple("Identity"), kinds="fiub")


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
