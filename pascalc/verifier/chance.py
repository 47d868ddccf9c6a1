"""Random inputs, levels, and values in place of what is computed: what a network is tried with beside data.

Levels are drawn in four ways, neuron by neuron: uniform, sparse (one in ten is not silent), all or nothing, and uniform
in some channels with silence in the rest. Dense ones exercise every sum, sparse ones show a small weight that the
rounding bound of a dense sum would hide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from pascalc.data import check_input
from pascalc.errors import CompileError
from pascalc.graph import Array, Model, is_constant, is_operator
from pascalc.stream import SampleStream, hold

#: Sizes taken for dimensions other than the batch that the network leaves open.
_OPEN = 32
#: The most numbers in a random input.
_MOST = 2**28


def random_inputs(model: Model, count: int, rng: np.random.Generator) -> SampleStream:
    """Random samples for every input of a network with shapes inferred.

    Floats are normal, each sample with a scale of its own from 1/4 to 256, half of them without sign, like images.
    Integers that index the rows of a table are rows of it; other bytes take all their values, other integers 0 and 1.

    Raises:
        CompileError: an input has no axis for samples, or too many numbers.
    """
    tensors = {t.name: t for t in model.graph.inputs}
    inputs = {}
    for value in model.interface_inputs:
        check_input(value, model.file)
        tensor = value.type.tensor_type
        dims = [d.dim_value if d.HasField("dim_value") else _OPEN for d in tensor.shape.dim]
        shape = (count, *dims[1:])
        if prod(shape) > _MOST:
            raise CompileError(
                f"random inputs of the shape {list(shape)} take too much memory",
                file=model.file,
                node=value.name,
                hint="Give data (--data), or fewer samples (--limit).",
            )
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        if dtype.kind == "f":
            scale = 2.0 ** rng.uniform(-2, 8, (count, *[1] * (len(shape) - 1)))
            values: Any = rng.normal(0, 1, shape) * scale
            values[count // 2 :] = np.abs(values[count // 2 :])
        else:
            values = rng.integers(*_range(tensors.get(value.name), dtype), shape, endpoint=True)
        inputs[value.name] = np.asarray(values).astype(dtype)
    return hold(inputs, model)


def open_axes(value: onnx.ValueInfoProto) -> list[int]:
    """The axes of a network input, other than the batch, whose sizes are open."""
    dims = value.type.tensor_type.shape.dim
    return [axis for axis, dim in enumerate(dims) if axis and not dim.HasField("dim_value")]


def resized(array: Array, axes: Sequence[int]) -> Array:
    """Samples of other sizes along these axes: half as large again, by repetition."""
    for axis in axes:
        size = array.shape[axis]
        array = np.take(array, np.arange(size + (size + 1) // 2) % max(size, 1), axis)
    return array


def drawn(samples: Mapping[str, Array], count: int, rng: np.random.Generator) -> dict[str, Array]:
    """So many samples, drawn from these with repetition, and disturbed."""
    numbers = rng.integers(0, len(next(iter(samples.values()))), count)
    return {name: disturbed(array[numbers], rng) for name, array in samples.items()}


def _range(tensor: gs.Tensor | None, dtype: np.dtype[Any]) -> tuple[int, int]:
    for node in [] if tensor is None else tensor.outputs:
        if is_operator(node, "Gather") and is_constant(node.inputs[0]) and node.inputs[1] is tensor:
            return 0, int(node.inputs[0].shape[node.attrs.get("axis", 0)]) - 1
    if dtype.itemsize == 1 and dtype.kind in "iu":
        return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    return 0, 1


def random_levels(shape: tuple[int, ...], levels: int, rng: np.random.Generator) -> Array:
    """Levels 0..L of a layer of the given shape, drawn in another way for every sample of the first axis."""
    uniform = rng.integers(0, levels, shape, np.int16, endpoint=True)
    if not uniform.size:
        return uniform
    for index in range(len(uniform)):
        sample = uniform[index, ...]  # a view, where there is one number a sample, too
        kind = rng.choice(4, p=(0.5, 0.15, 0.25, 0.1)) if index else 0
        if kind == 1:
            sample *= rng.random(sample.shape) < 0.1
        elif kind == 2:
            sample[...] = levels * (rng.random(sample.shape) < 0.5)
        elif kind == 3 and sample.ndim:
            sample *= (rng.random(sample.shape[:1]) < 0.5).reshape(-1, *[1] * (sample.ndim - 1))
    return uniform


def disturbed(values: Array, rng: np.random.Generator) -> Array:
    """Values in place of what an operator computed: floats moved about by their own spread, and none too large to be
    added up; all else as it is, since integers and truth values may be places and shapes."""
    if values.dtype.kind != "f" or not values.size:
        return values
    most = 2.0 ** (np.finfo(values.dtype).maxexp // 2)
    known = np.clip(np.nan_to_num(values.astype(np.float64)), -most, most)
    spread = float(np.std(known)) or 1.0
    return np.asarray(known + rng.normal(0, spread, values.shape), values.dtype)
