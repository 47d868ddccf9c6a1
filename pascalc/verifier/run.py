"""How verify goes about it: what runs, in which order, on what."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx

from pascalc import ops, pipeline
from pascalc.answers import agreeing
from pascalc.errors import CompileError
from pascalc.files import read_bytes
from pascalc.folding import Pool, Progress, results
from pascalc.graph import Array, Model, NoteKind, is_ours
from pascalc.metadata import LEVELS, source_is
from pascalc.modelfile import load
from pascalc.neurons import is_spiking
from pascalc.passes import ANALYSIS
from pascalc.passes.infer_shapes import set_shapes
from pascalc.probes import Probed, foreign_functions, main_tensors
from pascalc.stream import Batch, SampleStream, open_samples
from pascalc.verifier.chance import disturbed, open_axes, random_inputs, random_levels, resized
from pascalc.verifier.compare import Comparison, Trial, activation_of, excess_of, levels_of, once
from pascalc.verifier.networks import CompiledNetworks, SourceNetworks, Values, Written, encode
from pascalc.verifier.outputs import Answers
from pascalc.verifier.pairing import Layer, Pairing, is_random, pair
from pascalc.verifier.record import Verification
from pascalc.verifier.watch import Watched, counts_of, watch
from pascalc.workers import check_sharing, working

#: Random inputs where there is no data, and the batch sizes in which random levels are tried.
RANDOM_SAMPLES = 32
PROBE_BATCHES = (1, 2, 5, 16)
#: Samples with random levels. A wrong weight behind one neuron of one level escapes a sample with a probability of at
#: most 0.6, and all of them with 2e-6.
PROBES = 24
#: Samples with disturbed inputs, on which the files run as they are.
_DISTURBED = 2
#: Powers of two by which the largest inputs are larger than others, as shares of the largest exponent of their type.
_EXTREMES = (0.78, 0.47, 0.23, 0.1)
#: Random levels are tried on samples of the data, chosen at random among the first: so many, of so many bytes.
KEPT_SAMPLES, KEPT_BYTES = 1000, 2**26
#: How far an operator may be off, in units in the last place, that gets the very same input.
OPERATOR_ULPS = 4


#: Operators that take any time, or any memory, whatever goes in.
_UNBOUNDED = {"Loop", "Scan", "ConstantOfShape", "Expand", "Tile", "Range", "Pad", "Resize"}


def verify(
    source: str | Path,
    compiled: str | Path,
    data: str | Path | None = None,
    *,
    limit: int | None = None,
    batch: int = 16,
    threads: int | None = None,
    trust: bool = True,
    seed: int | None = None,
    workers: int | None = None,
    dask: str | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Check that a compiled network is its source network.

    Args:
        source: the ONNX file that was compiled.
        compiled: the ONNX file that came out.
        data: inputs (`pascalc.stream`); without them, random inputs are taken.
        limit: only the first so many samples.
        batch: samples a run.
        threads: threads of onnxruntime; by default one for each core.
        trust: take the source at the levels that the file says that it was compiled to, where these differ from its
            own; otherwise they are a fault.
        seed: of the random levels and inputs; by default another one each time, so that no file can be made to pass.
        workers: share the data among so many processes of one thread each (`pascalc.workers`).
        dask: share it among the workers of the Dask scheduler at this address.
        progress: called with (samples done, samples in all).

    Raises:
        CompileError: a file cannot be read, the data does not fit, the source cannot be run, or the files are not of
            the same network at all.
    """
    check_sharing(workers, dask, data)
    known = load(source)
    samples = None if data is None else open_samples(data, known, limit)
    for what, number, least in (("samples a run", batch, 1), ("number of samples", limit, 1), ("seed", seed, 0)):
        if number is not None and number < least:
            raise CompileError(f"the {what} must be at least {least}, not {number}")
    emitted = load(compiled)
    if is_spiking(known):
        raise CompileError(
            "it is a spiking network already: the source comes first, then what was compiled from it", file=source
        )
    for other in known.noted(NoteKind.OTHER_BODY):
        hint = "Export the model again, or take the body out."
        raise CompileError(other.reason, file=source, node=other.node, hint=hint)
    seed = secrets.randbits(32) if seed is None else seed
    result = Verification(data=samples is not None, threads=threads, seed=seed)
    written, found = _paired(known, emitted, trust, result)
    _check_interface(known, emitted, result)
    _say_what_is_trusted(known, emitted, result)
    chance = np.random.default_rng(seed)
    if samples is None:
        samples = random_inputs(known, min(limit or RANDOM_SAMPLES, RANDOM_SAMPLES), chance)
    result.samples = len(samples)
    open_sizes = {v.name: open_axes(v) for v in known.interface_inputs}
    free_batch = samples.fixed_batch is not None and _takes_any_batch(emitted)
    fit = _is_fit_to_run(emitted, found, result, Path(compiled))
    del emitted  # and its weights
    if fit:
        networks = SourceNetworks(Path(source), written, known, found, threads)
        del known
        run = _Run(networks, CompiledNetworks(Path(compiled), found, threads), found, result)
        work = _Checking(Path(source).absolute(), Path(compiled).absolute(), trust, run)
        with working(workers, dask, data) as pool:
            run.on_data(work, samples, batch, progress, pool)
        run.on_disturbed(samples, chance)
        run.on_random_levels(samples, batch, chance, open_sizes, free_batch)
    return result


