"""The two files as a user runs them: do their real outputs agree?

Everything else in verify looks into the files, with outputs added. Here the compiled file runs as it is, in onnxruntime
as it comes, and its outputs must be

1. what its own spike counts say: the source's stretch from the counts that were observed to the output;
2. the source's outputs, in every sample in which no count differs: floats within their rounding bound, all else equal.

onnxruntime may add in another order where no output was added, so that a count at a half point differs from the
observed one. A sample that fails is therefore looked at again, with nothing but the trains as outputs.
"""

from __future__ import annotations

import numpy as np

from pascalc.graph import Array
from pascalc.verifier.compare import Comparison, Trial, levels_of, once, ratios, root_margins
from pascalc.verifier.networks import Values
from pascalc.verifier.pairing import Output
from pascalc.verifier.record import Verification


class Answers:
    """Compares real outputs, sample by sample."""

    def __init__(self, comparison: Comparison, result: Verification) -> None:
        self.comparison, self.result = comparison, result
        self.outputs = comparison.pairing.outputs

    def unlike(self, trial: Trial, real: Values, what: str) -> Array:
        """Which rows of a batch have outputs that do not follow from the trial's levels; shapes and types that differ
        are problems at once."""
        wrong = np.zeros(trial.rows, bool)
        for output in self.outputs:
            given = real[output.name]
            expected, _, total = self.comparison.expected_output(output, trial, given)
            if output.origin == "computed":  # an amplified rounding error is none of the file: compare it with itself
                expected = trial.seen.get(output.name, expected)
            if not self._fits(output, expected, given, what):
                continue
            wrong |= _rows(differing(expected, given, total, output.ulps), output, trial.rows)
        return wrong

    def off(self, trial: Trial, real: Values, theirs: list[Values], same: Array) -> Array:
        """Among the rows ``same``, those whose outputs are those of none of the source's runs. Floats behind a computed
        operator are left out: its rounding errors have no bound."""
        wrong = np.zeros(trial.rows, bool)
        for output in self.outputs:
            given = real[output.name]
            if output.behind_computed and given.dtype.kind == "f":
                continue
            everywhere = np.ones(trial.rows, bool)
            _, _, total = self.comparison.expected_output(output, trial, given)
            for values in theirs:
                expected = values[output.name]
                if self._fits(output, expected, given, "the file"):
                    everywhere &= _rows(differing(expected, given, total, output.ulps), output, trial.rows)
            # a row of an output that mixes samples counts only where no count of the batch differs
            wrong |= everywhere & (same if output.per_sample else same.all())
        return wrong

    def explained(self, again: Trial, real: Values, wrong: Array) -> str:
        """What is wrong with rows whose outputs do not follow from what was observed: nothing if they follow from the
        counts of ``again``, which was observed with less, and rounding explains these; else a problem."""
        if (self.unlike(again, real, "the file") & wrong).any():
            return "in onnxruntime as it comes, its outputs do not follow from its spikes"
        for layer in self.comparison.pairing.layers:
            if not layer.check.lossless:
                continue  # that the outputs follow from its own counts is all that there is to say
            counts = again.levels[layer.after]
            expected = levels_of(layer, again.expected[layer.after])[0]
            where = np.nonzero(counts != expected)
            margin, bound, _ = root_margins(layer, again, where, counts[where], expected[where])
            if not np.all(margin <= bound):
                return f"in onnxruntime as it comes, counts of '{layer.check.name}' are not the source's"
        return ""

    def _fits(self, output: Output, expected: Array, given: Array, what: str) -> bool:
        if (expected.dtype, expected.shape) == (given.dtype, given.shape):
            return True
        found = f"{given.dtype} {list(given.shape)}"
        once(
            self.result.output_problems,
            f"'{output.name}' of {what} is {found}, not {expected.dtype} {list(expected.shape)}",
        )
        return False


def differing(expected: Array, given: Array, total: Array | None, ulps: float) -> Array:
    """Where two arrays of one shape and type differ by more than rounding explains."""
    if expected.dtype.kind == "f":
        return np.asarray(ratios(expected, given, total, ulps) > 1)
    return np.asarray(expected != given)


def _rows(wrong: Array, output: Output, rows: int) -> Array:
    """By sample of the batch; all samples where they cannot be told apart."""
    if output.per_sample and wrong.ndim and len(wrong) == rows:
        return np.asarray(wrong.any(axis=tuple(range(1, wrong.ndim))))
    return np.full(rows, bool(wrong.any()))
