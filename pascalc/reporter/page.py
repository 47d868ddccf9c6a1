"""The report as one HTML file: no scripts, nothing loaded from elsewhere, light or dark as the reader's system is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from math import isfinite

from pascalc.al.plan import Plan
from pascalc.energy import ASSUMED_SPIKE_RATE, Energy
from pascalc.reporter import plain, svg
from pascalc.reporter.analysis import Report
from pascalc.tables import counted
from pascalc.version import __version__

_COLOURS = 6


def html(report: Report) -> str:
    """The whole report as an HTML document."""
    sections = [
        _section("Time steps", _time_steps(report), _STEPS_NOTE),
        *_plan_sections(report),
        *_measured_sections(report),
        _section("Energy", _energy(report), " ".join(f"{note}." for note in plain.notes(report))),
        _section("Layers", _table(plain.STRUCTURE, [plain.structure(x) for x in report.layers])),
        _section(
            "Operations of a sample",
            _table(plain.ACTIVITY, [plain.activity(x) for x in report.layers]),
            "Accumulates of each layer; operations of its neurons in stage 1 (with input), 2 (without input) and 3 "
            "(emission); inhibitory spikes stay inside the neurons.",
        ),
        _section(
            "Neurons beside synapses",
            _table(plain.RATIOS, [plain.ratios(x) for x in report.layers if x.neurons]),
            "r' = 1/(fan-in * spike rate): neurons an accumulate. r_E: the cost of a PASC layer over that of an "
            "integrate-and-fire layer. The full estimate takes the steps that arrive and the measured spike rates.",
        ),
    ]
    name = escape(report.path.name)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{name}</title>'
        f"<style>{_STYLE}</style></head>\n<body><main><h1>{name}</h1>{_cards(report)}\n"
        + "\n".join(sections)
        + f"\n<footer>pascalc {escape(__version__)}</footer></main></body></html>\n"
    )


def _cards(report: Report) -> str:
    own = [layer for layer in report.layers if layer.neurons]
    rates = f"measured, {counted(report.samples, 'sample')}" if report.samples else f"assumed, {ASSUMED_SPIKE_RATE}"
    cards = [
        ("layers of neurons", str(len(own)), f"{sum(layer.neurons for layer in own):,} neurons"),
        (
            "MACs of the ANN",
            f"{report.macs.total / 1e6:.1f} M",
            f"a sample; {plain.number(report.macs.share, '.1%')} on spikes",
        ),
        *([] if report.spike_rate is None else [("spikes a neuron", f"{report.spike_rate:.3f}", plain.SPIKE_RATE)]),
        ("T_norm", f"{report.normalised_steps.mean:.2f}", f"paper's estimate, L = {report.uniform_levels} everywhere"),
        ("T_eff", f"{report.paper_steps.mean:.2f}", f"paper's estimate, spike rate {ASSUMED_SPIKE_RATE}"),
        ("T_eff, full", f"{report.full_steps.mean:.2f}", f"spike rates {rates}"),
        *(
            (f"E_ANN / E_SNN, {kind}", plain.number(energy.ratio, ".2f"), f"FP32; spike rates {rates}")
            for kind, energy in (("paper", report.paper_energy[0]), ("full", report.full_energy[0]))
        ),
    ]
    return (
        '<div class="cards">'
        + "".join(
            f"<div><span>{escape(title)}</span><b>{escape(value)}</b><small>{escape(note)}</small></div>"
            for title, value, note in cards
        )
        + "</div>"
    )


_STEPS_NOTE = (
    "T in: the steps of the current that the neurons receive. T out: the steps of the train that they send, L. "
    "Where branches of unequal length join, the longer one counts."
)


def _time_steps(report: Report) -> str:
    rows = [
        (
            layer.neuron or layer.name,
            [
                svg.Bar(layer.steps_in, "c1 faint", f"T in {layer.steps_in}"),
                svg.Bar(layer.steps_out or 0, "c0", f"T out {layer.steps_out}"),
            ],
        )
        for layer in report.layers
        if layer.neurons
    ]
    return _legend([("c1 faint", "T in"), ("c0", "T out = L")]) + svg.bars(rows, unit="time steps")


def _plan_sections(report: Report) -> list[str]:
    if report.plan is None:
        return []
    levels = {layer.neuron: layer.levels for layer in report.layers}
    groups = _groups(report.plan, levels)
    legend = _legend(sorted(set(groups.values())))
    sections = []
    rows = [
        (row.name, [_metric(row.metric, levels.get(row.name, row.levels), groups[row.name][0])])
        for row in report.plan.layers
        if row.metric is not None
    ]
    if rows:
        note = (
            "M = agreement * (skewness^2 + 1) * kurtosis of the layer's spike counts (PASCAL, section 3.3). The higher "
            "M, the fewer levels the layer needs. Behind each bar: its L."
        )
        sections.append(_section("AL metric", legend + svg.bars(rows, unit="M"), note))
    panels = [
        (row.name, row.histogram.counts.tolist(), groups[row.name][0])
        for row in report.plan.layers
        if row.histogram is not None
    ]
    if panels:
        note = "How often each level 0..L occurred before levels were reduced: counted on data, or estimated without."
        sections.append(_section("Histograms of levels", legend + svg.histograms(panels), note))
    return sections


def _groups(plan: Plan, levels: Mapping[str | None, int]) -> dict[str, tuple[str, str]]:
    """Colour and name of each layer's group: its cluster, or its L where the plan has no clusters."""
    clusters = {row.name: row.cluster for row in plan.layers}
    if len(set(clusters.values())) > 1:
        order = sorted(set(clusters.values()), key=lambda c: -1 if c is None else c)
        names = {c: "no cluster" if c is None else f"cluster {c}" for c in order}
        return {name: (_colour(order.index(c)), names[c]) for name, c in clusters.items()}
    own = {row.name: levels.get(row.name, row.levels) for row in plan.layers}
    descending = sorted(set(own.values()), reverse=True)
    return {name: (_colour(descending.index(level)), f"L = {level}") for name, level in own.items()}