def _paired(known: Model, emitted: Model, trust: bool, result: Verification) -> tuple[Written, Pairing]:
    """What belongs together in two networks as they were loaded. The source's activations become operators."""
    written = Written.of(known)
    pipeline.run(known, ANALYSIS)
    with suppress(CompileError):  # shapes that do not fit together show when it runs
        set_shapes(emitted)
    result.problems += [note.reason for note in emitted.noted(NoteKind.OTHER_BODY)]
    if not trust:
        emitted.metadata.pop(LEVELS, None)
    return written, pair(known, emitted, result)


def _check_interface(known: Model, emitted: Model, result: Verification) -> None:
    """Names of inputs and outputs, in their order; and that it takes and gives what the source does."""
    for kind in ("interface_inputs", "interface_outputs"):
        mine, theirs = getattr(emitted, kind), getattr(known, kind)
        if [v.name for v in theirs] != [v.name for v in mine]:
            raise CompileError("its inputs and outputs are not those of the source", file=emitted.file)
        for a, b in zip(theirs, mine, strict=True):
            fits = kind == "interface_outputs" or _as_wide(a, b)  # what comes out is compared when it runs
            if a.type.tensor_type.elem_type != b.type.tensor_type.elem_type or not fits:
                result.problems.append(f"'{b.name}' is declared with another type or shape than in the source")


def _as_wide(source: onnx.ValueInfoProto, compiled: onnx.ValueInfoProto) -> bool:
    """Whether the compiled network's sizes are the source's; a batch that is fixed there may be free here."""
    a, b = ([d.dim_value if d.HasField("dim_value") else None for d in _dims(v)] for v in (source, compiled))
    return len(a) == len(b) and all(x == y or (k == 0 and y is None) for k, (x, y) in enumerate(zip(a, b, strict=True)))


def _dims(value: onnx.ValueInfoProto) -> Sequence[onnx.TensorShapeProto.Dimension]:
    return list(value.type.tensor_type.shape.dim)


