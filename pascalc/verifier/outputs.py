"""The two files as a user runs them: do their real outputs agree?

Everything else in verify looks into the files, with outputs added. Here the compiled file runs as it is, in onnxruntime
as it comes, and its outputs must be

1. what its own spike counts say: the source's stretch from the counts that were observed to the output;
2. the source's outputs, in every sample in which no count differs: floats within their rounding bound, all else equal.

Sizes may depend on values (NonZero, Compress), and then on those of the whole batch. So they are the counts' own in 1,
and the source's in 2 where no count of the batch differs; types and ranks are the source's whatever the counts are.

onnxruntime may add in another order where no output was added, so that a count at a half point differs from the
observed one. A sample that fails is therefore looked at again, with nothing but the trains as outputs.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pascalc.answers import agreeing
from pascalc.errors import CompileError
from pascalc.graph import Array
from pascalc.verifier.compare import Trial, excess_of, levels_of, once, ratios, root_margins
from pascalc.verifier.networks import Values
from pascalc.verifier.pairing import Output, is_random
from pascalc.verifier.trials import Trials
from pascalc.verifier.watch import Watched, counts_of


class Answers:
    """Compares real outputs, sample by sample."""

    def __init__(self, trials: Trials) -> None:
        self.trials, self.source, self.compiled = trials, trials.source, trials.compiled
        self.found, self.result = trials.found, trials.result

    def compare(self, trial: Trial, feeds: Values, reference: Values, own: Values) -> None:
        """The two files as they are, on one batch.

        Args:
            trial: what was observed on it.
            feeds: the inputs.
            reference: what the source computes by itself, and ``own``: its levels.
        """
        result, names, count = self.result, [o.name for o in self.found.outputs], trial.samples
        expected = dict(zip(names, self.source.itself.run(names, feeds), strict=True))
        again = self.source.in_another_order.run(feeds)
        first = names[0]
        result.source_self_mismatches += _classified_differently(expected[first], again[first], count)
        try:
            real = dict(zip(names, self.compiled.itself.run(names, feeds), strict=True))
        except CompileError as error:
            once(result.output_problems, f"the file cannot be run: {error.message}")
            result.argmax_mismatches += count
            return
        result.argmax_mismatches += _classified_differently(expected[first], real[first], count)
        for name in names:
            a, b = expected[name], real[name]
            if count and a.dtype.kind == "f" and a.shape == b.shape:
                both = np.isfinite(a) & np.isfinite(b)
                difference = float(np.max(np.abs(a - b), where=both, initial=0))
                result.max_abs_output_diff = max(result.max_abs_output_diff, difference)
        if not set(names) <= set(trial.seen):
            return  # it is a problem already
        wrong = self._unlike(trial, real)
        same = self._same(trial, own, reference)
        if wrong.any():
            problem, looked = self._second_look(feeds, reference, own, real, wrong)
            once(result.output_problems, problem)
            if looked is not None:
                same = np.where(wrong, self._same(looked, own, reference), same)
        result.answers_compared += int(np.count_nonzero(same[:count]))
        theirs = [expected, again, reference]
        if not self.source.reference_is_itself and self._is_misread(trial, feeds, again):
            once(result.output_problems, "onnxruntime runs the source otherwise than it is read here")
            theirs.pop()
        if self._off(trial, real, theirs, same).any():
            once(result.output_problems, "where no count differs, the file gives other outputs than the source")

    def _unlike(self, trial: Trial, real: Values) -> Array:
        """Which rows of a batch have outputs that do not follow from the trial's levels: all where sizes do not. Types
        and ranks that differ are problems at once."""
        wrong = np.zeros(trial.rows, bool)
        for output in self.found.outputs:
            given = real[output.name]
            expected, _, total = self.trials.comparison.expected_output(output, trial, given)
            if output.origin == "computed":  # an amplified rounding error is none of the file: compare it with itself
                expected = trial.seen.get(output.name, expected)
            if self._fits(output, expected, given):
                wrong |= _rows(_differing(expected, given, total, output.ulps), output, trial.rows)
        return wrong

    def _off(self, trial: Trial, real: Values, theirs: list[Values], same: Array) -> Array:
        """Among the rows ``same``, those whose outputs are those of none of the source's runs. Floats behind a computed
        operator are left out: its rounding errors have no bound."""
        wrong = np.zeros(trial.rows, bool)
        for output in self.found.outputs:
            given = real[output.name]
            if output.behind_computed and given.dtype.kind == "f":
                continue
            everywhere, sized = np.ones(trial.rows, bool), False
            _, _, total = self.trials.comparison.expected_output(output, trial, given)
            for values in theirs:
                expected = values[output.name]
                if self._fits(output, expected, given):
                    everywhere &= _rows(_differing(expected, given, total, output.ulps), output, trial.rows)
                    sized |= expected.shape == given.shape
            # a row of an output that mixes samples, or a size, counts only where no count of the batch differs
            wrong |= everywhere & (same if output.per_sample and sized else same.all())
        return wrong

    def _explained(self, again: Trial, real: Values, wrong: Array) -> str:
        """What is wrong with rows whose outputs do not follow from what was observed: nothing if they follow from the
        counts of ``again``, which was observed with less, and rounding explains these; else a problem."""
        if (self._unlike(again, real) & wrong).any():
            return "in onnxruntime as it comes, its outputs do not follow from its spikes"
        for layer in self.found.layers:
            if not layer.check.lossless:
                continue  # that the outputs follow from its own counts is all that there is to say
            counts = again.levels[layer.after]
            expected = levels_of(layer, again.expected[layer.after])[0]
            where = np.nonzero(counts != expected)
            margin, bound, _ = root_margins(layer, again, where, counts[where], expected[where])
            if not np.all(margin <= bound):
                return f"in onnxruntime as it comes, counts of '{layer.check.name}' are not the source's"
        return ""

    def _same(self, trial: Trial, own: Values, reference: Values) -> Array:
        """The samples in which the compiled network has the source's counts, and every jump of a computed operator (an
        index, a truth value) is the source's."""
        same = np.ones(trial.rows, bool)
        pairs = [(trial.levels[x.after], own[x.after]) for x in self.found.layers]
        for x in self.found.layers:
            if trial.watched[x.after].counts is None or not x.check.lossless:
                same[:] = False
        for name in (n for x in self.found.computed for n in x.outputs):
            if reference[name].dtype.kind != "f":
                pairs.append((trial.seen[name], reference[name]))
        for a, b in pairs:
            if a.shape != b.shape:
                same[:] = False
            elif a.ndim and len(a) == trial.rows:
                same &= (a == b).all(axis=tuple(range(1, a.ndim)))
            elif not np.array_equal(a, b):
                same[:] = False
        return same

    def _second_look(
        self, feeds: Values, reference: Values, own: Values, real: Values, wrong: Array
    ) -> tuple[str, Trial | None]:
        """Why outputs of the file itself do not follow from the counts observed, empty if rounding explains it; and
        what the counts are with as little as possible observed."""
        try:
            seen = self.compiled.with_trains.run(feeds)
        except CompileError as error:
            return f"with its trains as outputs it cannot be run: {error.message}", None
        counts = {x.after: Watched(counts=counts_of(x.compiled, seen[x.train])[0]) for x in self.found.layers}
        again = replace(self.trials.observed(feeds, own, reference, counts, seen), watched=counts, seen=seen)
        return self._explained(again, real, wrong), again

    def _is_misread(self, trial: Trial, feeds: Values, again: Values) -> bool:
        """Whether the source as it was read (functions inlined, operators of an old opset converted) gives, operator by
        operator, other outputs than the file."""
        plain = self.source.unoptimised.run(feeds)
        for output in self.found.outputs:
            if any(is_random(x.check.operator) for x in self.found.computed):
                return False
            total = trial.total(output.name) if output.origin != "computed" else None
            excess, problem = excess_of(again[output.name], plain[output.name], total, output.ulps)
            if problem or not excess <= 1:
                return True
        return False

    def _fits(self, output: Output, expected: Array, given: Array) -> bool:
        """Whether the type and the rank are right; the sizes depend on the values."""
        if (expected.dtype, expected.ndim) == (given.dtype, given.ndim):
            return True
        found = f"{given.dtype} {list(given.shape)}"
        once(
            self.result.output_problems,
            f"'{output.name}' of the file is {found}, not {expected.dtype} {list(expected.shape)}",
        )
        return False


def _differing(expected: Array, given: Array, total: Array | None, ulps: float) -> Array:
    """Where two arrays of one type differ by more than rounding explains: as a whole where they differ in size."""
    if expected.shape != given.shape:
        return np.asarray(True)
    if expected.dtype.kind == "f":
        return np.asarray(ratios(expected, given, total, ulps) > 1)
    return np.asarray(expected != given)


def _rows(wrong: Array, output: Output, rows: int) -> Array:
    """By sample of the batch; all samples where they cannot be told apart."""
    if output.per_sample and wrong.ndim and len(wrong) == rows:
        return np.asarray(wrong.any(axis=tuple(range(1, wrong.ndim))))
    return np.full(rows, bool(wrong.any()))


def _classified_differently(a: Array, b: Array, count: int) -> int:
    """Of the first ``count`` samples, those that two outputs classify differently."""
    same = agreeing(a, b)
    return 0 if same is None else int(np.count_nonzero(~same[:count]))
