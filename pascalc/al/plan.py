"""Plans: the levels of every layer and why, as JSON that can be edited by hand."""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from pascalc.al.clusters import assign_levels, cluster
from pascalc.al.metrics import Histogram, agreement, check_levels, kurtosis, metric, skewness
from pascalc.errors import CompileError
from pascalc.files import read_text
from pascalc.metadata import read_json


@dataclass(frozen=True, kw_only=True)
class LayerPlan:
    """The levels of one layer, and what they were decided from.

    Only `name` and `levels` say what to do; the rest is the record of why and may be missing (None).

    Attributes:
        name: the QCFS layer's name in the source model.
        metric: M, non-negative or infinity.
        agreement: A, in [0, 1].
        skewness: g; None for a layer whose counts are all the same.
        kurtosis: kurt, positive; None for a layer whose counts are all the same.
        histogram: the counts that were measured, with the levels that the layer then had.
        cluster: 0 for the lowest metrics.
        levels: the new L, in 1..255.

    Raises:
        CompileError: a value outside its range.
    """

    name: str
    metric: float | None = None
    agreement: float | None = None
    skewness: float | None = None
    kurtosis: float | None = None
    histogram: Histogram | None = None
    cluster: int | None = None
    levels: int

    def __post_init__(self) -> None:
        if not self.name:
            raise CompileError("A layer of a plan needs a name")
        check_levels(self.levels, node=self.name)
        ranges = (
            ("metric", self.metric, 0.0, math.inf),
            ("agreement", self.agreement, 0.0, 1.0),
            ("skewness", self.skewness, -_FLOAT_MAX, _FLOAT_MAX),
            ("kurtosis", self.kurtosis, 0.0, _FLOAT_MAX),
            ("cluster", self.cluster, 0, math.inf),
        )
        for field, value, low, high in ranges:
            if value is not None and not low <= value <= high:
                raise CompileError(f"{field} of a plan's layer is out of range: {value}", node=self.name)


PLAN_KEY = "pascalc.plan"
"""The key of the plan that a network was compiled with, in the file's metadata."""

_FLOAT_MAX = float(np.finfo(np.float64).max)
_INT64_MAX = int(np.iinfo(np.int64).max)
_LAYER_FIELDS = tuple(field.name for field in fields(LayerPlan))


@dataclass(frozen=True)
class Plan:
    """The levels of every layer, as a JSON file that can be read and edited by hand.

    The file is `{"layers": [{"name", "metric", "agreement", "skewness", "kurtosis", "histogram", "cluster",
    "levels"}, ...]}`, one line a layer. `name` and `levels` are required; a field that is missing or null is not known.
    JSON has no infinity, so an infinite metric is the string "inf".

    Raises:
        CompileError: no layer, or two of one name.
    """

    layers: tuple[LayerPlan, ...]

    def __post_init__(self) -> None:
        if not self.layers:
            raise CompileError("The plan has no layers")
        seen: set[str] = set()
        for layer in self.layers:
            if layer.name in seen:
                raise CompileError("The plan names a layer twice", node=layer.name)
            seen.add(layer.name)

    def to_json(self) -> str:
        """The plan as JSON text; `from_json` gives an equal plan back, bit for bit."""
        rows = ",\n".join("  " + json.dumps(_layer_to_json(layer), allow_nan=False) for layer in self.layers)
        return '{"layers": [\n' + rows + "\n]}\n"

    @classmethod
    def from_json(cls, text: str, *, file: object = None) -> Plan:
        """Read a plan from JSON text.

        Args:
            text: the JSON text.
            file: the file that it comes from, for messages.

        Raises:
            CompileError: the text is not JSON, or not a plan: unknown, missing or repeated fields, a value of
                another type or outside its range, a layer named twice.
        """
        try:
            return cls(_layers_from_json(text))
        except CompileError as error:
            raise CompileError(error.message, file=file, node=error.node, hint=error.hint) from None

    @classmethod
    def read(cls, path: str | Path) -> Plan:
        """Read a plan from a UTF-8 JSON file.

        Raises:
            CompileError: the file cannot be read, or is not a plan.
        """
        return cls.from_json(read_text(path, "plan"), file=path)


