"""How verify goes about it: what is read, what must be so whatever runs, and what runs, in which order."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from pascalc import ops, pipeline
from pascalc.errors import CompileError
from pascalc.files import read_bytes
from pascalc.folding import Progress
from pascalc.graph import Model, NoteKind, is_ours
from pascalc.metadata import LEVELS, ann_is, recorded_correction, source_is
from pascalc.modelfile import load
from pascalc.neurons import is_spiking
from pascalc.passes import ANALYSIS
from pascalc.passes.infer_shapes import set_shapes
from pascalc.probes import foreign_functions, main_tensors
from pascalc.stream import Batch, open_samples
from pascalc.verifier.chance import open_axes, random_inputs
from pascalc.verifier.networks import CompiledNetworks, SourceNetworks, Written
from pascalc.verifier.on_data import Found, RunsOnData
from pascalc.verifier.on_random_levels import RunsOnRandomLevels
from pascalc.verifier.pairing import Pairing, pair
from pascalc.verifier.record import Verification
from pascalc.verifier.trials import Trials
from pascalc.workers import check_sharing, working

#: Random inputs where there is no data, and nobody says how many.
RANDOM_SAMPLES = 32
#: What the inputs beside the data are drawn from: so many of the first samples, of so many bytes.
KEPT_SAMPLES, KEPT_BYTES = 1000, 2**26
#: Samples with disturbed inputs, on which the files run as they are. A file that differs where a value is negative
#: passed 1 of 60 runs with two of them, and none with eight.
_DISTURBED = 8
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
        limit: only the first so many samples; without data so many random ones, by default 32.
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
        samples = random_inputs(known, limit or RANDOM_SAMPLES, chance)
    result.samples = len(samples)
    open_sizes = {v.name: open_axes(v) for v in known.interface_inputs}
    free_batch = samples.fixed_batch is not None and _takes_any_batch(emitted)
    fit = _is_fit_to_run(emitted, found, result, Path(compiled))
    del emitted  # and its weights
    if fit:
        networks = SourceNetworks(Path(source), written, known, found, threads)
        del known
        trials = Trials(networks, CompiledNetworks(Path(compiled), found, threads), found, result)
        runs = RunsOnData(trials)
        work = _Checking(Path(source).absolute(), Path(compiled).absolute(), trust, runs)
        with working(workers, dask, data) as pool:
            runs.on_data(work, samples, batch, progress, pool)
        kept, fixed = samples.first(KEPT_SAMPLES, KEPT_BYTES), samples.fixed_batch
        size = fixed or min(batch, _DISTURBED)
        for _ in range(0, _DISTURBED, size):
            runs.on_disturbed(kept, size, chance)
        trials.release()
        RunsOnRandomLevels(trials, chance).run(kept, min(batch, len(samples)), fixed, open_sizes, free_batch)
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
    if not ann_is(emitted.metadata, known.digest):
        result.corrected = recorded_correction(emitted.metadata)
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
class _Checking:
    """The comparison on data: by ``runs``, where they are in this process, else by some that are made of the files,
    which are a worker's."""

    source: Path
    compiled: Path
    trust: bool
    runs: RunsOnData | None = None

    def __reduce__(self) -> tuple[type[_Checking], tuple[Path, Path, bool]]:
        return _Checking, (self.source, self.compiled, self.trust)

    def open(self, threads: int | None) -> Callable[[Batch], Found]:
        if self.runs is not None:
            return self.runs.on_batch
        known, result = load(self.source), Verification()
        written, found = _paired(known, load(self.compiled), self.trust, result)
        networks = SourceNetworks(self.source, written, known, found, threads)
        return RunsOnData(Trials(networks, CompiledNetworks(self.compiled, found, threads), found, result)).on_batch
