"""The AL metric, its clusters and its plan, against hand-computed values, SciPy, and slow obvious oracles."""

from __future__ import annotations

import itertools
import json
import math
from fractions import Fraction
from pathlib import Path
from random import Random

import kmeans1d
import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from pascalc.al import (
    Histogram,
    LayerPlan,
    Plan,
    agreement,
    assign_levels,
    cluster,
    kurtosis,
    make_plan,
    metric,
    skewness,
)
from pascalc.errors import CompileError


def histogram(*counts: int) -> Histogram:
    return Histogram(np.array(counts, dtype=np.int64))


def expand(hist: Histogram) -> list[int]:
    """The samples that a small histogram counts."""
    return [x for x, times in enumerate(hist.counts.tolist()) for _ in range(times)]


small_counts = st.lists(st.integers(0, 40), min_size=2, max_size=9)
varied = small_counts.filter(lambda c: sum(c) >= 4 and sum(x > 0 for x in c) >= 2).map(lambda c: histogram(*c))


# --- Histogram ---------------------------------------------------------------------------------------------------


def test_histogram_counts_each_level() -> None:
    batch = np.array([[0, 1, 1], [3, 0, 1]], dtype=np.float32)
    hist = Histogram.of(batch, 4)
    assert hist.counts.tolist() == [2, 3, 0, 1, 0]
    assert hist.counts.dtype == np.int64
    assert (hist.levels, hist.samples) == (4, 6)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int64, np.uint64, np.float16, np.float32, np.float64])
def test_histogram_takes_any_number_type(dtype: type) -> None:
    assert Histogram.of(np.arange(9).astype(dtype), 8) == histogram(*[1] * 9)


def test_histogram_of_an_empty_batch_is_zeros() -> None:
    assert Histogram.of(np.zeros((0, 3), dtype=np.float32), 2) == Histogram.zeros(2)


@given(st.lists(st.lists(st.integers(0, 5), max_size=20), max_size=6))
def test_merging_shards_equals_counting_everything(shards: list[list[int]]) -> None:
    total = Histogram.zeros(5)
    for shard in shards:
        total = total + Histogram.of(np.array(shard, dtype=np.int64), 5)
    assert total == Histogram.of(np.array(list(itertools.chain(*shards)), dtype=np.int64), 5)
    assert hash(total) == hash(Histogram(total.counts.copy()))


@given(small_counts, st.randoms(use_true_random=False))
def test_the_order_of_samples_does_not_matter(counts: list[int], random: Random) -> None:
    hist = histogram(*counts)
    samples = expand(hist)
    random.shuffle(samples)
    assert Histogram.of(np.array(samples, dtype=np.int64), hist.levels) == hist


def test_histogram_is_a_read_only_copy() -> None:
    source = np.array([1, 2], dtype=np.int64)
    hist = Histogram(source)
    source[0] = 7
    assert hist.counts.tolist() == [1, 2]
    with pytest.raises(ValueError, match="read-only"):
        hist.counts[0] = 7


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (np.array([1]), "1-D integer array"),
        (np.zeros(257, dtype=np.int64), "1-D integer array"),
        (np.zeros((2, 2), dtype=np.int64), "1-D integer array"),
        (np.array([0.5, 1.0]), "1-D integer array"),
        (np.array([True, False]), "1-D integer array"),
        (np.array([1, -1]), "0..2\\^63-1"),
        (np.array([1, 2**63], dtype=np.uint64), "0..2\\^63-1"),
    ],
)
def test_bad_histograms_are_refused(counts: np.ndarray, message: str) -> None:
    with pytest.raises(CompileError, match=message):
        Histogram(counts)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([0, 5], "0..4; got 0..5"),
        ([-1, 2], "0..4"),
        ([0.0, math.nan], "0..4"),
        ([0.0, math.inf], "0..4"),
        ([0.5, 1.0], "whole numbers"),
        (["a"], "must be numbers"),
    ],
)
def test_bad_spike_counts_are_refused(samples: list[object], message: str) -> None:
    with pytest.raises(CompileError, match=message):
        Histogram.of(np.array(samples), 4)


def test_histograms_of_different_levels_do_not_add() -> None:
    with pytest.raises(CompileError, match="2 and 3 levels"):
        Histogram.zeros(2) + Histogram.zeros(3)


def test_an_overflowing_sum_is_refused() -> None:
    with pytest.raises(CompileError, match="exceeds"):
        histogram(2**63 - 1, 0) + histogram(1, 0)


