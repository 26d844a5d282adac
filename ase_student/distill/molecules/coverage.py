"""Selection of molecules so that no kind of atom is rare."""

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
    """Number of molecules that should contain each kind of atom.

    A kind is an element together with the elements that it is bonded to. Thousands of hydrocarbons
    then do not outnumber the few molecules that show how phosphorus and chlorine bind.

    Attributes
    ----------
    count : int
        Wanted number of molecules with each kind.
    oversample : bool
        If fewer molecules than `count` have a kind, sample each of them more often.
    by_degree : bool
        Distinguish the neighbors also by their own number of bonded atoms: N(OH)2 from NO2.
    """

    count: int
    oversample: bool = False
    by_degree: bool = False

    def choose(self, species: Iterable[Species]) -> list[tuple[Species, int]]:
        """Return the species that rare kinds need, and how many times each is to be sampled.

        A species is chosen if any of its kinds is in fewer than `count` species chosen before it.
        With `oversample` it is sampled ``ceil(count / n)`` times, where n is the number of chosen
        species that have its rarest kind.

        Parameters
        ----------
        species : iterable of Species
            Candidates, in the order in which they are considered.
        """
        n_of_kind: Counter[Kind] = Counter()
        chosen = []
        for candidate in species:
            kinds = self._kinds_of_atoms(candidate.smiles)
            if any(n_of_kind[kind] < self.count for kind in kinds):
                n_of_kind.update(kinds)
                chosen.append((candidate, kinds))
        if not self.oversample:
            return [(molecule, 1) for molecule, _ in chosen]
        return [
            (molecule, math.ceil(self.count / min(n_of_kind[kind] for kind in kinds)))
            for molecule, kinds in chosen
        ]

    def _kinds_of_atoms(self, smiles: str) -> set[Kind]:
        """Return the kinds of all atoms other than hydrogen."""
        chem, _ = import_rdkit()

        def name(atom: Any) -> str:
            return f"{atom.GetSymbol()}{atom.GetTotalDegree() if self.by_degree else ''}"

        return {
            (
                atom.GetSymbol(),
                *sorted(name(neighbor) for neighbor in atom.GetNeighbors()),
                *["H"] * atom.GetTotalNumHs(),
            )
            for atom in chem.MolFromSmiles(smiles).GetAtoms()
        }