def _takes_any_batch(emitted: Model) -> bool:
    """Whether no input fixes the batch."""
    return all(_dims(v) and not _dims(v)[0].HasField("dim_value") for v in emitted.interface_inputs)


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
    proto = onnx.ModelProto.FromString(read_bytes(path))
    foreign = foreign_functions(proto)
    if foreign:  # compile inlines the source's
        result.problems.append(f"it has functions of its own, which no compiled file has: {', '.join(foreign)}")
        return False
    missing = set(found.observed()) - main_tensors(proto)
    if missing:  # an opset was converted, say
        result.problems.append(f"the file itself has no tensor '{min(missing)}': it is of another opset than compiled")
        return False
    if found.strangers & _UNBOUNDED:
        return False  # it may run for ever, or take all memory
    longest = max((x.compiled.steps_out for x in found.layers), default=0)
    for node in (n for n in emitted.graph.nodes if is_ours(n, *ops.OPERATORS)):
        steps = [node.attrs[key] for key in ("steps", "steps_in", "steps_out") if key in node.attrs]
        if not all(type(n) is int and 1 <= n <= longest for n in steps):
            result.problems.append(
                f"'{node.name}' has trains of {max(steps, key=str)} steps; its neurons send {longest}"
            )
            return False
    return bool(found.layers)


@dataclass(frozen=True)
class _Found:
    """What one batch of data shows, and whether another can show more."""

    record: Verification
    goes_on: bool


@dataclass(frozen=True)
class _Checking:
    """The comparison on data: by ``run``, where it is in this process, else by one that is made of the files, which is
    a worker's."""

    source: Path
    compiled: Path
    trust: bool
    run: _Run | None = None

    def __reduce__(self) -> tuple[type[_Checking], tuple[Path, Path, bool]]:
        return _Checking, (self.source, self.compiled, self.trust)

    def open(self, threads: int | None) -> Callable[[Batch], _Found]:
        if self.run is not None:
            return self.run.on_batch
        known, result = load(self.source), Verification()
        written, found = _paired(known, load(self.compiled), self.trust, result)
        networks = SourceNetworks(self.source, written, known, found, threads)
        return _Run(networks, CompiledNetworks(self.compiled, found, threads), found, result).on_batch


