"""Effective time steps and energy, against hand-computed values and the figures of the PASCAL paper."""

from __future__ import annotations

import math
import runpy
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pascalc.energy import (
    ASSUMED_SPIKE_RATE,
    FP32,
    INT8,
    Energy,
    Layer,
    OperationEnergy,
    effective_steps_full,
    effective_steps_paper,
    energy_full,
    energy_paper,
    mean_spike_rate,
    neurons_per_accumulate,
    normalised_steps_paper,
    relative_cost,
)
from pascalc.errors import CompileError
from pascalc.ops import Pasc

PAPER_TABLES = Path(__file__).parents[1] / "benchmarks" / "paper_tables" / "paper_tables.py"

# Inputs of one output, layer by layer: 13 convolutions, then three linear layers.
VGG16_CONVOLUTIONS = [27, 576, 576, 1152, 1152, 2304, 2304, 2304, 4608, 4608, 4608, 4608, 4608]
VGG16_CIFAR = [*VGG16_CONVOLUTIONS, 512, 4096, 4096]
VGG16_IMAGENET = [*VGG16_CONVOLUTIONS, 25088, 4096, 4096]


def make(fan_in: int = 10, levels: int = 4, steps_in: int | None = None, rate: float | None = 0.75) -> Layer:
    steps = levels if steps_in is None else steps_in
    return Layer("x", fan_in, macs=fan_in * 6, neurons=6, levels=levels, steps_in=steps, spike_rate=rate)


# --- operation counts --------------------------------------------------------------------------------------------


@given(st.integers(1, 255))
def test_uniform_levels_give_the_papers_counts(levels: int) -> None:
    integrate, correct, emit = Pasc.operations(levels, levels)  # a membrane and a counter update a step; then one
    assert integrate / 2 + correct / 2 + emit == 3 * levels - 1
    assert integrate / 2 + correct / 2 == 2 * levels - 1
    assert integrate + correct + emit == 5 * levels - 2


@pytest.mark.parametrize(
    ("levels", "steps_in", "expected"),
    [(2, 8, (16, 14, 2)), (8, 2, (4, 14, 8)), (1, 1, (2, 0, 1)), (4, 1, (2, 6, 4))],
)
def test_mixed_levels_count_the_steps_of_each_stage(levels: int, steps_in: int, expected: tuple[int, ...]) -> None:
    assert Pasc.operations(levels, steps_in) == expected


# --- effective time steps ----------------------------------------------------------------------------------------


def test_one_layer_worked_out_by_hand() -> None:
    # fan-in 10, SpikeRate 3/4, L = 4: r' = 2/15, r_E = (1 + 18*2/15) / (1 + 4*2/15) = 51/23
    assert neurons_per_accumulate(10, 0.75) == pytest.approx(2 / 15)
    assert relative_cost(10, 4, 0.75, 18) == pytest.approx(51 / 23)
    assert effective_steps_paper([make()]).mean == pytest.approx(4 * 51 / 23)


@given(st.integers(1, 5000), st.integers(1, 255), st.floats(1e-3, 255))
def test_relative_cost_is_the_printed_formula(fan_in: int, levels: int, rate: float) -> None:
    r = neurons_per_accumulate(fan_in, rate)
    printed = (1 + (5 * levels - 2) * r) / (1 + levels * r)
    assert relative_cost(fan_in, levels, rate, 5 * levels - 2) == pytest.approx(printed)
    assert 1 <= printed <= 5


def test_a_silent_input_costs_only_neuron_operations() -> None:
    assert neurons_per_accumulate(10, 0.0) == math.inf
    assert relative_cost(10, 4, 0.0, 18) == 18 / 4


@pytest.mark.parametrize(
    ("fan_ins", "levels", "expected"),
    [
        (VGG16_IMAGENET, 16, "18.37"),  # the paper's figure, which counts the classifier
        (VGG16_CIFAR[:15], 4, "4.20"),  # the paper: 4.21
        (VGG16_CIFAR[:15], 8, "8.77"),  # the paper: 8.79
    ],
)
def test_normalised_steps_of_vgg16(fan_ins: list[int], levels: int, expected: str) -> None:
    layers = [make(fan_in, levels=1) for fan_in in fan_ins]
    steps = normalised_steps_paper(layers, levels)
    assert f"{steps.mean:.2f}" == expected
    assert (steps.estimator, len(steps.layers)) == ("paper", len(fan_ins))