@pytest.mark.parametrize("levels", [0, 256, -1, True, 4.0])
def test_levels_out_of_range_are_refused(levels: int) -> None:
    with pytest.raises(CompileError, match=r"1\.\.255"):
        Histogram.zeros(levels)


# --- statistics --------------------------------------------------------------------------------------------------

# Counts 0 five times, 1 three times, 3 twice: n = 10, mean 9/10, and about the mean
# sum of squares 12.9, of cubes 14.88, of fourth powers 42.177.
BY_HAND = histogram(5, 3, 0, 2)


def test_values_worked_out_by_hand() -> None:
    variance = 12.9 / 9
    g = 1.488 / variance**1.5
    kurt = 11 * 10 / (9 * 8 * 7) * 42.177 / variance**2
    assert agreement(BY_HAND, layers=2) == pytest.approx(2 / 3)  # two categories reach 10/4, K = 4
    assert skewness(BY_HAND) == pytest.approx(g, rel=1e-14)
    assert kurtosis(BY_HAND) == pytest.approx(kurt, rel=1e-14)
    assert metric(BY_HAND, layers=2) == pytest.approx(2 / 3 * (g**2 + 1) * kurt, rel=1e-14)


def test_two_levels_worked_out_by_hand() -> None:
    # Counts 0, 0, 0, 1: mean 1/4, squares 3/4, fourth powers 3*(1/4)^4 + (3/4)^4 = 84/256; s^2 = 1/4.
    assert kurtosis(histogram(3, 1)) == pytest.approx(5 * 4 / (3 * 2 * 1) * (84 / 256) * 16)
    # cubes: 3*(-1/4)^3 + (3/4)^3 = 24/64; g = 24/64/4 / (1/8) = 3/4
    assert skewness(histogram(3, 1)) == 0.75
    assert skewness(histogram(1, 3)) == -0.75


@given(varied)
def test_skewness_and_kurtosis_agree_with_scipy(hist: Histogram) -> None:
    samples, n = np.array(expand(hist), dtype=np.float64), hist.samples
    g1 = scipy.stats.skew(samples, bias=True)
    assert skewness(hist) == pytest.approx(g1 * ((n - 1) / n) ** 1.5, rel=1e-9, abs=1e-9)
    excess = scipy.stats.kurtosis(samples, bias=False, fisher=True)
    assert kurtosis(hist) == pytest.approx(excess + 3 * (n - 1) ** 2 / ((n - 2) * (n - 3)), rel=1e-9)


@given(varied, st.integers(1, 60))
def test_the_metric_is_the_formula(hist: Histogram, layers: int) -> None:
    samples, n, categories = [Fraction(x) for x in expand(hist)], hist.samples, hist.levels + 1
    mean = sum(samples) / n
    variance = sum((x - mean) ** 2 for x in samples) / (n - 1)
    g_squared = (sum((x - mean) ** 3 for x in samples) / n) ** 2 / variance**3
    kurt = Fraction((n + 1) * n, (n - 1) * (n - 2) * (n - 3)) * sum((x - mean) ** 4 for x in samples) / variance**2
    filled = max(1, sum(h >= Fraction(n, 2 * layers) for h in hist.counts.tolist()))
    expected = (1 - Fraction(filled - 1, categories - 1)) * (g_squared + 1) * kurt
    assert metric(hist, layers) == float(expected)
    assert 0 <= agreement(hist, layers) <= 1
    assert skewness(hist) ** 2 == pytest.approx(float(g_squared))


@given(varied)
def test_reversing_the_levels_flips_only_the_sign_of_the_skewness(hist: Histogram) -> None:
    mirrored = Histogram(hist.counts[::-1])
    assert skewness(mirrored) == -skewness(hist)
    assert kurtosis(mirrored) == kurtosis(hist)
    assert metric(mirrored, 10) == metric(hist, 10)


def test_the_threshold_of_agreement_is_inclusive_and_exact() -> None:
    assert agreement(histogram(19, 1), layers=10) == 0.0  # 1 of 20 is exactly 1/(2*10)
    assert agreement(histogram(20, 1), layers=10) == 1.0  # 1 of 21 is less


def test_agreement_counts_at_least_one_category() -> None:
    assert agreement(histogram(1, 1, 1, 1), layers=1) == 1.0  # no category reaches one half


def test_all_levels_filled_gives_exactly_zero() -> None:
    assert metric(histogram(10, 11, 12, 9), layers=19) == 0.0


