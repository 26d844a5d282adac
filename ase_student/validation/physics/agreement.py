"""Check that every backend computes the same function."""

from __future__ import annotations

import warnings
from dataclasses import replace
from itertools import combinations

from ase_student.backends import BACKENDS
from ase_student.potentials.base import Evaluation, StudentPotential
from ase_student.testing import TOLERANCES, force_difference
from ase_student.validation.models import ModelSpec
from ase_student.validation.physics.checks import Check, Subject, ask, judged


def check_backends(subject: Subject, spec: ModelSpec) -> list[Check]:
    """Return the largest differences of backends in float32 from float64, and from each other.

    Forces are compared by :func:`ase_student.testing.force_difference`.
    """
    if not subject.is_precise:
        reason = "this file runs in one backend and precision only"
        return [Check("backends against float64", None, detail=reason)]
    structures = list(subject.structures.values())
    answers = {"float64": ask(subject.precise, structures)}
    for backend in BACKENDS:
        backend_spec = replace(spec, backend=backend, device="cpu", dtype="float32")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                potential = StudentPotential(backend_spec.open())
        except ImportError:
            continue
        answers[backend] = ask(potential, structures)
    names = list(subject.structures)
    return [
        *_compared("backends against float64", names, answers, with_float64=True),
        *_compared("backends against each other", names, answers, with_float64=False),
    ]


def _compared(
    title: str, names: list[str], answers: dict[str, list[Evaluation]], with_float64: bool
) -> list[Check]:
    """Return the largest differences between pairs of backends."""
    energies: dict[str, float] = {}
    forces: dict[str, float] = {}
    for first, second in combinations(answers, 2):
        if (first == "float64") != with_float64:
            continue
        for name, expected, predicted in zip(names, answers[first], answers[second], strict=True):
            place = f"{name}, {second}" if with_float64 else f"{name}, {first} and {second}"
            energies[place] = abs(predicted.energy - expected.energy) / len(expected.forces)
            forces[place] = force_difference(predicted.forces, expected.forces)
    # Two backends may each differ from float64 by the tolerance, in opposite directions.
    factor = 1.0 if with_float64 else 2.0
    return [
        judged(
            f"{title}, energy",
            energies,
            factor * TOLERANCES.backend_energy_per_atom,
            unit="eV/atom",
        ),
        judged(f"{title}, forces", forces, factor * TOLERANCES.backend_forces, unit="eV/Å"),
    ]
