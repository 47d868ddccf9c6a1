"""Samples read from .npz files batch by batch, all of them or every so many."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pascalc.data import load_data
from pascalc.errors import CompileError
from pascalc.modelfile import load
from pascalc.planning import planner
from pascalc.planning.calibrate import measure
from pascalc.planning.streaming import SampleStream, open_samples
from tests.small_networks import linear_network, rows, write


def opened(folder: Path, count: int, save: Callable[..., None] = np.savez) -> tuple[SampleStream, np.ndarray]:
    source = write(linear_network(), folder / "model.onnx")
    x = rows(count)
    save(folder / "data.npz", x=x, y=np.arange(count))
    return open_samples(folder / "data.npz", load(source)), x


def read(stream: SampleStream, size: int) -> np.ndarray:
    batches = list(stream.batches(size))
    assert [part.start for _, part in batches] == list(range(0, len(stream), size))
    assert batches[-1][1].stop == len(stream)
    return np.concatenate([feeds["x"] for feeds, _ in batches])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("size", [1, 4, 100])
def test_every_so_many_samples(save: Callable[..., None], size: int, tmp_path: Path) -> None:
    stream, x = opened(tmp_path, 37, save)
    np.testing.assert_array_equal(read(stream, size), x)
    for step in (1, 2, 5, 36, 40):
        for offset in (0, step // 2, min(step, 36)):
            thinned = stream.every(step, offset)
            np.testing.assert_array_equal(read(thinned, size), x[offset::step])
            assert thinned.labels is not None
            assert thinned.labels.tolist() == list(range(37))[offset::step]
    np.testing.assert_array_equal(read(stream.every(3, 1).every(2, 1), size), x[1::3][1::2])


def test_memory_does_not_depend_on_thinning(tmp_path: Path) -> None:
    """32 MiB of samples, of which a batch is 96 KiB however many are left out in between."""
    source = write(linear_network(), tmp_path / "model.onnx")
    x = np.zeros((2**20 * 4 // 3, 6), np.float32)
    x[:, 0] = np.arange(len(x))
    np.savez(tmp_path / "data.npz", x=x)
    stream = open_samples(tmp_path / "data.npz", load(source))
    peaks = []
    for step in (1, 300):
        first = next(stream.every(step).batches(4096))[0]["x"]  # warm
        tracemalloc.start()
        batches = stream.every(step).batches(4096)
        first = next(batches)[0]["x"]
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert first[:3, 0].tolist() == [0, step, 2 * step]
    assert peaks[1] < peaks[0] + 2**20


def test_damage_in_what_is_left_out_is_found(tmp_path: Path) -> None:
    stream, x = opened(tmp_path, 5000)
    content = bytearray((tmp_path / "data.npz").read_bytes())
    content[content.index(x[-1].tobytes()) + 1] ^= 1
    (tmp_path / "data.npz").write_bytes(content)
    assert 4999 % 7
    with pytest.raises(CompileError, match="the data is damaged"):
        read(stream.every(7), 100)


def test_a_file_that_changes_between_two_passes(tmp_path: Path) -> None:
    stream, _ = opened(tmp_path, 10)
    (tmp_path / "data.npz").write_bytes(b"something else")
    with pytest.raises(CompileError, match="has changed since it was opened"):
        read(stream, 5)


@pytest.mark.parametrize("size", [0, -3])
def test_batches_without_samples_are_refused(size: int, tmp_path: Path) -> None:
    stream, _ = opened(tmp_path, 10)
    source, data = tmp_path / "model.onnx", tmp_path / "data.npz"
    calls: list[Callable[[], Any]] = [
        lambda: next(stream.batches(size)),
        lambda: next(load_data(data, load(source)).batches(size)),
        lambda: measure(source, data, batch=size),
        lambda: planner.plan_by_metric(source, 1, calibration=data, batch=size),
        lambda: planner.plan_by_steps(source, data, 2.0, batch=size),
        lambda: planner.correct_levels(source, data, {"act": 2}, batch=size),
    ]
    for call in calls:
        with pytest.raises(CompileError, match=f"the samples a run must be at least 1, not {size}"):
            call()