def _metric(metric: float, levels: int, kind: str) -> svg.Bar:
    value = f"{metric:.3g}" if isfinite(metric) else "infinite"
    return svg.Bar(metric, kind, f"M {value}, L {levels}", mark=f"L = {levels}")


def _measured_sections(report: Report) -> list[str]:
    if not report.samples:
        return []
    rows = [
        (
            layer.neuron or layer.name,
            [svg.Bar(layer.output_rate, "c2", f"{layer.output_rate:.3f}", mark=f"{layer.output_rate:.2f}")],
        )
        for layer in report.layers
        if layer.output_rate is not None
    ]
    line = svg.Line(ASSUMED_SPIKE_RATE, f"{ASSUMED_SPIKE_RATE}, assumed in the paper")
    samples = f"{counted(report.samples, 'sample')}"
    inside = [
        (
            layer.neuron or layer.name,
            [
                svg.Bar(layer.emitted / layer.neurons, "c2", f"emitted {layer.emitted:,.1f}"),
                svg.Bar((layer.inhibitory or 0) / layer.neurons, "c3", f"inhibitory {layer.inhibitory:,.1f}"),
            ],
        )
        for layer in report.layers
        if layer.emitted is not None
    ]
    panels = [(label, train) for label, train in report.trains.items()]
    return [
        _section("Spike rates", svg.bars(rows, unit="spikes a neuron, all steps", line=line), f"Mean over {samples}."),
        _section(
            "Inhibitory spikes",
            _legend([("c2", "emitted"), ("c3", "inhibitory, inside the neuron")])
            + svg.bars(inside, unit="spikes a neuron, all steps"),
            f"Mean over {samples}. Inhibitory spikes take back what stage 1 fired too early; they are not sent.",
        ),
        _section(
            "Spikes of the first sample",
            svg.raster(panels),
            "A row a layer; in it, time runs downwards, and up to 192 neurons are shown from left to right, spread "
            "evenly over the layer."
            + (
                " All spikes of a neuron come first."
                if all(x.code in (None, "thermometer") for x in report.layers)
                else ""
            ),
        ),
    ]


_PARTS = (
    ("analog", "layers that read analog input"),
    ("currents", "layers that read currents"),
    ("synapses", "synapses that read spikes"),
    ("neurons", "neurons"),
    ("scaling", "scaling"),
)