@pytest.mark.parametrize("counts", [(7, 0, 0), (0, 0, 7), (1, 0)])
def test_a_layer_that_never_varies_is_infinite(counts: tuple[int, ...]) -> None:
    hist = histogram(*counts)
    assert metric(hist, layers=5) == math.inf
    assert math.isnan(skewness(hist))
    assert math.isnan(kurtosis(hist))


def test_large_histograms_do_not_cancel() -> None:
    # One neuron in 10^9 with count 255: a two-point distribution, whose moments have a closed form.
    n = 10**9
    hist = histogram(n - 1, *[0] * 254, 1)
    assert skewness(hist) == pytest.approx((n - 1) * (n - 2) / n**1.5, rel=1e-15)
    assert kurtosis(hist) == pytest.approx((n + 1) * (n**2 - 3 * n + 3) / ((n - 2) * (n - 3)), rel=1e-15)


def test_empty_and_too_small_histograms_are_refused() -> None:
    for function in (skewness, kurtosis):
        with pytest.raises(CompileError, match="empty"):
            function(Histogram.zeros(4))
    with pytest.raises(CompileError, match="empty"):
        agreement(Histogram.zeros(4), layers=3)
    with pytest.raises(CompileError, match="at least 4 samples"):
        metric(histogram(2, 1), layers=3)
    with pytest.raises(CompileError, match="at least 1"):
        metric(histogram(2, 3), layers=0)


# --- clusters ----------------------------------------------------------------------------------------------------


def squared_distances(values: list[float], groups: list[int]) -> Fraction:
    total = Fraction(0)
    for g in set(groups):
        members = [Fraction(v) for v, h in zip(values, groups, strict=True) if h == g]
        mean = sum(members) / len(members)
        total += sum((v - mean) ** 2 for v in members)
    return total


def best_by_brute_force(values: list[float], k: int) -> Fraction:
    """The least cost over all contiguous splits of the sorted values."""
    ordered = sorted(values)
    costs = []
    for borders in itertools.combinations(range(1, len(ordered)), k - 1):
        costs.append(squared_distances(ordered, [sum(i >= b for b in borders) for i in range(len(ordered))]))
    return min(costs)


some_metrics = st.lists(
    st.one_of(st.sampled_from([0.0, 0.1, 2.5, 1e9 + 0.1]), st.floats(0, 1e12)), min_size=1, max_size=8
)


@given(some_metrics, st.integers(1, 4))
def test_clusters_are_optimal_ordered_and_keep_ties(metrics: list[float], k: int) -> None:
    k = min(k, len(set(metrics)))
    groups = cluster(metrics, k)
    assert set(groups) == set(range(k))
    pairs = sorted(zip(metrics, groups, strict=True))
    assert [g for _, g in pairs] == sorted(groups)
    assert len(set(pairs)) == len(set(metrics))
    assert squared_distances(metrics, groups) == best_by_brute_force(metrics, k)


@given(some_metrics, st.integers(1, 4), st.integers(1, 3))
def test_infinite_metrics_are_the_highest_cluster(metrics: list[float], k: int, dead: int) -> None:
    k = min(k, len(set(metrics)))
    assert cluster(metrics + [math.inf] * dead, k + 1) == cluster(metrics, k) + [k] * dead


@given(st.permutations([0.0, 0.0, 0.0, 1.5, 1.6, 7.0, 40.0, math.inf]))
def test_the_order_of_layers_does_not_matter(metrics: list[float]) -> None:
    expected = {0.0: 0, 1.5: 0, 1.6: 0, 7.0: 0, 40.0: 1, math.inf: 2}
    assert cluster(metrics, 3) == [expected[m] for m in metrics]


def test_many_layers_agree_with_kmeans1d() -> None:
    random = np.random.default_rng(0)
    for k in (2, 3, 5, 8):
        metrics = random.uniform(0, 20, size=60).tolist()
        assert cluster(metrics, k) == kmeans1d.cluster(metrics, k).clusters


def test_ties_stay_together_where_float64_sums_split_them() -> None:
    metrics = [0.0, 0.1, 7.0, *[1e9 + 0.1] * 7]
    assert cluster(metrics, 3) == [0, 0, 1, *[2] * 7]


def test_of_equal_groupings_the_higher_groups_are_the_smaller() -> None:
    assert cluster([0.0, 1.0, 2.0], 2) == [0, 0, 1]


def test_all_infinite_layers_are_one_cluster() -> None:
    assert cluster([math.inf, math.inf], 1) == [0, 0]
    assert cluster([math.inf, 1.0], 1) == [0, 0]


