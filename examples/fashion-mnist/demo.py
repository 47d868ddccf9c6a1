"""Compiles the two shipped networks, proves them on 1,000 test images, and shows what came out in one table."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pascalc
from pascalc.tables import table

FOLDER = Path(__file__).parent
IMAGES = FOLDER / "test-1000.npz"
NETWORKS = {"VGG-style": FOLDER / "vgg.onnx", "ResNet-style": FOLDER / "resnet.onnx"}


def column(source: Path, compiled: Path) -> tuple[list[str], bool]:
    """One network's figures, and whether the spiking network was proved to be the source network."""
    pascalc.compile(source, compiled)
    check = pascalc.verify(source, compiled, IMAGES)
    ann, snn = pascalc.evaluate(source, IMAGES), pascalc.evaluate(compiled, IMAGES)
    neurons = sum(layer.neurons for layer in check.layers)
    roots = sum(layer.root_mismatches for layer in check.layers)
    beyond = sum(layer.roots_beyond_bound for layer in check.layers)
    steps = [layer.steps_out for layer in check.layers]
    figures = [
        f"{ann.top1:.2%}",
        f"{snn.top1:.2%}",
        f"{check.argmax_mismatches} of {check.samples}",
        f"{check.source_self_mismatches} of {check.samples}",
        f"{roots} of {neurons:,}",
        f"{beyond}",
        f"{len(steps)} layers: " + (f"{steps[0]} each" if len(set(steps)) == 1 else ",".join(map(str, steps))),
        f"{snn.spike_rate:.2f} spikes a neuron and image",
        f"{ann.seconds / ann.samples * 1e3:.2f} ms",
        f"{snn.seconds / snn.samples * 1e3:.2f} ms",
        "proved equal" if check.equivalent else f"NOT EQUAL: {check.first_difference}",
    ]
    return figures, check.equivalent


def main() -> int:
    """Prints the table; 1 if a network could not be proved equal."""
    rows = [
        "accuracy of the source network",
        "accuracy of the spiking network",
        "answers that differ",
        "  (the source from itself, other float order)",
        "spike counts that differ at the root",
        "  of these not explained by float rounding",
        "time steps",
        "spike rate",
        "time for an image, source",
        "time for an image, spiking",
        "verdict",
    ]
    columns, proved = [], True
    with tempfile.TemporaryDirectory() as folder:
        for name, source in NETWORKS.items():
            print(f"compiling and verifying {source.name} on {IMAGES.name} ...", file=sys.stderr, flush=True)
            figures, equal = column(source, Path(folder) / f"{source.stem}.snn.onnx")
            columns.append([name, *figures])
            proved = proved and equal
    print(table(["Fashion-MNIST", *(c[0] for c in columns)], list(zip(rows, *(c[1:] for c in columns), strict=True))))
    return 0 if proved else 1


if __name__ == "__main__":
    sys.exit(main())
