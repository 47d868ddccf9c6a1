"""The algebra of QCFS alone: steps in, theta, L and phi out."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pascalc.qcfs_algebra import Bounded, Broken, NotQcfs, Step, composed, readings, solve

factors = st.lists(st.floats(0.01, 100), min_size=0, max_size=4)


def step(kind: str, value: Any) -> Step:
    return Step(kind, np.asarray(value, np.float64))


def applied(steps: list[Step], x: Any) -> Any:
    for s in steps:
        x = {"scale": x * s.value, "shift": x + s.value, "low": np.maximum(x, s.value), "high": np.minimum(x, s.value)}[
            s.kind
        ]
    return x


@st.composite
def steps_of_qcfs(draw: st.DrawFn) -> tuple[list[Step], list[Step], Any, int, float]:
    """The steps before and behind a Floor that make a QCFS: its scales in several factors, its shift and its bounds
    wherever they may stand."""
    theta = draw(st.floats(0.05, 50) | st.lists(st.floats(0.05, 50), min_size=3, max_size=3))
    theta = np.asarray(theta)
    # scales of channels may round a shift differently, and only 1/2 is told in spite of that
    levels, phi = draw(st.integers(1, 255)), draw(st.floats(0.01, 0.99)) if theta.ndim == 0 else 0.5
    before, behind = ([step("scale", f) for f in draw(factors)] for _ in range(2))
    before.append(step("scale", levels / theta / prod([s.value for s in before])))
    behind.append(step("scale", theta / levels / prod([s.value for s in behind])))
    place = draw(st.integers(0, len(before)))
    before.insert(place, step("shift", phi / prod([s.value for s in before[place:]])))
    for bound, count in (("low", 0.0), ("high", float(levels))):
        steps, offset = (before, phi) if draw(st.booleans()) else (behind, 0.0)
        place = draw(st.integers(0, len(steps)))
        # what has this value at this place comes to the count at the Floor
        value = np.asarray(count + offset if steps is before else count)
        rest = steps[place:] if steps is before else steps[:place]
        for s in reversed(rest) if steps is before else rest:
            if steps is before:
                value = value / s.value if s.kind == "scale" else value - s.value if s.kind == "shift" else value
            elif s.kind == "scale":
                value = value * s.value
        steps.insert(place, step(bound, value))
    return before, behind, theta, levels, phi


@settings(max_examples=300, deadline=None, derandomize=True)
@given(steps_of_qcfs())
def test_any_steps_of_a_qcfs_give_it_back(drawn: tuple[list[Step], list[Step], Any, int, float]) -> None:
    before, behind, theta, levels, phi = drawn
    reading = solve(composed(before), composed(behind), is_floor=True)
    assert reading.levels == levels
    assert reading.phi == pytest.approx(phi, abs=2e-6)
    assert reading.rank[0] is False
    np.testing.assert_allclose(np.broadcast_to(reading.threshold, theta.shape), theta, rtol=1e-9)
    np.testing.assert_allclose(np.broadcast_to(reading.height, theta.shape), theta / levels, rtol=1e-9)


steps = st.lists(
    st.one_of(
        st.builds(step, st.just("scale"), st.floats(0.01, 100)),
        st.builds(step, st.sampled_from(["shift", "low", "high"]), st.floats(-100, 100)),
    ),
    max_size=8,
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(steps, st.lists(st.floats(-1000, 1000), min_size=5, max_size=5))
def test_steps_compose_to_one_bounded_map(given_steps: list[Step], x: list[float]) -> None:
    whole = composed(given_steps)
    found = np.minimum(np.maximum(whole.scale * np.asarray(x) + whole.shift, whole.low), whole.high)
    wanted = applied(given_steps, np.asarray(x))
    size = 1 + max(abs(float(whole.scale)) * 1000, abs(float(whole.shift)), float(np.max(np.abs(wanted))))
    # a low bound above a high one: the later one wins in steps, and the high one in the map
    if whole.low <= whole.high:
        np.testing.assert_allclose(found, wanted, atol=1e-9 * size)


SCALED = [step("scale", 2.0), step("shift", 0.5)]
BOUNDED = [step("low", 0.0), step("high", 4.0)]


@pytest.mark.parametrize(
    ("before", "behind", "why"),
    [
        (SCALED, BOUNDED[1:], "nothing bounds it below"),
        (SCALED, BOUNDED[:1], "nothing bounds it above"),
        (SCALED, [*BOUNDED, step("shift", 1.0)], "a constant is added behind the Floor"),
        ([step("shift", 1.5)], BOUNDED, r"not one number in \[0, 1\)"),
        (SCALED, [step("low", 1.0), BOUNDED[1]], "its lowest level is not zero"),
        (SCALED, [BOUNDED[0], step("high", 256.0)], "256 levels, more than 255"),
        (SCALED, [BOUNDED[0], step("high", [3.0, 4.0])], "different numbers of levels"),
    ],
)
def test_what_is_no_qcfs_says_why(before: list[Step], behind: list[Step], why: str) -> None:
    with pytest.raises(NotQcfs, match=why):
        solve(composed(before), composed(behind), is_floor=True)


@pytest.mark.parametrize(
    ("before", "behind", "why"),
    [
        (SCALED, [BOUNDED[0], step("high", 3.5)], "number of levels, 3.5, is not an integer"),
        (SCALED, [BOUNDED[0], step("high", 0.0)], "no level above zero"),
        ([step("scale", -2.0), SCALED[1]], BOUNDED, "zero, negative or NaN"),
        (SCALED, [step("low", np.nan), BOUNDED[1]], "a bound is NaN"),
    ],
)
def test_what_is_meant_to_be_qcfs_and_broken_says_why(before: list[Step], behind: list[Step], why: str) -> None:
    with pytest.raises(Broken, match=why):
        solve(composed(before), composed(behind), is_floor=True)


def test_the_longest_cut_with_nothing_left_comes_first() -> None:
    before = [[step("shift", 0.5)], [step("scale", 4.0)], [step("low", 0.0)]]
    behind = [[], [step("high", 4.0)], [step("scale", 0.25)], [step("scale", 3.0)]]
    found = list(readings(before, behind, True, np.float32))
    assert [(r.ahead, r.behind) for r in found if not r.rank[0]] == [(2, 2)]
    assert found[0].length == 4
    assert float(found[0].threshold) == 1
    # what is left behind the neuron is multiplied there
    assert {float(r.rest) for r in found[1:]} == {3.0, 4.0}


def test_a_level_that_rounding_never_reaches_is_no_level() -> None:
    """In float32 0.1f * 30 is below 3: with no shift the third level is out of reach."""
    bound = float(np.float32(0.1))
    before = [[step("scale", 30.0)], [step("low", 0.0), step("high", bound * (1 - 2**-22))]]
    with pytest.raises(NotQcfs, match="rounding keeps its highest level at 2, below the 3 it means"):
        list(readings(before, [[]], True, np.float32))
    with pytest.raises(NotQcfs, match="does not compute with real numbers"):
        list(readings(before, [[]], True, np.int64))


def test_identity_changes_nothing() -> None:
    start = Bounded.identity()
    assert (float(start.scale), float(start.shift), float(start.low), float(start.high)) == (1, 0, -np.inf, np.inf)
