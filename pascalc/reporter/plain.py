"""The report as plain text tables."""

from __future__ import annotations

from collections.abc import Sequence

from pascalc.energy import ASSUMED_SPIKE_RATE
from pascalc.reporter.analysis import FORMATS, LayerReport, Report
from pascalc.tables import counted, table

MISSING = "-"


def text(report: Report) -> str:
    """The whole report; every column holds the figures of one estimator only."""
    parts = [
        table(STRUCTURE, [structure(layer) for layer in report.layers]),
        "Operations of a sample: accumulates of the layer at the assumed and at the measured spike rate, which are\n"
        "multiply-accumulates where it reads currents; operations of its neurons by stage (1: with input, 2: without, "
        "3: emission)",
        table(ACTIVITY, [activity(layer) for layer in report.layers]),
        "r' = 1/(fan-in * spike rate), neuron to synapse; r_E, cost of a PASC layer over that of an IF layer",
        table(RATIOS, [ratios(layer) for layer in report.layers if layer.neurons]),
        "\n".join(summary(report)),
        f"Energy of a sample in uJ. {constants()}",
        table(energy_header(), energy_rows(report)),
        *(f"{note}." for note in notes(report)),
    ]
    return "\n\n".join(parts)


STRUCTURE = ("layer", "L", "T in", "T out", "theta", "reads", "fan-in", "MACs of the ANN", "neurons")
ACTIVITY = (
    "layer",
    "rate, assumed",
    "rate, measured",
    "accumulates, assumed",
    "accumulates, measured",
    "stage 1",
    "stage 2",
    "stage 3",
    "inhibitory",
    "emitted a neuron",
)
_STAGES = sum(title.startswith("stage") for title in ACTIVITY)
RATIOS = ("layer", "r', assumed", "r', measured", "r_E, paper", "r_E, full")


def structure(layer: LayerReport) -> Sequence[str]:
    """The cells of a layer under `STRUCTURE`."""
    has = layer.neuron is not None
    return (
        layer.name,
        str(layer.levels) if has else MISSING,
        str(layer.steps_in),
        number(layer.steps_out, "d"),
        _theta(layer),
        layer.reads,
        str(layer.fan_in),
        f"{layer.macs:,}",
        f"{layer.neurons:,}" if has else MISSING,
    )


def activity(layer: LayerReport) -> Sequence[str]:
    """The cells of a layer under `ACTIVITY`."""
    counts = layer.stage_operations if layer.neuron is not None else ()
    stages = [f"{count:,}" for count in counts] + [MISSING] * (_STAGES - len(counts))
    return (
        layer.name,
        number(layer.spike_rate_assumed, ".2f"),
        number(layer.spike_rate_measured, ".3f"),
        number(layer.accumulates_assumed, ",.0f"),
        number(layer.accumulates_measured, ",.0f"),
        *stages,
        number(layer.inhibitory, ",.1f"),
        number(layer.output_rate, ".3f"),
    )


def ratios(layer: LayerReport) -> Sequence[str]:
    """The cells of a layer under `RATIOS`."""
    return (
        layer.name,
        number(layer.r_assumed, ".5f"),
        number(layer.r_measured, ".5f"),
        number(layer.relative_cost_paper, ".3f"),
        number(layer.relative_cost_full, ".3f"),
    )


SPIKE_RATE = "all spikes over all neurons, for one sample"


def summary(report: Report) -> list[str]:
    """The network as a whole: its operations and spikes, and the effective time steps, one line an estimate."""
    rates = f"measured on {counted(report.samples, 'sample')}" if report.samples else f"assumed, {ASSUMED_SPIKE_RATE}"
    share = "" if report.macs.share is None else f", {report.macs.share:.1%} of them on trains of spikes"
    spikes = [] if report.spike_rate is None else [f"{report.spike_rate:.3f} spikes a neuron: {SPIKE_RATE}, {rates}"]
    return [
        f"{report.macs.total:,} multiply-accumulates of the ANN{share}",
        *spikes,
        f"T_norm {report.normalised_steps.mean:.2f}: the paper's estimate, L = {report.uniform_levels} in every layer",
        f"T_eff  {report.paper_steps.mean:.2f}: the paper's estimate, spike rate {ASSUMED_SPIKE_RATE} everywhere",
        f"T_eff  {report.full_steps.mean:.2f}: the full estimate, with the steps that arrive; spike rates {rates}",
    ]


def constants() -> str:
    """The energy of each operation."""
    return "An operation in pJ (45 nm, 0.9 V; Horowitz, ISSCC 2014): " + "; ".join(
        f"{c.name}: multiply {c.multiply:g}, add {c.add:g}, MAC {c.mac:g}" for c in FORMATS
    )


def energy_header() -> list[str]:
    """One column for each number format and estimator."""
    return ["", *(f"{cost.name}, {estimator}" for cost in FORMATS for estimator in ("paper", "full"))]


def energy_rows(report: Report) -> list[list[str]]:
    """The rows under `energy_header`."""
    columns = [e for pair in zip(report.paper_energy, report.full_energy, strict=True) for e in pair]
    parts = (
        ("source ANN", "ann"),
        ("SNN: layers with analog input", "analog"),
        ("SNN: layers that read currents", "currents"),
        ("SNN: synapses that read spikes", "synapses"),
        ("SNN: neurons", "neurons"),
        ("SNN: scaling by thresholds", "scaling"),
        ("SNN", "snn"),
    )
    left_out = {("paper", "neurons"), ("paper", "scaling")}
    rows = [
        [label, *(MISSING if (e.estimator, part) in left_out else f"{getattr(e, part) / 1e6:.4g}" for e in columns)]
        for label, part in parts
    ]
    return [*rows, ["E_ANN / E_SNN", *(number(e.ratio, ".2f") for e in columns)]]


def notes(report: Report) -> list[str]:
    """What has to be known to read the energies."""
    source = f"measured on {counted(report.samples, 'sample')}" if report.samples else "assumed, as in the paper"
    return [
        f"paper: PASCAL's formula (appendix A.4), with b = {number(report.mean_spike_rate, '.3f')}, the spikes of one "
        f"input, averaged over the linear layers that read spikes, {source}; it leaves out neurons and scaling",
        f"full: every layer's own spike rate ({source}), its neurons' operations, and scaling where thresholds are not "
        "folded into weights",
        "Layers that read currents, sums or averages of spikes, multiply: a MAC for each entry that is not zero",
        "Neither counts memory traffic or the additions that join branches",
    ]


def number(value: float | None, style: str) -> str:
    """A number in a format, or a dash."""
    return MISSING if value is None else format(value, style)


def _theta(layer: LayerReport) -> str:
    if layer.theta is None:
        return MISSING
    if layer.theta == layer.levels:
        return "folded"
    if isinstance(layer.theta, list):
        return f"{layer.theta[0]:.4g} to {layer.theta[1]:.4g}"
    return f"{layer.theta:.4g}"