@pytest.mark.parametrize(
    ("metrics", "k", "message"),
    [
        ([1.0, 2.0], 3, "3 clusters were asked for, but the network has 2 QCFS layers"),
        ([0.0, 0.0, 1.0, math.inf], 4, "only 3 different AL metrics"),
        ([1.0], 0, "at least 1"),
        ([1.0, -1.0], 1, "non-negative"),
        ([1.0, math.nan], 1, "non-negative"),
    ],
)
def test_clusters_that_cannot_be_are_refused(metrics: list[float], k: int, message: str) -> None:
    with pytest.raises(CompileError, match=message):
        cluster(metrics, k)


# --- levels ------------------------------------------------------------------------------------------------------


def test_levels_halve_by_default() -> None:
    assert assign_levels([0, 1, 2, 3, 4], [8] * 5) == [8, 4, 2, 1, 1]
    assert assign_levels([0, 1, 1], [5, 5, 4]) == [5, 2, 2]


def test_levels_can_be_given() -> None:
    assert assign_levels([1, 0, 2], [8] * 3, [8, 4, 1]) == [4, 8, 1]


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ([8, 4], "2 levels were given for 3 clusters"),
        ([8, 4, 2, 1], "4 levels were given for 3 clusters"),
        ([1, 4, 8], "must not increase"),
        ([256, 4, 1], r"1\.\.255; got 256"),
        ([4, 2, 0], r"1\.\.255; got 0"),
    ],
)
def test_levels_that_do_not_fit_are_refused(levels: list[int], message: str) -> None:
    with pytest.raises(CompileError, match=message):
        assign_levels([0, 1, 2], [8, 8, 8], levels)


# --- plan --------------------------------------------------------------------------------------------------------


def example_plan() -> Plan:
    return make_plan(
        {"conv1": histogram(9, 8, 7, 9, 8), "conv2": histogram(900, 30, 2, 0, 1), "fc": histogram(50, 0, 0, 0, 0)},
        clusters=3,
        levels=[4, 2, 1],
    )


def test_make_plan() -> None:
    conv1, conv2, fc = example_plan().layers
    assert (conv1.name, conv1.metric, conv1.agreement, conv1.cluster, conv1.levels) == ("conv1", 0.0, 0.0, 0, 4)
    assert (conv2.cluster, conv2.levels, conv2.agreement) == (1, 2, 1.0)
    assert conv2.metric == metric(histogram(900, 30, 2, 0, 1), 3)
    assert (fc.metric, fc.skewness, fc.kurtosis, fc.cluster, fc.levels) == (math.inf, None, None, 2, 1)


def test_make_plan_names_the_layer_it_cannot_judge() -> None:
    with pytest.raises(CompileError, match="at least 4 samples; got 2 \\(node 'conv2'\\)"):
        make_plan({"conv1": histogram(9, 8), "conv2": histogram(1, 1)}, clusters=1)
    with pytest.raises(CompileError, match="no QCFS layer"):
        make_plan({}, clusters=1)


def test_plan_round_trip(tmp_path: Path) -> None:
    plan = example_plan()
    text = plan.to_json()
    assert Plan.from_json(text) == plan
    rows = json.loads(text, parse_constant=pytest.fail)["layers"]
    fields = ["name", "metric", "agreement", "skewness", "kurtosis", "histogram", "cluster", "levels"]
    assert [list(row) for row in rows] == [fields] * 3
    assert (rows[2]["metric"], rows[2]["skewness"], rows[2]["histogram"]) == ("inf", None, [50, 0, 0, 0, 0])
    path = tmp_path / "plan.json"
    path.write_text("\ufeff" + text, encoding="utf-8")  # some editors put a byte order mark first
    assert Plan.read(path) == plan


finite = st.floats(0, allow_infinity=False)


@given(
    st.lists(
        st.builds(
            LayerPlan,
            name=st.text(min_size=1),
            metric=st.none() | st.floats(0),
            agreement=st.none() | st.floats(0, 1),
            skewness=st.none() | st.floats(allow_nan=False, allow_infinity=False),
            kurtosis=st.none() | finite,
            histogram=st.none()
            | st.lists(st.integers(0, 2**63 - 1), min_size=2, max_size=5).map(lambda c: histogram(*c)),
            cluster=st.none() | st.integers(0, 300),
            levels=st.integers(1, 255),
        ),
        min_size=1,
        max_size=4,
        unique_by=lambda layer: layer.name,
    )
)
def test_any_plan_survives_json(layers: list[LayerPlan]) -> None:
    plan = Plan(tuple(layers))
    assert Plan.from_json(plan.to_json()) == plan


