"""report: what a spiking network costs, layer by layer, by the paper's formulas and by a fuller count."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pascalc import pipeline
from pascalc.al.histograms import METADATA_KEY, from_json
from pascalc.al.plan import PLAN_KEY, Plan, make_plan
from pascalc.energy import (
    ASSUMED_SPIKE_RATE,
    FP32,
    INT8,
    EffectiveSteps,
    Energy,
    Layer,
    effective_steps_full,
    effective_steps_paper,
    energy_full,
    energy_paper,
    mean_spike_rate,
    neurons_per_accumulate,
    normalised_steps_paper,
)
from pascalc.errors import CompileError
from pascalc.graph import Model
from pascalc.modelfile import load
from pascalc.network import LayerNode, Macs, layout, threshold_range
from pascalc.neurons import analysed_neurons, distinct, is_spiking
from pascalc.passes import UNROLLED
from pascalc.rates import network_spike_rate
from pascalc.reporter.measure import Measurement, measure
from pascalc.stream import open_samples
from pascalc.workers import working

FORMATS = (FP32, INT8)


@dataclass(frozen=True)
class LayerReport:
    """One linear layer and its neurons; counts are for one sample.

    Attributes:
        name: the layer.
        neuron: the label of the neurons that it feeds; None for a classifier, and for a branch (the 1x1 convolution of
            a shortcut) whose neurons are counted at another layer.
        levels: L of its neurons.
        steps_in: T, the steps of the current that its neurons receive.
        steps_out: the steps of the train that they send; None without neurons.
        theta: their threshold, a number, or the smallest and largest over the channels; L where it was folded into the
            weights; None without neurons.
        reads: "analog", "spikes", or "currents" (sums or averages of spikes).
        steps_read: the steps of the train that the layer itself reads; 1 if analog. Its neurons may get a longer train
            (it was aligned to that of another branch), or one sum.
        folded: whether the spikes that it reads have height 1.
        fan_in: inputs of one output.
        macs: multiply-accumulates of the source ANN.
        neurons: how many neurons it feeds.
        stage_operations: of all its neurons, in the stages of their model. PASC has the three of PASCAL's Algorithm 1:
            a membrane update and a counter update in each of T steps; the same in each of max(T, L) - 1 steps without
            input; a membrane update for each of L steps of emission. The sum is 5L - 2 a neuron for T = L.
        code: the code of their trains (pascalc/codes.py); None without neurons.
        spike_rate_assumed: spikes of one of its inputs over all steps (of currents, entries that are not zero), as
            PASCAL assumes them; None if analog.
        spike_rate_measured: the same on the data; None if analog or without data.
        accumulates_assumed: MACs times the rate: additions of weights for spikes, multiply-accumulates for currents;
            None if analog.
        accumulates_measured: the same at the measured rate.
        r_assumed: r' = 1/(fan-in * SpikeRate) (PASCAL, section 4.2), with the assumed rate for analog inputs too.
        r_measured: the same at the measured rate; None if analog, without data, or where nothing spiked.
        relative_cost_paper: r_E = (1 + (5L-2) r')/(1 + L r') at the assumed rate; None without neurons.
        relative_cost_full: r_E for the steps that arrive, at the measured rate (assumed without data).
        excitatory: +1 events inside its neurons; None without data or neurons.
        inhibitory: -1 events inside its neurons.
        emitted: spikes that its neurons sent.
        output_rate: spikes that one of its neurons sent, over all steps.
    """

    name: str
    neuron: str | None
    levels: int
    steps_in: int
    steps_out: int | None
    theta: float | list[float] | None
    reads: str
    steps_read: int
    folded: bool
    fan_in: int
    macs: int
    neurons: int
    stage_operations: tuple[int, ...]
    code: str | None
    spike_rate_assumed: float | None
    spike_rate_measured: float | None
    accumulates_assumed: float | None
    accumulates_measured: float | None
    r_assumed: float
    r_measured: float | None
    relative_cost_paper: float | None
    relative_cost_full: float | None
    excitatory: float | None
    inhibitory: float | None
    emitted: float | None
    output_rate: float | None


@dataclass(frozen=True)
class Report:
    """The report on a spiking network.

    Figures of the two estimators (`pascalc.energy`) are never mixed: what is called "paper" follows PASCAL's formulas,
    what is called "full" is ours.

    Attributes:
        path: the file.
        samples: the number of samples measured; 0 without data.
        macs: multiply-accumulates of the source ANN for one sample, and those of them that read trains of spikes.
        spike_rate: all spikes over all neurons, for one sample (`pascalc.rates.network_spike_rate`); None without data.
        layers: all linear layers, in the order of the graph.
        uniform_levels: the L of T_norm: the most levels that any layer has, or had before it was given a plan.
        normalised_steps: T_norm, the paper's estimate with that L in every layer.
        paper_steps: T_eff, the paper's estimate, at a spike rate of 0.75.
        full_steps: T_eff with the steps that arrive and the measured spike rates (0.75 without data).
        mean_spike_rate: b of the paper's energy formula (`pascalc.rates.mean_input_rate`): measured, or 0.75 without
            data; None where no linear layer reads spikes.
        paper_energy: in FP32 and INT8, by the paper's formula.
        full_energy: in FP32 and INT8, with neuron operations and scaling, at the measured rates (0.75 without data).
        plan: how its levels came about: metrics, clusters, histograms. None where that is not known.
        trains: by neuron label the spikes of the first sample, int8 ``[steps, neurons]``; empty without data.
    """

    path: Path
    samples: int
    macs: Macs
    spike_rate: float | None
    layers: list[LayerReport]
    uniform_levels: int
    normalised_steps: EffectiveSteps
    paper_steps: EffectiveSteps
    full_steps: EffectiveSteps
    mean_spike_rate: float | None
    paper_energy: tuple[Energy, ...]
    full_energy: tuple[Energy, ...]
    plan: Plan | None
    trains: dict[str, NDArray[np.int8]]

    def to_json(self) -> dict[str, Any]:
        """The report as plain values; energies in pJ a sample."""
        return {
            "model": str(self.path),
            "samples": self.samples,
            "macs": self.macs.total,
            "spiking_macs": self.macs.on_spikes,
            "spiking_share": self.macs.share,
            "spike_rate": self.spike_rate,
            "assumed_spike_rate": ASSUMED_SPIKE_RATE,
            "layers": [asdict(layer) for layer in self.layers],
            "effective_steps": {
                "t_norm": {"estimator": "paper", "levels": self.uniform_levels, "mean": self.normalised_steps.mean},
                "paper": {"mean": self.paper_steps.mean, "layers": list(self.paper_steps.layers)},
                "full": {"mean": self.full_steps.mean, "layers": list(self.full_steps.layers)},
            },
            "energy": {
                "constants_pj": {c.name: {"multiply": c.multiply, "add": c.add, "mac": c.mac} for c in FORMATS},
                "mean_spike_rate": self.mean_spike_rate,
                "paper": {e.operations: _energy_json(e) for e in self.paper_energy},
                "full": {e.operations: _energy_json(e) for e in self.full_energy},
            },
        }


def _energy_json(energy: Energy) -> dict[str, float | None]:
    parts = {
        key: getattr(energy, key) for key in ("ann", "snn", "analog", "currents", "synapses", "neurons", "scaling")
    }
    return {**parts, "ratio": energy.ratio}


def report(
    path: str | Path,
    data: str | Path | None = None,
    *,
    plan: str | Path | None = None,
    limit: int | None = None,
    batch: int = 16,
    workers: int | None = None,
    dask: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Report on a spiking network.

    Args:
        path: the compiled network. A source network, or one compiled with the collapsed schedule, is taken as it would
            be unrolled.
        data: inputs (`pascalc.stream`). Without them, spike rates are assumed to be PASCAL's 0.75, and there are no
            events.
        plan: the JSON file of the plan that the network was trained or compiled with, for its metrics and clusters,
            and for the levels before it, which T_norm takes. Without it, what the network's metadata holds is shown.
        limit: only the first so many samples; there must be data.
        batch: samples a run; without data nothing runs.
        workers: share the data among so many processes of one thread each (`pascalc.workers`).
        dask: share it among the workers of the Dask scheduler at this address.
        progress: called with (samples done, samples in all).

    Raises:
        CompileError: a file cannot be read, the plan is that of another network, the data does not fit the network,
            no layer of the network spikes, two layers of neurons have one label, or something in the network is of
            unknown size; there is a limit, and no data that it is of.
    """
    path = Path(path)
    if data is None and limit is not None:
        raise CompileError(
            f"only the first {limit} samples are asked for, but there is no data",
            hint="Give data too: --data DATA.npz.",
        )
    model = distinct(load(path))
    if is_spiking(model):
        analysed_neurons(model)
    else:
        pipeline.run(model, UNROLLED)
    network = layout(model)
    network.check_sizes()
    nodes = network.layers
    if not any(node.neurons for node in nodes):
        raise CompileError(
            "no layer of this network spikes",
            file=path,
            hint="Give a network that `pascalc compile` wrote, or a source network with QCFS activations.",
        )
    shown = _recorded_plan(model, path) if plan is None else _given_plan(plan, nodes)
    with working(workers, dask, data) as pool:
        samples = None if data is None else open_samples(data, model, limit)
        measured = None if samples is None else measure(model, nodes, samples, batch, progress, pool)
    return _report(path, nodes, measured, shown)


