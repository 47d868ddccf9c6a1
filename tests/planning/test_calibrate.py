"""Streamed calibration data and the histograms counted on it."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pascalc.al import Histogram, histograms
from pascalc.errors import CompileError
from pascalc.modelfile import load
from pascalc.planning.calibrate import count_levels, measure
from pascalc.stream import SampleStream, open_samples
from tests.small_networks import Builder, images, linear_network, residual_network, rows, write

LEVELS = {"stem": 4, "left": 8, "join": 2, "deep": 4, "hidden": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("calibrate")
    write(residual_network(), place / "model.onnx")
    write(linear_network(), place / "linear.onnx")
    np.savez(place / "data.npz", image=images(23), y=np.arange(23))
    np.savez_compressed(place / "packed.npz", x=images(23))
    return place


def stream(folder: Path, name: str = "data.npz", model: str = "model.onnx") -> SampleStream:
    return open_samples(folder / name, load(folder / model))


@pytest.mark.parametrize("name", ["data.npz", "packed.npz"])
@pytest.mark.parametrize("size", [1, 7, 23, 100])
def test_batches_are_the_samples_in_order(folder: Path, name: str, size: int) -> None:
    parts = [(feeds["image"], part) for feeds, part, _ in stream(folder, name).batches(size)]
    assert np.array_equal(np.concatenate([x for x, _ in parts]), images(23))
    assert all(len(x) == part.stop - part.start for x, part in parts)


@pytest.mark.parametrize(("step", "offset"), [(2, 0), (2, 1), (5, 3), (23, 22)])
@pytest.mark.parametrize("size", [1, 3, 30])
def test_every_so_many_samples(folder: Path, step: int, offset: int, size: int) -> None:
    thinned = stream(folder).every(step, offset)
    expected = images(23)[offset::step]
    assert len(thinned) == len(expected)
    assert np.array_equal(np.concatenate([feeds["image"] for feeds, *_ in thinned.batches(size)]), expected)
    assert [y for batch in thinned.batches(size) for y in batch.labels] == list(range(offset, 23, step))


def test_thinning_twice(folder: Path) -> None:
    thinned = stream(folder).every(2, 1).every(3, 2)
    assert np.array_equal(np.concatenate([f["image"] for f, *_ in thinned.batches(4)]), images(23)[1::2][2::3])
    with pytest.raises(CompileError, match="samples are too few"):
        stream(folder).every(24, 23)


def test_networks_of_a_fixed_batch_get_full_batches(tmp_path: Path) -> None:
    model = load(write(residual_network(batch=4), tmp_path / "fixed.onnx"))
    np.savez(tmp_path / "data.npz", x=images(6))
    (_, a, _), (second, b, _) = open_samples(tmp_path / "data.npz", model).batches(64)
    assert (a, b) == (slice(0, 4), slice(4, 6))
    assert np.array_equal(second["image"], images(6)[[4, 5, 5, 5]])
    assert measure(tmp_path / "fixed.onnx", tmp_path / "data.npz")["stem"].samples == 6 * 6 * 36


BAD_DATA: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "type": (lambda: {"x": images(3).astype(np.float64)}, "float64, but the input 'image' wants float32"),
    "shape": (lambda: {"x": images(3)[:, :, :5]}, "wants samples of 2x12x12"),
    "rank": (lambda: {"x": images(3)[0]}, "wants samples of 2x12x12"),
    "scalar": (lambda: {"x": np.float32(3)}, "wants samples of 2x12x12"),
    "name": (lambda: {"pictures": images(3)}, r"no array for the input 'image' \(the file has pictures\)"),
    "empty": (lambda: {"x": images(3)[:0]}, "no samples"),
    "NaN": (lambda: {"x": np.where(np.arange(12) == 7, np.nan, images(3)).astype(np.float32)}, "NaN"),
    "infinity": (lambda: {"x": np.full_like(images(3), np.inf)}, "NaN or infinite"),
    "objects": (lambda: {"x": np.array([None, {}], dtype=object)}, "not an .npz of plain arrays"),
    "Fortran order": (lambda: {"x": np.asfortranarray(images(3))}, "not an .npz of plain arrays"),
    "labels": (lambda: {"x": images(3), "y": np.arange(2)}, "one label a sample"),
    "label type": (lambda: {"x": images(3), "y": np.ones(3)}, "one integer a sample"),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_calibration_data(folder: Path, tmp_path: Path, case: str) -> None:
    make, message = BAD_DATA[case]
    np.savez(tmp_path / "bad.npz", **make())
    with pytest.raises(CompileError, match=message) as caught:
        measure(folder / "model.onnx", tmp_path / "bad.npz")
    assert caught.value.file == str(tmp_path / "bad.npz")


def test_files_that_are_no_npz(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "empty.npz").write_bytes(b"")
    for name in ("text.npz", "empty.npz", "missing.npz"):
        with pytest.raises(CompileError, match=f"{name}: the data cannot be read"):
            measure(folder / "model.onnx", tmp_path / name)


def test_damage_found_on_the_way(folder: Path, tmp_path: Path) -> None:
    header = io.BytesIO()
    np.save(header, images(4))
    with zipfile.ZipFile(tmp_path / "short.npz", "w") as file:
        file.writestr("x.npy", header.getvalue()[:-1000])
    with pytest.raises(CompileError, match="truncated"):
        measure(folder / "model.onnx", tmp_path / "short.npz")
    whole = bytearray((folder / "packed.npz").read_bytes())
    whole[len(whole) // 2] ^= 0xFF
    (tmp_path / "flipped.npz").write_bytes(whole)
    with pytest.raises(CompileError, match="damaged"):
        measure(folder / "model.onnx", tmp_path / "flipped.npz")


def oracle(x: np.ndarray[Any, Any], theta: float, levels: int) -> np.ndarray[Any, Any]:
    """QCFS counts with the roundings of the operator: gain = L/theta, u = x*gain + 1/2."""
    gain = np.float32(levels) / np.float32(theta)
    return np.clip(np.floor(x * gain + np.float32(0.5)), 0, levels).astype(int)


@pytest.mark.parametrize("levels", [1, 3, 4, 32, 33, 255])
def test_counts_are_those_of_the_formula(tmp_path: Path, levels: int) -> None:
    write(linear_network(levels), tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", x=rows(200))
    found = measure(tmp_path / "m.onnx", tmp_path / "d.npz", batch=64)["act"]
    weights = {t.name: t for t in load(tmp_path / "m.onnx").graph.tensors().values()}
    z = rows(200) @ weights["fc1.weight"].values.T + weights["fc1.bias"].values
    expected = np.bincount(oracle(z, 1.5, levels).reshape(-1), minlength=levels + 1)
    assert found.levels == levels
    assert found.samples == 200 * 12
    # a sum in another order may cross a half point; it moves one neuron by one level
    assert np.abs(found.counts - expected).sum() <= 2


def test_counts_do_not_depend_on_batches_or_shards(folder: Path, tmp_path: Path) -> None:
    whole = measure(folder / "model.onnx", folder / "data.npz", batch=23)
    assert {name: h.levels for name, h in whole.items()} == LEVELS
    assert measure(folder / "model.onnx", folder / "packed.npz", batch=4) == whole
    shards = []
    for index, part in enumerate((slice(0, 9), slice(9, 23))):
        np.savez(tmp_path / f"{index}.npz", x=images(23)[part])
        shards.append(measure(folder / "model.onnx", tmp_path / f"{index}.npz", batch=5))
    assert histograms.merge(shards) == whole


@pytest.mark.parametrize("highest", [1, 4, 32, 33, 255])
def test_both_ways_of_counting(highest: int) -> None:
    levels = np.random.default_rng(highest).integers(0, highest + 1, (5, 7, 11)).astype(np.uint8)
    assert Histogram(count_levels(levels, highest)) == Histogram.of(levels, highest)
    assert Histogram(count_levels(levels[:0], highest)) == Histogram.zeros(highest)


def test_memory_does_not_grow_with_the_data(folder: Path, tmp_path: Path) -> None:
    measure(folder / "model.onnx", folder / "data.npz")  # what is loaded once and stays is not counted
    peaks = []
    for count in (64, 1024):
        np.savez(tmp_path / "data.npz", x=np.repeat(images(64), count // 64, 0))
        tracemalloc.start()
        measure(folder / "model.onnx", tmp_path / "data.npz", batch=16)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 100_000  # the larger file has 1.1 MB more


def test_progress_reaches_the_end(folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    measure(folder / "model.onnx", folder / "data.npz", batch=10, progress=lambda *done: seen.append(done))
    assert seen == [(10, 23), (20, 23), (23, 23)]


def test_a_network_without_qcfs(tmp_path: Path) -> None:
    b = Builder()
    write(b.model({"logits": b.gemm(b.input("x", ["N", 6]), "fc", (6, 5))}), tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", x=rows(2))
    with pytest.raises(CompileError, match="no QCFS activation"):
        measure(tmp_path / "m.onnx", tmp_path / "d.npz")


@pytest.mark.parametrize("change", ["gone", "torn", "other arrays"])
def test_data_that_changes_while_it_is_read(change: str, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, x=images(6))
    samples = open_samples(path, load(folder / "model.onnx"))
    if change == "gone":
        path.unlink()
    elif change == "torn":
        path.write_bytes(path.read_bytes()[:100])
    else:
        np.savez(path, other=images(6))
    with pytest.raises(CompileError, match="the data has changed since it was opened"):
        next(samples.batches(2))
