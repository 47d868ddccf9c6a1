"""The kernels against a scalar simulation of the neuron, and the closed form against the three stages."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from pascalc.ops import DOMAIN, PASC_IF
from pascalc.runtime.kernels import common, pasc
from pascalc.runtime.kernels.common import BLOCK, Events
from pascalc.runtime.kernels.pasc import pasc_if, pasc_if_staged
from pascalc.runtime.kernels.qcfs import qcfs
from tests.runtime.networks import adversarial_currents

Array = NDArray[np.float32]


def simulate(currents: Array, threshold: np.float32, levels: int, steps_out: int, phi: float) -> tuple[Array, Events]:
    """One neuron in scalar Python: the train ``[steps_out]`` and its events."""
    gain, unit = np.float32(levels) / threshold, threshold / np.float32(levels)
    count = excitatory = inhibitory = 0
    total = u = np.float32(0)
    for t, current in enumerate(currents):
        total = current if t == 0 else np.float32(total + current)
        u = np.float32(np.float32(total * gain) + np.float32(phi))
        if u >= count + 1:
            count, excitatory = count + 1, excitatory + 1
    for _ in range(max(len(currents), levels) - 1):
        if u >= count + 1:
            count, excitatory = count + 1, excitatory + 1
        elif u < count or np.isnan(u):
            count, inhibitory = count - 1, inhibitory + 1
    train = np.array([unit if t <= count else 0 for t in range(1, steps_out + 1)], np.float32)
    return train, Events(1, excitatory, inhibitory, int((train > 0).sum()))


@pytest.mark.parametrize(("levels", "steps_in"), [(1, 1), (4, 1), (1, 6), (4, 4), (3, 7), (8, 2), (16, 16), (255, 3)])
@pytest.mark.parametrize("phi", [0.5, 0.0, 0.875])
@np.errstate(all="ignore")
def test_staged_kernel_is_the_scalar_simulation(levels: int, steps_in: int, phi: float) -> None:
    threshold = np.float32(1.7)
    x = adversarial_currents(np.random.default_rng(levels), steps_in, (60,), 1.7 / levels)
    options = {"levels": levels, "steps_in": steps_in, "steps_out": levels, "phi": phi}
    train, events = pasc_if_staged(x, np.array(threshold), **options)
    neurons = [simulate(x.reshape(steps_in, 60)[:, n], threshold, levels, levels, phi) for n in range(60)]
    np.testing.assert_array_equal(train.reshape(levels, 60), np.stack([train for train, _ in neurons], axis=1))
    assert events == sum((events for _, events in neurons), Events())


floats = st.floats(width=32, allow_nan=True, allow_infinity=True, allow_subnormal=True)
thresholds = st.one_of(
    st.floats(0.0078125, 128, width=32),
    st.floats(2.0**-149, 2.0**127, width=32, allow_subnormal=True),
)


@st.composite
def neuron_inputs(draw: st.DrawFn) -> tuple[Array, Array, dict[str, Any]]:
    levels = draw(st.one_of(st.integers(1, 16), st.sampled_from([31, 64, 255])))
    steps_in = draw(st.integers(1, 20))
    steps_out = draw(st.one_of(st.just(levels), st.integers(1, 24)))
    channels, batch = draw(st.integers(1, 4)), draw(st.integers(0, 3))
    per_channel = draw(st.booleans())
    threshold = draw(hnp.arrays(np.float32, (channels, 1) if per_channel else (), elements=thresholds))
    unit = float(np.max(threshold)) / levels
    near = st.integers(-40, 40).map(lambda k: float(np.float32(np.clip(k * unit / 8, -3e38, 3e38))))
    x = draw(hnp.arrays(np.float32, (steps_in * batch, channels, 2), elements=st.one_of(floats, near)))
    phi = draw(st.sampled_from([0.5, 0.0, 0.25]))
    return x, threshold, {"levels": levels, "steps_in": steps_in, "steps_out": steps_out, "phi": phi}


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(neuron_inputs())
def test_closed_form_is_the_three_stages(inputs: tuple[Array, Array, dict[str, Any]]) -> None:
    x, threshold, options = inputs
    train, events = pasc_if_staged(x, threshold, **options)
    closed = pasc_if(x, threshold, **options)
    assert closed.tobytes() == train.tobytes()
    assert closed.shape == train.shape == (x.shape[0] // options["steps_in"] * options["steps_out"], *x.shape[1:])
    assert events.neurons == x.size // options["steps_in"]
    assert events.emitted <= min(events.excitatory, options["steps_out"] * events.neurons)


def test_closed_form_is_the_three_stages_on_many_neurons() -> None:
    rng = np.random.default_rng(0)
    for levels, steps_in in [(1, 1), (2, 5), (4, 4), (4, 16), (8, 3), (16, 16)]:
        x = adversarial_currents(rng, steps_in, (40_000,), 2.3 / levels)
        options: dict[str, Any] = {"levels": levels, "steps_in": steps_in, "steps_out": levels, "phi": 0.5}
        closed = pasc_if(x, np.float32([2.3]), **options)
        assert closed.tobytes() == pasc_if_staged(x, np.float32([2.3]), **options)[0].tobytes()


@pytest.mark.parametrize("levels", [1, 3, 4, 16])
def test_spike_count_is_the_qcfs_level(levels: int) -> None:
    x = adversarial_currents(np.random.default_rng(1), 1, (3, 2000), 1.9 / levels)
    threshold = np.random.default_rng(2).uniform(0.5, 3, 2000).astype(np.float32)
    train = pasc_if(x, threshold, levels=levels, steps_in=1, steps_out=levels, phi=0.5)
    spikes = train.reshape(levels, 3, 2000) > 0
    assert (spikes[:-1] >= spikes[1:]).all(), "a thermometer train spikes first"
    y = qcfs(x, threshold, levels=levels, phi=0.5)
    unit = threshold / np.float32(levels)
    np.testing.assert_array_equal(spikes.sum(axis=0).astype(np.float32) * unit, np.nan_to_num(y))
    np.testing.assert_array_equal(np.isnan(y), np.isnan(x))


@pytest.mark.parametrize(
    ("batch", "sample", "threshold_shape"),
    [
        (3, (7, 3, 5), (7, 1, 1)),
        (3, (7, 3, 5), (1, 7, 1, 1)),
        (3, (7, 3, 5), (5,)),
        (2, (11,), (11,)),
        (2, (11,), (1, 11)),
        (BLOCK, (3,), (3,)),  # many samples in a block, and a last block that is not full
        (2 * BLOCK + 5, (1,), ()),
        (3, (2, BLOCK // 2 + 9), (2, 1)),  # a sample in several blocks
        (2, (BLOCK, 1), (BLOCK, 1)),
        (3, (2, BLOCK), (1,)),
        (0, (3, 2), (3, 1)),
        (4, (0, 2), ()),
        (4, (3, 0), (3, 1)),
    ],
)
def test_threshold_broadcasts_over_every_block(
    batch: int, sample: tuple[int, ...], threshold_shape: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(0, 1, (2 * batch, *sample)).astype(np.float32)
    before = x.copy()
    threshold = rng.uniform(0.5, 2, threshold_shape).astype(np.float32)
    total = x[:batch] + x[batch:]
    gain, unit = np.float32(3) / threshold, threshold / np.float32(3)
    u = total * gain + np.float32(0.5)
    expected = np.concatenate([(u >= t) * unit for t in (1, 2, 3)]).astype(np.float32)
    options: dict[str, Any] = {"levels": 3, "steps_in": 2, "steps_out": 3, "phi": 0.5}
    for train in (pasc_if(x, threshold, **options), pasc_if_staged(x, threshold, **options)[0]):
        np.testing.assert_array_equal(train, expected, strict=True)
        assert train.flags.c_contiguous
    y = qcfs(x, threshold, levels=3, phi=0.5)
    np.testing.assert_array_equal(y, np.clip(np.floor(x * gain + np.float32(0.5)), 0, 3) * unit, strict=True)
    np.testing.assert_array_equal(x, before)


def test_steps_are_added_in_order() -> None:
    x = np.float32([1e8, 1, 1, 1, 1, 1, 1, 1, -1e8]).reshape(9, 1)  # in order, the ones are lost
    assert not pasc_if(x, np.float32(1), levels=4, steps_in=9, steps_out=4, phi=0.5).any()
    x = np.float32([1e8, -1e8, 1, 1, 1, 1, 1, 1, 1]).reshape(9, 1)
    assert pasc_if(x, np.float32(1), levels=4, steps_in=9, steps_out=4, phi=0.5).all()


def test_nan_takes_back_the_spikes_before_it() -> None:
    x = np.float32([[5], [5], [np.nan]])
    train, events = pasc_if_staged(x, np.float32(1), levels=2, steps_in=3, steps_out=2, phi=0.5)
    assert not train.any()
    assert (events.excitatory, events.emitted) == (2, 0)


def test_counters_stay_exact_over_thousands_of_steps() -> None:
    options: dict[str, Any] = {"levels": 20_000, "steps_in": 20_000, "steps_out": 20_000, "phi": 0.5}
    x = np.full((20_000, 1), 1 / 20_000, np.float32)
    train, _ = pasc_if_staged(x, np.float32(1), **options)
    assert train.tobytes() == pasc_if(x, np.float32(1), **options).tobytes()


@pytest.mark.parametrize(
    ("x", "threshold", "changes", "message"),
    [
        (np.zeros((4, 2)), np.float32(1), {}, "float32, or both float64, not float64 and float32"),
        (np.zeros((4, 2), np.float32), np.float64(1), {}, "float32, or both float64, not float32 and float64"),
        (np.zeros((4, 2), np.int32), np.int32(1), {}, "float32, or both float64, not int32 and int32"),
        (np.zeros((5, 2), np.float32), np.float32(1), {}, r"X \[5, 2\] does not hold 2 time steps"),
        (np.float32(1), np.float32(1), {}, r"X \[\] does not hold 2 time steps"),
        (np.zeros((4, 3, 2), np.float32), np.ones(3, np.float32), {}, r"\[3\] does not broadcast against .* \[3, 2\]"),
        (np.zeros((4, 3), np.float32), np.ones((2, 1), np.float32), {}, r"\[2, 1\] does not broadcast"),
        (np.zeros((4, 3), np.float32), np.float32(1), {"levels": 0}, "levels, steps_in and steps_out must be"),
        (np.zeros((4, 3), np.float32), np.float32(1), {"steps_in": 0}, "levels, steps_in and steps_out must be"),
        (np.zeros((4, 3), np.float32), np.float32(1), {"steps_out": -1}, "levels, steps_in and steps_out must be"),
    ],
)
def test_wrong_input_is_refused(x: Any, threshold: Any, changes: dict[str, int], message: str) -> None:
    options: dict[str, Any] = {"levels": 4, "steps_in": 2, "steps_out": 4, "phi": 0.5} | changes
    for kernel in (pasc_if, pasc_if_staged):
        with pytest.raises(ValueError, match=message):
            kernel(x, threshold, **options)


def test_networks_of_float64_fire_as_their_bodies_do() -> None:
    """In double precision a membrane a few ulp of float32 below the threshold does not fire."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0, 1, (3, 40)), np.full((3, 2), (0.5 - 2**-40) / 3)], axis=1).reshape(3 * 7, 6)
    threshold = np.float64(1.0)
    options: dict[str, Any] = {"levels": 4, "steps_in": 3, "steps_out": 4, "phi": 0.5}
    graph = helper.make_graph(
        [helper.make_node("PascIF", ["x", "theta"], ["y"], domain=DOMAIN, label="a", **options)],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, ["N", 6])],
        [helper.make_tensor_value_info("y", TensorProto.DOUBLE, None)],
        [numpy_helper.from_array(np.asarray(threshold), "theta")],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, 1)]
    model = helper.make_model(graph, opset_imports=opsets, functions=[PASC_IF.function(18)], ir_version=10)
    expected = ort.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]
    assert expected.any()
    for fired in (pasc_if(x, threshold, **options), pasc_if_staged(x, threshold, **options)[0]):
        np.testing.assert_array_equal(fired, expected, strict=True)


def test_events_add_up() -> None:
    assert Events(1, 2, 3, 4) + Events(10, 20, 30, 40) == Events(11, 22, 33, 44)


def test_blocks_cover_every_neuron_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (common, pasc):
        monkeypatch.setattr(module, "BLOCK", 4)
    x = np.random.default_rng(4).normal(0, 1, (2 * 5, 3, 2)).astype(np.float32)
    threshold = np.float32([[1], [2], [3]])
    options: dict[str, Any] = {"levels": 2, "steps_in": 2, "steps_out": 2, "phi": 0.5}
    small = pasc_if(x, threshold, **options), pasc_if_staged(x, threshold, **options)
    monkeypatch.undo()
    large = pasc_if(x, threshold, **options), pasc_if_staged(x, threshold, **options)
    np.testing.assert_array_equal(small[0], large[0])
    np.testing.assert_array_equal(small[1][0], large[1][0])
    assert small[1][1] == large[1][1]
