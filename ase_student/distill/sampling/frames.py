"""Sampled structures, counts of dropped structures by reason, and a search for duplicates."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from ase_student.data.structures import Structures
from ase_student.distill.molecules.species import UnsuitableError
from ase_student.dynamics import bonds

#: Two structures are duplicates if no distance between atoms differs by more than this, Å.
TOLERANCE = 1e-3


@dataclass
class SampledFrames:
    """Structures with their names, and counts of what was left out."""

    structures: list[Atoms] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    molecules: list[str] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)

    def add(self, atoms: Atoms, molecule: str, source: str) -> None:
        """Keep a structure, unless it clashes or is not finite."""
        if not np.isfinite(atoms.positions).all():
            self.dropped[f"diverged ({source})"] += 1
        elif bonds.clashes(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc):
            self.dropped[f"clash ({source})"] += 1
        else:
            self.structures.append(atoms)
            self.sources.append(source)
            self.molecules.append(molecule)

    @contextmanager
    def counting_failures(self, subject: str) -> Iterator[None]:
        """Count a molecule that cannot be sampled by the reason; the block then ends early."""
        try:
            yield
        except UnsuitableError as reason:
            self.dropped[f"{subject}: {reason}"] += 1
        except RuntimeError:
            # A violated invariant inside RDKit: only this molecule cannot be sampled.
            self.dropped[f"{subject}: RDKit gave up"] += 1

    def extend(self, frames: SampledFrames) -> None:
        """Add the frames and counts of another collection."""
        self.structures += frames.structures
        self.sources += frames.sources
        self.molecules += frames.molecules
        self.dropped += frames.dropped

    def without_duplicates(self) -> SampledFrames:
        """Return the frames without duplicates of earlier frames, which are counted."""
        repeated = duplicates(self.structures)
        unique = [i for i in range(len(self.structures)) if i not in repeated]
        dropped = self.dropped + Counter(f"duplicate ({self.sources[i]})" for i in repeated)
        return SampledFrames(
            [self.structures[i] for i in unique],
            [self.sources[i] for i in unique],
            [self.molecules[i] for i in unique],
            dropped,
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the frames as arrays, for a store of chunks."""
        columns = Structures.from_atoms(self.structures)
        return {
            "numbers": columns.numbers,
            "splits": columns.splits,
            "positions": columns.positions,
            "cells": columns.cells,
            "pbc": columns.pbc,
            "sources": np.array(self.sources, dtype=str),
            "molecules": np.array(self.molecules, dtype=str),
            "dropped": np.array(json.dumps(self.dropped)),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> SampledFrames:
        """Return the frames from the arrays that `arrays` returns."""
        columns = Structures(
            numbers=arrays["numbers"],
            splits=arrays["splits"],
            positions=arrays["positions"],
            cells=arrays["cells"],
            pbc=arrays["pbc"],
        )
        return cls(
            [columns.atoms(i) for i in range(len(columns))],
            arrays["sources"].tolist(),
            arrays["molecules"].tolist(),
            Counter(json.loads(str(arrays["dropped"]))),
        )


def duplicates(structures: Sequence[Atoms]) -> set[int]:
    """Return the indices of structures that are duplicates of earlier structures.

    Molecules are compared by the distances between their atoms, in the order of the atoms, so that
    a rotated or mirrored copy is a duplicate; periodic structures by their cells and by positions
    relative to the first atom.
    """
    indices_by_kind = defaultdict(list)
    for i, atoms in enumerate(structures):
        indices_by_kind[atoms.numbers.tobytes(), atoms.pbc.tobytes()].append(i)
    repeated: set[int] = set()
    for indices in indices_by_kind.values():
        if len(indices) > 1:
            repeated |= _duplicates_of_one_kind(structures, indices)
    return repeated


def _duplicates_of_one_kind(structures: Sequence[Atoms], indices: list[int]) -> set[int]:
    # A number that is equal for duplicates leaves few pairs to compare completely.
    hints = np.array([_hint(structures[i]) for i in indices])
    order = np.argsort(hints, kind="stable")
    repeated = set()
    for k, first in enumerate(order):
        for second in order[k + 1 :]:
            if hints[second] - hints[first] > TOLERANCE:
                break
            pair = sorted((indices[first], indices[second]))
            if pair[1] not in repeated and _are_same(structures[pair[0]], structures[pair[1]]):
                repeated.add(pair[1])
    return repeated


def _hint(atoms: Atoms) -> float:
    """Return a number that is equal for duplicates: mean length of cell vectors or distances, Å."""
    if atoms.pbc.any():
        return float(np.linalg.norm(atoms.cell.array, axis=1).mean())
    return float(_distances(atoms).mean()) if len(atoms) > 1 else 0.0


def _are_same(first: Atoms, second: Atoms) -> bool:
    if not first.pbc.any():
        return bool((np.abs(_distances(first) - _distances(second)) < TOLERANCE).all())
    if np.abs(first.cell.array - second.cell.array).max() > TOLERANCE:
        return False
    shifts = (first.positions - first.positions[0]) - (second.positions - second.positions[0])
    cell = first.cell.complete().array
    fractions = np.linalg.solve(cell.T, shifts.T).T
    fractions -= np.where(first.pbc, np.round(fractions), 0.0)
    return bool((np.linalg.norm(fractions @ cell, axis=1) < TOLERANCE).all())


def _distances(atoms: Atoms) -> NDArray[np.float64]:
    i, j = np.triu_indices(len(atoms), 1)
    distances: NDArray[np.float64] = np.linalg.norm(atoms.positions[i] - atoms.positions[j], axis=1)
    return distances