class _Run:
    def __init__(
        self, source: SourceNetworks, compiled: CompiledNetworks, found: Pairing, result: Verification
    ) -> None:
        self.source, self.compiled, self.found, self.result = source, compiled, found, result
        self.comparison = Comparison(found, result)
        self.answers = Answers(self.comparison, result)
        self._cut: Probed | None = None
        self._right: Values | None = None

    # --- data ---------------------------------------------------------------------------------------------------------

    def on_data(
        self, work: _Checking, data: SampleStream, batch: int, progress: Progress | None, pool: Pool | None
    ) -> None:
        """The files as they are, batch by batch."""
        total = self.result.take()
        for found in results(work, data, batch, threads=self.result.threads, progress=progress, pool=pool):
            total.add(found.record)
            if not found.goes_on:
                break
        self.result.add(total)

    def on_batch(self, batch: Batch) -> _Found:
        """The files as they are, on one batch."""
        self.result.take()  # what an error left
        goes_on = self._goes_on(batch)
        return _Found(self.result.take(), goes_on)

    def _goes_on(self, batch: Batch) -> bool:
        """Compare one batch; False where no other can tell more."""
        feeds = batch.feeds
        reference = self._reference(feeds)
        if not self._thresholds_fit(reference):
            return False
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
        trial = replace(trial, samples=batch.samples, start=batch.part.start, own=own)
        self.comparison.compare(trial)
        self._check_operators(feeds, trial)
        self._compare_answers(trial, feeds, reference, own, trial.samples)
        return True

    def on_disturbed(self, data: SampleStream, chance: np.random.Generator) -> None:
        """The files as they are on inputs that no data gave, one of them negative, as no image is. Nothing of it is
        counted."""
        kept = data.first(KEPT_SAMPLES, KEPT_BYTES)
        feeds = self._chosen(kept, data.fixed_batch or min(_DISTURBED, len(data)), chance)
        for array in feeds.values():
            if array.dtype.kind == "f":
                array[:1] = -np.abs(array[:1])
        try:
            reference = self._reference(feeds)
            own = self._own_levels(reference)
        except CompileError:
            return  # the source takes only some inputs
        if not self._thresholds_fit(reference):
            return
        seen = self._attempt(lambda: self.compiled.observed, feeds, self.result.problems)
        if not seen:
            return  # it is a problem already
        watched = self._watch(seen, {})
        levels, computed = self._given(own, reference, watched, seen)
        trial = self._trial(feeds, levels, computed, watched, seen, {}, len(next(iter(feeds.values()))))
        self.comparison.compare(trial)
        self._check_operators(feeds, trial)
        self._compare_answers(trial, feeds, reference, own, 0)

    def _reference(self, feeds: Values) -> Values:
        try:
            values = self.source.reference.run(feeds)
        except CompileError as error:
            error.hint = error.hint or ("" if self.result.data else "These inputs are random; give real ones (--data).")
            raise
        for name, value in values.items():
            if not isinstance(value, np.ndarray):
                raise CompileError("it gives a sequence, which cannot be compared", file=self.source.path, node=name)
        self.source.learn(values)
        return values

    def _thresholds_fit(self, reference: Values) -> bool:
        """Whether all thresholds fit the samples, of sizes that may be open until something runs."""
        for layer in self.found.layers:
            threshold = layer.compiled.threshold
            if not _broadcasts(threshold, reference[layer.after]):
                once(layer.check.problems, f"its threshold {list(threshold.shape)} does not fit its samples")
                return False
        return True

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
        kept |= {f.compiled for f in self.found.bent} | {o.name for o in self.found.outputs}
        for name in {n for x in self.found.layers for n in (x.current, x.fired, x.train)} - kept:
            seen.pop(name, None)
        return watched

    def _given(
        self, own: Values, reference: Values, watched: Mapping[str, Watched], seen: Values
    ) -> tuple[Values, Values]:
        """What the source's stretches are given: what was seen in the compiled network; the source's own where that
        makes no sense."""
        levels = {x.after: _as_counts(x, own[x.after]) for x in self.found.layers}
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

    def _attempt(self, network: Callable[[], Probed], feeds: Values, problems: list[str]) -> Values:
        """What was asked for, by name; nothing, and a problem, where the network cannot be run."""
        try:
            return network().run(feeds)
        except CompileError as error:
            once(problems, f"it cannot be run: {error.message}")
            return {}

    # --- random levels ------------------------------------------------------------------------------------------------

    def on_random_levels(
        self,
        data: SampleStream,
        batch: int,
        chance: np.random.Generator,
        open_sizes: Mapping[str, Sequence[int]],
        free_batch: bool,
    ) -> None:
        """Levels that no data gave, at several batch sizes: every stretch from random counts.

        Where the source's batch is fixed and the compiled network's is not, two batches of the source's are one of the
        compiled network's.
        """
        self.source.release()
        self.compiled.release()
        own, kept = min(batch, len(data)), data.first(KEPT_SAMPLES, KEPT_BYTES)
        fixed = data.fixed_batch
        for size in [fixed] if fixed else [s for s in PROBE_BATCHES if s <= max(own, PROBE_BATCHES[-2])]:
            self._probe(self._chosen(kept, size, chance), chance, size in (own, fixed))
        # the source may run at few sizes, but at that of the data
        largest = max(self.result.batch_sizes, default=own)
        while self.result.probes < PROBES and not any(x.check.problems for x in self.found.layers):
            self._probe(self._chosen(kept, largest, chance), chance, True)
        self._probe_extremes(kept, fixed or 1, chance)
        if any(open_sizes.values()):
            feeds = self._chosen(kept, own, chance)
            other = {name: resized(array, open_sizes.get(name, ())) for name, array in feeds.items()}
            self._probe(other, chance, False)
        if free_batch:
            self._probe_apart([self._chosen(kept, data.fixed_batch or 1, chance) for _ in range(2)], chance)

    def _chosen(self, kept: Values, size: int, chance: np.random.Generator) -> Values:
        """Samples of the data, disturbed."""
        chosen = chance.integers(0, len(next(iter(kept.values()))), size)
        return {name: disturbed(array[chosen], chance) for name, array in kept.items()}

    def _probe(self, feeds: Values, chance: np.random.Generator, must: bool) -> None:
        """One batch of random levels; ``must`` the source run on it?"""
        try:
            reference = self._reference(feeds)
        except CompileError:
            if must:
                raise
            return
        if not self._thresholds_fit(reference):
            return
        levels, computed = self._random(reference, chance)
        fed = self._fed(levels, computed)
        seen = self._cut_seen(feeds, fed)
        watched = self._watch(seen, fed)
        size = len(next(iter(feeds.values())))
        trial = self._trial(feeds, levels, computed, watched, seen, fed, size)
        self.comparison.compare(trial)
        self._check_operators(feeds, trial)
        self.result.probes += size
        if size not in self.result.batch_sizes:
            self.result.batch_sizes.append(size)

    def _probe_extremes(self, kept: Values, size: int, chance: np.random.Generator) -> None:
        """Inputs, and values of computed operators, as large as the source can take, and the highest levels: numbers
        that only the compiled network's floats do not hold are wrong."""
        feeds = self._chosen(kept, size, chance)
        for share in _EXTREMES:
            large = {name: _enlarged(array, share) for name, array in feeds.items()}
            try:
                reference = self._reference(large)
            except CompileError:
                continue
            if not _is_finite(reference):
                continue
            levels, computed = self._random(reference, chance)
            levels = {x.after: np.full_like(levels[x.after], min(x.most, ops.MAX_LEVELS)) for x in self.found.layers}
            trial = self._trial(large, levels, computed, {}, {}, {}, size)
            if all(_is_finite(values) for values in (trial.given, trial.expected, trial.totals)):
                break
        else:
            return
        fed = self._fed(levels, computed)
        seen = self._cut_seen(large, fed)
        self.comparison.compare(replace(trial, watched=self._watch(seen, fed), seen=seen, fed=fed))

    def _random(self, reference: Values, chance: np.random.Generator) -> tuple[Values, Values]:
        levels = {
            x.after: random_levels(reference[x.after].shape, min(x.most, ops.MAX_LEVELS), chance)
            for x in self.found.layers
        }
        computed = {n: disturbed(reference[n], chance) for x in self.found.computed for n in x.outputs}
        # what is no float may be places and shapes, and is left as it is; but one sample may have another's
        computed |= {n: np.roll(computed[n], 1, axis=0) for x in self.found.computed for n in x.choices}
        return levels, computed

    def _cut_seen(self, feeds: Values, fed: Values) -> Values:
        try:
            self._cut = self._cut or self.compiled.cut(fed, self.found.observed())
            return self._cut.run(feeds, fed)
        except CompileError:
            return self._part_by_part(feeds, fed)

    def _probe_apart(self, parts: list[Values], chance: np.random.Generator) -> None:
        """Several batches of the source's as one of the compiled network's."""
        trials = []
        for feeds in parts:
            levels, computed = self._random(self._reference(feeds), chance)
            trials.append(self._trial(feeds, levels, computed, {}, {}, {}, len(next(iter(feeds.values())))))
        joined = {name: np.concatenate([feeds[name] for feeds in parts]) for name in parts[0]}
        levels, given, expected, totals = (
            {name: _joined([values[name] for values in of]) for name in of[0]}
            for of in zip(*((t.levels, t.given, t.expected, t.totals) for t in trials), strict=True)
        )
        computed = {n: given[n] for x in self.found.computed for n in x.outputs}
        fed = self._fed(levels, computed)
        seen = self._cut_seen(joined, fed)
        watched = self._watch(seen, fed)
        rows = sum(t.rows for t in trials)
        self.comparison.compare(Trial(levels, given, expected, totals, watched, seen, fed, rows, rows))
        self.result.probes += rows
        self.result.batch_sizes.append(rows)

    def _fed(self, levels: Values, computed: Values) -> Values:
        return {x.train: encode(x.compiled, levels[x.after]) for x in self.found.layers} | computed

    def _part_by_part(self, feeds: Values, fed: Values) -> Values:
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

    # --- answers ------------------------------------------------------------------------------------------------------

    def _compare_answers(self, trial: Trial, feeds: Values, reference: Values, own: Values, count: int) -> None:
        """The two files as they are; so many samples count."""
        result, names = self.result, [o.name for o in self.found.outputs]
        runs = [dict(zip(names, s.run(names, feeds), strict=True)) for s in self.source.itself]
        expected, again = runs
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
        wrong = self.answers.unlike(trial, real, "the file")
        same = self._same(trial, own, reference)
        if wrong.any():
            problem, looked = self._second_look(feeds, reference, own, real, wrong, trial)
            once(result.output_problems, problem)
            if looked is not None:
                same = np.where(wrong, self._same(looked, own, reference), same)
        result.answers_compared += int(np.count_nonzero(same[:count]))
        theirs = [expected, again, reference]
        if not self.source.reference_is_itself and self._is_misread(trial, feeds, again):
            once(result.output_problems, "onnxruntime runs the source otherwise than it is read here")
            theirs.pop()
        if self.answers.off(trial, real, theirs, same).any():
            once(result.output_problems, "where no count differs, the file gives other outputs than the source")

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
        self, feeds: Values, reference: Values, own: Values, real: Values, wrong: Array, trial: Trial
    ) -> tuple[str, Trial | None]:
        """Why outputs of the file itself do not follow from the counts observed, empty if rounding explains it; and
        what the counts are with as little as possible observed."""
        try:
            seen = self.compiled.with_trains.run(feeds)
        except CompileError as error:
            return f"with its trains as outputs it cannot be run: {error.message}", None
        counts = {x.after: Watched(counts=counts_of(x.compiled, seen[x.train])[0]) for x in self.found.layers}
        levels, computed = self._given(own, reference, counts, seen)
        again = self._trial(feeds, levels, computed, counts, seen, {}, trial.rows)
        return self.answers.explained(again, real, wrong), again

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


