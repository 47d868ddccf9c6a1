"""Writes what follows from the code: ``python docs/generate.py`` (``make docs``).

operators.md comes from the operator table and the rules, passes.md from the pipelines, neurons.md from the operator
definitions. The map of modules in architecture.md comes from their imports, the reference in cli.md from the command
line itself; there only what stands between two markers is written. ``tests/test_docs.py`` fails where a page is not
what this writes.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

import click

from pascalc import timing
from pascalc.cli import main as command_line
from pascalc.operators import TABLE, UNKNOWN, Apart, Bound, Factor, Linear, Row
from pascalc.ops import DOMAIN, DOMAIN_VERSION, MIN_OPSET, OPERATORS, Pasc
from pascalc.passes import SCHEDULES, Pass
from pascalc.passes.facts import FACTS, INTACT, Fact

FOLDER = Path(__file__).parent
ROOT = FOLDER.parent
#: pascalc/passes and pascalc/runtime are links to the folders at the top.
PACKAGES = ["pascalc", "passes", "runtime", *(f"pascalc/{p.parent.name}" for p in ROOT.glob("pascalc/*/__init__.py"))]
SOURCES = [p for package in PACKAGES if not (ROOT / package).is_symlink() for p in (ROOT / package).glob("*.py")]
_OPERATORS_HEAD = """\
What is known of each standard operator: its row in [operators.py](../pascalc/operators.py), and what its rule in
[timing.py](../pascalc/timing.py) does to a train. The time types are explained in [architecture.md](architecture.md);
[adding-an-operator-rule.md](adding-an-operator-rule.md) shows how to add a row and a rule.

## What happens to a train

The rules are of four kinds:

- *linear*: a train in, a current out; additive constants are divided by the number of steps T. Of two computed tensors
  that are multiplied, one stays a train and the other is held: a `Hold` repeats it, summed over time, in every step.
- *per-step monotone*: computed in every step on spikes, which is exact because their train is a thermometer code.
- *join*: trains of unequal length are aligned to the longest by steps of zeros.
- *shape*: the type of the data input is kept.

An operator declines where the last column applies. It is then computed on the sum over time, as the end of this page
describes.

## The other columns

A cell is empty where nothing is known.

**rounds**: It *adds*, and so rounds a sum; it *multiplies* its inputs with one another, so that errors of both count.

**shift**: A constant that is added to its input, one value or one for each entry of axis 1, is added to its result."""
#: The columns of the operator table with words of their own, in their order, and the words that are left out.
_COLUMNS: list[type[Enum]] = [Bound, Linear, Factor, Apart]
_NOTHING_KNOWN = [UNKNOWN.bound, UNKNOWN.linear, UNKNOWN.factor, UNKNOWN.apart]
_COMPUTED_HEAD = "These have no rule, so trains are summed before them; something else is known of them."
_OPERATORS_TAIL = """\
## Every operator in the table

It also declines if the first axis of its result is not the batch, or if an additive constant that would have to be
divided by T is itself computed by the network. Where none of its inputs is a train, nothing is done: constants stay
constants, and analog tensors stay analog.

## Every other operator

`Softmax`, `Sigmoid`, `LayerNormalization`, a quotient of two trains, an operator of another domain, and anything else
without a row above is computed, not spiking:

1. an `Accumulate` sums each train among its inputs over time, which gives the source's tensor;
2. the operator is applied to the sums, unchanged;
3. its result is analog. A neuron behind it takes it in one step; where it joins a train, it is spread: X/T in each
   step.

This is exact for every operator. What it costs is spikes: `pascalc compile` lists these operators as "Computed, not
spiking", and `--explain` gives the reason for each.

`If`, `Loop` and `Scan` are treated in the same way: trains that their subgraphs use are summed first."""
_PASSES_HEAD = """\
The pipelines stand in [passes/\\_\\_init\\_\\_.py](../passes/__init__.py), one function for each schedule, which takes
the neuron model. The text below
is the passes' own. [writing-a-pass.md](writing-a-pass.md) shows how to add one. `pascalc passes` lists them,
`--dump-ir DIR` writes the network after each, `--stop-after PASS` ends early."""
_ON_DEMAND_HEAD = """\
## On demand