def test_the_full_estimator_is_the_papers_where_its_assumptions_hold() -> None:
    layers = [make(fan_in, levels=8, rate=ASSUMED_SPIKE_RATE) for fan_in in VGG16_CIFAR]
    assert effective_steps_full(layers).layers == effective_steps_paper(layers).layers
    assert effective_steps_full(layers).estimator == "full"


def test_the_full_estimator_takes_steps_and_rates_as_they_are() -> None:
    # L = 2 after a layer of 8: 32 + 2 operations; 10 inputs of 3 spikes
    assert effective_steps_full([make(10, 2, 8, rate=3.0)]).mean == pytest.approx(2 * (30 + 34 - 2) / (30 + 2))
    # analog input: one step, each of the 27 inputs used once
    assert effective_steps_full([make(27, 4, 1, rate=None)]).mean == pytest.approx(4 * (27 + 12) / (27 + 4))


# --- energy ------------------------------------------------------------------------------------------------------


def test_the_energy_constants() -> None:
    assert (FP32.mac, FP32.add) == (pytest.approx(4.6), 0.9)
    assert (INT8.mac, INT8.add) == (pytest.approx(0.23), 0.03)


@pytest.mark.parametrize(
    ("rate", "first", "fp32", "int8"),
    [
        (0.66, 5, "7.49", "11.03"),
        (0.62, 5, "7.96", "11.70"),
        (0.73, 6, "6.76", "9.94"),
        (0.86, 8, "5.72", "8.38"),
        (0.91, 8, "5.42", "7.95"),
    ],
)
def test_the_papers_energy_ratios(rate: float, first: int, fp32: str, int8: str) -> None:
    """The paper's ten ratios; b and c (per mille here) are the only ones of three decimals that give both of a pair."""
    analog = replace(make(rate=None), macs=first)
    rest = replace(make(rate=0.5), macs=1000 - first)
    assert f"{energy_paper([analog, rest], FP32, rate).ratio:.2f}" == fp32
    assert f"{energy_paper([analog, rest], INT8, rate).ratio:.2f}" == int8


COST = OperationEnergy("unit", multiply=7.0, add=2.0)
FIRST = Layer("first", fan_in=27, macs=27 * 100, neurons=100, levels=4, steps_in=1, spike_rate=None)
SECOND = Layer("second", fan_in=900, macs=900 * 50, neurons=50, levels=2, steps_in=4, spike_rate=1.5)
LAST = Layer("last", fan_in=50, macs=50 * 10, neurons=0, levels=1, steps_in=2, spike_rate=0.5)


def test_the_papers_energy_by_hand() -> None:
    expected = Energy(
        estimator="paper",
        operations="unit",
        ann=(2700 + 45000 + 500) * 9.0,
        analog=2700 * 9.0,
        currents=0.0,
        synapses=45500 * 1.0 * 2.0,  # the mean rate of the two spiking layers
        neurons=0.0,
        scaling=0.0,
    )
    assert energy_paper([FIRST, SECOND, LAST], COST) == expected
    assert expected.ratio == pytest.approx(48200 * 9 / (2700 * 9 + 45500 * 2))


def test_the_full_energy_by_hand() -> None:
    energy = energy_full([FIRST, SECOND, LAST], COST)
    assert energy == Energy(
        estimator="full",
        operations="unit",
        ann=48200 * 9.0,
        analog=2700 * 9.0,
        currents=0.0,
        synapses=(45000 * 1.5 + 500 * 0.5) * 2.0,
        neurons=(100 * (2 * (1 + 3) + 4) + 50 * (2 * (4 + 3) + 2)) * 2.0,
        scaling=(50 * 4 + 10 * 2) * 7.0,
    )
    assert energy.snn == energy.analog + energy.synapses + energy.neurons + energy.scaling
    folded = energy_full([FIRST, replace(SECOND, folded=True), replace(LAST, folded=True)], COST)
    assert folded == replace(energy, scaling=0.0)


def test_sums_and_averages_of_spikes_cost_a_mac_for_each_entry() -> None:
    averaged = replace(SECOND, graded=True, spike_rate=3.5)
    for estimate in (energy_paper, energy_full):
        energy = estimate([FIRST, averaged, LAST], COST)
        assert energy.currents == 45000 * 3.5 * 9.0
        assert energy.synapses == 500 * 0.5 * 2.0  # b is the last layer's rate alone
        alone = estimate([averaged], COST)
        assert alone.snn >= alone.currents == energy.currents
    assert energy_full([averaged], COST).scaling == 0
    assert mean_spike_rate([FIRST, averaged, LAST]) == 0.5
    assert mean_spike_rate([FIRST, averaged]) is None


