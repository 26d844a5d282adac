"""A clock that other processes on the same cores disturb little."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable

Clock = Callable[[], float]

# Linux: nanoseconds this thread has run, nanoseconds it has waited for a core, number of runs.
_SCHEDULE = "/proc/thread-self/schedstat"


def undisturbed_clock() -> Clock:
    """Return a clock in seconds that stands still while this thread waits for a core.

    Sleeping, reading files and waiting for other threads do count. Where the system does not tell
    how long a thread waited for a core, this is the ordinary clock. The clock belongs to the thread
    that calls this function.
    """
    waited = _reader_of_waits()
    if waited is None:
        return time.perf_counter
    return lambda: time.perf_counter() - waited()


def _reader_of_waits() -> Clock | None:
    """Return a function for the seconds that this thread has waited for a core, if there is one."""
    try:
        descriptor = os.open(_SCHEDULE, os.O_RDONLY)
    except OSError:
        return None

    def waited() -> float:
        return 1e-9 * int(os.pread(descriptor, 128, 0).split()[1])

    weakref.finalize(waited, os.close, descriptor)
    try:
        waited()
    except (OSError, IndexError, ValueError):
        return None
    return waited
