"""Several processes on this machine that share work."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context, parent_process
from typing import Any

#: Environment variables from which numerical libraries read their number of threads when loaded.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
#: End of messages of errors after which a command can be continued.
RESUME_HINT = "finished work is kept: run the same command again to continue"


@contextmanager
def process_pool(
    n: int, doing: str, initializer: Callable[..., None] | None = None, *arguments: Any
) -> Iterator[ProcessPoolExecutor]:
    """Give an executor of `n` processes of one thread each, which end with the block.

    Parameters
    ----------
    n : int
    doing : str
        Verb for the work in the message of the error, such as 'labels'.
    initializer : callable, optional
        Called with `arguments` once in each process before it works.

    Raises
    ------
    ChildProcessError
        If a process died.
    """
    earlier_children = set(active_children())
    executor = ProcessPoolExecutor(
        n, get_context("spawn"), initializer=_begin_process, initargs=(initializer, arguments)
    )
    try:
        with _one_thread():
            yield executor
    except BaseException as error:
        # Do not wait for unfinished pieces: their results are not used any more.
        for process in set(active_children()) - earlier_children:
            process.terminate()
        if isinstance(error, BrokenProcessPool):
            raise ChildProcessError(
                f"a process that {doing} was killed, ran out of memory or could not start; "
                f"{RESUME_HINT}."
            ) from error
        raise
    finally:
        executor.shutdown(cancel_futures=True)


def end_with_parent() -> None:
    """End this process as soon as the process has ended that started it by multiprocessing.

    Processes in the background of a shell ignore SIGINT, and a process that waits for work would
    wait without end. All files are written under temporary names and renamed, so that only
    unfinished work is lost.
    """
    parent = parent_process()
    if parent is None:
        return

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _begin_process(initializer: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    # A terminal sends Ctrl-C to all processes; only the parent, which waits for them, handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    if initializer is not None:
        initializer(*arguments)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let processes that are started in the block use one thread each."""
    earlier_values = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in earlier_values.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
