"""Many mutated files, each compiled and verified in processes of their own; a part of ``make fuzz``.

    python -m tests.fuzz.run --cases 5000 --jobs 2 --keep failures

Every case must be refused in one paragraph, with nothing left behind, or compile into what verifies against it. A
source that onnxruntime itself cannot run has nothing to be verified against. A case is made from the seed and its
number alone; those that fail are kept. Exit status 1 if any failed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from tests.fuzz.limits import COMPILED, REFUSED, compile_only, limited
from tests.fuzz.mutate import mutate
from tests.fuzz.verdict import check

SECONDS, MEMORY_MIB = 30, 2048
#: Verifying runs four networks in onnxruntime; its own limits are no business of the compiler.
VERIFY_SECONDS, VERIFY_MEMORY = 120, 8 << 30


def judge(data: bytes, folder: Path) -> tuple[str, str]:
    """The verdict on one file: "verified", "refused", "not runnable", or what is wrong and why."""
    path = folder / "model.onnx"
    path.write_bytes(data)
    outcome = limited(compile_only, path, seconds=SECONDS)
    left = {p.name for p in folder.iterdir()}
    if outcome.verdict == REFUSED and left == {"model.onnx"} and "\n" not in outcome.message:
        return "refused", ""
    if outcome.verdict != COMPILED or outcome.peak > MEMORY_MIB or left != {"model.onnx", "model.snn.onnx"}:
        return f"compiling: {outcome.verdict}", f"{outcome.peak:.0f} MiB, {sorted(left)}, {outcome.message}"
    checked = limited(check, path, seconds=VERIFY_SECONDS, memory=VERIFY_MEMORY)
    return (checked.message, "") if checked.verdict == COMPILED else (f"verifying: {checked.verdict}", checked.message)


def fuzz(cases: range, seed: int, jobs: int, keep: Path) -> Counter[str]:
    """The verdicts on so many cases; files that fail go to ``keep``."""
    found: Counter[str] = Counter()

    def one(number: int) -> None:
        data = mutate(np.random.default_rng([seed, number]))
        with tempfile.TemporaryDirectory() as folder:
            verdict, message = judge(data, Path(folder))
        found[verdict] += 1
        if ":" in verdict:
            keep.mkdir(parents=True, exist_ok=True)
            (keep / f"{seed}-{number}.onnx").write_bytes(data)
            (keep / f"{seed}-{number}.txt").write_text(f"{verdict}\n{message}\n")
        if sum(found.values()) % 100 == 0:
            print(dict(found), flush=True)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(one, cases))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"))
    options = parser.parse_args()
    cases = range(options.first, options.first + options.cases)
    found = fuzz(cases, options.seed, options.jobs, options.keep)
    print(f"{len(cases)} mutations of seed {options.seed}: {dict(sorted(found.items()))}")
    sys.exit(any(":" in verdict for verdict in found))


if __name__ == "__main__":
    main()