def _given_plan(file: str | Path, nodes: Sequence[LayerNode]) -> Plan:
    plan = Plan.read(file)
    labels = [node.neuron.name for node in nodes if node.neuron is not None]
    for row in plan.layers:
        if row.name not in labels:
            raise CompileError(
                "the plan names a layer that this network does not have",
                file=file,
                node=row.name,
                hint=f"Its layers are: {', '.join(labels)}.",
            )
    return plan


def _recorded_plan(model: Model, path: Path) -> Plan | None:
    """The plan recorded in the file, else the metrics of the histograms recorded in it, in one cluster."""
    if PLAN_KEY in model.metadata:
        return Plan.from_json(model.metadata[PLAN_KEY], file=path)
    if METADATA_KEY in model.metadata:
        return make_plan(from_json(model.metadata[METADATA_KEY], file=path), 1)
    return None


def _report(path: Path, nodes: Sequence[LayerNode], measured: Measurement | None, plan: Plan | None) -> Report:
    assumed = [node.energy_layer(ASSUMED_SPIKE_RATE) for node in nodes]
    actual = assumed if measured is None else [n.energy_layer(measured.rates.get(n.source.name)) for n in nodes]
    own = [layer for layer in actual if layer.neurons]
    known = [row.histogram.levels for row in plan.layers if row.histogram is not None] if plan is not None else []
    uniform = max(*(layer.levels for layer in own), *known) if known else max(layer.levels for layer in own)
    layers = [_layer(n, a, m, measured) for n, a, m in zip(nodes, assumed, actual, strict=True)]
    return Report(
        path=path,
        samples=0 if measured is None else measured.samples,
        macs=Macs.of([(layer.macs, layer.reads) for layer in layers]),
        spike_rate=network_spike_rate((x.output_rate, x.neurons) for x in layers if x.output_rate is not None),
        layers=layers,
        uniform_levels=uniform,
        normalised_steps=normalised_steps_paper(own, uniform),
        paper_steps=effective_steps_paper(own),
        full_steps=effective_steps_full(own),
        mean_spike_rate=mean_spike_rate(actual),
        paper_energy=tuple(energy_paper(actual, cost) for cost in FORMATS),
        full_energy=tuple(energy_full(actual, cost) for cost in FORMATS),
        plan=plan,
        trains={} if measured is None else measured.trains,
    )


