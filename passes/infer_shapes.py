"""Shapes of all tensors, which axis is the batch, and reshapes that no longer depend on it.

Shape inference runs twice, with batch 7 and batch 17. A first axis that came out as 7 and 17 is the batch, a dimension
that came out the same is static, and anything else mixes batch and sample. This sees through every Shape-Gather-Concat
chain that exporters write, because with a concrete batch they are constants.

Where onnx's inference gives up (operators of other domains) or is known to be wrong (pools that round up or pad
themselves), onnxruntime is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.shape_inference
import onnx_graphsurgeon as gs

from pascalc import observed
from pascalc.constants import CannotEvaluate, evaluate
from pascalc.errors import CompileError
from pascalc.graph import BATCH, Array, Model, has_tensor, is_constant, is_operator, set_input, sweep
from pascalc.linear import check_layer, is_layer
from pascalc.modelfile import skeleton
from pascalc.ops import DOMAIN, MAX_LEVELS
from pascalc.passes.base import Pass
from pascalc.passes.facts import SHAPES, Fact
from pascalc.protos import subgraphs

Shape = list[Any] | None
#: Element types and shapes by name.
Types = dict[str, tuple[Any, Shape]]

#: No share of the batch, rounded down, comes to the same size in both.
_PROBES = (7, 17)
#: Biases and other lists of numbers are shorter than this.
_LONG = 2**20
#: So often the shapes behind pools are inferred anew; each time serves all pools that are not behind one another.
_ROUNDS = 100
_UNSUPPORTED: dict[int, str] = {onnx.TensorProto.FLOAT16: "float16", onnx.TensorProto.BFLOAT16: "bfloat16"}


@dataclass(frozen=True)
class InferShapes(Pass):
    """Infer all shapes, find the batch axis, and free reshapes from a baked-in or computed batch size."""

    provides: ClassVar[frozenset[Fact]] = frozenset({SHAPES})

    def run(self, model: Model) -> int:
        batched = _batched_inputs(model)
        _check_outputs(model)
        proto, _ = skeleton(model)
        declared = _check(proto, model)
        rewrites = 0
        while True:
            shapes = _probe(proto, batched, model)
            for tensor in model.graph.tensors().values():
                if not is_constant(tensor):
                    dtype, shape = shapes.get(tensor.name, (None, tensor.shape))
                    tensor.shape = shape
                    tensor.dtype = dtype or declared.get(tensor.name, (None,))[0] or tensor.dtype
            fixed, unbaked = 0, 0
            for node in model.graph.nodes:
                if is_operator(node, "Reshape"):
                    fixed += _fix_computed(model, node)
                    unbaked += _fix_baked(model, node)
                elif is_operator(node, "Resize"):
                    unbaked += _fix_resize(model, node)
            rewrites += fixed + unbaked
            if not unbaked:
                break
            proto, _ = skeleton(model)  # a reshape freed of its batch changes the shapes behind it
        for node in model.graph.nodes:
            if is_layer(node):
                check_layer(model, node)
        sweep(model)
        return rewrites


def set_shapes(model: Model) -> None:
    """Set the types and shapes of a network without changing it. A first axis that is k times the batch, as that of a
    train of k steps, is ``"k*batch"``."""
    shapes = _probe(_without_bodies(skeleton(model)[0]), _batched_inputs(model), model, trains=True)
    for tensor in model.graph.tensors().values():
        if not is_constant(tensor) and tensor.name in shapes:
            dtype, tensor.shape = shapes[tensor.name]
            tensor.dtype = dtype or tensor.dtype


def _without_bodies(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The network with the project's operators replaced by what has the same shape and is easily inferred: a train of a
    steps becomes one of b steps as every a-th row of b copies of it."""
    nodes: list[onnx.NodeProto] = []
    for number, node in enumerate(proto.graph.node):
        if node.domain != DOMAIN:
            nodes.append(node)
            continue
        attributes = {a.name: a.i for a in node.attribute}
        before = attributes.get("steps", 1) if node.op_type == "Accumulate" else attributes.get("steps_in", 1)
        after = attributes.get("steps", 1) if node.op_type in ("Spread", "Hold") else attributes.get("steps_out", 1)
        if not 1 <= min(before, after) <= max(before, after) <= MAX_LEVELS:
            raise CompileError("it has trains of an impossible length", node=node.name)
        names = [f"{node.output[0]}/{part}/{number}" for part in ("copies", "first", "last", "axis", "every")]
        for name, value in zip(names[1:], (0, 2**62, 0, before), strict=True):
            proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array([value]), name))
        nodes.append(onnx.helper.make_node("Concat", [node.input[0]] * after, names[:1], axis=0))
        nodes.append(onnx.helper.make_node("Slice", names, node.output))
    plain = onnx.ModelProto()
    plain.CopyFrom(proto)
    del plain.functions[:], plain.graph.node[:]
    plain.graph.node.extend(nodes)
    return plain


