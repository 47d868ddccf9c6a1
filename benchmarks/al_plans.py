"""Layerwise L on Fashion-MNIST: plans by the AL metric and by measured sensitivity, with and without correction.

    python benchmarks/al_plans.py examples/fashion-mnist/resnet.onnx [--data FOLDER] [--calibration 2000] [--test 10000]

Calibration images are from the training set, every figure in the table is on the test set. Nothing is retrained.
Prints the data-free metrics beside the measured ones, then one row a plan: T_eff by both estimators, the share of test
images that are classified as by the source, and accuracy. docs/al.md shows what this printed.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click
import numpy as np

from pascalc import pipeline
from pascalc.al import make_plan, metric
from pascalc.al.histograms import Histograms
from pascalc.modelfile import load
from pascalc.passes import ANALYSIS
from pascalc.planning import bn_statistics, correction
from pascalc.planning.adjustable import AdjustableNetwork, Setting, effects
from pascalc.planning.calibrate import measure
from pascalc.planning.sensitivity import Search
from pascalc.planning.steps import effective_steps
from pascalc.stream import open_samples
from pascalc.tables import table

EXAMPLE = Path(__file__).parents[1] / "examples" / "fashion-mnist"
sys.path.insert(0, str(EXAMPLE))

from data import DEBIAN_FOLDER  # noqa: E402
from data import load as load_images  # noqa: E402

BUDGETS = (0.01, 0.03)
CORRECTED = (
    "metric, measured, 3 clusters",
    "sensitivity at the steps of 'metric, measured, 3 clusters'",
    "uniform L/2",
)


@click.command(help="Print the table of plans for MODEL.")
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.option("--data", type=click.Path(exists=True, path_type=Path), default=DEBIAN_FOLDER, show_default=True)
@click.option("--calibration", type=int, default=2000, show_default=True)
@click.option("--test", type=int, default=10000, show_default=True)
def main(model: Path, data: Path, calibration: int, test: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for split, count in (("train", calibration), ("t10k", test)):
            images, labels = load_images(data, split)
            chosen = np.random.default_rng(0).permutation(len(images))[:count]
            files[split] = Path(folder) / f"{split}.npz"
            np.savez(files[split], x=images[chosen], y=labels[chosen])
        _compare(model, files["train"], files["t10k"])


def _compare(model: Path, calibration: Path, test: Path) -> None:
    network = AdjustableNetwork(model)
    analysed = load(model)
    pipeline.run(analysed, ANALYSIS)
    measured = measure(model, calibration)
    plans: dict[str, dict[str, int]] = {"the source": network.levels}
    known = {"measured": measured}
    if bn_statistics.has_statistics(analysed):
        known["data-free"] = bn_statistics.estimate(analysed)
    _print_metrics(known)
    for source, counted in known.items():
        for clusters in (2, 3):
            plan = make_plan(counted, clusters)
            plans[f"metric, {source}, {clusters} clusters"] = {x.name: x.levels for x in plan.layers}
    search = Search(model, calibration)
    for name, plan in list(plans.items())[1:]:
        steps = effective_steps(model, plan).paper
        plans[f"sensitivity at the steps of '{name}'"] = search.at_most(steps)
    plans["uniform L/2"] = {name: max(1, level // 2) for name, level in network.levels.items()}
    for budget in BUDGETS:
        plans[f"budget {budget:.0%}"] = search.within(budget).levels

    rows = [(name, plan, Setting(plan), "") for name, plan in plans.items()]
    corrected = {name: plans[name] for name in CORRECTED}
    corrected["budget 1%, found with correction"] = search.within(BUDGETS[0], correct=True).levels
    for name, plan in corrected.items():
        fitted = correction.fit(network, search.samples, plan)
        rows.append((f"{name}, corrected", plan, fitted.setting, fitted.method))
    found = effects(network, open_samples(test, load(model)), [setting for _, _, setting, _ in rows])
    lines = []
    for (name, plan, _, method), effect in zip(rows, found, strict=True):
        steps = effective_steps(model, plan, measured)
        accuracy = "" if effect.accuracy is None else f"{effect.accuracy:.2%}"
        levels = " ".join(map(str, plan.values()))
        figures = (f"{steps.mean_levels:.2f}", f"{steps.paper:.2f}", f"{steps.full:.2f}", f"{effect.agreement:.2%}")
        lines.append((name, *figures, accuracy, method, levels))
    header = ["plan", "mean L", "T_eff paper", "T_eff full", "agreement", "accuracy", "correction", "levels"]
    print(table(header, lines))


def _print_metrics(known: dict[str, Histograms]) -> None:
    metrics = {name: [metric(h, len(counted)) for h in counted.values()] for name, counted in known.items()}
    labels = list(known["measured"])
    rows = [(label, *(f"{m[i]:.2f}" for m in metrics.values())) for i, label in enumerate(labels)]
    print(table(["layer", *(f"metric, {name}" for name in metrics)], rows))
    if "data-free" in metrics:
        print(f"\nSpearman's rank correlation: {_spearman(metrics['measured'], metrics['data-free']):.2f}\n")


def _spearman(a: list[float], b: list[float]) -> float:
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def _ranks(values: list[float]) -> list[float]:
    """Ranks from 0; equal values share the mean of theirs."""
    ordered = sorted(values)
    return [ordered.index(v) + (ordered.count(v) - 1) / 2 for v in values]


if __name__ == "__main__":
    main()
