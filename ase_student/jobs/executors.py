"""Executors of independent work: this process, processes of this machine, workers of Dask.

All three have the interface `Executor` of the standard library, so that a single loop uses them.
The results do not depend on which of them does the work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, wait
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from ase_student.jobs.processes import RESUME_HINT, process_pool

Key = TypeVar("Key")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Workers:
    """An executor, and how to use it.

    Attributes
    ----------
    executor : Executor
    n_ahead : callable
        Returns the number of pieces of work to submit before the first is finished.
    are_elsewhere : bool
        Whether the work is done in other processes, which load their own teacher or student;
        otherwise those of this process are used.
    """

    executor: Executor
    n_ahead: Callable[[], int]
    are_elsewhere: bool


def workers_for(
    processes: int, scheduler: str | None, *, doing: str = "labels"
) -> AbstractContextManager[Workers]:
    """Return a context manager that gives the workers.

    Parameters
    ----------
    processes : int
        Number of processes on this machine. They are started with the method 'spawn': a script
        that asks for more than one needs ``if __name__ == "__main__":``.
    scheduler : str or None
        Address of a Dask scheduler, whose workers do the work instead.
    doing : str
        Verb for the work in messages of errors, such as 'labels'.
    """
    if scheduler is not None:
        return dask_workers(scheduler)
    return this_process() if processes == 1 else local_processes(processes, doing)


def completed(
    workers: Workers, calls: Iterable[tuple[Key, Callable[[], Result]]]
) -> Iterator[tuple[Key, Result]]:
    """Let workers make calls, and yield each result with its key when it is finished.

    Calls are taken from the iterable only when they are needed. If a call fails, results that are
    finished at the same time are yielded before its error is raised.

    Parameters
    ----------
    workers : Workers
    calls : iterable of (key, callable)
        Callables that can be sent to other processes, such as a `functools.partial`.
    """
    waiting = iter(calls)
    running: dict[Future[Result], Key] = {}
    while True:
        for key, call in islice(waiting, max(0, workers.n_ahead() - len(running))):
            running[workers.executor.submit(call)] = key
        if not running:
            return
        finished, _ = wait(running, return_when=FIRST_COMPLETED)
        error: BaseException | None = None
        for future in finished:
            key = running.pop(future)
            try:
                result = future.result()
            except BaseException as raised:
                error = raised
            else:
                yield key, result
        if error is not None:
            raise error


class _InThisProcess(Executor):
    """Executor that makes each call in this process, when it is submitted."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@contextmanager
def this_process() -> Iterator[Workers]:
    """Give workers that use this process."""
    yield Workers(_InThisProcess(), lambda: 1, are_elsewhere=False)


@contextmanager
def local_processes(
    n: int, doing: str, initializer: Callable[..., None] | None = None, *arguments: Any
) -> Iterator[Workers]:
    """Give `n` processes of one thread each, which end with the block.

    Parameters
    ----------
    n, doing, initializer, *arguments
        See :func:`ase_student.jobs.processes.process_pool`.

    Raises
    ------
    ChildProcessError
        If a process died.
    """
    with process_pool(n, doing, initializer, *arguments) as executor:
        yield Workers(executor, lambda: 2 * n, are_elsewhere=True)


@contextmanager
def dask_workers(address: str) -> Iterator[Workers]:
    """Give the workers of a Dask cluster, whose number may change.

    Parameters
    ----------
    address : str
        Address of the scheduler, such as ``'tcp://node7:8786'``.

    Raises
    ------
    ImportError
        If distributed is not installed.
    ConnectionError
        If there is no scheduler, or if the connection is lost.
    ChildProcessError
        If workers died several times during the same piece.
    """
    try:
        from distributed import Client, KilledWorker
    except ImportError as error:
        raise ImportError('--scheduler needs Dask: pip install "ase-student[dask]"') from error
    try:
        client = Client(address, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ConnectionError(f"no Dask scheduler answers at '{address}'.") from error
    with client:
        executor = client.get_executor(pure=False)
        try:
            # Two pieces per worker, one being processed and one waiting; at least one in total.
            yield Workers(executor, lambda: max(1, 2 * len(client.ncores())), are_elsewhere=True)
        except KilledWorker as error:
            raise ChildProcessError(
                f"Dask workers died again and again during the same piece; {RESUME_HINT}."
            ) from error
        except CancelledError as error:
            raise ConnectionError(
                f"the Dask scheduler at '{address}' went away or dropped the work; {RESUME_HINT}."
            ) from error
        finally:
            executor.shutdown(wait=False)
