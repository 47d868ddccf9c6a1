"""Who imports whom: the arrows of docs and design, and no others."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]

#: Packages whose modules may be imported by the modules of a package; passes and runtime never import each other.
FORBIDDEN = {
    "pascalc.passes": ("pascalc.runtime", "pascalc.train"),
    "pascalc.runtime": ("pascalc.passes", "pascalc.train", "pascalc.graph", "pascalc.modelfile"),
    "pascalc.ops": ("pascalc.passes", "pascalc.runtime", "pascalc.train", "pascalc.graph", "pascalc.modelfile"),
    "pascalc.graph": ("pascalc.passes", "pascalc.runtime", "pascalc.train", "pascalc.pipeline"),
    "pascalc.al": ("pascalc.passes", "pascalc.runtime", "pascalc.train", "pascalc.graph", "pascalc.planning"),
    "pascalc.errors": ("pascalc",),
}


def modules() -> dict[str, Path]:
    """Every module of the package by its name, the linked folders under their real place."""
    folders = {"pascalc": ROOT / "pascalc", "pascalc.passes": ROOT / "passes", "pascalc.runtime": ROOT / "runtime"}
    found = {}
    for package, folder in folders.items():
        for path in folder.rglob("*.py"):
            if package == "pascalc" and path.relative_to(folder).parts[0] in ("passes", "runtime"):
                continue
            parts = [p for p in path.relative_to(folder).with_suffix("").parts if p != "__init__"]
            found[".".join([package, *parts])] = path
    return found


def imports(path: Path) -> set[str]:
    """What a module imports, wherever in the file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            for alias in node.names:  # a module of a package, or a name in a module
                submodule = f"{node.module}.{alias.name}"
                names.add(submodule if submodule in MODULES else node.module or "")
    return names


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


MODULES = modules()
IMPORTS = {name: imports(path) for name, path in MODULES.items()}


def test_there_are_modules_in_every_package() -> None:
    for package in ("pascalc.passes", "pascalc.runtime", "pascalc.ops", "pascalc.train"):
        assert sum(within(name, package) for name in MODULES) > 1


def test_nobody_imports_against_the_arrows() -> None:
    for package, others in FORBIDDEN.items():
        for module in (m for m in MODULES if within(m, package)):
            for other in others:
                assert not [n for n in IMPORTS[module] if within(n, other)], f"{module} imports {other}"


def test_only_train_imports_torch() -> None:
    users = {m for m, names in IMPORTS.items() if any(within(n, "torch") for n in names)}
    assert users
    assert all(within(m, "pascalc.train") for m in users)


def test_nothing_but_the_command_line_imports_click() -> None:
    users = {m for m, names in IMPORTS.items() if any(within(n, "click") for n in names)}
    assert all(m.startswith("pascalc.cli") or m == "pascalc.__main__" for m in users)


def test_imports_have_no_cycle() -> None:
    edges = {m: {n for n in names if n in MODULES and n != m} for m, names in IMPORTS.items()}
    while edges:
        free = {m for m, needs in edges.items() if not needs & set(edges)}
        assert free, f"these import each other: {sorted(edges)}"
        edges = {m: needs for m, needs in edges.items() if m not in free}


def test_top_level_names_are_imported_through_the_package() -> None:
    for module, names in IMPORTS.items():
        assert not [n for n in names if n.split(".")[0] in ("passes", "runtime")], module
