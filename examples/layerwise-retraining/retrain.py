"""Fewer levels where a network can spare them, and what that does to accuracy: Algorithm 4 of PASCAL on Fashion-MNIST.

    python retrain.py WORK

trains the ResNet of the example fashion-mnist at a uniform L, counts its levels on training images, makes a plan of
layerwise levels by the AL metric, retrains with it, compiles and verifies both networks, and prints them side by side.
Every step leaves its files in the folder WORK; given again, the command goes on from what is there.

PASCAL's retraining runs at the uniform L for two thirds of its epochs and then at the layerwise levels. The first two
thirds are the same computation as those of the first training, so they are taken from its checkpoint.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "fashion-mnist"))

from data import DEBIAN_FOLDER, load
from networks import resnet
from train import INITIAL_THETA, PEAK_RATE, Training, accuracy

import pascalc
from pascalc.al import Plan, make_plan
from pascalc.tables import table
from pascalc.train import apply_plan, export, level_histograms, replace_relu

CALIBRATION = 3000
"""Training images that the levels are counted on, as in the paper."""
VERIFIED = 1000
"""Test images on which every single spike count is compared."""
QUICK = {"train": 128, "test": 100, "verified": 4}
"""Images with --quick, which tries the script out and gives no figures worth reading."""

Images = tuple[Tensor, Tensor]


def network(levels: int) -> nn.Module:
    model = resnet()
    replace_relu(model, levels=levels, theta=INITIAL_THETA)
    return model.to(memory_format=torch.channels_last)


def train_until(training: Training, epochs: int, images: Images, test: Images, batch: int, checkpoint: Path) -> None:
    """Train on to the given epoch, with a checkpoint after each."""
    if checkpoint.exists():
        training.load(checkpoint)
    while training.epochs_done < epochs:
        start = time.monotonic()
        loss = training.epoch(*images, batch)
        training.save(checkpoint)
        click.echo(
            f"{checkpoint.stem}: epoch {training.epochs_done}, loss {loss:.4f}, "
            f"test accuracy {accuracy(training.model, *test):.2%}, {time.monotonic() - start:.0f} s"
        )


def onnx_accuracy(file: Path, test: Path) -> float:
    """Share of the test images that an ONNX file classifies right in onnxruntime."""
    session = onnxruntime.InferenceSession(file)
    with np.load(test) as arrays:
        images, labels = arrays["x"], arrays["y"]
    batches = ((images[i : i + 50], labels[i : i + 50]) for i in range(0, len(labels), 50))
    return sum(int((session.run(None, {"input": x})[0].argmax(1) == y).sum()) for x, y in batches) / len(labels)


def figures(name: str, work: Path, test: Path, verified: int) -> dict[str, Any]:
    """Compile a network and measure it beside its source, all through onnxruntime."""
    source, compiled = work / f"{name}.onnx", work / f"{name}.snn.onnx"
    pascalc.compile(source, compiled)
    check = pascalc.verify(source, compiled, test, limit=verified)
    report = pascalc.report(compiled)
    return {
        "network": name,
        "levels": [layer.levels for layer in report.layers if layer.neurons],
        "ann_accuracy": onnx_accuracy(source, test),
        "snn_accuracy": onnx_accuracy(compiled, test),
        "effective_steps": report.paper_steps.mean,
        "verified": check.equivalent,
        "verified_samples": check.samples,
        "neurons": sum(layer.neurons for layer in check.layers),
        "root_mismatches": sum(layer.root_mismatches for layer in check.layers),
        "roots_beyond_bound": sum(layer.roots_beyond_bound for layer in check.layers),
    }


def summary(uniform: dict[str, Any], layerwise: dict[str, Any]) -> str:
    rows: list[tuple[str, Callable[[dict[str, Any]], str]]] = [
        ("levels L", lambda x: ",".join(map(str, x["levels"]))),
        ("T_eff (paper's estimator, SpikeRate 0.75)", lambda x: f"{x['effective_steps']:.2f}"),
        ("accuracy of the ANN", lambda x: f"{x['ann_accuracy']:.2%}"),
        ("accuracy of the SNN", lambda x: f"{x['snn_accuracy']:.2%}"),
        ("spike counts that differ at the root", lambda x: f"{x['root_mismatches']} of {x['neurons']:,}"),
        ("  beyond the rounding bound", lambda x: str(x["roots_beyond_bound"])),
        ("SNN equals ANN", lambda x: "proved" if x["verified"] else "NOT EQUAL"),
    ]
    share = layerwise["effective_steps"] / uniform["effective_steps"]
    points = 100 * (layerwise["snn_accuracy"] - uniform["snn_accuracy"])
    return (
        table(["", "uniform", "layerwise"], [(label, value(uniform), value(layerwise)) for label, value in rows])
        + f"\n\nT_eff is {share:.0%} of uniform; accuracy changes by {points:+.2f} points."
    )


@click.command(help="Train, plan, retrain, export, compile and verify; all files go to the folder WORK.")
@click.argument("work", type=click.Path(file_okay=False, path_type=Path))
@click.option("--levels", type=click.IntRange(1, 255), default=8, show_default=True, help="The uniform L.")
@click.option("--clusters", type=click.IntRange(min=1), default=3, show_default=True, help="Clusters of the plan.")
@click.option("--al-levels", default="6,3,1", show_default=True, help="L of each cluster, from the lowest AL metric.")
@click.option("--epochs", type=click.IntRange(min=3), default=21, show_default=True, help="Of each training.")
@click.option("--peak-rate", type=float, default=PEAK_RATE, show_default=True, help="The highest learning rate.")
@click.option("--start", type=click.Path(exists=True, path_type=Path), help="A checkpoint of train.py to start from.")
@click.option("--batch", type=click.IntRange(min=1), default=128, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--data", type=click.Path(exists=True, path_type=Path), default=DEBIAN_FOLDER, show_default=True)
@click.option("--fast", is_flag=True, help="Use torch.compile (needs a C++ compiler) and bfloat16 in training.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads; default: torch's own choice.")
@click.option("--quick", is_flag=True, help="A few images only, to try the script out.")
def main(
    work: Path,
    levels: int,
    clusters: int,
    al_levels: str,
    epochs: int,
    peak_rate: float,
    start: Path | None,
    batch: int,
    seed: int,
    data: Path,
    fast: bool,
    threads: int | None,
    quick: bool,
) -> None:
    if threads is not None:
        torch.set_num_threads(threads)
    work.mkdir(parents=True, exist_ok=True)
    images, labels = (torch.from_numpy(a[: QUICK["train"] if quick else None]) for a in load(data, "train"))
    test_images, test_labels = (torch.from_numpy(a[: QUICK["test"] if quick else None]) for a in load(data, "t10k"))
    test = (test_images, test_labels)
    np.savez(work / "test.npz", x=test_images.numpy(), y=test_labels.numpy())
    calibration = images[:CALIBRATION].split(250)
    steps = epochs * (len(images) // batch)
    switch = round(epochs * 2 / 3)

    def training() -> Training:
        torch.manual_seed(seed)
        model = network(levels)
        if start is not None:
            model.load_state_dict(torch.load(start, weights_only=True)["model"])
        return Training(model, steps, seed, fast, peak_rate)

    uniform = training()
    at_switch = work / f"uniform-{switch}.pt"
    if not at_switch.exists():
        train_until(uniform, switch, (images, labels), test, batch, work / "uniform.pt")
        shutil.copy(work / "uniform.pt", at_switch)
    train_until(uniform, epochs, (images, labels), test, batch, work / "uniform.pt")
    export(uniform.model, test_images[:1], work / "uniform.onnx", fold_bn=False, calibration=calibration)

    plan_file = work / "plan.json"
    if not plan_file.exists():  # a plan edited by hand is kept
        plan = make_plan(
            level_histograms(uniform.model, calibration), clusters, [int(part) for part in al_levels.split(",")]
        )
        plan_file.write_text(plan.to_json(), encoding="utf-8")
    plan = Plan.read(plan_file)
    click.echo(
        table(
            ["layer", "AL metric", "cluster", "L"],
            [(x.name, f"{x.metric:.2f}" if x.metric is not None else "", x.cluster, x.levels) for x in plan.layers],
        )
    )

    layerwise = training()
    layerwise_file = work / "layerwise.pt"
    if not layerwise_file.exists():
        shutil.copy(at_switch, layerwise_file)
    apply_plan(layerwise.model, plan)
    train_until(layerwise, epochs, (images, labels), test, batch, layerwise_file)
    export(layerwise.model, test_images[:1], work / "layerwise.onnx", fold_bn=False, calibration=calibration)

    verified = QUICK["verified"] if quick else VERIFIED
    results = [figures(name, work, work / "test.npz", verified) for name in ("uniform", "layerwise")]
    (work / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    click.echo("\n" + summary(*results))


if __name__ == "__main__":
    main()
