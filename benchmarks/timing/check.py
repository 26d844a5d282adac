"""Compare a handful of cases with a baseline, in units of fixed work measured in the same run."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from timing.baseline import Verdict, read_baseline, table, write_baseline
from timing.cases import CASES, Case
from timing.clock import Clock, undisturbed_clock
from timing.machine import cpu_flags
from timing.measurement import YARDSTICKS, Samples, Work, measure

BASELINE = Path("benchmarks/baseline.json")
LIMIT = 1.5
REPEATS = 7
#: How often what looks too slow is measured again before it counts as slower.
SECOND_LOOKS = 4


class SlowerError(Exception):
    """A case is slower than the baseline allows."""


class Race:
    """Cases that are measured, more than once where one looks too slow.

    Parameters
    ----------
    cases : sequence of Case
    clock : callable
        Returns seconds.
    repeats : int
        Samples of each case and of its yardstick in one round.
    """

    def __init__(self, cases: Sequence[Case], clock: Clock, repeats: int = REPEATS) -> None:
        self.cases = {case.name: case for case in cases}
        self._clock, self._repeats = clock, repeats
        self._works: dict[str, Work] = {}
        self.samples = {case.name: Samples() for case in cases}

    def run(self, names: Sequence[str] | None = None) -> None:
        """Measure cases once more; new samples are added to the old ones."""
        for name in self.cases if names is None else names:
            case = self.cases[name]
            work = self._work(name, case.prepare)
            yardstick = self._work(case.yardstick, YARDSTICKS[case.yardstick])
            measure(work, yardstick, self._clock, self._repeats, self.samples[name])

    def _work(self, name: str, prepare: Callable[[], Work]) -> Work:
        if name not in self._works:
            self._works[name] = prepare()
        return self._works[name]

    def verdicts(self, baseline: dict[str, float], limit: float) -> list[Verdict]:
        """Return each case beside its baseline."""
        return [
            Verdict(name, case.yardstick, baseline[name], self.samples[name].ratio, limit)
            for name, case in self.cases.items()
        ]


def compare(race: Race, baseline: dict[str, float], limit: float = LIMIT) -> list[Verdict]:
    """Measure all cases, and again those that look too slow, and return the verdicts."""
    race.run()
    for _ in range(SECOND_LOOKS):
        slow = [each.name for each in race.verdicts(baseline, limit) if each.is_too_slow]
        if not slow:
            break
        race.run(slow)
    return race.verdicts(baseline, limit)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("--baseline", type=Path, default=BASELINE, help="JSON file")
    parser.add_argument("--update", action="store_true", help="write the baseline")
    parser.add_argument(
        "--limit", type=float, default=LIMIT, help="how many times slower is too slow"
    )


def run(arguments: argparse.Namespace) -> str:
    """Check the cases, or write the baseline, and return a summary.

    A processor with other vector instructions speeds up a network and its yardstick by different
    factors; there the table is shown, and nothing is judged.

    Raises
    ------
    SlowerError
        With a table, if a case is too slow.
    """
    if not arguments.limit > 1.0:
        raise ValueError(f"the limit must be above 1; given {arguments.limit:g}.")
    path: Path = arguments.baseline
    if arguments.update:
        return _update(Race(CASES, undisturbed_clock()), path)
    baseline = read_baseline(path, [case.name for case in CASES])
    verdicts = compare(Race(CASES, undisturbed_clock()), baseline.ratios, arguments.limit)
    text = table(verdicts)
    flags = cpu_flags()
    if flags != baseline.cpu_flags:
        return (
            f"{text}\nnot judged: this processor has {' '.join(flags) or 'nothing'}, "
            f"that of '{path}' had {' '.join(baseline.cpu_flags) or 'nothing'}."
        )
    slow = [verdict.name for verdict in verdicts if verdict.is_too_slow]
    if slow:
        raise SlowerError(
            f"{text}\n{len(slow)} of {len(verdicts)} cases became slower than '{path}' allows; "
            "if that is meant, run make bench-check ARGS=--update."
        )
    return f"{text}\nno case became {arguments.limit:g} times slower than in '{path}'."


def _update(race: Race, path: Path) -> str:
    for _ in range(1 + SECOND_LOOKS):
        race.run()
    ratios = {name: samples.ratio for name, samples in race.samples.items()}
    yardsticks = {name: case.yardstick for name, case in race.cases.items()}
    write_baseline(path, ratios, yardsticks, [min(each.case) for each in race.samples.values()])
    return f"wrote '{path}', {len(ratios)} cases"
