"""Work on other processes, by Dask: a local cluster, or one that runs already.

Each task is a range of whole batches, the very same that one process would make, and gives what each of them gives.
Dask runs the tasks of a worker that is lost again, so that every batch is there once. A worker opens the networks once
for all its tasks, with one thread of onnxruntime, and reads the data itself: files must be there for it under the same
absolute paths.
"""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pascalc.errors import CompileError
from pascalc.folding import Work
from pascalc.stream import Batch, SampleStream

if TYPE_CHECKING:
    from distributed import Client

R = TypeVar("R")

#: Tasks for each thread of the workers: many enough to share the work evenly, and few, since a task reads a compressed
#: file from its start.
_TASKS = 16
#: Seconds to wait for a scheduler, and for its first worker.
_PATIENCE = 30


@contextmanager
def working(workers: int | None, dask: str | None, data: str | Path | None) -> Iterator[Workers | None]:
    """The workers that are asked for; None where none are.

    Args:
        workers: start so many processes here, of one thread each.
        dask: the address of a Dask scheduler that runs already.
        data: the data that they share.

    Raises:
        CompileError: as `check_sharing`; Dask is not installed; no scheduler or no worker answers.
    """
    check_sharing(workers, dask, data)
    if workers is None and dask is None:
        yield None
        return
    try:
        import distributed
    except ImportError as error:
        raise CompileError(
            "Dask, which runs workers, is not installed", hint="Install it: pip install 'pascalc[distributed]'."
        ) from error
    with ExitStack() as stack:
        cluster = stack.enter_context(local_cluster(workers)) if dask is None else dask
        try:
            client = stack.enter_context(distributed.Client(cluster, timeout=_PATIENCE))
        except (OSError, ValueError) as error:
            raise CompileError(f"no Dask scheduler answers at {dask}: {error}") from error
        try:
            client.wait_for_workers(1, timeout=_PATIENCE)
        except TimeoutError as error:
            raise CompileError(f"the Dask scheduler at {dask} has no workers") from error
        yield Workers(client)


def check_sharing(workers: int | None, dask: str | None, data: str | Path | None) -> None:
    """Refuse workers that make no sense.

    Raises:
        CompileError: there are fewer than 1, the address of a scheduler too, or no data.
    """
    if workers is not None and dask is not None:
        raise CompileError("workers and the address of a Dask scheduler were both given", hint="Give one of them.")
    if workers is not None and workers < 1:
        raise CompileError(f"there must be at least 1 worker, not {workers}")
    if (workers is not None or dask is not None) and data is None:
        raise CompileError("there is no data for workers to share", hint="Give data, or no workers.")


@contextmanager
def local_cluster(workers: int | None) -> Iterator[Any]:
    """A Dask cluster of so many processes on this machine.

    Raises:
        CompileError: they do not start.
    """
    import dask
    import distributed

    # a worker that is lost starts again, however long that takes on a busy machine
    with dask.config.set({"distributed.deploy.lost-worker-timeout": "1 hour"}):
        try:
            cluster = distributed.LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                dashboard_address="127.0.0.1:0",  # any port that is free
                memory_limit=0,
                silence_logs=logging.CRITICAL,  # that a worker is lost is no news: its tasks run again
            )
        except RuntimeError as error:
            raise CompileError(
                f"the workers do not start: {error}",
                hint="A script starts them under `if __name__ == '__main__':`, since each of them imports the script.",
            ) from error
        with cluster:
            yield cluster


class Workers:
    """The workers of a Dask scheduler."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @property
    def address(self) -> str:
        """Of the scheduler."""
        return str(self._client.scheduler.address)

    def results(self, work: Work[R], samples: SampleStream, size: int) -> Iterator[R]:
        """What every batch of ``size`` samples gives, in order.

        Raises:
            CompileError: what a batch raised, if it is the first in the samples' order to do so; or workers were lost
                again and again.
        """
        from distributed.client import CancelledError, FutureCancelledError
        from distributed.comm import CommClosedError
        from distributed.scheduler import KilledWorker

        threads = max(1, sum(self._client.nthreads().values()))
        share = size * max(1, -(-len(samples) // (size * threads * _TASKS)))
        opened = self._submit(_Opened, work, samples.absolute(), size)
        everything = range(len(samples))
        waiting = deque(self._submit(_part, opened, everything[start : start + share]) for start in everything[::share])
        while waiting:
            try:
                found, error = self._result(waiting.popleft())
            except (KilledWorker, CancelledError, FutureCancelledError, CommClosedError, TimeoutError) as lost:
                raise CompileError(
                    f"the workers were lost: {str(lost).partition(chr(10))[0]}",
                    hint="They may need more memory than there is: take fewer of them, or a smaller batch.",
                ) from lost
            yield from found
            if error is not None:
                raise _as_given(error, samples)

    def _result(self, future: Any) -> Any:
        """What a task gave, as long as there are workers."""
        while True:
            try:
                return future.result(timeout=_PATIENCE)
            except TimeoutError:
                self._client.wait_for_workers(1, timeout=_PATIENCE)

    def _submit(self, function: Callable[..., Any], *arguments: Any) -> Any:
        with warnings.catch_warnings():  # a network may be large, and is sent to each worker once
            warnings.filterwarnings("ignore", "Sending large graph", UserWarning)
            return self._client.submit(function, *arguments, pure=False)


class _Opened(Generic[R]):
    """Work and its data on a worker: a thread opens its networks with its first task."""

    def __init__(self, work: Work[R], samples: SampleStream, size: int) -> None:
        self._arguments = work, samples, size
        self._threads = threading.local()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._arguments

    def results(self, within: range) -> Iterator[R]:
        """What the batches of these samples give."""
        work, samples, size = self._arguments
        if samples.file is not None and not samples.file.exists():
            raise CompileError(
                "a worker does not find the data", file=samples.file, hint="Workers need it under the same path."
            )
        if not hasattr(self._threads, "run"):
            self._threads.run = work.open(1)
        run: Callable[[Batch], R] = self._threads.run
        with closing(samples.batches(size, within)) as batches:
            for batch in batches:
                yield run(batch)


def _part(opened: _Opened[R], within: range) -> tuple[list[R], CompileError | None]:
    """What the batches of these samples give, up to one that raises an error, and the error."""
    found: list[R] = []
    try:
        for one in opened.results(within):
            found.append(one)
    except CompileError as error:
        return found, error
    return found, None


def _as_given(error: CompileError, samples: SampleStream) -> CompileError:
    """The error, with the file's name as it is known here and not to the worker."""
    if error.file is not None and samples.file is not None and not samples.file.is_absolute():
        error.file = error.file.removeprefix(f"{Path.cwd()}{os.sep}")
    return error
