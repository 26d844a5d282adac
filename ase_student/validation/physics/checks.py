"""Input and outcome of a check of physics."""

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
        None if there is no limit, or the check does not apply.
    value, limit : float or None
        The largest deviation, and the largest that is allowed.
    unit : str
    detail : str
        Where the largest deviation is, or why there is no value.
    curves : dict
        Data to plot, JSON types only.
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
    """The student that is checked, and the structures that it is checked on.

    Attributes
    ----------
    potential : Potential
        The student in the requested backend and precision.
    precise : Potential
        The same student in float64; if that is not available, the same as `potential`.
    is_precise : bool
        Whether `precise` is in float64.
    cutoff : float, Å
    elements : tuple of int
        Elements of the data, whose pairs are checked.
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
    """A potential refused to evaluate a structure that a check needs."""


def ask(potential: Potential, structures: Sequence[Atoms]) -> list[Evaluation]:
    """Return the evaluation of each structure.

    Raises
    ------
    RefusedError
        If the potential refuses a structure.
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
        By the name of the structure or place.
    limit : float
    unit : str
    curves : dict, optional
    """
    if not deviations:
        return Check(name, None, None, limit, unit, "nothing here to check it on")
    # NaN is above every limit.
    worst = max(
        deviations, key=lambda place: (deviations[place] != deviations[place], deviations[place])
    )
    value = float(deviations[worst])
    return Check(name, value <= limit, value, limit, unit, f"largest for {worst}", curves or {})
