"""The thresholds of a step function, found by bisection on the very operators that it is made of.

Where a quantiser goes from one level to the next is decided by its own float arithmetic: a division, an addition, a
rounding, bounds. All of these are monotone in floats, so for every level there is one least float that reaches it. It
is found exactly, by bisection over the ordered floats, with what onnxruntime computes as the judge; no formula for it
could be exact for every scale and zero point.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from pascalc.errors import CompileError
from pascalc.graph import Array, Model, is_operator, producer
from pascalc.modelfile import to_bytes
from pascalc.rounding import declare
from pascalc.runtime import InferenceSession

#: So many thresholds an activation may have, over levels and channels; a formula says it where there are more.
_MOST = 2**22


@dataclass(frozen=True)
class Link:
    """One operator of a chain, and which of its inputs is the chain's."""

    node: gs.Node
    data: gs.Tensor


@dataclass(frozen=True)
class Monotone:
    """An operator of one input whose float results never go down where its input goes up.

    Attributes:
        rises: whether that is so with the attributes of a node.
        low, high: the bounds of its results.
    """

    rises: Callable[[gs.Node], bool]
    low: float = -np.inf
    high: float = np.inf


def _slope(default: float) -> Callable[[gs.Node], bool]:
    """Whether the attribute alpha is above zero."""
    return lambda node: bool(node.attrs.get("alpha", default) > 0)


#: What may stand before a quantiser and is taken into the neuron, whose thresholds are then those of both together: an
#: activation form is added by a row. Only what is monotone to the last bit belongs here. What onnxruntime approximates
#: is not: Sigmoid, Tanh, Elu, Softplus and Softsign go down by a float at millions of places (docs/architecture.md).
MONOTONE = {
    "HardSigmoid": Monotone(_slope(0.2), 0, 1),
    "LeakyRelu": Monotone(_slope(0.01)),
    "ThresholdedRelu": Monotone(_slope(1.0), low=0),
}


def monotone(node: gs.Node | None) -> Monotone | None:
    """What is known of a node that may be taken into a neuron; None where it may not."""
    form = MONOTONE[node.op] if is_operator(node, *MONOTONE) else None
    return form if form is not None and node is not None and form.rises(node) else None


def monotone_before(tensor: gs.Tensor) -> list[Link]:
    """The monotone operators that give the tensor, the first to be computed first."""
    links: list[Link] = []
    node = producer(tensor)
    while node is not None and monotone(node) is not None:
        links.insert(0, Link(node, node.inputs[0]))
        node = producer(node.inputs[0])
    return links


def thresholds(
    model: Model,
    chain: Sequence[Link],
    levels: int,
    height: Array,
    sample: tuple[int, ...],
    dtype: np.dtype[np.generic],
) -> Array | None:
    """The least values that reach each level of a chain of operators.

    Args:
        model: the network that the chain is from.
        chain: the operators, the first to be computed first, each with one input that is not constant.
        levels: L.
        height: the height of a level in the chain's result, shaped to broadcast against a sample.
        sample: the shape of a sample, with 1 along the axes along which all thresholds are the same.
        dtype: of what goes into the chain, float32 or float64.

    Returns:
        The thresholds, ascending, ``[levels, 1, *sample]``; None where there are too many of them, onnxruntime cannot
        compute the chain, or its levels do not run from 0 to L.
    """
    if levels * int(np.prod(sample)) > _MOST or dtype not in (np.float32, np.float64):
        return None
    try:
        run = _session(model, chain, len(sample) + 1, dtype)
        wanted = np.arange(1, levels + 1).reshape(-1, *[1] * len(sample))
        shape = (levels, *sample)
        keys = np.int32 if dtype == np.float32 else np.int64
        infinity = int(np.asarray(np.inf, dtype).view(keys))

        def reaches(place: Array) -> Array:
            with np.errstate(all="ignore"):
                level = np.rint(run(_float(place, dtype)) / height)
            return np.asarray(level >= wanted)

        low = np.full(shape, -infinity - 1, keys)  # one below minus infinity: reaches nothing
        high = np.full(shape, infinity, keys)
        with np.errstate(all="ignore"):
            ends = [np.rint(run(_float(place, dtype)) / height) for place in (low + 1, high)]
        if not np.array_equal(ends[0], np.zeros(shape)) or not np.array_equal(ends[1], np.full(shape, levels)):
            return None
        while np.any(high - 1 > low):
            middle = (low >> 1) + (high >> 1) + (low & high & 1)
            reached = reaches(middle) & (middle > low)
            low, high = np.where(reached, low, middle), np.where(reached, middle, high)
    except CompileError:
        return None
    return _float(high, dtype).reshape(levels, 1, *sample)


def _float(place: Array, dtype: np.dtype[np.generic]) -> Array:
    """The float at a place in the order of all floats: 0 is 0.0, 1 the least positive one, -1 the largest negative."""
    sign = np.asarray(np.iinfo(place.dtype).min, place.dtype)
    return np.where(place >= 0, place, sign - place).astype(place.dtype).view(dtype)


def _session(model: Model, chain: Sequence[Link], rank: int, dtype: np.dtype[np.generic]) -> Callable[[Array], Array]:
    """The chain alone, as a function of what goes into it."""
    first = last = gs.Variable(model.unique_name("steps/x"), dtype, [None] * rank)
    nodes = []
    for number, link in enumerate(chain):
        out = gs.Variable(model.unique_name(f"steps/{number}"), link.node.outputs[0].dtype, None)
        inputs = [last if t is link.data else t for t in link.node.inputs]
        name = model.unique_name(f"steps/node{number}")
        attrs = dict(link.node.attrs)
        nodes.append(gs.Node(link.node.op, name, attrs=attrs, inputs=inputs, outputs=[out], domain=link.node.domain))
        last = out
    graph = gs.Graph(nodes=nodes, inputs=[first], outputs=[last], opset=model.opset)
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    given = onnx.helper.make_tensor_value_info(first.name, kind, [None] * rank)
    part = Model(graph, model.opset, model.ir_version, [given], [declare(last)], file=model.file)
    try:
        session = InferenceSession(to_bytes(part), threads=1, optimised=False)
    finally:
        for node in nodes:  # constants know who uses them
            node.inputs.clear()

    def run(x: Array) -> Array:
        """What x gives. It goes in twice: of an odd number of integers of four bits onnxruntime loses the last."""
        return np.asarray(session.run(None, {first.name: np.concatenate([x, x])})[0][: len(x)])

    return run
