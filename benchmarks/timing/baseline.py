"""Baseline of a speed check: earlier times of cases relative to their yardsticks."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase_student.files import reason_of, replaced_when_complete
from timing.machine import hardware, versions

REMEDY = "write it with python benchmarks check --update"


@dataclass(frozen=True)
class Verdict:
    """A case compared with its baseline.

    Attributes
    ----------
    name : str
    yardstick : str
    before, now : float
        Time of the baseline and of this run, in units of the yardstick's time.
    limit : float
        Ratio of the two times from which on the case is too slow.
    """

    name: str
    yardstick: str
    before: float
    now: float
    limit: float

    @property
    def slowdown(self) -> float:
        """Time of this run divided by the time of the baseline."""
        return self.now / self.before

    @property
    def is_too_slow(self) -> bool:
        """Whether the slowdown reaches the limit."""
        return self.slowdown >= self.limit


@dataclass(frozen=True)
class Baseline:
    """Content of a baseline file.

    Attributes
    ----------
    ratios : dict of str to float
        Times of cases in units of their yardsticks' times.
    cpu_flags : tuple of str
        Vector instructions of the processor of the measurement.
    cpu : str
        Name of that processor; empty if it is unknown.
    """

    ratios: dict[str, float]
    cpu_flags: tuple[str, ...]
    cpu: str = ""


def read_baseline(path: Path, names: Sequence[str]) -> Baseline:
    """Return the baseline in a file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not a baseline, or its cases are not those of `names`.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no baseline '{path}'; {REMEDY}.")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        cases = content["cases"]
        ratios = {str(name): float(entry["ratio"]) for name, entry in cases.items()}
        measured_on = content.get("hardware", {})
        flags, cpu = tuple(measured_on.get("cpu_flags", ())), str(measured_on.get("cpu") or "")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"'{path}' is not a baseline ({reason_of(error)}); {REMEDY}.") from error
    invalid = [name for name, ratio in ratios.items() if not 0.0 < ratio < float("inf")]
    if invalid:
        raise ValueError(f"'{path}': the ratio of '{invalid[0]}' must be positive; {REMEDY}.")
    for name in sorted(set(names) ^ ratios.keys()):
        state = "lacks" if name in names else "has an unknown"
        raise ValueError(f"'{path}' {state} case '{name}'; {REMEDY}.")
    return Baseline(ratios, flags, cpu)


def write_baseline(
    path: Path,
    ratios: Mapping[str, float],
    yardsticks: Mapping[str, str],
    seconds: Sequence[float],
    *,
    keep_others: bool = False,
) -> None:
    """Write ratios of cases, their yardsticks, and, for information, their times in seconds.

    Parameters
    ----------
    path : path
    ratios, yardsticks : mapping
        By the cases' names.
    seconds : sequence of float
        Time of each case, in the same order.
    keep_others : bool
        Whether other cases of an existing file stay, with its hardware and versions. Each new case
        then has an entry for its processor and for the engine's instructions.
    """
    content: dict[str, Any] = {
        "about": "python benchmarks check --update: times with one thread, "
        "in units of the yardstick's",
        "hardware": hardware(),
        "versions": versions(),
        "cases": {
            name: {
                "yardstick": yardsticks[name],
                "ratio": float(f"{ratio:.4g}"),
                "seconds": float(f"{case_seconds:.3g}"),
            }
            for (name, ratio), case_seconds in zip(ratios.items(), seconds, strict=True)
        },
    }
    if keep_others:
        existing = json.loads(path.read_text(encoding="utf-8"))
        measured_on = {
            "cpu": content["hardware"]["cpu"],
            "engine_isa": os.environ.get("ASE_STUDENT_ENGINE_ISA", "best"),
        }
        new_cases = {name: {**case, **measured_on} for name, case in content["cases"].items()}
        content = {**existing, "cases": {**existing["cases"], **new_cases}}
    with replaced_when_complete(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def table(verdicts: Sequence[Verdict]) -> str:
    """Return verdicts as aligned text, the largest slowdown first."""
    width = max(len(verdict.name) for verdict in verdicts)
    lines = [f"{'case':{width}}  {'baseline':>9}  {'now':>9}  {'slower':>7}"]
    for verdict in sorted(verdicts, key=lambda verdict: -verdict.slowdown):
        mark = f"  too slow: {verdict.limit:g}x is allowed" if verdict.is_too_slow else ""
        lines.append(
            f"{verdict.name:{width}}  {verdict.before:9.3g}  {verdict.now:9.3g}  "
            f"{verdict.slowdown:6.2f}x{mark}"
        )
    return "\n".join(lines)
