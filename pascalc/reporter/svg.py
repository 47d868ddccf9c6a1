"""Charts as inline SVG: horizontal bars, small histograms, rasters. Colours are CSS classes of the page around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, isfinite, log10

import numpy as np
from numpy.typing import NDArray

WIDTH = 960
"""Width of every chart in its own units; the page scales it."""

_LABELS = 190
_ROW = 20
_CHARS = 28


@dataclass(frozen=True)
class Bar:
    """One bar: its value, its CSS class and what is shown when the pointer rests on it. An infinite value fills the
    row and is marked so."""

    value: float
    kind: str
    title: str
    mark: str = ""


@dataclass(frozen=True)
class Line:
    """A value that all bars are to be compared with."""

    value: float
    text: str


def bars(rows: Sequence[tuple[str, Sequence[Bar]]], *, unit: str, line: Line | None = None) -> str:
    """Horizontal bars: for each row a label, and one bar below the other.

    Args:
        rows: labels and bars.
        unit: what the axis shows.
        line: a value to compare with.
    """
    finite = [bar.value for _, row in rows for bar in row if isfinite(bar.value)]
    top = max([*finite, line.value if line else 0.0], default=0.0) or 1.0
    ticks = _ticks(top)
    plot = WIDTH - _LABELS - 60
    scale = plot / max(top, ticks[-1])
    height = len(rows) * _ROW + 40
    parts = []
    for tick in ticks:
        x = _LABELS + tick * scale
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="18" x2="{x:.1f}" y2="{height - 20}"/>')
        parts.append(_text(x, height - 6, f"{tick:g}", "tick middle"))
    for index, (label, row) in enumerate(rows):
        y = 20 + index * _ROW
        parts.append(_label(y + 13, label))
        thickness = (_ROW - 5) / max(1, len(row))
        for number, bar in enumerate(row):
            length = bar.value * scale if isfinite(bar.value) else plot
            parts.append(
                f'<rect class="{bar.kind}" x="{_LABELS}" y="{y + 1 + number * thickness:.1f}" width="{length:.1f}" '
                f'height="{thickness - 0.5:.1f}" rx="1.5">{_title(bar.title)}</rect>'
            )
            if bar.mark:
                parts.append(_text(_LABELS + length + 6, y + 13, bar.mark, "mark"))
    if line is not None:
        x = _LABELS + line.value * scale
        parts.append(f'<line class="reference" x1="{x:.1f}" y1="14" x2="{x:.1f}" y2="{height - 20}"/>')
        parts.append(_text(x + 4, 12, line.text, "tick"))
    parts.append(_text(_LABELS - 8, height - 6, unit, "tick end"))
    return _svg(height, unit, parts)


def stacked(rows: Sequence[tuple[str, Sequence[Bar]]], *, unit: str) -> str:
    """Horizontal bars of equal length, each divided into its parts' shares."""
    plot = WIDTH - _LABELS - 60
    parts = []
    for index, (label, row) in enumerate(rows):
        y = 4 + index * (_ROW + 8)
        parts.append(_label(y + 17, label))
        total = sum(bar.value for bar in row) or 1.0
        x = float(_LABELS)
        for bar in row:
            width = bar.value / total * plot
            title = _title(f"{bar.title}: {bar.value / total:.1%}")
            parts.append(f'<rect class="{bar.kind}" x="{x:.1f}" y="{y}" width="{width:.1f}" height="24">{title}</rect>')
            if width > 44:
                parts.append(_text(x + width / 2, y + 16, f"{bar.value / total:.0%}", "inside middle"))
            x += width
    return _svg(len(rows) * (_ROW + 8) + 4, unit, parts)


def histograms(panels: Sequence[tuple[str, Sequence[int], str]]) -> str:
    """Small histograms, a few in a line: a label, the counts of levels 0..L, and a CSS class each."""
    across, width, height = 5, WIDTH / 5, 118
    parts = []
    for index, (label, counts, kind) in enumerate(panels):
        left, top = index % across * width, index // across * height
        total = sum(counts) or 1
        highest = max(counts) or 1
        inner = width - 24
        step = inner / len(counts)
        parts.append(_text(left, top + 12, _short(label), "small", title=label))
        parts.append(_line(left, top + 94, left + inner, top + 94))
        for level, count in enumerate(counts):
            tall = count / highest * 72
            parts.append(
                f'<rect class="{kind}" x="{left + level * step + 0.5:.1f}" y="{top + 94 - tall:.1f}" '
                f'width="{max(step - 1, 0.6):.1f}" height="{tall:.1f}">'
                f"{_title(f'level {level}: {count / total:.1%}')}</rect>"
            )
        parts.append(_text(left + step / 2, top + 107, "0", "tick middle"))
        parts.append(_text(left + inner - step / 2, top + 107, str(len(counts) - 1), "tick middle"))
    return _svg(ceil(len(panels) / across) * height, "histograms of spike counts", parts)


def raster(panels: Sequence[tuple[str, NDArray[np.int8]]], neurons: int = 192) -> str:
    """Spikes over time: a row a layer, time steps downwards, neurons spread evenly over the layer from left to right.

    Args:
        panels: a label and a train, int8 ``[steps, neurons]``, each.
        neurons: the most neurons that are shown of a layer.
    """
    step_height = 6
    plot = WIDTH - _LABELS
    parts = []
    y = 4
    for label, train in panels:
        steps, size = train.shape
        shown = np.unique(np.linspace(0, size - 1, min(size, neurons)).astype(np.int64))
        width = plot / neurons
        height = steps * step_height
        parts.append(f'<rect class="ground" x="{_LABELS}" y="{y}" width="{width * len(shown):.1f}" height="{height}"/>')
        parts.append(_label(max(y + height / 2 + 4, y + 9), label))
        times, columns = np.nonzero(train[:, shown])
        marks = "".join(
            f"M{_LABELS + c * width:.1f} {y + t * step_height + 1}h{width - 1:.1f}v{step_height - 2}h-{width - 1:.1f}z"
            for t, c in zip(times.tolist(), columns.tolist(), strict=True)
        )
        parts.append(f'<path class="spike" d="{marks}">{_title(f"{label}: {steps} steps")}</path>')
        y += max(height, 12) + 7
    return _svg(y, "spikes of one sample", parts)


def _svg(height: float, label: str, parts: Sequence[str]) -> str:
    head = f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(label)}">'
    return head + "".join(parts) + "</svg>"


def _title(text: str) -> str:
    return f"<title>{escape(text)}</title>" if text else ""


def _text(x: float, y: float, text: str, kind: str, title: str = "") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}{_title(title)}</text>'


def _label(y: float, label: str) -> str:
    return _text(_LABELS - 8, y, _short(label), "label end", title=label)


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="grid" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _short(label: str) -> str:
    """The end of a long label, which is what tells layers apart."""
    return label if len(label) <= _CHARS else "..." + label[3 - _CHARS :]


def _ticks(top: float) -> list[float]:
    """Round values from 0 to at least nine tenths of the top."""
    power = 10.0 ** floor(log10(top / 4))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power * 5 >= top)
    return [index * step for index in range(floor(top / step + 1e-9) + 1)]
