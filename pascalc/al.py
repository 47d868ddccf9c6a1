"""AL: which layers can do with fewer levels, decided from histograms of spike counts.

For a layer with counts 0..L (K = L + 1 categories) let H be the histogram of its counts over a calibration
set, n = sum(H), and the count x the random variable. The AL metric of PASCAL (Ramesh & Srinivasan 2025,
section 3.3) is

    M = A * (g^2 + 1) * kurt                                                          (the metric)
    A = 1 - (S - 1) / (K - 1),  S = #{k : H_k >= alpha * n}, at least 1,
        alpha = 1 / (2 * number of layers)                                            (agreement)
    g = m3 / s^3,  m3 = sum((x - mean)^3) / n,  s^2 = sum((x - mean)^2) / (n - 1)     (skewness)
    kurt = (n+1) n / ((n-1)(n-2)(n-3)) * sum((x - mean)^4) / s^4                      (kurtosis)

g is b1 of Joanes & Gill (1998); the kurtosis is the paper's equation 5 as printed, without its usual "-3" term.
A layer whose counts are all the same (dead or saturated) has M = infinity. The higher M, the fewer levels the
layer needs: the metrics are clustered by optimal one-dimensional k-means and each cluster gets its levels.

This follows the paper, not the authors' script, which bins the data's range into 5, sets alpha = 1/bins and takes
the moments of the bin counts.

Everything is computed in exact integer and rational arithmetic. That is cheap, since a histogram has at most
256 categories, and it is needed, since with n = 10^9 and almost all counts 0 central moments taken in float64
cancel. So results depend neither on the order nor on the sharding of the calibration data.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pascalc.errors import CompileError

MAX_LEVELS = 255
"""The most levels L a layer may have; the fewest are 1."""

_INT64_MAX = 2**63 - 1


@dataclass(frozen=True, eq=False)
class Histogram:
    """How often a layer emitted each spike count: exact, additive over batches, shards and machines.

    Stream over a calibration set with `total = total + Histogram.of(batch, levels)`.

    Args:
        counts: integer array of shape [L + 1], L in 1..255; entry k is how many neurons (over all samples and
            positions) had count k. Stored as a read-only int64 copy.

    Raises:
        CompileError: another shape or dtype, a negative entry, or an entry beyond int64.
    """

    counts: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        counts = np.asarray(self.counts)
        if counts.ndim != 1 or not 2 <= counts.size <= MAX_LEVELS + 1 or counts.dtype.kind not in "iu":
            raise CompileError(
                f"A histogram needs a 1-D integer array of L + 1 entries, L in 1..{MAX_LEVELS}; "
                f"got shape {list(counts.shape)} of {counts.dtype}"
            )
        if counts.min() < 0 or counts.max() > _INT64_MAX:
            raise CompileError("A histogram's entries must lie in 0..2^63-1")
        stored = counts.astype(np.int64)
        stored.flags.writeable = False
        object.__setattr__(self, "counts", stored)

    @classmethod
    def zeros(cls, levels: int) -> Histogram:
        """The histogram of no samples for a layer of `levels` levels: the start of a stream.

        Raises:
            CompileError: levels outside 1..255.
        """
        check_levels(levels)
        return cls(np.zeros(levels + 1, dtype=np.int64))

    @classmethod
    def of(cls, spike_counts: npt.NDArray[Any], levels: int) -> Histogram:
        """The histogram of one batch of spike counts.

        Args:
            spike_counts: array of any shape, integer or float dtype, of whole numbers in 0..levels.
            levels: L of the layer.

        Raises:
            CompileError: levels outside 1..255; an entry that is not a whole number in 0..levels.
        """
        check_levels(levels)
        flat = np.asarray(spike_counts).reshape(-1)
        if flat.dtype.kind not in "iuf":
            raise CompileError(f"Spike counts must be numbers; got {flat.dtype}")
        if flat.size and not (flat.min() >= 0 and flat.max() <= levels):  # written so that NaN fails too
            raise CompileError(f"Spike counts must lie in 0..{levels}; got {flat.min()}..{flat.max()}")
        whole = flat.astype(np.int64)
        if not np.array_equal(whole, flat):
            raise CompileError(
                "Spike counts must be whole numbers",
                hint="Divide the activations by theta/L and round before counting.",
            )
        return cls(np.bincount(whole, minlength=levels + 1))

    @property
    def levels(self) -> int:
        """L: the highest count."""
        return self.counts.size - 1

    @property
    def samples(self) -> int:
        """n: the sum of all entries, as a Python integer (it cannot overflow)."""
        return sum(self.counts.tolist())

    def __add__(self, other: Histogram) -> Histogram:
        """The histogram of both sets of samples together.

        Raises:
            CompileError: the two have different L, or an entry would exceed int64.
        """
        if self.levels != other.levels:
            raise CompileError(f"Histograms of {self.levels} and {other.levels} levels cannot be added")
        total = self.counts + other.counts
        if total.min() < 0:  # int64 wraps round; two non-negative numbers give a negative one only so
            raise CompileError("The sum of the histograms exceeds 2^63-1 in an entry")
        return Histogram(total)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and np.array_equal(self.counts, other.counts)

    def __hash__(self) -> int:
        return hash(self.counts.tobytes())


def check_levels(levels: int, *, node: str | None = None) -> None:
    """Raise CompileError unless `levels` is an integer in 1..255."""
    if isinstance(levels, bool) or not isinstance(levels, int) or not 1 <= levels <= MAX_LEVELS:
        raise CompileError(f"Levels must be an integer in 1..{MAX_LEVELS}; got {levels!r}", node=node)


def agreement(histogram: Histogram, layers: int) -> float:
    """A = 1 - (S - 1)/(K - 1): how few of the K = L + 1 categories carry the layer's counts; in [0, 1].

    S is the number of categories with H_k >= n / (2 * layers), at least 1 (PASCAL, section 3.3).

    Args:
        histogram: the layer's counts.
        layers: the number of QCFS layers of the network, which sets the threshold alpha.

    Raises:
        CompileError: the histogram is empty, or layers is below 1.
    """
    return float(_agreement(histogram, layers))


def skewness(histogram: Histogram) -> float:
    """g = m3 / s^3 with s^2 from n - 1: b1 of Joanes & Gill (1998); NaN where all counts are the same.

    Raises:
        CompileError: the histogram is empty.
    """
    moments = _moments(histogram)
    if moments.m2 == 0:
        return math.nan
    return math.copysign(math.sqrt(_squared_skewness(moments)), moments.m3)


def kurtosis(histogram: Histogram) -> float:
    """(n+1) n / ((n-1)(n-2)(n-3)) * sum((x - mean)^4) / s^4 with s^2 from n - 1 (PASCAL, equation 5, as printed).

    NaN where all counts are the same.

    Raises:
        CompileError: fewer than 4 samples.
    """
    moments = _moments(histogram)
    return math.nan if moments.m2 == 0 else float(_kurtosis(moments))


def metric(histogram: Histogram, layers: int) -> float:
    """M = A * (g^2 + 1) * kurt; infinity where all counts are the same. The higher M, the fewer levels.

    g^2 is rational in the counts, so M is computed as an exact fraction and rounded once.

    Args:
        histogram: the layer's counts.
        layers: the number of QCFS layers of the network.

    Raises:
        CompileError: fewer than 4 samples (unless all counts are the same), or layers is below 1.
    """
    moments = _moments(histogram)
    agreed = _agreement(histogram, layers)
    if moments.m2 == 0:
        return math.inf
    return float(agreed * (_squared_skewness(moments) + 1) * _kurtosis(moments))


@dataclass(frozen=True)
class _Moments:
    """n, and the central power sums scaled to integers: m_r = n^(r-1) * sum((x - mean)^r)."""

    n: int
    m2: int
    m3: int
    m4: int


def _moments(histogram: Histogram) -> _Moments:
    n = histogram.samples
    if n == 0:
        raise CompileError("The histogram is empty", hint="Give at least one calibration sample.")
    s1, s2, s3, s4 = (sum(h * x**r for x, h in enumerate(histogram.counts.tolist())) for r in (1, 2, 3, 4))
    return _Moments(
        n=n,
        m2=n * s2 - s1**2,
        m3=n**2 * s3 - 3 * n * s1 * s2 + 2 * s1**3,
        m4=n**3 * s4 - 4 * n**2 * s1 * s3 + 6 * n * s1**2 * s2 - 3 * s1**4,
    )


def _agreement(histogram: Histogram, layers: int) -> Fraction:
    if layers < 1:
        raise CompileError(f"The number of layers must be at least 1; got {layers}")
    n = histogram.samples
    if n == 0:
        raise CompileError("The histogram is empty", hint="Give at least one calibration sample.")
    filled = max(1, sum(2 * layers * h >= n for h in histogram.counts.tolist()))
    return 1 - Fraction(filled - 1, histogram.levels)


def _squared_skewness(m: _Moments) -> Fraction:
    """g^2 = (m3/n^3)^2 / (m2/(n(n-1)))^3 in the scaled sums; the caller excludes zero variance."""
    return Fraction(m.m3**2 * (m.n - 1) ** 3, m.n**3 * m.m2**3)


def _kurtosis(m: _Moments) -> Fraction:
    """(n+1)n/((n-1)(n-2)(n-3)) * (m4/n^3) / (m2/(n(n-1)))^2, shortened; the caller excludes zero variance."""
    if m.n < 4:
        raise CompileError(f"The kurtosis needs at least 4 samples; got {m.n}", hint="Give more calibration samples.")
    return Fraction((m.n + 1) * (m.n - 1) * m.m4, (m.n - 2) * (m.n - 3) * m.m2**2)


def cluster(metrics: Sequence[float], k: int) -> list[int]:
    """Group metrics by optimal 1-D k-means: the k contiguous groups with the least sum of squared distances.

    Groups are numbered from the lowest to the highest mean metric. Equal metrics are always in one group. If k >= 2
    the infinite metrics are a group of their own, the highest: with a finite stand-in for infinity this is the
    optimum as soon as the stand-in is large enough. Of several optimal groupings the one with the smaller higher
    groups is taken, since the higher group loses more levels.

    The squared distances are summed in exact integer arithmetic. Metrics of one network can differ by many orders of
    magnitude, and differences of float64 prefix sums (as in the kmeans1d package) then split equal metrics.

    Args:
        metrics: one AL metric a layer: non-negative or infinity.
        k: the number of groups, at least 1.

    Returns:
        The group 0..k-1 of each metric.

    Raises:
        CompileError: k below 1, more groups than layers or than different metrics, a negative metric or NaN.
    """
    if any(not m >= 0 for m in metrics):
        raise CompileError("AL metrics must be non-negative numbers or infinity")
    if k < 1:
        raise CompileError(f"The number of clusters must be at least 1; got {k}")
    if k > len(metrics):
        raise CompileError(
            f"{k} clusters were asked for, but the network has {len(metrics)} QCFS layers",
            hint=f"Ask for at most {len(metrics)} clusters.",
        )
    distinct = sorted(set(metrics))
    if k > len(distinct):
        raise CompileError(
            f"{k} clusters were asked for, but the layers have only {len(distinct)} different AL metrics",
            hint=f"Ask for at most {len(distinct)} clusters.",
        )
    if k == 1:
        return [0] * len(metrics)
    group = dict.fromkeys(distinct, k - 1)
    finite = [m for m in distinct if m < math.inf]
    groups = _contiguous_groups(finite, [metrics.count(m) for m in finite], k - (len(finite) < len(distinct)))
    group.update(zip(finite, groups, strict=True))
    return [group[m] for m in metrics]


def _contiguous_groups(values: Sequence[float], weights: Sequence[int], k: int) -> list[int]:
    """The optimal group of each of the ascending distinct values, by dynamic programming over the group borders.

    best[j] is the least cost of the first j values in the groups so far; border[g][j] is where the last of g + 1
    groups begins. A float is an integer over a power of two, and a group's cost sum(w x^2) - sum(w x)^2 / sum(w) has
    a denominator of at most the number of layers, so on a common denominator all costs are integers.
    """
    scale = max(v.as_integer_ratio()[1] for v in values)
    numbers = [int(Fraction(v) * scale) for v in values]
    count, first, second = [0], [0], [0]
    for x, w in zip(numbers, weights, strict=True):
        count.append(count[-1] + w)
        first.append(first[-1] + w * x)
        second.append(second[-1] + w * x * x)
    common = math.lcm(*range(1, count[-1] + 1))

    def cost(i: int, j: int) -> int:
        return common * (second[j] - second[i]) - (common // (count[j] - count[i])) * (first[j] - first[i]) ** 2

    n = len(values)
    best = {j: cost(0, j) for j in range(1, n + 1)}
    borders = []
    for g in range(1, k):
        splits = {j: min((best[i] + cost(i, j), -i) for i in range(g, j)) for j in range(g + 1, n + 1)}
        best = {j: total for j, (total, _) in splits.items()}
        borders.append({j: -i for j, (_, i) in splits.items()})
    groups, end = [0] * n, n
    for g in range(k - 1, 0, -1):
        start = borders[g - 1][end]
        groups[start:end] = [g] * (end - start)
        end = start
    return groups


def assign_levels(clusters: Sequence[int], source: Sequence[int], levels: Sequence[int] | None = None) -> list[int]:
    """The levels of each layer: the higher its cluster, the fewer.

    Args:
        clusters: the cluster of each layer, as `cluster` gives them.
        source: the levels L that each layer was trained with.
        levels: the levels of each cluster from lowest to highest metric, not increasing. Default: L, L/2, L/4, ... of
            the layer's own L, rounded down and at least 1.

    Returns:
        The levels of each layer.

    Raises:
        CompileError: a level outside 1..255, levels that increase, or another number of levels than of clusters.
    """
    for level in (*source, *(levels or ())):
        check_levels(level)
    if levels is None:
        return [max(1, level >> c) for c, level in zip(clusters, source, strict=True)]
    count = max(clusters) + 1
    if len(levels) != count:
        raise CompileError(
            f"{len(levels)} levels were given for {count} clusters",
            hint="Give one number of levels a cluster, from the lowest metric to the highest.",
        )
    if any(a < b for a, b in itertools.pairwise(levels)):
        raise CompileError(
            f"Levels must not increase from the lowest metric to the highest; got {', '.join(map(str, levels))}",
            hint="A layer with a higher metric needs fewer levels.",
        )
    return [levels[c] for c in clusters]


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
        try:
            text = Path(path).read_text(encoding="utf-8-sig")
        except OSError as error:
            raise CompileError(f"The plan cannot be read: {error.strerror}", file=path) from None
        except UnicodeDecodeError:
            raise CompileError("The plan is not a JSON text file", file=path) from None
        return cls.from_json(text, file=path)


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
        plan = json.loads(text, object_pairs_hook=_unique_fields, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise CompileError(f"The plan is not JSON: {error}") from None
    if not isinstance(plan, dict) or not isinstance(plan.get("layers"), list):
        raise CompileError('A plan must be a JSON object with a list "layers"')
    _check_fields(plan, allowed=("layers",), node=None)
    return tuple(_layer_from_json(row, index) for index, row in enumerate(plan["layers"]))


def _layer_from_json(row: object, index: int) -> LayerPlan:
    if not isinstance(row, dict):
        raise CompileError(f"Layer {index} of the plan must be a JSON object; got {row!r}")
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
        raise CompileError(f"cluster of a plan's layer must be an integer; got {group!r}", node=name)
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
    raise CompileError(f"{field} of a plan's layer must be a finite number; got {value!r}", node=node, hint=hint)


def _check_fields(row: Mapping[str, object], *, allowed: Sequence[str], node: str | None) -> None:
    unknown = [field for field in row if field not in allowed]
    if unknown:
        raise CompileError(
            f"The plan has an unknown field {', '.join(map(repr, unknown))}",
            node=node,
            hint=f"Known fields: {', '.join(allowed)}.",
        )


def _unique_fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        repeated = next(key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i]))
        raise CompileError(f"The plan repeats the field {repeated!r} in one object")
    return row


def _no_constant(constant: str) -> float:
    raise CompileError(
        f"The plan holds {constant}, which is not JSON",
        hint='An infinite metric is written as the string "inf"; leave out what is not known.',
    )
