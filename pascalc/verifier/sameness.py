"""Whether an operator, or a neuron, of the compiled network is the source's, by what the files themselves say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from pascalc.graph import Model, is_constant
from pascalc.neurons import Neuron


def same_operator(a: tuple[gs.Node, Model], b: tuple[gs.Node, Model], pairs: list[tuple[gs.Tensor, gs.Tensor]]) -> bool:
    """Whether two nodes, each with its model, are one operator of one version, with the same attributes and constants.
    Their variable inputs, those of subgraphs included, are added to ``pairs``."""
    return _since(*a) == _since(*b) and _same_node(a[0], b[0], {}, pairs)


def _since(node: gs.Node, model: Model) -> int:
    """The opset in which the operator came to mean what it means in the model's opset."""
    domain = node.domain or ""
    version = model.opset if domain in ("", "ai.onnx") else model.domain_version(domain)
    try:
        return int(onnx.defs.get_schema(node.op, version, domain).since_version)
    except onnx.defs.SchemaError:
        return version


def _same_node(a: gs.Node, b: gs.Node, local: dict[int, int], pairs: list[tuple[gs.Tensor, gs.Tensor]]) -> bool:
    """Whether two nodes compute the same from their variable inputs, which are added to ``pairs``; ``local`` pairs the
    tensors of the subgraphs that they stand in."""
    if (a.op, a.domain or "", len(a.inputs), len(a.outputs)) != (b.op, b.domain or "", len(b.inputs), len(b.outputs)):
        return False
    if set(a.attrs) != set(b.attrs):
        return False
    if not all(_same_tensor(x, y, local, pairs) for x, y in zip(a.inputs, b.inputs, strict=True)):
        return False
    return all(_same_value(value, b.attrs[key], local, pairs) for key, value in a.attrs.items())


def _same_tensor(a: gs.Tensor, b: gs.Tensor, local: dict[int, int], pairs: list[tuple[gs.Tensor, gs.Tensor]]) -> bool:
    if a.is_empty() or b.is_empty():
        return bool(a.is_empty() and b.is_empty())
    if is_constant(a) or is_constant(b):
        return is_constant(a) and is_constant(b) and _same_array(a.values, b.values)
    if id(a) in local or id(b) in local.values():
        return local.get(id(a)) == id(b)
    pairs.append((a, b))
    return True


def _same_value(a: Any, b: Any, local: dict[int, int], pairs: list[tuple[gs.Tensor, gs.Tensor]]) -> bool:
    """Whether two attributes are the same."""
    if isinstance(a, gs.Graph):
        return isinstance(b, gs.Graph) and _same_graph(a, b, local, pairs)
    if isinstance(a, gs.Constant):
        return isinstance(b, gs.Constant) and _same_array(a.values, b.values)
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and _same_array(a, b)
    if isinstance(a, (list, tuple)):
        return (
            isinstance(b, (list, tuple))
            and len(a) == len(b)
            and all(_same_value(x, y, local, pairs) for x, y in zip(a, b, strict=True))
        )
    return type(a) is type(b) and repr(a) == repr(b)  # which tells 0.0 from -0.0, and takes NaN for itself


def _same_graph(a: gs.Graph, b: gs.Graph, local: dict[int, int], pairs: list[tuple[gs.Tensor, gs.Tensor]]) -> bool:
    """Whether two subgraphs compute the same, node by node, from what they take of the main graph."""
    sizes = [(len(g.nodes), len(g.inputs), len(g.outputs)) for g in (a, b)]
    if sizes[0] != sizes[1]:
        return False
    local = dict(local)
    local.update((id(x), id(y)) for x, y in zip(a.inputs, b.inputs, strict=True))
    for x, y in zip(a.nodes, b.nodes, strict=True):
        if len(x.outputs) != len(y.outputs):
            return False
        local.update((id(s), id(t)) for s, t in zip(x.outputs, y.outputs, strict=True))
    nodes = zip(a.nodes, b.nodes, strict=True)
    ends = zip(a.outputs, b.outputs, strict=True)
    return all(_same_node(x, y, local, pairs) for x, y in nodes) and all(
        _same_tensor(x, y, local, pairs) for x, y in ends
    )


def _same_array(a: Any, b: Any) -> bool:
    x, y = np.asarray(a), np.asarray(b)
    if x.dtype != y.dtype or x.shape != y.shape:
        return False
    return bool(np.array_equal(x, y)) if x.dtype.hasobject else x.tobytes() == y.tobytes()


def mismatches(source: Neuron, stand_in: Neuron) -> Iterator[str]:
    """What is wrong with a neuron, whatever the data."""
    model = stand_in.model
    start = source.phi if model is None else model.start(source.phi)
    if stand_in.thresholds is None and np.float32(stand_in.phi) != np.float32(start):
        yield f"its membrane starts at {stand_in.phi:g} of a spike, not at {start:g}"
    misfit = "" if model is None else model.misfit(stand_in.levels, stand_in.steps_in, stand_in.steps_out)
    if misfit:
        yield misfit
    if model is None or model.threshold_form is not None:
        yield from _other_thresholds(source, stand_in)
    if stand_in.threshold.dtype != source.threshold.dtype:
        yield f"it computes in {stand_in.threshold.dtype}, the source in {source.threshold.dtype}"
    for neuron, whose in ((source, "the source's"), (stand_in, "its")):
        if not neuron.in_range:
            yield f"{whose} threshold is not a positive number whose theta/L and L/theta are numbers, too"


def _other_thresholds(source: Neuron, stand_in: Neuron) -> Iterator[str]:
    """What differs between the thresholds of neurons that have one for each level. They are compared bit for bit: one
    that is wrong by a single float shows in no run that does not hit it."""
    wanted, given = source.thresholds, stand_in.thresholds
    if wanted is None or given is None:
        if wanted is not given:
            has, other = ("the source's", "it has") if given is None else ("its", "the source's has")
            yield f"{has} thresholds are given one by one, and {other} one theta for all levels"
        return
    if stand_in.levels != source.levels or wanted.shape != given.shape:
        yield f"its thresholds have the shape {list(given.shape)}, the source's {list(wanted.shape)}"
    elif not _same_array(wanted, given):
        levels = np.nonzero(wanted != given)[0]  # none where only the types or the signs of zeros differ
        which = f"threshold of level {levels[0] + 1} is" if levels.size else "thresholds are"
        yield f"its {which} not the source's"
    if not _same_array(source.unit, stand_in.unit):
        yield "the height of its spikes is not the source's"


def fits(threshold: Any, tensor: gs.Tensor) -> bool:
    """Whether a threshold broadcasts against a sample without making it larger; sizes that are not known fit."""
    sample = list(tensor.shape or [None])[1:]
    if threshold.size == 1 and threshold.ndim <= len(sample) + 1:
        return True
    own = list(threshold.shape)[-len(sample) :] if sample else []
    extra = threshold.ndim - len(own)
    sizes = zip(own, sample[len(sample) - len(own) :], strict=True)
    return (
        extra <= 1
        and all(d == 1 for d in threshold.shape[:extra])
        and all(a == 1 or a == b or not isinstance(b, int) for a, b in sizes)
    )
