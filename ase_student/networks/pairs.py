"""Pairs of atoms: sums over neighbors, and derivatives with respect to pair vectors."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding

from ase_student.networks.geometry import PairGeometry, contracted, quadrics

Cache = tuple[Tensor, ...]


class Pairs(NamedTuple):
    """Neighbors and functions of the pairs, which all blocks use.

    Attributes
    ----------
    neighbors : (N, K) int64
    radial : (N, R, K) float
    angular : (N, R, 3, K) float
        Radial functions times the direction to the neighbor.
    tensorial : (N, R, 5, K) float or None
        Radial functions times half the direction's :func:`quadrics`, if there are tensor channels.
    """

    neighbors: Tensor
    radial: Tensor
    angular: Tensor
    tensorial: Tensor | None = None

    def gather(self, features: Tensor) -> Tensor:
        """Return ``(N, K, X)`` neighbors' rows of ``(N, X)`` features."""
        return embedding(self.neighbors, features)

    def gather_by_axis(self, vectors: Tensor) -> Tensor:
        """Return ``(N, 3 * K, X)``, axis by axis, neighbors' rows of ``(N, 3, X)`` vectors."""
        first = self.neighbors * 3
        rows = torch.cat([first, first + 1, first + 2], dim=1)
        return embedding(rows, vectors.flatten(0, 1))

    def sum_radial(self, sent: Tensor) -> Tensor:
        """Return ``(N, R, X)`` sums over neighbors of ``(N, K, X)`` times radial functions."""
        return self.radial @ sent

    def sum_angular(self, sent: Tensor) -> Tensor:
        """Return ``(N, R, 3, X)`` sums over neighbors of ``(N, K, X)`` times angular functions."""
        return _sum_components(self.angular, sent)

    def sum_tensorial(self, sent: Tensor) -> Tensor:
        """Return ``(N, R, 5, X)`` sums over neighbors of ``(N, K, X)`` times tensorial ones."""
        assert self.tensorial is not None
        return _sum_components(self.tensorial, sent)

    def sum_projected(self, sent: Tensor) -> Tensor:
        """Return ``(N, R, X)`` sums over neighbors and axes of ``(N, 3 * K, X)``."""
        n_atoms, n_rbf, _, n_neighbors = self.angular.shape
        return self.angular.reshape(n_atoms, n_rbf, 3 * n_neighbors) @ sent


def second_degree(directions: Tensor) -> Tensor:
    """Return half the quadrics of directions (N, 3, K) with themselves, (N, 5, K)."""
    return quadrics(directions, 0.5 * directions)


def _sum_components(functions: Tensor, sent: Tensor) -> Tensor:
    """Return ``(N, R, A, X)`` sums over neighbors of ``(N, K, X)`` times ``(N, R, A, K)``."""
    n_atoms, n_rbf, n_components, n_neighbors = functions.shape
    sums = functions.reshape(n_atoms, n_rbf * n_components, n_neighbors) @ sent
    return sums.reshape(n_atoms, n_rbf, n_components, -1)


class Coefficients(NamedTuple):
    """Derivatives of the energy by the radial (α), angular (β) and tensorial functions (τ).

    Attributes
    ----------
    radial : (N, R, K) float, eV
    angular : (N, R, 3, K) float, eV
    tensorial : (N, R, 5, K) float, eV, or None
    """

    radial: Tensor
    angular: Tensor
    tensorial: Tensor | None = None


def contract(own: Tensor, neighbors: Tensor) -> Tensor:
    """Return Σ_m own_nm neighbors_km for every atom: (N, R, M) and (N, K, M) to (N, R, K)."""
    return own @ neighbors.transpose(1, 2)


def pair_derivatives(
    coefficients: Coefficients,
    geometry: PairGeometry,
    radial: Tensor,
    radial_slopes: Tensor,
    repulsion_slopes: Tensor,
) -> Tensor:
    """Return dE/dr, (N, 3, K), of E = Σ_n g_n(d) (α_n + u·β_n + y·τ_n) + repulsion.

    dE/dr = [Σ_n g_n' (α_n + u·β_n + y·τ_n) + repulsion'] u
    + (1 − u uᵀ) Σ_n g_n (β_n + (∂y/∂u)ᵀ τ_n) / d.
    """
    directions = geometry.directions
    projected = (coefficients.angular * directions.unsqueeze(1)).sum(2)
    by_directions = (radial.unsqueeze(2) * coefficients.angular).sum(1)
    if coefficients.tensorial is not None:
        y = second_degree(directions)
        projected = projected + (coefficients.tensorial * y.unsqueeze(1)).sum(2)
        by_quadrics = (radial.unsqueeze(2) * coefficients.tensorial).sum(1)
        by_directions = by_directions + contracted(by_quadrics, directions)
    along = (radial_slopes * (coefficients.radial + projected)).sum(1, keepdim=True)
    turning = by_directions / geometry.distances
    along = along + repulsion_slopes - (directions * turning).sum(1, keepdim=True)
    return directions * along + turning