def make_plan(histograms: Mapping[str, Histogram], clusters: int, levels: Sequence[int] | None = None) -> Plan:
    """The AL plan of a network (PASCAL, section 3.3): metrics, clusters, levels.

    Args:
        histograms: the counts of each QCFS layer, by name, in the network's order.
        clusters: the number of clusters, 1..number of layers.
        levels: the levels of each cluster from lowest to highest metric; default as in `assign_levels`.

    Raises:
        CompileError: no layer; else as `metric`, `cluster` and `assign_levels` raise it.
    """
    if not histograms:
        raise CompileError("The network has no QCFS layer to plan levels for")
    rows = []
    for name, histogram in histograms.items():
        try:
            rows.append((name, histogram, metric(histogram, len(histograms))))
        except CompileError as error:
            raise CompileError(error.message, node=name, hint=error.hint) from None
    groups = cluster([m for _, _, m in rows], clusters)
    assigned = assign_levels(groups, [histogram.levels for _, histogram, _ in rows], levels)
    return Plan(
        tuple(
            LayerPlan(
                name=name,
                metric=m,
                agreement=agreement(histogram, len(rows)),
                skewness=None if m == math.inf else skewness(histogram),
                kurtosis=None if m == math.inf else kurtosis(histogram),
                histogram=histogram,
                cluster=group,
                levels=level,
            )
            for (name, histogram, m), group, level in zip(rows, groups, assigned, strict=True)
        )
    )


def _layer_to_json(layer: LayerPlan) -> dict[str, Any]:
    row = {name: getattr(layer, name) for name in _LAYER_FIELDS}
    if layer.metric == math.inf:
        row["metric"] = "inf"
    if layer.histogram is not None:
        row["histogram"] = layer.histogram.counts.tolist()
    return row


def _layers_from_json(text: str) -> tuple[LayerPlan, ...]:
    try:
        plan = read_json(text, _no_constant)
    except ValueError as error:
        raise CompileError(f"The plan is not JSON: {error}") from None
    if not isinstance(plan, dict) or not isinstance(plan.get("layers"), list):
        raise CompileError('A plan must be a JSON object with a list "layers"')
    _check_fields(plan, allowed=("layers",), node=None)
    return tuple(_layer_from_json(row, index) for index, row in enumerate(plan["layers"]))


def _layer_from_json(row: object, index: int) -> LayerPlan:
    if not isinstance(row, dict):
        raise CompileError(f"Layer {index} of the plan must be a JSON object; got {reprlib.repr(row)}")
    name = row.get("name")
    if not isinstance(name, str):
        raise CompileError(f'Layer {index} of the plan needs a "name", a string')
    _check_fields(row, allowed=_LAYER_FIELDS, node=name)
    if "levels" not in row:
        raise CompileError('A layer of the plan has no "levels"', node=name)
    values = dict(row)
    for field in ("metric", "agreement", "skewness", "kurtosis"):
        if values.get(field) is not None:
            values[field] = _number(field, values[field], name)
    counts = values.get("histogram")
    if counts is not None:
        if not isinstance(counts, list) or any(type(c) is not int or not 0 <= c <= _INT64_MAX for c in counts):
            raise CompileError("histogram of a plan's layer must be a list of integers in 0..2^63-1", node=name)
        try:
            values["histogram"] = Histogram(np.array(counts, dtype=np.int64))
        except CompileError as error:
            raise CompileError(error.message, node=name) from None
    group = values.get("cluster")
    if group is not None and type(group) is not int:
        raise CompileError(f"cluster of a plan's layer must be an integer; got {reprlib.repr(group)}", node=name)
    return LayerPlan(**values)


def _number(field: str, value: object, node: str) -> float:
    """The JSON number as a float. What reads as infinity but is not "inf", such as 1e999, is a slip: refused."""
    if field == "metric" and value == "inf":
        return math.inf
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    hint = 'An infinite metric is written as the string "inf".' if field == "metric" else ""
    raise CompileError(
        f"{field} of a plan's layer must be a finite number; got {reprlib.repr(value)}", node=node, hint=hint
    )


def _check_fields(row: Mapping[str, object], *, allowed: Sequence[str], node: str | None) -> None:
    unknown = [field for field in row if field not in allowed]
    if unknown:
        raise CompileError(
            f"The plan has an unknown field {', '.join(map(repr, unknown))}",
            node=node,
            hint=f"Known fields: {', '.join(allowed)}.",
        )


def _no_constant(constant: str) -> float:
    raise CompileError(
        f"The plan holds {constant}, which is not JSON",
        hint='An infinite metric is written as the string "inf"; leave out what is not known.',
    )
