"""Histograms of spike counts, one a layer: their file format, their sum, and their place in a network's file.

The format is one JSON object ``{"<layer>": [counts of level 0, 1, ..., L], ...}``. It is what `pascalc histogram`
writes to a file, and what `pascalc.train.export` records in an ONNX file under the metadata key `pascalc.histograms`.
Counts are exact integers, so the histograms of several shards of a data set add up to those of the whole.

A layer's name is the label that the compiler shows (`block1/relu`); the name of the PyTorch module (`block1.relu`)
is understood too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pascalc.al.metrics import Histogram
from pascalc.errors import CompileError
from pascalc.files import read_text
from pascalc.metadata import read_json
from pascalc.ops import MAX_LEVELS

METADATA_KEY = "pascalc.histograms"

Histograms = dict[str, Histogram]


def to_json(histograms: Mapping[str, Histogram]) -> str:
    """The histograms as JSON text, one line a layer."""
    rows = ",\n".join(f" {json.dumps(name)}: {json.dumps(h.counts.tolist())}" for name, h in histograms.items())
    return "{\n" + rows + "\n}\n"


def from_json(text: str, *, file: object = None) -> Histograms:
    """Read histograms from JSON text.

    Raises:
        CompileError: the text is not a JSON object of lists of counts, or names a layer twice.
    """
    try:
        values = read_json(text)
        if not isinstance(values, dict) or not values:
            raise CompileError("histograms must be a JSON object with a list of counts for every layer")
        return {name: _histogram(name, counts) for name, counts in values.items()}
    except ValueError as error:
        raise CompileError(f"the histograms are not JSON: {error}", file=file) from None
    except CompileError as error:
        hint = "Write them with `pascalc histogram MODEL --calib DATA.npz -o FILE`."
        raise CompileError(error.message, file=file, node=error.node, hint=hint) from None


def read(path: str | Path) -> Histograms:
    """Read histograms from a UTF-8 JSON file.

    Raises:
        CompileError: the file cannot be read, or does not hold histograms.
    """
    return from_json(read_text(path, "histogram file"), file=path)


def merge(shards: Sequence[Mapping[str, Histogram]]) -> Histograms:
    """The sum of the histograms of several shards of one data set.

    Raises:
        CompileError: no shard; the shards have different layers, or different levels in a layer.
    """
    if not shards:
        raise CompileError("there are no histograms to add")
    total = dict(shards[0])
    for shard in shards[1:]:
        if shard.keys() != total.keys():
            different = ", ".join(sorted(shard.keys() ^ total.keys()))
            raise CompileError(
                f"the histograms are of different networks: {different} is not in all of them",
                hint="Add only histograms that were counted with one model.",
            )
        for name, histogram in shard.items():
            try:
                total[name] = total[name] + histogram
            except CompileError as error:
                raise CompileError(error.message, node=name) from None
    return total


def match(histograms: Mapping[str, Histogram], levels: Mapping[str, int], *, file: object = None) -> Histograms:
    """The histograms of a network's layers, under the network's labels and in its order.

    Args:
        histograms: by label or by name of the PyTorch module.
        levels: the levels of each of the network's layers, by label.
        file: the file that the histograms come from, for messages.

    Raises:
        CompileError: they are of another network, a layer has no histogram or two, a histogram belongs to no layer or
            has other levels.
    """
    by_module: dict[str, list[str]] = {}
    for name in histograms:
        by_module.setdefault(module_name(name), []).append(name)
    layers = {module_name(label) for label in levels}
    without = [label for label in levels if label not in histograms and module_name(label) not in by_module]
    strange = [name for name in histograms if name not in levels and module_name(name) not in layers]
    if without and strange:
        raise CompileError(
            f"these histograms are of another network: {len(without)} of the {len(levels)} layers of this one have "
            f"none ({_some(without)}), and {len(strange)} of them belong to no layer of it ({_some(strange)})",
            file=file,
            hint="Count them again with this model.",
        )
    found: Histograms = {}
    for label, count in levels.items():
        names = [label] if label in histograms else by_module.get(module_name(label), [])
        if len(names) != 1:
            raise CompileError(
                f"there is {'no' if not names else 'more than one'} histogram for this layer",
                file=file,
                node=label,
                hint=f"There are histograms of: {', '.join(histograms)}. Count them again with this model.",
            )
        found[label] = histograms[names[0]]
        if found[label].levels != count:
            raise CompileError(
                f"its histogram is of {found[label].levels} levels, but the layer has {count}",
                file=file,
                node=label,
                hint="Count the histograms again with this model.",
            )
    unused = len(histograms) - len(found)
    if unused:
        raise CompileError(
            f"{unused} of the histograms belong to no layer of this network",
            file=file,
            hint=f"They are of: {', '.join(histograms)}; its layers are: {', '.join(levels)}.",
        )
    return found


def _some(names: Sequence[str], most: int = 3) -> str:
    return ", ".join([*names[:most], *(["..."] if len(names) > most else [])])


def module_name(label: str) -> str:
    """The PyTorch module of a label: 'layer1/layer1.0/relu' and 'layer1.0.relu' are one.

    The exporter repeats the name of a container in front of its members' indices.
    """
    path, last = "", ""
    for part in label.strip("/").split("/"):
        path += part[len(last) :] if last and part.startswith(f"{last}.") else f".{part}"
        last = part
    return path[1:]


def _histogram(name: str, counts: object) -> Histogram:
    if not isinstance(counts, list) or any(type(c) is not int or not 0 <= c < 2**63 for c in counts):
        raise CompileError(
            f"a histogram must be a list of 2 to {MAX_LEVELS + 1} integers in 0..2^63-1, the counts of level 0 to L",
            node=name,
        )
    try:
        return Histogram(np.array(counts, dtype=np.int64))
    except CompileError as error:
        raise CompileError(error.message, node=name) from None
