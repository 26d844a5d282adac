"""A clock that leaves out the time in which other processes have the core."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable

Clock = Callable[[], float]

# Linux: time that this thread has run, ns; time that it has waited for a core, ns; number of runs.
_SCHEDULE = "/proc/thread-self/schedstat"


def undisturbed_clock() -> Clock:
    """Return a clock in seconds that stands still while this thread waits for a core.

    Time in which the thread sleeps, reads files or waits for other threads counts. If the system
    does not report the time that a thread waited for a core, this is the ordinary clock. The clock
    is valid only in the thread that calls this function.
    """
    waited = _reader_of_waits()
    if waited is None:
        return time.perf_counter
    return lambda: time.perf_counter() - waited()


def _reader_of_waits() -> Clock | None:
    """Return a function for the time that this thread has waited for a core, s.

    None if the system does not report it.
    """
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
