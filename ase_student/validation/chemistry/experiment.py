"""Experiments: each measures a potential and compares its results with the teacher's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ase import units

from ase_student.potentials.base import Potential

#: A kilocalorie per mole in eV.
KCAL = units.kcal / units.mol

#: Results of an experiment for one potential; JSON types only.
Measured = dict[str, Any]


@dataclass(frozen=True)
class Figure:
    """A number that summarizes an experiment.

    Attributes
    ----------
    name : str
    value : float or None
        None if it cannot be computed.
    unit : str
    against : str
        What it is compared with: 'teacher', the name of a method, or 'experiment'; empty if with
        nothing.
    n : int
        Number of values that it is a mean of.
    detail : str
        Where the largest deviation is, or why there is no value.
    """

    name: str
    value: float | None
    unit: str
    against: str
    n: int = 0
    detail: str = ""


@dataclass(frozen=True)
class Experiment:
    """An experiment.

    Attributes
    ----------
    name : str
        Name of its files and of its entry in the results.
    title : str
        Heading in the report.
    version : int
        Raised whenever the same potential would give different results.
    measure : callable
        Takes a potential and returns its results.
    compare : callable
        Takes the results of a potential and of the teacher (None if these are unknown), and
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
    """Return the mean of absolute differences, with the largest in the detail.

    Parameters
    ----------
    name, unit, against : str
    differences : dict of str to float
        By the name of the molecule or quantity.
    """
    if not differences:
        return Figure(name, None, unit, against, 0, "nothing to compare")
    worst = max(differences, key=lambda key: abs(differences[key]))
    mean = sum(abs(value) for value in differences.values()) / len(differences)
    detail = f"largest for {worst}: {differences[worst]:+.2f} {unit}"
    return Figure(name, round(mean, 4), unit, against, len(differences), detail)
