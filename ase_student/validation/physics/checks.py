"""What a check of physics is given, and what it says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ase import Atoms

from ase_student.potentials.base import Evaluation, Potential, Refusal


@dataclass(frozen=True)
class Check:
    """The outcome of a check.

    Attributes
    ----------
    name : str
    passed : bool or None
        None if there is nothing to judge by, or the check does not apply.
    value, limit : float or None
        The largest deviation that was found, and the largest that is allowed.
    unit : str
    detail : str
        Where the largest deviation is, or why there is none.
    curves : dict
        What can be plotted, JSON only.
    """

    name: str
    passed: bool | None
    value: float | None = None
    limit: float | None = None
    unit: str = ""
    detail: str = ""
    curves: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Subject:
    """The student that is checked, and on what.

    Attributes
    ----------
    potential : Potential
        As it was asked for.
    precise : Potential
        The same in float64; where that cannot be had, the same again.
    is_precise : bool
        Whether `precise` is in float64.
    cutoff : float, Å
    elements : tuple of int
        Whose pairs are looked at: those that the data hold.
    structures : dict of str to Atoms
        For symmetries and derivatives.
    molecules : dict of str to Atoms
        Without periodic axes, for dynamics, vibrations and torsions.
    """

    potential: Potential
    precise: Potential
    is_precise: bool
    cutoff: float
    elements: tuple[int, ...]
    structures: dict[str, Atoms]
    molecules: dict[str, Atoms]


class RefusedError(Exception):
    """A potential said nothing where a check needs an answer."""


def ask(potential: Potential, structures: Sequence[Atoms]) -> list[Evaluation]:
    """Return one answer for each structure.

    Raises
    ------
    RefusedError
        If the potential refuses one of them.
    """
    answers = potential.evaluate(structures)
    for answer in answers:
        if isinstance(answer, Refusal):
            raise RefusedError(answer.reason)
    return [answer for answer in answers if isinstance(answer, Evaluation)]


def judged(
    name: str,
    deviations: dict[str, float],
    limit: float,
    *,
    unit: str,
    curves: dict[str, Any] | None = None,
) -> Check:
    """Return a check that passes if no deviation is above the limit.

    Parameters
    ----------
    name : str
    deviations : dict of str to float
        By where they were found.
    limit : float
    unit : str
    curves : dict, optional
    """
    if not deviations:
        return Check(name, None, None, limit, unit, "nothing here to check it on")
    # NaN is above every limit.
    where = max(deviations, key=lambda one: (deviations[one] != deviations[one], deviations[one]))
    value = float(deviations[where])
    return Check(name, value <= limit, value, limit, unit, f"largest for {where}", curves or {})
