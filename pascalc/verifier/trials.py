"""One trial: what the compiled network does in a batch, beside what the source makes of the same levels.

Whether the files run as they are, on data, or cut and fed with random levels: what the source is given is what came out
of the compiled network's cuts, and what is expected is what the source's stretches make of that. Computed operators are
compared by what the source's own make of the very inputs that were seen.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pascalc.errors import CompileError
from pascalc.graph import Array
from pascalc.verifier.compare import Comparison, Trial, activation_of, excess_of, levels_of, once
from pascalc.verifier.networks import CompiledNetworks, SourceNetworks, Values, encode
from pascalc.verifier.pairing import Layer, Pairing, is_random
from pascalc.verifier.record import Verification
from pascalc.verifier.watch import Watched, watch

#: How far an operator may be off, in units in the last place, that gets the very same input.
OPERATOR_ULPS = 4


class Trials:
    """Makes the trials of two networks, and compares them; what is found goes into the :class:`Verification`."""

    def __init__(
        self, source: SourceNetworks, compiled: CompiledNetworks, found: Pairing, result: Verification
    ) -> None:
        self.source, self.compiled, self.found, self.result = source, compiled, found, result
        self.comparison = Comparison(found, result)
        self._right: Values | None = None

    def reference(self, feeds: Values) -> Values:
        """What the source computes by itself: its activations, what its computed operators give, and its outputs.

        Raises:
            CompileError: the source cannot be run on this.
        """
        try:
            values = self.source.reference.run(feeds)
        except CompileError as error:
            error.hint = error.hint or ("" if self.result.data else "These inputs are random; give real ones (--data).")
            raise
        for name, value in values.items():
            if not isinstance(value, np.ndarray):
                raise CompileError(
                    "it gives a sequence, which cannot be compared",
                    file=self.source.path,
                    node=name,
                    hint="Export the network without sequences inside: with Split, Gather and Concat.",
                )
        for layer in self.found.layers:
            if not values[layer.after].ndim:
                raise CompileError(
                    "its activation is one number for all samples, of which there is no spike count a sample",
                    file=self.source.path,
                    node=layer.check.name,
                    hint="Export the network with the samples apart: reduce all axes but the first.",
                )
        self.source.learn(values)
        return values

    def thresholds_fit(self, reference: Values) -> bool:
        """Whether all thresholds fit the samples, of sizes that may be open until something runs."""
        for layer in self.found.layers:
            threshold = layer.compiled.threshold
            if not _broadcasts(threshold, reference[layer.after]):
                once(layer.check.problems, f"its threshold {list(threshold.shape)} does not fit its samples")
                return False
        return True

    def own_levels(self, reference: Values) -> Values:
        """The source's levels; its activations must be multiples of theta/L.

        Raises:
            CompileError: the source computes NaN.
        """
        found = {}
        for layer in self.found.layers:
            activation = reference[layer.after]
            found[layer.after], fine = levels_of(layer, activation)
            if not fine:
                if np.isnan(activation).any():
                    raise CompileError(
                        "the source network computes NaN here on this data, so that no spike count is right or wrong",
                        file=self.source.path,
                        node=layer.check.name,
                        hint="Give data in the range that the network was trained on.",
                    )
                once(layer.check.problems, "its activations in the source are not multiples of theta/L")
        return found

    def watch(self, seen: Values, fed: Values) -> dict[str, Watched]:
        """What the neurons did; their trains, which are large, are let go of."""
        watched = {x.after: watch(x, seen, fed) for x in self.found.layers}
        kept = {n for x in self.found.computed for n in (*(f.compiled for f in x.inputs), *x.outputs)}
        kept |= {f.compiled for f in self.found.bent} | {o.name for o in self.found.outputs}
        for name in {n for x in self.found.layers for n in (x.current, x.fired, x.train)} - kept:
            seen.pop(name, None)
        return watched

    def observed(
        self, feeds: Values, own: Values, reference: Values, watched: Mapping[str, Watched], seen: Values
    ) -> Trial:
        """What the source makes of what was seen in the compiled network, with nothing of that beside it yet.

        Sizes may depend on values (NonZero, Compress), and are other ones where counts are. Where the source cannot
        take them they make no sense either, and only what has the source's own sizes is given to it.
        """
        given = self._given(own, reference, watched, seen)
        try:
            return self.expected(feeds, *given)
        except CompileError:
            of_one_size = self._given(own, reference, watched, seen, any_size=False)
            if all(a[n].shape == b[n].shape for a, b in zip(given, of_one_size, strict=True) for n in a):
                raise
            return self.expected(feeds, *of_one_size)

    def _given(
        self,
        own: Values,
        reference: Values,
        watched: Mapping[str, Watched],
        seen: Values,
        any_size: bool = True,
    ) -> tuple[Values, Values]:
        """What the source's stretches are given: what was seen in the compiled network; the source's own where that
        makes no sense."""

        def fits(value: Array, like: Array) -> bool:
            return value.shape == like.shape or (any_size and value.ndim == like.ndim)

        levels = {x.after: _as_counts(x, own[x.after]) for x in self.found.layers}
        for layer in self.found.layers:
            counts = watched[layer.after].counts
            like = own[layer.after]
            # a train of another length looks like one of another number of samples, which makes no sense
            if counts is not None and fits(counts, like) and len(counts) == len(like) and np.all(counts >= 0):
                levels[layer.after] = counts
        computed = {}
        for name in (n for x in self.found.computed for n in x.outputs):
            value, like = seen.get(name, reference[name]), reference[name]
            computed[name] = value if value.dtype == like.dtype and fits(value, like) else like
        return levels, computed

    def fed(self, levels: Values, computed: Values) -> Values:
        """What all that is behind the compiled network's cuts gets."""
        return {x.train: encode(x.compiled, levels[x.after]) for x in self.found.layers} | computed

    def part_by_part(self, feeds: Values, fed: Values) -> Values:
        """The cut network, one part after the other, to find those that cannot be run."""
        seen: Values = {}
        parts = [([x.current, x.fired, x.train], x.check.problems) for x in self.found.layers]
        parts += [([*(f.compiled for f in x.inputs), *x.outputs], x.check.problems) for x in self.found.computed]
        parts += [([f.compiled], self.result.problems) for f in self.found.bent]
        parts += [([o.name], self.result.output_problems) for o in self.found.outputs]
        for names, problems in parts:
            try:
                seen |= self.compiled.cut(fed, names).run(feeds, fed)
            except CompileError as error:
                once(problems, f"it cannot be run: {error.message}")
        return seen

    def expected(self, feeds: Values, levels: Values, computed: Values) -> Trial:
        """What the source makes of these levels and values, with nothing seen beside it yet."""
        given = {x.after: activation_of(x, levels[x.after]) for x in self.found.layers} | computed
        expected = self.source.stretches.run(feeds, given)
        totals = self.source.bounds.run(feeds, given)
        rows = rows_of(feeds)
        return Trial(levels, given, expected, totals, {}, {}, {}, rows, rows)

    def release(self) -> None:
        """Let go of what only data needs."""
        self.source.release()
        self.compiled.release()

    def compare(self, feeds: Values, trial: Trial) -> None:
        """Everything that is compared in a trial, and what computed operators give."""
        self.comparison.compare(trial)
        self._check_operators(feeds, trial)

    def _check_operators(self, feeds: Values, trial: Trial) -> None:
        """What computed operators give: what the source's own operators make of the very inputs that were seen."""
        names = [f for x in self.found.computed for f in x.inputs]
        inputs = {f.source: trial.got(f.compiled) for f in names}
        given = {name: value for name, value in inputs.items() if value is not None}
        if not self.found.computed or len(given) < len(inputs):
            return  # what is missing is a problem already
        for item in self.found.computed:
            own = {f.source: trial.got(f.compiled) for f in item.inputs}
            differing = {n: v for n, v in own.items() if v is not None and not np.array_equal(v, given[n])}
            try:
                right = self._operators(feeds, {**given, **differing}, bool(differing))
            except CompileError:
                continue  # inputs that do not fit are a problem already
            for name in item.outputs if not is_random(item.check.operator) else ():
                if name in trial.seen:
                    excess, problem = excess_of(right[name], trial.seen[name], None, OPERATOR_ULPS)
                    once(
                        item.check.problems,
                        problem or ("" if excess <= 1 else "it gives other values than the source's"),
                    )
        self._right = None

    def _operators(self, feeds: Values, given: Values, anew: bool) -> Values:
        """What the source's computed operators make of these inputs; once for all of them, if they agree on these."""
        if anew:
            return self.source.operators(given).run(feeds, given)
        if self._right is None:
            self._right = self.source.operators(given).run(feeds, given)
        return self._right


def rows_of(feeds: Values) -> int:
    """The samples of a batch."""
    return len(next(iter(feeds.values())))


def _as_counts(layer: Layer, levels: Array) -> Array:
    """The compiled neuron's counts that stand for these levels, or come nearest."""
    return levels if layer.most == layer.levels else np.rint(levels * (layer.most / layer.levels)).astype(levels.dtype)


def _broadcasts(threshold: Array, activation: Array) -> bool:
    """Whether a threshold broadcasts against a sample without making it larger."""
    sample = activation.shape[1:]
    try:
        return np.broadcast_shapes(threshold.shape, (1, *sample)) == (1, *sample)
    except ValueError:
        return False