def _batched_inputs(model: Model) -> set[str]:
    """The inputs whose first axis is the batch: all that share the first input's batch dimension."""
    batched: set[str] = set()
    first: int | str | None = None
    for index, value in enumerate(model.interface_inputs):
        tensor = value.type.tensor_type
        if not value.type.HasField("tensor_type"):
            raise CompileError("an input is not a tensor", file=model.file, node=value.name)
        if tensor.elem_type in _UNSUPPORTED:
            raise CompileError(
                f"the network computes in {_UNSUPPORTED[tensor.elem_type]}, in which a sum of currents cannot be told "
                "from its neighbours at the half points that decide a spike",
                file=model.file,
                node=value.name,
                hint="Export it in float32.",
            )
        if not tensor.shape.dim:
            continue
        dim = tensor.shape.dim[0]
        size = dim.dim_value if dim.HasField("dim_value") else dim.dim_param
        first = size if index == 0 else first
        if isinstance(size, str) or size == first:
            batched.add(value.name)
    return batched


def _check_outputs(model: Model) -> None:
    """Sequences, optional values and maps have no time type, and nothing to compare them by."""
    for value in model.interface_outputs:
        kind = value.type.WhichOneof("value")
        if kind not in (None, "tensor_type"):
            raise CompileError(
                f"an output is not a tensor ({kind.removesuffix('_type')})",
                file=model.file,
                node=value.name,
                hint="Export the network with its tensors as outputs.",
            )


def _probe(proto: onnx.ModelProto, batched: set[str], model: Model, trains: bool = False) -> Types:
    found = [_infer(proto, batched, batch, model) for batch in _PROBES]
    merged: Types = {}
    for name, (dtype, small) in found[0].items():
        large = found[1].get(name, (None, None))[1]
        if small is None or large is None or len(small) != len(large):
            merged[name] = (dtype, None)
            continue
        shape: list[Any] = []
        for axis, sizes in enumerate(zip(small, large, strict=True)):
            steps, rest = divmod(sizes[0], _PROBES[0]) if isinstance(sizes[0], int) else (0, 1)
            if axis == 0 and sizes == _PROBES:
                shape.append(BATCH)
            elif trains and axis == 0 and steps and not rest and sizes[1] == steps * _PROBES[1]:
                shape.append(f"{steps}*{BATCH}")
            else:
                shape.append(sizes[0] if sizes[0] == sizes[1] else None)
        merged[name] = (dtype, shape)
    return merged


def _check(proto: onnx.ModelProto, model: Model) -> Types:
    """Types and shapes with the sizes that the file declares for its inputs; those that contradict one another are
    refused."""
    declared = onnx.ModelProto()
    declared.CopyFrom(proto)
    del declared.functions[:]  # recognise-qcfs says what is wrong with an operator of the project's
    _forget(declared)
    if any(observed.is_doubtful(node) for node in declared.graph.node):
        for _ in range(_ROUNDS):
            if not _correct_pools(declared, _types(_inferred(declared, model, False)), model.opset):
                break
    try:
        return _types(onnx.shape_inference.infer_shapes(declared, check_type=True, strict_mode=True))
    except onnx.shape_inference.InferenceError as error:
        raise _contradiction(error, model) from error


def _forget(proto: onnx.ModelProto) -> None:
    """Drop what the file says of shapes that follow from its inputs'; it may be stale."""
    graphs = [proto.graph]
    while graphs:
        graph = graphs.pop()
        given = {value.name: value for value in graph.input}
        for value in graph.output:
            if value.name in given:  # onnx believes the output
                value.CopyFrom(given[value.name])
            else:
                value.type.tensor_type.ClearField("shape")
        del graph.value_info[:]
        graphs += [inner for node in graph.node for inner in subgraphs(node)]


def _contradiction(error: onnx.shape_inference.InferenceError, model: Model) -> CompileError:
    reason = " ".join(str(error).split())[:300]
    return CompileError(f"the shapes or types of the network do not fit together: {reason}", file=model.file)


def _infer(proto: onnx.ModelProto, batched: set[str], batch: int, model: Model) -> Types:
    probe = onnx.ModelProto()
    probe.CopyFrom(proto)
    for value in probe.graph.input:
        if value.name in batched:
            value.type.tensor_type.shape.dim[0].dim_value = batch
    _forget(probe)
    rounds = 0
    while True:
        types = _types(_inferred(probe, model, False))
        rounds += 1
        if rounds <= _ROUNDS and _correct_pools(probe, types, model.opset):
            continue
        if _settle(probe, types, model.opset) or _ask_onnxruntime(probe, types):
            continue
        # Only where an input has other dynamic dimensions is a shape left that is known in part; onnx then follows
        # the values of all small tensors, and must not meet a large one: it would hold its values one by one.
        # The bodies of neurons compute with shapes, too.
        computes = probe.functions or any(node.op_type in ("Shape", "Size") for node in probe.graph.node)
        return _types(_inferred(probe, model, True)) if computes and not _has_long_values(types) else types


