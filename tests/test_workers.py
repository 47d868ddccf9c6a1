"""Several processes give what one gives, to the last bit, whatever happens to them."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pytest
from click.testing import CliRunner

import pascalc
from pascalc import workers
from pascalc.cli import main
from pascalc.errors import CompileError
from pascalc.folding import fold, results
from pascalc.planning import planner
from pascalc.planning.calibrate import measure
from pascalc.stream import Batch, SampleStream, hold, open_samples
from pascalc.verifier.record import ComputedCheck, LayerCheck, Root, Verification
from pascalc.workers import Workers, working
from tests.helpers import loaded
from tests.small_networks import images, linear_network, residual_network, rows, write

SAMPLES = 90


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks, one of a fixed batch, and one data set of every kind."""
    place = tmp_path_factory.mktemp("workers")
    x, y = images(SAMPLES), np.arange(SAMPLES) % 5
    for name, batch in (("free", "N"), ("fixed", 7)):
        source = write(residual_network(batch=batch), place / f"{name}.onnx")
        pascalc.compile(source, place / f"{name}.snn.onnx")
    np.savez(place / "data.npz", x=x, y=y)
    np.savez_compressed(place / "packed.npz", x=x, y=y)
    np.save(place / "data.npy", x)
    (place / "shards").mkdir()
    for number, part in enumerate(np.array_split(np.arange(SAMPLES), 11)):
        np.savez(place / "shards" / f"{number}.npz", x=x[part], y=y[part])
    return place


@pytest.fixture(scope="module")
def cluster() -> Iterator[distributed.LocalCluster]:
    """Two workers."""
    with workers.local_cluster(2) as made:
        yield made


@pytest.fixture
def address(cluster: distributed.LocalCluster) -> str:
    cluster.wait_for_workers(2, timeout=60)  # after a test that has killed one
    return str(cluster.scheduler_address)


def as_json(evaluation: Any) -> str:
    """A report, without what is measured anew each time."""
    return json.dumps({**evaluation.to_json(), "seconds": 0})


#: Everything that reads data, as a function of the folder, the network and the data.
COMMANDS: dict[str, Callable[..., Any]] = {
    "eval": lambda at, name, data, **o: as_json(pascalc.evaluate(at / f"{name}.snn.onnx", data, **o)),
    "verify": lambda at, name, data, **o: as_json(
        pascalc.verify(at / f"{name}.onnx", at / f"{name}.snn.onnx", data, seed=1, **o)
    ),
    "report": lambda at, name, data, **o: as_json(pascalc.report(at / f"{name}.snn.onnx", data, **o)),
    "histogram": lambda at, name, data, **o: measure(at / f"{name}.onnx", data, **o),
}
PLANS: dict[str, Callable[..., Any]] = {
    "metric": lambda model, data, **o: planner.plan_by_metric(model, 2, calibration=data, **o).to_json(),
    "steps": lambda model, data, **o: planner.plan_by_steps(model, data, 2.0, **o).to_json(),
    "budget": lambda model, data, **o: planner.plan_by_budget(model, data, 0.2, correct=True, **o).to_json(),
    "effect": lambda model, data, **o: planner.measure_effect(model, data, {"left": 2}, **o),
    "correction": lambda model, data, **o: {
        name: shift.tobytes()
        for name, shift in planner.correct_levels(model, data, {"left": 2}, **o).setting.shifts.items()
    },
}


@pytest.mark.parametrize("data", ["data.npz", "packed.npz", "data.npy", "shards"])
@pytest.mark.parametrize("command", COMMANDS)
def test_two_workers_give_what_one_process_gives(command: str, data: str, folder: Path, address: str) -> None:
    run = COMMANDS[command]
    for name, batch in (("free", 3), ("fixed", 16)):
        assert run(folder, name, folder / data, batch=batch, dask=address) == run(
            folder, name, folder / data, batch=batch
        )


