"""Mutations of real model files: of their bytes, and of the fields that protobuf makes of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import onnx

from tests.small_networks import linear_network, residual_network

ROOT = Path(__file__).parents[2]
Random = np.random.Generator

#: Numbers that break things.
NUMBERS = (0, 1, -1, 2, 3, 7, 255, 2**16, 2**31 - 1, 2**31, 2**32, 2**40, 2**62, 2**63 - 1, -(2**63))


@cache
def sources() -> tuple[bytes, ...]:
    """The files that are mutated; a trained network, small ones more often."""
    trained = (ROOT / "examples" / "fashion-mnist" / "resnet.onnx").read_bytes()
    residual, on_grid = residual_network(), residual_network(1, grid=True, batch=2)
    linear = linear_network()
    old = linear_network()
    old.opset_import[0].version = 11
    small = tuple(m.SerializeToString() for m in (residual, on_grid, linear, old))
    return (trained, *small, *small)


def mutate(rng: Random) -> bytes:
    """One of the sources with one mutation or a few; one of every two has a single one."""
    data = sources()[rng.integers(len(sources()))]
    if rng.random() < 0.4:
        return _bytes(data, rng)
    model = onnx.ModelProto.FromString(data)
    for _ in range(rng.geometric(0.5)):
        FIELDS[rng.integers(len(FIELDS))](model, rng)
    return model.SerializeToString()


def _bytes(data: bytes, rng: Random) -> bytes:
    """Flips, deletions, insertions, repetitions and cuts. Half of them hit the first and last few kilobytes, which
    hold more structure than weights."""
    out = bytearray(data)
    for _ in range(rng.geometric(0.5)):
        span = len(out) if rng.random() < 0.5 else min(len(out), 4096)
        at = int(rng.integers(span)) if rng.random() < 0.5 else len(out) - 1 - int(rng.integers(span))
        length = int(rng.integers(1, 17))
        match rng.integers(6):
            case 0:
                out[at] ^= 1 << rng.integers(8)
            case 1:
                out[at] = rng.integers(256)
            case 2:
                del out[at : at + length]
            case 3:
                out[at:at] = rng.bytes(length)
            case 4:
                out[at:at] = out[at : at + length]
            case _:
                del out[at:]
        if not out:
            return bytes(data[:1])
    return bytes(out)


def _pick(items: object, rng: Random) -> int | None:
    count = len(items)  # type: ignore[arg-type]
    return int(rng.integers(count)) if count else None


def _nodes(model: onnx.ModelProto, rng: Random) -> None:
    """Drop, repeat, swap or move a node."""
    nodes = model.graph.node
    at, other = _pick(nodes, rng), _pick(nodes, rng)
    if at is None or other is None:
        return
    match rng.integers(3):
        case 0:
            del nodes[at]
        case 1:
            nodes.insert(other, nodes[at])
        case _:
            first, second = onnx.NodeProto(), onnx.NodeProto()
            first.CopyFrom(nodes[at])
            second.CopyFrom(nodes[other])
            nodes[at].CopyFrom(second)
            nodes[other].CopyFrom(first)


def _names(model: onnx.ModelProto, rng: Random) -> None:
    """Give one place of a tensor another tensor's name, or a name of nothing."""
    graph = model.graph
    lists = [n.input for n in graph.node] + [n.output for n in graph.node]
    known = [name for names in lists for name in names] + ["", "nowhere", "\u00fc" * 100]
    names = lists[rng.integers(len(lists))] if lists else []
    if names:
        names[rng.integers(len(names))] = known[rng.integers(len(known))]


def _operators(model: onnx.ModelProto, rng: Random) -> None:
    """Make a node another operator."""
    schemas = sorted({s.name for s in onnx.defs.get_all_schemas()})
    at = _pick(model.graph.node, rng)
    if at is not None:
        others = [n.op_type for n in model.graph.node]
        model.graph.node[at].op_type = (schemas if rng.random() < 0.5 else others)[rng.integers(len(others)) % 100]


def _attributes(model: onnx.ModelProto, rng: Random) -> None:
    """Change a number, a list or the type of an attribute, or drop it."""
    owners = [n for n in model.graph.node if n.attribute]
    at = _pick(owners, rng)
    if at is None:
        return
    attributes = owners[at].attribute
    attribute = attributes[rng.integers(len(attributes))]
    number = NUMBERS[rng.integers(len(NUMBERS))]
    match rng.integers(5):
        case 0:
            attribute.i = number
        case 1 if attribute.ints:
            attribute.ints[rng.integers(len(attribute.ints))] = number
        case 2:
            attribute.ints.append(number)
        case 3:
            attribute.type = int(rng.integers(15))
        case _:
            attributes.remove(attribute)


def _shapes(model: onnx.ModelProto, rng: Random) -> None:
    """Change the rank, a dimension or the type of an input or output."""
    values = [*model.graph.input, *model.graph.output]
    at = _pick(values, rng)
    if at is None:
        return
    tensor = values[at].type.tensor_type
    dims = tensor.shape.dim
    match rng.integers(4):
        case 0:
            tensor.elem_type = int(rng.integers(24))
        case 1 if dims:
            del dims[rng.integers(len(dims))]
        case 2:
            dims.add().dim_value = NUMBERS[rng.integers(len(NUMBERS))]
        case _ if dims:
            dim = dims[rng.integers(len(dims))]
            if rng.random() < 0.5:
                dim.dim_param = "N"
            else:
                dim.dim_value = NUMBERS[rng.integers(len(NUMBERS))]


def _constants(model: onnx.ModelProto, rng: Random) -> None:
    """Change dimensions, type, or values of an initializer, or drop or repeat it."""
    tensors = model.graph.initializer
    at = _pick(tensors, rng)
    if at is None:
        return
    tensor = tensors[at]
    match rng.integers(7):
        case 0 if tensor.dims:
            tensor.dims[rng.integers(len(tensor.dims))] = NUMBERS[rng.integers(len(NUMBERS))]
        case 1:
            tensor.dims.append(int(NUMBERS[rng.integers(4)]))
        case 2:
            tensor.data_type = int(rng.integers(28))
        case 3:
            tensor.raw_data = tensor.raw_data[: rng.integers(len(tensor.raw_data) + 1)]
        case 4:
            del tensors[at]
        case 5:
            tensors.add().CopyFrom(tensor)
        case _ if tensor.data_type == onnx.TensorProto.FLOAT and tensor.raw_data and len(tensor.raw_data) % 4 == 0:
            values = np.frombuffer(tensor.raw_data, np.float32).copy()
            values[rng.integers(values.size)] = rng.choice([0, -1, 1e-38, 1e38, np.inf, -np.inf, np.nan, 0.1, 3])
            tensor.raw_data = values.tobytes()


def _header(model: onnx.ModelProto, rng: Random) -> None:
    """Change the opset or the version of the format."""
    if rng.random() < 0.5 and model.opset_import:
        model.opset_import[0].version = int(rng.integers(-1, 28))
    else:
        model.ir_version = int(rng.integers(0, 16))


FIELDS: tuple[Callable[[onnx.ModelProto, Random], None], ...] = (
    *(_nodes, _names, _names, _operators, _attributes, _shapes, _constants, _constants, _header),
)
