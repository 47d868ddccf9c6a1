"""Throughput and memory of the histogram pass, beside plain inference of the source in onnxruntime.

    python benchmarks/histogram.py examples/fashion-mnist/resnet.onnx [--samples 4096] [--batch 64] [--rounds 7]

Both read random inputs of the model's shape from the same .npz; rounds are interleaved (plain, histogram, plain, ...),
and the ratio is the median of the rounds' ratios. Memory is the growth of the process's peak resident size while a
file of once, twice and four times the samples is counted, each in a process of its own.
"""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import onnxruntime as ort

from pascalc.modelfile import load
from pascalc.planning.calibrate import measure
from pascalc.stream import open_samples


@click.command(help="Measure the histogram pass on MODEL, a network of one input.")
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.option("--samples", type=int, default=4096, show_default=True)
@click.option("--batch", type=int, default=64, show_default=True)
@click.option("--rounds", type=int, default=7, show_default=True)
def main(model: Path, samples: int, batch: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = _write(model, samples, Path(folder))
        session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
        loaded = load(model)
        times: list[tuple[float, float]] = []
        for _ in range(rounds + 1):
            started = time.perf_counter()
            for feeds, *_ in open_samples(file, loaded).batches(batch):
                session.run(None, feeds)
            middle = time.perf_counter()
            measure(model, file, batch=batch)
            times.append((middle - started, time.perf_counter() - middle))
        times = times[1:]  # the first round warms up
        plain, counted = (statistics.median(t[i] for t in times) / samples * 1e3 for i in (0, 1))
        ratio = statistics.median(a / b for a, b in times)
        print(f"plain inference {plain:.3f} ms a sample; histograms {counted:.3f} ms, with loading the model")
        print(f"throughput of the histogram pass: {ratio:.2f} x plain inference")
        for factor in (1, 2, 4):
            grown = _in_a_process(model, _write(model, samples * factor, Path(folder)), batch)
            print(f"peak memory over {samples * factor} samples: {grown / 1024:.0f} MiB more than before")


def _write(model: Path, samples: int, folder: Path) -> Path:
    value = load(model).interface_inputs[0]
    shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim][1:]
    path = folder / f"{samples}.npz"
    np.savez(path, x=np.random.default_rng(0).normal(size=(samples, *shape)).astype(np.float32))
    return path


def _in_a_process(model: Path, file: Path, batch: int) -> int:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_growth, (model, file, batch))


def _growth(model: Path, file: Path, batch: int) -> int:
    """KiB by which the peak resident size grows."""
    before = _peak()
    measure(model, file, batch=batch)
    return _peak() - before


def _peak() -> int:
    """The peak resident size of this process in KiB; of Linux, since getrusage has the parent's in it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


if __name__ == "__main__":
    main()
