"""The body of MultiThreshold beside that of QCFS in stock onnxruntime, on a million values.

    python benchmarks/thresholds.py [--rounds 40]

Time is CPU time on one thread, and time that passes on two: the least of all rounds.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from pascalc.ops import DOMAIN, DOMAIN_VERSION, MULTI_THRESHOLD, QCFS, Operator

SAMPLE = (64, 32, 32)
BATCH = 16


def layer(operator: Operator, levels: int, constants: dict[str, NDArray[np.float32]]) -> bytes:
    """A network of one such layer, X to Y."""
    node = helper.make_node(operator.name, ["X", *constants], ["Y"], domain=DOMAIN, levels=levels, phi=0.5, label="a")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *SAMPLE]) for name in ("X", "Y")]
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph([node], "layer", values[:1], values[1:], weights)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, DOMAIN_VERSION)]
    functions = [operator.function(18)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=functions).SerializeToString()


def milliseconds(model: bytes, x: NDArray[np.float32], threads: int, rounds: int) -> float:
    """The least time of a run."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(model, options)
    clock = time.process_time if threads == 1 else time.perf_counter
    times = []
    for _ in range(rounds):
        start = clock()
        session.run(None, {"X": x})
        times.append(clock() - start)
    return 1e3 * min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=40)
    rounds = parser.parse_args().rounds
    print("| L | operator | 1 thread, CPU ms | 2 threads, ms |")
    print("|---|---|---|---|")
    for levels in (3, 15, 255):
        x = np.random.default_rng(0).normal(levels / 2, levels / 3, (BATCH, *SAMPLE)).astype(np.float32)
        channels = np.ones((SAMPLE[0], 1, 1), np.float32)
        steps = np.arange(levels, dtype=np.float32).reshape(-1, 1, 1, 1, 1) + np.float32(0.5)
        models = {
            QCFS.name: layer(QCFS, levels, {"threshold": levels * channels}),
            MULTI_THRESHOLD.name: layer(
                MULTI_THRESHOLD, levels, {"thresholds": steps * channels[np.newaxis], "unit": channels}
            ),
        }
        for name, model in models.items():
            one, two = (milliseconds(model, x, threads, rounds) for threads in (1, 2))
            print(f"| {levels} | {name} | {one:.1f} | {two:.1f} |")


if __name__ == "__main__":
    main()
