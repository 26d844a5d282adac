"""Who labels the pieces: this process, several on this machine, or a Dask cluster.

All three are an `Executor` of the standard library, so that one loop serves them. What the pieces
are does not depend on who labels them, and so the labels do not either.
"""

from __future__ import annotations

import functools
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, wait
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

from ase_student.data.structures import Structures
from ase_student.distill.answers import ask
from ase_student.distill.processes import KEPT, process_pool
from ase_student.distill.teachers import Failure, Label, Teacher, load_teacher

Piece = tuple[int, int]
Answers = list[Label | Failure]


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


def labelled(
    workers: Workers,
    teacher: Teacher,
    pieces: Iterable[tuple[Piece, Structures]],
    max_force: float,
) -> Iterator[tuple[Piece, Answers]]:
    """Let workers label pieces, and yield each when it is finished.

    Pieces are drawn only as they are needed, and none that came back is lost to another's error.

    Raises
    ------
    ValueError
        If a worker's teacher is not the one given here.
    ImportError
        If a worker does not have what the teacher needs.
    """
    if workers.have_teachers:
        label: Callable[..., Answers] = label_with_own_teacher
        how: tuple[Any, ...] = (teacher.name, teacher.settings, max_force)
    else:
        label, how = label_with_teacher, (teacher, max_force)
    waiting = iter(pieces)
    running: dict[Future[Answers], Piece] = {}
    while True:
        for piece, structures in islice(waiting, max(0, workers.n_pieces() - len(running))):
            running[workers.executor.submit(label, structures, *how)] = piece
        if not running:
            return
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        error: BaseException | None = None
        for future in done:
            piece = running.pop(future)
            try:
                answers = future.result()
            except BaseException as raised:
                error = raised
            else:
                yield piece, answers
        if error is not None:
            raise error


def label_with_teacher(structures: Structures, teacher: Teacher, max_force: float) -> Answers:
    """Return the checked answers of a teacher."""
    return ask(teacher, [structures.atoms(i) for i in range(len(structures))], max_force)


_load_once = functools.cache(load_teacher)
# Teachers are no more made for several threads than ASE's calculators are.
_lock = threading.Lock()


def label_with_own_teacher(
    structures: Structures, name: str, settings: dict[str, Any], max_force: float
) -> Answers:
    """Return the checked answers of the teacher that this process has or makes.

    Parameters
    ----------
    structures : Structures
    name : str
    settings : dict
        Those that the teacher must have.
    max_force : float, eV/Å

    Raises
    ------
    ValueError
        If its settings are others.
    ImportError
        If it cannot be loaded.
    """
    with _lock:
        try:
            teacher = _load_once(name)
        except ImportError as error:
            raise ImportError(f"on {socket.gethostname()}, {error}") from error
        differ = [
            f"{key} {teacher.settings.get(key)!r} instead of {settings.get(key)!r}"
            for key in sorted({*settings, *teacher.settings})
            if teacher.settings.get(key) != settings.get(key)
        ]
        if differ:
            raise ValueError(
                f"the teacher '{name}' on {socket.gethostname()} has {', '.join(differ)}; "
                "install the same versions there as here."
            )
        return label_with_teacher(structures, teacher, max_force)


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
