"""How verify goes about it: what runs, in which order, on what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from pascalc import ops, pipeline
from pascalc.answers import agreeing
from pascalc.data import Data, load_data
from pascalc.errors import CompileError
from pascalc.files import read_bytes
from pascalc.graph import Array, Model, is_ours
from pascalc.metadata import source_is
from pascalc.modelfile import load
from pascalc.passes import ANALYSIS
from pascalc.probes import Probed, main_tensors
from pascalc.verifier.chance import disturbed, random_inputs, random_levels
from pascalc.verifier.compare import Comparison, Trial, activation_of, levels_of, once
from pascalc.verifier.networks import CompiledNetworks, SourceNetworks, Values, encode
from pascalc.verifier.outputs import Answers
from pascalc.verifier.pairing import Pairing, pair
from pascalc.verifier.record import Verification
from pascalc.verifier.watch import Watched, counts_of, watch

Progress = Callable[[int, int], None]

#: Random inputs where there is no data, and the batch sizes in which random levels are tried.
RANDOM_SAMPLES = 32
PROBE_BATCHES = (1, 2, 5)


def verify(
    source: str | Path,
    compiled: str | Path,
    data: str | Path | None = None,
    *,
    limit: int | None = None,
    batch: int = 16,
    threads: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Verification:
    """Check that a compiled network is its source network.

    Args:
        source: the ONNX file that was compiled.
        compiled: the ONNX file that came out.
        data: an ``.npz`` of inputs; without it, random inputs are taken.
        limit: only the first so many samples.
        batch: samples a run.
        threads: threads of onnxruntime; by default one for each core.
        seed: of the random levels and inputs.
        progress: called with (samples done, samples in all).

    Raises:
        CompileError: a file cannot be read, the data does not fit, the source cannot be run, or the files are not of
            the same network at all.
    """
    known = load(source)
    samples = None if data is None else load_data(data, known, limit)
    if batch < 1:
        raise CompileError(f"the samples a run must be at least 1, not {batch}")
    emitted = load(compiled)
    pipeline.run(known, ANALYSIS)
    result = Verification(data=samples is not None, threads=threads)
    result.problems += [n.reason for n in emitted.notes]
    found = pair(known, emitted, result)
    _check_interface(known, emitted)
    _say_what_is_trusted(known, emitted, result)
    chance = np.random.default_rng(seed)
    if samples is None:
        samples = random_inputs(known, min(limit or RANDOM_SAMPLES, RANDOM_SAMPLES), chance)
    result.samples = len(samples)
    fit = _is_fit_to_run(emitted, found, result, Path(compiled))
    del known, emitted  # and their weights
    if fit:
        run = _Run(Path(source), Path(compiled), found, result, threads)
        run.on_data(samples, batch, progress)
        run.on_random_levels(samples, batch, chance)
    return result


def _check_interface(known: Model, emitted: Model) -> None:
    """The names of inputs and outputs, in their order."""
    for kind in ("interface_inputs", "interface_outputs"):
        if [v.name for v in getattr(known, kind)] != [v.name for v in getattr(emitted, kind)]:
            raise CompileError("its inputs and outputs are not those of the source", file=emitted.file)


def _say_what_is_trusted(known: Model, emitted: Model, result: Verification) -> None:
    """What the verdict takes from the compiled file's own word."""
    result.source_recorded = source_is(emitted.metadata, known.digest)
    if result.requantised:
        layers = ", ".join(f"{name}: {a} -> {b}" for name, (a, b) in result.requantised.items())
        result.trusted.append(
            f"the levels that the file says that it was compiled to ({layers}): the source is taken at these"
        )


def _is_fit_to_run(emitted: Model, found: Pairing, result: Verification, path: Path) -> bool:
    """Whether there is something to run; trains longer than any neuron's are not even tried."""
    missing = set(found.observed()) - main_tensors(read_bytes(path))
    if missing:
        result.problems.append(
            f"it has functions of its own that hide {len(missing)} tensors, such as '{min(missing)}': inline them first"
        )
        return False
    longest = max((x.compiled.steps_out for x in found.layers), default=0)
    for node in (n for n in emitted.graph.nodes if is_ours(n, *ops.OPERATORS)):
        steps = [node.attrs[key] for key in ("steps", "steps_in", "steps_out") if key in node.attrs]
        if not all(type(n) is int and 1 <= n <= longest for n in steps):
            result.problems.append(
                f"'{node.name}' has trains of {max(steps, key=str)} steps; its neurons send {longest}"
            )
            return False
    return bool(found.layers)