@pytest.mark.parametrize("command", PLANS)
def test_two_workers_plan_what_one_process_plans(command: str, folder: Path, address: str) -> None:
    run = PLANS[command]
    model, data = folder / "free.onnx", folder / "shards"
    assert run(model, data, batch=8, dask=address) == run(model, data, batch=8)


@pytest.mark.parametrize("limit", [1, 16, 50])
def test_the_first_samples(limit: int, folder: Path, address: str) -> None:
    for command in ("eval", "verify", "report"):
        found = COMMANDS[command](folder, "fixed", folder / "shards", limit=limit, dask=address)
        assert found == COMMANDS[command](folder, "fixed", folder / "shards", limit=limit)


def test_on_the_command_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    found = []
    for more in ([], ["--workers", "2"]):
        result = CliRunner().invoke(main, ["eval", "free.snn.onnx", "--data", "shards", "--json", "-", *more])
        assert result.exit_code == 0, result.stderr
        found.append({**json.loads(result.stdout), "seconds": 0})
    assert found[0] == found[1]
    planning = ["plan", "free.onnx", "--al-steps", "2", "--correct", "--calib", "shards", "--json", "-"]
    one, two = (CliRunner().invoke(main, [*planning, *more]) for more in ([], ["--workers", "2"]))
    assert (two.exit_code, two.stdout) == (0, one.stdout)


