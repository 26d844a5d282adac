"""Structures sampled so far: what is kept, what is dropped and why, which are the same."""

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

#: Two structures are the same if no distance between atoms differs by more, Å.
SAME = 1e-3


@dataclass
class SampledFrames:
    """Structures with their names, and counts of what was left out."""

    structures: list[Atoms] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    molecules: list[str] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)

    def add(self, atoms: Atoms, molecule: str, source: str) -> None:
        """Keep a structure, unless it clashes."""
        if not np.isfinite(atoms.positions).all():
            self.dropped[f"diverged ({source})"] += 1
        elif bonds.clashes(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc):
            self.dropped[f"clash ({source})"] += 1
        else:
            self.structures.append(atoms)
            self.sources.append(source)
            self.molecules.append(molecule)

    @contextmanager
    def counting_failures(self, what: str) -> Iterator[None]:
        """Let a molecule that cannot be sampled end the block, and count it by its reason."""
        try:
            yield
        except UnsuitableError as reason:
            self.dropped[f"{what}: {reason}"] += 1
        except RuntimeError:
            # RDKit's violated invariants: nothing is known but that this molecule cannot be done.
            self.dropped[f"{what}: RDKit gave up"] += 1

    def extend(self, other: SampledFrames) -> None:
        """Keep the frames of another piece of work."""
        self.structures += other.structures
        self.sources += other.sources
        self.molecules += other.molecules
        self.dropped += other.dropped

    def without_duplicates(self) -> SampledFrames:
        """Return the frames without those that are like an earlier one, which are counted."""
        same = duplicates(self.structures)
        kept = [i for i in range(len(self.structures)) if i not in same]
        dropped = self.dropped + Counter(f"duplicate ({self.sources[i]})" for i in same)
        return SampledFrames(
            [self.structures[i] for i in kept],
            [self.sources[i] for i in kept],
            [self.molecules[i] for i in kept],
            dropped,
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the frames as arrays, as a store of chunks keeps them."""
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
        """Return the frames that `arrays` returned as arrays."""
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
    """Return the indices of structures that are like an earlier one.

    Molecules are compared by the distances between their atoms, in the order of the atoms, so that
    a turned or mirrored copy is the same; periodic structures by their cells and by the positions
    relative to the first atom.
    """
    alike = defaultdict(list)
    for i, atoms in enumerate(structures):
        alike[atoms.numbers.tobytes(), atoms.pbc.tobytes()].append(i)
    same: set[int] = set()
    for indices in alike.values():
        if len(indices) > 1:
            same |= _duplicates_of_one_kind(structures, indices)
    return same


def _duplicates_of_one_kind(structures: Sequence[Atoms], indices: list[int]) -> set[int]:
    # One number that all copies share leaves few pairs to compare in full.
    hints = np.array([_hint(structures[i]) for i in indices])
    order = np.argsort(hints, kind="stable")
    same = set()
    for k, one in enumerate(order):
        for other in order[k + 1 :]:
            if hints[other] - hints[one] > SAME:
                break
            pair = sorted((indices[one], indices[other]))
            if pair[1] not in same and _are_same(structures[pair[0]], structures[pair[1]]):
                same.add(pair[1])
    return same


def _hint(atoms: Atoms) -> float:
    if atoms.pbc.any():
        return float(np.linalg.norm(atoms.cell.array, axis=1).mean())
    return float(_distances(atoms).mean()) if len(atoms) > 1 else 0.0


def _are_same(one: Atoms, other: Atoms) -> bool:
    if not one.pbc.any():
        return bool((np.abs(_distances(one) - _distances(other)) < SAME).all())
    if np.abs(one.cell.array - other.cell.array).max() > SAME:
        return False
    shifts = (one.positions - one.positions[0]) - (other.positions - other.positions[0])
    cell = one.cell.complete().array
    fractions = np.linalg.solve(cell.T, shifts.T).T
    fractions -= np.where(one.pbc, np.round(fractions), 0.0)
    return bool((np.linalg.norm(fractions @ cell, axis=1) < SAME).all())


def _distances(atoms: Atoms) -> NDArray[np.float64]:
    i, j = np.triu_indices(len(atoms), 1)
    distances: NDArray[np.float64] = np.linalg.norm(atoms.positions[i] - atoms.positions[j], axis=1)
    return distances
