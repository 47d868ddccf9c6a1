"""One mutant: made, judged by the oracle, and put to verify with data and without."""

from __future__ import annotations

import hashlib
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import EncodeError

import pascalc
from pascalc.errors import CompileError
from tests.mutants.edits import Net
from tests.mutants.mutations import HEAVY, KINDS
from tests.mutants.networks import QUICK, SCHEDULES, Source, Subject, sources
from tests.mutants.oracle import DIFFERENT, EQUAL, Judgement, Oracle

#: What verify can say, or do, of a mutant.
EQUIVALENT, NOT_EQUIVALENT, REFUSED, DECLARED, CRASHED = (
    "equivalent",
    "not equivalent",
    "refused",
    "declared",
    "crashed",
)

#: How often places for a mutation are looked for before another kind is taken.
ATTEMPTS = 30


@dataclass(frozen=True)
class Answer:
    verdict: str
    why: str = ""
    requantised: dict[str, int] = field(default_factory=dict)

    @property
    def found(self) -> bool:
        return self.verdict in (NOT_EQUIVALENT, REFUSED)


@dataclass(frozen=True)
class Case:
    """One mutant and what was said of it."""

    seed: int
    number: int
    network: str
    kinds: list[str]
    done: list[str]
    truth: str
    why: str
    with_data: Answer
    without: Answer | None

    @property
    def missed(self) -> bool:
        """Whether verify says that a mutant is what it is not; that it fails is no answer."""
        return self.truth == DIFFERENT and self.with_data.verdict in (EQUIVALENT, DECLARED)

    @property
    def missed_without(self) -> bool:
        return self.truth == DIFFERENT and self.without is not None and self.without.verdict in (EQUIVALENT, DECLARED)

    @property
    def false_alarm(self) -> bool:
        return self.truth == EQUAL and self.with_data.found

    @property
    def bug(self) -> bool:
        return CRASHED in (self.with_data.verdict, self.without.verdict if self.without else "")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Workshop:
    """The networks compiled, with their oracles, as they are needed.

    Args:
        folder: where the files are.
        quick: a few small networks only.
    """

    def __init__(self, folder: Path, quick: bool = False) -> None:
        self.folder = folder
        self.sources = [s for s in sources() if s.name in QUICK or not quick]
        self.left_out: dict[str, str] = {}
        self._subjects: dict[str, Subject | None] = {}
        self._oracles: dict[str, Oracle] = {}

    def subject(self, source: Source, schedule: str) -> Subject | None:
        """The compiled network; None if it does not compile or is not equivalent as it is."""
        name = f"{source.name}, {schedule}"
        if name not in self._subjects:
            self._subjects[name] = self._prepared(source, schedule, name)
        return self._subjects[name]

    def _prepared(self, source: Source, schedule: str, name: str) -> Subject | None:
        short = hashlib.sha256(name.encode()).hexdigest()[:12]
        try:
            subject = Subject(source, schedule, self.folder / short)
            for data in (subject.data, None):
                result = pascalc.verify(subject.path, subject.honest, data, limit=source.limit, threads=1)
                if not result.equivalent:
                    self.left_out[name] = "; ".join(result.findings())
                    return None
        except CompileError as error:
            self.left_out[name] = str(error)
            return None
        return subject

    def oracle(self, subject: Subject) -> Oracle:
        if subject.name not in self._oracles:
            self._oracles[subject.name] = Oracle(subject)
        return self._oracles[subject.name]

    # --- cases --------------------------------------------------------------------------------------------------------

    def mutant(self, seed: int, number: int) -> tuple[Subject, onnx.ModelProto, list[str], list[str]]:
        """The mutant of a number: every kind has its turn; three of ten have others on top."""
        rng = np.random.default_rng([seed, number])
        kinds = list(KINDS)
        while True:
            first = kinds[number % len(kinds)]
            for _ in range(ATTEMPTS):
                subject = self._some_subject(rng)
                if subject is None:
                    continue
                made = _mutated(subject, [first, *self._others(kinds, rng)], rng)
                if made is not None:
                    return (subject, *made)
            kinds = kinds[1:] + kinds[:1]  # it fits nowhere

    def _some_subject(self, rng: np.random.Generator) -> Subject | None:
        weights = np.array([0.3 if s.large else 1.0 for s in self.sources])
        source = self.sources[int(rng.choice(len(self.sources), p=weights / weights.sum()))]
        return self.subject(source, SCHEDULES[int(rng.integers(2))])

    def _others(self, kinds: list[str], rng: np.random.Generator) -> list[str]:
        more = int(rng.choice([0, 1, 2], p=[0.75, 0.17, 0.08]))
        usable = [k for k in kinds if k not in HEAVY]
        return [usable[int(rng.integers(len(usable)))] for _ in range(more)]

    def run(self, seed: int, number: int) -> Case:
        """Make, judge and verify one mutant; its file stays in the folder."""
        subject, proto, kinds, done = self.mutant(seed, number)
        path = self.mutant_path(seed, number)
        path.write_bytes(proto.SerializeToString())
        heavy = bool(HEAVY & set(kinds))
        judged = Judgement(DIFFERENT, "not run") if heavy else self.oracle(subject).judge(proto)
        with_data = ask(subject, path, subject.data)
        if with_data.verdict == DECLARED:
            judged = self._judged_as_declared(subject, proto, with_data.requantised)
        without = ask(subject, path, None) if judged.verdict == DIFFERENT else None
        return Case(seed, number, subject.name, kinds, done, judged.verdict, judged.why, with_data, without)

    def mutant_path(self, seed: int, number: int) -> Path:
        return self.folder / f"mutant-{seed}-{number}.onnx"

    def _judged_as_declared(self, subject: Subject, proto: onnx.ModelProto, levels: dict[str, int]) -> Judgement:
        """Compared with what the compiler makes of the source at the levels that the file declares."""
        path = self.folder / "declared.onnx"
        pascalc.compile(subject.path, path, schedule=subject.schedule, levels=levels)
        return Oracle(subject, onnx.load(path)).judge(proto)


def _mutated(
    subject: Subject, kinds: list[str], rng: np.random.Generator
) -> tuple[onnx.ModelProto, list[str], list[str]] | None:
    """The mutant, the kinds that applied and what they did; None if the first does not apply."""
    proto = onnx.ModelProto.FromString(subject.proto.SerializeToString())
    applied, done = [], []
    for index, kind in enumerate(kinds):
        before = proto.SerializeToString()
        what = KINDS[kind](Net(subject, proto, rng))
        if what is None:
            if index == 0:
                return None
            proto = onnx.ModelProto.FromString(before)
            continue
        applied.append(kind)
        done.append(what)
    try:
        proto.SerializeToString()
    except EncodeError:
        return None
    return proto, applied, done


def ask(subject: Subject, path: Path, data: Path | None) -> Answer:
    """What verify says."""
    try:
        result = pascalc.verify(subject.path, path, data, limit=subject.source.limit, threads=1)
    except CompileError as error:
        return Answer(REFUSED, str(error))
    except BaseException:
        return Answer(CRASHED, traceback.format_exc())
    if not result.equivalent:
        return Answer(NOT_EQUIVALENT, "; ".join(result.findings())[:500])
    if result.requantised:
        return Answer(DECLARED, "; ".join(result.trusted), {k: b for k, (_, b) in result.requantised.items()})
    return Answer(EQUIVALENT)
