"""Samples read batch by batch, from .npz, .npy, folders of shards and memory: all of them or every so many."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pascalc
from pascalc.errors import CompileError
from pascalc.modelfile import load
from pascalc.planning import planner
from pascalc.planning.calibrate import measure
from pascalc.stream import SampleStream, hold, open_samples
from pascalc.verifier.chance import disturbed
from tests.helpers import loaded
from tests.small_networks import Builder, images, linear_network, residual_network, rows, write


def save_npy(path: Path, x: np.ndarray, y: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, x)


def save_shards(path: Path, x: np.ndarray, y: np.ndarray) -> None:
    """Shards of unequal sizes, of which the names count to more than 9; the arrays in them are of several kinds."""
    path.mkdir()
    for number, part in enumerate(np.array_split(np.arange(len(x)), min(len(x), 12))):
        save = np.savez_compressed if number % 3 else np.savez
        save(path / f"part-{number}.npz", x=x[part], y=y[part].astype(np.int64))


SAVES: list[Callable[..., None]] = [np.savez, np.savez_compressed, save_npy, save_shards]


def opened(folder: Path, count: int, save: Callable[..., None] = np.savez) -> tuple[SampleStream, np.ndarray]:
    source = write(linear_network(), folder / "model.onnx")
    x = rows(count)
    save(folder / "data.npz", x=x, y=np.arange(count))
    return open_samples(folder / "data.npz", load(source)), x


def read(stream: SampleStream, size: int) -> np.ndarray:
    batches = list(stream.batches(size))
    assert [part.start for _, part, _ in batches] == list(range(0, len(stream), size))
    assert batches[-1].part.stop == len(stream)
    return np.concatenate([batch.feeds["x"] for batch in batches])


def labels(stream: SampleStream, size: int = 3) -> list[int]:
    found = [batch.labels for batch in stream.batches(size)]
    assert all(y is not None and y.dtype == np.int64 for y in found)
    return [int(label) for y in found if y is not None for label in y]


@pytest.mark.parametrize("save", SAVES)
@pytest.mark.parametrize("size", [1, 4, 100])
def test_every_so_many_samples(save: Callable[..., None], size: int, tmp_path: Path) -> None:
    stream, x = opened(tmp_path, 37, save)
    np.testing.assert_array_equal(read(stream, size), x)
    for step in (1, 2, 5, 36, 40):
        for offset in (0, step // 2, min(step, 36)):
            thinned = stream.every(step, offset)
            np.testing.assert_array_equal(read(thinned, size), x[offset::step])
            if save is save_npy:
                assert next(thinned.batches(size)).labels is None
            else:
                assert labels(thinned, size) == list(range(37))[offset::step]
    np.testing.assert_array_equal(read(stream.every(3, 1).every(2, 1), size), x[1::3][1::2])


@pytest.mark.parametrize("save", SAVES)
@pytest.mark.parametrize("size", [1, 4, 100])
def test_halves_are_of_as_many_samples_as_are_asked_for(save: Callable[..., None], size: int, tmp_path: Path) -> None:
    stream, x = opened(tmp_path, 37, save)
    for most in (2, 10, 18, 19, 36, 37, 50):
        halves = stream.halves(most)
        assert [len(half) for half in halves] == [-(-min(most, 37) // 2), min(most, 37) // 2]
        taken = np.sort(np.concatenate([half.taken for half in halves]))
        assert len(set(taken)) == len(taken)
        if most < 37:  # from the start of the file to its end
            assert (taken[0], taken[-1] >= 36 - 37 // most) == (0, True)
            assert {*np.diff(taken)} <= {37 // most, 37 // most + 1}
        for half in halves:
            np.testing.assert_array_equal(read(half, size), x[list(half.taken)])
    with pytest.raises(CompileError, match="too few"):
        stream.halves(1)


@pytest.mark.parametrize("save", SAVES)
def test_a_part_of_the_batches(save: Callable[..., None], tmp_path: Path) -> None:
    stream, x = opened(tmp_path, 37, save)
    for within in (range(8), range(8, 24), range(32, 37)):
        found = list(stream.batches(4, within))
        assert [batch.part.start for batch in found] == list(within)[::4]
        np.testing.assert_array_equal(np.concatenate([batch.feeds["x"] for batch in found]), x[within])
    np.testing.assert_array_equal(
        np.concatenate([f["x"] for f, *_ in stream.every(3).batches(4, range(4, 8))]), x[12:24:3]
    )


@given(st.integers(1, 20), st.integers(1, 25), st.one_of(st.none(), st.integers(1, 8)))
def test_batches_hold_every_sample_once_and_in_order(samples: int, size: int, fixed: int | None) -> None:
    values = images(samples)
    stream = hold({"image": values}, loaded(residual_network(batch=fixed or "N")))
    wanted, parts = fixed or size, []
    for feeds, part, _ in stream.batches(size):
        count = part.stop - part.start
        assert 1 <= count <= wanted
        assert len(feeds["image"]) == (wanted if fixed else count)
        filling = np.repeat(values[part.stop - 1 :][:1], len(feeds["image"]) - count, 0)
        np.testing.assert_array_equal(feeds["image"][count:], filling)
        parts.append(feeds["image"][:count])
    np.testing.assert_array_equal(np.concatenate(parts), values)
    assert len(stream) == samples


@pytest.mark.parametrize("name", ["x", "image"])
def test_the_only_input_is_x_or_goes_by_its_name(name: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", **{name: images(5)}, y=np.arange(5, dtype=np.int8), other=np.zeros(3))
    stream = open_samples(tmp_path / "data.npz", loaded(residual_network()))
    np.testing.assert_array_equal(next(stream.batches(9)).feeds["image"], images(5))
    assert (labels(stream), stream.fixed_batch) == ([0, 1, 2, 3, 4], None)


def test_the_inputs_own_name_goes_before_x(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=images(5), image=images(4, seed=9))
    stream = open_samples(tmp_path / "data.npz", loaded(residual_network()))
    np.testing.assert_array_equal(next(stream.batches(9)).feeds["image"], images(4, seed=9))


def test_an_input_named_y_is_no_label(tmp_path: Path) -> None:
    b = Builder()
    model = loaded(b.model({"out": b.gemm(b.input("y", ["N", 6]), "fc", (6, 5))}))
    np.savez(tmp_path / "data.npz", y=rows(3))
    batch = next(open_samples(tmp_path / "data.npz", model).batches(9))
    assert batch.labels is None
    np.testing.assert_array_equal(batch.feeds["y"], rows(3))


@pytest.mark.parametrize("save", SAVES)
@pytest.mark.parametrize(("limit", "count"), [(1, 1), (3, 3), (5, 5), (17, 17), (100, 20), (None, 20)])
def test_the_first_samples_and_their_labels(
    save: Callable[..., None], limit: int | None, count: int, tmp_path: Path
) -> None:
    save(tmp_path / "data.npz", x=rows(20), y=np.arange(20))
    stream = open_samples(tmp_path / "data.npz", loaded(linear_network()), limit)
    np.testing.assert_array_equal(read(stream, 4), rows(20)[:count])
    if save is not save_npy:
        assert labels(stream) == list(range(count))


@pytest.mark.parametrize("save", SAVES)
def test_a_fixed_batch_is_the_networks(save: Callable[..., None], tmp_path: Path) -> None:
    save(tmp_path / "data.npz", x=images(6), y=np.arange(6))
    stream = open_samples(tmp_path / "data.npz", loaded(residual_network(batch=4)), 5)
    assert stream.fixed_batch == 4
    (first, a, _), (second, b, _) = stream.batches(64)
    assert (a, b) == (slice(0, 4), slice(4, 5))
    np.testing.assert_array_equal(first["image"], images(6)[:4])
    np.testing.assert_array_equal(second["image"], images(6)[[4, 4, 4, 4]])


def test_the_first_few_in_memory(tmp_path: Path) -> None:
    stream, x = opened(tmp_path, 30, save_shards)
    np.testing.assert_array_equal(stream.first(7, 10**9)["x"], x[:7])
    np.testing.assert_array_equal(stream.first(100, 10**9)["x"], x)
    np.testing.assert_array_equal(stream.first(100, 5 * x[0].nbytes)["x"], x[:5])
    np.testing.assert_array_equal(stream.first(100, 1)["x"], x[:1])


def test_memory_does_not_depend_on_thinning(tmp_path: Path) -> None:
    """32 MiB of samples, of which a batch is 96 KiB however many are left out in between."""
    source = write(linear_network(), tmp_path / "model.onnx")
    x = np.zeros((2**20 * 4 // 3, 6), np.float32)
    x[:, 0] = np.arange(len(x))
    np.savez(tmp_path / "data.npz", x=x)
    stream = open_samples(tmp_path / "data.npz", load(source))
    peaks = []
    for step in (1, 300):
        first = next(stream.every(step).batches(4096)).feeds["x"]  # warm
        tracemalloc.start()
        batches = stream.every(step).batches(4096)
        first = next(batches).feeds["x"]
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert first[:3, 0].tolist() == [0, step, 2 * step]
    assert peaks[1] < peaks[0] + 2**20


@pytest.mark.parametrize("save", SAVES)
def test_memory_does_not_grow_with_the_data(save: Callable[..., None], tmp_path: Path) -> None:
    model = load(write(linear_network(), tmp_path / "model.onnx"))
    peaks = []
    for count in (2**10, 2**16):
        path = tmp_path / f"{count}.npz"
        save(path, x=rows(count), y=np.zeros(count, int))
        tracemalloc.start()
        for _ in open_samples(path, model).batches(64):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 2**18  # the larger one has 2 MiB


@pytest.mark.parametrize("command", ["eval", "verify", "report"])
def test_what_commands_remember_does_not_grow(command: str, tmp_path: Path) -> None:
    source = write(linear_network(), tmp_path / "model.onnx")
    pascalc.compile(source, tmp_path / "snn.onnx")
    run: dict[str, Callable[[Path], Any]] = {
        "eval": lambda data: pascalc.evaluate(tmp_path / "snn.onnx", data, batch=256),
        "verify": lambda data: pascalc.verify(source, tmp_path / "snn.onnx", data, batch=256, seed=0),
        "report": lambda data: pascalc.report(tmp_path / "snn.onnx", data, batch=256),
    }
    peaks = []
    for count in (2**11, 2**11, 2**14):  # the first one loads what stays
        np.savez(tmp_path / "data.npz", x=rows(count), y=np.zeros(count, int))
        tracemalloc.start()
        run[command](tmp_path / "data.npz")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < peaks[1] + 2**17  # the larger one has 336 KiB more


def test_random_levels_are_tried_on_the_first_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write(linear_network(), tmp_path / "model.onnx")
    pascalc.compile(source, tmp_path / "snn.onnx")
    asked = []
    monkeypatch.setattr("pascalc.verifier.checking.KEPT_SAMPLES", 3)
    monkeypatch.setattr(
        "pascalc.verifier.chance.disturbed", lambda values, chance: asked.append(values) or disturbed(values, chance)
    )
    x = rows(50)
    for name, last in (("a", 1), ("b", 2)):  # what comes behind makes no difference to what is drawn
        np.savez(tmp_path / f"{name}.npz", x=np.concatenate([x, last * rows(50)]))
        assert pascalc.verify(source, tmp_path / "snn.onnx", tmp_path / f"{name}.npz", seed=3).equivalent
    half = len(asked) // 2
    assert all(np.array_equal(a, b) for a, b in zip(asked[:half], asked[half:], strict=True))
    assert {row.tobytes() for row in asked[0]} <= {row.tobytes() for row in x[:3]}


def test_damage_in_what_is_left_out_is_found(tmp_path: Path) -> None:
    stream, x = opened(tmp_path, 5000)
    content = bytearray((tmp_path / "data.npz").read_bytes())
    content[content.index(x[-1].tobytes()) + 1] ^= 1
    (tmp_path / "data.npz").write_bytes(content)
    for thinned in (stream.every(7), *stream.halves(300)):
        assert 4999 not in thinned.taken
        with pytest.raises(CompileError, match="the data is damaged"):
            read(thinned, 100)


@pytest.mark.parametrize("save", SAVES)
def test_a_file_that_changes_between_two_passes(save: Callable[..., None], tmp_path: Path) -> None:
    stream, _ = opened(tmp_path, 10, save)
    data = tmp_path / "data.npz"
    (sorted(data.iterdir())[0] if data.is_dir() else data).write_bytes(b"something else")
    with pytest.raises(CompileError, match="has changed since it was opened"):
        read(stream, 5)


@pytest.mark.parametrize("size", [0, -3])
def test_batches_without_samples_are_refused(size: int, tmp_path: Path) -> None:
    stream, _ = opened(tmp_path, 10)
    source, data = tmp_path / "model.onnx", tmp_path / "data.npz"
    calls: list[Callable[[], Any]] = [
        lambda: next(stream.batches(size)),
        lambda: pascalc.evaluate(source, data, batch=size),
        lambda: measure(source, data, batch=size),
        lambda: planner.plan_by_metric(source, 1, calibration=data, batch=size),
        lambda: planner.plan_by_steps(source, data, 2.0, batch=size),
        lambda: planner.correct_levels(source, data, {"act": 2}, batch=size),
    ]
    for call in calls:
        with pytest.raises(CompileError, match=f"the samples a run must be at least 1, not {size}"):
            call()


@pytest.mark.parametrize("limit", [0, -1])
def test_no_samples_at_all(limit: int, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=rows(5))
    with pytest.raises(CompileError, match="at least 1"):
        open_samples(tmp_path / "data.npz", loaded(linear_network()), limit)


def test_a_network_without_inputs(tmp_path: Path) -> None:
    b = Builder()
    model = loaded(b.model({"y": b.node("Abs", [b.constant("c", np.ones((2, 5)))], "abs")}, [2, 5]))
    np.savez(tmp_path / "data.npz", x=rows(3))
    with pytest.raises(CompileError, match="the network has no inputs"):
        open_samples(tmp_path / "data.npz", model)


# --- one array ------------------------------------------------------------------------------------------------------


def two_inputs() -> Any:
    b = Builder()
    return b.model({"out": b.node("Add", [b.input("a", ["N", 6]), b.input("b", ["N", 6])], "sum")}, ["N", 6])


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (rows(3).astype(np.float64), "'x' is float64, but the input 'x' wants float32.* x.astype"),
        (rows(3)[:, :4], "wants samples of 6"),
        (rows(3)[:0], "holds no samples"),
        (np.asfortranarray(rows(3)), "an array lies in Fortran order; write numpy.ascontiguousarray of it"),
        (np.full((2, 6), np.nan, np.float32), "NaN or infinite"),
    ],
)
def test_an_array_that_does_not_fit(x: np.ndarray, message: str, tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", x)
    with pytest.raises(CompileError, match=message) as caught:
        read(open_samples(tmp_path / "data.npy", loaded(linear_network())), 2)
    assert caught.value.file == str(tmp_path / "data.npy")


def test_one_array_for_two_inputs(tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", rows(3))
    with pytest.raises(CompileError, match=r"one array, but the network has the inputs a, b.* several inputs by their"):
        open_samples(tmp_path / "data.npy", loaded(two_inputs()))


# --- shards ---------------------------------------------------------------------------------------------------------


def test_shards_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name, value in (("a-10", 3), ("a-9", 2), ("a-09", 1), ("b-1", 4), ("0", 0)):
        np.savez(tmp_path / f"{name}.npz", x=np.full((2, 6), value, np.float32))
    np.savez(tmp_path / ".hidden.npz", x=np.full((2, 6), 7, np.float32))
    (tmp_path / "readme.txt").write_text("no shard")
    found = read(open_samples(tmp_path, loaded(linear_network())), 3)
    assert found[:, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_inputs_of_any_size_are_of_one_size(tmp_path: Path) -> None:
    b = Builder()
    model = loaded(b.model({"out": b.node("Abs", [b.input("x", ["N", "W"])], "abs")}, ["N", "W"]))
    for name, width in (("a", 4), ("b", 5)):
        np.savez(tmp_path / f"{name}.npz", x=np.zeros((2, width), np.float32))
    with pytest.raises(CompileError, match=r"b\.npz: 'x' holds float32 \[5\] a sample, and float32 \[4\] in a.npz"):
        open_samples(tmp_path, model)


BAD_SHARDS: dict[str, tuple[dict[str, np.ndarray], str]] = {
    "labels missing": ({"x": rows(3)}, "1.npz has 'y', but 2.npz does not. Write all shards alike."),
    "another name": ({"pictures": rows(3), "y": np.arange(3)}, "2.npz: there is no array for the input 'x'"),
    "another type": ({"x": rows(3).astype(np.float64), "y": np.arange(3)}, "2.npz: 'x' is float64"),
    "another shape": ({"x": rows(3)[:, :4], "y": np.arange(3)}, "2.npz: 'x' has shape [3, 4]"),
    "another type of label": ({"x": rows(3), "y": np.arange(3.0)}, "2.npz: 'y' must be one integer a sample"),
    "too few labels": ({"x": rows(3), "y": np.arange(2)}, "2.npz: 'y' does not have one label a sample"),
    "no samples": ({"x": rows(3)[:0], "y": np.arange(0)}, "2.npz: 'x' holds no samples"),
}


@pytest.mark.parametrize("case", BAD_SHARDS)
def test_a_shard_that_does_not_fit(case: str, tmp_path: Path) -> None:
    arrays, message = BAD_SHARDS[case]
    np.savez(tmp_path / "1.npz", x=rows(3), y=np.arange(3))
    np.savez(tmp_path / "2.npz", **arrays)
    with pytest.raises(CompileError) as caught:
        open_samples(tmp_path, loaded(linear_network()))
    assert message in str(caught.value)
    assert caught.value.file == str(tmp_path / "2.npz")


def test_labels_that_the_first_shard_lacks(tmp_path: Path) -> None:
    np.savez(tmp_path / "1.npz", x=rows(3))
    np.savez(tmp_path / "2.npz", x=rows(3), y=np.arange(3))
    with pytest.raises(CompileError, match=r"2\.npz has 'y', but 1.npz does not"):
        open_samples(tmp_path, loaded(linear_network()))


def test_a_folder_without_shards(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("1,2")
    with pytest.raises(CompileError, match=r"the folder holds no \.npz files"):
        open_samples(tmp_path, loaded(linear_network()))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("torn", "the data cannot be read: this is a zip archive that is damaged or truncated"),
        ("flipped", "the data is damaged"),
        ("infinite", "'x' holds NaN or infinite values"),
    ],
)
def test_a_damaged_shard_is_named(how: str, message: str, tmp_path: Path) -> None:
    x = rows(2000)
    if how == "infinite":
        x[-1, -1] = np.inf
    for name, part in (("1", slice(0, 1000)), ("2", slice(1000, 2000))):
        np.savez(tmp_path / f"{name}.npz", x=x[part])
    content = bytearray((tmp_path / "2.npz").read_bytes())
    if how == "torn":
        del content[10000:]
    elif how == "flipped":
        content[content.index(x[-1].tobytes()) + 1] ^= 1
    (tmp_path / "2.npz").write_bytes(content)
    with pytest.raises(CompileError) as caught:
        read(open_samples(tmp_path, loaded(linear_network())), 1500)  # the last batch begins in the first shard
    assert message in str(caught.value)
    assert caught.value.file == str(tmp_path / "2.npz")


def test_every_command_takes_every_kind(tmp_path: Path) -> None:
    source = write(linear_network(), tmp_path / "model.onnx")
    pascalc.compile(source, tmp_path / "snn.onnx")
    found = []
    for number, save in enumerate(SAVES):
        path = tmp_path / f"data-{number}"
        target = path.with_suffix(".npz") if save is not save_shards else path
        save(target, x=rows(40), y=np.arange(40) % 5)
        evaluation = pascalc.evaluate(source, target).to_json()
        evaluation["seconds"] = 0
        if save is save_npy:
            assert evaluation["top1"] is None
            evaluation["top1"] = found[0][0]["top1"]
        found.append(
            (
                evaluation,
                pascalc.verify(source, tmp_path / "snn.onnx", target, seed=1).to_json(),
                pascalc.report(tmp_path / "snn.onnx", target).to_json(),
                measure(source, target),
                planner.plan_by_steps(source, target, 2.0).levels,
                planner.correct_levels(source, target, {"act": 2}).method,
            )
        )
    assert all(one == found[0] for one in found)
