"""Labeled structures in memory, and batches of them for training."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from ase.stress import voigt_6_to_full_3x3_stress
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from ase_student.data.hdf5 import Dataset
from ase_student.data.sources import UNLIKE_USE
from ase_student.data.structures import Labels, Structures
from ase_student.distill.training.energy_differences import (
    conformer_coefficients,
    conformer_groups,
    interaction_coefficients,
    units_of,
)
from ase_student.neighbors import concatenate, neighbor_matrix


@dataclass(frozen=True)
class Sample:
    """One labeled structure with its neighbors.

    Attributes
    ----------
    numbers : (n_atoms,) int64
    positions : (n_atoms, 3) float64, Å
    neighbors : (n_atoms, n_neighbors) int32
    offsets : (n_atoms, n_neighbors, 3) float64, Å, or None
        None for a structure that is not periodic: only padding then has an offset.
    energy : float, eV
        The teacher's total energy.
    forces : (n_atoms, 3) float32, eV/Å
    source : str
        How the structure was sampled.
    stress : (3, 3) float64, eV/Å³, or None
        Positive in tension; None if the teacher gave no stress, or if not all axes are periodic.
    volume : float, Å³
        Volume of the cell; 0 without a cell.
    atomic_energies : (n_atoms,) float64, eV, or None
        The teacher's energies of the atoms; None if it gave none.
    group : str or None
        File and number of the group of a complex or a fragment; None for other structures.
    fragment : int
        Which fragment of its group it is, from 0; -1 for complexes and structures of no group.
    conformers : str or None
        File and number of the group of conformers whose energies are compared; None for structures
        that are not from a torsion scan.
    """

    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    neighbors: NDArray[np.int32]
    offsets: NDArray[np.float64] | None
    energy: float
    forces: NDArray[np.float32]
    source: str
    stress: NDArray[np.float64] | None = None
    volume: float = 0.0
    atomic_energies: NDArray[np.float64] | None = None
    group: str | None = None
    fragment: int = -1
    conformers: str | None = None


@dataclass(frozen=True)
class Batch:
    """Several structures joined into one, without neighbors across structures.

    Attributes
    ----------
    inputs : tuple of Tensor
        Numbers, positions, neighbors and offsets, as the potential takes them.
    structures : (n_atoms,) int64
        The structure that each atom belongs to.
    sizes : (n_structures,) float64
        Number of atoms of each structure.
    energies : (n_structures,) float64, eV
    forces : (n_atoms, 3) float32, eV/Å
    volumes : (n_structures,) float64, Å³
    stress : (n_structures, 3, 3) float64, eV/Å³, or None
        NaN for structures without a stress; None if no structure has one.
    atomic_energies : (n_atoms,) float64, eV, or None
        NaN for structures without atomic energies; None if no structure has them.
    interactions : (n_complexes, n_structures) float64, or None
        Coefficients: multiplied by the energies they give the interaction energies of the complexes
        whose fragments are in the batch too. None if there is no such complex.
    conformers : (n_conformers, n_structures) float64, or None
        Coefficients: multiplied by the energies they give the energies of conformers relative to
        the mean of their group. None if there is no such conformer.
    """

    inputs: tuple[Tensor, Tensor, Tensor, Tensor]
    structures: Tensor
    sizes: Tensor
    energies: Tensor
    forces: Tensor
    volumes: Tensor
    stress: Tensor | None
    atomic_energies: Tensor | None
    interactions: Tensor | None = None
    conformers: Tensor | None = None

    def totals(self, energies: Tensor) -> Tensor:
        """Return the sum of the atoms' energies for every structure."""
        return torch.zeros_like(self.energies).index_add(0, self.structures, energies)


