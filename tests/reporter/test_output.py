"""The report as text and HTML, and the command that writes it."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from math import inf
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import pascalc
from pascalc.al import Histogram, make_plan
from pascalc.cli import main
from pascalc.reporter import html, report, svg, text
from tests.small_networks import Builder, images, residual_network, write

LAYERS = {"stem": 4, "left": 8, "join": 2, "deep": 4, "hidden": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("output")
    pascalc.compile(write(residual_network(), folder / "net.onnx"), folder / "net.snn.onnx")
    np.savez(folder / "data.npz", x=images(4))
    rng = np.random.default_rng(0)
    counts = {name: Histogram(rng.integers(1, 1000, 9) ** rng.integers(1, 3, 9)) for name in list(LAYERS)[1:]}
    counts["stem"] = Histogram(np.array([10, 0, 0, 0, 0, 0, 0, 0, 0]))  # dead: an infinite metric
    (folder / "plan.json").write_text(make_plan(counts, 3).to_json())
    return folder


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return html(report(folder / "net.snn.onnx", folder / "data.npz", plan=folder / "plan.json"))


class Balanced(HTMLParser):
    """Checks that tags are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.add(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_self_contained(page: str) -> None:
    parser = Balanced()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    assert not parser.seen & {"script", "link", "img", "iframe", "object", "use"}
    assert not re.search(r"https?:|url\(|@import|src=|href=", page)
    assert "prefers-color-scheme: dark" in page
    assert "nan" not in re.sub(r"<[^>]*>", "", page).lower().split()


def test_the_page_has_every_plot(page: str) -> None:
    titles = re.findall("<h2>(.*?)</h2>", page)
    assert titles[:6] == [
        "Time steps",
        "AL metric",
        "Histograms of levels",
        "Spike rates",
        "Inhibitory spikes",
        "Spikes of the first sample",
    ]
    assert "Energy" in titles
    for cluster in range(3):
        assert f"cluster {cluster}" in page
    assert "M infinite, L 4" in page


def test_a_plan_without_clusters_is_coloured_by_levels(folder: Path, tmp_path: Path) -> None:
    rows = ",".join(f'{{"name": "{name}", "levels": {level}, "metric": 2}}' for name, level in LAYERS.items())
    (tmp_path / "plan.json").write_text(f'{{"layers": [{rows}]}}')
    page = html(report(folder / "net.snn.onnx", plan=tmp_path / "plan.json"))
    (section,) = (part for part in page.split("<section>") if "AL metric" in part)
    legend = re.findall(r'class="(c\d)"[^>]*/></svg>([^<]*)<', section)
    assert legend == [("c0", "L = 8"), ("c1", "L = 4"), ("c2", "L = 3"), ("c3", "L = 2")]


def test_without_data_or_plan_there_is_less(folder: Path) -> None:
    titles = re.findall("<h2>(.*?)</h2>", html(report(folder / "net.snn.onnx")))
    assert titles[:2] == ["Time steps", "Energy"]


def test_names_are_escaped(tmp_path: Path) -> None:
    b = Builder()
    x = b.qcfs(b.gemm(b.input("x", ["N", 6]), "fc<1>", (6, 12)), "a<b>&c", 4)
    source = write(b.model({"logits": b.gemm(x, "fc2", (12, 5))}), tmp_path / "a&b.onnx")
    page = html(report(source))
    assert "a&lt;b&gt;&amp;c" in page
    assert "a&amp;b.onnx" in page
    assert "<b>&" not in page
    Balanced().feed(page)


def test_estimators_never_share_a_column(folder: Path) -> None:
    result = report(folder / "net.snn.onnx", folder / "data.npz")
    lines = text(result).splitlines()
    (header,) = (line for line in lines if "FP32, paper" in line)
    assert re.split(r" {2,}", header.strip()) == ["FP32, paper", "FP32, full", "INT8, paper", "INT8, full"]
    (ratios,) = (line for line in lines if line.startswith("E_ANN / E_SNN"))
    energies = (result.paper_energy[0], result.full_energy[0], result.paper_energy[1], result.full_energy[1])
    assert ratios.split()[3:] == [f"{e.ratio:.2f}" for e in energies]
    (neurons,) = (line for line in lines if line.startswith("SNN: neurons"))
    assert neurons.split()[2] == "-"


def test_the_text_names_its_constants_and_rates(folder: Path) -> None:
    assumed = text(report(folder / "net.snn.onnx"))
    assert "FP32: multiply 3.7, add 0.9, MAC 4.6; INT8: multiply 0.2, add 0.03, MAC 0.23" in assumed
    assert "assumed, as in the paper" in assumed
    assert "measured on 4 samples" in text(report(folder / "net.snn.onnx", folder / "data.npz"))


def test_the_command(folder: Path, tmp_path: Path) -> None:
    arguments = ["report", str(folder / "net.snn.onnx"), "--data", str(folder / "data.npz"), "--limit", "3"]
    done = CliRunner().invoke(main, [*arguments, "--html", str(tmp_path / "r.html"), "--json", "-"])
    assert done.exit_code == 0, done.output
    values = json.loads(done.stdout)
    assert values["samples"] == 3
    assert [x["neuron"] for x in values["layers"]] == [*LAYERS, None]
    assert (tmp_path / "r.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    done = CliRunner().invoke(main, [*arguments, "--plan", str(folder / "plan.json")])
    assert "T_eff" in done.stdout


def test_the_command_on_bad_input(folder: Path, tmp_path: Path) -> None:
    for more in (["--data", str(tmp_path / "no.npz")], ["--html", str(tmp_path / "no" / "r.html")]):
        done = CliRunner().invoke(main, ["report", str(folder / "net.snn.onnx"), *more])
        assert done.exit_code == 2
        assert done.stderr.startswith("pascalc: ")
        assert "Traceback" not in done.stderr


def rectangles(chart: str) -> list[dict[str, float]]:
    return [
        {key: float(value) for key, value in re.findall(r'(x|y|width|height)="([\d.]+)"', tag)}
        for tag in re.findall("<rect[^>]*>", chart)
    ]


def test_bars_are_as_long_as_their_values() -> None:
    chart = svg.bars(
        [("a", [svg.Bar(1.0, "c0", "one")]), ("b", [svg.Bar(2.0, "c1", ""), svg.Bar(0.0, "c2", "")])], unit="u"
    )
    one, two, none = rectangles(chart)
    assert two["width"] == pytest.approx(2 * one["width"], abs=0.2)
    assert none["width"] == 0
    assert one["x"] + two["width"] < svg.WIDTH
    assert one["y"] < two["y"] < none["y"]


def test_infinite_and_absent_bars() -> None:
    infinite, finite = rectangles(
        svg.bars([("a", [svg.Bar(inf, "c0", "")]), ("b", [svg.Bar(3.0, "c0", "")])], unit="M")
    )
    assert infinite["width"] >= finite["width"] > 0
    assert [r["width"] for r in rectangles(svg.bars([("a", [svg.Bar(0.0, "c0", "")])], unit="u"))] == [0]


@pytest.mark.parametrize("top", [1e-4, 0.7, 1, 3, 9.99, 10, 255, 40000])
def test_ticks_are_few_and_reach_the_top(top: float) -> None:
    chart = svg.bars([("a", [svg.Bar(top, "c0", "")])], unit="u")
    ticks = [float(t) for t in re.findall(r'class="tick middle"[^>]*>([^<]+)<', chart)]
    assert ticks[0] == 0
    assert 3 <= len(ticks) <= 6
    assert 0.7 * top <= ticks[-1] <= top * (1 + 1e-9)


def test_shares_fill_the_row() -> None:
    parts = rectangles(svg.stacked([("a", [svg.Bar(1.0, "c0", "x"), svg.Bar(3.0, "c1", "y")])], unit="shares"))
    assert parts[1]["width"] == pytest.approx(3 * parts[0]["width"], abs=0.3)
    assert parts[1]["x"] == pytest.approx(parts[0]["x"] + parts[0]["width"], abs=0.2)


def test_a_histogram_has_a_bar_for_every_level() -> None:
    chart = svg.histograms([("a", [4, 2, 0], "c0"), ("b" * 60, [0, 0], "c1")])
    heights = [r["height"] for r in rectangles(chart)]
    assert heights == [72.0, 36.0, 0.0, 0.0, 0.0]
    assert "level 1: 33.3%" in chart


def test_the_raster_has_a_mark_for_every_spike_shown() -> None:
    train = np.zeros((4, 10), np.int8)
    train[0, [1, 4]] = 1
    train[1, 4] = 1
    chart = svg.raster([("a", train), ("b", np.ones((1, 1000), np.int8))], neurons=100)
    paths = re.findall(r'd="([^"]*)"', chart)
    assert [path.count("M") for path in paths] == [3, 100]
