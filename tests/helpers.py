"""What several tests need: small networks, one pass of the pipeline, and running a network before and after it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort

from pascalc import pipeline
from pascalc.graph import Model
from pascalc.modelfile import load, to_bytes
from pascalc.ops import DOMAIN, OPERATORS
from pascalc.passes import UNROLLED, Pass

Array = np.ndarray[Any, Any]

HEADER = '<ir_version: 10, opset_import: ["": 18, "ai.pascalc": 1]>\n'


def parse(graph: str) -> onnx.ModelProto:
    """A model from the ONNX text of its graph; a header is put before it where it has none."""
    text = graph.strip()
    return onnx.parser.parse_model(text if text.startswith(("<", "#")) else HEADER + text)


def constant(name: str, values: Any, dtype: Any = np.float32) -> onnx.TensorProto:
    """An initializer."""
    return onnx.numpy_helper.from_array(np.asarray(values, dtype), name)


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Mapping[str, Sequence[int | str | None] | None],
    constants: Sequence[onnx.TensorProto] = (),
    opset: int = 18,
    types: Mapping[str, int] | None = None,
) -> onnx.ModelProto:
    """A model from its parts; inputs and outputs are float32 where ``types`` does not name another type."""
    kinds = types or {}
    graph = onnx.helper.make_graph(
        list(nodes),
        "network",
        [onnx.helper.make_tensor_value_info(n, kinds.get(n, onnx.TensorProto.FLOAT), s) for n, s in inputs.items()],
        [onnx.helper.make_tensor_value_info(n, kinds.get(n, onnx.TensorProto.FLOAT), s) for n, s in outputs.items()],
        list(constants),
    )
    opsets = [onnx.helper.make_opsetid("", opset), onnx.helper.make_opsetid("ai.pascalc", 1)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)


def loaded(proto: onnx.ModelProto) -> Model:
    """The model as the compiler reads it from a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(proto.SerializeToString())
        return load(path)


def before(name: str, passes: Sequence[Pass] = UNROLLED) -> tuple[Pass, ...]:
    """The passes of the pipeline that come before the named one."""
    names = [p.name() for p in passes]
    return tuple(passes[: names.index(name)])


def run_pass(model: Model, name: str) -> int:
    """Run one pass of the pipeline; returns its number of rewrites."""
    (step,) = (p for p in UNROLLED if p.name() == name)
    return step.run(model)


def up_to(proto: onnx.ModelProto, name: str) -> tuple[Model, int]:
    """The model after the pipeline up to and including the named pass, and that pass's number of rewrites."""
    model = loaded(proto)
    pipeline.run(model, before(name))
    return model, run_pass(model, name)


def compiled(proto: onnx.ModelProto, passes: Sequence[Pass] = UNROLLED) -> Model:
    """The model after the whole pipeline."""
    model = loaded(proto)
    pipeline.run(model, passes)
    return model


def session(model: onnx.ModelProto | Model | bytes, *, optimised: bool = True) -> ort.InferenceSession:
    """A plain onnxruntime session, without any library of the project's; with onnxruntime's own options, or one that
    computes what is written."""
    if isinstance(model, Model):
        model = to_bytes(model)
    elif isinstance(model, onnx.ModelProto):
        model = model.SerializeToString()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run(model: onnx.ModelProto | Model | bytes, feeds: Mapping[str, Array], *, optimised: bool = True) -> list[Array]:
    """The outputs of a model in onnxruntime."""
    return session(model, optimised=optimised).run(None, dict(feeds))


def grid_inputs(proto: onnx.ModelProto, batch: int = 3, seed: int = 0) -> dict[str, Array]:
    """Inputs in quarters from -4 to 4, or bytes; with weights on such a grid float32 sums are exact in any order."""
    rng = np.random.default_rng(seed)
    constants = {t.name for t in proto.graph.initializer}
    feeds = {}
    for value in proto.graph.input:
        if value.name in constants:
            continue
        tensor = value.type.tensor_type
        shape = [d.dim_value if d.HasField("dim_value") else batch for d in tensor.shape.dim]
        is_pixels = tensor.elem_type == onnx.TensorProto.UINT8
        values = rng.integers(0, 256, shape) if is_pixels else rng.integers(-16, 17, shape) / 4
        feeds[value.name] = np.asarray(values, onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    return feeds


def assert_same_outputs(
    source: onnx.ModelProto,
    result: onnx.ModelProto | Model | bytes,
    feeds: Mapping[str, Array] | None = None,
    **inputs: int,
) -> None:
    """The result computes in stock onnxruntime, bit for bit, what is written in the source; ``feeds`` replace some
    of the random inputs."""
    feeds = {**grid_inputs(source, **inputs), **(feeds or {})}
    expected, actual = run(with_bodies(source), feeds, optimised=False), run(result, feeds)
    assert len(expected) == len(actual)
    for wanted, got in zip(expected, actual, strict=True):
        np.testing.assert_array_equal(got, wanted, strict=True)


def with_bodies(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A source that uses operators of the project's domain gets their function bodies, so that onnxruntime runs it."""
    own = {node.op_type for node in proto.graph.node if node.domain == DOMAIN} - {f.name for f in proto.functions}
    if not own:
        return proto
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    opset = next(o.version for o in proto.opset_import if not o.domain)
    copy.functions.extend(OPERATORS[name].function(opset) for name in sorted(own))
    return copy


def with_output_ranks(proto: onnx.ModelProto, feeds: Mapping[str, Array] | None = None) -> onnx.ModelProto:
    """The model with the true rank declared for outputs that the text leaves open (``float[] y``)."""
    values = run(with_bodies(proto), {**grid_inputs(proto), **(feeds or {})})
    for output, value in zip(proto.graph.output, values, strict=True):
        kind = output.type.tensor_type.elem_type
        dims = [f"{output.name}_{axis}" for axis in range(value.ndim)]
        output.CopyFrom(onnx.helper.make_tensor_value_info(output.name, kind, dims))
    return proto


def operators(model: Model) -> list[str]:
    """The operators of the main graph, in order."""
    return [node.op for node in model.graph.nodes]


def reasons(model: Model, source: str) -> list[str]:
    """The notes of one pass."""
    return [note.reason for note in model.notes if note.source == source]