def _as_counts(layer: Layer, levels: Array) -> Array:
    """The compiled neuron's counts that stand for these levels, or come nearest."""
    return levels if layer.most == layer.levels else np.rint(levels * (layer.most / layer.levels)).astype(levels.dtype)


def _enlarged(array: Array, share: float) -> Array:
    """Floats times a power of two, this share of the largest exponent."""
    if array.dtype.kind != "f":
        return array
    with np.errstate(over="ignore"):
        return np.asarray(np.ldexp(array, int(share * np.finfo(array.dtype).maxexp)))


def _is_finite(values: Values) -> bool:
    return all(bool(np.isfinite(a).all()) for a in values.values() if a.dtype.kind == "f")


def _broadcasts(threshold: Array, activation: Array) -> bool:
    """Whether a threshold broadcasts against a sample without making it larger."""
    sample = activation.shape[1:]
    try:
        return np.broadcast_shapes(threshold.shape, (1, *sample)) == (1, *sample)
    except ValueError:
        return False


def _joined(arrays: list[Array]) -> Array:
    """Values of several batches as those of one; what has no batch is the same in all."""
    return np.concatenate(arrays) if arrays[0].ndim else arrays[0]


def _classified_differently(a: Array, b: Array, count: int) -> int:
    """Of the first ``count`` samples, those that two outputs classify differently."""
    same = agreeing(a, b)
    return 0 if same is None else int(np.count_nonzero(~same[:count]))
