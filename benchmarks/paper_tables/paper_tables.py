"""The time-step and energy tables of PASCAL (Ramesh & Srinivasan 2025), from graphs: ours beside the paper's.

    python benchmarks/paper_tables/paper_tables.py

The networks are ONNX graphs (graphs.py), whose fan-ins, operation counts and neurons pascalc reads as it does for a
report; nothing is measured, so the tables need neither weights nor data. Every figure is by the paper's estimator,
except in the last table, which is ours alone.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from pascalc.energy import (
    ASSUMED_SPIKE_RATE,
    FP32,
    INT8,
    Layer,
    effective_steps_paper,
    energy_full,
    energy_paper,
    normalised_steps_paper,
)
from pascalc.ops import Pasc

sys.path.insert(0, str(Path(__file__).parent))

from graphs import analyse, resnet, vgg16

VGG16_CIFAR = analyse(vgg16(32, 10))
VGG16_IMAGENET = analyse(vgg16(224, 1000))
RESNET18_CIFAR = analyse(resnet([2, 2, 2, 2], 32, 10))
RESNET34_IMAGENET = analyse(resnet([3, 4, 6, 3], 224, 1000))


def spiking(network: Sequence[Layer]) -> list[Layer]:
    """The layers that feed QCFS neurons."""
    return [x for x in network if x.neurons]


def with_levels(layers: Sequence[Layer], levels: Sequence[int]) -> list[Layer]:
    """The layers with the given levels, and the steps that follow from them in a chain."""
    steps = [1, *levels[:-1]]
    return [replace(x, levels=n, steps_in=t) for x, n, t in zip(layers, levels, steps, strict=True)]


# The fan-ins that the r' in the authors' public script stand for, r' = 1/(fan-in * 0.75): their layerwise counts, of
# which appendices A.5 to A.7 treat.
_VGG_CONVOLUTIONS = (27, 576, 576, 1152, 1152, 2304, 2304, 2304, 4608, 4608, 4608, 4608, 4608)
TYPED_VGG_CIFAR = (*_VGG_CONVOLUTIONS, 512, 512, 512)
TYPED_VGG_IMAGENET = (*_VGG_CONVOLUTIONS, 25600, 4096, 4096)
TYPED_RESNET18 = (288, 2304, 2304, 4608, 4608, 9216, 9216, 18432, 18432, 512)
TYPED_RESNET34 = (216, *[2304] * 3, *[4608] * 4, *[9216] * 6, *[18432] * 3, 512)

TYPED_RESNET = "{} fan-ins typed for {} layers, those of the blocks four times too large"

# network, layers averaged, L, the typed fan-ins, the paper's figure, why ours differs
T_NORM = (
    ("VGG-16 CIFAR", spiking(VGG16_CIFAR), 4, TYPED_VGG_CIFAR[:15], "4.21", "512 inputs typed for fc2, which has 4096"),
    ("VGG-16 CIFAR", spiking(VGG16_CIFAR), 8, TYPED_VGG_CIFAR, "8.79", "the same, and fc3; 8.796 cut off"),
    ("VGG-16 ImageNet", VGG16_IMAGENET, 16, TYPED_VGG_IMAGENET, "18.37", ""),
    ("ResNet-18 CIFAR", spiking(RESNET18_CIFAR), 8, TYPED_RESNET18, "8.22", TYPED_RESNET.format(10, 17)),
    ("ResNet-34 ImageNet", spiking(RESNET34_IMAGENET), 8, TYPED_RESNET34, "8.17", TYPED_RESNET.format(18, 33)),
)

FIRST_TEN = "10 fan-ins typed for 17 layers, so that the first 10 levels are averaged"

# network, layers averaged, the levels that the authors' public code is set to, the typed fan-ins, the paper's figure,
# why ours differs
T_EFF = (
    (
        "VGG-16 CIFAR",
        spiking(VGG16_CIFAR),
        (8, 4, 4, 1, 4, 4, 1, 1, 1, 1, 1, 4, 8, 8, 8),
        TYPED_VGG_CIFAR,
        "4.54",
        "512 inputs typed for fc2, as above",
    ),
    (
        "ResNet-18 CIFAR",
        spiking(RESNET18_CIFAR),
        (4, 4, 4, 1, 4, 4, 4, 1, 4, 1, 1, 1, 1, 1, 1, 1, 4),
        TYPED_RESNET18,
        "3.14",
        FIRST_TEN,
    ),
    (
        "ResNet-18 CIFAR",
        spiking(RESNET18_CIFAR),
        (4, 2, 4, 1, 4, 2, 2, 1, 4, 2, 2, 1, 4, 1, 1, 1, 4),
        TYPED_RESNET18,
        "2.63",
        FIRST_TEN,
    ),
    (
        "ResNet-34 ImageNet",
        spiking(RESNET34_IMAGENET),
        (16, 16, 16, *(8, 16) * 12, *(8,) * 6),
        TYPED_RESNET34,
        "9.92",
        "not these levels: they cannot average less than 11.6, and the script itself gives what the third column says",
    ),
)

# network, layers, the paper's ratios in FP32 and INT8, and the only (b, c) of three decimals that give both
ENERGY = (
    ("VGG-16 CIFAR", VGG16_CIFAR, "7.49", "11.03", 0.66, 0.005),
    ("VGG-16 CIFAR", VGG16_CIFAR, "7.96", "11.70", 0.62, 0.005),
    ("VGG-16 ImageNet", VGG16_IMAGENET, "6.76", "9.94", 0.73, 0.006),
    ("ResNet-18 CIFAR", RESNET18_CIFAR, "5.72", "8.38", 0.86, 0.008),
    ("ResNet-34 ImageNet", RESNET34_IMAGENET, "5.42", "7.95", 0.91, 0.008),
)


UNIFORM = (
    ("VGG-16 CIFAR", VGG16_CIFAR, 4),
    ("VGG-16 CIFAR", VGG16_CIFAR, 8),
    ("VGG-16 ImageNet", VGG16_IMAGENET, 16),
    ("ResNet-18 CIFAR", RESNET18_CIFAR, 8),
    ("ResNet-34 ImageNet", RESNET34_IMAGENET, 8),
)


def with_share(share: float) -> list[Layer]:
    """A stand-in of two layers whose first has the given share of the MACs, for the paper's energy formula."""
    total = 1000
    first = round(share * total)
    rest = Layer("rest", 1, total - first, 0, levels=1, steps_in=1, spike_rate=ASSUMED_SPIKE_RATE)
    return [replace(rest, name="first", macs=first, spike_rate=None), rest]


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table under a title."""
    lines = [header, ["---"] * len(header), *rows]
    return f"{title}\n\n" + "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def verdict(ours: Sequence[str], paper: Sequence[str], reason: str) -> str:
    return "agrees" if ours == paper else f"differs: {reason}"


def with_typed(fan_ins: Sequence[int], levels: Sequence[int]) -> str:
    """What the authors' script makes of its fan-ins: as many layers as the shorter list has."""
    layers = [
        Layer(str(index), fan_in, 0, 1, levels=steps, steps_in=steps, spike_rate=ASSUMED_SPIKE_RATE)
        for index, (fan_in, steps) in enumerate(zip(fan_ins, levels, strict=False))
    ]
    return f"{effective_steps_paper(layers).mean:.3f}"


