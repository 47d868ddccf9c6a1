"""Reading files, and writing them whole or not at all: through links, into pipes, to stdout."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import signal
import stat
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from pascalc.errors import CompileError

Chunks = Iterable[bytes | memoryview]

#: A name of stdout as a file; what is written to it goes to file descriptor 1.
STDOUT = Path("/dev/stdout")


def read_text(path: str | Path, what: str) -> str:
    """The text of a UTF-8 file that holds ``what``; it may come through a pipe.

    Raises:
        CompileError: the file cannot be read, or is no text.
    """
    path = Path(path)
    try:
        if _is_device(path):
            raise CompileError(f"this is a device, not a {what}", file=path, hint=f"Name the {what}.")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        if isinstance(error, UnicodeDecodeError):
            raise CompileError(f"this is not a {what}: it is no text", file=path) from None
        hint = way_to(path, error, stdin="'-' is not stdin here: write /dev/stdin.")
        raise CompileError(f"the {what} cannot be read: {reason(error)}", file=path, hint=hint) from None


def read_bytes(path: Path) -> bytes:
    """The contents of a file.

    Raises:
        CompileError: there is no such file, it is a directory, a pipe or a device, empty or not readable.
    """
    try:
        if path.is_dir():
            raise CompileError(
                "this is a directory, not an ONNX file", file=path, hint="Name the .onnx file inside it."
            )
        check_regular(path)
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        link = f" (it is a link to {real(path)})" if isinstance(error, FileNotFoundError) and path.is_symlink() else ""
        raise CompileError(
            f"the file cannot be read: {reason(error)}{link}", file=path, hint=way_to(path, error)
        ) from error
    if not data:
        raise CompileError("the file is empty", file=path, hint="Export or download the model again.")
    return data


def check_regular(path: Path) -> None:
    """Refuse pipes and devices for files that are read more than once.

    Raises:
        CompileError: it is one.
    """
    mode = _mode(path)
    if _is_device(path) or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
        raise CompileError(
            "this is a pipe or a device, and the file is read more than once", file=path, hint="Write it to a file."
        )


def _is_device(path: Path) -> bool:
    mode = _mode(path)
    return stat.S_ISCHR(mode) or stat.S_ISBLK(mode)


def _mode(path: Path) -> int:
    """What kind of file it is; 0 where it cannot be reached, which reading it tells of."""
    try:
        return path.stat().st_mode
    except (OSError, ValueError):
        return 0


def reason(error: OSError | ValueError) -> str:
    """Why a file could not be reached, in the system's words; a ValueError is a name that no file can have."""
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def way_to(
    path: Path,
    error: OSError | ValueError,
    stdin: str = "'-' is not stdin here, which is not read: write the file to disk, and give its name.",
) -> str:
    """The way out for a path that could not be read, where there is more to say than the system does."""
    if isinstance(error, IsADirectoryError):
        return "Name the file inside it."
    if not isinstance(error, FileNotFoundError):
        return ""
    if str(path) == "-":
        return stdin
    return "" if path.parent.exists() else f"There is no folder {path.parent}."


def real(path: Path) -> Path:
    """The path with all links followed, also where nothing is there yet, or the links run in a circle."""
    return Path(os.path.realpath(path))


def same(one: Path, other: Path) -> bool:
    """Whether two paths are of one file, which need not exist."""
    try:
        return real(one) == real(other) or os.path.samefile(one, other)
    except (OSError, ValueError):
        return False


def beside(path: Path, kind: str) -> Path:
    """``model.onnx`` -> ``model.<kind>.onnx``, beside it."""
    return path.parent / f"{path.stem}.{kind}.onnx"


def printable(text: object) -> str:
    """The text, fit for UTF-8: bytes in a path that are none are written as escapes."""
    return str(text).encode("utf-8", "backslashreplace").decode()


def is_stdout(path: Path) -> bool:
    """Whether the path is one of the names of this process's stdout, or a link to one."""
    return _descriptor(path) == 1


def _descriptor(path: Path) -> int | None:
    """The file descriptor of this process that a path such as ``/dev/fd/3`` names.

    Links are followed one at a time: the last one, from the descriptor to what it is open on, must not be.
    """
    folders = ("/dev/fd", f"/proc/{os.getpid()}/fd")
    for _ in range(40):  # as many links as Linux follows
        folder = os.path.realpath(path.parent)
        if folder in folders:
            return int(path.name) if path.name.isascii() and path.name.isdigit() else None
        path = Path(folder) / path.name
        if not os.path.islink(path):
            return None
        path = Path(folder) / os.readlink(path)
    return None


def is_stream(path: Path) -> bool:
    """Whether what is written there goes into something that is open or no file: a descriptor, a pipe, a device."""
    mode = _mode(path)
    return _descriptor(path) is not None or (mode != 0 and not stat.S_ISREG(mode) and not stat.S_ISDIR(mode))