def read_samples(dataset: Dataset, indices: Sequence[int], cutoff: float) -> list[Sample]:
    """Read labeled structures and find their neighbors.

    Parameters
    ----------
    dataset : Dataset
    indices : sequence of int
        Rows of the labels.
    cutoff : float, Å
    """
    structures, labels = dataset.read_structures(), dataset.read_labels()
    return samples_of(structures, labels, indices, cutoff=cutoff, path=dataset.path)


def samples_of(
    structures: Structures, labels: Labels, indices: Sequence[int], *, cutoff: float, path: Path
) -> list[Sample]:
    """Return labeled structures with their neighbors.

    Parameters
    ----------
    structures : Structures
    labels : Labels
    indices : sequence of int
        Rows of the labels.
    cutoff : float, Å
    path : path
        Path of the file. It distinguishes groups of complexes from those of other files.
    """
    crystals = structures.are_crystals
    samples = [
        _sample(structures, labels, row, cutoff, bool(crystals[labels.structure_indices[row]]))
        for row in tqdm(indices, desc="neighbors", unit="structure", disable=None, leave=False)
    ]
    return _in_groups(samples, structures, labels.structure_indices[list(indices)], path)


def _in_groups(
    samples: Sequence[Sample], structures: Structures, indices: NDArray[np.int64], path: Path
) -> list[Sample]:
    """Return samples with the names of the groups that they belong to.

    Groups are numbered within a file. The file's path in their names distinguishes them from groups
    of other files.
    """
    grouped = list(samples)
    if structures.fragments is not None:
        for row, (group, fragment) in enumerate(structures.fragments[indices].tolist()):
            if group >= 0:
                name = f"{path.absolute()}: {group}"
                grouped[row] = replace(grouped[row], group=name, fragment=fragment)
    if structures.sources is not None and structures.molecules is not None:
        groups = conformer_groups(structures.sources, structures.molecules)
        for row, index in enumerate(indices.tolist()):
            if groups[index] >= 0:
                name = f"{path.absolute()}: conformers {groups[index]}"
                grouped[row] = replace(grouped[row], conformers=name)
    return grouped


def _sample(
    structures: Structures, labels: Labels, row: int, cutoff: float, is_crystal: bool
) -> Sample:
    index = int(labels.structure_indices[row])
    atoms = slice(*structures.splits[index : index + 2])
    labeled = slice(*labels.splits[row : row + 2])
    positions, cell = structures.positions[atoms], structures.cells[index]
    pbc = structures.pbc[index]
    matrix = neighbor_matrix(positions, cell, pbc, cutoff)
    # If the labels have no mask, the array of stresses has values in every row, valid or not.
    stress = labels.stress_of(row) if is_crystal else None
    atomic_energies = None
    if labels.atomic_energies is not None:
        atomic_energies = labels.atomic_energies[labeled]
    return Sample(
        numbers=structures.numbers[atoms],
        positions=positions,
        neighbors=matrix.neighbors.astype(np.int32),
        offsets=matrix.offsets(cell) if pbc.any() else None,
        energy=float(labels.energies[row]),
        forces=labels.forces[labeled],
        source="" if structures.sources is None else structures.sources[index],
        stress=None if stress is None else voigt_6_to_full_3x3_stress(stress),
        volume=float(abs(np.linalg.det(cell))),
        atomic_energies=None
        if atomic_energies is None or np.isnan(atomic_energies).any()
        else atomic_energies,
    )


