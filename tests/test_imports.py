"""Who imports whom: the arrows of docs and design, and no others."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]

#: What the modules of each package, and each module by itself, may import of the others, from the bottom up. A line of
#: this list is a decision: passes and runtime do not know each other, ops and al know no graphs.
ALLOWED = {
    "codes": "",
    "errors": "",
    "filekinds": "",
    "hints": "",
    "metadata": "",
    "operators": "",
    "protos": "",
    "rates": "",
    "tables": "",
    "version": "",
    "files": "errors",
    "ops": "codes errors",
    "al": "errors files metadata ops",
    "energy": "errors ops rates",
    "graph": "errors ops protos",
    "ownops": "errors ops protos",
    "runtime": "errors ops",
    "activations": "errors graph ops",
    "answers": "graph",
    "constants": "graph operators",
    "data": "errors filekinds files graph hints",
    "entry": "al errors",
    "limits": "errors graph protos",
    "linear": "errors graph",
    "observed": "runtime",
    "probes": "errors graph ops protos runtime",
    "quantisers": "errors graph protos",
    "qcfs_algebra": "ops",
    "train": "al errors files ops runtime tables",
    "functions": "errors limits observed ops protos",
    "opsets": "errors graph limits ops protos",
    "stream": "data errors files graph",
    "timing": "activations codes graph linear operators ops",
    "folding": "stream",
    "modelfile": "errors filekinds files functions graph limits ops opsets ownops protos quantisers",
    "reducer": "errors files modelfile protos",
    "rounding": "graph modelfile operators probes runtime",
    "source": "graph modelfile",
    "workers": "errors folding stream",
    "step_functions": "errors graph modelfile rounding runtime",
    "passes": (
        "activations al codes constants errors graph linear modelfile observed operators ops protos qcfs_algebra "
        "step_functions timing"
    ),
    "pipeline": "errors files graph modelfile passes",
    "neurons": "activations errors graph ops passes pipeline",
    "network": "energy errors graph linear neurons ops timing",
    "verifier": (
        "activations answers codes data errors files folding graph linear metadata modelfile neurons operators "
        "ops passes pipeline probes rounding runtime stream tables timing workers"
    ),
    "evaluator": "answers errors folding graph modelfile neurons rates rounding runtime stream workers",
    "inspector": "graph metadata modelfile network neurons passes pipeline",
    "planning": (
        "activations al answers energy errors folding graph linear modelfile network neurons passes pipeline "
        "rates rounding runtime source stream tables workers"
    ),
    "reporter": (
        "al energy errors folding graph modelfile network neurons passes pipeline rates rounding "
        "runtime stream tables version workers"
    ),
    "export": "errors files graph linear modelfile network neurons ops runtime stream version",
    "compiler": (
        "al errors files graph inspector metadata modelfile neurons ops passes pipeline planning source version"
    ),
    "cli": (
        "al compiler errors evaluator export files graph inspector modelfile ops passes planning reducer "
        "reporter source tables verifier version"
    ),
    "pascalc": "compiler errors evaluator inspector planning reporter verifier version",
    "__main__": "cli",
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


def unit(module: str) -> str:
    """The package, or the module right below pascalc, that a module belongs to."""
    return module.split(".")[1] if "." in module else module


def test_imports_are_those_that_are_allowed() -> None:
    assert {unit(m) for m in MODULES} == set(ALLOWED)
    for module, names in IMPORTS.items():
        own = {unit(n) for n in names if n in MODULES} - {unit(module)}
        assert own <= set(ALLOWED[unit(module)].split()), f"{module} imports {own - set(ALLOWED[unit(module)].split())}"


def test_what_is_allowed_is_used() -> None:
    for package, others in ALLOWED.items():
        used = {unit(n) for m, names in IMPORTS.items() if unit(m) == package for n in names if n in MODULES}
        assert set(others.split()) <= used, f"{package} does not import {set(others.split()) - used}"


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
