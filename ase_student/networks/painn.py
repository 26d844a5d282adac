"""PaiNN on a neighbor matrix, with analytic backward passes for forces and virials.

The network is PaiNN (Schütt, Unke and Gastegger, ICML 2021, arXiv:2102.03150) with four changes.
The first two reduce the work per pair, the third makes energies smooth, the fourth adds angles:

- in the first interaction, the only input from neighbors is their element. It has a radial function
  for every pair of element channel and feature instead of a product of an embedding and a filter,
  and its sums over neighbors run over the few element channels;
- later interactions send messages through fewer channels than an atom has features;
- the filters have no bias, so they vanish at the cutoff with the envelope for any weights;
- the first interaction also sums second moments. Their norms distinguish a linear from a
  right-angled arrangement of neighbors, which products of vectors do not.

Every block has a ``forward`` and a ``backward``. The backward passes only gather and sum over
neighbors. They use the symmetry of the neighbor list: if the image of j is in the row of i, then
that of i is in the row of j, at the same distance and in the opposite direction. Each atom can
therefore sum what its neighbors received from it, without scatter operations. Autograd through
:class:`PaiNN` gives the same forces; a test compares the two.

The energy depends on the geometry of the pair (i, k) through its radial functions g_n(d) and
directions u only, linearly in g_n, g_n u and g_n y, with y half the quadrics of u: every block's
``backward`` returns its share of the coefficients α (of g_n), β (of g_n u) and τ (of g_n y), of the
messages in both directions, and :func:`pair_derivatives` turns their sum into dE/dr.

Shapes: N atoms, K neighbors, F features, M message channels, C element channels, R radial
functions. Vector features are (N, 3, F). Arrays of pairs are ordered such that every sum over
neighbors is one matrix product per atom, as large as can be and without a transposed copy.
"""

from collections.abc import Callable
from typing import NamedTuple, Self, cast

import torch
from torch import Tensor, nn

from ase_student.networks.blocks import ElementInteraction, Interaction, Perceptron, Update
from ase_student.networks.geometry import (
    PairGeometry,
    RadialBasis,
    pair_geometry,
)
from ase_student.networks.pairs import (
    Cache,
    Coefficients,
    Pairs,
    pair_derivatives,
    second_degree,
)
from ase_student.networks.repulsion import Repulsion, bond_lengths
from ase_student.student import Architecture