def t_norm_rows() -> list[list[str]]:
    rows = []
    for name, layers, levels, typed, paper, reason in T_NORM:
        ours = f"{normalised_steps_paper(layers, levels).mean:.2f}"
        theirs = with_typed(typed, [levels] * len(typed))
        rows.append([name, str(levels), str(len(layers)), ours, theirs, paper, verdict([ours], [paper], reason)])
    return rows


def t_eff_rows() -> list[list[str]]:
    rows = []
    for name, layers, levels, typed, paper, reason in T_EFF:
        ours = f"{effective_steps_paper(with_levels(layers, levels)).mean:.2f}"
        theirs = with_typed(typed, levels)
        rows.append([name, ",".join(map(str, levels)), ours, theirs, paper, verdict([ours], [paper], reason)])
    return rows


def fan_in_rows() -> list[list[str]]:
    """The typed fan-ins in order beside those of the layers that a ResNet's typed list has an entry for."""
    rows = []
    for name, network, typed in (
        ("VGG-16 CIFAR", VGG16_CIFAR, TYPED_VGG_CIFAR),
        ("VGG-16 ImageNet", VGG16_IMAGENET, TYPED_VGG_IMAGENET),
        ("ResNet-18 CIFAR", RESNET18_CIFAR, TYPED_RESNET18),
        ("ResNet-34 ImageNet", RESNET34_IMAGENET, TYPED_RESNET34),
    ):
        runs = [" ".join(f"{n} x {len(list(run))}" for n, run in groupby(list_)) for list_ in (fan_ins(network), typed)]
        same = fan_ins(network) == list(typed)
        rows.append([name, runs[0], runs[1], "agrees" if same else "differs"])
    return rows


def fan_ins(network: Sequence[Layer]) -> list[int]:
    return [x.fan_in for x in network]


