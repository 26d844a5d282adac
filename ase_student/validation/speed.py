"""Time of an evaluation by the students and by the teacher, on the same structures."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms

from ase_student.data.readers.base import Frame, StructureReader
from ase_student.potentials.base import Evaluation, Potential
from ase_student.validation.extras import progress_bar

#: About how many atoms the timed structures have together, and their largest number.
N_ATOMS = 1000
N_STRUCTURES = 32
#: The first round is a warm-up and is not counted; the result is the median of the others.
N_ROUNDS = 4


def sample_of(frames: StructureReader, indices: Sequence[int], seed: int) -> list[Frame]:
    """Return structures to be timed, drawn at random."""
    order = np.random.default_rng(seed).permutation(len(indices))[:N_STRUCTURES]
    chosen: list[Frame] = []
    n_atoms = 0
    for place in order.tolist():
        if n_atoms >= N_ATOMS:
            break
        frame = frames.read([indices[place]])[0]
        if isinstance(frame, Frame):
            chosen.append(frame)
            n_atoms += len(frame.atoms)
    return chosen


def timed(
    potentials: Mapping[str, Potential], structures: Sequence[Atoms]
) -> dict[str, dict[str, Any]]:
    """Return how long each potential takes for all structures, by name.

    Potentials take turns, so that a disturbed machine disturbs all of them, and atoms move between
    turns, so that no potential can return cached results.

    Parameters
    ----------
    potentials : mapping of str to Potential
    structures : sequence of Atoms

    Returns
    -------
    dict
        ``microseconds_per_atom`` (median of the rounds), its lowest and highest round, and
        ``n_atoms`` and ``n_structures`` that were timed.
    """
    n_atoms = sum(len(atoms) for atoms in structures)
    seconds: dict[str, list[float]] = {name: [] for name in potentials}
    rng = np.random.default_rng(0)
    with progress_bar(N_ROUNDS * len(potentials), "round", label="speed") as bar:
        for _ in range(N_ROUNDS):
            for name, potential in potentials.items():
                moved = [atoms.copy() for atoms in structures]
                for atoms in moved:
                    atoms.positions += 1e-4 * rng.standard_normal(atoms.positions.shape)
                start = time.perf_counter()
                potential.evaluate(moved)
                seconds[name].append(time.perf_counter() - start)
                bar.update()
    result = {}
    for name, rounds in seconds.items():
        per_atom = 1e6 * np.array(rounds[1:]) / n_atoms
        result[name] = {
            "microseconds_per_atom": float(np.median(per_atom)),
            "lowest": float(per_atom.min()),
            "highest": float(per_atom.max()),
            "n_atoms": n_atoms,
            "n_structures": len(structures),
        }
    return result


def force_rmse(potential: Potential, frames: Sequence[Frame]) -> float | None:
    """Return the root mean square error of a potential's forces against labels, eV/Å.

    For the teacher that made the labels, this is near zero. None if no forces can be compared.
    """
    answers = potential.evaluate([frame.atoms for frame in frames])
    errors = [
        (answer.forces - frame.forces).ravel()
        for frame, answer in zip(frames, answers, strict=True)
        if isinstance(answer, Evaluation) and frame.forces is not None
    ]
    return float(np.sqrt(np.mean(np.concatenate(errors) ** 2))) if errors else None
