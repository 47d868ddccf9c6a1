"""Whether a mutant computes something else, found out without the verifier: both files run in plain onnxruntime.

Two outputs agree if floats lie within 1e-5 of the sample's largest magnitude (float16 within two units in its last
place) and all else is equal. Where they do not, a spike count may lie at a half point, where rounding decides: then the
first neurons, in the order of the graph, whose counts differ must have their current within 1e-5 of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper

from tests.fuzz.verdict import RUNTIME_ERRORS
from tests.mutants.networks import NEURONS, Feeds, Subject, with_outputs
from tests.small_networks import Array

#: Outputs and spike trains agree; only the outputs do; not even they.
EQUAL, INNER, DIFFERENT = "equal", "only inside", "different"

SIZES = (1, 2, 3, 5, 7, 16)
RANDOM_SAMPLES = 256
NEAR = 1e-5
#: What onnxruntime may raise on a mutant.
CANNOT_RUN = (*RUNTIME_ERRORS, MemoryError)


def open_session(proto: onnx.ModelProto, optimised: bool = True) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def open_somehow(proto: onnx.ModelProto) -> ort.InferenceSession:
    """As it comes, or without optimisations where that fails."""
    try:
        return open_session(proto)
    except CANNOT_RUN:
        return open_session(proto, optimised=False)


@dataclass(frozen=True)
class Judgement:
    verdict: str
    why: str = ""


class Oracle:
    """What the honest file gives on data and random inputs, and the comparison of mutants with it."""

    def __init__(self, subject: Subject, proto: onnx.ModelProto | None = None) -> None:
        self.subject = subject
        self.honest = subject.proto if proto is None else proto
        self.outputs = [v.name for v in self.honest.graph.output]
        self.batches = list(self._batches())
        session = open_session(self.honest)
        self.expected = [session.run(self.outputs, feeds) for feeds in self.batches]

    def _batches(self) -> Iterator[Feeds]:
        fixed = self.subject.fixed_batch
        rng = np.random.default_rng(99)
        data = self.subject.source.feeds
        size = fixed or 16
        count = len(next(iter(data.values())))
        for start in range(0, count, size):
            part = {name: array[start : start + size] for name, array in data.items()}
            if fixed is None or len(next(iter(part.values()))) == fixed:
                yield part
        sizes = [fixed] if fixed else [*SIZES[:-1], *SIZES[:-1], *[16] * 14]
        done = 0
        while done < RANDOM_SAMPLES:
            for rows in sizes:
                yield self.subject.source.random(rows, rng)
                done += rows

    @cached_property
    def _neurons(self) -> list[onnx.NodeProto]:
        return [n for n in self.honest.graph.node if n.op_type in NEURONS and n.domain == "ai.pascalc"]

    def judge(self, mutant: onnx.ModelProto) -> Judgement:
        try:
            session = open_somehow(mutant)
            names = [o.name for o in session.get_outputs()]
            if sorted(names) != sorted(self.outputs):
                return Judgement(DIFFERENT, "other outputs")
            suspects = []
            for number, (feeds, expected) in enumerate(zip(self.batches, self.expected, strict=True)):
                given = session.run(
                    self.outputs, {i.name: feeds[i.name] for i in session.get_inputs() if i.name in feeds}
                )
                rows = len(next(iter(feeds.values())))
                off = np.zeros(rows, bool)
                for a, b in zip(expected, given, strict=True):
                    if (a.dtype, a.shape) != (b.dtype, b.shape):
                        return Judgement(DIFFERENT, f"other shapes or types in batch {number} of {rows}")
                    off |= differing(a, b, rows)
                if off.any():
                    suspects.append((number, off))
            if sum(np.count_nonzero(off) for _, off in suspects) > 0.1 * sum(
                len(next(iter(f.values()))) for f in self.batches
            ):
                return Judgement(DIFFERENT, f"in {len(suspects)} of {len(self.batches)} batches")
            for number, off in suspects:
                if not self._explained(mutant, number, off):
                    rows = np.nonzero(off)[0][:3].tolist()
                    return Judgement(DIFFERENT, f"in batch {number} of {len(off)}, rows {rows}")
        except CANNOT_RUN as error:
            return Judgement(DIFFERENT, f"cannot be run: {str(error)[:200]}")
        return Judgement(EQUAL if self._same_trains(mutant) else INNER)

    def _trains(self, proto: onnx.ModelProto, feeds: Feeds, currents: bool) -> list[Array]:
        names = [n.output[0] for n in self._neurons] + [n.input[0] for n in self._neurons] * currents
        session = open_somehow(with_outputs(proto, names))
        return list(session.run(names, dict(feeds)))

    def _explained(self, mutant: onnx.ModelProto, number: int, off: Array) -> bool:
        """Whether in every row that is off, the first counts that differ lie at a half point."""
        feeds = self.batches[number]
        rows = len(off)
        values = self._trains(self.honest, feeds, currents=True)
        try:
            trains = self._trains(mutant, feeds, currents=False)
        except CANNOT_RUN:
            return False
        own, currents = values[: len(trains)], values[len(trains) :]
        pending = off.copy()
        for node, a, b, current in zip(self._neurons, own, trains, currents, strict=True):
            if a.shape != b.shape or a.dtype != b.dtype:
                return False
            levels, ratio = _integer(node, "levels"), len(a) // rows
            if len(a) != ratio * rows or len(a) % rows:
                return False
            theta = numpy_helper.to_array(next(t for t in self.honest.graph.initializer if t.name == node.input[-1]))
            theta = (
                theta * levels if len(node.input) > 2 else theta
            )  # the height of a level, where each has a threshold
            steps_in, steps_out = _integer(node, "steps_in", 1), _integer(node, "steps_out", 1)
            if len(current) % steps_in or len(a) % steps_out:
                return False
            different = (a != b).reshape(steps_out, -1, *a.shape[1:]).any(axis=0)
            u = current.reshape(steps_in, -1, *current.shape[1:]).sum(axis=0, dtype=np.float64) * (
                levels / theta
            ) + _phi(node)
            near = np.abs(u - np.rint(u)) <= NEAR * np.maximum(1, np.abs(u).max(initial=1))
            for row in np.nonzero(pending)[0]:
                here = slice(row * (len(different) // rows), (row + 1) * (len(different) // rows))
                if different[here].any():
                    if not near[here][different[here]].all():
                        return False
                    pending[row] = False
        return not pending.any()

    def _same_trains(self, mutant: onnx.ModelProto) -> bool:
        for feeds in self.batches[:6]:
            try:
                pairs = zip(self._trains(self.honest, feeds, False), self._trains(mutant, feeds, False), strict=True)
            except CANNOT_RUN:
                return False
            if any(a.shape != b.shape or np.mean(a != b) > 1e-4 for a, b in pairs):
                return False
        return True


def differing(a: Array, b: Array, rows: int) -> Array:
    """Which samples differ by more than rounding; all, where they cannot be told apart."""
    if a.dtype.kind == "f":
        by_row = a.ndim > 0 and len(a) == rows
        flat, other = (x.astype(np.float64).reshape(rows if by_row else 1, -1) for x in (a, b))
        finite = np.isfinite(flat)
        size = np.max(np.abs(flat), axis=1, where=finite, initial=0)
        size = np.maximum(size, 1e-3 * size.max(initial=0))
        close = max(NEAR, 2 * float(np.finfo(a.dtype).eps))
        with np.errstate(invalid="ignore"):
            wrong = ~((flat == other) | (np.abs(flat - other) <= close * size[:, None]))
        wrong &= ~(np.isnan(flat) & np.isnan(other))
    else:
        by_row = a.ndim > 0 and len(a) == rows
        wrong = (a != b).reshape(rows if by_row else 1, -1)
    found = wrong.any(axis=1)
    return found if by_row else np.full(rows, bool(found.any()))


def _integer(node: onnx.NodeProto, name: str, default: int = 0) -> int:
    return next((a.i for a in node.attribute if a.name == name), default)


def _phi(node: onnx.NodeProto) -> float:
    return float(next(a.f for a in node.attribute if a.name == "phi"))