def test_what_is_not_equivalent_is_found_alike(folder: Path, address: str, tmp_path: Path) -> None:
    """The roots of all batches, in order, and the layers' problems."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(folder / "free.snn.onnx")
    name = next(n for n in model.graph.node if n.name == "conv1").input[1]
    weight = next(t for t in model.graph.initializer if t.name == name)
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.05), name))
    write(model, tmp_path / "free.snn.onnx")
    (tmp_path / "free.onnx").write_bytes((folder / "free.onnx").read_bytes())
    one = COMMANDS["verify"](tmp_path, "free", folder / "shards", batch=4)
    assert len(json.loads(one)["roots"]) == 1000
    assert COMMANDS["verify"](tmp_path, "free", folder / "shards", batch=4, dask=address) == one


@pytest.mark.parametrize("command", COMMANDS)
def test_bad_data_is_refused_alike(
    command: str, folder: Path, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    x = images(SAMPLES)
    x[-1, 0, 0, 0] = np.nan
    Path("shards").mkdir()
    for number, part in enumerate(np.array_split(np.arange(SAMPLES), 3)):
        np.savez(f"shards/{number}.npz", x=x[part])
    told = []
    for more in ({}, {"dask": address}):
        with pytest.raises(CompileError) as caught:
            COMMANDS[command](folder, "free", Path("shards"), batch=4, **more)
        told.append(str(caught.value))
    assert told == ["shards/2.npz: 'x' holds NaN or infinite values."] * 2


def test_the_first_error_is_the_one_that_is_told(folder: Path, address: str, tmp_path: Path) -> None:
    labels = np.arange(SAMPLES) % 5
    labels[[20, 70]] = 8, 9
    np.savez(tmp_path / "data.npz", x=images(SAMPLES), y=labels)
    with pytest.raises(CompileError, match="holds the label 8, but the network has 5 classes"):
        pascalc.evaluate(folder / "free.onnx", tmp_path / "data.npz", batch=4, dask=address)


# --- workers that are lost ------------------------------------------------------------------------------------------


def pids(cluster: distributed.LocalCluster) -> list[int]:
    with distributed.Client(cluster) as client:
        return list(client.run(os.getpid).values())


@pytest.mark.parametrize("command", COMMANDS)
def test_a_worker_that_is_killed(command: str, folder: Path, cluster: distributed.LocalCluster, address: str) -> None:
    """Nothing is lost, and nothing counted twice."""
    running, seen = pids(cluster), []

    def kill(done: int, total: int) -> None:
        if not seen:
            os.kill(running[0], signal.SIGKILL)
        seen.append(done)

    found = COMMANDS[command](folder, "free", folder / "data.npz", batch=2, dask=address, progress=kill)
    assert found == COMMANDS[command](folder, "free", folder / "data.npz", batch=2)
    assert seen == list(range(2, SAMPLES + 1, 2))
    cluster.wait_for_workers(2, timeout=60)
    assert running[0] not in pids(cluster)


@dataclass(frozen=True)
class Slow:
    """Gives the numbers of samples, and keeps a log of what workers do."""

    log: Path
    deadly: bool = False

    def write(self, *words: object) -> None:
        with self.log.open("a") as file:
            file.write(" ".join(map(str, words)) + "\n")

    def open(self, threads: int | None) -> Callable[[Batch], list[int]]:
        self.write("open", os.getpid(), threads)

        def run(batch: Batch) -> list[int]:
            self.write("run", os.getpid(), batch.part.start)
            time.sleep(0.02)
            if self.deadly:
                os.kill(os.getpid(), signal.SIGKILL)
            return list(range(batch.part.start, batch.part.stop))

        return run


@pytest.fixture
def samples(tmp_path: Path) -> SampleStream:
    np.savez(tmp_path / "data.npz", x=rows(200))
    return open_samples(tmp_path / "data.npz", loaded(linear_network()))


def test_networks_are_opened_once_for_each_worker(address: str, samples: SampleStream, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with working(None, address, "data") as pool:
        assert fold(Slow(log), samples, 2, pool=pool) == list(range(200))
    lines = [line.split() for line in log.read_text().splitlines()]
    opened = [line for line in lines if line[0] == "open"]
    assert len({pid for _, pid, _ in opened}) == len(opened) == 2
    assert {threads for *_, threads in opened} == {"1"}
    ran = [int(start) for what, _, start in lines if what == "run"]
    assert sorted(ran) == list(range(0, 200, 2))


def test_batches_that_a_killed_worker_has_done_are_done_again(
    cluster: distributed.LocalCluster, address: str, samples: SampleStream, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with working(None, address, "data") as pool:
        found: list[int] = []
        for one in results(Slow(log), samples, 2, pool=pool):
            if len(found) == 30:
                os.kill(pids(cluster)[-1], signal.SIGKILL)
            found += one
    assert found == list(range(200))
    ran = [line.split()[2] for line in log.read_text().splitlines() if line.startswith("run")]
    assert len(set(ran)) == 100 < len(ran)


def test_workers_that_are_lost_again_and_again(samples: SampleStream, tmp_path: Path) -> None:
    with working(2, None, "data") as pool, pytest.raises(CompileError, match=r"the workers were lost: .* fewer"):
        fold(Slow(tmp_path / "log", deadly=True), samples, 200, pool=pool)


def test_workers_that_are_gone(samples: SampleStream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_PATIENCE", 5)
    with workers.local_cluster(1) as one, working(None, one.scheduler_address, "data") as pool:
        found = results(Slow(tmp_path / "log"), samples, 2, pool=pool)
        assert next(found) == [0, 1]
        one.scale(0)
        with pytest.raises(CompileError, match="the workers were lost"):
            list(found)


def test_data_that_workers_do_not_find(address: str, samples: SampleStream, tmp_path: Path) -> None:
    (tmp_path / "data.npz").unlink()
    with working(None, address, "data") as pool, pytest.raises(CompileError, match="a worker does not find the data"):
        fold(Slow(tmp_path / "log"), samples, 2, pool=pool)


def test_a_pass_that_ends_early(address: str, samples: SampleStream, tmp_path: Path) -> None:
    with working(None, address, "data") as pool:
        found = results(Slow(tmp_path / "log"), samples, 2, pool=pool)
        assert next(found) == [0, 1]
        found.close()
        assert fold(Slow(tmp_path / "log"), hold({"x": rows(6)}, loaded(linear_network())), 2, pool=pool) == list(
            range(6)
        )


# --- what makes no sense ----------------------------------------------------------------------------------------------


def test_without_dask(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(CompileError, match=r"not installed\. Install it: pip install 'pascalc\[distributed\]'"):
        pascalc.evaluate(folder / "free.onnx", folder / "data.npz", workers=2)


def test_workers_and_a_scheduler_that_make_no_sense(folder: Path) -> None:
    model, snn, data = folder / "free.onnx", folder / "free.snn.onnx", folder / "data.npz"
    calls: list[tuple[Callable[[], Any], str]] = [
        (lambda: pascalc.evaluate(model, data, workers=2, dask="tcp://127.0.0.1:1"), "both given"),
        (lambda: pascalc.evaluate(model, data, workers=0), "at least 1 worker, not 0"),
        (lambda: pascalc.verify(model, snn, workers=2), "no data for workers to share"),
        (lambda: pascalc.report(snn, workers=2), "no data for workers to share"),
        (lambda: pascalc.plan_by_metric(model, 1, workers=2), "no data for workers to share"),
    ]
    for call, message in calls:
        with pytest.raises(CompileError, match=message):
            call()


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nonsense://a"])
def test_no_scheduler(address: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_PATIENCE", 1)
    with pytest.raises(CompileError, match=f"no Dask scheduler answers at {address}"):
        pascalc.evaluate(folder / "free.onnx", folder / "data.npz", dask=address)


def test_a_scheduler_without_workers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_PATIENCE", 1)
    with (
        distributed.LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0", silence_logs=logging.CRITICAL) as empty,
        pytest.raises(CompileError, match="has no workers"),
    ):
        pascalc.evaluate(folder / "free.onnx", folder / "data.npz", dask=empty.scheduler_address)


def test_a_script_that_starts_workers_without_a_guard(folder: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        f"import pascalc\npascalc.evaluate({str(folder / 'free.onnx')!r}, {str(folder / 'data.npz')!r}, workers=1)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "CompileError: the workers do not start: " in done.stderr
    assert "under `if __name__ == '__main__':`" in done.stderr


# --- records that add up ----------------------------------------------------------------------------------------------


def found_record(seed: int) -> Verification:
    """A record with something in every field that is found on data."""
    layer, check = LayerCheck("a", 4, 1, 4, 4, lossless=True), ComputedCheck("b", "Abs")
    record = Verification(layers=[layer], computed=[check], roots=[Root("a", seed, [0], 1, 2, 0.5, 0.1)])
    for part in (record, layer, check):
        for own in fields(part):
            if own.default is not MISSING and type(own.default) in (int, float):
                setattr(part, own.name, type(own.default)(seed + len(own.name)))
            elif own.name.endswith("problems"):
                setattr(part, own.name, ["both", f"of {seed}"])
    return record


def test_records_of_later_samples_are_added() -> None:
    """Every field that has a default: one that is new and forgotten is found here."""
    first, total, later = found_record(1), found_record(1), found_record(100)
    total.add(later)
    settings = {"samples", "probes", "disturbed", "seed", "data", "threads", "source_recorded"}
    for before, now, added in (
        (first, total, later),
        (first.layers[0], total.layers[0], later.layers[0]),
        (first.computed[0], total.computed[0], later.computed[0]),
    ):
        for own in fields(before):
            a, b, c = (getattr(record, own.name) for record in (before, now, added))
            if own.name.endswith("problems"):
                assert b == ["both", "of 1", "of 100"]
            elif own.default is not MISSING and own.name not in settings:
                assert b == (a + c if type(a) is int else max(a, c)), own.name
    assert [root.sample for root in total.roots] == [1, 100]


def test_what_is_taken_is_gone() -> None:
    record = found_record(5)
    record.samples, record.seed = 9, 7
    taken = record.take()
    expected = found_record(5)
    expected.samples, expected.seed = 9, 7
    assert taken == expected
    blank = Verification(samples=9, seed=7, probes=record.probes, disturbed=record.disturbed)
    blank.layers, blank.computed = [LayerCheck("a", 4, 1, 4, 4, lossless=True)], [ComputedCheck("b", "Abs")]
    assert record == blank
    record.add(taken)
    assert record == expected


def test_a_pool_has_an_address(address: str) -> None:
    with working(None, address, "data") as pool:
        assert isinstance(pool, Workers)
        assert pool.address == address