def _energy(report: Report) -> str:
    def shares(estimates: Sequence[Energy]) -> str:
        rows = [
            (
                f"{e.operations}: {e.snn / 1e6:.3g} µJ",
                [
                    svg.Bar(getattr(e, part), f"c{i}", f"{name} {getattr(e, part) / 1e6:.3g} µJ")
                    for i, (part, name) in enumerate(_PARTS)
                ],
            )
            for e in estimates
        ]
        return svg.stacked(rows, unit="shares of the energy")

    return (
        _legend([(f"c{i}", name) for i, (_, name) in enumerate(_PARTS)])
        + f"<h3>Paper's formula</h3>{shares(report.paper_energy)}<h3>Full model</h3>{shares(report.full_energy)}"
        + _table(["µJ a sample", *plain.energy_header()[1:]], plain.energy_rows(report))
        + f"<p>{escape(plain.constants())}.</p>"
    )


def _colour(group: int) -> str:
    return f"c{group % _COLOURS}"


def _section(title: str, body: str, note: str = "") -> str:
    return f"<section><h2>{escape(title)}</h2>{body}{f'<p>{escape(note)}</p>' if note else ''}</section>"


def _legend(entries: Sequence[tuple[str, str]]) -> str:
    items = "".join(
        f'<span><svg viewBox="0 0 9 9"><rect class="{kind}" width="9" height="9" rx="2"/></svg>{escape(name)}</span>'
        for kind, name in entries
    )
    return f'<div class="legend">{items}</div>'


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


_STYLE = """
:root { color-scheme: light dark; --back: #f6f7f9; --card: #fff; --text: #1d2530; --soft: #5d6875; --grid: #dfe3e8;
  --c0: #2f6db5; --c1: #e0882b; --c2: #2f9271; --c3: #bf4474; --c4: #7a62bd; --c5: #7d8791; }
@media (prefers-color-scheme: dark) {
  :root { --back: #14181d; --card: #1d232a; --text: #e4e8ed; --soft: #9aa6b3; --grid: #333c46;
    --c0: #5b9be6; --c1: #eba24f; --c2: #4cb894; --c3: #e0719b; --c4: #a48fe0; --c5: #97a1ab; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--text); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1060px; margin: 0 auto; padding: 24px 20px 48px; }
h1 { font-size: 24px; margin: 8px 0 16px; overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 0 0 12px; } h3 { font-size: 14px; margin: 14px 0 6px; color: var(--soft); }
section, .cards div { background: var(--card); border: 1px solid var(--grid); border-radius: 10px; }
section { padding: 18px 20px; margin: 16px 0; }
section p { color: var(--soft); font-size: 13.5px; margin: 12px 0 0; max-width: 90ch; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(220px, 1fr)); gap: 12px; }
.cards div { padding: 12px 14px; display: flex; flex-direction: column; }
.cards span, .cards small { color: var(--soft); font-size: 13px; } .cards b { font-size: 23px; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; font-size: 13px; color: var(--soft); margin: 0 0 6px; }
.legend svg { width: 11px; height: 11px; margin-right: 6px; }
section > svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--text); font-size: 12px; }
svg .tick, svg .mark { fill: var(--soft); font-size: 11px; } svg .small { font-size: 11px; }
svg .inside { fill: var(--card); font-size: 12px; font-weight: 600; }
svg .end { text-anchor: end; } svg .middle { text-anchor: middle; }
svg .grid { stroke: var(--grid); } svg .reference { stroke: var(--c3); stroke-dasharray: 4 3; stroke-width: 1.5; }
svg .ground { fill: var(--back); } svg .spike { fill: var(--c0); } svg .faint { opacity: .55; }
.c0 { fill: var(--c0); } .c1 { fill: var(--c1); } .c2 { fill: var(--c2); }
.c3 { fill: var(--c3); } .c4 { fill: var(--c4); } .c5 { fill: var(--c5); }
.scroll { overflow-x: auto; margin-top: 8px; } table { border-collapse: collapse; width: 100%; font-size: 13px; }
th { color: var(--soft); font-weight: 500; vertical-align: bottom; }
th, td { text-align: right; padding: 4px 8px; border-bottom: 1px solid var(--grid); }
th:first-child, td:first-child { text-align: left; } td { white-space: nowrap; font-variant-numeric: tabular-nums; }
footer { color: var(--soft); font-size: 13px; margin-top: 20px; }
@media print { section { break-inside: avoid; } }
"""
