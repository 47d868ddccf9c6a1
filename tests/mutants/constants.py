"""Constants: weights, biases, whole channels, integers."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import AttributeProto, numpy_helper

from tests.mutants.edits import Net, attribute, subgraphs
from tests.mutants.kinds import LINEAR, kind
from tests.small_networks import Array


def spoilt(values: Array, net: Net) -> tuple[Array, str]:
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
    values, what = spoilt(numpy_helper.to_array(tensor), net)
    net.change(tensor, values)
    return f"{tensor.name}: {what}"


@kind("bias")
def _(net: Net) -> str | None:
    biases = {n.input[2] for n in net.nodes if n.op_type in LINEAR and len(n.input) > 2}
    biases |= {t for n in net.nodes if n.op_type in ("Add", "Sub") for t in n.input}
    tensor = net.pick(t for t in net.initializers() if t.name in biases)
    if tensor is None:
        return None
    values, what = spoilt(numpy_helper.to_array(tensor), net)
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
