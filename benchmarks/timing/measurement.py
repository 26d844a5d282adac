"""Measure a piece of work in units of a yardstick that is measured beside it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from timing.clock import Clock

#: Does its work so many times in a row.
Work = Callable[[int], None]

#: A sample takes at least about so long, so that the clock's own time does not count.
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
        """The case's least disturbed time in units of the yardstick's.

        Whatever else a machine does makes times longer, never shorter: of enough samples the
        shortest ones were hardly disturbed.
        """
        return min(self.case) / min(self.yardstick)


def measure(
    case: Work, yardstick: Work, clock: Clock, repeats: int, samples: Samples | None = None
) -> Samples:
    """Measure case and yardstick in turns, in samples that take equally long.

    Equally long, because what is short slips through between two disturbances.

    Parameters
    ----------
    case, yardstick : callable
        Each takes the number of calls to make in a row.
    clock : callable
        Returns seconds.
    repeats : int
        Samples of each.
    samples : Samples, optional
        Earlier ones, which the new ones are added to.

    Returns
    -------
    Samples
    """
    samples = Samples() if samples is None else samples
    each_case, each_yardstick = _seconds_per_call(case, clock), _seconds_per_call(yardstick, clock)
    seconds = max(SAMPLE_SECONDS, each_case)
    for _ in range(repeats):
        samples.yardstick.append(_sample(yardstick, _calls(seconds, each_yardstick), clock))
        samples.case.append(_sample(case, _calls(seconds, each_case), clock))
    return samples


def _seconds_per_call(work: Work, clock: Clock) -> float:
    """Return about how long a call takes, after a first one that warms up."""
    work(1)
    return min(_sample(work, 1, clock) for _ in range(2))


def _calls(seconds: float, each: float) -> int:
    return MOST_CALLS if each <= 0.0 else max(1, min(MOST_CALLS, math.ceil(seconds / each)))


def _sample(work: Work, calls: int, clock: Clock) -> float:
    start = clock()
    work(calls)
    return (clock() - start) / calls


def _matrix_multiplication() -> Work:
    """Multiply float32 matrices, small enough that no library spreads them over threads."""
    first, second = np.random.default_rng(0).standard_normal((2, 48, 64, 64)).astype(np.float32)
    product = np.empty_like(first)

    def work(calls: int) -> None:
        for _ in range(calls):
            np.matmul(first, second, out=product)

    return work


def _interpreter() -> Work:
    """Call NumPy on small arrays, which is mostly Python's own time."""
    array = np.random.default_rng(0).standard_normal((21, 3))

    def work(calls: int) -> None:
        for _ in range(calls):
            total = 0.0
            for index in range(100):
                total += float((array * index).sum()) + len({"index": index, "total": total})

    return work


#: Fixed work, which says how fast a machine is: at networks, and at what Python does around them.
#: A machine with wider vector units is faster at the first and hardly at the second.
YARDSTICKS: dict[str, Callable[[], Work]] = {
    "matrix multiplication": _matrix_multiplication,
    "interpreter": _interpreter,
}
