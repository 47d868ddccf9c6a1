"""Data that does not fit: the change that the message proposes makes it fit, and is the most likely one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy
import numpy as np
import pytest

from pascalc import hints
from pascalc.errors import CompileError
from pascalc.stream import open_samples
from tests.helpers import loaded
from tests.small_networks import images, residual_network

IMAGES = [None, 3, 8, 6]

#: shape of the data, dimensions of the input, the expression that makes it fit, a word of the reason
CASES: list[tuple[Sequence[int], Sequence[int | None], str, str]] = [
    ((5, 8, 6, 3), IMAGES, "numpy.transpose(x, (0, 3, 1, 2))", "channels seem to be last"),
    ((5, 8, 6, 3), [None, 3, None, None], "numpy.transpose(x, (0, 3, 1, 2))", "channels seem to be last"),
    ((5, 3, 8, 6), [None, 8, 6, 3], "numpy.transpose(x, (0, 2, 3, 1))", "channels seem to be first"),
    ((5, 7, 9, 11, 2), [4, 2, 7, 9, 11], "numpy.transpose(x, (0, 4, 1, 2, 3))", "channels seem to be last"),
    ((5, 40, 12), [None, 12, 40], "numpy.transpose(x, (0, 2, 1))", "channels seem to be last"),
    ((3, 8, 6), IMAGES, "x[None]", "axis of the samples"),
    ((8, 6, 3), IMAGES, "numpy.transpose(x[None], (0, 3, 1, 2))", "samples seems to be missing, and that of the"),
    ((6,), [None, 6], "x[None]", "axis of the samples"),
    ((5, 28, 28), [None, 1, 28, 28], "x[:, None]", "axis of the channels"),
    ((5, 28, 28), [None, 28, 28, 1], "x[..., None]", "axis of the channels"),
    ((1, 28, 28), [None, 1, 28, 28], "x[None]", "axis of the samples"),
    ((28, 28), [None, 1, 28, 28], "x[None, None]", "axes of the samples and of the channels"),
    ((28, 28), [None, 28, 28, 1], "x[None, ..., None]", "axes of the samples and of the channels"),
    ((1, 5, 3, 8, 6), IMAGES, "x.squeeze(0)", "of size 1 seems to be too many"),
    ((5, 6, 1), [None, 6], "x.squeeze(2)", "of size 1 seems to be too many"),
    ((5, 784), [None, 1, 28, 28], "x.reshape(-1, 1, 28, 28)", "as many values"),
    ((5, 28, 28), [None, 784], "x.reshape(-1, 784)", "as many values"),
]


@pytest.mark.parametrize(("shape", "dims", "expression", "why"), CASES)
def test_another_shape(shape: Sequence[int], dims: Sequence[int | None], expression: str, why: str) -> None:
    hint = hints.other_shape("x", shape, dims)
    assert hint.endswith(f": {expression}.")
    assert why in hint
    x = np.zeros(shape)
    assert hints.fits(eval(expression, {"x": x, "numpy": numpy}).shape, dims)
    assert not hints.fits(shape, dims)


@pytest.mark.parametrize(
    ("shape", "dims"), [((5, 3, 9, 9), IMAGES), ((), [None, 6]), ((5, 7), [None, 6]), ((2, 3), [])]
)
def test_no_hint_is_made_up(shape: Sequence[int], dims: Sequence[int | None]) -> None:
    assert hints.other_shape("x", shape, dims) == ""


def message(x: np.ndarray, tmp_path: Path, **more: np.ndarray) -> str:
    """What is said of data for a network that wants float32 images of 2x12x12."""
    np.savez(tmp_path / "data.npz", x=x, **more)
    with pytest.raises(CompileError) as caught:
        open_samples(tmp_path / "data.npz", loaded(residual_network()))
    return str(caught.value)


def test_another_type(tmp_path: Path) -> None:
    assert message(images(3).astype(np.float64), tmp_path).endswith("Write it as x.astype(numpy.float32).")
    assert "Write it as x.astype(numpy.float32)." in message(images(3).astype(np.int64), tmp_path)
    pixels = message(np.zeros((3, 2, 12, 12), np.uint8), tmp_path)
    assert "'x' is uint8, but the input 'image' wants float32" in pixels
    assert "are likely to be wanted from 0 to 1: x.astype(numpy.float32) / 255" in pixels
    assert "astype" not in message(np.array(["a", "b"]), tmp_path)


def test_the_type_goes_before_the_shape(tmp_path: Path) -> None:
    assert "/ 255" in message(np.zeros((3, 12, 12, 2), np.uint8), tmp_path)
    told = message(np.zeros((3, 12, 12, 2), np.float32), tmp_path)
    assert told.endswith("Its channels seem to be last, and are wanted first: numpy.transpose(x, (0, 3, 1, 2)).")


@pytest.mark.parametrize(
    ("labels", "expression"),
    [
        (np.zeros(3, np.float32), "y.astype(numpy.int64)"),
        (np.zeros((3, 1), int), "y[:, 0].astype(numpy.int64)"),
        (np.eye(3, 5), "y.argmax(1)"),
    ],
)
def test_labels(labels: np.ndarray, expression: str, tmp_path: Path) -> None:
    assert f"{expression}." in message(images(3), tmp_path, y=labels)


def test_another_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", images=images(3), y=np.arange(3))
    with pytest.raises(CompileError) as caught:
        open_samples(tmp_path / "data.npz", loaded(residual_network()))
    assert caught.value.hint == "Name it x: numpy.savez(path, x=data['images'], y=data['y'])."
