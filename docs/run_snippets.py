"""Runs the snippets of a documentation page, in order: ``python docs/run_snippets.py docs/training.md``.

- A ``python`` block is executed; all blocks of a page share one namespace. A block marked ``python file=NAME.py`` is
  written to that file and imported, and its names join the namespace.
- In a ``console`` block every ``$ pascalc ...`` line is run as a command of its own. It must leave with status 0, or
  with N where the line ends in ``# exit status N``. Lines below it are output that must occur, in order; ``...``
  stands for anything, and runs of blanks are one blank. Other ``$`` lines are for the reader alone.

The working directory is a temporary one with the example networks and their test images in it. The first failure
ends the run with status 1 and the page's name and line.
"""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EXAMPLE = Path(__file__).parents[1] / "examples" / "fashion-mnist"
_COMMAND = [sys.executable, "-c", "from pascalc.cli import main; main(prog_name='pascalc')"]
_STATUS = re.compile(r"exit status (\d+)")


@dataclass(frozen=True)
class Block:
    """A fenced block: what follows the opening fence, the page's line that its text starts at, and its text."""

    info: str
    line: int
    text: str


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page."""
    info, start, lines = None, 0, []
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if not line.startswith("```"):
            lines.append(line)
        elif info is None:
            info, start, lines = line.removeprefix("```").strip(), number + 1, []
        else:
            yield Block(info, start, "\n".join(lines) + "\n")
            info = None
    if info is not None:
        raise SystemExit(f"{page}:{start}: this block is not closed")


def run(page: Path) -> None:
    """Run a page's snippets in the current directory."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page):
        language, _, file = block.info.partition(" file=")
        where = f"{page}:{block.line}"
        if language == "python" and file:
            Path(file).write_text(block.text)
            importlib.invalidate_caches()
            module = importlib.import_module(file.removesuffix(".py"))
            namespace.update({k: v for k, v in vars(module).items() if not k.startswith("__")})
        elif language == "python":
            # as many blank lines as the page has before the block, so that a traceback gives the page's lines
            exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), namespace)
        elif language == "console":
            for command, shown in _commands(block.text):
                _run_command(command, shown, where)


def _commands(text: str) -> Iterator[tuple[str, str]]:
    """The commands of a console block that are run, each with the output that the page shows."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, shown = part.partition("\n")
        if command.startswith("pascalc "):
            yield command, shown


def _run_command(command: str, shown: str, where: str) -> None:
    wanted = _STATUS.search(command.partition("#")[2])
    arguments = shlex.split(command, comments=True)[1:]
    done = subprocess.run([*_COMMAND, *arguments], capture_output=True, text=True, check=False)
    output = done.stdout + done.stderr
    if done.returncode != (int(wanted[1]) if wanted else 0):
        raise SystemExit(f"{where}: '{command}' left with status {done.returncode}:\n{output}")
    pattern = ".*?".join(re.escape(" ".join(part.split())) for part in shown.split("..."))
    if not re.search(pattern, " ".join(output.split())):
        raise SystemExit(f"{where}: '{command}' does not print what the page shows, but:\n{output}")


def main() -> None:
    for name in sys.argv[1:]:
        page, home = Path(name).resolve(), Path.cwd()
        with tempfile.TemporaryDirectory() as folder:
            for file in (*EXAMPLE.glob("*.onnx"), *EXAMPLE.glob("*.npz")):
                (Path(folder) / file.name).symlink_to(file)
            os.chdir(folder)
            sys.path.insert(0, folder)
            try:
                run(page)
            finally:
                os.chdir(home)


if __name__ == "__main__":
    main()
