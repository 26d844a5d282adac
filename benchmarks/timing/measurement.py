"""Measure the time of work in units of a yardstick, measured in turns with it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from timing.clock import Clock

#: Does its work the given number of times.
Work = Callable[[int], None]

#: Shortest time of a sample, about, s; it makes the time of the clock itself negligible.
SAMPLE_SECONDS = 0.02
MOST_CALLS = 10_000


@dataclass
class Samples:
    """Times of a case and of its yardstick, measured in turns.

    Attributes
    ----------
    case, yardstick : list of float, seconds per call
    """

    case: list[float] = field(default_factory=list)
    yardstick: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """The case's shortest time in units of the yardstick's shortest time.

        Other work of the machine makes times longer, never shorter; therefore the shortest of
        enough samples are hardly disturbed.
        """
        return min(self.case) / min(self.yardstick)


def measure(
    case: Work, yardstick: Work, clock: Clock, repeats: int, samples: Samples | None = None
) -> Samples:
    """Measure case and yardstick in turns, in samples of equal length.

    The lengths must be equal, because shorter samples more often fall between two disturbances.

    Parameters
    ----------
    case, yardstick : callable
        Each takes the number of calls to make.
    clock : callable
        Returns seconds.
    repeats : int
        Number of samples of each.
    samples : Samples, optional
        Earlier samples, to which the new samples are added.

    Returns
    -------
    Samples
    """
    samples = Samples() if samples is None else samples
    case_seconds = _seconds_per_call(case, clock)
    yardstick_seconds = _seconds_per_call(yardstick, clock)
    seconds = max(SAMPLE_SECONDS, case_seconds)
    for _ in range(repeats):
        samples.yardstick.append(_sample(yardstick, _calls(seconds, yardstick_seconds), clock))
        samples.case.append(_sample(case, _calls(seconds, case_seconds), clock))
    return samples


def _seconds_per_call(work: Work, clock: Clock) -> float:
    """Return an estimate of the time of a call, after a first call that is not timed."""
    work(1)
    return min(_sample(work, 1, clock) for _ in range(2))


def _calls(seconds: float, seconds_per_call: float) -> int:
    """Return the number of calls of a sample of a given length."""
    if seconds_per_call <= 0.0:
        return MOST_CALLS
    return max(1, min(MOST_CALLS, math.ceil(seconds / seconds_per_call)))


def _sample(work: Work, calls: int, clock: Clock) -> float:
    start = clock()
    work(calls)
    return (clock() - start) / calls


def _matrix_multiplication() -> Work:
    """Return products of float32 matrices that are too small for libraries to use threads."""
    first, second = np.random.default_rng(0).standard_normal((2, 48, 64, 64)).astype(np.float32)
    product = np.empty_like(first)

    def work(calls: int) -> None:
        for _ in range(calls):
            np.matmul(first, second, out=product)

    return work


def _interpreter() -> Work:
    """Return calls of NumPy on small arrays, whose time is mostly that of Python."""
    array = np.random.default_rng(0).standard_normal((21, 3))

    def work(calls: int) -> None:
        for _ in range(calls):
            total = 0.0
            for index in range(100):
                total += float((array * index).sum()) + len({"index": index, "total": total})

    return work


#: Fixed work that measures the speed of a machine, for networks and for the Python code around
#: them. Wider vector units make the first faster, but hardly the second.
YARDSTICKS: dict[str, Callable[[], Work]] = {
    "matrix multiplication": _matrix_multiplication,
    "interpreter": _interpreter,
}
