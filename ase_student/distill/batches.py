"""Labelled structures in memory, and batches of them for training."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from ase_student.dataset import Dataset, Structures
from ase_student.neighbors import concatenate, neighbor_matrix


@dataclass(frozen=True)
class Sample:
    """One labelled structure with its neighbors.

    Attributes
    ----------
    numbers : (n_atoms,) int64
    positions : (n_atoms, 3) float64, Å
    neighbors : (n_atoms, n_neighbors) int32
    offsets : (n_atoms, n_neighbors, 3) float64, Å, or None
        None for a structure that is not periodic: padding is then all that has an offset.
    energy : float, eV
        The teacher's total energy.
    forces : (n_atoms, 3) float32, eV/Å
    source : str
        How the structure was sampled.
    """

    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    neighbors: NDArray[np.int32]
    offsets: NDArray[np.float64] | None
    energy: float
    forces: NDArray[np.float32]
    source: str


@dataclass(frozen=True)
class Batch:
    """Several structures as one whose parts don't see each other.

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
    """

    inputs: tuple[Tensor, Tensor, Tensor, Tensor]
    structures: Tensor
    sizes: Tensor
    energies: Tensor
    forces: Tensor

    def totals(self, energies: Tensor) -> Tensor:
        """Return the sum of the atoms' energies for every structure."""
        return torch.zeros_like(self.energies).index_add(0, self.structures, energies)


def read_samples(dataset: Dataset, indices: Sequence[int], cutoff: float) -> list[Sample]:
    """Read labelled structures and find their neighbors.

    Parameters
    ----------
    dataset : Dataset
    indices : sequence of int
        Rows of the labels.
    cutoff : float, Å
    """
    labels = dataset.read_labels()
    structures = dataset.read_structures()
    samples = []
    for row in tqdm(indices, desc="neighbors", unit="structure", disable=None, leave=False):
        index = int(labels.structure_indices[row])
        forces = labels.forces[labels.splits[row] : labels.splits[row + 1]]
        samples.append(_sample(structures, index, float(labels.energies[row]), forces, cutoff))
    return samples


def _sample(
    structures: Structures,
    index: int,
    energy: float,
    forces: NDArray[np.float32],
    cutoff: float,
) -> Sample:
    atoms = slice(*structures.splits[index : index + 2])
    positions, pbc = structures.positions[atoms], structures.pbc[index]
    matrix = neighbor_matrix(positions, structures.cells[index], pbc, cutoff)
    return Sample(
        numbers=structures.numbers[atoms],
        positions=positions,
        neighbors=matrix.neighbors.astype(np.int32),
        offsets=matrix.offsets(structures.cells[index]) if pbc.any() else None,
        energy=energy,
        forces=forces,
        source="" if structures.sources is None else structures.sources[index],
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
    return Batch(
        inputs=(numbers, positions, neighbor_tensor, offset_tensor),
        structures=torch.from_numpy(np.repeat(np.arange(len(samples)), sizes)).to(device),
        sizes=torch.from_numpy(sizes.astype(np.float64)).to(device),
        energies=torch.tensor(
            [sample.energy for sample in samples], dtype=torch.float64, device=device
        ),
        forces=torch.from_numpy(np.concatenate([sample.forces for sample in samples])).to(device),
    )


def shuffled(
    samples: Sequence[Sample], batch_size: int, generator: np.random.Generator
) -> Iterator[list[Sample]]:
    """Yield all samples once, in batches of random composition.

    Batches are filled from a window of shuffled samples that is sorted by the number of
    neighbors, so that little padding is computed, and come in random order.
    """
    window = 24 * batch_size
    order = generator.permutation(len(samples))
    batches = []
    for start in range(0, len(order), window):
        part = sorted(order[start : start + window], key=lambda i: samples[i].neighbors.shape[1])
        batches += [part[i : i + batch_size] for i in range(0, len(part), batch_size)]
    for index in generator.permutation(len(batches)):
        yield [samples[i] for i in batches[index]]


def fit_reference_energies(samples: Sequence[Sample]) -> dict[int, float]:
    """Return the energy per element, eV, that explains the total energies best.

    Least squares; directions that the data leave open get the solution of smallest norm.
    """
    elements = np.unique(np.concatenate([sample.numbers for sample in samples]))
    counts = np.array([[np.sum(sample.numbers == z) for z in elements] for sample in samples])
    energies = np.array([sample.energy for sample in samples])
    solution = np.linalg.lstsq(counts.astype(float), energies, rcond=None)[0]
    return {int(z): float(energy) for z, energy in zip(elements, solution, strict=True)}
