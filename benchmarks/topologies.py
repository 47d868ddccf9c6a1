"""Well-known topologies, mixed levels: the networks of ``backend/test/data/light`` in the onnx package.

    python benchmarks/topologies.py            # all, as a Markdown table
    python benchmarks/topologies.py resnet50   # those whose names contain a word

Their ReLUs become QCFS with L = 8, 4, 2, 1, 8, ... in turn; their weights, which the package leaves out, are drawn with
He's standard deviation. Thresholds are twice the root mean square of what reaches the ReLU on one random image.
Each network is measured in a process of its own; verified on one image. Two more have products of two computed tensors,
which none of those has: residual blocks with squeeze-and-excite, and transformer blocks, with Softmax and without.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.version_converter
import onnxruntime as ort

from pascalc.compiler import compile_model
from pascalc.verifier import verify

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
LEVELS = (8, 4, 2, 1)
OPSET = 17
node = onnx.helper.make_node


def with_weights(path: Path) -> onnx.ModelProto:
    """The topology with random weights, which are constants of a shape in the package."""
    model = onnx.load(path)
    model.ir_version = max(model.ir_version, 8)
    model = onnx.version_converter.convert_version(model, OPSET)
    graph, rng = model.graph, np.random.default_rng(0)
    shapes = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    kept, weights = [], []
    roles = {name: (n.op_type, i) for n in graph.node for i, name in enumerate(n.input)}
    for step in graph.node:
        if step.op_type != "ConstantOfShape":
            kept.append(step)
            continue
        shape = tuple(int(d) for d in shapes[step.input[0]])
        operator, index = roles[step.output[0]]
        values = rng.normal(0, (2 / max(np.prod(shape[1:]), 1)) ** 0.5 if len(shape) > 1 else 0.1, shape)
        if (operator == "BatchNormalization" and index in (1, 4)) or (operator in ("Mul", "Div") and len(shape) != 2):
            values = rng.uniform(0.9, 1.1, shape)
        weights.append(onnx.numpy_helper.from_array(values.astype(np.float32), step.output[0]))
    _replace_nodes(graph, kept)
    graph.initializer.extend(weights)
    names = {t.name for t in graph.initializer}
    inputs = [v for v in graph.input if v.name not in names]
    rest = onnx.GraphProto()
    rest.input.extend(inputs)
    del graph.input[:]
    graph.input.extend(rest.input)
    return model


class Builder:
    """A topology in the making, with random weights; every method gives the name of the tensor that comes out."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        name = f"{operator.lower()}{len(self.nodes)}"
        self.nodes.append(node(operator, list(inputs), [name], f"/{name}/{operator}", **attributes))
        return name

    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        name = f"constant{len(self.constants)}"
        self.constants.append(onnx.numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def weight(self, *shape: int, fan_in: int) -> str:
        return self.constant(self.rng.normal(0, (2 / fan_in) ** 0.5, shape))

    def conv(self, x: str, inputs: int, outputs: int, size: int = 1, stride: int = 1) -> str:
        weight = self.weight(outputs, inputs, size, size, fan_in=inputs * size**2)
        return self.node("Conv", x, weight, pads=[size // 2] * 4, strides=[stride] * 2)

    def dense(self, x: str, inputs: int, outputs: int) -> str:
        return self.node("MatMul", x, self.weight(inputs, outputs, fan_in=inputs))

    def model(self, shape: list[int], y: str, result: list[int]) -> onnx.ModelProto:
        kind = onnx.TensorProto.FLOAT
        declared = onnx.helper.make_tensor_value_info
        graph = onnx.helper.make_graph(
            self.nodes, "network", [declared("x", kind, shape)], [declared(y, kind, result)], self.constants
        )
        opsets = [onnx.helper.make_opsetid("", OPSET)]
        return onnx.helper.make_model(graph, ir_version=8, opset_imports=opsets)


def squeeze_and_excite() -> onnx.ModelProto:
    """Residual blocks as in SE-ResNet, and ones as in MobileNetV3, whose gated spikes go into a convolution."""
    b = Builder()
    width = 64
    x = b.node("Relu", b.conv("x", 3, width, 3, 2))
    for number in range(6):
        hidden = 4 * width if number % 2 else width
        y = b.node("Relu", b.conv(x, width, hidden))
        y = b.node("Relu", b.conv(y, hidden, hidden, 3))
        y = y if number % 2 else b.conv(y, hidden, width)
        channels = hidden if number % 2 else width
        gate = b.node("Relu", b.conv(b.node("GlobalAveragePool", y), channels, channels // 4))
        gate = b.node("Sigmoid", b.conv(gate, channels // 4, channels))
        y = b.node("Mul", y, gate)
        y = b.conv(y, hidden, width) if number % 2 else y
        x = b.node("Relu", b.node("Add", x, y))
    x = b.node("Flatten", b.node("GlobalAveragePool", x))
    return b.model([1, 3, 64, 64], b.dense(x, width, 100), [1, 100])


def attention(softmax: bool) -> onnx.ModelProto:
    """Four transformer blocks of four heads on 64 tokens, each sum normalised; scores by Softmax or a ReLU."""
    b = Builder()
    tokens, width, heads = 64, 128, 4
    split = b.constant([0, 0, heads, width // heads], np.int64)
    merged = b.constant([0, 0, width], np.int64)
    norm = [b.constant(np.ones(width)), b.constant(np.zeros(width))]
    x = b.node("Relu", b.dense("x", width, width))
    for _ in range(4):
        parts = []
        for order in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]):
            part = b.node("Reshape", b.node("Relu", b.dense(x, width, width)), split)
            parts.append(b.node("Transpose", part, perm=order))
        q, k, v = parts
        scores = b.node("Mul", b.node("MatMul", q, k), b.constant(1 / (width // heads)))
        scores = b.node("Softmax", scores, axis=-1) if softmax else b.node("Relu", scores)
        mixed = b.node("Transpose", b.node("MatMul", scores, v), perm=[0, 2, 1, 3])
        mixed = b.dense(b.node("Relu", b.node("Reshape", mixed, merged)), width, width)
        x = b.node("Relu", b.node("LayerNormalization", b.node("Add", x, mixed), *norm))
        inner = b.dense(b.node("Relu", b.dense(x, width, 4 * width)), 4 * width, width)
        x = b.node("Relu", b.node("LayerNormalization", b.node("Add", x, inner), *norm))
    x = b.node("ReduceMean", x, axes=[1], keepdims=0)
    return b.model([1, tokens, width], b.dense(x, width, 100), [1, 100])


def with_qcfs(model: onnx.ModelProto, image: np.ndarray) -> onnx.ModelProto:
    """Its ReLUs become QCFS; the thresholds are measured with all ReLUs still in place."""
    relus = [n for n in model.graph.node if n.op_type == "Relu"]
    size = _activations(model, [n.input[0] for n in relus], image)
    nodes, constants = [], []
    for step in model.graph.node:
        if step.op_type != "Relu":
            nodes.append(step)
            continue
        index = relus.index(step)
        levels, name = LEVELS[index % len(LEVELS)], f"qcfs{index}"
        operands = {"theta": max(2 * size[index], 1e-3), "L": levels, "half": 0.5, "zero": 0.0, "one": 1.0}
        for key, value in operands.items():
            constants.append(onnx.numpy_helper.from_array(np.asarray(value, np.float32), f"{name}/{key}"))
        x = step.input[0]
        chain = (("Div", "theta"), ("Clip", "zero", "one"), ("Mul", "L"), ("Add", "half"), ("Floor",), ("Div", "L"))
        for number, (operator, *keys) in enumerate(chain):
            out = f"{name}/{number}"
            nodes.append(node(operator, [x, *(f"{name}/{k}" for k in keys)], [out], f"/{name}/{operator}_{number}"))
            x = out
        nodes.append(node("Mul", [x, f"{name}/theta"], [step.output[0]], f"/{name}/Mul_6"))
    _replace_nodes(model.graph, nodes)
    model.graph.initializer.extend(constants)
    return model


def _activations(model: onnx.ModelProto, names: list[str], image: np.ndarray) -> list[float]:
    """The root mean square of tensors."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.extend(onnx.helper.make_empty_tensor_value_info(n) for n in dict.fromkeys(names))
    session = ort.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    values = dict(zip(dict.fromkeys(names), session.run(None, {session.get_inputs()[0].name: image}), strict=True))
    return [float(np.sqrt(np.mean(np.square(values[n], dtype=np.float64)))) for n in names]


def _replace_nodes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    rest = onnx.GraphProto()
    rest.node.extend(nodes)
    del graph.node[:]
    graph.node.extend(rest.node)


def _compile(folder: Path, results: multiprocessing.Queue[Any]) -> None:
    started = time.perf_counter()
    compiled = compile_model(folder / "model.onnx")
    seconds = time.perf_counter() - started
    # not getrusage: what the parent held when it started this process counts there
    (peak,) = (line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
    results.put((seconds, int(peak) / 1024, compiled.network))


#: The topologies by name.
TOPOLOGIES: dict[str, Callable[[], onnx.ModelProto]] = {
    **{p.stem.removeprefix("light_"): partial(with_weights, p) for p in sorted(LIGHT.glob("*.onnx"))},
    "squeeze_and_excite": squeeze_and_excite,
    "attention": partial(attention, softmax=False),
    "attention_softmax": partial(attention, softmax=True),
}


def row(name: str) -> str:
    """A line of the table."""
    with tempfile.TemporaryDirectory() as path:
        folder = Path(path)
        model = TOPOLOGIES[name]()
        shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
        image = np.random.default_rng(1).normal(0, 1, shape).astype(np.float32)
        model = with_qcfs(model, image)
        onnx.save(model, folder / "model.onnx")
        np.savez(folder / "data.npz", x=image)
        size = (folder / "model.onnx").stat().st_size / 2**20
        context = multiprocessing.get_context("spawn")
        results = context.Queue()
        process = context.Process(target=_compile, args=(folder, results))
        process.start()
        seconds, peak, network = results.get(timeout=600)
        process.join()
        result = verify(folder / "model.onnx", folder / "model.snn.onnx", folder / "data.npz")
        roots = sum(x.root_mismatches for x in result.layers)
        verdict = "equivalent" if result.equivalent else f"not equivalent: {result.findings()[0]}"
        share = network.spiking_macs / network.macs
        return (
            f"| {name} | {len(model.graph.node)} | {size:.0f} | {len(result.layers)} "
            f"| {share:.1%} | {seconds:.1f} | {peak:.0f} | {roots} | {verdict} |"
        )


def main() -> None:
    words = sys.argv[1:]
    print("| network | nodes | MiB | layers of neurons | MACs on spikes | compile, s | peak, MiB | roots | verdict |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in TOPOLOGIES:
        if not words or any(word in name for word in words):
            print(row(name), flush=True)


if __name__ == "__main__":
    main()
