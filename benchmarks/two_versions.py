"""Time and memory of verify and compile in this checkout beside another one of the same project, run in turn.

    git worktree add ../before COMMIT
    python benchmarks/two_versions.py ../before [--rounds 5] [--json FILE]

Every measurement is the CPU time, on one thread, of a process of its own, less its start and imports: on a busy machine
it is disturbed least. Ratios are taken within a round; the median over the rounds is shown. The networks are the two
shipped ones on the data that comes with them, and VGG-16 with random weights on random images.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ROOT / "examples" / "fashion-mnist"

_MEASURE = """
import resource, sys, time
import pascalc
from pascalc.verifier import verify
work, source, compiled, data, count = sys.argv[1:]
started = time.process_time()
if work == "verify":
    assert verify(source, compiled, data, limit=int(count), threads=1).equivalent
else:
    pascalc.compile(source, compiled + ".again")
print(time.process_time() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""
_BUILD = """
import sys
import numpy as np, onnx
sys.path.insert(0, sys.argv[2])
import networks
onnx.save(networks.vgg16(4), sys.argv[1] + "/vgg16.onnx")
x = np.random.default_rng(0).normal(0, 1, (256, 3, 32, 32)).astype(np.float32)
np.savez(sys.argv[1] + "/vgg16.npz", x=x)
"""


@dataclass(frozen=True)
class Row:
    """Medians of one piece of work: CPU seconds and peak MiB here and there, and their ratios."""

    work: str
    network: str
    samples: int
    seconds: float
    other_seconds: float
    time_ratio: float
    memory: float
    other_memory: float
    memory_ratio: float


def measured(checkout: Path, arguments: list[str]) -> tuple[float, float]:
    """CPU seconds and peak MiB in a checkout."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
        cwd=checkout,
    )
    seconds, memory = done.stdout.split()
    return float(seconds), float(memory)


def compared(work: str, source: Path, data: Path, samples: int, other: Path, rounds: int, folder: Path) -> Row:
    """One row: this checkout beside the other."""
    compiled = folder / f"{source.stem}.snn.onnx"
    subprocess.run(
        [sys.executable, "-c", "import sys, pascalc; pascalc.compile(*sys.argv[1:])", str(source), str(compiled)],
        check=True,
        env={**os.environ, "PYTHONPATH": str(other)},
        cwd=other,
    )
    arguments = [work, str(source), str(compiled), str(data), str(samples)]
    found = [(measured(ROOT, arguments), measured(other, arguments)) for _ in range(rounds)]
    return Row(
        work,
        source.stem,
        samples if work == "verify" else 0,
        *(median(pair[which][0] for pair in found) for which in (0, 1)),
        median(mine[0] / theirs[0] for mine, theirs in found),
        *(median(pair[which][1] for pair in found) for which in (0, 1)),
        median(mine[1] / theirs[1] for mine, theirs in found),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", type=Path, help="the other checkout")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    other = options.other.resolve()
    rows = []
    print("| | network | samples | CPU s | before | ratio | peak MiB | before | ratio |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([sys.executable, "-c", _BUILD, name, str(ROOT / "benchmarks")], check=True)
        shipped = SHIPPED / "test-1000.npz"
        for work, source, data, samples in (
            ("verify", SHIPPED / "vgg.onnx", shipped, 500),
            ("verify", SHIPPED / "resnet.onnx", shipped, 500),
            ("verify", folder / "vgg16.onnx", folder / "vgg16.npz", 256),
            ("compile", SHIPPED / "resnet.onnx", shipped, 0),
            ("compile", folder / "vgg16.onnx", folder / "vgg16.npz", 0),
        ):
            row = compared(work, source, data, samples, other, options.rounds, folder)
            rows.append(row)
            print(
                f"| {row.work} | {row.network} | {row.samples or ''} | {row.seconds:.2f} | {row.other_seconds:.2f} | "
                f"{row.time_ratio:.2f} | {row.memory:.0f} | {row.other_memory:.0f} | {row.memory_ratio:.2f} |",
                flush=True,
            )
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2))


if __name__ == "__main__":
    main()
