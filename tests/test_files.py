"""Writing whole or not at all: through links, under long names, into what is open, and when a signal comes."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pascalc import files
from pascalc.errors import CompileError
from pascalc.files import check_writable, is_stdout, printable, read_bytes, same, unwinding, write_atomically


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "target").write_bytes(b"old")
    (tmp_path / "link").symlink_to("sub/target")
    (tmp_path / "dangling").symlink_to("sub/new")
    for link, target in (("link", "target"), ("dangling", "new")):
        write_atomically(tmp_path / link, [b"ne", b"w"])
        assert (tmp_path / link).is_symlink()
        assert (tmp_path / "sub" / target).read_bytes() == b"new"
    assert names(tmp_path / "sub") == ["new", "target"]


def test_the_temporary_file_lies_beside_the_target(tmp_path: Path) -> None:
    """Only there can it be moved in one step."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "link").symlink_to("sub/target")
    seen: list[list[str]] = []

    def chunks() -> Iterator[bytes]:
        seen.extend([names(tmp_path), names(tmp_path / "sub")])
        yield b"content"

    write_atomically(tmp_path / "link", chunks())
    assert seen[0] == ["link", "sub"]
    assert len(seen[1]) == 1


def test_links_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    for attempt in (lambda: write_atomically(tmp_path / "a", [b"x"]), lambda: check_writable(tmp_path / "a")):
        with pytest.raises(CompileError, match="Too many levels of symbolic links"):
            attempt()
    with pytest.raises(CompileError, match="Too many levels of symbolic links"):
        read_bytes(tmp_path / "a")
    assert (tmp_path / "a").is_symlink()


def test_the_longest_name(tmp_path: Path) -> None:
    write_atomically(tmp_path / ("a" * 255), [b"x"])
    assert names(tmp_path) == ["a" * 255]
    for attempt in (write_atomically, lambda path, _: check_writable(path)):
        with pytest.raises(CompileError, match="File name too long"):
            attempt(tmp_path / ("a" * 256), [b"x"])
    assert names(tmp_path) == ["a" * 255]


def test_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="null byte"):
        write_atomically(tmp_path / "a\0b", [b"x"])
    with pytest.raises(CompileError, match="null byte"):
        read_bytes(tmp_path / "a\0b")


def test_modes(tmp_path: Path) -> None:
    """A new file gets what the umask leaves, an old one keeps what it has."""
    old = os.umask(0o027)
    try:
        write_atomically(tmp_path / "new", [b"x"])
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640
    (tmp_path / "new").chmod(0o600)
    write_atomically(tmp_path / "new", [b"y"])
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o600


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everything")
def test_a_file_that_is_read_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "file").chmod(0o444)
    with pytest.raises(CompileError, match="Permission denied"):
        write_atomically(tmp_path / "file", [b"new"])
    assert (tmp_path / "file").read_bytes() == b"old"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_is_not_readable(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "file").chmod(0)
    with pytest.raises(CompileError, match="Permission denied"):
        read_bytes(tmp_path / "file")


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_cannot_be_read_twice(kind: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CompileError, match="this is a pipe or a device"):
        read_bytes({"pipe": tmp_path / "pipe", "device": Path("/dev/zero")}[kind])


def test_a_link_to_nothing(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(CompileError, match=r"No such file or directory \(it is a link to .*/nowhere\)"):
        read_bytes(tmp_path / "link")


def test_names_of_stdout(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/dev/stdout")
    (tmp_path / "link to link").symlink_to("link")
    (tmp_path / "1").touch()
    for name in ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", f"/proc/{os.getpid()}/fd/1"):
        assert is_stdout(Path(name))
    assert is_stdout(tmp_path / "link to link")
    for path in (Path("/dev/stderr"), Path("/dev/null"), Path("/dev/fd/x"), Path("-"), tmp_path / "1", tmp_path):
        assert not is_stdout(path)


def test_a_descriptor_is_written_where_it_stands(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w+b") as file:
        file.write(b"before ")
        file.flush()
        write_atomically(Path(f"/dev/fd/{file.fileno()}"), [b"after"])
    assert (tmp_path / "file").read_bytes() == b"before after"
    assert names(tmp_path) == ["file"]


def test_the_same_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "soft").symlink_to("file")
    (tmp_path / "hard").hardlink_to(tmp_path / "file")
    for name in ("file", "soft", "hard", "none/../file"):
        assert same(tmp_path / name, tmp_path / "file")
    assert same(tmp_path / "none", tmp_path / "x" / ".." / "none")
    assert not same(tmp_path / "none", tmp_path / "file")


def test_printable() -> None:
    assert printable(Path(os.fsdecode(b"m\xff.onnx"))) == "m\\udcff.onnx"
    assert printable("Größe") == "Größe"


_SLOW = """
import sys, time
from pathlib import Path
from pascalc.files import write_atomically
def chunks():
    yield b"half"
    print("half", flush=True)
    time.sleep(60)
write_atomically(Path(sys.argv[1]), chunks())
"""


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_leaves_nothing(number: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"old")
    command = [sys.executable, "-c", _SLOW, str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"half\n"
        assert len(names(tmp_path)) == 2
        process.send_signal(number)
        assert process.wait(30) == -number
    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out").read_bytes() == b"old"


def test_handlers_of_the_program_stay() -> None:
    def handler(number: int, frame: object) -> None:
        seen.append(number)

    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, handler)
    try:
        with unwinding():
            os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL


def test_another_thread_writes_too(tmp_path: Path) -> None:
    thread = threading.Thread(target=write_atomically, args=(tmp_path / "file", [b"x"]))
    thread.start()
    thread.join()
    assert (tmp_path / "file").read_bytes() == b"x"


def test_files_together_or_none(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(CompileError, match="Is a directory"):
        files.write_together([(tmp_path / "first", [b"1"]), (tmp_path / "folder", [b"2"])])
    assert names(tmp_path) == ["folder"]
