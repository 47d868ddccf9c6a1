"""Data from .npz files: which array is which input, batches, and the last batch of a network of fixed batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pascalc.data import Data, load_data
from pascalc.errors import CompileError
from tests.helpers import loaded
from tests.small_networks import Builder, images, linear_network, residual_network, rows


@given(st.integers(1, 20), st.integers(1, 25), st.one_of(st.none(), st.integers(1, 8)))
def test_batches_hold_every_sample_once_and_in_order(samples: int, size: int, fixed: int | None) -> None:
    values = np.arange(samples * 2).reshape(samples, 2)
    data = Data({"a": values, "b": -values}, None, fixed)
    wanted = fixed or size
    parts = []
    for feeds, part in data.batches(size):
        count = part.stop - part.start
        assert 1 <= count <= wanted
        assert len(feeds["a"]) == (wanted if fixed else count)
        np.testing.assert_array_equal(feeds["b"], -feeds["a"])
        np.testing.assert_array_equal(
            feeds["a"][count:], np.repeat(values[part.stop - 1 :][:1], len(feeds["a"]) - count, 0)
        )
        parts.append(feeds["a"][:count])
    np.testing.assert_array_equal(np.concatenate(parts), values)
    assert len(data) == samples


@pytest.mark.parametrize("name", ["x", "image"])
def test_the_only_input_is_x_or_goes_by_its_name(name: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", **{name: images(5)}, y=np.arange(5, dtype=np.int8), other=np.zeros(3))
    data = load_data(tmp_path / "data.npz", loaded(residual_network()))
    np.testing.assert_array_equal(data.inputs["image"], images(5))
    assert data.labels is not None
    assert (data.labels.dtype, data.labels.tolist(), data.fixed_batch) == (np.int64, [0, 1, 2, 3, 4], None)


def test_the_inputs_own_name_goes_before_x(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=images(5), image=images(4, seed=9))
    data = load_data(tmp_path / "data.npz", loaded(residual_network()))
    np.testing.assert_array_equal(data.inputs["image"], images(4, seed=9))


@pytest.mark.parametrize(("limit", "count"), [(1, 1), (3, 3), (5, 5), (100, 5), (None, 5)])
def test_the_first_samples_and_their_labels(limit: int | None, count: int, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=rows(5), y=np.arange(5))
    data = load_data(tmp_path / "data.npz", loaded(linear_network()), limit)
    assert len(data) == count
    assert data.labels is not None
    assert data.labels.tolist() == list(range(count))


@pytest.mark.parametrize("limit", [0, -1])
def test_no_samples_at_all(limit: int, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=rows(5))
    with pytest.raises(CompileError, match="at least 1"):
        load_data(tmp_path / "data.npz", loaded(linear_network()), limit)


def test_a_fixed_batch_is_the_networks(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=images(6))
    assert load_data(tmp_path / "data.npz", loaded(residual_network(batch=4))).fixed_batch == 4


def test_an_input_named_y_is_no_label(tmp_path: Path) -> None:
    b = Builder()
    model = loaded(b.model({"out": b.gemm(b.input("y", ["N", 6]), "fc", (6, 5))}))
    np.savez(tmp_path / "data.npz", y=rows(3))
    data = load_data(tmp_path / "data.npz", model)
    assert data.labels is None
    np.testing.assert_array_equal(data.inputs["y"], rows(3))


def test_compressed_files_and_other_orders_in_memory(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "data.npz", x=np.asfortranarray(images(3)))
    data = load_data(tmp_path / "data.npz", loaded(residual_network()))
    np.testing.assert_array_equal(data.inputs["image"], images(3))


def test_a_network_without_inputs(tmp_path: Path) -> None:
    b = Builder()
    model = loaded(b.model({"y": b.node("Abs", [b.constant("c", np.ones((2, 5)))], "abs")}, [2, 5]))
    np.savez(tmp_path / "data.npz", x=rows(3))
    with pytest.raises(CompileError, match="the network has no inputs"):
        load_data(tmp_path / "data.npz", model)