These passes run only where they are asked for, right behind [recognise-qcfs](#recognise-qcfs). Those for `--plan`,
`--al-clusters` and the like change what the network computes; what comes behind them is lossless again, with respect to
the changed network. The one for `--dynamic-batch` changes what the network takes."""
_FACTS_HEAD = f"""\
## Facts

What passes require and provide can be looked up in the graph ([facts.py](../passes/facts.py)). The pipeline does so
behind each pass that provides a fact, and again before each pass that requires it; `{INTACT.name}` is looked up behind
every pass. A fact that does not hold is a fault of pascalc, a `ValueError` that names the pass and what is wrong."""
_NEURONS_HEAD = f"""\
An emitted file carries the body of every operator that it uses as an ONNX function, so that a runtime that inlines
functions runs it without any library. The definitions stand in [pascalc/ops](../pascalc/ops), the NumPy kernels of the
neurons in [runtime/kernels](../runtime/kernels); [adding-a-neuron-model.md](adding-a-neuron-model.md) shows how
to add one.

Version {DOMAIN_VERSION} of the domain. Bodies are written for opset {MIN_OPSET} and later, for any rank and any float
type.

NaN does not fire: where the currents of PascIF are NaN, its train is all zeros, and an unrolled network goes on with
finite numbers. QCFS hands NaN on, as the source network does. MultiThreshold and MultiThresholdIF only compare: NaN
reaches no threshold."""
_NOTE = "<!-- Written by docs/generate.py (make docs). Change the code that it is made from, not this page. -->"


def operators() -> str:
    """The operator table: one row an operator, those with a rule by its kind."""
    kinds: dict[str, list[timing.RuleInfo]] = {}
    for info in timing.RULES.values():
        kinds.setdefault(info.kind, []).append(info)
    parts = ["# Operators", _NOTE, _OPERATORS_HEAD]
    for column in _COLUMNS:
        parts.append(f"**{column.__name__.lower()}**: {_doc(column)}")
        parts.append("\n".join(f"- *{_word(value)}*: {_escaped(value.value)}." for value in column))
    for kind, rules in kinds.items():
        parts.append(f"## {kind.capitalize()}")
        table = [_headings("what happens", "declined if")]
        for info in rules:
            more = [info.more] if info.more else []
            reasons = "; ".join(dict.fromkeys([*_reasons(info.rule.__name__), *more])) or "never"
            table.append(_row(info.operator, info.doc, *_facts_of(info.row), reasons))
        parts.append("\n".join(table))
    parts += ["## Computed, not spiking", _COMPUTED_HEAD]
    others = [_row(name, *_facts_of(row)) for name, row in TABLE.items() if name not in timing.RULES and not row.random]
    parts.append("\n".join([_headings(), *others]))
    at_random = [f"`{name}`" for name, row in TABLE.items() if row.random]
    parts.append(f"{', '.join(at_random)} give something else each time; nothing more is known of them.")
    return _page([*parts, _OPERATORS_TAIL])


def _headings(*own: str) -> str:
    """The head of a table: the columns of all, between those of its ``own``."""
    names = ["operator", *own[:1], "rounds", *(column.__name__.lower() for column in _COLUMNS), "shift", *own[1:]]
    return f"| {' | '.join(names)} |\n|{'---|' * len(names)}"


def _row(name: str, *cells: str) -> str:
    return f"| `{name}` | {' | '.join(map(_cell, cells))} |"


def _facts_of(row: Row) -> list[str]:
    """The cells of a row, in the order of the headings."""
    rounds = ", ".join(name for name in ("adds", "multiplies") if getattr(row, name))
    words = [
        "" if value in _NOTHING_KNOWN else _word(value) for value in (row.bound, row.linear, row.factor, row.apart)
    ]
    return [rounds, *words, "yes" if row.shift else ""]


def _word(value: Enum) -> str:
    return value.name.lower().replace("_", " ")


@cache
def _functions() -> dict[str, ast.FunctionDef]:
    tree = ast.parse(inspect.getsource(timing))
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def _reasons(function: str) -> Iterator[str]:
    """The reasons for which a rule, or a function of the same module that it calls, declines."""
    for node in ast.walk(_functions()[function]):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        if node.func.id == "Declined":
            yield _text(node.args[0])
        elif node.func.id in _functions() and node.func.id != function:
            yield from _reasons(node.func.id)


def _text(message: ast.expr) -> str:
    """The text of a literal; of an f-string with dots for what is filled in."""
    if isinstance(message, ast.JoinedStr):
        return "".join(_text(part) for part in message.values)
    if isinstance(message, ast.FormattedValue):
        return "..."
    if isinstance(message, ast.Constant):
        return str(message.value)
    raise ValueError(f"not a literal: {ast.unparse(message)}")


def passes() -> str:
    """The pipelines, and every pass."""
    lines = ["# Passes", _NOTE, _PASSES_HEAD]
    known: dict[str, type[Pass]] = {}
    for schedule, steps in ((name, passes(Pasc())) for name, passes in SCHEDULES.items()):
        lines.append(f"## Schedule `{schedule}`")
        lines.append("\n".join(f"{i}. [{s.name()}](#{s.name()}): {s.summary()}" for i, s in enumerate(steps, 1)))
        known |= {step.name(): type(step) for step in steps}
    on_demand = {kind.name(): kind for kind in _all_passes() if kind.name() not in known}
    if on_demand:
        lines.append(_ON_DEMAND_HEAD)
        lines.append("\n".join(f"- [{name}](#{name}): {kind.summary()}" for name, kind in on_demand.items()))
    lines += [_FACTS_HEAD, "\n".join(f"- `{fact.name}`: {fact.doc}" for fact in FACTS)]
    for name, kind in (known | on_demand).items():
        module = sys.modules[kind.__module__]
        file = Path(str(module.__file__)).name
        facts = [
            f"File: [{file}](../passes/{file}).",
            f"Requires: {_facts(kind.requires)}. Provides: {_facts(kind.provides)}.",
        ]
        options = [f"`{field.name}`" for field in dataclasses.fields(kind)]
        if options:
            facts.append(f"Options: {', '.join(options)}.")
        lines += [f"## {name}", " ".join(facts), f"**{kind.summary()}**", _doc(module)]
    return _page(lines)


def _all_passes() -> list[type[Pass]]:
    """Every pass in passes/, in the order of the file names."""
    found = []
    for file in sorted((ROOT / "passes").glob("*.py")):
        module = importlib.import_module(f"pascalc.passes.{file.stem}") if file.stem != "__init__" else None
        found += [v for v in vars(module).values() if isinstance(v, type)] if module else []
    return [kind for kind in dict.fromkeys(found) if issubclass(kind, Pass) and kind is not Pass]


def _facts(facts: frozenset[Fact]) -> str:
    return ", ".join(sorted(fact.name for fact in facts)) or "nothing"


def neurons() -> str:
    """The operators of the project's domain."""
    lines = [f"# Operators of the domain `{DOMAIN}`", _NOTE, _NEURONS_HEAD]
    for operator in OPERATORS.values():
        attributes = ["| attribute | type | |", "|---|---|---|"]
        attributes += [f"| `{a.name}` | {a.type} | {_cell(a.doc)} |" for a in operator.attributes]
        tensors = ["| | |", "|---|---|"]
        tensors += [f"| input `{name}` | {_cell(doc)} |" for name, doc in operator.inputs.items()]
        tensors += [f"| output `{name}` | {_cell(doc)} |" for name, doc in operator.outputs.items()]
        body = "\n".join(filter(str.strip, textwrap.dedent(operator.body).splitlines()))
        lines += [
            f"## {operator.name}",
            _escaped(operator.doc),
            "\n".join(tensors),
            "\n".join(attributes),
            f"```text\n{body}\n```",
        ]
    return _page(lines)


def imports() -> dict[str, set[str]]:
    """Who imports whom: a module of pascalc/ or a package as a whole, those that import others above those.

    Raises:
        ValueError: modules import each other in a circle.
    """
    found: dict[str, set[str]] = {}
    for file in SOURCES:
        unit = _unit(file)
        targets = found.setdefault(unit, set())
        for node in ast.walk(ast.parse(file.read_text())):
            names = []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module] if node.module != "pascalc" else [f"pascalc.{a.name}" for a in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            targets |= {name.split(".")[1] for name in names if name.startswith("pascalc.")} - {unit}
    height: dict[str, int] = {}
    while len(height) < len(found):
        ready = {u: ts for u, ts in found.items() if u not in height and ts <= set(height)}
        if not ready:
            raise ValueError(f"modules import each other: {', '.join(sorted(set(found) - set(height)))}")
        height |= {u: 1 + max((height[t] for t in ts), default=0) for u, ts in ready.items()}
    return {unit: found[unit] for unit in sorted(found, key=lambda u: (-height[u], u))}


def _unit(file: Path) -> str:
    first, *rest = file.relative_to(ROOT).with_suffix("").parts
    return first if first != "pascalc" else {"__init__": "pascalc"}.get(rest[0], rest[0])


def architecture() -> str:
    """The page with its map of modules."""
    rows = ["| module | what it is | imports |", "|---|---|---|"]
    for unit, targets in imports().items():
        places = (f"{unit}/__init__.py", f"pascalc/{unit}/__init__.py", f"pascalc/{unit}.py")
        file = next(place for place in places if (ROOT / place).exists())
        doc = ast.get_docstring(ast.parse((ROOT / file).read_text())) or ""
        what = doc.partition("\n\n")[0].removesuffix(".").removesuffix(":")
        rows.append(
            f"| [{unit}](../{file.removesuffix('/__init__.py')}) | {_cell(what)} | {', '.join(sorted(targets))} |"
        )
    return _filled("architecture.md", "modules", "\n".join(rows))


def cli() -> str:
    """The page with its reference of commands."""
    parts = []
    for name, command in sorted(command_line.commands.items()):
        arguments = [str(p.metavar) for p in command.params if isinstance(p, click.Argument)]
        rows = ["| option | |", "|---|---|"]
        rows += [_option(p) for p in command.params if isinstance(p, click.Option)]
        usage = f"`pascalc {' '.join([name, *arguments, '[OPTIONS]'])}`"
        parts += [f"### pascalc {name}", f"{usage}: {_sentence(command.help)}", "\n".join(rows)]
    return _filled("cli.md", "commands", "\n\n".join(parts))


def _option(option: click.Option) -> str:
    kind = option.type
    value = "" if option.is_flag else str(option.metavar)
    if isinstance(kind, click.Choice):
        value = " or ".join(str(choice) for choice in kind.choices)
    names = ", ".join(f"`{name}`" for name in option.opts)
    text = _sentence(option.help)
    if option.required:
        text += " Required."
    if option.show_default and option.default is not None:
        text += f" Default: {option.default}."
    return f"| {names} {value} | {_cell(text)} |".replace("  ", " ")


def _sentence(text: str | None) -> str:
    text = " ".join((text or "").split())
    return text if text.endswith(".") else f"{text}."


def _filled(page: str, marker: str, text: str) -> str:
    """A page with the text between its markers replaced."""
    start, end = f"<!-- generated:{marker} (make docs) -->", f"<!-- end:{marker} -->"
    before, _, rest = (FOLDER / page).read_text().partition(start)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"{page} lacks the markers {start} and {end}")
    return f"{before}{start}\n\n{text}\n\n{end}{after}"


def _doc(thing: Any) -> str:
    """A docstring as Markdown: reStructuredText's literals and references become code."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", inspect.getdoc(thing) or "").replace("``", "`")
    return "\n".join(line if line.startswith("    ") else _escaped(line) for line in text.splitlines())


def _escaped(text: str) -> str:
    """Products, as in a*b, are no emphasis; code stays as it is."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"(?<=[\w)\]])\*(?=[\w(])", r"\*", part) for part in parts[::2]]
    return "`".join(parts)


def _cell(text: str) -> str:
    return _escaped(" ".join(text.replace("``", "`").split())).replace("|", "\\|").replace("<", "&lt;")


def _page(parts: list[str]) -> str:
    return "\n\n".join(parts) + "\n"


PAGES: dict[str, Callable[[], str]] = {
    "operators.md": operators,
    "passes.md": passes,
    "neurons.md": neurons,
    "architecture.md": architecture,
    "cli.md": cli,
}


def main() -> None:
    for name, write in PAGES.items():
        (FOLDER / name).write_text(write())


if __name__ == "__main__":
    main()