def _layer(node: LayerNode, assumed: Layer, actual: Layer, measured: Measurement | None) -> LayerReport:
    neuron = node.neuron
    rate = None if measured is None else actual.spike_rate
    events = None if measured is None or neuron is None else measured.events.get(neuron.name)
    samples = 1 if measured is None else measured.samples
    return LayerReport(
        name=node.name,
        neuron=None if neuron is None else neuron.name,
        levels=node.levels,
        steps_in=node.steps_in,
        steps_out=None if neuron is None else neuron.steps_out,
        theta=None if neuron is None else threshold_range(neuron.threshold),
        reads=node.reads.kind,
        steps_read=node.reads.steps,
        folded=node.reads.folded,
        fan_in=node.fan_in,
        macs=assumed.macs,
        neurons=assumed.neurons,
        stage_operations=tuple(n * assumed.neurons for n in node.model.operations(node.most, node.steps_in)),
        code=None if neuron is None else node.model.code.name,
        spike_rate_assumed=assumed.spike_rate,
        spike_rate_measured=rate,
        accumulates_assumed=None if assumed.spike_rate is None else assumed.macs * assumed.spike_rate,
        accumulates_measured=None if rate is None else assumed.macs * rate,
        r_assumed=neurons_per_accumulate(node.fan_in, ASSUMED_SPIKE_RATE),
        r_measured=None if not rate else neurons_per_accumulate(node.fan_in, rate),
        relative_cost_paper=None if neuron is None else effective_steps_paper([assumed]).mean / node.levels,
        relative_cost_full=None if neuron is None else effective_steps_full([actual]).mean / node.levels,
        excitatory=None if events is None else events.excitatory / samples,
        inhibitory=None if events is None else events.inhibitory / samples,
        emitted=None if events is None else events.emitted / samples,
        output_rate=None if events is None else events.emitted / max(events.neurons, 1),
    )
