"""Runs a network that `pascalc export --to weights` wrote, with NumPy alone: python run.py FOLDER

It reads network.json and arrays.npz (docs/export.md describes them), computes every train from the recorded inputs, and
compares it with the recorded one, spike for spike. Axis 0 of a train is time and sample, step by step: [T*N, ...].
"""

import json
import sys
from pathlib import Path

import numpy as np


def windows(op, x, filler):
    """Every window of the images: [N, C, H, W, kernel height, kernel width]."""
    (top, left, bottom, right), (sy, sx), (dy, dx) = op["pads"], op["strides"], op["dilations"]
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=filler)
    extent = [d * (k - 1) + 1 for d, k in zip((dy, dx), op["kernel"], strict=True)]
    return np.lib.stride_tricks.sliding_window_view(x, extent, (2, 3))[:, :, ::sy, ::sx, ::dy, ::dx]


def conv(op, x, weight, bias=0):
    parts = zip(np.split(windows(op, x, 0), op["group"], 1), np.split(weight, op["group"]), strict=True)
    sums = [np.tensordot(part.astype(np.float64), w, ((1, 4, 5), (1, 2, 3))) for part, w in parts]
    return np.moveaxis(np.concatenate(sums, 3) + bias, 3, 1)


def added(x, steps):
    """The sum of a train over its steps, in their order."""
    first, *rest = x.reshape(steps, -1, *x.shape[1:])
    return sum(rest, first)


def align(op, x):
    """The train and steps of zeros."""
    more = len(x) // op["steps_in"] * (op["steps_out"] - op["steps_in"])
    return np.concatenate([x, np.zeros((more, *x.shape[1:]))])


def bias(op, x, constant, shares):
    """The train and a constant, of which each step has its share."""
    steps = x.reshape(op["steps"], -1, *x.shape[1:])
    return (steps + shares.reshape(-1, *[1] * (steps.ndim - 1)) * constant).reshape(x.shape)


def neuron(op, x, threshold=None, thresholds=None, unit=None):
    """PASC: step t spikes where the sum of the current reaches the t-th threshold; a spike is one unit high."""
    total = added(x, op["steps_in"])
    if thresholds is None:
        levels, phi = np.float32(op["levels"]), np.float32(op["phi"])
        steps = np.arange(1, op["steps_out"] + 1, dtype=np.float32).reshape(-1, *[1] * total.ndim)
        total, thresholds, unit = total * (levels / threshold) + phi, steps, threshold / levels
    return ((total >= thresholds) * unit).reshape(-1, *total.shape[1:])


KINDS = {
    "Conv": conv,
    "Dense": lambda op, x, weight, bias=0: x.astype(np.float64) @ weight + bias,
    "Add": lambda op, x, y=0, bias=0: x + y + bias,
    "Concat": lambda op, *parts: np.concatenate(parts, op["axis"]),
    "MaxPool": lambda op, x: windows(op, x, -np.inf).max((4, 5)),
    "AveragePool": lambda op, x: windows(op, x, 0).mean((4, 5), np.float64),
    "Reshape": lambda op, x: x.reshape(-1, *op["shape"]),
    "Accumulate": lambda op, x: added(x, op["steps"]),
    "Align": align,
    "Spread": lambda op, x: np.concatenate([x / np.float32(op["steps"])] * op["steps"]),
    "Bias": bias,
    "PascIF": neuron,
    "MultiThresholdIF": neuron,
}


def run(folder):
    """By the name of each neuron: how many spikes of its train there are, and how many are other than recorded."""
    network, arrays = json.loads((folder / "network.json").read_text()), np.load(folder / "arrays.npz")
    values = {one["name"]: arrays[f"{one['name']}.input"] for one in network["inputs"]}
    found = {}
    for op in network["operations"]:
        numbers = {role: arrays[name] for role, name in op["arrays"].items()}
        result = KINDS[op["kind"]](op, *(values[name] for name in op["reads"]), **numbers)
        values[op["name"]] = result.astype(np.float32)
        if "label" in op:
            train = arrays[f"{op['name']}.train"]
            found[op["name"]] = int(train.sum()), int(np.sum((result > 0).reshape(train.shape) != train))
    return found


if __name__ == "__main__":
    for name, (spikes, others) in run(Path(sys.argv[1])).items():
        print(f"{name}: {spikes} spikes, {others} of them other than recorded")
