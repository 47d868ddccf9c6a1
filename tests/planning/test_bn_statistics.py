"""Level histograms without data: distributions against sampling, exact cases, and what is not known."""

from __future__ import annotations

from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import pytest

from pascalc import pipeline
from pascalc.errors import CompileError
from pascalc.graph import Model
from pascalc.passes import ANALYSIS
from pascalc.planning.bn_statistics import TOTAL, Mixture, estimate, has_statistics, to_histogram
from tests.helpers import loaded
from tests.small_networks import Builder

NORMAL = NormalDist()


def analysed(b: Builder, output: str, rank: int = 4) -> Model:
    model = loaded(b.model({"out": output}, ["N", *[None] * (rank - 1)]))
    pipeline.run(model, ANALYSIS)
    return model


def after_bn(gamma: list[float], beta: list[float], then: Callable[[Builder, str], str]) -> Model:
    """Input -> BatchNormalization of these parameters (epsilon 0) -> ``then``."""
    b = Builder()
    c = len(gamma)
    values = {"gamma": gamma, "beta": beta, "mean": [0.3] * c, "var": [2.0] * c}
    names = [b.constant(f"bn.{key}", v) for key, v in values.items()]
    x = b.node("BatchNormalization", [b.input("x", ["N", c, 4, 4]), *names], "bn", epsilon=0.0)
    return analysed(b, then(b, x))


def probabilities(model: Model, label: str = "act") -> list[float]:
    counts = estimate(model)[label].counts
    assert counts.sum() == TOTAL
    return (counts / TOTAL).tolist()


def test_a_gaussian_by_its_distribution_function() -> None:
    model = after_bn([0.8], [0.2], lambda b, x: b.qcfs(x, "act", 2, 1.5))
    law = NormalDist(0.2, 0.8)
    low, high = law.cdf(0.375), law.cdf(1.125)  # the half points of theta/L = 0.75
    assert probabilities(model) == pytest.approx([low, high - low, 1 - high], abs=1e-6)


def test_channels_count_alike() -> None:
    model = after_bn([1e-6, 1e-6, 1e-6], [-1.0, 0.5, 9.0], lambda b, x: b.qcfs(x, "act", 2, 1.0))
    assert probabilities(model) == pytest.approx([1 / 3] * 3, abs=1e-6)


@pytest.mark.parametrize("window", [2, 3])
def test_maximum_is_the_power_of_the_distribution_function(window: int) -> None:
    def then(b: Builder, x: str) -> str:
        pooled = b.node("MaxPool", [x], "pool", kernel_shape=[window, window])
        return b.qcfs(pooled, "act", 2, 1.5)

    model = after_bn([0.8], [0.2], then)
    law, k = NormalDist(0.2, 0.8), window**2
    low, high = law.cdf(0.375) ** k, law.cdf(1.125) ** k
    assert probabilities(model) == pytest.approx([low, high - low, 1 - high], abs=2e-3)


def test_maximum_of_levels_is_exact() -> None:
    mixture = Mixture(np.array([[0.5, 0.3, 0.2]]), np.array([[0.0, 1.0, 2.0]]), np.zeros((1, 3)))
    assert mixture.maximum(4).weights[0] == pytest.approx([0.5**4, 0.8**4 - 0.5**4, 1 - 0.8**4])


def test_residual_sum_is_a_mixture_about_the_levels() -> None:
    def then(b: Builder, x: str) -> str:
        first = b.qcfs(x, "first", 1, 1.0)
        branch = b.batch_norm(b.conv(first, "conv", (1, 1)), "bn2", 1)
        return b.qcfs(b.node("Add", [branch, first], "add"), "act", 2, 1.0)

    model = after_bn([1.0], [0.0], then)
    bn = {t.name: t for t in model.graph.tensors().values()}
    gamma, beta, var = (float(bn[f"bn2.{key}"].values[0]) for key in ("gamma", "beta", "var"))
    spread = abs(gamma) * (var / (var + 1e-5)) ** 0.5
    fires = 1 - NORMAL.cdf(0.5)
    reaching = [
        (1 - fires) * (1 - NormalDist(beta, spread).cdf(t)) + fires * (1 - NormalDist(beta + 1, spread).cdf(t))
        for t in (0.25, 0.75)
    ]
    assert probabilities(model) == pytest.approx([1 - reaching[0], reaching[0] - reaching[1], reaching[1]], abs=2e-6)


