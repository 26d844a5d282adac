"""What an experiment is: it measures one potential, and compares what two of them gave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ase import units

from ase_student.potentials.base import Potential

#: A kilocalorie per mole in eV.
KCAL = units.kcal / units.mol

#: What an experiment measures of one potential; JSON only.
Measured = dict[str, Any]


@dataclass(frozen=True)
class Figure:
    """One number that an experiment comes down to.

    Attributes
    ----------
    name : str
    value : float or None
        None if it cannot be told.
    unit : str
    against : str
        What it is compared with: 'teacher', a method, or 'experiment'; empty if with nothing.
    n : int
        Over how many values it is a mean.
    detail : str
        Where the largest deviation is.
    """

    name: str
    value: float | None
    unit: str
    against: str
    n: int = 0
    detail: str = ""


@dataclass(frozen=True)
class Experiment:
    """One experiment.

    Attributes
    ----------
    name : str
        Names its files and its entry in the results.
    title : str
        Heading in the report.
    version : int
        Goes up whenever the same potential would give other results.
    measure : callable
        Takes a potential and returns what it measured.
    compare : callable
        Takes what a potential and the teacher measured, the teacher's None if it is unknown, and
        returns figures.
    """

    name: str
    title: str
    version: int
    measure: Callable[[Potential], Measured]
    compare: Callable[[Measured, Measured | None], list[Figure]]


def mean_absolute(
    name: str,
    unit: str,
    against: str,
    *,
    differences: dict[str, float],
) -> Figure:
    """Return the mean of absolute differences, naming the largest.

    Parameters
    ----------
    name, unit, against : str
    differences : dict of str to float
        By what they are of.
    """
    if not differences:
        return Figure(name, None, unit, against, 0, "nothing to compare")
    worst = max(differences, key=lambda key: abs(differences[key]))
    mean = sum(abs(value) for value in differences.values()) / len(differences)
    detail = f"largest for {worst}: {differences[worst]:+.2f} {unit}"
    return Figure(name, round(mean, 4), unit, against, len(differences), detail)
