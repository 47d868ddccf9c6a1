"""Many mutants, in processes of their own; `make mutants`.

    python -m tests.mutants.run --mutants 1000 --seed 0 --jobs 2 --keep mutants-missed

Prints a table by kind. Mutants that were missed, and those on which verify failed, are kept with what was done to them.
Exit status 1 if there are any, or if verify refused a network as it was compiled. A mutant is made from the seed and
its number alone.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from tests.mutants.cases import Case, Workshop
from tests.mutants.networks import Subject
from tests.mutants.oracle import DIFFERENT, EQUAL

#: For one mutant, its networks compiled before or not; and the address space of a process.
SECONDS, MEMORY = 180, 8 << 30
SEVERAL = "several at once"


def work(folder: Path, seed: int, numbers: list[int], quick: bool, keep: Path | None, out: Connection) -> None:
    """Run the mutants of these numbers, and send what came of each."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    shop = Workshop(folder, quick)
    for number in numbers:
        case = shop.run(seed, number)
        path = shop.mutant_path(seed, number)
        if keep is not None and (case.missed or case.missed_without or case.bug):
            _keep(keep, case, path, shop)
        path.unlink()
        out.send(case)
    out.send(shop.left_out)


def _keep(keep: Path, case: Case, path: Path, shop: Workshop) -> None:
    sort = "missed" if case.missed else "bug" if case.bug else "without-data"
    folder = keep / f"{sort}-{case.seed}-{case.number}"
    folder.mkdir(parents=True, exist_ok=True)
    (subject,) = (s for s in shop._subjects.values() if isinstance(s, Subject) and s.name == case.network)
    for file in (subject.path, subject.honest, subject.data):
        shutil.copy(file, folder / file.name)
    shutil.copy(path, folder / "mutant.onnx")
    (folder / "case.json").write_text(json.dumps(case.to_json(), indent=1))


def run_all(
    count: int, seed: int, jobs: int, keep: Path | None = None, quick: bool = False
) -> tuple[list[Case], list[int], dict[str, str]]:
    """All cases, the numbers of mutants that ended their process, and the networks left out and why."""
    context = multiprocessing.get_context("forkserver")
    cases: list[Case] = []
    lost: list[int] = []
    left_out: dict[str, str] = {}
    running: dict[Connection, tuple[Any, list[int], float]] = {}
    waiting = [list(range(job, count, jobs)) for job in range(jobs)]
    with tempfile.TemporaryDirectory() as folder:
        while waiting or running:
            while waiting and len(running) < jobs:
                numbers = waiting.pop()
                mine, theirs = context.Pipe(duplex=False)
                own = Path(folder) / f"{len(cases)}-{numbers[0]}"
                own.mkdir(exist_ok=True)
                process = context.Process(target=work, args=(own, seed, numbers, quick, keep, theirs), daemon=True)
                process.start()
                theirs.close()
                running[mine] = (process, numbers, time.monotonic())
            for ready in wait(list(running), timeout=5):
                assert isinstance(ready, Connection)
                process, numbers, _ = running.pop(ready)
                try:
                    message = ready.recv()
                except EOFError:
                    process.join()
                    lost.append(numbers[0])
                    waiting += [numbers[1:]] if numbers[1:] else []
                    continue
                if isinstance(message, dict):
                    left_out |= message
                    process.join()
                    continue
                cases.append(message)
                running[ready] = (process, numbers[1:], time.monotonic())
                if len(cases) % 100 == 0:
                    print(
                        f"{len(cases)} of {count}: {sum(c.missed for c in cases)} missed", file=sys.stderr, flush=True
                    )
            for connection, (process, numbers, since) in list(running.items()):
                if time.monotonic() - since > SECONDS and numbers:
                    process.kill()
                    process.join()
                    del running[connection]
                    lost.append(numbers[0])
                    waiting += [numbers[1:]] if numbers[1:] else []
    return sorted(cases, key=lambda c: c.number), sorted(lost), left_out


def table(cases: list[Case]) -> str:
    """One row for every kind; what was several kinds at once has a row of its own."""
    heads = ["kind", "mutants", "equal after all", "different", "found", "missed", "found without data", "failed"]
    heads += ["false alarms"]
    rows: dict[str, Counter[str]] = {}
    for case in cases:
        for name in (case.kinds[0] if len(case.kinds) == 1 else SEVERAL, "all"):
            row = rows.setdefault(name, Counter())
            different = case.truth == DIFFERENT
            row["mutants"] += 1
            row["equal after all"] += not different
            row["different"] += different
            row["found"] += different and case.with_data.found
            row["missed"] += case.missed
            row["found without data"] += case.without is not None and case.without.found
            row["failed"] += case.bug
            row["false alarms"] += case.false_alarm
    order = sorted(rows, key=lambda name: (name == "all", name == SEVERAL, name))
    lines = [f"| {' | '.join(heads)} |", f"|---{'|---:' * (len(heads) - 1)}|"]
    lines += [f"| {name} | {' | '.join(str(rows[name][h]) for h in heads[1:])} |" for name in order]
    return "\n".join(lines)


def details(cases: list[Case], lost: list[int], left_out: dict[str, str]) -> list[str]:
    """What the table does not say, one line each."""
    lines = [f"left out: {name}: {why}" for name, why in sorted(left_out.items())]
    lines += [f"process ended: {number}" for number in lost]
    for case in cases:
        what = f"{case.seed}-{case.number} {case.network}: {' + '.join(case.kinds)}: {'; '.join(case.done)}"
        if case.bug:
            lines.append(f"verify failed: {what}: {case.with_data.why.strip().splitlines()[-1:]}")
        if case.missed:
            lines.append(f"MISSED: {what} ({case.why})")
        elif case.missed_without:
            lines.append(f"missed without data: {what} ({case.why})")
        if case.false_alarm:
            lines.append(f"false alarm: {what}: {case.with_data.verdict}: {case.with_data.why[:200]}")
    silent = Counter(c.truth for c in cases)
    return [*lines, f"{silent[EQUAL]} equal, {silent[DIFFERENT]} different, {len(cases)} in all"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutants", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--keep", type=Path, default=Path("mutants-missed"))
    options = parser.parse_args()
    cases, lost, left_out = run_all(options.mutants, options.seed, options.jobs, options.keep)
    print(table(cases))
    print("\n".join(["", *details(cases, lost, left_out)]))
    sys.exit(bool(lost or left_out) or any(c.missed or c.bug for c in cases))


if __name__ == "__main__":
    main()
