"""ONNX files in and out.

Weights never travel through onnx's own passes: on the way in, everything above a few kilobytes is taken out of the
ModelProto as NumPy arrays, and the *skeleton* that is left (the big weights as typed graph inputs) is what the
checker, the version converter and shape inference see. On the way out the file is written as a stream, one weight at
a time. So time and memory stay near those of a plain load and save.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import google.protobuf.message
import numpy as np
import onnx
import onnx.numpy_helper
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.logger.logger import G_LOGGER, LoggerSuppress
from onnx_graphsurgeon.util.exception import OnnxGraphSurgeonException

from pascalc import filekinds, functions, limits, ops, opsets, ownops, quantisers
from pascalc.errors import CompileError
from pascalc.files import is_stream, read_bytes, real, same, write_together
from pascalc.graph import Array, Model, Note, NoteKind
from pascalc.protos import constant_value, copy, first_line, opset

#: Weights of more bytes than this stay out of the skeleton.
_DETACH_ABOVE = 4096
#: protobuf cannot hold a message of 2 GiB; larger models keep their weights in a file beside them.
_MESSAGE_LIMIT = 2**31 - 2**20

_TENSOR = onnx.TensorProto


def load(path: str | Path) -> Model:
    """Read an ONNX file.

    Model-local functions are inlined, opsets older than the function bodies need converted, QONNX quantisers written
    out in standard operators (pascalc/quantisers.py), ``Constant`` nodes made initializers, and initializers that are
    also inputs made plain constants.

    Raises:
        CompileError: the file is missing, empty, not an ONNX model, truncated, inconsistent, of an opset that cannot
            be converted, has functions that onnxruntime ignores, or refers to external data that is missing or outside
            the model's folder.
    """
    path = Path(path)
    data = read_bytes(path)
    try:
        return _load(data, path)
    except UnicodeDecodeError as error:  # onnx and graphsurgeon decode the texts among the attributes
        raise _not_text(error.object, path) from error


def _load(data: bytes, path: Path) -> Model:
    model = _parse(data, path)
    digest = hashlib.sha256(data).hexdigest()
    del data
    limits.check_size(model, path)
    _check_fields(model, path)
    functions.check(model, path)
    weights = _detach(model, path)
    # Parsing the skeleton anew lets go of the arena that held the weights.
    model = onnx.ModelProto.FromString(model.SerializeToString())
    changed = functions.changed(model)
    model = functions.inlined(model, path)  # before the opset changes: the converter drops functions
    quantisers.import_domains(model)
    model = opsets.modernise(model, path)
    _constants_to_initializers(model.graph)
    rewritten = quantisers.holds_quantisers(model)
    quantisers.expand(model, path)
    ownops.check(model.graph, path)
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_value < 0:  # unknown, as onnxruntime reads it
                dim.ClearField("dim_value")
    for value in model.graph.input:
        if value.type.HasField("tensor_type") and not value.type.tensor_type.HasField("shape"):
            raise CompileError(
                "an input has no rank (its number of dimensions is dynamic)",
                file=path,
                node=value.name,
                hint="Export with a fixed number of dimensions; their sizes may be dynamic.",
            )
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise CompileError(f"this is not a valid ONNX model: {first_line(error)}", file=path) from error
    outputs = Counter(value.name for value in model.graph.output)
    for name, times in outputs.items():
        if times > 1:
            raise CompileError(
                f"the model lists this output {times} times",
                file=path,
                node=name,
                hint="Export it with each output once.",
            )
    interface = [v for v in model.graph.input if v.name not in weights]
    with _quiet():
        graph = gs.import_onnx(model)
        _read_foreign_types(graph)
    for tensor in list(graph.inputs):
        if tensor.name in weights:
            tensor.to_constant(weights.pop(tensor.name))
    graph.inputs[:] = [tensor for tensor in graph.inputs if not isinstance(tensor, gs.Constant)]
    graph.functions.clear()
    reason = "the file's body of {} is not this version's"
    notes = [Note("load", name, reason.format(name), NoteKind.OTHER_BODY) for name in changed]
    return Model(
        graph=graph,
        notes=notes,
        opset=opset(model),
        ir_version=model.ir_version,
        interface_inputs=[copy(v) for v in interface],
        interface_outputs=[copy(v) for v in model.graph.output],
        file=path,
        digest=digest,
        metadata={entry.key: entry.value for entry in model.metadata_props},
        rewritten=rewritten,
    )


def skeleton(model: Model) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """The model as a ModelProto whose big weights are graph inputs, and those weights by name.

    Operators of the domain ``ai.pascalc`` bring their function bodies. The skeleton is a valid model by itself.
    """
    graph = model.graph
    tensors = graph.tensors(check_duplicates=False)
    weights: dict[str, Array] = {}
    for tensor in tensors.values():
        if isinstance(tensor, gs.Constant) and isinstance(tensor._values, np.ndarray) and _is_big(tensor._values):
            weights[tensor.name] = tensor._values
    big = [tensor for tensor in tensors.values() if tensor.name in weights]
    for tensor in big:
        tensor.to_variable(dtype=weights[tensor.name].dtype, shape=list(weights[tensor.name].shape))
        tensor.type = "tensor_type"
    try:
        with _quiet():
            proto = gs.export_onnx(graph)
    except (ValueError, OnnxGraphSurgeonException) as error:  # text that is none, types that are missing or unknown
        raise CompileError(
            f"it holds what cannot be written again: {first_line(error)}",
            file=model.file,
            hint="The file is damaged: export or download the model again.",
        ) from error
    finally:
        for tensor in big:
            tensor.to_constant(weights[tensor.name])
    names = {v.name for v in proto.graph.value_info} & set(weights)
    inputs = [v for v in proto.graph.value_info if v.name in names]
    rest = [v for v in proto.graph.value_info if v.name not in names]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(rest)
    del proto.graph.input[:]
    proto.graph.input.extend([*model.interface_inputs, *inputs])
    del proto.graph.output[:]
    proto.graph.output.extend(model.interface_outputs)
    used = sorted({node.op_type for node in proto.graph.node if node.domain == ops.DOMAIN})
    del proto.opset_import[:]
    domains = {node.domain for node in proto.graph.node} - {"", "ai.onnx", ops.DOMAIN}
    known = {o.domain: o.version for o in graph.import_domains or []}
    proto.opset_import.extend([onnx.helper.make_opsetid("", model.opset)])
    proto.opset_import.extend([onnx.helper.make_opsetid(d, known.get(d, 1)) for d in sorted(domains)])
    if used:
        proto.opset_import.extend([onnx.helper.make_opsetid(ops.DOMAIN, ops.DOMAIN_VERSION)])
        proto.functions.extend(ops.OPERATORS[name].function(model.opset) for name in used)
    proto.ir_version = max(model.ir_version, 8)  # functions came with IR 8
    proto.producer_name = "pascalc"
    onnx.helper.set_model_props(proto, model.metadata)
    return proto, weights


def save(model: Model, path: str | Path) -> None:
    """Write the model as an ONNX file, whole or not at all.

    A model of 2 GiB or more keeps its weights in ``<path>.data`` beside it, as ONNX external data.

    Raises:
        CompileError: the file cannot be written.
    """
    save_together([(model, Path(path))])


def save_together(models: Sequence[tuple[Model, Path]]) -> None:
    """Like :func:`save` for several models: all are written, or none."""
    write_together([file for model, path in models for file in _files(model, path)])


def digest_of(model: Model) -> str:
    """The SHA-256 of the file that :func:`save` writes, external data aside."""
    content = hashlib.sha256()
    for chunk in _stream(*skeleton(model)):
        content.update(chunk)
    return content.hexdigest()


def _files(model: Model, path: Path) -> list[tuple[Path, Iterable[bytes | memoryview]]]:
    """What is written, and where."""
    proto, weights = skeleton(model)
    if sum(array.nbytes for array in weights.values()) + proto.ByteSize() < _MESSAGE_LIMIT:
        return [(path, _stream(proto, weights))]
    if is_stream(path):
        raise CompileError(
            "a network of 2 GiB or more needs a second file for its weights", file=path, hint="Choose a file: -o OUT."
        )
    target = real(path)
    data = target.with_name(target.name + ".data")  # found from where the file is, not from a link to it
    if model.file is not None:
        check_output(model.file, data, "the weights")
    headers, offset = [], 0
    for name, array in weights.items():
        header = _header(name, array)
        header.data_location = _TENSOR.EXTERNAL
        for key, value in (("location", data.name), ("offset", str(offset)), ("length", str(array.nbytes))):
            header.external_data.add(key=key, value=value)
        headers.append(header)
        offset += array.nbytes
    proto = _without_inputs(proto, weights)
    proto.graph.initializer.extend(headers)
    views = (_view(array) for array in weights.values())
    return [(data, views), (path, [proto.SerializeToString()])]


def check_output(source: Path, output: Path, what: str = "the output", option: str = "-o") -> None:
    """Refuse to write over the source, or over the files beside it that hold its weights.

    Raises:
        CompileError: ``output`` is one of them.
    """
    hint = f"Choose another {option} FILE."
    if same(output, source):
        raise CompileError(f"{what} would overwrite the source", file=output, hint=hint)
    if os.path.isfile(output):
        for location in _external_locations(source):
            if same(output, source.parent / location):
                raise CompileError(f"{what} would overwrite the weights of {source}", file=output, hint=hint)


def _external_locations(path: Path) -> set[str]:
    """The files that the initializers of a model lie in; none where it is no model, which loading tells of."""
    try:
        model = onnx.ModelProto.FromString(path.read_bytes() if path.is_file() else b"")
        return {e.value for tensor in model.graph.initializer for e in tensor.external_data if e.key == "location"}
    except (OSError, ValueError, google.protobuf.message.DecodeError):
        return set()


def to_bytes(model: Model) -> bytes:
    """The model as the bytes of an ONNX file, for models below 2 GiB."""
    proto, weights = skeleton(model)
    return b"".join(_stream(proto, weights))


def _stream(proto: onnx.ModelProto, weights: Mapping[str, Array]) -> Iterator[bytes | memoryview]:
    # A serialised message is the concatenation of its fields in any order, so GraphProto's weights (field 5) can
    # follow its other fields, and the graph (field 7 of ModelProto) the model's other fields.
    proto = _without_inputs(proto, weights)
    graph = proto.graph.SerializeToString()
    proto.ClearField("graph")
    pieces: list[tuple[bytes, Array]] = []
    length = len(graph)
    for name, array in weights.items():
        header = _header(name, array).SerializeToString() + _tag(9, array.nbytes)  # raw_data
        header = _tag(5, len(header) + array.nbytes) + header
        pieces.append((header, array))
        length += len(header) + array.nbytes
    yield proto.SerializeToString()
    yield _tag(7, length)
    yield graph
    for header, array in pieces:
        yield header
        yield _view(array)


def _without_inputs(proto: onnx.ModelProto, weights: Mapping[str, Array]) -> onnx.ModelProto:
    inputs = [v for v in proto.graph.input if v.name not in weights]
    del proto.graph.input[:]
    proto.graph.input.extend(inputs)
    return proto


def _header(name: str, array: Array) -> onnx.TensorProto:
    return _TENSOR(name=name, dims=array.shape, data_type=onnx.helper.np_dtype_to_tensor_dtype(array.dtype))


def _view(array: Array) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _tag(number: int, length: int) -> bytes:
    out = bytearray([number << 3 | 2])
    while length >= 0x80:
        out.append(length & 0x7F | 0x80)
        length >>= 7
    out.append(length)
    return bytes(out)


def _parse(data: bytes, path: Path) -> onnx.ModelProto:
    try:
        model: onnx.ModelProto = onnx.ModelProto.FromString(data)
    except google.protobuf.message.DecodeError as error:
        raise _no_model(data, path, "this is not an ONNX file, or it is truncated") from error
    if not model.HasField("graph") or not model.graph.output or not model.opset_import:
        raise _no_model(data, path, "this is not an ONNX model: it has no graph with outputs, or no opset")
    return model


def _no_model(data: bytes, path: Path, otherwise: str) -> CompileError:
    kind = filekinds.kind_of(data)
    if kind is None or not kind.for_model:
        return CompileError(otherwise, file=path, hint="Export or download the model again.")
    return CompileError(f"this is {kind.name}, not an ONNX file", file=path, hint=kind.for_model)


def _detach(model: onnx.ModelProto, path: Path) -> dict[str, Array]:
    """Take the big weights out; they stay behind as graph inputs of their type."""
    graph = model.graph
    _constants_to_initializers(graph)
    for node in graph.node:
        if any(a.type == onnx.AttributeProto.SPARSE_TENSOR for a in node.attribute):
            raise CompileError(
                "a sparse constant is not supported",
                file=path,
                node=node.name or node.output[0],
                hint="Export it as a dense tensor.",
            )
    weights: dict[str, Array] = {}
    small = []
    seen: set[str] = set()
    for tensor in graph.initializer:
        if tensor.name in seen:
            raise CompileError(f"two initializers are named '{tensor.name}'", file=path)
        seen.add(tensor.name)
        array = _values(tensor, path)
        limits.check_numbers(array, tensor.name, path)
        if _is_big(array):
            weights[tensor.name] = array
        else:
            small.append(onnx.numpy_helper.from_array(np.asarray(array), tensor.name))
    # Old files list initializers among the inputs; here a tensor is one or the other.
    inputs = [v for v in graph.input if v.name not in seen]
    if not inputs and graph.input:
        raise CompileError("every input of the model is an initializer", file=path)
    inputs += [
        onnx.helper.make_tensor_value_info(n, onnx.helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for n, a in weights.items()
    ]
    inputs = [copy(v) for v in inputs]
    del graph.input[:], graph.initializer[:]
    graph.input.extend(inputs)
    graph.initializer.extend(small)
    return weights


def _constants_to_initializers(graph: onnx.GraphProto) -> None:
    kept = []
    for node in graph.node:
        array = constant_value(node)
        if array is None:
            kept.append(node)
        else:
            array.name = node.output[0]
            graph.initializer.append(array)
    if len(kept) < len(graph.node):
        kept = [copy(node) for node in kept]
        del graph.node[:]
        graph.node.extend(kept)


def _values(tensor: onnx.TensorProto, path: Path) -> Array:
    """The tensor's values, checked against its dimensions before any memory is taken for them."""
    if any(d < 0 for d in tensor.dims):
        raise CompileError("an initializer has a negative dimension", file=path, node=tensor.name)
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except (KeyError, ValueError) as error:
        raise CompileError(
            f"an initializer has the unknown type {tensor.data_type}", file=path, node=tensor.name
        ) from error
    count = 1
    for dim in tensor.dims:
        count *= dim
    if tensor.data_location == _TENSOR.EXTERNAL:
        return _external(tensor, dtype, count, path)
    held = len(tensor.raw_data) // max(dtype.itemsize, 1) if tensor.HasField("raw_data") else None
    if held is not None and tensor.data_type not in _PACKED and held != count:
        raise CompileError(
            f"an initializer of {count} values holds {held}",
            file=path,
            node=tensor.name,
            hint="The file is damaged: export or download the model again.",
        )
    try:
        if held is not None and dtype.kind == "f" and dtype.itemsize >= 4:
            return np.frombuffer(tensor.raw_data, dtype).reshape(tuple(tensor.dims))
        return onnx.numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:
        raise CompileError(
            f"an initializer cannot be read: {first_line(error)}",
            file=path,
            node=tensor.name,
            hint="The file is damaged: export or download the model again.",
        ) from error


