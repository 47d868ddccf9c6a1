"""Histogram files: the format, sums of shards, and which histogram belongs to which layer."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from pascalc.al import Histogram
from pascalc.al.histograms import from_json, match, merge, read, to_json
from pascalc.errors import CompileError


def histogram(*counts: int) -> Histogram:
    return Histogram(np.array(counts, dtype=np.int64))


def test_format_is_json_by_layer_and_reads_back() -> None:
    given = {"stem": histogram(5, 0, 2), "block1/relu": histogram(2**62, 1)}
    assert json.loads(to_json(given)) == {"stem": [5, 0, 2], "block1/relu": [2**62, 1]}
    assert from_json(to_json(given)) == given


def test_shards_add_up() -> None:
    a, b = {"x": histogram(1, 2), "y": histogram(0, 0, 4)}, {"y": histogram(1, 1, 1), "x": histogram(3, 0)}
    assert merge([a, b]) == {"x": histogram(4, 2), "y": histogram(1, 1, 5)}
    assert merge([a]) == a


@pytest.mark.parametrize(
    ("shards", "message"),
    [
        ([], "no histograms"),
        ([{"x": histogram(1, 2)}, {"y": histogram(1, 2)}], "different networks: x, y"),
        ([{"x": histogram(1, 2)}, {"x": histogram(1, 2, 3)}], r"1 and 2 levels.*'x'"),
    ],
)
def test_shards_that_do_not_fit(shards: list[dict[str, Histogram]], message: str) -> None:
    with pytest.raises(CompileError, match=message):
        merge(shards)


@pytest.mark.parametrize(
    "name", ["layer1/layer1.0/relu", "layer1.0.relu", "layer1/0/relu", "/layer1/layer1.0/relu", "layer1/0.relu"]
)
def test_names_of_modules_are_understood(name: str) -> None:
    label = "layer1/layer1.0/relu"
    assert match({name: histogram(1, 2)}, {label: 1}) == {label: histogram(1, 2)}


def test_layers_come_in_the_networks_order() -> None:
    given = {"b": histogram(1, 2), "a": histogram(3, 4)}
    assert list(match(given, {"a": 1, "b": 1})) == ["a", "b"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"a": histogram(1, 2)}, r"no histogram for this layer \(node 'b.c'\)"),
        ({"a": histogram(1, 2), "b.c": histogram(1, 2), "b/c": histogram(1, 2), "d": histogram(1, 2)}, "no layer"),
        ({"a": histogram(1, 2), "b/c": histogram(1, 2), "/b/c": histogram(1, 2)}, "more than one histogram"),
        ({"a": histogram(1, 2, 3), "b.c": histogram(1, 2)}, r"of 2 levels, but the layer has 1 \(node 'a'\)"),
    ],
)
def test_histograms_of_another_network(given: dict[str, Histogram], message: str) -> None:
    with pytest.raises(CompileError, match=message):
        match(given, {"a": 1, "b.c": 1})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"a": 3}',
        '{"a": [1]}',
        '{"a": [1, -1]}',
        '{"a": [1, 1.5]}',
        '{"a": [true, false]}',
        '{"a": [1, 9223372036854775808]}',
        '{"a": [1, 2], "a": [1, 2]}',
        '{"a": [1, NaN]}',
        "[" * 100_000,
    ],
)
def test_bad_text(text: str) -> None:
    with pytest.raises(CompileError):
        from_json(text)


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match=r"missing.json: the histogram file cannot be read"):
        read(tmp_path / "missing.json")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CompileError, match="this is not a histogram file: it is no text"):
        read(tmp_path / "binary")


@pytest.mark.parametrize("shared", [0, 1, 4])
def test_histograms_of_another_network_are_told_as_such(shared: int) -> None:
    layers = {f"b{index}/relu": 1 for index in range(5)}
    given = {f"{'b' if index < shared else 'c'}{index}/relu": histogram(1, 2) for index in range(5)}
    with pytest.raises(CompileError, match="are of another network") as caught:
        match(given, layers, file="h.json")
    none = [f"b{index}/relu" for index in range(shared, 5)]
    others = [f"c{index}/relu" for index in range(shared, 5)]
    first = [", ".join([*names[:3], *(["..."] if len(names) > 3 else [])]) for names in (none, others)]
    assert f"{len(none)} of the 5 layers of this one have none ({first[0]})" in str(caught.value)
    assert f"{len(none)} of them belong to no layer of it ({first[1]})" in str(caught.value)


def test_a_layer_that_comes_twice_among_many() -> None:
    rows = ", ".join(f'"{index}": [1, 1]' for index in range(50_000))
    started = time.perf_counter()
    with pytest.raises(CompileError, match="repeats the field '49999'"):
        from_json(f'{{{rows}, "49999": [1, 1]}}')
    assert time.perf_counter() - started < 5
