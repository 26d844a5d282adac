"""Screened nuclear repulsion, which separates atoms at distances without training data."""

import torch
from ase.data import covalent_radii
from ase.units import Bohr, Hartree
from torch import Tensor, nn
from torch.nn.functional import embedding

from ase_student.networks.geometry import envelope

# Universal screening function: Ziegler, Biersack and Littmark, The Stopping and Range of Ions
# in Matter, Pergamon 1985.
_WEIGHTS = (0.18175, 0.50986, 0.28022, 0.02817)
_RATES = (3.19980, 0.94229, 0.40290, 0.20162)
_SCREENING_LENGTH = 0.8854 * Bohr
_EXPONENT = 0.23


class Repulsion(nn.Module):
    """ZBL repulsion of every pair, faded out at the sum of the two covalent radii.

    It has no trained parameters, and is zero for most bonds and all non-bonded pairs.

    Parameters
    ----------
    elements : tuple of int
        Atomic numbers, in the order of the network's element index.
    """

    weights: Tensor
    rates: Tensor
    table: Tensor

    def __init__(self, elements: tuple[int, ...]):
        super().__init__()
        numbers = torch.tensor(elements, dtype=torch.float64)
        radii = torch.tensor([covalent_radii[z] for z in elements], dtype=torch.float64)
        charges = numbers * (Hartree * Bohr) ** 0.5
        screening = numbers**_EXPONENT / _SCREENING_LENGTH
        # Stored in float32 and cast later, so that the constants are the same in every precision.
        table = torch.stack([charges, screening, radii], dim=1).to(torch.float32)
        weights = torch.tensor(_WEIGHTS, dtype=torch.float32).reshape(4, 1)
        rates = torch.tensor(_RATES, dtype=torch.float32).reshape(4, 1)
        self.register_buffer("table", table, persistent=False)
        self.register_buffer("weights", weights, persistent=False)
        self.register_buffer("rates", rates, persistent=False)

    def pair_rows(self, species: Tensor, neighbors: Tensor) -> tuple[Tensor, Tensor]:
        """Return each atom's row of the table, (N, 3, 1), and its neighbors', (N, 3, K).

        A row is charge, screening and covalent radius.
        """
        rows = embedding(species, self.table)
        return rows.unsqueeze(2), embedding(neighbors, rows).transpose(1, 2)

    def forward(
        self, own_rows: Tensor, neighbor_rows: Tensor, distances: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the repulsion of every pair, eV, and its slope, eV/Å.

        Parameters
        ----------
        own_rows, neighbor_rows : (n_atoms, 3, 1) and (n_atoms, 3, n_neighbors) float
            See :meth:`pair_rows`.
        distances : (n_atoms, 1, n_neighbors) float, Å

        Returns
        -------
        energies, slopes : (n_atoms, 1, n_neighbors) float
        """
        own_charges, own_screening, own_radii = own_rows.split(1, dim=1)
        charges, screening, radii = neighbor_rows.split(1, dim=1)
        inverse_length = own_screening + screening
        terms = self.weights * torch.exp(-self.rates * (distances * inverse_length))
        coulomb = own_charges * charges / distances
        screened = coulomb * terms.sum(1, keepdim=True)
        screened_slope = -coulomb * inverse_length * (self.rates * terms).sum(1, keepdim=True)
        fade, fade_slope = envelope(distances, own_radii + radii)
        slopes = (screened_slope - screened / distances) * fade + screened * fade_slope
        return screened * fade, slopes


def bond_lengths(own_rows: Tensor, neighbor_rows: Tensor) -> Tensor:
    """Return the sum of the covalent radii of every pair, Å; see :meth:`Repulsion.pair_rows`."""
    return own_rows[:, 2:] + neighbor_rows[:, 2:]