def test_linear_layers_sum_independent_inputs() -> None:
    b = Builder(3)
    x = b.batch_norm(b.input("x", ["N", 8, 3, 3]), "bn", 8)
    x = b.qcfs(x, "first", 3, 1.2)
    x = b.node("Flatten", [x], "flatten")
    weight = b.random("fc.weight", (4, 72), 0.4)
    x = b.node("Gemm", [x, weight, b.constant("fc.bias", [0.5, -0.2, 0.1, 0.3])], "fc", transB=1)
    model = analysed(b, b.qcfs(x, "act", 4, 2.0), rank=2)

    rng = np.random.default_rng(0)
    values = {t.name: np.asarray(t.values) for t in model.graph.tensors().values() if hasattr(t, "values")}
    shape = (1, 8, 1, 1)
    z = values["bn.gamma"].reshape(shape) * rng.normal(size=(20000, 8, 3, 3)) + values["bn.beta"].reshape(shape)
    h = np.clip(np.floor(z * 3 / 1.2 + 0.5), 0, 3) * 0.4
    z = h.reshape(len(h), -1) @ values["fc.weight"].T + values["fc.bias"]
    sampled = np.bincount(np.clip(np.floor(z * 2 + 0.5), 0, 4).astype(int).reshape(-1), minlength=5) / z.size
    assert probabilities(model) == pytest.approx(sampled.tolist(), abs=0.02)


@pytest.mark.parametrize("operator", ["AveragePool", "GlobalAveragePool"])
def test_averages_narrow(operator: str) -> None:
    def then(b: Builder, x: str) -> str:
        attributes = {"kernel_shape": [4, 4]} if operator == "AveragePool" else {}
        return b.qcfs(b.node(operator, [x], "pool", **attributes), "act", 1, 1.0)

    fires = 1 - NormalDist(0.4, 0.8 / 4).cdf(0.5)
    assert probabilities(after_bn([0.8], [0.4], then)) == pytest.approx([1 - fires, fires], abs=1e-6)


def test_mixture_operations_keep_moments() -> None:
    rng = np.random.default_rng(1)
    weights = rng.dirichlet([1, 1, 1], 4)
    x = Mixture(weights, rng.normal(size=(4, 3)), rng.uniform(0, 1, (4, 3)))
    total = x.plus(x)
    assert total.mean == pytest.approx(2 * x.mean)
    assert total.variance == pytest.approx(2 * x.variance)
    many = x
    for _ in range(8):  # more components than are kept
        many = many.plus(x)
    assert many.weights.shape[1] <= 256
    assert many.variance == pytest.approx(9 * x.variance)
    assert x.times(np.asarray(-2.0)).variance == pytest.approx(4 * x.variance)


@pytest.mark.parametrize("total", [1, 7, 1000])
def test_probabilities_become_counts_of_the_stated_total(total: int) -> None:
    rng = np.random.default_rng(total)
    for _ in range(50):
        p = rng.dirichlet([0.3] * 6)
        counts = to_histogram(p, total).counts
        assert counts.sum() == total
        assert np.abs(counts - p * total).max() < 1


def test_what_is_not_known_is_said() -> None:
    b = Builder()
    x = b.qcfs(b.conv(b.input("x", ["N", 2, 4, 4]), "conv", (2, 3)), "early", 4)
    model = analysed(b, b.qcfs(b.batch_norm(x, "bn", 3), "late", 4))
    assert has_statistics(model)
    with pytest.raises(CompileError, match=r"do not reach this activation \(node 'early'\).*--calib"):
        estimate(model)
