"""Executors of independent work: this process, processes of this machine, workers of Dask.

All three are an `Executor` of the standard library, so that one loop serves them. What the work is
does not depend on who does it, and so the results do not either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, wait
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from ase_student.jobs.processes import KEPT, process_pool

Key = TypeVar("Key")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Workers:
    """Who does the work.

    Attributes
    ----------
    executor : Executor
    n_ahead : callable
        Returns how many pieces of work to hand out before the first comes back.
    are_elsewhere : bool
        Whether they are other processes, which load what they need themselves, such as a teacher
        or a student; otherwise they take what this process has.
    """

    executor: Executor
    n_ahead: Callable[[], int]
    are_elsewhere: bool


def workers_for(
    processes: int, scheduler: str | None, *, doing: str = "labels"
) -> AbstractContextManager[Workers]:
    """Return who does the work, to be used in a ``with`` statement.

    Parameters
    ----------
    processes : int
        How many processes on this machine. They are started anew: a script that asks for more
        than one needs ``if __name__ == "__main__":``.
    scheduler : str or None
        Address of a Dask scheduler, whose workers do it instead.
    doing : str
        What they do, for errors: 'labels'.
    """
    if scheduler is not None:
        return dask_workers(scheduler)
    return this_process() if processes == 1 else local_processes(processes, doing)


def completed(
    workers: Workers, calls: Iterable[tuple[Key, Callable[[], Result]]]
) -> Iterator[tuple[Key, Result]]:
    """Let workers make calls, and yield each result with its key when it is there.

    Calls are drawn only as they are needed, and no result that came back is lost to another's
    error, which is raised when those that came with it have been yielded.

    Parameters
    ----------
    workers : Workers
    calls : iterable of (key, callable)
        Callables that other processes can be sent, such as `functools.partial` of a function.
    """
    waiting = iter(calls)
    running: dict[Future[Result], Key] = {}
    while True:
        for key, call in islice(waiting, max(0, workers.n_ahead() - len(running))):
            running[workers.executor.submit(call)] = key
        if not running:
            return
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        error: BaseException | None = None
        for future in done:
            key = running.pop(future)
            try:
                result = future.result()
            except BaseException as raised:
                error = raised
            else:
                yield key, result
        if error is not None:
            raise error


class _AtOnce(Executor):
    """Does what is submitted at once, in this process."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@contextmanager
def this_process() -> Iterator[Workers]:
    """Work in this process, with what it has."""
    yield Workers(_AtOnce(), lambda: 1, are_elsewhere=False)


@contextmanager
def local_processes(
    n: int, doing: str, begin: Callable[..., None] | None = None, *given: Any
) -> Iterator[Workers]:
    """Work in `n` processes of one thread each, which end with the block.

    Parameters
    ----------
    n, doing, begin, *given
        See :func:`ase_student.jobs.processes.process_pool`.

    Raises
    ------
    ChildProcessError
        If one of them died.
    """
    with process_pool(n, doing, begin, *given) as executor:
        yield Workers(executor, lambda: 2 * n, are_elsewhere=True)


@contextmanager
def dask_workers(address: str) -> Iterator[Workers]:
    """Work on a Dask cluster, whose workers may come and go.

    Parameters
    ----------
    address : str
        Of the scheduler, such as ``'tcp://node7:8786'``.

    Raises
    ------
    ImportError
        If distributed is not installed.
    ConnectionError
        If there is no scheduler, or it went away.
    ChildProcessError
        If workers died several times over the same piece.
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
            # One piece at work and one at hand for every worker; one waits for the first worker.
            yield Workers(executor, lambda: max(1, 2 * len(client.ncores())), are_elsewhere=True)
        except KilledWorker as error:
            raise ChildProcessError(
                f"Dask workers died again and again over the same piece; {KEPT}."
            ) from error
        except CancelledError as error:
            raise ConnectionError(
                f"the Dask scheduler at '{address}' went away or dropped the work; {KEPT}."
            ) from error
        finally:
            executor.shutdown(wait=False)
