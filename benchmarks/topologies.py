"""Well-known topologies, mixed levels: the networks of ``backend/test/data/light`` in the onnx package.

    python benchmarks/topologies.py            # all, as a Markdown table
    python benchmarks/topologies.py resnet50   # those whose names contain a word

Their ReLUs become QCFS with L = 8, 4, 2, 1, 8, ... in turn; their weights, which the package leaves out, are drawn with
He's standard deviation. Thresholds are twice the root mean square of what reaches the ReLU on one random image.
Each network is measured in a process of its own; verified on one image.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import time
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


def row(path: Path) -> str:
    """A line of the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = with_weights(path)
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
            f"| {path.stem.removeprefix('light_')} | {len(model.graph.node)} | {size:.0f} | {len(result.layers)} "
            f"| {share:.1%} | {seconds:.1f} | {peak:.0f} | {roots} | {verdict} |"
        )


def main() -> None:
    words = sys.argv[1:]
    print("| network | nodes | MiB | layers of neurons | MACs on spikes | compile, s | peak, MiB | roots | verdict |")
    print("|---|---|---|---|---|---|---|---|---|")
    for path in sorted(LIGHT.glob("*.onnx")):
        if not words or any(word in path.name for word in words):
            print(row(path), flush=True)


if __name__ == "__main__":
    main()