def energy_rows() -> list[list[str]]:
    rows = []
    for name, network, fp32, int8, rate, share in ENERGY:
        formula = [f"{energy_paper(with_share(share), cost, rate).ratio:.2f}" for cost in (FP32, INT8)]
        true_share = network[0].macs / sum(x.macs for x in network)
        ours = [f"{energy_paper(network, cost, rate).ratio:.2f}" for cost in (FP32, INT8)]
        reason = (
            "the true c has more digits"
            if f"{true_share:.3f}" == f"{share:.3f}"
            else f"the paper's c is not this network's {true_share:.4f}; where it comes from is not known"
        )
        rows.append(
            [
                name,
                f"{rate:.2f}",
                f"{share:.3f}",
                "/".join(formula),
                f"{fp32}/{int8}",
                f"{true_share:.4f}",
                "/".join(ours),
                verdict(ours, [fp32, int8], reason),
            ]
        )
    return rows


def operation_rows() -> list[list[str]]:
    rows = []
    levelled = [(name, network, [levels] * len(spiking(network))) for name, network, levels in UNIFORM]
    for name, network, levels in (*levelled, ("VGG-16 CIFAR", VGG16_CIFAR, T_EFF[0][2])):
        layers = with_levels(spiking(network), levels)
        macs = sum(x.macs for x in network)
        accumulates = sum(x.macs * x.spike_rate for x in network if x.spike_rate is not None)
        stages = [[x.neurons * count for count in Pasc.operations(x.levels, x.steps_in)] for x in layers]
        integrate, correct, emit = map(sum, zip(*stages, strict=True))
        counters = (integrate + correct) // 2  # the other half of the first two stages are membrane updates
        counts = [counters + emit, counters, sum(x.neurons * x.levels for x in layers)]
        rows.append(
            [
                name,
                str(levels[0]) if len(set(levels)) == 1 else ",".join(map(str, levels)),
                f"{sum(x.neurons for x in layers) / 1e6:.3f}",
                *(f"{count / 1e6:.2f}" for count in (macs, accumulates, *counts)),
                f"{(counts[0] + counts[1]) / accumulates:.1%}",
            ]
        )
    return rows


def full_rows() -> list[list[str]]:
    rows = []
    for (*_, rate, _), (name, network, levels) in zip(ENERGY, UNIFORM, strict=True):
        layers = [
            replace(x, levels=levels, steps_in=1 if x.spike_rate is None else levels, spike_rate=x.spike_rate and rate)
            for x in network
        ]
        cells = []
        for folded in (False, True):
            energy = energy_full([replace(x, folded=folded) for x in layers], FP32)
            cells.append(f"{energy.ratio:.2f}")
        rows.append([name, str(levels), f"{rate:.2f}", *cells, f"{energy.neurons / energy.snn:.1%}"])
    return rows


def main() -> None:
    print(
        table(
            "T_norm, the effective time steps with one L for all layers (SpikeRate 0.75)",
            ["network", "L", "layers", "ours", "with the typed fan-ins", "paper", "verdict"],
            t_norm_rows(),
        )
    )
    print(
        table(
            "T_eff with layerwise L (SpikeRate 0.75). The levels behind the paper's 2.13 and 9.92 are not public",
            ["network", "levels", "ours", "with the typed fan-ins", "paper", "verdict"],
            t_eff_rows(),
        )
    )
    print(
        table(
            "Fan-ins of all linear layers, from the graphs and as typed into the authors' script: the layerwise counts"
            " that the paper's T_norm and T_eff are made of. The printed tables of appendices A.5 to A.7 were not at"
            " hand",
            ["network", "from the graph", "typed", "verdict"],
            fan_in_rows(),
        )
    )
    print(
        table(
            "E_ANN / E_SNN, FP32/INT8. b and c are solved from the paper's two ratios, not read in it;"
            " its networks are taken in the order of its other tables",
            ["network", "b", "c", "formula", "paper", "true c", "with true c", "verdict"],
            energy_rows(),
        )
    )
    print(
        table(
            "Operations of one inference in millions, what appendices A.5 to A.7 are about. A neuron makes"
            " T_in + max(T_in, L) - 1 + L membrane updates and T_in + max(T_in, L) - 1 counter updates, for T_in = L"
            " the paper's 3L - 1 and 2L - 1; an integrate-and-fire neuron makes L updates. SpikeRate 0.75",
            [
                "network",
                "L",
                "neurons",
                "MACs of the ANN",
                "accumulates",
                "membrane updates",
                "counter updates",
                "IF updates",
                "neurons / accumulates",
            ],
            operation_rows(),
        )
    )
    print(
        table(
            "E_ANN / E_SNN in FP32 by our estimator, with neuron operations, at the same b and uniform L."
            " Not comparable with the table above",
            ["network", "L", "b", "thresholds scaled", "thresholds folded", "neurons' share, folded"],
            full_rows(),
        )
    )


if __name__ == "__main__":
    main()
