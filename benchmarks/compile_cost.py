"""What compiling costs: time and memory beside a plain load and save, and time over the number of nodes.

Every measurement runs in a process of its own, the compared things in turn. This process imports nothing large:
Linux hands a child the peak memory of the process that it was forked from.

    python benchmarks/compile_cost.py [--rounds 7] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

#: Nodes of the chains in the sweep; 8 to a block.
NODES = (160, 640, 2560, 10000)

#: What compiling is compared on: a title, and how the network is built.
NETWORKS = {
    "VGG-16, 33.6M weights": ("import networks, onnx", "onnx.save(networks.vgg16(4), target)"),
    "ResNet-152 with BatchNormalization, 60.2M weights": (
        "import networks, onnx",
        "onnx.save(networks.resnet(152, 4, batch_norm=True), target)",
    ),
}
BUILD_CHAIN = ("import networks, onnx", "onnx.save(networks.chain(int(source) // 8), target)")
COPY = ("import onnx", "onnx.save(onnx.load(source), target)")
COMPILE = ("from pascalc import compile", "compile(source, target)")

_SCRIPT = """
import resource, sys, time
source, target = sys.argv[1:]
{imports}
started = time.perf_counter()
{statement}
print(time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


@dataclass(frozen=True)
class Cost:
    """``seconds`` of the process from start to end, ``inside`` without its start and imports, peak memory in MiB."""

    seconds: float
    inside: float
    mebibytes: float


@dataclass(frozen=True)
class Comparison:
    """Medians of the source's load and save, of compiling, and of their ratios within a round."""

    copy: Cost
    compile: Cost
    time_ratio: float
    memory_ratio: float


@dataclass(frozen=True)
class Point:
    """A chain in the sweep: medians."""

    nodes: int
    seconds: float


def run(step: tuple[str, str], source: str | Path, target: Path) -> Cost:
    script = _SCRIPT.format(imports=step[0], statement=step[1])
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", script, str(source), str(target)],
        cwd=Path(__file__).parent,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    seconds = time.perf_counter() - started
    inside, mebibytes = map(float, done.stdout.split())
    return Cost(seconds, inside, mebibytes)


def compare(build: tuple[str, str], rounds: int, folder: Path) -> Comparison:
    source, target = folder / "source.onnx", folder / "target.onnx"
    run(build, "", source)
    pairs = [(run(COPY, source, target), run(COMPILE, source, target)) for _ in range(rounds)]
    return Comparison(
        copy=_median([a for a, _ in pairs]),
        compile=_median([b for _, b in pairs]),
        time_ratio=median(b.seconds / a.seconds for a, b in pairs),
        memory_ratio=median(b.mebibytes / a.mebibytes for a, b in pairs),
    )


def sweep(rounds: int, folder: Path) -> list[Point]:
    sources = {nodes: folder / f"{nodes}.onnx" for nodes in NODES}
    for nodes, source in sources.items():
        run(BUILD_CHAIN, str(nodes), source)
    times: dict[int, list[float]] = {nodes: [] for nodes in NODES}
    for _ in range(rounds):
        for nodes, source in sources.items():
            times[nodes].append(run(COMPILE, source, folder / "target.onnx").inside)
    return [Point(nodes, median(values)) for nodes, values in times.items()]


def _median(costs: list[Cost]) -> Cost:
    return Cost(median(c.seconds for c in costs), median(c.inside for c in costs), median(c.mebibytes for c in costs))


def comparison_table(result: Comparison) -> str:
    """The comparison as a markdown table."""

    def target(value: float, limit: float) -> str:
        return f"{value:.2f} <= {limit}" + ("" if value <= limit else " missed")

    lines = ["| | whole process, s | without start and imports, s | peak memory, MiB |", "|---|---|---|---|"]
    for name, cost in (("onnx.load + onnx.save", result.copy), ("compile", result.compile)):
        lines.append(f"| {name} | {cost.seconds:.2f} | {cost.inside:.2f} | {cost.mebibytes:.0f} |")
    lines.append(f"| ratio | {target(result.time_ratio, 3.0)} | | {target(result.memory_ratio, 1.25)} |")
    return "\n".join(lines)


def sweep_table(points: list[Point]) -> str:
    """The sweep as a markdown table."""
    lines = ["| nodes | seconds | ms a node |", "|---|---|---|"]
    lines += [f"| {p.nodes} | {p.seconds:.2f} | {1e3 * p.seconds / p.nodes:.2f} |" for p in points]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="processes of each kind")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compared = {name: compare(build, arguments.rounds, Path(folder)) for name, build in NETWORKS.items()}
        points = sweep(arguments.rounds, Path(folder))
    for name, comparison in compared.items():
        print(f"{name}\n\n{comparison_table(comparison)}\n")
    print(f"Chains of Conv-QCFS, without start and imports\n\n{sweep_table(points)}")
    if arguments.json:
        figures = {
            "networks": {name: asdict(comparison) for name, comparison in compared.items()},
            "sweep": [asdict(point) for point in points],
        }
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