def collate(samples: Sequence[Sample], cutoff: float, device: torch.device) -> Batch:
    """Join samples into a batch."""
    parts = []
    for sample in samples:
        offsets = sample.offsets
        if offsets is None:
            offsets = np.zeros((*sample.neighbors.shape, 3))
            is_padding = sample.neighbors == np.arange(len(sample.neighbors))[:, None]
            offsets[is_padding] = (2.0 * cutoff, 0.0, 0.0)
        parts.append((sample.neighbors.astype(np.int64), offsets))
    neighbors, offsets = concatenate(parts, cutoff)
    sizes = np.array([len(sample.numbers) for sample in samples])
    arrays = (
        np.concatenate([sample.numbers for sample in samples]),
        np.concatenate([sample.positions for sample in samples]),
        neighbors,
        offsets,
    )
    numbers, positions, neighbor_tensor, offset_tensor = (
        torch.from_numpy(array).to(device) for array in arrays
    )
    interactions, conformers = interaction_coefficients(samples), conformer_coefficients(samples)
    return Batch(
        inputs=(numbers, positions, neighbor_tensor, offset_tensor),
        structures=torch.from_numpy(np.repeat(np.arange(len(samples)), sizes)).to(device),
        sizes=torch.from_numpy(sizes.astype(np.float64)).to(device),
        energies=torch.tensor(
            [sample.energy for sample in samples], dtype=torch.float64, device=device
        ),
        forces=torch.from_numpy(np.concatenate([sample.forces for sample in samples])).to(device),
        volumes=torch.tensor(
            [sample.volume for sample in samples], dtype=torch.float64, device=device
        ),
        stress=_stacked([sample.stress for sample in samples], [(1, 3, 3)] * len(samples), device),
        atomic_energies=_stacked(
            [sample.atomic_energies for sample in samples], [(n,) for n in sizes], device
        ),
        interactions=None if interactions is None else torch.from_numpy(interactions).to(device),
        conformers=None if conformers is None else torch.from_numpy(conformers).to(device),
    )


def _stacked(
    arrays: Sequence[NDArray[np.float64] | None],
    shapes: Sequence[tuple[int, ...]],
    device: torch.device,
) -> Tensor | None:
    """Return arrays as one tensor, with NaN for missing arrays; None if all are missing."""
    if all(array is None for array in arrays):
        return None
    filled = [
        np.full(shape, np.nan) if array is None else array.reshape(shape)
        for array, shape in zip(arrays, shapes, strict=True)
    ]
    return torch.from_numpy(np.concatenate(filled)).to(device)


def shuffled(
    samples: Sequence[Sample], batch_size: int, generator: np.random.Generator
) -> Iterator[list[Sample]]:
    """Yield all samples once, in batches of random composition.

    Batches are filled from a window of shuffled samples that is sorted by the number of
    neighbors, so that little padding is computed, and come in random order. A complex is in the
    same batch as its fragments, and a conformer as those that it is compared with; a batch can
    therefore hold a few structures more or less than `batch_size`.
    """
    window = 24 * batch_size
    units = units_of(samples)
    neighbors = [max(samples[i].neighbors.shape[1] for i in unit) for unit in units]
    windows: dict[int, list[int]] = defaultdict(list)
    n_placed = 0
    for index in generator.permutation(len(units)).tolist():
        windows[n_placed // window].append(index)
        n_placed += len(units[index])
    batches: dict[int, list[int]] = defaultdict(list)
    n_placed = 0
    for window_units in windows.values():
        for index in sorted(window_units, key=lambda index: neighbors[index]):
            batches[n_placed // batch_size] += units[index]
            n_placed += len(units[index])
    filled = list(batches.values())
    for index in generator.permutation(len(filled)):
        yield [samples[i] for i in filled[index]]


def fit_reference_energies(samples: Sequence[Sample]) -> dict[int, float]:
    """Return the energy per element, eV, that fits the total energies best.

    Least squares; what the data do not determine gets the solution of smallest norm. Diatomics,
    most of which are broken bonds, and structures of other sources unlike use do not count, unless
    there are no others.
    """
    samples = [sample for sample in samples if sample.source not in UNLIKE_USE] or samples
    elements = np.unique(np.concatenate([sample.numbers for sample in samples]))
    counts = np.array([[np.sum(sample.numbers == z) for z in elements] for sample in samples])
    energies = np.array([sample.energy for sample in samples])
    solution = np.linalg.lstsq(counts.astype(float), energies, rcond=None)[0]
    return {int(z): float(energy) for z, energy in zip(elements, solution, strict=True)}
