"""Which layers get how many levels: metrics in clusters, clusters to levels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from fractions import Fraction

from pascalc.al.metrics import check_levels
from pascalc.errors import CompileError


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
