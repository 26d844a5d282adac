"""Executors of independent work: this process, processes of this machine, workers of Dask."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor, Future
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from ase_student.jobs.processes import KEPT, process_pool


@dataclass(frozen=True)
class Workers:
    """Who labels.

    Attributes
    ----------
    executor : Executor
    n_pieces : callable
        Returns how many pieces to hand out before the first comes back.
    have_teachers : bool
        Whether each makes its own teacher; otherwise they take the one of this process.
    """

    executor: Executor
    n_pieces: Callable[[], int]
    have_teachers: bool


def workers_for(processes: int, scheduler: str | None) -> AbstractContextManager[Workers]:
    """Return those who label, to be used in a ``with`` statement.

    Parameters
    ----------
    processes : int
        How many processes on this machine. They are started anew: a script that asks for more
        than one needs ``if __name__ == "__main__":``.
    scheduler : str or None
        Address of a Dask scheduler, whose workers label instead.
    """
    if scheduler is not None:
        return dask_workers(scheduler)
    return this_process() if processes == 1 else local_processes(processes)


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
    """Label in this process, with the teacher it has."""
    yield Workers(_AtOnce(), lambda: 1, have_teachers=False)


@contextmanager
def local_processes(n: int) -> Iterator[Workers]:
    """Label in `n` processes of one thread each, which end with the block.

    Raises
    ------
    ChildProcessError
        If one of them died.
    """
    with process_pool(n, "labels") as executor:
        yield Workers(executor, lambda: 2 * n, have_teachers=True)


@contextmanager
def dask_workers(address: str) -> Iterator[Workers]:
    """Label on a Dask cluster, whose workers may come and go.

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
            yield Workers(executor, lambda: max(1, 2 * len(client.ncores())), have_teachers=True)
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
