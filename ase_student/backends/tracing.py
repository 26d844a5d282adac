"""Inputs with which exporters trace a potential."""

import torch
from torch import Tensor

from ase_student.student import Student


def example_inputs(student: Student) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return numbers, positions, neighbors and offsets of a small artificial structure.

    Its sizes are different and greater than one, so that exporters do not confuse them or treat
    them as constants. Two entries of the neighbor matrix are padding.
    """
    n_atoms, n_neighbors = 7, 5
    generator = torch.Generator().manual_seed(0)
    elements = torch.tensor(student.elements)
    numbers = elements[torch.arange(n_atoms) % len(elements)]
    positions = torch.arange(n_atoms * 3, dtype=torch.float64).reshape(n_atoms, 3) * 0.3
    positions += 0.1 * torch.rand(n_atoms, 3, generator=generator, dtype=torch.float64)
    steps = torch.arange(1, n_neighbors + 1)
    neighbors = (torch.arange(n_atoms).unsqueeze(1) + steps) % n_atoms
    offsets = torch.zeros(n_atoms, n_neighbors, 3, dtype=torch.float64)
    neighbors[:2, -1] = torch.arange(2)
    offsets[:2, -1, 0] = 2.0 * student.cutoff
    return numbers, positions, neighbors, offsets
