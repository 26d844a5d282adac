"""The chemistry section of a validation: students beside their teacher and GFN2-xTB."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from ase_student.calculator import StudentCalculator
from ase_student.potentials.base import Potential, as_potential
from ase_student.validation.chemistry.experiment import Experiment
from ase_student.validation.chemistry.references import Reference, known_references
from ase_student.validation.chemistry.run import (
    EXPERIMENTS,
    experiments_with_liquid,
    figures,
    measure,
)
from ase_student.validation.chemistry.verdicts import verdicts, words
from ase_student.validation.models import ModelSpec

#: Folder below the output of a validation that keeps what is complete.
FOLDER = "chemistry"


def add_chemistry(
    document: dict[str, Any],
    students: Sequence[tuple[ModelSpec, StudentCalculator]],
    teacher: Any,
    *,
    folder: Path,
    only: Collection[str] = (),
    liquid: float = 0.0,
) -> None:
    """Add ``chemistry`` to a document of results, and to each of its students.

    Parameters
    ----------
    document : dict
        With an entry in ``students`` for each of `students`.
    students : sequence of (ModelSpec, StudentCalculator)
    teacher : teacher or None
        To be measured; where None, what is kept of each student's teacher is compared with.
    folder : path
        Output of the validation.
    only : collection of str
        Names of the experiments without dynamics that are run; empty for all.
    liquid : float, ps
        Length of dynamics of water.
    """
    names = {one.name for one in EXPERIMENTS}
    left_out = names.difference(only) if only else set()
    experiments = tuple(one for one in experiments_with_liquid(liquid) if one.name not in left_out)
    kept = known_references(experiments)
    if teacher is not None:
        kept = {**kept, teacher.name: _measured_now(teacher, experiments, folder / FOLDER)}
    own: dict[str, dict[str, Any]] = {}
    for (spec, calculator), described in zip(students, document["students"], strict=True):
        # As with physics, the first of a student's backends is enough.
        key = calculator.info.weights_sha256
        if key not in own:
            known = teacher.name if teacher is not None else _teacher_of(calculator)
            own[key] = _of_student(spec, calculator, kept.get(known), experiments, folder / FOLDER)
        described["chemistry"] = own[key]
    document["chemistry"] = {
        "references": _described(kept, [one["teacher"] for one in own.values()], experiments)
    }


def _described(
    kept: dict[str, Reference], teachers: list[str | None], experiments: Sequence[Experiment]
) -> list[dict[str, Any]]:
    """Return what is known of teachers and other methods, JSON only, teachers last.

    Other methods are compared with the first student's teacher.
    """
    first = None if teachers[0] is None else kept[teachers[0]].measured
    found = [
        {
            "name": one.name,
            "settings": one.settings,
            "is_teacher": one.name in teachers,
            "figures": figures(one.measured, None if one.name in teachers else first, experiments),
            "measured": one.measured,
        }
        for one in kept.values()
    ]
    return sorted(found, key=lambda one: (one["is_teacher"], one["name"]))


def _teacher_of(calculator: StudentCalculator) -> str:
    """Return the name of the teacher that a student's file tells of."""
    return str(calculator.info.metadata.get("teacher", ""))


def _measured_now(teacher: Any, experiments: Sequence[Experiment], folder: Path) -> Reference:
    potential: Potential = as_potential(teacher)
    settings = dict(getattr(teacher, "settings", {}))
    measured = measure(
        potential, settings, experiments, folder=folder, label=f"teacher-{teacher.name}"
    )
    return Reference(teacher.name, settings, measured)


def _of_student(
    spec: ModelSpec,
    calculator: StudentCalculator,
    teacher: Reference | None,
    experiments: Sequence[Experiment],
    folder: Path,
) -> dict[str, Any]:
    info = calculator.info
    identity = {
        "weights_sha256": info.weights_sha256,
        "backend": calculator.backend,
        "dtype": info.dtype,
    }
    measured = measure(
        as_potential(calculator), identity, experiments, folder=folder, label=spec.name
    )
    found = figures(measured, None if teacher is None else teacher.measured, experiments)
    judged = verdicts(found)
    return {
        "teacher": None if teacher is None else teacher.name,
        "teacher_settings": None if teacher is None else teacher.settings,
        "verdicts": judged,
        "words": words(judged),
        "figures": found,
        "measured": measured,
    }
