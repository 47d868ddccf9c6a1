"""What a network's output says of each sample: which outputs are classifications, and which class they name.

- Floats are scores. Where one axis behind the batch has more than one entry, it holds the classes: ``[N, C]``,
  ``[N, C, 1, 1]``, ``[N, 1, 1, C]``. Where several have, it is axis 1, with one class for each position behind it. The
  class is that of the largest score, the first of equals.
- Integers and booleans ``[N, ...]`` are classes already, one for each position.
- Nothing else is a classification: a single number, one float a sample (a regression, or one logit, whose threshold is
  not in the file), text, an output without values.
"""

from __future__ import annotations

from math import prod

import numpy as np

from pascalc.graph import Array


def scores(output: Array) -> Array | None:
    """Scores with the classes in axis 1, ``[N, C, ...]``; None where the output is none."""
    if output.dtype.kind != "f" or output.ndim < 2 or not output.size:
        return None
    wide = [axis for axis in range(1, output.ndim) if output.shape[axis] > 1]
    if len(wide) == 1:
        return output.reshape(len(output), output.shape[wide[0]])
    return output if output.shape[1] > 1 else None


def classes(output: Array) -> Array | None:
    """The classes that an output names: ``[N]`` where there is one a sample, else ``[N, ...]``, one a position.

    None where the output is no classification.
    """
    found = scores(output)
    if found is not None:
        return np.asarray(found.argmax(1))
    if output.dtype.kind not in "iub" or not output.ndim or not output.size:
        return None
    return output.reshape(len(output)) if prod(output.shape[1:]) == 1 else output


def answers(output: Array) -> Array | None:
    """The class of every sample, ``[N]``; None where the output is no classification, or names several a sample."""
    named = classes(output)
    return named if named is not None and named.ndim == 1 else None


def agreeing(a: Array, b: Array) -> Array | None:
    """For each sample whether two outputs of one network name the same classes, at every position; None where neither
    is a classification."""
    x, y = classes(a), classes(b)
    if x is None and y is None:
        return None
    if x is None or y is None or x.shape != y.shape:
        return np.zeros(max(len(v) for v in (a, b) if v.ndim), np.bool_)
    return np.asarray((x == y).reshape(len(x), prod(x.shape[1:])).all(1))


def differing(a: Array, b: Array) -> int:
    """How many samples two outputs of one network classify differently; none where neither is a classification."""
    same = agreeing(a, b)
    return 0 if same is None else int(np.count_nonzero(~same))
