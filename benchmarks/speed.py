"""Speed of spiking VGG-16 beside its source network, both in onnxruntime.

All variants run in turn, round after round, so that whatever else the machine does hits all of them; a ratio is taken
within each round, and the median over the rounds is shown.

    python benchmarks/speed.py [--rounds 40] [--threads 2] [--cpu-time] [--json FILE]

On a machine that is busy with something else, ``--threads 1 --cpu-time`` still gives stable ratios.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median

import networks
import numpy as np
import onnx
import onnxruntime as ort

from pascalc import compile
from pascalc.runtime import session_options

BATCHES = (1, 16)
LEVELS = (4, 8)


@dataclass(frozen=True)
class Row:
    """One variant at one batch size: median milliseconds, and the medians of the ratios within a round."""

    steps: int
    batch: int
    variant: str
    milliseconds: float
    to_source: float
    to_native: float
    target: float | None

    @property
    def relative(self) -> float:
        """The figure that the target bounds: to steps x source, to the source or to the native bodies."""
        if self.variant == "unrolled":
            return self.to_source / self.steps
        return self.to_native if self.variant == "unrolled, NumPy library" else self.to_source


def options(threads: int, numpy_library: bool = False) -> ort.SessionOptions:
    """Threads that stop spinning after a run: the next variant needs the cores."""
    if numpy_library:
        return session_options(threads=threads)
    result = ort.SessionOptions()
    result.intra_op_num_threads = threads
    result.add_session_config_entry("session.force_spinning_stop", "1")
    return result


def measure(levels: int, rounds: int, threads: int, clock: Callable[[], float], folder: Path) -> list[Row]:
    """The rows of one number of levels (and time steps)."""
    source = folder / "source.onnx"
    onnx.save(networks.vgg16(levels), source)
    for schedule in ("unrolled", "collapsed"):
        compile(source, folder / f"{schedule}.onnx", schedule=schedule)
    sessions = {
        "source": ort.InferenceSession(source, options(threads)),
        "unrolled": ort.InferenceSession(folder / "unrolled.onnx", options(threads)),
        "unrolled, NumPy library": ort.InferenceSession(folder / "unrolled.onnx", options(threads, numpy_library=True)),
        "collapsed": ort.InferenceSession(folder / "collapsed.onnx", options(threads)),
    }
    rows = []
    for batch in BATCHES:
        feeds = {"input": np.random.default_rng(0).standard_normal((batch, 3, 32, 32), np.float32)}
        times = interleaved({name: partial(s.run, None, feeds) for name, s in sessions.items()}, rounds, clock)
        for name in sessions:
            rows.append(
                Row(
                    steps=levels,
                    batch=batch,
                    variant=name,
                    milliseconds=1e3 * median(times[name]),
                    to_source=median(a / b for a, b in zip(times[name], times["source"], strict=True)),
                    to_native=median(a / b for a, b in zip(times[name], times["unrolled"], strict=True)),
                    target={
                        "unrolled": 1.05 if batch > 1 else 0.75,
                        "unrolled, NumPy library": 2.0,
                        "collapsed": 1.05,
                    }.get(name),
                )
            )
    return rows


def interleaved(
    runs: dict[str, Callable[[], object]], rounds: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds of every run, taken in turn; the first rounds warm up."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 3):
        for name, run in runs.items():
            started = clock()
            run()
            if number >= 3:
                times[name].append(clock() - started)
    return times


def table(rows: list[Row]) -> str:
    """The rows as a markdown table."""
    lines = [
        "| T | batch | variant | ms | x source | x T x source | x native bodies | target |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        target = "" if row.target is None else f"{row.relative:.2f} <= {row.target}"
        target += "" if row.target is None or row.relative <= row.target else " missed"
        lines.append(
            f"| {row.steps} | {row.batch} | {row.variant} | {row.milliseconds:.1f} | {row.to_source:.2f} "
            f"| {row.to_source / row.steps:.2f} | {row.to_native:.2f} | {target} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40, help="rounds at each batch size")
    parser.add_argument("--threads", type=int, default=2, help="threads of onnxruntime")
    parser.add_argument("--cpu-time", action="store_true", help="count the process's CPU seconds, not the clock's")
    parser.add_argument("--json", type=Path, help="write the rows to this file too")
    arguments = parser.parse_args()
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    rows: list[Row] = []
    for levels in LEVELS:
        with tempfile.TemporaryDirectory() as folder:
            rows += measure(levels, arguments.rounds, arguments.threads, clock, Path(folder))
    unit = "CPU milliseconds" if arguments.cpu_time else "milliseconds"
    versions = f"onnxruntime {ort.__version__}, NumPy {np.__version__}"
    print(f"VGG-16, 32 x 32, {unit}, threads: {arguments.threads}, {versions}\n\n{table(rows)}")
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
