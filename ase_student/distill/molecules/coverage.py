"""Choose molecules so that no kind of atom is rare."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ase_student.distill.molecules.species import Species, import_rdkit

Kind = tuple[str, ...]


@dataclass(frozen=True)
class Coverage:
    """How many molecules are to have each kind of atom.

    A kind is an element with the elements that it is bonded to. So thousands of hydrocarbons do not
    outvote the few molecules that show how phosphorus and chlorine bind.

    Attributes
    ----------
    count : int
    oversample : bool
        Where fewer molecules than `count` have a kind, sample them so many times more.
    by_degree : bool
        Tell elements apart by how many atoms they are bonded to themselves: N(OH)2 from NO2.
    """

    count: int
    oversample: bool = False
    by_degree: bool = False

    def choose(self, species: Iterable[Species]) -> list[tuple[Species, int]]:
        """Return those species that a rare kind needs, and how many times each is to be sampled.

        One is taken if any of its kinds is in fewer than `count` of those taken before. With
        `oversample` and its rarest kind in n of all that are taken, it is to be sampled
        ``ceil(count / n)`` times.

        Parameters
        ----------
        species : iterable of Species
            In the order in which they are taken.
        """
        seen: Counter[Kind] = Counter()
        taken = []
        for one in species:
            kinds = self._kinds_of_atoms(one.smiles)
            if any(seen[kind] < self.count for kind in kinds):
                seen.update(kinds)
                taken.append((one, kinds))
        if not self.oversample:
            return [(one, 1) for one, _ in taken]
        return [
            (one, math.ceil(self.count / min(seen[kind] for kind in kinds))) for one, kinds in taken
        ]

    def _kinds_of_atoms(self, smiles: str) -> set[Kind]:
        """Return the kinds of all atoms but hydrogen."""
        chem, _ = import_rdkit()

        def name(atom: Any) -> str:
            return f"{atom.GetSymbol()}{atom.GetTotalDegree() if self.by_degree else ''}"

        return {
            (
                atom.GetSymbol(),
                *sorted(name(other) for other in atom.GetNeighbors()),
                *["H"] * atom.GetTotalNumHs(),
            )
            for atom in chem.MolFromSmiles(smiles).GetAtoms()
        }
