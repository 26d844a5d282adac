"""Compare the times of cases with a baseline, in units of fixed work measured in the same run."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from timing.baseline import Verdict, read_baseline, table, write_baseline
from timing.cases import CASES, Case
from timing.clock import Clock, undisturbed_clock
from timing.machine import cpu_flags, hardware
from timing.measurement import YARDSTICKS, Samples, Work, measure

FOLDER = Path("benchmarks")
#: Instruction sets with a baseline of their own, widest first: flag, and name of the baseline.
BASELINES = {"avx512f": "avx512", "avx2": "avx2", "asimd": "neon"}
LIMIT = 1.5
#: Factor of limits on a processor with another name than the baseline's: caches and clocks differ
#: even between processors with the same instructions.
OTHER_PROCESSOR = 2.0
REPEATS = 7
#: Number of times that a case above its limit is measured again before it counts as slower.
SECOND_LOOKS = 4


def baseline_file(flags: Sequence[str]) -> Path:
    """Return the file with the baseline of processors with the given vector instructions.

    >>> str(baseline_file(["avx2", "fma"]).name)
    'baseline-avx2.json'
    """
    name = next((name for flag, name in BASELINES.items() if flag in flags), "other")
    return FOLDER / f"baseline-{name}.json"


class SlowerError(Exception):
    """A case is slower than the baseline allows."""


class Race:
    """Times of cases and of their yardsticks; each case can be measured several times.

    Parameters
    ----------
    cases : sequence of Case
    clock : callable
        Returns seconds.
    repeats : int
        Number of samples of each case and of its yardstick in one round.
    """

    def __init__(self, cases: Sequence[Case], clock: Clock, repeats: int = REPEATS) -> None:
        self.cases = {case.name: case for case in cases}
        self._clock, self._repeats = clock, repeats
        self._works: dict[str, Work] = {}
        self.samples = {case.name: Samples() for case in cases}

    def run(self, names: Sequence[str] | None = None) -> None:
        """Measure the cases of the given names; new samples are added to earlier ones."""
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
        """Return each case compared with its baseline."""
        return [
            Verdict(name, case.yardstick, baseline[name], self.samples[name].ratio, limit)
            for name, case in self.cases.items()
        ]


def compare(race: Race, baseline: dict[str, float], limit: float = LIMIT) -> list[Verdict]:
    """Measure all cases, measure those above the limit again, and return the verdicts."""
    race.run()
    for _ in range(SECOND_LOOKS):
        verdicts = race.verdicts(baseline, limit)
        slow_names = [verdict.name for verdict in verdicts if verdict.is_too_slow]
        if not slow_names:
            break
        race.run(slow_names)
    return race.verdicts(baseline, limit)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument(
        "--baseline", type=Path, help="JSON file (default: that of this processor's instructions)"
    )
    parser.add_argument("--update", action="store_true", help="write the baseline")
    parser.add_argument(
        "--only",
        default="",
        metavar="TEXT",
        help="with --update: write only cases whose names contain TEXT; the others stay",
    )
    parser.add_argument(
        "--limit",
        type=float,
        default=LIMIT,
        help="ratio to the baseline from which on a case is too slow",
    )


def run(arguments: argparse.Namespace) -> str:
    """Check the cases, or write the baseline, and return a summary.

    On a processor with other vector instructions than the baseline's, the network and its yardstick
    become faster by different factors; then the table is shown, but no case fails.

    Raises
    ------
    SlowerError
        If a case is too slow; its message holds the table.
    ValueError
        If an argument is out of range, or if ASE_STUDENT_ENGINE_ISA restricts the engine's
        instructions and no baseline is given.
    FileNotFoundError
        If there is no baseline to compare with or to add to.
    """
    if not arguments.limit > 1.0:
        raise ValueError(f"the limit must be above 1; given {arguments.limit:g}.")
    flags = cpu_flags()
    path: Path = arguments.baseline or baseline_file(flags)
    if arguments.baseline is None and "ASE_STUDENT_ENGINE_ISA" in os.environ:
        raise ValueError(
            f"ASE_STUDENT_ENGINE_ISA is set, but '{path}' was measured with all instructions of "
            "the processor; unset it, or give the file with --baseline."
        )
    if arguments.update:
        selected = [case for case in CASES if arguments.only in case.name]
        if not selected:
            raise ValueError(f"no case has '{arguments.only}' in its name.")
        if arguments.only and not path.exists():
            raise FileNotFoundError(
                f"there is no '{path}' with the other cases; write all cases, without --only."
            )
        return _update(Race(selected, undisturbed_clock()), path, keep_others=bool(arguments.only))
    if arguments.only:
        raise ValueError("--only needs --update: it selects the cases to write.")
    if arguments.baseline is None and not path.exists():
        return (
            f"not judged: there is no '{path}' for this processor; write it with "
            "python benchmarks check --update."
        )
    baseline = read_baseline(path, [case.name for case in CASES])
    race = Race(CASES, undisturbed_clock())
    if flags != baseline.cpu_flags:
        race.run()
        text = table(race.verdicts(baseline.ratios, arguments.limit))
        return (
            f"{text}\nnot judged: this processor has {' '.join(flags) or 'nothing'}, "
            f"the processor of '{path}' had {' '.join(baseline.cpu_flags) or 'nothing'}."
        )
    is_other = baseline.cpu != (hardware()["cpu"] or "")
    limit = arguments.limit * (OTHER_PROCESSOR if is_other else 1.0)
    verdicts = compare(race, baseline.ratios, limit)
    text = table(verdicts)
    n_slow = sum(verdict.is_too_slow for verdict in verdicts)
    if n_slow:
        raise SlowerError(
            f"{text}\n{n_slow} of {len(verdicts)} cases became slower than '{path}' allows; "
            "if this is intended, run make bench-check ARGS=--update."
        )
    return f"{text}\nno case became {limit:g} times slower than in '{path}'."


def _update(race: Race, path: Path, keep_others: bool = False) -> str:
    for _ in range(1 + SECOND_LOOKS):
        race.run()
    ratios = {name: samples.ratio for name, samples in race.samples.items()}
    for name, ratio in ratios.items():
        # With many other processes, the clock may subtract too much time.
        if not 0.0 < ratio < float("inf"):
            raise ValueError(
                f"nothing was written: the machine is too busy to time '{name}'; measure again "
                "when it is quiet."
            )
    yardsticks = {name: case.yardstick for name, case in race.cases.items()}
    seconds = [min(samples.case) for samples in race.samples.values()]
    write_baseline(path, ratios, yardsticks, seconds, keep_others=keep_others)
    return f"wrote '{path}', {len(ratios)} cases"
