"""Pair geometry and radial functions, each with its derivative by distance.

Arrays of pairs are laid out with the neighbors last: sums over neighbors are then matrix products
of contiguous blocks, and all computations per pair run along a contiguous axis. Scalars of pairs
keep an axis of length one, so that they broadcast without a reshape.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding


class PairGeometry(NamedTuple):
    """Vectors from each atom to each of its neighbors.

    Attributes
    ----------
    vectors : (n_atoms, 3, n_neighbors) float, Å
    distances : (n_atoms, 1, n_neighbors) float, Å
    directions : (n_atoms, 3, n_neighbors) float
    """

    vectors: Tensor
    distances: Tensor
    directions: Tensor


def pair_geometry(
    positions: Tensor, neighbors: Tensor, offsets: Tensor, dtype: torch.dtype
) -> PairGeometry:
    """Return the pair geometry in the network's precision.

    Parameters
    ----------
    positions : (n_atoms, 3) float64, Å
    neighbors : (n_atoms, n_neighbors) int64
    offsets : (n_atoms, n_neighbors, 3) float64, Å
    dtype : torch.dtype
        Differences are taken in float64 and cast afterwards: far from the origin two float32
        coordinates differ by a rounding error that is larger than any error of the network.
    """
    # In this order the vectors of a pair's two directions are opposite to the last bit.
    vectors = embedding(neighbors, positions) - positions.unsqueeze(1) + offsets
    vectors = vectors.to(dtype).transpose(1, 2)
    distances = torch.sqrt((vectors * vectors).sum(1, keepdim=True))
    return PairGeometry(vectors, distances, vectors / distances)


def quadrics(first: Tensor, second: Tensor) -> Tensor:
    """Return the symmetric products xy, yz, xz, x² − z² and y² − z² of vectors with vectors.

    For a vector a with itself they are 2 a_x a_y, ..., 2 (a_x² − a_z²): they span the same space as
    spherical harmonics of degree 2, without irrational constants.

    Parameters
    ----------
    first, second : (n_atoms, 3, ...) float

    Returns
    -------
    (n_atoms, 5, ...) float
    """
    x, y, z = first.split(1, dim=1)
    other_x, other_y, other_z = second.split(1, dim=1)
    zz = z * other_z
    return torch.cat(
        [
            x * other_y + y * other_x,
            y * other_z + z * other_y,
            x * other_z + z * other_x,
            2.0 * (x * other_x - zz),
            2.0 * (y * other_y - zz),
        ],
        dim=1,
    )


def contracted(tensors: Tensor, vectors: Tensor) -> Tensor:
    """Return the derivative of ``tensors · quadrics(vectors, v)`` by v: a tensor times a vector.

    Parameters
    ----------
    tensors : (n_atoms, 5, ...) float
    vectors : (n_atoms, 3, ...) float

    Returns
    -------
    (n_atoms, 3, ...) float
    """
    x, y, z = vectors.split(1, dim=1)
    xy, yz, xz, xx, yy = tensors.split(1, dim=1)
    return torch.cat(
        [
            xy * y + xz * z + 2.0 * (xx * x),
            xy * x + yz * z + 2.0 * (yy * y),
            yz * y + xz * x - 2.0 * ((xx + yy) * z),
        ],
        dim=1,
    )


def envelope(distances: Tensor, cutoff: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``(1 - (d / cutoff)²)³``, 0 from the cutoff on, and its derivative by ``d``.

    Value, slope and curvature vanish at the cutoff, so energies are twice differentiable there.
    """
    inside = torch.relu(1.0 - (distances / cutoff) ** 2)
    square = inside * inside
    return square * inside, square * distances * (-6.0 / (cutoff * cutoff))


def envelope_between(distances: Tensor, nearest: Tensor, cutoff: Tensor) -> tuple[Tensor, Tensor]:
    """Return an envelope that vanishes up to ``nearest`` as well, and its derivative by ``d``.

    It is ``((1 - w³) (1 - (d / cutoff)²))³``, where w falls linearly from 1 at ``nearest`` to 0 at
    1.2 times ``nearest``. At longer distances it equals :func:`envelope`. It is twice
    differentiable everywhere.

    Parameters
    ----------
    distances : (n_atoms, 1, n_neighbors) float, Å
    nearest : (n_atoms, 1, n_neighbors) float, Å
    cutoff : (1,) float, Å
    """
    inside = torch.relu(1.0 - (distances / cutoff) ** 2)
    rate = 5.0 / nearest
    w = torch.clamp(6.0 - distances * rate, 0.0, 1.0)
    square = w * w
    switch = 1.0 - square * w
    product = switch * inside
    slope = inside * square * rate * 9.0 + switch * distances * (-6.0 / (cutoff * cutoff))
    product_square = product * product
    return product_square * product, product_square * slope


class RadialBasis(nn.Module):
    """Gaussians of ``exp(-rate * d)``, times the cutoff envelope.

    With the exponential coordinate (PhysNet, Unke and Meuwly, JCTC 2019, eq. 7) more functions
    describe bonds than distances between molecules. Its rate is lower than the 1 / Å of PhysNet,
    with which a basis this small has no resolution beyond 3 Å. Centers and widths are trained.

    Parameters
    ----------
    n_rbf : int
    cutoff : float, Å
    """

    # Constants are powers of two or stored as tensors: exporters round Python floats to float32,
    # which would change results of float64 files.
    RATE = 0.375
    SHORTEST = 0.5

    cutoff: Tensor

    def __init__(self, n_rbf: int, cutoff: float):
        super().__init__()
        self.register_buffer("cutoff", torch.tensor([cutoff]), persistent=False)
        first, last = torch.exp(-self.RATE * torch.tensor([cutoff, self.SHORTEST])).tolist()
        spacing = (last - first) / max(n_rbf - 1, 1)
        self.centers = nn.Parameter(torch.linspace(first, last, n_rbf))
        self.inverse_widths = nn.Parameter(torch.full((n_rbf,), 0.8 / spacing))

    def forward(self, distances: Tensor, nearest: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the basis and its derivative by distance.

        Parameters
        ----------
        distances : (n_atoms, 1, n_neighbors) float, Å
        nearest : (n_atoms, 1, n_neighbors) float, Å, optional
            Distances up to which the basis vanishes; see :func:`envelope_between`.

        Returns
        -------
        values, slopes : (n_atoms, n_rbf, n_neighbors) float
        """
        if nearest is None:
            smooth, smooth_slope = envelope(distances, self.cutoff)
        else:
            smooth, smooth_slope = envelope_between(distances, nearest, self.cutoff)
        stretched = torch.exp(-self.RATE * distances)
        widths = self.inverse_widths.unsqueeze(1)
        reduced = (stretched - self.centers.unsqueeze(1)) * widths
        gaussians = torch.exp(-reduced * reduced)
        values = gaussians * smooth
        slopes = gaussians * smooth_slope + values * reduced * (
            stretched * (2.0 * self.RATE * widths)
        )
        return values, slopes
