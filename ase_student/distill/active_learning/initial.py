"""Structures that a student's own dynamics begins at: none that it is tested on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from ase_student.data.hdf5 import Dataset
from ase_student.data.sources import are_like_use
from ase_student.data.splits import parts_of, split_settings
from ase_student.data.structures import Structures
from ase_student.dynamics.bonds import is_cluster
from ase_student.student import Student

#: Trajectories in one piece of work. What was not finished when a run ends is at most one piece.
PIECE = 20


@dataclass(frozen=True)
class InitialStructures:
    """Structures that trajectories begin at.

    Attributes
    ----------
    structures : list of Atoms
    molecules : list of str
        What each is made of; empty where nobody says.
    """

    structures: list[Atoms]
    molecules: list[str]

    def pieces(self) -> Iterator[tuple[list[int], bool]]:
        """Yield which trajectories are run together, and whether they are of clusters."""
        clusters = np.array(
            [is_cluster(*pair) for pair in zip(self.molecules, self.structures, strict=True)],
            dtype=bool,
        )
        for confined in (False, True):
            members = np.flatnonzero(clusters == confined).tolist()
            for first in range(0, len(members), PIECE):
                yield members[first : first + PIECE], confined


def choose_starts(
    paths: Sequence[Path], students: Sequence[Student], n_starts: int, *, seed: int
) -> InitialStructures:
    """Choose structures that all students were trained on.

    Parameters
    ----------
    paths : sequence of path
        HDF5 files; what belongs to another part of any student's split is left alone, and so are
        diatomics and foreign structures, whose dynamics is no use of a student's.
    students : sequence of Student
    n_starts : int
        How many; structures are taken again where there are fewer.
    seed : int
        Of the choice.

    Raises
    ------
    ValueError
        If no structure is left, one has elements that a student does not know, or a student does
        not say how its data were split.
    """
    trained = [part for path in paths for part in _trained(path, students)]
    n = sum(len(part) for part in trained)
    if n == 0:
        names = ", ".join(path.name for path in paths)
        raise ValueError(f"{names}: no structure that the student was trained on to start from.")
    rng = np.random.default_rng(seed)
    chosen = np.sort(np.resize(rng.permutation(n), n_starts))
    starts = InitialStructures([], [])
    first = 0
    for part in trained:
        for index in chosen[(chosen >= first) & (chosen < first + len(part))] - first:
            starts.structures.append(part.atoms(index))
            starts.molecules.append(part.molecules[index] if part.molecules else "")
        first += len(part)
    known = set.intersection(*(set(student.elements) for student in students))
    for atoms in starts.structures:
        if unknown := set(atoms.numbers.tolist()) - known:
            raise ValueError(
                f"a structure to start from has {chemical_symbols[min(unknown)]}, which the "
                "student does not know; start from what it was trained on."
            )
    return starts


def _trained(path: Path, students: Sequence[Student]) -> Iterator[Structures]:
    """Yield what a file holds of the training parts of all students, but what is unlike use."""
    with Dataset(path) as dataset:
        structures = dataset.read_structures()
    is_trained = are_like_use(structures)
    for student in students:
        split = split_settings(student.metadata)
        if split is None:
            raise ValueError(
                "a student to grow must say how its data were split, as those trained by this "
                "package do; this one's metadata hold no training settings."
            )
        parts = parts_of(structures, *split, path=path)
        is_trained &= np.array(parts, dtype=object) == "train"
    yield structures.take(np.flatnonzero(is_trained))