def _correct_pools(probe: onnx.ModelProto, types: Types, opset: int) -> bool:
    """Put tensors of the true size in the place of pools that onnx infers wrongly; says whether there were any."""
    cut: Types = {}
    behind: set[str] = set()  # what the sizes of these are inferred from is wrong
    for node in probe.graph.node:
        if behind.intersection(node.input):
            behind.update(node.output)
            continue
        if not observed.is_doubtful(node):
            continue
        shape = types.get(node.input[0], (None, None))[1]
        if shape is None or not all(isinstance(size, int) for size in shape[2:]):
            continue
        sizes = observed.pooled(node, shape[2:], opset)
        if sizes is None:
            continue
        for name in node.output:
            dtype, inferred = types.get(name, (None, None))
            if dtype is not None and inferred != [*shape[:2], *sizes]:
                cut[name] = (dtype, [*shape[:2], *sizes])
                behind.update(node.output)
    return _cut(probe, cut)


def _ask_onnxruntime(probe: onnx.ModelProto, types: Types) -> bool:
    """Put tensors of the type and shape that onnxruntime knows in the place of other domains' operators, of which onnx
    knows none; says whether there were any. First those whose whole shape is known: others may follow from them."""
    wanted = {
        name
        for node in probe.graph.node
        if node.domain not in ("", "ai.onnx", DOMAIN)
        for name in node.output
        if name and types.get(name, (None, None))[0] is None
    }
    if not wanted:
        return False
    found: Types = {
        name: (onnx.helper.tensor_dtype_to_np_dtype(kind), shape)
        for name, (kind, shape) in observed.types(probe, wanted).items()
        if name in wanted
    }
    whole = {name: (t, s) for name, (t, s) in found.items() if s is not None and all(isinstance(d, int) for d in s)}
    return _cut(probe, whole) or _cut(probe, found)


def _cut(probe: onnx.ModelProto, given: Mapping[str, tuple[Any, Shape]]) -> bool:
    """Make inputs of tensors whose types and shapes are known; says whether there were any."""
    kept = onnx.GraphProto()
    for node in probe.graph.node:
        left = onnx.NodeProto()
        left.CopyFrom(node)
        left.output[:] = ["" if name in given else name for name in node.output]
        if any(left.output):
            kept.node.append(left)
    probe.graph.ClearField("node")
    probe.graph.node.extend(kept.node)
    for name, (dtype, shape) in given.items():
        kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        probe.graph.input.append(onnx.helper.make_tensor_value_info(name, kind, shape))
    return bool(given)


def _inferred(probe: onnx.ModelProto, model: Model, follow_values: bool) -> onnx.ModelProto:
    try:
        return onnx.shape_inference.infer_shapes(probe, data_prop=follow_values)
    except onnx.shape_inference.InferenceError as error:
        raise _contradiction(error, model) from error


def _has_long_values(types: Types) -> bool:
    lists = [shape for _, shape in types.values() if shape is not None and len(shape) == 1]
    return any(isinstance(shape[0], int) and shape[0] > _LONG for shape in lists)


def _settle(probe: onnx.ModelProto, types: Types, opset: int) -> bool:
    """Compute the nodes that depend on shapes alone; says whether there were any new ones."""
    known = {t.name: onnx.numpy_helper.to_array(t) for t in probe.graph.initializer}
    kept: list[onnx.NodeProto] = []
    for node in probe.graph.node:
        values = _of_shapes(node, types, known, opset)
        if values is None:
            kept.append(node)
            continue
        known.update(zip(node.output, values, strict=True))
        probe.graph.initializer.extend(
            onnx.numpy_helper.from_array(v, n) for n, v in zip(node.output, values, strict=True)
        )
    settled = len(kept) < len(probe.graph.node)
    if settled:
        rest = onnx.GraphProto()
        rest.node.extend(kept)
        probe.graph.ClearField("node")
        probe.graph.node.extend(rest.node)
    return settled


#: What exporters compute shapes with.
_SHAPE_ARITHMETIC = frozenset(
    (
        *("Add", "Cast", "Ceil", "Concat", "ConstantOfShape", "Div", "Equal", "Floor", "Gather", "Identity", "Max"),
        *("Min", "Mod", "Mul", "Range", "ReduceProd", "Reshape", "ScatterND", "Slice", "Squeeze", "Sub", "Transpose"),
        *("Unsqueeze", "Where"),
    )
)


