"""Reading text files, and writing files whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from pascalc.errors import CompileError


def read_text(path: str | Path, what: str) -> str:
    """The text of a UTF-8 file that holds ``what``.

    Raises:
        CompileError: the file cannot be read, or is no text.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise CompileError(f"the {what} cannot be read: {error.strerror}", file=path) from None
    except UnicodeDecodeError:
        raise CompileError(f"this is not a {what}: it is no text", file=path) from None


def write_atomically(path: Path, chunks: Iterable[bytes | memoryview]) -> None:
    """Write the chunks to a temporary file beside ``path`` and move it there once it is complete and on disk.

    Raises:
        CompileError: the folder is missing or not writable, the disk is full, ``path`` is a directory. Nothing is
            left behind, and a file that was at ``path`` before is untouched.
    """
    write_together([(path, chunks)])


def write_together(files: Sequence[tuple[Path, Iterable[bytes | memoryview]]]) -> None:
    """Like :func:`write_atomically` for files that belong together: none is moved before all are on disk."""
    temporaries: list[tuple[Path, Path]] = []
    path = files[0][0]
    try:
        for path, chunks in files:
            if path.is_dir():
                raise IsADirectoryError(21, "Is a directory")
            if path.exists() and not path.is_file():  # a device or a pipe stays what it is
                with path.open("wb") as stream:
                    stream.writelines(chunks)
                continue
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
                temporaries.append((Path(file.name), path))
                for chunk in chunks:
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            Path(file.name).chmod(0o666 & ~_umask())
        for temporary, path in temporaries:
            temporary.replace(path)
    except OSError as error:
        raise CompileError(
            f"the output cannot be written: {error.strerror or error}",
            file=path,
            hint="Nothing was written; choose a writable place with enough room (-o OUT).",
        ) from error
    finally:
        for temporary, _ in temporaries:
            temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def read_bytes(path: Path) -> bytes:
    """The contents of a file.

    Raises:
        CompileError: there is no such file, it is a directory, empty or not readable.
    """
    try:
        if path.is_dir():
            raise CompileError(
                "this is a directory, not an ONNX file", file=path, hint="Name the .onnx file inside it."
            )
        data = path.read_bytes()
    except OSError as error:
        raise CompileError(f"the file cannot be read: {error.strerror or error}", file=path) from error
    if not data:
        raise CompileError("the file is empty", file=path, hint="Export or download the model again.")
    return data
