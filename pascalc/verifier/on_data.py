"""The files as they are, on data and on inputs that no data gave."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pascalc.errors import CompileError
from pascalc.folding import Pool, Progress, Work, results
from pascalc.stream import Batch, SampleStream
from pascalc.verifier.chance import drawn
from pascalc.verifier.compare import once
from pascalc.verifier.networks import Values
from pascalc.verifier.outputs import Answers
from pascalc.verifier.record import Verification
from pascalc.verifier.trials import Trials


@dataclass(frozen=True)
class Found:
    """What one batch of data shows, and whether another can show more."""

    record: Verification
    goes_on: bool


class RunsOnData:
    """Runs both files, with all that is compared as further outputs, and as they are."""

    def __init__(self, trials: Trials) -> None:
        self.trials, self.result = trials, trials.result
        self.answers = Answers(trials)

    def on_data(
        self, work: Work[Found], data: SampleStream, batch: int, progress: Progress | None, pool: Pool | None
    ) -> None:
        """All data, batch by batch."""
        total = self.result.take()
        for found in results(work, data, batch, threads=self.result.threads, progress=progress, pool=pool):
            total.add(found.record)
            if not found.goes_on:
                break
        self.result.add(total)

    def on_batch(self, batch: Batch) -> Found:
        """One batch of data; if a threshold does not fit, no other can show more."""
        self.result.take()  # what an error left
        reference = self.trials.reference(batch.feeds)
        fits = self.trials.thresholds_fit(reference)
        if fits:
            self._compare(batch.feeds, reference, self.trials.own_levels(reference), batch.part)
        return Found(self.result.take(), fits)

    def on_disturbed(self, kept: Values, count: int, chance: np.random.Generator) -> None:
        """A batch of inputs that no data gave, one of them negative, as no image is; nothing that they show is counted.
        The record has no such samples where the source takes only some inputs, and refuses these."""
        feeds = drawn(kept, count, chance)
        for array in feeds.values():
            if array.dtype.kind == "f":
                array[:1] = -np.abs(array[:1])
        try:
            reference = self.trials.reference(feeds)
            own = self.trials.own_levels(reference)
        except CompileError:
            return
        if self.trials.thresholds_fit(reference):
            self.result.disturbed += count
            self._compare(feeds, reference, own, None)

    def _compare(self, feeds: Values, reference: Values, own: Values, part: slice | None) -> None:
        """Compare what both files make of one batch.

        Args:
            feeds: the inputs.
            reference: what the source computes by itself, and ``own``: its levels.
            part: which samples of the data these are; None if they are none, and nothing is counted.
        """
        trials = self.trials
        seen = self._observed(feeds)
        if not seen and part is None:
            return  # it is a problem already
        watched, fed = trials.watch(seen, {}), {}
        trial = trials.observed(feeds, own, reference, watched, seen)
        if not seen:
            computed = {n: trial.given[n] for x in trials.found.computed for n in x.outputs}
            fed = trials.fed(trial.levels, computed)
            seen = trials.part_by_part(feeds, fed)
            watched = trials.watch(seen, fed)
        trial = replace(trial, watched=watched, seen=seen, fed=fed, samples=0)
        if part is not None:
            trial = replace(trial, samples=part.stop - part.start, start=part.start, own=own)
        trials.compare(feeds, trial)
        self.answers.compare(trial, feeds, reference, own)

    def _observed(self, feeds: Values) -> Values:
        """What was asked for of the compiled file; nothing, and a problem, where it cannot be run."""
        try:
            return self.trials.compiled.observed.run(feeds)
        except CompileError as error:
            once(self.result.problems, f"it cannot be run: {error.message}")
            return {}