def check_writable(path: Path) -> None:
    """Refuse what cannot be written to, before any work is done for it.

    Raises:
        CompileError: the folder is missing or not writable, or ``path`` is a directory.
    """
    try:
        target = _target(path)
        if is_stream(path):
            return
        if not stat.S_ISDIR(target.parent.stat().st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(target.parent, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise _not_written(path, error) from error


def write_atomically(path: Path, chunks: Chunks) -> None:
    """Write the chunks to a temporary file beside ``path`` and move it there once it is complete and on disk.

    Links are written through: the temporary file lies beside the file that they lead to. Pipes, devices and names of
    open file descriptors, stdout among them, are written to as they are.

    Raises:
        CompileError: the folder is missing or not writable, the disk is full, ``path`` is a directory. Nothing is
            left behind, and a file that was at ``path`` before is untouched.
    """
    write_together([(path, chunks)])


def write_together(files: Sequence[tuple[Path, Chunks]]) -> None:
    """Like :func:`write_atomically` for files that belong together: none is moved before all are on disk."""
    moves: list[tuple[Path, Path]] = []
    path = files[0][0]
    with unwinding():
        try:
            for path, chunks in files:
                target = _target(path)
                descriptor = _descriptor(path)
                if descriptor is not None:
                    with os.fdopen(os.dup(descriptor), "wb") as stream:
                        stream.writelines(chunks)
                elif target.exists() and not target.is_file():
                    with target.open("wb") as stream:
                        stream.writelines(chunks)
                else:
                    _write_temporary(target, chunks, moves)
            for temporary, target in moves:
                temporary.replace(target)
        except OSError as error:
            raise _not_written(path, error) from error
        finally:
            for temporary, _ in moves:
                temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to write into, which becomes ``path`` at the end of the block, with the mode of the folder that was
    there; where the block fails, nothing is left.

    Raises:
        CompileError: ``path`` is stdout or something else than an empty folder, or its folder is missing or not
            writable; what was there is untouched. An OSError in the block is told as one of writing ``path``.
    """
    with unwinding():
        temporary = None
        try:
            if is_stdout(path):
                raise CompileError("a folder cannot go to stdout", file=path, hint="Name a folder.")
            target = _resolved(path)
            if target.is_dir() and any(target.iterdir()):
                hint = "Nothing was written; name a new folder, or an empty one."
                raise CompileError("this folder has something in it", file=path, hint=hint)
            if target.exists() and not target.is_dir():
                raise FileExistsError(errno.EEXIST, "this is a file, and a folder is to be written")
            mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else None
            temporary = target.parent / f".pascalc.{secrets.token_hex(8)}"
            temporary.mkdir(0o777 if mode is None else 0o700)
            yield temporary
            for file in temporary.iterdir():
                with file.open("rb") as stream:
                    os.fsync(stream.fileno())
            if mode is not None:
                temporary.chmod(mode)
            temporary.replace(target)
        except OSError as error:
            raise _not_written(path, error) from error
        finally:
            if temporary is not None:
                shutil.rmtree(temporary, ignore_errors=True)


def _target(path: Path) -> Path:
    """What is written for ``path``: the file that its links lead to."""
    target = _resolved(path)
    if target.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return target


def _resolved(path: Path) -> Path:
    try:
        return real(path)
    except ValueError as error:  # a name that no file can have
        raise OSError(errno.EINVAL, str(error)) from error


def _write_temporary(target: Path, chunks: Chunks, moves: list[tuple[Path, Path]]) -> None:
    """Write a file beside the target, of the mode that the target has or that a new file gets."""
    mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else None
    # a short name of its own: the target's may be as long as names can be
    temporary = target.parent / f".pascalc.{secrets.token_hex(8)}"
    moves.append((temporary, target))  # before it is there, so that an interruption cannot come in between
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as stream:
        if mode is not None:
            os.fchmod(stream.fileno(), mode)
        stream.writelines(chunks)
        stream.flush()
        os.fsync(stream.fileno())


def _not_written(path: Path, error: OSError) -> CompileError:
    message, hint = reason(error), "Nothing was written; choose a writable place with enough room."
    if isinstance(error, FileNotFoundError) and not real(path).parent.exists():
        message = f"the folder {real(path).parent} does not exist"
        hint = "Nothing was written; create it, or choose another."
    return CompileError(f"the output cannot be written: {message}", file=path, hint=hint)


class _Interrupted(BaseException):
    """A signal has come that ends the process."""


@contextmanager
def unwinding() -> Iterator[None]:
    """Let SIGTERM and SIGHUP, which end a process at once, unwind this block first; then they do end it.

    Only where they would: handlers of the program that uses this library, and signals that it ignores, stay.
    """
    if threading.current_thread() is not threading.main_thread():  # others have no say about signals
        yield
        return
    received: list[int] = []

    def unwind(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if len(received) == 1:
            raise _Interrupted

    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, unwind)
    try:
        yield
    except _Interrupted:
        pass
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
        if received:
            os.kill(os.getpid(), received[0])
