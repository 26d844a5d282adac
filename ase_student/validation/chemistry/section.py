"""Chemistry section of a validation: students compared with their teacher and GFN2-xTB."""

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

#: Folder in the output of a validation that keeps completed experiments.
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
        Teacher to measure; if None, the stored results of each student's teacher are used.
    folder : path
        Output folder of the validation.
    only : collection of str
        Names of the experiments without dynamics that are run; empty for all.
    liquid : float, ps
        Length of each simulation of water; 0 leaves them out.
    """
    names = {experiment.name for experiment in EXPERIMENTS}
    left_out = names.difference(only) if only else set()
    experiments = tuple(
        experiment
        for experiment in experiments_with_liquid(liquid)
        if experiment.name not in left_out
    )
    references = known_references(experiments)
    if teacher is not None:
        references = {
            **references,
            teacher.name: _measured_now(teacher, experiments, folder / FOLDER),
        }
    results_by_weights: dict[str, dict[str, Any]] = {}
    for (spec, calculator), described in zip(students, document["students"], strict=True):
        # As with physics, the first of a student's backends is enough.
        key = calculator.info.weights_sha256
        if key not in results_by_weights:
            teacher_name = teacher.name if teacher is not None else _teacher_of(calculator)
            results_by_weights[key] = _of_student(
                spec, calculator, references.get(teacher_name), experiments, folder / FOLDER
            )
        described["chemistry"] = results_by_weights[key]
    document["chemistry"] = {
        "references": _described(
            references, [results["teacher"] for results in results_by_weights.values()], experiments
        )
    }


def _described(
    references: dict[str, Reference], teachers: list[str | None], experiments: Sequence[Experiment]
) -> list[dict[str, Any]]:
    """Return the results of teachers and other methods, JSON types only, teachers last.

    Other methods are compared with the first student's teacher.
    """
    first_teacher = None if teachers[0] is None else references[teachers[0]].measured
    described = [
        {
            "name": reference.name,
            "settings": reference.settings,
            "is_teacher": reference.name in teachers,
            "figures": figures(
                reference.measured,
                None if reference.name in teachers else first_teacher,
                experiments,
            ),
            "measured": reference.measured,
        }
        for reference in references.values()
    ]
    return sorted(described, key=lambda entry: (entry["is_teacher"], entry["name"]))


def _teacher_of(calculator: StudentCalculator) -> str:
    """Return the name of the teacher from the metadata of a student's file."""
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
    student_figures = figures(measured, None if teacher is None else teacher.measured, experiments)
    judged = verdicts(student_figures)
    return {
        "teacher": None if teacher is None else teacher.name,
        "teacher_settings": None if teacher is None else teacher.settings,
        "verdicts": judged,
        "words": words(judged),
        "figures": student_figures,
        "measured": measured,
    }
