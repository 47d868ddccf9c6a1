"""The networks that are mutated: sources with data, and what is compiled from them.

Many are those of other tests; the rest is built here for what these lack: subgraphs, integer, boolean and float16
tails, token layouts, float64, quantisers, operators that cannot spike in the middle of a network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

import pascalc
from tests.helpers import session
from tests.small_networks import (
    Array,
    attention_network,
    gated_network,
    images,
    linear_network,
    residual_network,
    rows,
    tokens,
)
from tests.test_graphs import CASES, Network, built
from tests.test_quantisers import qonnx_network

EXAMPLES = Path(__file__).parents[2] / "examples" / "fashion-mnist"
SCHEDULES = ("unrolled", "collapsed")
SAMPLES = 20
#: The operators that are neurons.
NEURONS = ("PascIF", "QCFS", "MultiThresholdIF", "MultiThreshold")
#: Enough for a short run: one of each sort.
QUICK = frozenset(
    (
        *("residual", "linear", "Loop", "a label and one", "token layout", "several inputs and outputs"),
        *("squeeze and excite", "Tanh and LayerNormalization in the middle"),
    )
)

Feeds = dict[str, Array]
MADE: dict[str, Callable[[Network], dict[str, str]]] = {}
TYPES = {"label": TensorProto.INT64, "flag": TensorProto.BOOL, "half": TensorProto.FLOAT16}


def network(name: str) -> Callable[[Callable[[Network], dict[str, str]]], Callable[[Network], dict[str, str]]]:
    def register(make: Callable[[Network], dict[str, str]]) -> Callable[[Network], dict[str, str]]:
        MADE[name] = make
        return make

    return register


def _stem(b: Network, levels: int = 4, theta: float = 1.5) -> str:
    return b.qcfs(b.gemm(b.image(6), "fc1", (6, 12)), "stem", levels, theta)


@network("Tanh and LayerNormalization in the middle")
def _(b: Network) -> dict[str, str]:
    x = b.node("Tanh", [b.gemm(_stem(b), "fc2", (12, 8))], "tanh")
    x = b.qcfs(b.gemm(x, "fc3", (8, 8)), "second", 3)
    gamma, beta = b.random("gamma", (8,), 0.3, 1), b.random("beta", (8,), 0.3)
    x = b.node("LayerNormalization", [b.gemm(x, "fc4", (8, 8)), gamma, beta], "norm", axis=-1)
    return {"y": b.gemm(b.qcfs(b.gemm(x, "fc5", (8, 8)), "third", 8), "fc6", (8, 4))}


@network("the input joins a train")
def _(b: Network) -> dict[str, str]:
    image = b.image(6)
    x = b.qcfs(b.gemm(image, "fc1", (6, 12)), "stem", 4, 1.5)
    x = b.node("Add", [b.gemm(x, "fc2", (12, 8)), b.gemm(image, "side", (6, 8))], "join")
    return {"y": b.gemm(b.qcfs(x, "second", 4), "fc3", (8, 4))}


@network("Softmax in the middle and in the end")
def _(b: Network) -> dict[str, str]:
    x = b.node("Softmax", [b.gemm(_stem(b), "fc2", (12, 8))], "inner", axis=1)
    x = b.qcfs(b.gemm(x, "fc3", (8, 8)), "second", 8, 0.5)
    return {"y": b.node("Softmax", [b.gemm(x, "fc4", (8, 4))], "outer", axis=1)}


@network("If")
def _(b: Network) -> dict[str, str]:
    x = b.gemm(_stem(b), "fc2", (12, 8))
    mean = b.node("ReduceMean", [x], "mean", axes=[0, 1], keepdims=0)
    condition = b.node("Greater", [mean, b.constant("limit", 0.1)], "condition")
    branches = {}
    for name, op, value in (("then_branch", "Mul", 1.5), ("else_branch", "Sub", 0.25)):
        inner = [
            helper.make_node(
                "Constant", [], [f"{name}.c"], value=helper.make_tensor("c", TensorProto.FLOAT, [], [value])
            ),
            helper.make_node(op, [x, f"{name}.c"], [f"{name}.y"]),
        ]
        out = helper.make_tensor_value_info(f"{name}.y", TensorProto.FLOAT, None)
        branches[name] = helper.make_graph(inner, name, [], [out])
    x = b.node("If", [condition], "choice", **branches)
    return {"y": b.gemm(b.qcfs(x, "second", 4), "fc3", (8, 4))}


@network("Loop")
def _(b: Network) -> dict[str, str]:
    x = b.gemm(_stem(b), "fc2", (12, 8))
    nodes = [
        helper.make_node("Constant", [], ["l.c"], value=helper.make_tensor("c", TensorProto.FLOAT, [], [0.5])),
        helper.make_node("Mul", ["l.state", "l.c"], ["l.half"]),
        helper.make_node("Add", ["l.half", x], ["l.sum"]),
        helper.make_node("Tanh", ["l.sum"], ["l.next"]),
        helper.make_node("Identity", ["l.go"], ["l.still"]),
    ]
    info = helper.make_tensor_value_info
    inputs = [info("l.i", TensorProto.INT64, []), info("l.go", TensorProto.BOOL, [])]
    inputs += [info("l.state", TensorProto.FLOAT, None)]
    outputs = [info("l.still", TensorProto.BOOL, []), info("l.next", TensorProto.FLOAT, None)]
    body = helper.make_graph(nodes, "body", inputs, outputs)
    rounds, go = b.constant("rounds", 3, np.int64), b.constant("go", True, bool)
    b.nodes.append(helper.make_node("Loop", [rounds, go, x], ["loop_out"], "loop", body=body))
    return {"y": b.gemm(b.qcfs("loop_out", "second", 4), "fc3", (8, 4))}


@network("a label and one")
def _(b: Network) -> dict[str, str]:
    best = b.node("ArgMax", [b.gemm(_stem(b), "fc2", (12, 9))], "best", axis=1, keepdims=0)
    return {"label": b.node("Add", [best, b.constant("one", 1, np.int64)], "plus")}


@network("a truth value")
def _(b: Network) -> dict[str, str]:
    x = b.gemm(_stem(b), "fc2", (12, 5))
    return {"y": x, "flag": b.node("Greater", [x, b.random("limits", (5,), 0.5)], "above")}


@network("a float16 tail")
def _(b: Network) -> dict[str, str]:
    x = b.gemm(_stem(b), "fc2", (12, 5))
    return {"half": b.node("Cast", [x], "cast", to=TensorProto.FLOAT16)}


@network("the best two")
def _(b: Network) -> dict[str, str]:
    x = b.gemm(_stem(b), "fc2", (12, 6))
    b.nodes.append(helper.make_node("TopK", [x, b.ints("two", 2)], ["best", "places"], "top", axis=1))
    places = b.node("Cast", ["places"], "as_float", to=TensorProto.FLOAT)
    return {"y": b.node("Mul", ["best", places], "product")}


@network("token layout")
def _(b: Network) -> dict[str, str]:
    x = b.node("Reshape", [b.image(16, 6), b.ints("flat", -1, 6)], "tokens")
    x = b.qcfs(b.gemm(x, "fc1", (6, 10)), "a", 4, 1.5)
    x = b.qcfs(b.gemm(x, "fc2", (10, 8)), "b", 2)
    x = b.node("Reshape", [b.gemm(x, "fc3", (8, 4)), b.ints("apart", -1, 16, 4)], "samples")
    return {"y": b.node("ReduceMean", [x], "mean", axes=[1], keepdims=0)}


@network("an embedding")
def _(b: Network) -> dict[str, str]:
    ids = b.input("ids", ["N", 5], TensorProto.INT64)
    x = b.node("Gather", [b.random("table", (10, 6), 1), ids], "embed", axis=0)
    x = b.qcfs(b.node("MatMul", [x, b.random("w", (6, 8), 0.5)], "one"), "a", 4)
    x = b.node("ReduceSum", [x, b.ints("axis", 1)], "sum", keepdims=0)
    return {"y": b.gemm(b.qcfs(x, "b", 8, 3.0), "last", (8, 3))}


@network("Pad, and MaxPool before and behind the neuron")
def _(b: Network) -> dict[str, str]:
    x = b.node("Pad", [b.image(2, 7, 7), b.ints("pads", 0, 0, 1, 0, 0, 0, 0, 1)], "pad", mode="reflect")
    x = b.weighted("Conv", x, "one", 4, 2, 3, 3, bias=4)
    x = b.qcfs(b.node("MaxPool", [x], "before", kernel_shape=[2, 2]), "a", 4)
    x = b.node("MaxPool", [x], "behind", kernel_shape=[2, 2], strides=[2, 1])
    x = b.node("Pad", [x, b.ints("zeros", 0, 0, 1, 1, 0, 0, 1, 1)], "again")
    x = b.qcfs(b.weighted("Conv", x, "two", 4, 4, 3, 3, bias=4), "b", 3, b.rng.uniform(0.6, 1.4, (1, 4, 1, 1)))
    return {"y": b.gemm(b.node("Flatten", [b.node("GlobalAveragePool", [x], "gap")], "flat"), "fc", (4, 3))}


@network("float64")
def _(b: Network) -> dict[str, str]:
    def matrix(x: str, name: str, *shape: int) -> str:
        return b.node("MatMul", [x, b.constant(name, b.rng.normal(0, 0.5, shape), np.float64)], f"{name}.product")

    x = matrix(b.input("x", ["N", 6], TensorProto.DOUBLE), "w", 6, 10)
    for op, value in (
        ("Div", 1.25),
        ("Mul", 4),
        ("Add", 0.5),
        ("Floor", None),
        ("Clip", None),
        ("Div", 4),
        ("Mul", 1.25),
    ):
        name = f"act.{len(b.nodes)}"
        inputs = [] if value is None else [b.constant(f"{name}.c", value, np.float64)]
        if op == "Clip":
            inputs = [b.constant(f"{name}.{v}", v, np.float64) for v in (0, 4)]
        x = b.node(op, [x, *inputs], name)
    return {"double": matrix(x, "v", 10, 4)}


@network("QuantizeLinear and DequantizeLinear")
def _(b: Network) -> dict[str, str]:
    x = b.weighted("Conv", b.image(2, 5, 5), "one", 4, 2, 3, 3, bias=4)
    x = b.node("Clip", [x, b.constant("low", 0.0), b.constant("high", 2.05)], "clip")
    grid = [b.constant("scale", 0.25), b.constant("zero", 0, np.uint8)]
    x = b.node("DequantizeLinear", [b.node("QuantizeLinear", [x, *grid], "quantise"), *grid], "dequantise")
    return {"y": b.weighted("Conv", x, "two", 3, 4, 3, 3, bias=3)}


@network("one neuron on another's threshold; an activation that is an output")
def _(b: Network) -> dict[str, str]:
    x = b.qcfs(b.gemm(b.image(6), "fc1", (6, 8)), "a", 4, b.rng.uniform(0.7, 1.6, 8))
    z = b.qcfs(b.gemm(x, "fc2", (8, 8)), "b", 4, b.rng.uniform(0.7, 1.6, 8))
    return {"y": b.node("Add", [x, z], "sum"), "z": z}


@dataclass(frozen=True)
class Source:
    """A network, where it is read from or what it is, and its data."""

    name: str
    model: onnx.ModelProto | Path
    feeds: Feeds
    large: bool = False
    limit: int | None = None

    @property
    def inputs(self) -> list[onnx.ValueInfoProto]:
        model = self.model if isinstance(self.model, onnx.ModelProto) else onnx.load(self.model)
        constants = {t.name for t in model.graph.initializer}
        return [v for v in model.graph.input if v.name not in constants]

    def random(self, count: int, rng: np.random.Generator) -> Feeds:
        """Other inputs: normal ones of several scales, sparse, constant, and extreme ones."""
        found = {}
        for value in self.inputs:
            dims = value.type.tensor_type.shape.dim
            shape = (count, *(d.dim_value for d in dims[1:]))
            dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            if dtype.kind != "f":
                found[value.name] = rng.integers(0, 10, shape).astype(dtype)
                continue
            scale = 10 ** rng.uniform(-2, 2, (count, *[1] * (len(shape) - 1)))
            values = rng.normal(0, 1, shape) * scale
            for sample in values:
                kind = rng.integers(5)
                if kind == 0:
                    sample *= rng.random(sample.shape) < 0.1
                elif kind == 1:
                    sample[...] = rng.normal() * scale.flat[0]
                elif kind == 2:
                    sample[...] = np.abs(sample)
            found[value.name] = values.astype(dtype)
        return found


def _finished(b: Network, outputs: dict[str, str]) -> onnx.ModelProto:
    types = {**TYPES, "double": TensorProto.DOUBLE}
    model = b.model(outputs, types=types, shapes=dict.fromkeys(outputs))
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    del model.graph.output[:]
    model.graph.output.extend(inferred.graph.output)
    return model


def _with_data(name: str, model: onnx.ModelProto) -> Source:
    blank = Source(name, model, {})
    feeds: Feeds = {}
    rng = np.random.default_rng(11)
    for value in blank.inputs:
        dims = value.type.tensor_type.shape.dim
        shape = [SAMPLES, *(d.dim_value for d in dims[1:])]
        dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        values: Array = rng.normal(0.3, 1, shape) if dtype.kind == "f" else rng.integers(0, 10, shape)
        feeds[value.name] = values.astype(dtype)
    return Source(name, model, feeds)


def sources() -> list[Source]:
    """All networks; the large ones come last."""
    found = [
        Source("residual", residual_network(), {"image": images(SAMPLES)}),
        Source("residual on a grid", residual_network(1, grid=True), {"image": images(SAMPLES, grid=True)}),
        Source("residual in batches of 4", residual_network(2, batch=4), {"image": images(SAMPLES)}),
        Source("linear", linear_network(), {"x": rows(SAMPLES)}),
        Source("gates", gated_network(), {"image": images(SAMPLES)}),
        Source("attention", attention_network(), {"x": tokens(SAMPLES)}),
        _with_data("QONNX", qonnx_network()),
    ]
    for name, make in MADE.items():
        b = Network(5)
        found.append(_with_data(name, _finished(b, make(b))))
    found += [_with_data(name, built(name)) for name in CASES]
    with np.load(EXAMPLES / "test-1000.npz") as file:
        x = file["x"][:SAMPLES]
    for name in ("vgg", "resnet"):
        path = EXAMPLES / f"{name}.onnx"
        inputs = Source(name, path, {}).inputs
        found.append(Source(name, path, {inputs[0].name: x}, large=True, limit=12))
    return found


@dataclass
class Subject:
    """A compiled network with all that is needed to mutate it and to judge the mutants.

    Attributes:
        tensors: shape and type of every tensor of the main graph on the data, ``rows`` samples at once; ``peak``: its
            largest absolute value; ``silent``: channels that are zero in all samples.
    """

    source: Source
    schedule: str
    folder: Path
    rows: int = 0
    tensors: dict[str, tuple[np.dtype[np.generic], tuple[int, ...]]] = field(default_factory=dict)
    peak: dict[str, float] = field(default_factory=dict)
    silent: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if isinstance(self.source.model, onnx.ModelProto):
            onnx.save(self.source.model, self.path)
        else:
            self.path.write_bytes(self.source.model.read_bytes())
        feeds = self.source.feeds
        np.savez(self.data, **({"x": next(iter(feeds.values()))} if len(feeds) == 1 else feeds))
        pascalc.compile(self.path, self.honest, schedule=self.schedule)
        self._look()

    @property
    def name(self) -> str:
        return f"{self.source.name}, {self.schedule}"

    @property
    def path(self) -> Path:
        return self.folder / "source.onnx"

    @property
    def honest(self) -> Path:
        return self.folder / "honest.onnx"

    @property
    def data(self) -> Path:
        return self.folder / "data.npz"

    @cached_property
    def proto(self) -> onnx.ModelProto:
        return onnx.load(self.honest)

    @cached_property
    def fixed_batch(self) -> int | None:
        dim = self.source.inputs[0].type.tensor_type.shape.dim[0]
        return dim.dim_value if dim.HasField("dim_value") else None

    def _look(self) -> None:
        self.rows = self.fixed_batch or min(self.source.limit or SAMPLES, SAMPLES)
        feeds = {name: array[: self.rows] for name, array in self.source.feeds.items()}
        values = shown(self.proto, [t for n in self.proto.graph.node for t in n.output if t], feeds)
        for name, value in {**feeds, **values}.items():
            self.tensors[name] = (value.dtype, value.shape)
            if value.dtype.kind == "f" and value.size:
                self.peak[name] = float(np.max(np.abs(value)))
                if value.ndim > 1:
                    drive = np.abs(np.moveaxis(value, 1, 0)).reshape(value.shape[1], -1).max(axis=1)
                    self.silent[name] = [int(k) for k in np.nonzero(drive == 0)[0]]


def with_outputs(proto: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    """The model with further outputs."""
    model = onnx.ModelProto.FromString(proto.SerializeToString())
    declared = {v.name for v in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(names) if name not in declared)
    return model


def shown(proto: onnx.ModelProto, names: list[str], feeds: Mapping[str, Array]) -> Feeds:
    """Values of tensors of the main graph."""
    names = list(dict.fromkeys(names))
    return dict(zip(names, session(with_outputs(proto, names)).run(names, dict(feeds)), strict=True))
