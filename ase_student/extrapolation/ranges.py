"""Record of what training saw: extremes and counts, stored in a student's metadata."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray

from ase_student.extrapolation.environments import Environments, are_nonbonded, environment_keys
from ase_student.files import reason_of

__all__ = ["TrainingRanges", "pair_kinds", "pair_squares", "ranges_of_files"]

N_ELEMENTS = len(chemical_symbols)
#: Å. Distances up to the longest are counted in bins of this width.
BIN_WIDTH = 0.05
LONGEST_COUNTED = 3.5
N_BINS = round(LONGEST_COUNTED / BIN_WIDTH)

Floats = NDArray[np.float64]
Integers = NDArray[np.integer]


class TrainingRanges:
    """What a student's training saw: extremes of its structures, and counts.

    Extremes are plain minima and maxima: a single unusual structure widens them permanently.
    Distances and environments of atoms are counted, so that rare values can be distinguished from
    usual ones.

    Parameters
    ----------
    cutoff : float, Å
        Neighbors are atoms closer than this.

    Attributes
    ----------
    n_structures : int
        Number of structures that were added.
    shortest : (119, 119) float64, Å
        Shortest distance of each pair of elements, by atomic numbers; infinite for elements that
        were never within the cutoff of each other.
    counts : (119, 2) int64
        Smallest and largest number of neighbors of an atom of each element; for an element that did
        not occur, the largest int64 and -1.
    forces : (119, 2) float64, eV/Å
        Smallest and largest magnitude of the force on an atom of each element; (inf, 0) for an
        element that did not occur.
    distances : (119, 119, 70) int64
        Number of pairs of two elements by their distance, in bins of 0.05 Å that start at 0. Each
        pair counts twice if both elements are the same.
    nonbonded : (119, 119, 70) int64
        The same of pairs that are more than two bonds apart, or of different molecules.
    environments : Environments
        What atoms were bonded to.
    """

    def __init__(self, cutoff: float) -> None:
        self.cutoff = float(cutoff)
        self.n_structures = 0
        self.shortest = np.full((N_ELEMENTS, N_ELEMENTS), np.inf)
        self.counts = np.tile(np.array([np.iinfo(np.int64).max, -1]), (N_ELEMENTS, 1))
        self.forces = np.tile([np.inf, 0.0], (N_ELEMENTS, 1))
        self.distances = np.zeros((N_ELEMENTS, N_ELEMENTS, N_BINS), dtype=np.int64)
        self.nonbonded = np.zeros_like(self.distances)
        self.environments = Environments()

    def add(
        self,
        numbers: Integers,
        positions: Floats,
        neighbors: Integers,
        offsets: Floats | None,
        forces: NDArray[np.floating],
    ) -> None:
        """Add a structure.

        Parameters
        ----------
        numbers : (n_atoms,) int
        positions : (n_atoms, 3) float, Å
        neighbors : (n_atoms, n_neighbors) int
            As in :class:`ase_student.neighbors.NeighborMatrix`; pairs beyond the cutoff are
            ignored.
        offsets : (n_atoms, n_neighbors, 3) float, Å, or None
            None for a structure that is not periodic: every entry with an atom's own index is
            padding.
        forces : (n_atoms, 3) float, eV/Å
        """
        squares = pair_squares(positions, neighbors, offsets)
        if offsets is None:
            squares[neighbors == np.arange(len(numbers))[:, None]] = np.inf
        within = squares < self.cutoff**2
        kinds = pair_kinds(numbers, neighbors)[within]
        lengths = np.sqrt(squares[within])
        np.minimum.at(self.shortest.reshape(-1), kinds, lengths)
        bins = (lengths / BIN_WIDTH).astype(np.int64)
        is_short = bins < N_BINS
        kinds, bins = kinds[is_short], bins[is_short]
        np.add.at(self.distances.reshape(-1, N_BINS), (kinds, bins), 1)
        rows, columns = (indices[is_short] for indices in np.nonzero(within))
        is_nonbonded = are_nonbonded(numbers, neighbors, squares, rows=rows, columns=columns)
        places = kinds[is_nonbonded], bins[is_nonbonded]
        np.add.at(self.nonbonded.reshape(-1, N_BINS), places, 1)
        self.environments.add(*environment_keys(numbers, neighbors, squares))
        magnitudes = np.linalg.norm(forces.astype(np.float64), axis=1)
        for extremes, values in ((self.counts, within.sum(axis=1)), (self.forces, magnitudes)):
            np.minimum.at(extremes[:, 0], numbers, values)
            np.maximum.at(extremes[:, 1], numbers, values)
        self.n_structures += 1

    def include(self, other: Self) -> None:
        """Merge another record with the same cutoff.

        Raises
        ------
        ValueError
            If the cutoffs differ: numbers of neighbors cannot be compared.
        """
        if other.cutoff != self.cutoff:
            raise ValueError(
                f"records with cutoffs of {self.cutoff} and {other.cutoff} Å cannot be merged."
            )
        np.minimum(self.shortest, other.shortest, out=self.shortest)
        for own, theirs in ((self.counts, other.counts), (self.forces, other.forces)):
            np.minimum(own[:, 0], theirs[:, 0], out=own[:, 0])
            np.maximum(own[:, 1], theirs[:, 1], out=own[:, 1])
        np.maximum(self.distances, other.distances, out=self.distances)
        np.maximum(self.nonbonded, other.nonbonded, out=self.nonbonded)
        self.environments.include(other.environments)
        # It is not known how many structures are in both records.
        self.n_structures = max(self.n_structures, other.n_structures)

    def as_dict(self) -> dict[str, Any]:
        """Return the record as JSON types, as a student's metadata hold it.

        Returns
        -------
        dict
            ``cutoff`` in Å, ``structures`` (their number), ``shortest_distances`` in Å by pairs
            such as 'H-C', lowest and highest ``neighbors`` and ``forces`` (eV/Å, rounded outwards)
            by element, ``distances`` and ``nonbonded_distances`` (the first bin that is not empty,
            and counts from there on) by pairs, and ``environments``. Pairs and elements that did
            not occur are left out.
        """
        elements = np.flatnonzero(self.counts[:, 1] >= 0).tolist()
        return {
            "cutoff": self.cutoff,
            "structures": self.n_structures,
            "shortest_distances": {
                f"{chemical_symbols[first]}-{chemical_symbols[second]}": round(distance, 4)
                for first in elements
                for second in elements
                if first <= second
                and math.isfinite(distance := float(self.shortest[first, second]))
            },
            "neighbors": {chemical_symbols[z]: self.counts[z].tolist() for z in elements},
            "forces": {chemical_symbols[z]: _rounded_outwards(*self.forces[z]) for z in elements},
            "distances": _counts_by_pair(self.distances),
            "nonbonded_distances": _counts_by_pair(self.nonbonded),
            "environments": self.environments.as_dict(),
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """Return the record of a student's metadata; more structures can be added to it.

        Students from before version 0.2 have no ``distances``, ``nonbonded_distances`` and
        ``environments``.

        Raises
        ------
        ValueError
            If `document` is not such a record.
        """
        try:
            seen = cls(_number(document["cutoff"]))
            seen.n_structures = int(document["structures"])
            for pair, distance in document["shortest_distances"].items():
                z1, z2 = (atomic_numbers[symbol] for symbol in pair.split("-"))
                seen.shortest[z1, z2] = seen.shortest[z2, z1] = _number(distance)
            for name, extremes in (("neighbors", seen.counts), ("forces", seen.forces)):
                for symbol, (low, high) in document[name].items():
                    extremes[atomic_numbers[symbol]] = _number(low), _number(high)
            for name, table in (
                ("distances", seen.distances),
                ("nonbonded_distances", seen.nonbonded),
            ):
                for pair, (first, counts) in document.get(name, {}).items():
                    z1, z2 = (atomic_numbers[symbol] for symbol in pair.split("-"))
                    bins = slice(int(first), int(first) + len(counts))
                    table[z1, z2, bins] = [int(_number(count)) for count in counts]
                    table[z2, z1] = table[z1, z2]
            seen.environments = Environments.from_dict(document.get("environments", {}))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"the record of what training saw is damaged: {reason_of(error)}."
            ) from error
        return seen


def _rounded_outwards(low: float, high: float) -> list[float]:
    """Return numbers rounded outwards to four decimals; those with no more are unchanged."""
    return [math.floor(round(1e4 * low, 6)) / 1e4, math.ceil(round(1e4 * high, 6)) / 1e4]


def _counts_by_pair(table: NDArray[np.int64]) -> dict[str, tuple[int, list[int]]]:
    """Return the counts of pairs of elements, (119, 119, n_bins), without pairs that have none."""
    pairs = np.argwhere(table.any(axis=2)).tolist()
    return {
        f"{chemical_symbols[first]}-{chemical_symbols[second]}": _without_ends(table[first, second])
        for first, second in pairs
        if first <= second
    }


def _without_ends(counts: NDArray[np.int64]) -> tuple[int, list[int]]:
    """Return the first bin that is not empty, and the counts from there to the last one."""
    filled = np.flatnonzero(counts)
    return int(filled[0]), counts[filled[0] : filled[-1] + 1].tolist()


def _number(value: Any) -> float:
    number = float(value)
    if not 0.0 <= number < 1e12:
        raise ValueError(f"{value} is out of range")
    return number


def ranges_of_files(
    paths: Sequence[Path], cutoff: float, seed: int | None = 0, *, split: str = "molecule"
) -> TrainingRanges:
    """Return the record of labeled HDF5 files.

    Diatomics and foreign structures are left out, because they are unlike the structures that a
    student is used for.

    Parameters
    ----------
    paths : sequence of path
    cutoff : float, Å
        Cutoff of the student.
    seed : int or None
        Seed of the split: only structures of the training part count. None takes all structures.
    split : 'molecule' or 'structure'
        What is split, see :func:`ase_student.data.splits.parts_of`.

    Raises
    ------
    ValueError
        If a file is damaged, or does not name the molecules of its structures.
    FileNotFoundError, ImportError
        If a file does not exist, or h5py or tqdm are not installed.
    """
    from ase_student.data.hdf5 import Dataset
    from ase_student.data.hdf5_layout import import_h5py
    from ase_student.data.sources import are_like_use
    from ase_student.data.splits import parts_of
    from ase_student.neighbors import neighbor_matrix

    import_h5py()
    from tqdm import tqdm

    seen = TrainingRanges(cutoff)
    for path in paths:
        with Dataset(path) as dataset:
            structures, labels = dataset.read_structures(), dataset.read_labels()
        parts = ["train"] * len(structures)
        if seed is not None:
            parts = parts_of(structures, split, seed, path=path)
        is_like_use = are_like_use(structures)
        indices = labels.structure_indices.tolist()
        for row, index in enumerate(tqdm(indices, unit="structure", disable=None, leave=False)):
            if parts[index] != "train" or not is_like_use[index]:
                continue
            atoms = slice(*structures.splits[index : index + 2])
            positions, cell = structures.positions[atoms], structures.cells[index]
            matrix = neighbor_matrix(positions, cell, structures.pbc[index], cutoff)
            forces = labels.forces[slice(*labels.splits[row : row + 2])]
            offsets = matrix.offsets(cell)
            seen.add(structures.numbers[atoms], positions, matrix.neighbors, offsets, forces)
    return seen


def pair_squares(
    positions: Floats,
    neighbors: Integers,
    offsets: Floats | None,
    atoms: Integers | slice = slice(None),
) -> Floats:
    """Return the squared distance of each atom and each of its neighbors.

    Parameters
    ----------
    positions : (n_atoms, 3) float, Å
    neighbors : (n_rows, n_neighbors) int
    offsets : (n_rows, n_neighbors, 3) float, Å, or None
        None means zeros.
    atoms : (n_rows,) int
        The atom of each row; by default there is a row for each atom.

    Returns
    -------
    (n_rows, n_neighbors) float64, Å²
    """
    # One component at a time: numpy is slow on arrays with a last axis of three.
    components = np.ascontiguousarray(positions.T)
    vectors = components.take(neighbors, axis=1)
    vectors -= components[:, atoms, None]
    if offsets is not None:
        vectors += offsets.transpose(2, 0, 1)
    return np.einsum("kij,kij->ij", vectors, vectors)


def pair_kinds(numbers: Integers, neighbors: Integers) -> Integers:
    """Return the index of each pair's elements in a flattened (119, 119) table.

    Parameters
    ----------
    numbers : (n_atoms,) int
    neighbors : (n_atoms, n_neighbors) int

    Returns
    -------
    (n_atoms, n_neighbors) int
    """
    kinds = numbers.take(neighbors)
    kinds += N_ELEMENTS * numbers[:, None]
    return kinds
