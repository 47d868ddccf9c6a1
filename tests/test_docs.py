"""The documentation: its snippets run, its generated pages are fresh, its links lead somewhere, nothing is left out."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from pascalc.cli import main
from pascalc.planning.correction import METHODS
from pascalc.verifier.record import LayerCheck, Root, Verification
from tests.small_networks import images, residual_network, write

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
NEEDS_TORCH = ("training.md",)


def _names(page: Path) -> str:
    return page.name


def _has_snippets(page: Path) -> bool:
    return re.search(r"^(```python|\$ pascalc )", page.read_text(), flags=re.MULTILINE) is not None


@pytest.mark.parametrize("page", [p for p in PAGES if _has_snippets(p)], ids=_names)
def test_snippets_run(page: Path) -> None:
    if page.name in NEEDS_TORCH:
        pytest.importorskip("torch")
    command = [sys.executable, "-W", "error", str(DOCS / "run_snippets.py"), str(page)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@cache
def _generate() -> Any:
    """docs/generate.py as a module."""
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_pages_are_fresh() -> None:
    pages = _generate().PAGES
    assert not [name for name, write in pages.items() if (DOCS / name).read_text() != write()], "run `make docs`"


def _anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h).strip().lower().replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=_names)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        goal = (DOCS / file).resolve() if file else page
        assert goal.exists(), target
        assert ROOT in goal.parents, target
        if anchor:
            assert anchor in _anchors(goal), target


def test_the_index_has_every_page() -> None:
    linked = set(re.findall(r"\]\(([\w-]+\.md)\)", (DOCS / "README.md").read_text()))
    assert linked == {p.name for p in PAGES} - {"README.md"}


def test_imports_go_in_one_direction() -> None:
    imports = _generate().imports()  # raises where they go in a circle
    assert "runtime" not in imports["passes"]
    assert "passes" not in imports["runtime"]
    assert {"passes", "runtime", "pipeline"}.isdisjoint(imports["ops"] | imports["graph"] | imports["timing"])


def test_only_train_imports_torch() -> None:
    pattern = re.compile(r"^\s*(import|from) torch\b", flags=re.MULTILINE)
    assert {p.parent.name for p in _generate().SOURCES if pattern.search(p.read_text())} == {"train"}


def _keys(values: Any) -> set[str]:
    """The keys of all objects in a JSON report, but for those that are labels, files or names of the user's network."""
    if isinstance(values, list):
        return set().union(*map(_keys, values))
    if not isinstance(values, dict):
        return set()
    named = {"metadata", "source_levels", "levels", "requantised"}
    return {*values, *(key for k, v in values.items() if k not in named for key in _keys(v))}


def test_every_field_of_the_json_is_on_the_page(tmp_path: Path) -> None:
    source = write(residual_network(), tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", x=images(8), y=np.zeros(8, np.int64))
    levels = ["--al-clusters", "1", "--al-levels", "1", "--calib", f"{tmp_path / 'd.npz'}", "--correct"]
    snn, data = str(tmp_path / "s.onnx"), ["--data", str(tmp_path / "d.npz")]
    fails = [sys.executable, "-c", "import onnx, sys; sys.exit('Conv' in str(onnx.load(sys.argv[1])))"]
    pages = {
        "cli.md": [
            ["compile", str(source), "-o", snn, *levels],
            ["plan", str(source), *levels],
            ["inspect", snn],
            ["eval", snn, *data],
            ["passes"],
            ["reduce", str(source), "-o", str(tmp_path / "r.onnx"), "--fails", shlex.join(fails)],
        ],
        "report.md": [["report", snn, *data]],
    }
    for page, commands in pages.items():
        text = (DOCS / page).read_text()
        for command in commands:
            done = CliRunner().invoke(main, [*command, "--json", "-"])
            assert done.exit_code == 0, done.output
            # names of schedules and of methods are values, though they are keys
            missing = _keys(json.loads(done.stdout)) - {"unrolled", "collapsed", "none", *METHODS}
            assert not [key for key in sorted(missing) if f"`{key}`" not in text], command[0]


def test_every_field_of_the_verification_is_on_the_page() -> None:
    page = (DOCS / "verification.md").read_text()
    fields = {f.name for kind in (Verification, LayerCheck, Root) for f in dataclasses.fields(kind)}
    missing = [f for f in sorted(fields | {"equivalent", "first_difference"}) if f"`{f}`" not in page]
    assert not missing
