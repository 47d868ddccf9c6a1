"""The comparison: what the compiled network computed beside what the source computes from the same levels.

A *trial* fixes what comes out of every cut: levels for the neurons, values for the computed operators. From these the
source's stretches give what is expected. The compiled network's values are beside it:

- the current of every neuron, summed over time, in levels: within the rounding bound of the source's;
- every train: to the bit what this version's kernel of the neuron fires on the current that it really got;
- every count: the level of the source's current; where it is not, a *root mismatch*, with its margin and bound;
- every input of a computed operator, and every output: within its bound, or equal where it is no float.

With eps the unit in the last place, P the sum of absolute products, T the steps that are added up and n the values that
a pool or a reduction adds up,

    bound = (4 + (T-1)/2 + (sqrt(n)-1)/2) * eps * (P*L/theta + 2*max(|u|, 1))        of u = z*L/theta + phi, in levels
    bound = (4 + (T-1)/2 + (sqrt(n)-1)/2) * eps * (P + 2*|x|)                        of any other float x

Nothing is taken for granted: what was not seen in a trial is a fault.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pascalc.errors import CompileError
from pascalc.graph import Array
from pascalc.timing import Held, Train
from pascalc.verifier.networks import Values
from pascalc.verifier.pairing import Feed, Layer, Output, Pairing
from pascalc.verifier.record import MAX_ROOTS_SHOWN, Root, Verification
from pascalc.verifier.watch import Watched, weighted_sum

#: A bound in levels beyond which a current says nothing of the level.
_WIDE = 0.25
#: A bound beyond this share of the largest value says nothing of any other float.
_SHARE = 0.01


@dataclass(frozen=True)
class Trial:
    """One batch.

    Attributes:
        levels: by the source's activation, what the layers behind it are given, as counts of the compiled neuron.
        given: what comes out of the source's cuts: the activations at these levels, and what is computed.
        expected: the source's tensors, given those; ``totals``: their sums of absolute products.
        watched: by the source's activation, what the neuron that stands for it did.
        seen: other tensors of the compiled network. What could not be computed is missing.
        fed: what all that is behind the compiled network's cuts gets in their place; nothing where it runs as it is.
        samples: how many samples are data, from the first on; the others fill up a fixed batch.
        start: the number of the first sample.
        own: the source's levels when it runs by itself; None in a trial that is no run of data.
    """

    levels: Values
    given: Values
    expected: Values
    totals: Values
    watched: Mapping[str, Watched]
    seen: Values
    fed: Values
    samples: int
    rows: int
    start: int = 0
    own: Values | None = None

    def expects(self, name: str) -> Array:
        """What the users of a tensor of the source get."""
        return self.given.get(name, self.expected[name])

    def total(self, name: str) -> Array | None:
        """The sum of absolute products of that."""
        value = self.given.get(name)
        if value is None:
            return self.totals.get(name)
        return np.abs(value) if value.dtype.kind == "f" else None

    def got(self, name: str) -> Array | None:
        """What the users of a tensor of the compiled network got."""
        return self.fed.get(name, self.seen.get(name))


class Comparison:
    """Compares trials, and keeps what it finds in the :class:`Verification`."""

    def __init__(self, pairing: Pairing, result: Verification) -> None:
        self.pairing, self.result = pairing, result

    def compare(self, trial: Trial) -> None:
        """Everything that is compared in one trial."""
        for layer in self.pairing.layers:
            self._layer(layer, trial)
        for item in self.pairing.computed:
            for feed in item.inputs:
                given, expected = trial.got(feed.compiled), trial.expects(feed.source)
                if given is None:
                    once(item.check.problems, f"its input '{feed.compiled}' could not be measured")
                    continue
                if trial.own is not None:
                    _check_told(expected, trial.total(feed.source), feed.ulps, feed.source)
                excess, problem = excess_of(expected, given, trial.total(feed.source), feed.ulps)
                item.check.excess = max(item.check.excess, excess)
                once(item.check.problems, problem)
        for feed in self.pairing.bent:
            self._bent(feed, trial)
        for output in self.pairing.outputs:
            self._output(output, trial)

    def _bent(self, feed: Feed, trial: Trial) -> None:
        """What goes into a MaxPool, say, summed over time: where that is the source's, its maxima are, too. So they are
        where it is a positive multiple, channel by channel: a threshold may be folded into the layer before. What is
        held for a product has to be the same in every step."""
        given, expected = trial.got(feed.compiled), trial.expects(feed.source)
        if given is None:
            once(self.result.problems, f"the tensor '{feed.compiled}' could not be measured")
            return
        steps = feed.kind.steps
        if steps > 1 and given.ndim and not len(given) % steps:
            by_step = given.reshape(steps, len(given) // steps, *given.shape[1:])
            if isinstance(feed.kind, Held):
                differs = (by_step != by_step[0]) & ~(np.isnan(by_step) & np.isnan(by_step[0]))
                once(self.result.problems, f"the tensor '{feed.compiled}': it changes over time" * bool(differs.any()))
                given = by_step[0]
            elif isinstance(feed.kind, Train):
                given = weighted_sum(by_step, feed.kind.weighting)
        if given.shape == expected.shape and given.dtype == expected.dtype and given.dtype.kind == "f":
            given = given / _scale(expected, given)
        excess, problem = excess_of(expected, given, trial.total(feed.source), feed.ulps)
        problem = problem or ("" if excess <= 1 else "it has other values than the source's")
        once(self.result.problems, problem and f"the tensor '{feed.compiled}': {problem}")

    # --- neurons ------------------------------------------------------------------------------------------------------

    def _layer(self, layer: Layer, trial: Trial) -> None:
        check, seen = layer.check, trial.watched[layer.after]
        z = trial.expects(layer.before)
        once(check.problems, seen.problem)
        check.misfired += seen.misfired
        check.not_binary += seen.not_binary
        counts = seen.counts
        if counts is not None and counts.shape != z.shape:
            once(check.problems, f"its counts have the shape {list(counts.shape)}, not {list(z.shape)}")
            counts = None
        if trial.own is not None:
            own = _of_data(trial, trial.own[layer.after])
            check.neurons += own.size
            counted = None if counts is None else _of_data(trial, counts)
            # in arrays of another size, which values decide, no count is that of the source's
            differing = None if counted is None or counted.shape != own.shape else _difference(layer, counted, own)
            check.off += 0 if differing is None else int(np.abs(differing).sum())
            check.count_mismatches += own.size if differing is None else int(np.count_nonzero(differing))
        if seen.current is not None:
            self._current(layer, trial, seen.current)
        if counts is None:
            once(check.problems, seen.problem or "its counts could not be measured")
            return
        expected = levels_of(layer, trial.expected[layer.after])[0]
        if not check.lossless:
            if trial.own is not None:
                check.own_off += int(
                    np.abs(_difference(layer, *(_of_data(trial, a) for a in (counts, expected)))).sum()
                )
        elif not np.array_equal(counts, expected):
            self._roots(layer, trial, counts, expected)

    def _current(self, layer: Layer, trial: Trial, current: Array) -> None:
        """The current in levels, beside the rounding bound. In the currents' own precision: the half ulp that the
        comparison adds is small beside the bound, of four and more."""
        z, total, check = trial.expects(layer.unpooled), trial.total(layer.unpooled), layer.check
        if current.shape != z.shape or total is None:
            once(check.problems, f"its current has the shape {list(current.shape)}, not {list(z.shape)}")
            return
        kind = z.dtype.type
        with np.errstate(all="ignore"):
            gain = (layer.most / layer.threshold).astype(kind)
            u = z * gain
            given = current * (layer.most / layer.compiled.threshold).astype(kind)
            bound = _bound(layer, total, gain, u)
            ratio = np.abs(given - u) / bound
            if trial.own is not None:
                _check_resolved(layer, u + layer.source.phi, bound)
        excess = float(np.max(ratio, initial=0))
        if not np.isfinite(excess):
            finite = np.isfinite(given) & np.isfinite(u)
            # where the absolute products overflow, the order of the sum decides whether the current does
            with np.errstate(all="ignore"):
                overflows = np.isposinf(total * gain)
            decided = ~finite & ~overflows
            once(check.problems, _overflow(u[decided], given[decided], "its current"))
            excess = float(np.max(ratio, initial=0, where=finite & ~np.isnan(ratio)))
        check.current_excess = max(check.current_excess, excess)

    def _roots(self, layer: Layer, trial: Trial, counts: Array, expected: Array) -> None:
        """Root mismatches of one layer in one trial, each with its margin and bound in levels."""
        check = layer.check
        where = np.nonzero(counts != expected)
        given, wanted = counts[where].astype(np.int64), expected[where].astype(np.int64)
        margin, bound, between = root_margins(layer, trial, where, given, wanted)
        beyond = ~(margin <= bound)
        if trial.own is None:
            if beyond.any():
                once(check.problems, "with random levels, counts differ by more than rounding explains")
            return
        per_sample = len(expected) == trial.rows
        data = where[0] < trial.samples if per_sample else np.full(len(margin), True)
        check.root_mismatches += int(np.count_nonzero(data))
        check.roots_beyond_bound += int(np.count_nonzero(beyond))
        check.half_points += int(np.count_nonzero(between & data))
        check.max_root_margin = max(check.max_root_margin, float(np.nan_to_num(margin).max()))
        worst = np.argsort(bound - margin)[: max(0, MAX_ROOTS_SHOWN - len(self.result.roots))]
        for k in worst:
            index = [int(axis[k]) for axis in where]
            sample = min(index[0], trial.samples - 1) if per_sample else 0
            self.result.roots.append(
                Root(
                    layer=check.name,
                    sample=trial.start + sample,
                    index=index[1:] if per_sample else index,
                    source_count=int(wanted[k]),
                    count=int(given[k]),
                    margin=float(margin[k]),
                    bound=float(bound[k]),
                )
            )

    # --- outputs ------------------------------------------------------------------------------------------------------

    def _output(self, output: Output, trial: Trial) -> None:
        given = trial.got(output.name)
        if given is None:
            once(self.result.output_problems, f"'{output.name}' could not be measured")
            return
        if output.origin == "computed":
            return  # the operator is the source's, and so are its inputs
        expected, given, total = self.expected_output(output, trial, given)
        if trial.own is not None:
            _check_told(expected, total, output.ulps, output.name)
        excess, problem = excess_of(expected, given, total, output.ulps)
        self.result.output_excess = max(self.result.output_excess, excess)
        once(self.result.output_problems, problem and f"'{output.name}': {problem}")

    def expected_output(self, output: Output, trial: Trial, given: Array) -> tuple[Array, Array, Array | None]:
        """What an output should be, what it is, and the sum of absolute products."""
        if output.origin == "computed":  # its users get what the compiled network computed; it itself is the source's
            return trial.expected[output.name], given, trial.totals.get(output.name)
        return trial.expects(output.name), given, trial.total(output.name)


def _scale(expected: Array, given: Array) -> Array:
    """By which positive factor one array is the other, for each index of axis 1; told by its largest value."""
    axes = tuple(axis for axis in range(expected.ndim) if axis != 1)
    sizes = np.where(np.isfinite(expected), np.abs(expected), 0)
    largest = sizes == sizes.max(axis=axes, keepdims=True, initial=0)
    with np.errstate(all="ignore"):
        factor = np.where(largest, given / expected, 0).max(axis=axes, keepdims=True, initial=0)
    return np.asarray(np.where(np.isfinite(factor) & (factor > 0), factor, 1), expected.dtype)


def root_margins(
    layer: Layer, trial: Trial, where: tuple[Array, ...], given: Array, wanted: Array
) -> tuple[Array, Array, Array]:
    """For counts that differ: how far the source's u lies from the nearest value that gives the count, the rounding
    bound, both in levels, and whether u lies on the point between the two levels as far as floats can tell."""
    z, sums = trial.expects(layer.before), trial.total(layer.before)
    gain = np.broadcast_to(layer.levels / layer.threshold.astype(np.float64), z.shape)[where]
    u = z[where] * gain + layer.source.phi
    total = np.broadcast_to(0 if sums is None else sums, z.shape)[where]
    bound = _bound(layer, total, gain, u)
    # how far u lies from where the given count begins: from below, or from above
    crossed = np.where(given > wanted, given, given + 1)
    steps = layer.source.thresholds
    if steps is None:
        margin = np.abs(crossed - u)
        apart = np.abs(u - np.maximum(given, wanted))
    else:
        known = np.broadcast_to(steps[:, 0], (len(steps), *z.shape[1:]))
        tau = known[(np.clip(crossed, 1, len(steps)) - 1, *where[1:])].astype(np.float64)
        apart = margin = np.abs(tau - z[where]) * gain
    between = apart <= 2 * float(np.finfo(z.dtype).eps) * np.maximum(np.abs(u), 1)
    return margin, bound, between & (np.abs(given - wanted) == 1)


def _bound(layer: Layer, total: Array, gain: Array, u: Array) -> Array:
    """The rounding bound of u, in levels."""
    eps = float(np.finfo(layer.threshold.dtype).eps)
    return np.asarray((total * gain + 2 * np.maximum(np.abs(u), 1)) * u.dtype.type(layer.ulps * eps))


def _check_resolved(layer: Layer, u: Array, bound: Array) -> None:
    """Refuse a layer of which rounding alone decides: its bounds say nothing.

    Args:
        layer: the layer.
        u: its currents in counts, phi added.
        bound: how far rounding can move them.

    Raises:
        CompileError: there are neurons whose level rounding can change by itself, by more than a crossing. Where a
            neuron has more counts than levels, it is the levels that matter.
    """
    share = min(1.0, layer.levels / layer.most)
    wide = ~(bound * share <= _WIDE)
    if wide.any():
        lowest, highest = (np.clip(np.floor(v[wide] * share), 0, layer.levels) for v in (u - bound, u + bound))
        count = int(np.count_nonzero(~(lowest == highest)))
        if count:
            raise CompileError(
                f"rounding alone can move {count} currents by more than {_WIDE} of a level, so that no spike count is "
                "right or wrong",
                node=layer.check.name,
                hint="The source adds numbers too large for its floats: give other data, or mend the source.",
            )


def _check_told(expected: Array, total: Array | None, ulps: float, name: str) -> None:
    """Refuse a tensor of which rounding alone decides: its bounds say nothing.

    Raises:
        CompileError: rounding can move it by more than a hundredth of its largest value.
    """
    if expected.dtype.kind != "f" or total is None or not expected.size or total.shape != expected.shape:
        return
    finite = np.isfinite(expected)
    largest = float(np.max(np.abs(expected), where=finite, initial=0))
    with np.errstate(all="ignore"):
        bound = float(np.max(total, where=finite, initial=0)) * ulps * float(np.finfo(expected.dtype).eps)
    if largest and not bound <= _SHARE * largest:
        raise CompileError(
            f"rounding alone can move this tensor by {bound:.2g}, and its largest value is {largest:.2g}, so that it "
            "is neither right nor wrong",
            node=name,
            hint="The source adds numbers too large for its floats: give other data, or mend the source.",
        )


def levels_of(layer: Layer, activation: Array) -> tuple[Array, bool]:
    """The levels that the source's activations stand for, and whether they are multiples of theta/L."""
    with np.errstate(all="ignore"):
        levels = activation / layer.unit(layer.levels).astype(activation.dtype)
        nearest = np.rint(levels)
        fine = bool(np.all(np.abs(levels - nearest) <= 1e-3))
        return np.asarray(np.nan_to_num(nearest, copy=False, nan=-1, posinf=-1, neginf=-1), np.int16), fine


