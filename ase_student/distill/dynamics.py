"""Molecular dynamics of many structures at once, moved by a student or a teacher."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import InputError
from numpy.typing import NDArray

from ase_student.calculator import StudentCalculator
from ase_student.distill import sampling
from ase_student.distill.sampling import Forces, Positions
from ase_student.distill.teachers import Label, Teacher, load_teacher
from ase_student.files import file_sha256
from ase_student.student import available_students, resolve_model

#: Forces (n_atoms, 3) in eV/Å of each structure; NaN where there are none.
BatchedForces = Callable[[Sequence[Atoms]], list[NDArray[np.float64]]]


def batched_forces(name: str, device: str = "auto", threads: int | None = None) -> BatchedForces:
    """Return a function that gives the forces on many structures in one call.

    Where there are no forces (an element that is not known, atoms on one spot, no convergence) a
    structure gets NaN, whatever the others are.

    Parameters
    ----------
    name : str
        A student by its name or path, or a teacher as ``teachers.load_teacher`` knows it.
    device : str
        Where a student runs, see `StudentCalculator`.
    threads : int, optional
        CPU threads of a student; by default its backend's choice.

    Raises
    ------
    ValueError
        If there is no such student or teacher.
    ImportError
        If what it needs is not installed.
    """
    if _is_student(name):
        return student_forces(_student(name, device, threads))
    return teacher_forces(_teacher(name))


def identity(name: str) -> dict[str, Any]:
    """Return what tells a student or teacher from others of its name.

    Parameters
    ----------
    name : str
        As for :func:`batched_forces`; raises what that raises for a teacher.
    """
    if not _is_student(name):
        return _teacher(name).settings
    return {"sha256": file_sha256(resolve_model(name))}


def _student(name: str, device: str, threads: int | None) -> StudentCalculator:
    """Return a student in the backend that is the fastest for many structures at once."""
    return StudentCalculator(name, device=device, threads=threads, guard="off")


def _is_student(name: str) -> bool:
    return name in available_students() or Path(name).exists()


@lru_cache(maxsize=1)
def _teacher(name: str) -> Teacher:
    try:
        return load_teacher(name)
    except ValueError as error:
        students = ", ".join(f"'{student}'" for student in available_students())
        raise ValueError(
            f"nothing named '{name}' can drive dynamics: it is no student ({students} or a path), "
            f"and {error}"
        ) from error


def student_forces(student: StudentCalculator) -> BatchedForces:
    """Return the forces of a student as a function of many structures."""

    def forces(structures: Sequence[Atoms]) -> list[NDArray[np.float64]]:
        try:
            return [result["forces"] for result in student.calculate_many(structures)]
        except InputError:
            # One of them cannot be computed: halve the list until it stands alone.
            if len(structures) == 1:
                return [np.full((len(structures[0]), 3), np.nan)]
            middle = len(structures) // 2
            return forces(structures[:middle]) + forces(structures[middle:])

    return forces


def teacher_forces(teacher: Teacher) -> BatchedForces:
    """Return the forces of a teacher as a function of many structures."""

    def forces(structures: Sequence[Atoms]) -> list[NDArray[np.float64]]:
        return [
            np.asarray(answer.forces, dtype=np.float64)
            if isinstance(answer, Label)
            else np.full((len(atoms), 3), np.nan)
            for atoms, answer in zip(structures, teacher.label(structures), strict=True)
        ]

    return forces


def relaxed(structures: Sequence[Atoms], forces: BatchedForces, n_steps: int) -> list[Atoms]:
    """Return the structures after some careful steps downhill, see `sampling.descended`.

    Positions are NaN where there are no forces.
    """
    if not structures:
        return []
    joint = _joined(structures, forces, None)
    with np.errstate(all="ignore"):
        positions = sampling.descended(_positions(structures), joint, n_steps)
    return _separated(structures, positions)


def trajectories(
    structures: Sequence[Atoms],
    forces: BatchedForces,
    temperatures: Sequence[float],
    n_steps: int,
    rng: np.random.Generator,
    confined: bool = False,
) -> Iterator[list[Atoms]]:
    """Yield all structures every some steps of Langevin dynamics, for ever.

    They are moved as one system, each at its own temperature, but do not feel each other. One for
    which there are no forces ends: its positions are NaN from then on, and the others go on.

    Parameters
    ----------
    structures : sequence of Atoms
        Where to begin; velocities are drawn for the temperatures. They are not changed.
    forces : callable
    temperatures : sequence of float, K
        One per structure.
    n_steps : int
        Steps of `sampling.TIMESTEP` between what is yielded.
    rng : numpy.random.Generator
    confined : bool
        Whether a soft wall keeps the parts of a cluster together, see `sampling.wall`.

    Yields
    ------
    list of Atoms
        New objects, in the order of `structures`.
    """
    if not structures:
        return
    sizes = [len(atoms) for atoms in structures]
    steps = sampling.langevin(
        np.concatenate([atoms.numbers for atoms in structures]),
        _positions(structures),
        _joined(
            structures,
            forces,
            [sampling.radius_of(atoms.positions) for atoms in structures] if confined else None,
        ),
        np.repeat(np.asarray(temperatures, dtype=np.float64), sizes)[:, None],
        rng,
    )
    while True:
        yield _separated(structures, sampling.after(steps, n_steps))


def _joined(
    structures: Sequence[Atoms], forces: BatchedForces, radii: Sequence[float] | None
) -> Forces:
    """Return the forces on all structures as a function of all their positions."""
    ends = np.cumsum([len(atoms) for atoms in structures])
    working = [Atoms(one.numbers, one.positions, cell=one.cell, pbc=one.pbc) for one in structures]

    def joint(positions: Positions) -> Positions:
        result = np.full_like(positions, np.nan)
        parts = np.split(positions, ends[:-1])
        alive = [i for i, part in enumerate(parts) if np.isfinite(part).all()]
        for i in alive:
            working[i].positions = parts[i]
        answers = forces([working[i] for i in alive]) if alive else []
        for i, answer in zip(alive, answers, strict=True):
            own = slice(ends[i] - len(parts[i]), ends[i])
            result[own] = answer
            if radii is not None:
                result[own] += sampling.wall(parts[i], radii[i])
        return result

    return joint


def _positions(structures: Sequence[Atoms]) -> Positions:
    return np.concatenate([atoms.positions for atoms in structures])


def _separated(structures: Sequence[Atoms], positions: Positions) -> list[Atoms]:
    """Return new structures at these positions; all NaN where any is not finite."""
    separated = []
    ends = np.cumsum([len(atoms) for atoms in structures])
    for atoms, part in zip(structures, np.split(positions, ends[:-1]), strict=True):
        part = part if np.isfinite(part).all() else np.full_like(part, np.nan)
        separated.append(Atoms(atoms.numbers, part, cell=atoms.cell, pbc=atoms.pbc))
    return separated
