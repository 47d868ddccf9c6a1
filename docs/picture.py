"""Draws docs/picture.svg: one image through the spiking ResNet of examples/fashion-mnist, as it really runs."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

import pascalc
from pascalc.runtime import InferenceSession

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "fashion-mnist"
SAMPLE = 0
NEURONS = 44  # a raster shows so many neurons of a layer, evenly spaced
STEP, ROW, TOP, LEFT = 15, 5, 74, 26
INK, SPIKE, FAINT, BARS = "#1f2933", "#d9480f", "#9aa5b1", ("#1c7ed6", "#d9480f")
CLASSES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")


def text(x: float, y: float, words: str, size: int = 12, colour: str = INK, anchor: str = "start") -> str:
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{colour}" text-anchor="{anchor}">{words}</text>'


def rectangle(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" fill="{colour}"/>'


def photograph(image: np.ndarray, x: float, y: float, pixel: float) -> list[str]:
    grey = 255 - np.rint(255 * (image - image.min()) / np.ptp(image)).astype(int)
    return [
        rectangle(x + column * pixel, y + row * pixel, pixel, pixel, f"rgb({g},{g},{g})")
        for (row, column), g in np.ndenumerate(grey)
        if g < 250
    ]


def raster(train: np.ndarray, x: float) -> list[str]:
    """Time runs to the right; a mark is a spike."""
    steps = len(train)
    rows = train.reshape(steps, -1)
    rows = rows[:, np.linspace(0, rows.shape[1] - 1, NEURONS).astype(int)]
    marks = [
        rectangle(x + t * STEP + 2, TOP + n * ROW + 0.7, STEP - 4, ROW - 1.4, SPIKE) for t, n in np.argwhere(rows > 0)
    ]
    edges = [
        f'<line x1="{x + t * STEP:g}" x2="{x + t * STEP:g}" y1="{TOP}" y2="{TOP + NEURONS * ROW}" stroke="{FAINT}" '
        f'stroke-width="0.4"/>'
        for t in range(steps + 1)
    ]
    return edges + marks


def main() -> None:
    source = EXAMPLE / "resnet.onnx"
    data = np.load(EXAMPLE / "test-1000.npz")
    x, y = data["x"][SAMPLE : SAMPLE + 1], int(data["y"][SAMPLE])
    with tempfile.TemporaryDirectory() as folder:
        compiled = Path(folder) / "resnet.snn.onnx"
        pascalc.compile(source, compiled)
        session = InferenceSession(compiled)
        name = session.inputs[0].name
        trains = session.trace({name: x})
        spiking = session.run(None, {name: x})[0][0]
        plain = InferenceSession(source).run(None, {name: x})[0][0]
    shown = list(trains.items())[::2]
    body = [text(LEFT, 28, "One image through the compiled ResNet: every layer a few time steps of 0/1 spikes", 15)]
    body += [*photograph(x[0, 0], LEFT, TOP + 40, 4), text(LEFT, TOP + 168, f"input: {CLASSES[y]}", 11)]
    at = LEFT + 28 * 4 + 26
    for label, train in shown:
        width = len(train) * STEP
        body += [
            text(at + width / 2, TOP - 10, label.removesuffix("/relu"), 9, INK, "middle"),
            *raster(train[:, 0], at),
        ]
        body.append(text(at + width / 2, TOP + NEURONS * ROW + 14, f"{len(train)} steps", 9, FAINT, "middle"))
        at += width + 22
    scale = 70 / max(np.abs(plain).max(), np.abs(spiking).max())
    for k, (a, b) in enumerate(zip(plain, spiking, strict=True)):
        row = TOP + k * 21
        body.append(text(at + 62, row + 12, CLASSES[k], 10, INK, "end"))
        for offset, value, colour in ((3, a, BARS[0]), (10, b, BARS[1])):
            start = at + 98 + min(value, 0) * scale
            body.append(rectangle(start, row + offset, abs(value) * scale, 6, colour))
    body.append(text(at + 62, TOP - 10, "logits", 10, INK, "end"))
    body.append(text(at + 70, TOP + NEURONS * ROW + 14, "source", 10, BARS[0]))
    body.append(text(at + 112, TOP + NEURONS * ROW + 14, "spiking", 10, BARS[1]))
    difference = float(np.max(np.abs(plain - spiking)))
    body.append(text(LEFT, TOP + NEURONS * ROW + 44, f"largest difference of a logit: {difference:.1e}", 12))
    width, height = at + 190, TOP + NEURONS * ROW + 62
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height}" font-family="sans-serif">'
        f'<rect width="100%" height="100%" rx="8" fill="#fbfaf7"/>{"".join(body)}</svg>\n'
    )
    (ROOT / "docs" / "picture.svg").write_text(svg)


if __name__ == "__main__":
    main()
