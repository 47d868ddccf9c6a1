"""Is the spiking network the source network? Every spike count, over whole test sets.

    python benchmarks/lossless.py vgg|resnet fashion.npz [--limit N] [--schedule collapsed] [--threads N]
    python benchmarks/lossless.py cifar-resnet20 cifar.npz

``fashion.npz`` is what ``examples/fashion-mnist/data.py`` writes, for the two shipped networks. cifar-resnet20 is the
public QCFS ResNet-20 structure for CIFAR-10 with random weights (needs PyTorch; x: float32 [N, 3, 32, 32]). Each is
compiled at its own levels and at layerwise ones, 4,2,4,1,... in the order of the graph; a network compiled at other
levels is compared with its source at these levels.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from pathlib import Path

import pascalc

ROOT = Path(__file__).parent.parent
PATTERN = (4, 2, 4, 1)
HEADER = (
    "| network | images | levels | schedule | neurons | root mismatches | per 10^6 | largest margin | beyond bound | "
    "answers differing | source from itself | largest logit difference |"
)


def cifar_resnet20(folder: Path) -> Path:
    """The public structure as its export looks, BatchNormalization kept."""
    import torch

    from pascalc.train import export

    sys.path.insert(0, str(ROOT))
    from tests.torch_networks import cifar_resnet20

    path = folder / "cifar-resnet20.onnx"
    export(cifar_resnet20(), torch.zeros(1, 3, 32, 32), path, fold_bn=False)
    return path


def row(source: Path, data: Path, levels: dict[str, int] | None, options: argparse.Namespace, folder: Path) -> str:
    compiled = folder / "compiled.onnx"
    pascalc.compile(source, compiled, levels=levels, schedule=options.schedule)
    result = pascalc.verify(source, compiled, data, limit=options.limit, threads=options.threads)
    neurons = sum(x.neurons for x in result.layers)
    roots = sum(x.root_mismatches for x in result.layers)
    beyond = sum(x.roots_beyond_bound for x in result.layers)
    margin = max(x.max_root_margin for x in result.layers)
    shown = "its own" if levels is None else ",".join(map(str, PATTERN)) + ",..."
    print(*(f"  {r}" for r in result.roots), *result.findings(), sep="\n", file=sys.stderr, flush=True)
    verdict = "" if result.equivalent else " **NOT EQUIVALENT**"
    return (
        f"| {source.stem}{verdict} | {result.samples} | {shown} | {options.schedule} | {neurons:,} | {roots} | "
        f"{roots / neurons * 1e6:.3f} | {margin:.1e} | {beyond} | {result.argmax_mismatches} | "
        f"{result.source_self_mismatches} | {result.max_abs_output_diff:.1e} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", choices=["vgg", "resnet", "cifar-resnet20"])
    parser.add_argument("data", type=Path)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--schedule", choices=["unrolled", "collapsed"], default="unrolled")
    options = parser.parse_args()
    print(HEADER, "|" + "---|" * HEADER.count(" | ") + "---|", sep="\n", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shipped = ROOT / "examples" / "fashion-mnist" / f"{options.network}.onnx"
        source = cifar_resnet20(folder) if options.network == "cifar-resnet20" else shipped
        names = [neuron.name for neuron in pascalc.inspect(source).neurons]
        mixed = dict(zip(names, itertools.cycle(PATTERN), strict=False))
        for levels in (None, mixed):
            print(row(source, options.data, levels, options, folder), flush=True)


if __name__ == "__main__":
    main()
