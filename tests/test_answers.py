"""Which outputs are classifications, which classes they name, and how many samples two outputs classify differently."""

from __future__ import annotations

import numpy as np
import pytest

from pascalc.answers import agreeing, answers, classes, differing, scores

SCORES = np.array([[0.1, 0.9, 0.2], [0.5, 0.5, 0.1], [0.0, -1.0, 3.0], [-3.0, -2.0, -4.0]], np.float32)
BEST = [1, 0, 2, 1]


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 1, 1), (4, 1, 1, 3), (4, 1, 3)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_scores_of_one_position(shape: tuple[int, ...], dtype: type) -> None:
    output = SCORES.astype(dtype).reshape(shape)
    found = scores(output)
    assert found is not None
    assert found.shape == (4, 3)
    for named in (classes(output), answers(output)):
        assert named is not None
        assert named.tolist() == BEST


def test_scores_of_several_positions() -> None:
    output = np.stack([SCORES, SCORES[:, ::-1]], 2)
    named = classes(output)
    assert named is not None
    assert named.tolist() == [[1, 1], [0, 1], [2, 0], [1, 1]]
    assert answers(output) is None


@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 1, 1)])
@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.bool_])
def test_classes_as_output(shape: tuple[int, ...], dtype: type) -> None:
    output = np.array([1, 0, 1, 1], dtype).reshape(shape)
    named = answers(output)
    assert scores(output) is None
    assert named is not None
    assert named.tolist() == [1, 0, 1, 1]


def test_a_map_of_classes() -> None:
    output = np.arange(8).reshape(4, 2)
    assert classes(output) is output
    assert answers(output) is None


@pytest.mark.parametrize(
    "output",
    [
        np.float32(3).reshape(()),
        np.int64(3).reshape(()),
        np.zeros(4, np.float32),
        np.zeros((4, 1), np.float32),
        np.zeros((4, 1, 1, 1), np.float32),
        np.zeros((4, 1, 5, 5), np.float32),  # one logit a position
        np.array(["cat", "dog"]),
        np.zeros((4, 0), np.float32),  # nothing to choose from
        np.zeros((4, 0), np.int64),
        np.zeros((0, 3), np.float32),
        np.zeros((4, 3, 0), np.float32),
    ],
)
def test_no_classification(output: np.ndarray) -> None:
    assert scores(output) is None
    assert classes(output) is None
    assert answers(output) is None
    assert agreeing(output, output) is None
    assert differing(output, output) == 0


def test_differing() -> None:
    other = SCORES.copy()
    other[2] = [5, 1, 3]
    other[0] += 100  # the class stays
    assert differing(SCORES, other) == 1
    assert agreeing(SCORES, other).tolist() == [True, True, False, True]  # type: ignore[union-attr]
    assert differing(SCORES.reshape(4, 3, 1, 1), other.reshape(4, 3, 1, 1)) == 1
    assert differing(np.array([1, 2, 3]), np.array([1, 3, 2])) == 2
    positions = np.stack([SCORES, SCORES, SCORES], 2)
    changed = positions.copy()
    changed[1, :, 1] = changed[3, :, 0] = changed[3, :, 2] = [0, 0, 9]
    assert differing(positions, changed) == 2  # samples, not positions


def test_outputs_that_do_not_fit_differ_everywhere() -> None:
    assert differing(SCORES, np.zeros((4, 3, 2, 2), np.float32)) == 4
    assert differing(SCORES, np.zeros((4, 1), np.float32)) == 4
    assert differing(np.float32(0).reshape(()), SCORES) == 4
    assert differing(SCORES[:0], SCORES[:0]) == 0