class PaiNN(nn.Module):
    """The student network: energies of atoms from their environments.

    Parameters
    ----------
    shape : Architecture
    reference_energies : dict of int to float
        Energy of each element in eV, added in float64.
    """

    species_of: Tensor
    reference: Tensor

    def __init__(self, shape: Architecture, reference_energies: dict[int, float]):
        super().__init__()
        self.shape = shape
        self.basis = RadialBasis(shape.n_rbf, shape.cutoff)
        self.repulsion = Repulsion(shape.elements)
        self.first = ElementInteraction(shape)
        self.interactions = nn.ModuleList(Interaction(shape) for _ in range(shape.blocks - 1))
        self.updates = nn.ModuleList(
            Update(shape, is_last=block == shape.blocks - 1) for block in range(shape.blocks)
        )
        self.readout = Perceptron(shape.features, shape.features // 2, 1)
        species_of = torch.zeros(119, dtype=torch.int64)
        reference = torch.zeros(119, dtype=torch.float64)
        for index, number in enumerate(shape.elements):
            species_of[number] = index
            reference[number] = reference_energies[number]
        self.register_buffer("species_of", species_of, persistent=False)
        self.register_buffer("reference", reference, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move or cast the module, but leave the reference energies in float64."""
        reference = self.reference
        super()._apply(fn, recurse)
        self.reference = reference.to(self.species_of.device)
        return self

    def forward(
        self, numbers: Tensor, positions: Tensor, neighbors: Tensor, offsets: Tensor
    ) -> Tensor:
        """Return the energy of every atom in float64, eV, shape (N,); differentiable."""
        return self.evaluate(numbers, positions, neighbors, offsets)[0]

    def evaluate(
        self, numbers: Tensor, positions: Tensor, neighbors: Tensor, offsets: Tensor
    ) -> tuple[Tensor, "ForwardPass"]:
        """Return the energies, and the intermediate results for the backward pass."""
        geometry = pair_geometry(positions, neighbors, offsets, self.first.embedding.dtype)
        species = self.species_of.index_select(0, numbers)
        own_rows, neighbor_rows = self.repulsion.pair_rows(species, neighbors)
        repulsion, repulsion_slopes = self.repulsion(own_rows, neighbor_rows, geometry.distances)
        radial, radial_slopes = self.radial_functions(own_rows, neighbor_rows, geometry.distances)
        by_function = radial.unsqueeze(2)
        pairs = Pairs(neighbors, radial, by_function * geometry.directions.unsqueeze(1))
        if self.first.moments is not None:
            tensorial = by_function * second_degree(geometry.directions).unsqueeze(1)
            pairs = pairs._replace(tensorial=tensorial)
        scalars, vectors, cache = self.first(species, pairs)
        caches = [cache]
        scalars, vectors, cache = self.updates[0](scalars, vectors)
        caches.append(cache)
        for interaction, update in self._later_blocks():
            scalars, vectors, cache = interaction(scalars, vectors, pairs)
            caches.append(cache)
            scalars, vectors, cache = update(scalars, vectors)
            caches.append(cache)
        network_energies, cache = self.readout(scalars)
        caches.append(cache)
        # Half of a pair's repulsion belongs to each of its atoms.
        energies = (network_energies + 0.5 * repulsion.sum(2)).squeeze(1).to(torch.float64)
        energies = energies + self.reference.index_select(0, numbers)
        return energies, ForwardPass(geometry, radial_slopes, repulsion_slopes, pairs, caches)

    def radial_functions(
        self, own_rows: Tensor, neighbor_rows: Tensor, distances: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the radial functions of every pair and their slopes, (N, R, K) each.

        Parameters
        ----------
        own_rows, neighbor_rows : (N, 3, 1) and (N, 3, K) float
            See :meth:`Repulsion.pair_rows`.
        distances : (N, 1, K) float, Å
        """
        fraction = self.shape.inner_cutoff
        nearest = fraction * bond_lengths(own_rows, neighbor_rows) if fraction else None
        radial, slopes = self.basis(distances, nearest)
        return radial, slopes

    def _later_blocks(self) -> list[tuple[Interaction, Update]]:
        """Return the interactions and updates after the first, in order."""
        blocks = list(zip(self.interactions, self.updates[1:], strict=True))
        return cast(list[tuple[Interaction, Update]], blocks)

    def pair_gradients(self, evaluation: "ForwardPass") -> Tensor:
        """Return dE/dr for the vector r to every neighbor, (N, 3, K), eV/Å, analytically."""
        geometry, radial_slopes, repulsion_slopes, pairs, caches = evaluation
        caches = list(caches)
        gate = caches[-1][0]
        by_scalars = self.readout.backward(torch.ones_like(gate[:, :1]), caches.pop())
        by_vectors: Tensor | None = None
        shares: list[Coefficients] = []
        for interaction, update in reversed(self._later_blocks()):
            by_scalars, by_vectors = update.backward(by_scalars, by_vectors, caches.pop())
            by_scalars, by_vectors, share = interaction.backward(
                by_scalars, by_vectors, caches.pop(), pairs
            )
            shares.append(share)
        first_update = cast(Update, self.updates[0])
        by_scalars, by_vectors = first_update.backward(by_scalars, by_vectors, caches.pop())
        shares.append(self.first.backward(by_scalars, by_vectors, caches.pop(), pairs))
        total = shares[0]
        for share in shares[1:]:
            # Only the first block, which comes last here, has tensorial coefficients.
            total = Coefficients(
                total.radial + share.radial, total.angular + share.angular, share.tensorial
            )
        return pair_derivatives(total, geometry, pairs.radial, radial_slopes, repulsion_slopes)


class ForwardPass(NamedTuple):
    """Intermediate results of a forward pass."""

    geometry: PairGeometry
    radial_slopes: Tensor
    repulsion_slopes: Tensor
    pairs: Pairs
    caches: list[Cache]


class PaiNNPotential(nn.Module):
    """Energies, forces and virials by the analytic backward pass; used to run and to export.

    Parameters
    ----------
    network : PaiNN
    """

    def __init__(self, network: PaiNN):
        super().__init__()
        self.network = network

    def forward(
        self, numbers: Tensor, positions: Tensor, neighbors: Tensor, offsets: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Evaluate a structure, or several joined structures without neighbors across structures.

        Parameters
        ----------
        numbers : (N,) int64
            Atomic numbers.
        positions : (N, 3) float64, Å
        neighbors : (N, K) int64
            Full list; padding repeats the atom's own index.
        offsets : (N, K, 3) float64, Å
            Lattice translation of the neighbor's image; padding points beyond the cutoff.

        Returns
        -------
        energies : (N,) float64, eV
        forces : (N, 3) float, eV/Å
        virials : (N, 3, 3) float, eV
            Their sum over a structure, divided by its volume, is the stress.
        """
        energies, evaluation = self.network.evaluate(numbers, positions, neighbors, offsets)
        gradients = self.network.pair_gradients(evaluation)
        vectors = evaluation.geometry.vectors
        virials = 0.5 * (gradients @ vectors.transpose(1, 2))
        return energies, gradients.sum(2), virials