def test_b_counts_layers_alike_and_leaves_out_what_has_no_synapse() -> None:
    alone = replace(LAST, macs=0, spike_rate=2.0)
    assert mean_spike_rate([FIRST, SECOND, LAST, alone]) == 1.0


def test_a_layer_may_read_fewer_or_more_steps_than_its_neurons_get() -> None:
    """A shortcut's train is aligned to the branch's; a sum over time reaches its neurons in one step."""
    shortcut = replace(SECOND, steps_in=8, steps_read=4)
    assert energy_full([shortcut], COST).scaling == 50 * 4 * 7.0
    assert replace(SECOND, steps_in=1, steps_read=4, spike_rate=3.0).spike_rate == 3.0


def test_nothing_spent_has_no_ratio() -> None:
    silent = replace(LAST, spike_rate=0.0)
    assert energy_paper([silent], COST).ratio is None
    assert energy_paper([FIRST], COST).ratio == 1


# --- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fan_in": 0}, "at least 1"),
        ({"macs": -1}, "at least 0"),
        ({"levels": 0}, "at least 1"),
        ({"steps_in": 0}, "at least 1"),
        ({"neurons": -1}, "at least 0"),
        ({"spike_rate": -0.1}, "cannot have -0.1 spikes"),
        ({"spike_rate": 4.5}, "4 steps cannot have 4.5 spikes a neuron \\(node 'second'\\)"),
        ({"spike_rate": math.nan}, "cannot have nan spikes"),
    ],
)
def test_impossible_layers_are_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(CompileError, match=message):
        replace(SECOND, **change)  # type: ignore[arg-type]


def test_estimates_need_layers_and_rates() -> None:
    for estimate in (effective_steps_paper, effective_steps_full):
        with pytest.raises(CompileError, match="no layers"):
            estimate([])
    for energy in (energy_paper, energy_full):
        with pytest.raises(CompileError, match="no layers"):
            energy([], FP32)
    with pytest.raises(CompileError, match="must be positive"):
        effective_steps_paper([SECOND], spike_rate=0.0)
    with pytest.raises(CompileError, match="must not be negative"):
        energy_paper([SECOND], FP32, spike_rate=-1.0)


# --- the benchmark's tables --------------------------------------------------------------------------------------


def test_the_paper_tables(capsys: pytest.CaptureFixture[str]) -> None:
    tables = runpy.run_path(str(PAPER_TABLES))
    macs = {name: sum(x.macs for x in tables[name]) for name in ("VGG16_CIFAR", "VGG16_IMAGENET")}
    assert macs == {"VGG16_CIFAR": 332_111_872, "VGG16_IMAGENET": 15_470_264_320}
    assert sum(x.macs for x in tables["RESNET18_CIFAR"]) == 555_422_720
    assert sum(x.macs for x in tables["RESNET34_IMAGENET"]) == 3_663_761_408
    assert [x.fan_in for x in tables["VGG16_IMAGENET"]] == VGG16_IMAGENET
    assert [len(tables["spiking"](tables[name])) for name in ("RESNET18_CIFAR", "RESNET34_IMAGENET")] == [17, 33]

    assert [row[3] for row in tables["t_norm_rows"]()] == ["4.20", "8.77", "18.37", "8.77", "8.30"]
    assert [row[-1] == "agrees" for row in tables["t_norm_rows"]()] == [False, False, True, False, False]
    assert [row[4] for row in tables["t_norm_rows"]()] == ["4.211", "8.796", "18.367", "8.220", "8.165"]
    assert [row[2] for row in tables["t_eff_rows"]()] == ["4.51", "2.59", "2.52", "12.50"]
    assert [row[3] for row in tables["t_eff_rows"]()] == ["4.544", "3.136", "2.635", "12.937"]
    assert [row[3] for row in tables["fan_in_rows"]()] == ["differs"] * 4
    assert all(row[3] == row[4] for row in tables["energy_rows"]())
    # 15 layers of 284,672 neurons; the first one has one step of input, the others L = 4.
    membrane = (65536 * (1 + 3 + 4) + (284672 - 65536) * 11) / 1e6
    counter = (65536 * (1 + 3) + (284672 - 65536) * 7) / 1e6
    expected = ["0.285", "332.11", "247.76", f"{membrane:.2f}", f"{counter:.2f}", f"{284672 * 4 / 1e6:.2f}"]
    assert tables["operation_rows"]()[0][2:8] == expected

    tables["main"]()
    assert "| VGG-16 ImageNet | 16 | 16 | 18.37 | 18.367 | 18.37 | agrees |" in capsys.readouterr().out
