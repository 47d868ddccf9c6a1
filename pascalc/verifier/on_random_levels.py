"""The files cut behind every neuron and computed operator, and fed: what they do that no data shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from pascalc import ops
from pascalc.errors import CompileError
from pascalc.graph import Array
from pascalc.probes import Probed
from pascalc.verifier.chance import disturbed, drawn, random_levels, resized
from pascalc.verifier.compare import Trial
from pascalc.verifier.networks import Values
from pascalc.verifier.trials import Trials, rows_of
from pascalc.verifier.watch import Watched

#: The batch sizes in which random levels are tried.
PROBE_BATCHES = (1, 2, 5, 16)
#: Samples with random levels. A wrong weight behind one neuron of one level escapes a sample with a probability of at
#: most 0.6, and all of them with 2e-6.
PROBES = 24
#: Powers of two by which the largest inputs are larger than others, as shares of the largest exponent of their type.
_EXTREMES = (0.78, 0.47, 0.23, 0.1)


class RunsOnRandomLevels:
    """Feeds every stretch with random levels, and with what computed operators might give."""

    def __init__(self, trials: Trials, chance: np.random.Generator) -> None:
        self.trials, self.found, self.result = trials, trials.found, trials.result
        self.chance = chance
        self._cut: Probed | None = None

    def run(
        self, kept: Values, own: int, fixed: int | None, open_sizes: Mapping[str, Sequence[int]], free_batch: bool
    ) -> None:
        """Several batch sizes, the largest numbers, other sizes where they are open, and batches joined.

        Args:
            kept: inputs to draw from, disturbed.
            own: the batch size of the data.
            fixed: the one that the source insists on, or None.
            open_sizes: by input, the axes behind the batch whose sizes are open.
            free_batch: the source's batch is fixed and the compiled network's is not: two batches of the source's are
                one of the compiled network's.

        Raises:
            CompileError: the source cannot be run.
        """
        for size in [fixed] if fixed else [s for s in PROBE_BATCHES if s <= max(own, PROBE_BATCHES[-2])]:
            self._probe(drawn(kept, size, self.chance), must=size in (own, fixed))
        # the source may run at few sizes, but at that of the data
        largest = max(self.result.batch_sizes, default=own)
        while self.result.probes < PROBES and not any(x.check.problems for x in self.found.layers):
            self._probe(drawn(kept, largest, self.chance), must=True)
        self._probe_extremes(drawn(kept, fixed or 1, self.chance))
        if any(open_sizes.values()):
            feeds = drawn(kept, own, self.chance)
            other = {name: resized(array, open_sizes.get(name, ())) for name, array in feeds.items()}
            self._probe(other, must=False)
        if free_batch:
            self._probe_joined([drawn(kept, fixed or 1, self.chance) for _ in range(2)])

    def _probe(self, feeds: Values, must: bool) -> None:
        """One batch of random levels; ``must`` the source run on it?"""
        try:
            reference = self.trials.reference(feeds)
        except CompileError:
            if must:
                raise
            return
        if not self.trials.thresholds_fit(reference):
            return
        levels, computed = self._random(reference)
        watched, seen, fed = self._seen(feeds, levels, computed)
        trial = self.trials.expected(feeds, levels, computed)
        self.trials.compare(feeds, replace(trial, watched=watched, seen=seen, fed=fed))
        self._count(rows_of(feeds))

    def _probe_extremes(self, feeds: Values) -> None:
        """Inputs, and values of computed operators, as large as the source can take, and the highest levels: numbers
        that only the compiled network's floats do not hold are wrong."""
        for share in _EXTREMES:
            large = {name: _enlarged(array, share) for name, array in feeds.items()}
            try:
                reference = self.trials.reference(large)
            except CompileError:
                continue
            if not _is_finite(reference):
                continue
            levels, computed = self._random(reference)
            levels = {x.after: np.full_like(levels[x.after], min(x.most, ops.MAX_LEVELS)) for x in self.found.layers}
            trial = self.trials.expected(large, levels, computed)
            if all(_is_finite(values) for values in (trial.given, trial.expected, trial.totals)):
                watched, seen, fed = self._seen(large, levels, computed)
                self.trials.comparison.compare(replace(trial, watched=watched, seen=seen, fed=fed))
                return

    def _probe_joined(self, parts: list[Values]) -> None:
        """Several batches of the source's as one of the compiled network's."""
        apart = [self.trials.expected(feeds, *self._random(self.trials.reference(feeds))) for feeds in parts]
        feeds = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        levels, given, expected, totals = (
            {name: _joined([values[name] for values in of]) for name in of[0]}
            for of in zip(*((t.levels, t.given, t.expected, t.totals) for t in apart), strict=True)
        )
        watched, seen, fed = self._seen(feeds, levels, {n: given[n] for x in self.found.computed for n in x.outputs})
        rows = rows_of(feeds)
        self.trials.comparison.compare(Trial(levels, given, expected, totals, watched, seen, fed, rows, rows))
        self._count(rows)

    def _random(self, reference: Values) -> tuple[Values, Values]:
        """Levels of all layers, and what computed operators give."""
        levels = {
            x.after: random_levels(reference[x.after].shape, min(x.most, ops.MAX_LEVELS), self.chance)
            for x in self.found.layers
        }
        computed = {n: disturbed(reference[n], self.chance) for x in self.found.computed for n in x.outputs}
        # what is no float may be places and shapes, and is left as it is; but one sample may have another's
        computed |= {n: np.roll(computed[n], 1, axis=0) for x in self.found.computed for n in x.choices}
        return levels, computed

    def _seen(self, feeds: Values, levels: Values, computed: Values) -> tuple[dict[str, Watched], Values, Values]:
        """What the compiled network, cut and fed with these, does: its neurons, other tensors, and what it was fed."""
        fed = self.trials.fed(levels, computed)
        try:
            self._cut = self._cut or self.trials.compiled.cut(fed, self.found.observed())
            seen = self._cut.run(feeds, fed)
        except CompileError:
            seen = self.trials.part_by_part(feeds, fed)
        return self.trials.watch(seen, fed), seen, fed

    def _count(self, rows: int) -> None:
        self.result.probes += rows
        if rows not in self.result.batch_sizes:
            self.result.batch_sizes.append(rows)


def _enlarged(array: Array, share: float) -> Array:
    """Floats times a power of two, this share of the largest exponent."""
    if array.dtype.kind != "f":
        return array
    with np.errstate(over="ignore"):
        return np.asarray(np.ldexp(array, int(share * np.finfo(array.dtype).maxexp)))


def _is_finite(values: Values) -> bool:
    return all(bool(np.isfinite(a).all()) for a in values.values() if a.dtype.kind == "f")


def _joined(arrays: list[Array]) -> Array:
    """Values of several batches as those of one; what has no batch is the same in all."""
    return np.concatenate(arrays) if arrays[0].ndim else arrays[0]
