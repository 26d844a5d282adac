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

#: What numerical libraries take their number of threads from, when they are loaded.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
KEPT = "what was finished is kept: run the same command again to go on"


@contextmanager
def process_pool(
    n: int, doing: str, begin: Callable[..., None] | None = None, *given: Any
) -> Iterator[ProcessPoolExecutor]:
    """Give work to `n` processes of one thread each, which end with the block.

    Parameters
    ----------
    n : int
    doing : str
        What they do, for the error: 'labels'.
    begin : callable, optional
        Called with what is `given`, once in each process before it works.

    Raises
    ------
    ChildProcessError
        If one of them died.
    """
    others = set(active_children())
    executor = ProcessPoolExecutor(
        n, get_context("spawn"), initializer=_begin_process, initargs=(begin, given)
    )
    try:
        with _one_thread():
            yield executor
    except BaseException as error:
        # Whatever stops this process must not wait for pieces that nobody will collect.
        for process in set(active_children()) - others:
            process.terminate()
        if isinstance(error, BrokenProcessPool):
            raise ChildProcessError(
                f"a process that {doing} was killed, ran out of memory or could not start; {KEPT}."
            ) from error
        raise
    finally:
        executor.shutdown(cancel_futures=True)


def end_with_parent() -> None:
    """Let this process, if another has started it, end as soon as that has ended.

    Whatever a shell has put into the background ignores SIGINT, and a process that waits for work
    waits for ever. All files are written beside and renamed, so that only unfinished work is lost.
    """
    parent = parent_process()
    if parent is None:
        return

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _begin_process(begin: Callable[..., None] | None, given: tuple[Any, ...]) -> None:
    # Ctrl-C, which a terminal sends to all processes, is left to the one that waits for them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    if begin is not None:
        begin(*given)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let processes that are started meanwhile use one thread each."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
