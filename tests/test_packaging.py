"""What is installed: every package folder, under the package's name only."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

import pascalc.passes
import pascalc.runtime

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PROJECT["tool"]["setuptools"]


def package_folders() -> set[str]:
    """Every folder with an __init__.py that belongs to the package."""
    found = set()
    for name, folder in {"pascalc": "pascalc", "pascalc.passes": "passes", "pascalc.runtime": "runtime"}.items():
        for init in (ROOT / folder).rglob("__init__.py"):
            parts = init.parent.relative_to(ROOT / folder).parts
            if name == "pascalc" and parts[:1] in (("passes",), ("runtime",)):
                continue  # the links, for type checkers
            found.add(".".join([name, *parts]))
    return found


def test_package_list_equals_the_folders() -> None:
    """An unlisted package would be left out of the wheel without a word."""
    assert sorted(SETUPTOOLS["packages"]) == sorted(package_folders())


def test_every_folder_with_modules_is_a_package() -> None:
    for folder in ("pascalc", "passes", "runtime"):
        for module in (ROOT / folder).rglob("*.py"):
            assert (module.parent / "__init__.py").exists(), module


def test_links_for_type_checkers_are_relative() -> None:
    for name in ("passes", "runtime"):
        link = ROOT / "pascalc" / name
        assert link.is_symlink()
        assert link.readlink() == Path("..") / name


def test_entry_point_exists() -> None:
    module, _, function = PROJECT["project"]["scripts"]["pascalc"].partition(":")
    assert find_spec(module) is not None
    assert callable(getattr(__import__(module, fromlist=[function]), function))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The names in a wheel of the tree, built without the network, from a copy so that the tree stays clean."""
    pytest.importorskip("setuptools", minversion="77")
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "tree"
    files = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    for name in filter(None, files.split("\0")):
        source, target = ROOT / name, copy / name
        if name.split("/")[0] in ("pascalc", "passes", "runtime") or "/" not in name:
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_symlink():
                target.symlink_to(source.readlink())
            elif source.exists():
                target.write_bytes(source.read_bytes())
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-q"]
    done = subprocess.run([*build, "-w", str(folder), str(copy)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("pascalc-*.whl")
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def test_wheel_has_every_module_once(wheel: list[str]) -> None:
    wanted = set()
    for folder, place in {"pascalc": "pascalc", "passes": "pascalc/passes", "runtime": "pascalc/runtime"}.items():
        for module in (ROOT / folder).rglob("*.py"):
            parts = module.relative_to(ROOT / folder)
            if folder != "pascalc" or parts.parts[0] not in ("passes", "runtime"):
                wanted.add(f"{place}/{parts.as_posix()}")
    assert sorted(n for n in wheel if n.endswith(".py")) == sorted(wanted)


def test_wheel_has_nothing_but_the_package(wheel: list[str]) -> None:
    """No top-level passes, runtime or tests; the type marker and the licence are there."""
    assert {name.split("/")[0].partition("-")[0] for name in wheel} == {"pascalc"}
    assert "pascalc/py.typed" in wheel
    assert any(name.endswith("LICENSE") for name in wheel)


def test_installed_names() -> None:
    """passes and runtime exist inside the package only, also in an editable install."""
    names = "passes", "runtime"
    code = f"import importlib.util as u; print([n for n in {names!r} if u.find_spec(n)])"
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd="/", capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    for module, folder in ((pascalc.passes, "passes"), (pascalc.runtime, "runtime")):
        assert module.__file__ is not None
        assert Path(module.__file__).resolve().parent.name == folder
