"""Results of a student on one piece of a file, reduced to sums and a row per structure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_student.data.readers.base import Frame, LeftOut
from ase_student.potentials.base import Evaluation
from ase_student.validation.accuracy import sums
from ase_student.validation.accuracy.bootstrap import draws

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

N_ELEMENTS = 119
#: Number of atoms with the largest force errors that are kept.
N_WORST_ATOMS = 20
#: Edges of the plotted histograms, eV/Å: force components on a scale that is linear below 1 and
#: logarithmic above, and absolute errors of components on a logarithmic scale.
PARITY_EDGES = np.sinh(np.linspace(-np.arcsinh(300.0), np.arcsinh(300.0), 201))
ERROR_EDGES = np.logspace(-5.0, 3.0, 121)


@dataclass(frozen=True)
class PassChunk:
    """The results of one piece.

    Attributes
    ----------
    indices, sizes : (n,) int64
        Index in the file and number of atoms of each structure.
    sources : (n,) str
    counts : (n, 119) int32
        Number of atoms of each element in each structure.
    energies : (n, 2) float64, eV
        The teacher's and the student's; NaN where the teacher's is missing.
    forces : (n, n_columns) float64
        Sums over atoms (:mod:`ase_student.validation.accuracy.sums`); zero where there are no
        forces.
    stress : (n, 3) float64
        Number of components, and sums of their absolute and squared errors.
    elements, magnitudes : (1 + N_DRAWS, n_groups, n_columns) float64
        Sums over atoms by element and by the teacher's force, for every draw of the bootstrap.
    parity : (200, 200) int64
        Histogram of the teacher's and the student's force components.
    errors : (120,) int64
        Histogram of absolute errors of force components.
    worst_atoms : (k, 3) float64
        Structure, atom and norm of the force error, eV/Å.
    left_out : (m, 2) int64
        Index of each structure that was not used, and 1 if it is invalid, else 0.
    reasons : (m,) str
        Why each of them was not used.
    seconds : (1,) float64
        Time of the student's evaluation.
    """

    indices: Integers
    sizes: Integers
    sources: NDArray[np.str_]
    counts: NDArray[np.int32]
    energies: Floats
    forces: Floats
    stress: Floats
    elements: Floats
    magnitudes: Floats
    parity: Integers
    errors: Integers
    worst_atoms: Floats
    left_out: Integers
    reasons: NDArray[np.str_]
    seconds: Floats

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the piece as arrays by name, as a :class:`ChunkStore` stores them."""
        return {column.name: getattr(self, column.name) for column in fields(self)}


def reduce(
    frames: Sequence[Frame],
    answers: Sequence[Evaluation],
    left_out: Sequence[LeftOut],
    *,
    seconds: float,
    seed: int,
    number: int,
) -> PassChunk:
    """Return the results of a piece.

    Parameters
    ----------
    frames : sequence of Frame
    answers : sequence of Evaluation
        The student's prediction for each frame.
    left_out : sequence of LeftOut
    seconds : float
        Time of the student's evaluation.
    seed, number : int
        Seed of the bootstrap, and number of the piece.
    """
    weights = draws(seed, number, len(frames))
    counts = np.zeros((len(frames), N_ELEMENTS), dtype=np.int32)
    for row, frame in zip(counts, frames, strict=True):
        row[:] = np.bincount(frame.atoms.numbers, minlength=N_ELEMENTS)
    return PassChunk(
        indices=np.array([frame.index for frame in frames], dtype=np.int64),
        sizes=np.array([len(frame.atoms) for frame in frames], dtype=np.int64),
        sources=np.array([frame.source for frame in frames], dtype=np.str_),
        counts=counts,
        energies=np.array(
            [
                (np.nan if frame.energy is None else frame.energy, answer.energy)
                for frame, answer in zip(frames, answers, strict=True)
            ]
        ).reshape(-1, 2),
        stress=np.array(
            [_stress(frame, answer) for frame, answer in zip(frames, answers, strict=True)]
        ).reshape(-1, 3),
        left_out=np.array(
            [(structure.index, structure.invalid) for structure in left_out], dtype=np.int64
        ).reshape(-1, 2),
        reasons=np.array([structure.reason for structure in left_out], dtype=np.str_),
        seconds=np.array([seconds]),
        **_forces(frames, answers, weights),
    )


def _stress(frame: Frame, answer: Evaluation) -> tuple[float, float, float]:
    if frame.stress is None or answer.stress is None:
        return 0.0, 0.0, 0.0
    errors = np.abs(answer.stress - frame.stress)
    return 6.0, float(errors.sum()), float((errors**2).sum())


def _forces(
    frames: Sequence[Frame], answers: Sequence[Evaluation], weights: Floats
) -> dict[str, Any]:
    """Return the parts of a piece that follow from its forces."""
    rows = [row for row, frame in enumerate(frames) if frame.forces is not None]
    truth = np.concatenate([np.zeros((0, 3)), *(_known(frames[row].forces) for row in rows)])
    predicted = np.concatenate([np.zeros((0, 3)), *(answers[row].forces for row in rows)])
    numbers = np.concatenate([np.zeros(0, int), *(frames[row].atoms.numbers for row in rows)])
    sizes = np.array([len(frames[row].atoms) for row in rows], dtype=np.int64)
    atoms = sums.of_atoms(truth, predicted)
    of_structures = np.zeros((len(frames), len(sums.COLUMNS)))
    if rows:
        of_structures[rows] = sums.by_structure(atoms, sizes)
    norms = np.linalg.norm(truth, axis=1)
    groups = sums.group_of(norms, sums.MAGNITUDES)
    weights = weights[:, rows]
    errors = np.linalg.norm(predicted - truth, axis=1)
    worst = np.argsort(-errors, kind="stable")[:N_WORST_ATOMS]
    owners = np.repeat(np.array(rows, dtype=np.int64), sizes)
    within = np.arange(len(truth)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    indices = np.array([frame.index for frame in frames], dtype=np.int64)
    last = PARITY_EDGES[-1] * (1.0 - 1e-12)
    return {
        "forces": of_structures,
        "elements": sums.by_group(atoms, sizes, numbers, n_groups=N_ELEMENTS, weights=weights),
        "magnitudes": sums.by_group(
            atoms, sizes, groups, n_groups=len(sums.MAGNITUDES), weights=weights
        ),
        "parity": np.histogram2d(
            np.clip(truth.ravel(), -last, last),
            np.clip(predicted.ravel(), -last, last),
            bins=[PARITY_EDGES, PARITY_EDGES],
        )[0].astype(np.int64),
        "errors": np.histogram(
            np.clip(np.abs(predicted - truth).ravel(), ERROR_EDGES[0], ERROR_EDGES[-1] * 0.999),
            bins=ERROR_EDGES,
        )[0].astype(np.int64),
        "worst_atoms": np.stack([indices[owners[worst]], within[worst], errors[worst]], axis=1),
    }


def _known(forces: Floats | None) -> Floats:
    assert forces is not None
    return forces