def _of_shapes(node: onnx.NodeProto, types: Types, known: dict[str, Array], opset: int) -> list[Array] | None:
    if node.domain not in ("", "ai.onnx") or any(types.get(n, (None, None))[1] is None for n in node.output):
        return None
    shapes = [types[name][1] or [] for name in node.output]
    if any(not all(isinstance(d, int) for d in shape) or prod(shape) > 4096 for shape in shapes):
        return None
    if node.op_type == "Shape":
        shape = types.get(node.input[0], (None, None))[1]
        if shape is None or not all(isinstance(d, int) for d in shape):
            return None
        attributes = {a.name: a.i for a in node.attribute}
        return [np.array(shape[attributes.get("start", 0) : attributes.get("end", len(shape))], np.int64)]
    given = {name: known[name] for name in node.input if name in known}
    if node.op_type not in _SHAPE_ARITHMETIC or set(node.input) - {""} != set(given) or not given:
        return None
    try:
        return evaluate(node, given, opset)
    except CannotEvaluate:
        return None  # its shape stays what inference made of it


def _types(probe: onnx.ModelProto) -> Types:
    found: Types = {
        t.name: (onnx.helper.tensor_dtype_to_np_dtype(t.data_type), list(t.dims)) for t in probe.graph.initializer
    }
    for value in (*probe.graph.value_info, *probe.graph.output, *probe.graph.input):
        tensor = value.type.tensor_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type) if tensor.elem_type else None
        dims = list(tensor.shape.dim) if tensor.HasField("shape") else None
        found[value.name] = (
            dtype,
            None if dims is None else [d.dim_value if d.HasField("dim_value") else (d.dim_param or None) for d in dims],
        )
    return found


def _sizes(tensor: gs.Tensor) -> list[int] | None:
    """The static sample dimensions of a tensor whose first axis is the batch."""
    shape = tensor.shape
    if not shape or shape[0] != BATCH or not all(isinstance(d, int) and d > 0 for d in shape[1:]):
        return None
    return list(shape[1:])


def _target(node: gs.Node) -> list[int] | None:
    return [int(v) for v in node.inputs[1].values] if has_tensor(node, 1) and is_constant(node.inputs[1]) else None


def _fix_computed(model: Model, node: gs.Node) -> int:
    """A reshape whose shape is computed from the batch size, but only moves sample dimensions."""
    sample, out = _sizes(node.inputs[0]), _sizes(node.outputs[0])
    if is_constant(node.inputs[1]) or sample is None or out is None or prod(sample) != prod(out):
        return 0
    _set_target(model, node, out)
    return 1


def _fix_baked(model: Model, node: gs.Node) -> int:
    """A reshape to [b, ...] that keeps every sample whole: b was the batch size of the export."""
    sample, target = _sizes(node.inputs[0]), _target(node)
    if sample is None or not target or target[0] <= 0:
        return 0
    rest = target[1:]
    if rest.count(-1) == 1 and target[0] == _declared_batch(model) and 0 not in rest:
        known = -prod(rest)
        if prod(sample) % known:
            return 0
        rest[rest.index(-1)] = prod(sample) // known
    if any(d <= 0 for d in rest) or prod(rest) != prod(sample):
        return 0
    _set_target(model, node, rest)
    return 1


def _declared_batch(model: Model) -> int:
    """The batch size of the export; 0 where it is dynamic."""
    dims = model.interface_inputs[0].type.tensor_type.shape.dim
    return int(dims[0].dim_value) if dims else 0


def _fix_resize(model: Model, node: gs.Node) -> int:
    """A resize to sizes that include the batch, computed or those of the export, becomes one by scales."""
    sample = _sizes(node.inputs[0])
    kept = node.attrs.get("keep_aspect_ratio_policy", "stretch") == "stretch" and "axes" not in node.attrs
    cropped = node.attrs.get("coordinate_transformation_mode") == "tf_crop_and_resize"
    if sample is None or not has_tensor(node, 3) or not kept or cropped:
        return 0
    out = _sizes(node.outputs[0])
    if is_constant(node.inputs[3]):
        batch, *wanted = (int(v) for v in node.inputs[3].values)
        out = wanted if batch == _declared_batch(model) else None
    if out is None or len(out) != len(sample):
        return 0
    scales = np.array([1, *(new / old for new, old in zip(out, sample, strict=True))], np.float32)
    if any(int(np.float32(old) * scale) != new for old, scale, new in zip(sample, scales[1:], out, strict=True)):
        return 0  # rounding the scale would cost a row
    node.inputs.pop()
    set_input(node, 2, model.constant(f"{node.outputs[0].name}_scales", scales))
    return 1


def _set_target(model: Model, node: gs.Node, sample: list[int]) -> None:
    set_input(node, 1, model.constant(f"{node.outputs[0].name}_shape", np.array([-1, *sample], np.int64)))
