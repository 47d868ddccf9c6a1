"""Compiling a file in a process of its own, with little time and memory: what hostile files are tried with."""

from __future__ import annotations

import multiprocessing
import resource
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from pascalc.compiler import compile_model
from pascalc.errors import CompileError

# A server that has imported everything once and forks for every case: milliseconds in place of a second.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["pascalc.verifier", __name__])

#: What a case may end with; everything but the first two is a bug.
COMPILED, REFUSED, FAILED, KILLED, HANGING = "compiled", "refused", "failed", "killed", "hanging"


@dataclass(frozen=True)
class Outcome:
    """How a case ended: its verdict, the message or traceback behind it, and what it took.

    Attributes:
        seconds: from the start of the process to its end.
        peak: the largest resident memory, in MiB.
    """

    verdict: str
    message: str = ""
    seconds: float = 0.0
    peak: float = 0.0

    @property
    def good(self) -> bool:
        return self.verdict in (COMPILED, REFUSED)


def limited(work: Callable[[Path], str], path: Path, *, seconds: float = 30, memory: int = 4 << 30) -> Outcome:
    """Do ``work`` on a file in another process, of so much address space and for so long.

    What ``work`` returns is the message of a compiled case; a `CompileError` refuses; all else fails.
    """
    mine, theirs = _CONTEXT.Pipe(duplex=False)
    started = time.perf_counter()
    process = _CONTEXT.Process(target=_attempt, args=(work, path, memory, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        verdict, message, peak = mine.recv() if mine.poll(seconds) else (HANGING, f"after {seconds} s", 0.0)
    except EOFError:
        process.join()
        verdict, message, peak = KILLED, f"exit status {process.exitcode}", 0.0
    if verdict == HANGING:
        process.kill()
    process.join()
    process.close()
    mine.close()
    return Outcome(verdict, message, time.perf_counter() - started, peak)


def _attempt(work: Callable[[Path], str], path: Path, memory: int, result: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    try:
        verdict, message = COMPILED, work(path)
    except CompileError as error:
        verdict, message = REFUSED, str(error)
    except BaseException:
        verdict, message = FAILED, traceback.format_exc()
    result.send((verdict, message, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def compile_only(path: Path) -> str:
    """Compile the file."""
    compile_model(path)
    return ""