def activation_of(layer: Layer, counts: Array) -> Array:
    """The source's activation for these counts of the compiled neuron: count * (theta/L) where it is lossless."""
    return np.asarray(counts.astype(layer.threshold.dtype) * layer.unit(layer.most))


def _difference(layer: Layer, counts: Array, levels: Array) -> Array:
    """Counts less levels, in units of theta/(L * most), exactly."""
    return np.asarray(counts.astype(np.int64) * layer.levels - levels.astype(np.int64) * layer.most)


def excess_of(expected: Array, given: Array, total: Array | None, ulps: float) -> tuple[float, str]:
    """The largest ratio of a difference to its rounding bound, and a problem or an empty text."""
    problem = _misfit(expected, given)
    if problem:
        return 0.0, problem
    if expected.dtype.kind != "f":
        return 0.0, "" if np.array_equal(expected, given) else "it has other values than the source's"
    ratio = ratios(expected, given, total, ulps)
    finite = np.isfinite(expected) & np.isfinite(given)
    return float(np.max(ratio, where=finite, initial=0)), _overflow(expected[~finite], given[~finite], "it")


def ratios(expected: Array, given: Array, total: Array | None, ulps: float) -> Array:
    """The differences of two float arrays of one shape in units of their rounding bound; 0 where both are the same
    infinity or NaN, infinite where only one is."""
    kind = np.finfo(expected.dtype)
    with np.errstate(all="ignore"):
        # a sum of another shape belongs to other values: places, sizes or counts that differ
        products = 0 if total is None or total.shape != expected.shape else total
        bound = ulps * float(kind.eps) * (products + 2 * np.abs(expected))
        ratio = np.abs(expected - given) / np.maximum(bound, kind.tiny)
        same = (expected == given) | (np.isnan(expected) & np.isnan(given))
    return np.where(same, 0, np.where(np.isnan(ratio), np.inf, ratio))


def _misfit(expected: Array, given: Array) -> str:
    if expected.dtype != given.dtype:
        return f"it is {given.dtype}, not {expected.dtype}"
    if expected.shape != given.shape:
        return f"it has the shape {list(given.shape)}, not {list(expected.shape)}"
    return ""


def _overflow(expected: Array, given: Array, name: str) -> str:
    """A problem, unless the same values are infinite or NaN in the source."""
    same = np.array_equal(expected, given, equal_nan=True)
    return "" if same else f"{name} is infinite or NaN where the source's is not, or another way"


def _of_data(trial: Trial, array: Array) -> Array:
    """The part of a layer's array that belongs to samples of the data: all, unless samples fill up a fixed batch."""
    return array[: trial.samples] if len(array) == trial.rows else array


def once(problems: list[str], problem: str) -> None:
    """Keep a problem that is not yet among them; an empty text is none."""
    if problem and problem not in problems:
        problems.append(problem)
