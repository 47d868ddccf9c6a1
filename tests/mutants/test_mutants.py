"""A short run of the mutants, and whether the oracle and the run can be trusted. The long run is ``make mutants``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.mutants.cases import CRASHED, EQUIVALENT, NOT_EQUIVALENT, Answer, Case, Workshop
from tests.mutants.edits import Net
from tests.mutants.mutations import KINDS
from tests.mutants.networks import SCHEDULES, Subject
from tests.mutants.oracle import DIFFERENT, EQUAL, INNER, Oracle
from tests.mutants.run import details, run_all, table
from tests.small_networks import Array

MUTANTS = 68


def test_no_mutant_is_missed(tmp_path: Path) -> None:
    cases, lost, left_out = run_all(MUTANTS, seed=8, jobs=2, keep=tmp_path, quick=True)
    assert (len(cases), lost, left_out) == (MUTANTS, [], {})
    wrong = [c for c in cases if c.missed or c.bug]
    assert not wrong, "\n".join(details(wrong, [], {}))
    assert len({c.kinds[0] for c in cases}) >= 66
    assert sum(c.truth == DIFFERENT for c in cases) >= MUTANTS // 2


@pytest.mark.parametrize(
    "names", [("If", "Loop"), pytest.param((), id="all", marks=pytest.mark.slow)], ids=lambda names: "and".join(names)
)
def test_every_network_is_equivalent_as_it_is(names: tuple[str, ...], tmp_path: Path) -> None:
    """Those that are mutated by `make mutants` alone, too."""
    shop = Workshop(tmp_path)
    for source in shop.sources:
        for schedule in SCHEDULES:
            if source.name in names or not names:
                shop.subject(source, schedule)
    assert shop.left_out == {}
    assert len(shop._subjects) >= (2 * len(names) or 40)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("mutants"), quick=True)


@pytest.fixture(scope="module")
def subject(workshop: Workshop) -> Subject:
    found = workshop.subject(next(s for s in workshop.sources if s.name == "residual"), "unrolled")
    assert found is not None
    return found


@pytest.fixture(scope="module")
def oracle(subject: Subject) -> Oracle:
    return Oracle(subject)


def _net(subject: Subject, seed: int = 0) -> Net:
    copy = onnx.ModelProto.FromString(subject.proto.SerializeToString())
    return Net(subject, copy, np.random.default_rng(seed))


def _scaled(net: Net, name: str, factor: Array | float, index: int = 1) -> None:
    node = next(n for n in net.nodes if n.name == name)
    tensor = net.own(node, index)
    assert tensor is not None
    net.change(tensor, onnx.numpy_helper.to_array(tensor) * factor)


def test_the_oracle_on_the_honest_file(subject: Subject, oracle: Oracle) -> None:
    assert oracle.judge(subject.proto).verdict == EQUAL
    sizes = {len(next(iter(feeds.values()))) for feeds in oracle.batches}
    assert sizes >= {1, 2, 3, 5, 7, 16}
    assert sum(len(next(iter(feeds.values()))) for feeds in oracle.batches) >= 256 + len(subject.source.feeds["image"])


def test_the_oracle_on_rounding(subject: Subject, oracle: Oracle) -> None:
    """Weights off by a few units in the last place cross half points, which explains the outputs."""
    net = _net(subject)
    for name in ("conv1", "conv2", "conv3", "conv4"):
        _scaled(net, name, np.float32(1 + 2**-23))
    assert oracle.judge(net.proto).verdict == EQUAL


def test_the_oracle_on_a_wrong_weight(subject: Subject, oracle: Oracle) -> None:
    net = _net(subject)
    _scaled(net, "conv2", 1.01)
    assert oracle.judge(net.proto).verdict == DIFFERENT


def test_the_oracle_on_spikes_of_another_height(subject: Subject, oracle: Oracle) -> None:
    """Twice the current at twice the threshold, and half the weights behind: the outputs stay what they are."""
    net = _net(subject)
    for name, index, factor in (("conv2", 1, 2), ("conv2", 2, 2), ("left/PascIF", 1, 2), ("conv3", 1, 0.5)):
        _scaled(net, name, factor, index)
    assert oracle.judge(net.proto).verdict == INNER


def test_the_oracle_on_what_cannot_be_run(subject: Subject, oracle: Oracle) -> None:
    net = _net(subject)
    net.graph.node.remove(net.nodes[0])
    judged = oracle.judge(net.proto)
    assert (judged.verdict, judged.why[:13]) == (DIFFERENT, "cannot be run")


@pytest.mark.parametrize("kind", ["one batch size", "later rows of a batch", "samples mixed"])
def test_the_oracle_on_what_is_wrong_in_some_batches(kind: str, subject: Subject, oracle: Oracle) -> None:
    verdicts = []
    for seed in range(3):
        net = _net(subject, seed)
        assert KINDS[kind](net)
        verdicts.append(oracle.judge(net.proto).verdict)
    assert DIFFERENT in verdicts


def test_a_mutant_is_made_from_its_number_alone(workshop: Workshop, tmp_path: Path) -> None:
    _, first, kinds, done = workshop.mutant(7, 5)
    _, again, *rest = Workshop(tmp_path, quick=True).mutant(7, 5)
    assert [kinds, done] == rest
    assert first.SerializeToString(deterministic=True) == again.SerializeToString(deterministic=True)


def test_what_the_table_counts() -> None:
    found, said_so = Answer(NOT_EQUIVALENT, "a: wrong"), Answer(EQUIVALENT)
    case = Case(1, 0, "linear, unrolled", ["weight"], ["entry 3 zeroed"], DIFFERENT, "", found, found)
    cases = [
        case,
        replace(case, with_data=said_so),
        replace(case, without=said_so),
        replace(case, with_data=Answer(CRASHED, "Traceback\nValueError: no")),
        replace(case, truth=EQUAL, without=None),
        replace(case, truth=EQUAL, with_data=said_so, without=None),
        replace(case, kinds=["weight", "bias"]),
    ]
    rows = dict(line.strip("| ").split(" | ", 1) for line in table(cases).splitlines()[2:])
    assert rows["weight"] == "6 | 2 | 4 | 2 | 1 | 3 | 1 | 1"
    assert rows["several at once"] == "1 | 0 | 1 | 1 | 0 | 1 | 0 | 0"
    assert rows["all"] == "7 | 2 | 5 | 3 | 1 | 4 | 1 | 1"
    assert [line.split(":")[0] for line in details(cases, [3], {"x": "y"})[:-1]] == [
        *("left out", "process ended", "MISSED", "missed without data", "verify failed", "false alarm")
    ]
