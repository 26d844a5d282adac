"""Batches of labeled structures with lists of pairs, the input of compiled networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ase_student.distill.training.batches import Sample
from ase_student.distill.training.energy_differences import (
    conformer_coefficients,
    interaction_coefficients,
)
from ase_student.networks.kernels import PairList, PairStructures, pair_list


@dataclass(frozen=True)
class PairBatch:
    """Several labeled structures.

    Attributes
    ----------
    structures : PairStructures
    energies : (n_structures,) float64, eV
    forces : (n_atoms, 3) float64, eV/Å
    volumes : (n_structures,) float64, Å³
        1 for structures without a cell.
    stress : (n_structures, 3, 3) float64, eV/Å³, or None
        NaN for structures without a stress; None if no structure has one.
    atomic_energies : (n_atoms,) float64, eV, or None
        NaN for structures without atomic energies; None if no structure has them.
    interactions : (n_complexes, n_structures) float64, or None
        Coefficients: multiplied by the energies they give the interaction energies of the complexes
        whose fragments are all in the batch. None if there is no complex.
    conformers : (n_conformers, n_structures) float64, or None
        Coefficients: multiplied by the energies they give the energies of conformers relative to
        the mean of their group. None if there is no conformer.
    """

    structures: PairStructures
    energies: NDArray[np.float64]
    forces: NDArray[np.float64]
    volumes: NDArray[np.float64]
    stress: NDArray[np.float64] | None
    atomic_energies: NDArray[np.float64] | None
    interactions: NDArray[np.float64] | None
    conformers: NDArray[np.float64] | None

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Number of atoms of every structure."""
        return np.diff(self.structures.atom_splits)

    def totals(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the sums over the atoms of every structure."""
        return np.add.reduceat(values, self.structures.atom_splits[:-1], axis=0)

    def of_atoms(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return for every atom the value of its structure."""
        return np.repeat(values, self.sizes, axis=0)


class PairCollator:
    """Joins samples into batches; finds the pairs of every sample once.

    Parameters
    ----------
    cutoff : float, Å
    """

    def __init__(self, cutoff: float):
        self.cutoff = cutoff
        # Each sample is kept beside its pairs: its id then cannot be given to another object.
        self._pairs: dict[int, tuple[Sample, PairList]] = {}

    def pairs_of(self, sample: Sample) -> PairList:
        """Return the pairs of a sample."""
        sample_and_pairs = self._pairs.get(id(sample))
        if sample_and_pairs is None:
            pairs = pair_list(sample.positions, sample.neighbors, sample.offsets, self.cutoff)
            sample_and_pairs = self._pairs[id(sample)] = (sample, pairs)
        return sample_and_pairs[1]

    def __call__(self, samples: Sequence[Sample]) -> PairBatch:
        """Return a batch of the samples in their order."""
        sizes = [len(sample.numbers) for sample in samples]
        atom_splits = np.concatenate([[0], np.cumsum(sizes)])
        pairs, pair_splits = _joined([self.pairs_of(sample) for sample in samples], atom_splits)
        structures = PairStructures(
            numbers=np.concatenate([sample.numbers for sample in samples]),
            positions=np.concatenate([sample.positions for sample in samples]),
            pairs=pairs,
            atom_splits=atom_splits,
            pair_splits=pair_splits,
        )
        stresses = [sample.stress for sample in samples]
        atomic_energies = [sample.atomic_energies for sample in samples]
        return PairBatch(
            structures=structures,
            energies=np.array([sample.energy for sample in samples]),
            forces=np.concatenate([sample.forces for sample in samples]).astype(np.float64),
            volumes=np.array([sample.volume or 1.0 for sample in samples]),
            stress=_stacked(stresses, [(1, 3, 3)] * len(samples)),
            atomic_energies=_stacked(atomic_energies, [(size,) for size in sizes]),
            interactions=interaction_coefficients(samples),
            conformers=conformer_coefficients(samples),
        )


def _joined(
    lists: Sequence[PairList], atom_splits: NDArray[np.int64]
) -> tuple[PairList, NDArray[np.int64]]:
    """Return the pairs of all structures, with atoms of the batch, and where each begins."""
    counts = [len(pairs.first) for pairs in lists]
    atom_offsets = np.repeat(atom_splits[:-1].astype(np.int32), counts)
    shifts = None
    if any(pairs.shifts is not None for pairs in lists):
        shifts = np.concatenate(
            [
                np.zeros((count, 3)) if pairs.shifts is None else pairs.shifts
                for pairs, count in zip(lists, counts, strict=True)
            ]
        )
    first = np.concatenate([pairs.first for pairs in lists]) + atom_offsets
    second = np.concatenate([pairs.second for pairs in lists]) + atom_offsets
    return PairList(first, second, shifts), np.concatenate([[0], np.cumsum(counts)])


def _stacked(
    arrays: Sequence[NDArray[np.float64] | None], shapes: Sequence[tuple[int, ...]]
) -> NDArray[np.float64] | None:
    """Return arrays joined into one, with NaN for missing arrays; None if all are missing."""
    if all(array is None for array in arrays):
        return None
    return np.concatenate(
        [
            np.full(shape, np.nan) if array is None else array.reshape(shape)
            for array, shape in zip(arrays, shapes, strict=True)
        ]
    )