class _Run:
    def __init__(self, source: Path, compiled: Path, found: Pairing, result: Verification, threads: int | None) -> None:
        self.found, self.result = found, result
        self.source = SourceNetworks(source, found, threads)
        self.compiled = CompiledNetworks(compiled, found, threads)
        self.comparison = Comparison(found, result)
        self.answers = Answers(self.comparison, result)

    # --- data ---------------------------------------------------------------------------------------------------------

    def on_data(self, data: Data, batch: int, progress: Progress | None) -> None:
        """The files as they are, batch by batch."""
        for feeds, part in data.batches(batch):
            reference = self._reference(feeds)
            own = self._own_levels(reference)
            seen = self._attempt(lambda: self.compiled.observed, feeds, self.result.problems)
            watched, fed = self._watch(seen, {}), {}
            levels, computed = self._given(own, reference, watched, seen)
            if not seen:
                fed = self._fed(levels, computed)
                seen = self._part_by_part(feeds, fed)
                watched = self._watch(seen, fed)
            rows = len(next(iter(feeds.values())))
            trial = self._trial(feeds, levels, computed, watched, seen, fed, rows)
            trial = replace(trial, samples=part.stop - part.start, start=part.start, own=own)
            self.comparison.compare(trial)
            self._compare_answers(trial, feeds, reference, own)
            if progress is not None:
                progress(part.stop, len(data))

    def _reference(self, feeds: Values) -> Values:
        values = self.source.reference.run(feeds)
        self.source.learn(values)
        return values

    def _own_levels(self, reference: Values) -> Values:
        """The source's levels; its activations must be multiples of theta/L."""
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

    def _watch(self, seen: Values, fed: Values) -> dict[str, Watched]:
        """What the neurons did; their trains, which are large, are let go of."""
        watched = {x.after: watch(x, seen, fed) for x in self.found.layers}
        kept = {n for x in self.found.computed for n in (*(f.compiled for f in x.inputs), *x.outputs)}
        kept |= {o.name for o in self.found.outputs}
        for name in {n for x in self.found.layers for n in (x.current, x.fired, x.train)} - kept:
            seen.pop(name, None)
        return watched

    def _given(
        self, own: Values, reference: Values, watched: Mapping[str, Watched], seen: Values
    ) -> tuple[Values, Values]:
        """What the source's stretches are given: what was seen in the compiled network; the source's own where that
        makes no sense."""
        levels = dict(own)
        for layer in self.found.layers:
            counts = watched[layer.after].counts
            if counts is not None and counts.shape == own[layer.after].shape and np.all(counts >= 0):
                levels[layer.after] = counts
        computed = {}
        for name in (n for x in self.found.computed for n in x.outputs):
            value = seen.get(name, reference[name])
            fits = (value.dtype, value.shape) == (reference[name].dtype, reference[name].shape)
            computed[name] = value if fits else reference[name]
        return levels, computed

    def _trial(
        self,
        feeds: Values,
        levels: Values,
        computed: Values,
        watched: Mapping[str, Watched],
        seen: Values,
        fed: Values,
        rows: int,
    ) -> Trial:
        """What the source makes of these levels and values, beside what was seen."""
        given = {x.after: activation_of(x, levels[x.after]) for x in self.found.layers} | computed
        expected = self.source.stretches.run(feeds, given)
        totals = self.source.bounds.run(feeds, given)
        return Trial(levels, given, expected, totals, watched, seen, fed, rows, rows)

    def _attempt(self, network: Callable[[], Probed], feeds: Values, problems: list[str]) -> Values:
        """What was asked for, by name; nothing, and a problem, where the network cannot be run."""
        try:
            return network().run(feeds)
        except CompileError as error:
            once(problems, f"it cannot be run: {error.message}")
            return {}

    # --- random levels ------------------------------------------------------------------------------------------------

    def on_random_levels(self, data: Data, batch: int, chance: np.random.Generator) -> None:
        """Levels that no data gave, at several batch sizes: every stretch from random counts, and the file as it is on
        the samples that go with them."""
        self.source.release()
        self.compiled.release()
        cut: Probed | None = None
        sizes = [data.fixed_batch] if data.fixed_batch else [*PROBE_BATCHES]
        for size in sizes:
            chosen = chance.integers(0, len(data), size)
            feeds = {name: disturbed(array[chosen], chance) for name, array in data.inputs.items()}
            try:
                reference = self._reference(feeds)
            except CompileError:
                if size in (batch, data.fixed_batch):
                    raise
                continue  # the source itself does not run at this batch size
            levels = {
                x.after: random_levels(reference[x.after].shape, min(x.levels, ops.MAX_LEVELS), chance)
                for x in self.found.layers
            }
            computed = {n: disturbed(reference[n], chance) for x in self.found.computed for n in x.outputs}
            fed = self._fed(levels, computed)
            try:
                cut = cut or self.compiled.cut(fed, self.found.observed())
                seen = cut.run(feeds, fed)
            except CompileError:
                seen = self._part_by_part(feeds, fed)
            watched = self._watch(seen, fed)
            self.comparison.compare(self._trial(feeds, levels, computed, watched, seen, fed, size))
            self.result.probes += size
            self.result.batch_sizes.append(size)

    def _fed(self, levels: Values, computed: Values) -> Values:
        return {x.train: encode(x.compiled, levels[x.after]) for x in self.found.layers} | computed

    def _part_by_part(self, feeds: Values, fed: Values) -> Values:
        """The cut network, one part after the other, to find those that cannot be run."""
        seen: Values = {}
        parts = [([x.current, x.fired, x.train], x.check.problems) for x in self.found.layers]
        parts += [([*(f.compiled for f in x.inputs), *x.outputs], x.check.problems) for x in self.found.computed]
        parts += [([o.name], self.result.output_problems) for o in self.found.outputs]
        for names, problems in parts:
            try:
                seen |= self.compiled.cut(fed, names).run(feeds, fed)
            except CompileError as error:
                once(problems, f"it cannot be run: {error.message}")
        return seen

    # --- answers ------------------------------------------------------------------------------------------------------

    def _compare_answers(self, trial: Trial, feeds: Values, reference: Values, own: Values) -> None:
        """The two files as they are."""
        result, names = self.result, [o.name for o in self.found.outputs]
        runs = [dict(zip(names, s.run(names, feeds), strict=True)) for s in self.source.itself]
        expected, again = runs
        first = names[0]
        count = trial.samples
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
            if a.dtype.kind == "f" and a.shape == b.shape:
                both = np.isfinite(a) & np.isfinite(b)
                difference = float(np.max(np.abs(a - b), where=both, initial=0))
                result.max_abs_output_diff = max(result.max_abs_output_diff, difference)
        if not set(names) <= set(trial.seen):
            return  # it is a problem already
        wrong = self.answers.unlike(trial, real, "the file")
        if wrong.any():
            once(result.output_problems, self._second_look(feeds, reference, own, real, wrong, trial))
        same = self._same(trial, own, reference)
        result.answers_compared += int(np.count_nonzero(same[:count]))
        theirs = [expected, again, *([reference] if self.source.reference_is_itself else [])]
        off = self.answers.off(trial, real, theirs, same)
        if off.any() and not self.source.reference_is_itself:
            off &= ~self._read_as_it_is(trial, feeds, reference, again, real, same)
        if off.any():
            once(result.output_problems, "where no count differs, the file gives other outputs than the source")

    def _same(self, trial: Trial, own: Values, reference: Values) -> Array:
        """The samples in which the compiled network has the source's counts, and every jump of a computed operator (an
        index, a truth value) is the source's."""
        same = np.ones(trial.rows, bool)
        pairs = [(trial.levels[x.after], own[x.after]) for x in self.found.layers]
        for x in self.found.layers:
            if trial.watched[x.after].counts is None:
                same[:] = False
        for name in (n for x in self.found.computed for n in x.outputs):
            if reference[name].dtype.kind != "f":
                pairs.append((trial.seen[name], reference[name]))
        for a, b in pairs:
            if a.shape != b.shape:
                same[:] = False
            elif a.ndim and len(a) == trial.rows:
                same &= (a == b).reshape(trial.rows, -1).all(axis=1)
            elif not np.array_equal(a, b):
                same[:] = False
        return same

    def _second_look(
        self, feeds: Values, reference: Values, own: Values, real: Values, wrong: Array, trial: Trial
    ) -> str:
        """Why outputs of the file itself do not follow from the counts observed; empty if rounding explains it."""
        try:
            seen = self.compiled.with_trains.run(feeds)
        except CompileError as error:
            return f"with its trains as outputs it cannot be run: {error.message}"
        counts = {x.after: Watched(counts=counts_of(x.compiled, seen[x.train])[0]) for x in self.found.layers}
        levels, computed = self._given(own, reference, counts, seen)
        again = self._trial(feeds, levels, computed, counts, seen, {}, trial.rows)
        return self.answers.explained(again, real, wrong)

    def _read_as_it_is(
        self, trial: Trial, feeds: Values, reference: Values, again: Values, real: Values, same: Array
    ) -> Array:
        """Where the source was written anew to look into it: the samples in which that gives the compiled network's
        outputs, and, operator by operator, those of the source."""
        plain = self.source.unoptimised.run(feeds)
        unread = self.answers.off(trial, plain, [again], np.ones(trial.rows, bool))
        return np.asarray(~self.answers.off(trial, real, [reference], same) & ~unread)


def _classified_differently(a: Array, b: Array, count: int) -> int:
    """Of the first ``count`` samples, those that two outputs classify differently."""
    same = agreeing(a, b)
    return 0 if same is None else int(np.count_nonzero(~same[:count]))