def test_a_plan_written_by_hand_needs_only_names_and_levels() -> None:
    plan = Plan.from_json('{"layers": [{"name": "a", "levels": 4}, {"levels": 1, "name": "b", "metric": 3}]}')
    assert plan == Plan((LayerPlan(name="a", levels=4), LayerPlan(name="b", levels=1, metric=3.0)))


def layer(**fields: object) -> str:
    return json.dumps({"layers": [{"name": "a", "levels": 4} | fields]})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("levels: 4", "p.json: The plan is not JSON"),
        ("", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("9" * 5000, "not JSON"),
        ("[]", 'list "layers"'),
        ('{"layers": {}}', 'list "layers"'),
        ('{"layers": []}', "no layers"),
        ('{"layers": [], "version": 1}', "unknown field 'version'"),
        ('{"layers": [4]}', "Layer 0 of the plan must be a JSON object"),
        ('{"layers": [{"levels": 4}]}', 'Layer 0 of the plan needs a "name"'),
        ('{"layers": [{"name": 3, "levels": 4}]}', 'Layer 0 of the plan needs a "name"'),
        (layer(name=""), "needs a name"),
        ('{"layers": [{"name": "a"}]}', "no \"levels\" \\(node 'a'\\)"),
        ('{"layers": [{"name": "a", "levels": 4}, {"name": "a", "levels": 4}]}', "twice \\(node 'a'\\)"),
        ('{"layers": [{"name": "a", "levels": 4, "levels": 8}]}', "repeats the field 'levels'"),
        ('{"layers": [{"name": "a", "levels": 4, "metric": Infinity}]}', 'Infinity, which is not JSON.*"inf"'),
        ('{"layers": [{"name": "a", "levels": 4, "metric": NaN}]}', "NaN, which is not JSON"),
        ('{"layers": [{"name": "a", "levels": 4, "metric": 1e999}]}', 'finite number.*string "inf"'),
        (layer(metric=10**400), "metric of a plan's layer must be a finite number"),
        (layer(metric="infinite"), "metric of a plan's layer must be a finite number"),
        (layer(metric=True), "finite number"),
        (layer(metric=-1), "metric of a plan's layer is out of range"),
        (layer(kurtosis="inf"), "kurtosis of a plan's layer must be a finite number"),
        (layer(agreement=1.5), "agreement of a plan's layer is out of range"),
        (layer(cluster=-1), "cluster of a plan's layer is out of range"),
        (layer(cluster=1.0), "cluster of a plan's layer must be an integer"),
        (layer(histogram=[1, 2.0]), "list of integers"),
        (layer(histogram=[1, 2**63]), "list of integers"),
        (layer(histogram="1,2"), "list of integers"),
        (layer(histogram=[1]), "1-D integer array.*\\(node 'a'\\)"),
        (layer(levels=0), r"1\.\.255; got 0 \(node 'a'\)"),
        (layer(levels=256), r"1\.\.255; got 256"),
        (layer(levels=4.0), r"1\.\.255; got 4.0"),
        (layer(levels=None), r"1\.\.255; got None"),
        (layer(level=4), "unknown field 'level'.*Known fields: name, metric"),
    ],
)
def test_what_is_not_a_plan_is_refused(text: str, message: str) -> None:
    with pytest.raises(CompileError, match=message):
        Plan.from_json(text, file="p.json")


@pytest.mark.parametrize("field", ["levels", "cluster", "metric"])
def test_what_a_plan_is_given_does_not_fill_the_message(field: str) -> None:
    deep = "[" * 900 + "]" * 900
    for row in (deep, f'{{"name": "a", "levels": 4, "{field}": {deep}}}'.replace('"levels": 4, "levels"', '"levels"')):
        with pytest.raises(CompileError) as caught:
            Plan.from_json(f'{{"layers": [{row}]}}')
        assert len(str(caught.value)) < 300


def test_files_that_are_not_plans_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match=r"none\.json: the plan cannot be read: No such file"):
        Plan.read(tmp_path / "none.json")
    binary = tmp_path / "model.onnx"
    binary.write_bytes(b"\x08\xff\xfe\x80")
    with pytest.raises(CompileError, match=r"model\.onnx: this is not a plan: it is no text"):
        Plan.read(binary)


def test_a_float_nan_in_a_layer_is_refused() -> None:
    with pytest.raises(CompileError, match="skewness of a plan's layer is out of range: nan"):
        LayerPlan(name="a", levels=4, skewness=math.nan)
