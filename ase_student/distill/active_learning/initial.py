"""Structures from which a student's own dynamics start, taken only from its training part."""

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

#: Trajectories in a piece of work. If a run ends early, at most one piece is lost.
PIECE = 20


@dataclass(frozen=True)
class InitialStructures:
    """Structures from which trajectories start.

    Attributes
    ----------
    structures : list of Atoms
    molecules : list of str
        SMILES of the molecules of each structure, joined by dots; empty if not known.
    """

    structures: list[Atoms]
    molecules: list[str]

    def pieces(self) -> Iterator[tuple[list[int], bool]]:
        """Yield the trajectories that are run together, and whether they are of clusters."""
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
        HDF5 files. Structures of another part of any student's split are left out, and so are
        diatomics and foreign structures, because students are not used for their dynamics.
    students : sequence of Student
    n_starts : int
        Number of structures; if there are fewer, structures are repeated.
    seed : int
        Seed of the choice.

    Raises
    ------
    ValueError
        If no structure is left, if a structure has elements that a student does not know, or if a
        student's metadata do not state how its data were split.
    """
    trained = [structures for path in paths for structures in _training_part(path, students)]
    n = sum(len(structures) for structures in trained)
    if n == 0:
        names = ", ".join(path.name for path in paths)
        raise ValueError(f"{names}: no structure that the student was trained on to start from.")
    rng = np.random.default_rng(seed)
    chosen = np.sort(np.resize(rng.permutation(n), n_starts))
    starts = InitialStructures([], [])
    first = 0
    for structures in trained:
        for index in chosen[(chosen >= first) & (chosen < first + len(structures))] - first:
            starts.structures.append(structures.atoms(index))
            starts.molecules.append(structures.molecules[index] if structures.molecules else "")
        first += len(structures)
    known_elements = set.intersection(*(set(student.elements) for student in students))
    for atoms in starts.structures:
        if unknown := set(atoms.numbers.tolist()) - known_elements:
            raise ValueError(
                f"a structure to start from has {chemical_symbols[min(unknown)]}, which the "
                "student does not know; start from structures that it was trained on."
            )
    return starts


def _training_part(path: Path, students: Sequence[Student]) -> Iterator[Structures]:
    """Yield the structures of a file in the training parts of all students that are like use."""
    with Dataset(path) as dataset:
        structures = dataset.read_structures()
    is_trained = are_like_use(structures)
    for student in students:
        split = split_settings(student.metadata)
        if split is None:
            raise ValueError(
                "the metadata of a student to grow must say how its data were split, as those of "
                "students trained by this package do; this student has no training settings."
            )
        parts = parts_of(structures, *split, path=path)
        is_trained &= np.array(parts, dtype=object) == "train"
    yield structures.take(np.flatnonzero(is_trained))
