"""Peak memory of the commands that read data, at several sizes of it; and two workers beside one process.

    python benchmarks/stream_memory.py DATA.npz [--sizes 1000 60000] [--format npz] [--model MODEL.onnx]
    python benchmarks/stream_memory.py DATA.npz --sizes 10000 --workers 2 [--rounds 3]

Data of each size is made of the arrays of DATA.npz (x and y), repeated. Every measurement is a process of its own; its
peak resident size is Linux's VmHWM. Without a model a small one is taken, so that memory is that of the data above all.
With --workers, `eval` and `verify` run with so many workers and in one process of one thread in turn, round after
round; cluster and networks are started anew each time, which is in the figures. The load of the machine is shown.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import networks
import numpy as np
import onnx

import pascalc
from pascalc.planning import calibrate, planner

#: From the folder of the networks, the data and options to a run.
COMMANDS: dict[str, Callable[..., object]] = {
    "eval": lambda at, data, **o: pascalc.evaluate(at / "snn.onnx", data, **o),
    "verify": lambda at, data, **o: pascalc.verify(at / "model.onnx", at / "snn.onnx", data, seed=0, **o),
    "report": lambda at, data, **o: pascalc.report(at / "snn.onnx", data, **o),
    "histogram": lambda at, data, **o: calibrate.measure(at / "model.onnx", data, **o),
    "calibration": lambda at, data, **o: planner.plan_by_steps(at / "model.onnx", data, 1.5, **o),
}


def small(shape: tuple[int, ...]) -> onnx.ModelProto:
    """One convolution and one hidden layer."""
    build = networks.Builder(levels=4)
    source = build.input(*shape)
    x = build.qcfs(build.conv(source, 4, 3, 4))
    x = build.qcfs(build.linear(build.flatten(x), 32))
    return build.model(source, build.linear(x, 10))


def write(data: Path, count: int, kind: str, folder: Path) -> Path:
    """So many samples, in one file or in shards of 5000; made in a process of its own."""
    with np.load(data) as file:
        x, y = file["x"], file["y"]
    numbers = np.arange(count) % len(x)
    path = folder / (f"{count}.{kind}" if kind != "shards" else f"{count}")
    if kind == "npy":
        np.save(path, x[numbers])
    elif kind == "npz":
        np.savez(path, x=x[numbers], y=y[numbers])
    elif kind == "packed":
        path = folder / f"{count}-packed.npz"
        np.savez_compressed(path, x=x[numbers], y=y[numbers])
    else:
        path.mkdir()
        for number, start in enumerate(range(0, count, 5000)):
            part = numbers[start : start + 5000]
            np.savez(path / f"{number}.npz", x=x[part], y=y[part])
    return path


def apart(function: Callable[..., object], *arguments: object) -> object:
    """Call a function in a new process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def peak(command: str, folder: Path, data: Path) -> tuple[float, float]:
    """Peak resident size in MiB, and seconds."""
    started = time.perf_counter()
    COMMANDS[command](folder, data, batch=64)
    lines = Path("/proc/self/status").read_text().splitlines()
    kib = int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    return kib / 1024, time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 60000])
    parser.add_argument("--format", choices=["npz", "packed", "npy", "shards"], default="npz")
    parser.add_argument("--commands", nargs="+", choices=list(COMMANDS), default=list(COMMANDS))
    parser.add_argument("--workers", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with np.load(arguments.data) as file:
            shape = file["x"].shape[1:]
        model = onnx.load(arguments.model) if arguments.model else small(shape)
        onnx.save(model, folder / "model.onnx")
        pascalc.compile(folder / "model.onnx", folder / "snn.onnx")
        files = [apart(write, arguments.data, size, arguments.format, folder) for size in arguments.sizes]
        if arguments.workers is None:
            print("| command |" + "".join(f" {size} samples |" for size in arguments.sizes) + " largest / smallest |")
            print("|---|" + "---|" * (len(arguments.sizes) + 1))
            for command in arguments.commands:
                found = [apart(peak, command, folder, file) for file in files]
                ratio = max(m for m, _ in found) / min(m for m, _ in found)
                cells = "".join(f" {mib:.0f} MiB, {seconds:.0f} s |" for mib, seconds in found)
                print(f"| {command} |{cells} {ratio:.3f} |", flush=True)
            return
        print(f"| command | samples | one process, one thread | {arguments.workers} workers | ratio | load |")
        print("|---|---|---|---|---|---|")
        for command in arguments.commands:
            for size, file in zip(arguments.sizes, files, strict=True):
                times = []
                for _ in range(arguments.rounds):
                    pair = []
                    for options in ({"threads": 1}, {"workers": arguments.workers}):
                        started = time.perf_counter()
                        COMMANDS[command](folder, file, batch=64, **options)
                        pair.append(time.perf_counter() - started)
                    times.append(pair)
                one, many = (median(pair[i] for pair in times) for i in (0, 1))
                ratio = median(a / b for a, b in times)
                print(f"| {command} | {size} | {one:.1f} s | {many:.1f} s | {ratio:.2f} | {os.getloadavg()[0]:.1f} |")


if __name__ == "__main__":
    main()