#: Types of which several share a byte.
_PACKED = {_TENSOR.INT4, _TENSOR.UINT4, _TENSOR.FLOAT4E2M1, _TENSOR.INT2, _TENSOR.UINT2}


def _is_big(array: Array) -> bool:
    """Whether the array travels beside the skeleton; strings and packed types, whose bytes differ in a file, do not."""
    if array.nbytes <= _DETACH_ABOVE or array.dtype.hasobject:
        return False
    return onnx.helper.np_dtype_to_tensor_dtype(array.dtype) not in _PACKED


def _external(tensor: onnx.TensorProto, dtype: np.dtype[np.generic], count: int, path: Path) -> Array:
    """External data, mapped and not read; never a file outside the model's folder."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    folder = real(path.parent)
    file = real(folder / location) if "\0" not in location else folder  # no name of a file has a NUL
    if not location or Path(location).is_absolute() or not file.is_relative_to(folder):
        raise CompileError(
            f"the external data '{location}' lies outside the model's folder",
            file=path,
            node=tensor.name,
            hint="Keep external data beside the model.",
        )
    if not os.path.isfile(file):
        raise CompileError(
            f"the external data file '{location}' is missing",
            file=path,
            node=tensor.name,
            hint="Copy it beside the model.",
        )
    try:
        offset = int(entries.get("offset", 0))
        length = int(entries.get("length", count * dtype.itemsize))
    except ValueError as error:
        raise CompileError("the external data has no numeric offset and length", file=path, node=tensor.name) from error
    size = file.stat().st_size
    if offset < 0 or length != count * dtype.itemsize or offset + length > size:
        raise CompileError(
            f"an initializer of {count * dtype.itemsize} bytes cannot lie at byte {offset} of '{location}' "
            f"({size} bytes)",
            file=path,
            node=tensor.name,
            hint="The external data file is damaged or of another model.",
        )
    if count == 0:
        return np.zeros(tuple(tensor.dims), dtype)
    return np.memmap(file, dtype, "r", offset, tuple(tensor.dims))


#: Every element type that ONNX has.
_ELEMENT_TYPES = frozenset(_TENSOR.DataType.values())


def _check_fields(message: google.protobuf.message.Message, path: Path, within: str = "") -> None:
    """Refuse names that are not UTF-8, which protobuf gives as bytes, and element types that do not exist; descriptions
    that are not UTF-8 are dropped.

    Raises:
        CompileError: there is such a name or type; ``within`` is the tensor that the type is of.
    """
    within = message.name if isinstance(message, onnx.ValueInfoProto | onnx.TensorProto) else within
    kind = 0
    if isinstance(message, onnx.TypeProto.Tensor | onnx.TypeProto.SparseTensor):
        kind = message.elem_type
    elif isinstance(message, onnx.TensorProto):
        kind = message.data_type
    if kind not in _ELEMENT_TYPES:
        raise CompileError(
            f"a tensor has the element type {kind}, which ONNX does not have",
            file=path,
            node=within,
            hint="The file is damaged, or of an ONNX newer than this one: export or download the model again.",
        )
    if isinstance(message, onnx.TensorProto):  # less its data, which would be copied
        fields = message.DESCRIPTOR.fields_by_name
        present = [(fields[name], getattr(message, name)) for name in ("name", "doc_string", "external_data")]
    else:
        present = message.ListFields()
    for field, value in present:
        if field.type == field.TYPE_MESSAGE:
            for part in value if field.is_repeated else [value]:
                _check_fields(part, path, within)
        elif field.type == field.TYPE_STRING:
            for text in value if field.is_repeated else [value]:
                if isinstance(text, bytes) and field.name == "doc_string":
                    message.ClearField("doc_string")
                elif isinstance(text, bytes):
                    raise _not_text(text, path)


def _not_text(name: bytes, path: Path) -> CompileError:
    return CompileError(
        "a name in the file is not text in UTF-8",
        file=path,
        node=name.decode("utf-8", "backslashreplace"),
        hint="The file is damaged, or its names are in another encoding: export or download the model again.",
    )


def _read_foreign_types(graph: gs.Graph) -> None:
    """Read the values of types that NumPy lacks now: graphsurgeon reads lazily, and warns on stdout where they are."""
    for part in (graph, *graph.subgraphs(recursive=True)):
        for tensor in part.tensors(check_duplicates=False).values():
            if isinstance(tensor, gs.Constant) and isinstance(tensor.dtype, int):  # an ONNX type in place of NumPy's
                _ = tensor.values


def _quiet() -> LoggerSuppress:
    """Without graphsurgeon's own messages, which it prints to stdout: what matters of them is in our errors."""
    return G_LOGGER.suppress(G_LOGGER.CRITICAL + 1)
