"""The network of :mod:`ase_student.networks.painn` on a list of pairs, with compiled sums.

Weights, formulas and all that is done to single atoms are those of :class:`PaiNN`; a test holds the
two together. Every pair of atoms is in the list once and counts in both directions, so that
its radial functions and filters are computed once. Derivatives are of first order only.
"""

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ase_student.networks.blocks import Interaction, Update
from ase_student.networks.kernels.build import PairKernels
from ase_student.networks.kernels.memory import keep_freed_memory
from ase_student.networks.painn import PaiNN


def pair_list(
    positions: Tensor, neighbors: Tensor, offsets: Tensor, cutoff: float
) -> tuple[Tensor, Tensor]:
    """Return the pairs within the cutoff of a full neighbor matrix, each once.

    Parameters
    ----------
    positions : (N, 3) float64, Å
    neighbors : (N, K) int64
    offsets : (N, K, 3) float64, Å
    cutoff : float, Å

    Returns
    -------
    pairs : (2, P) int64
        The two atoms of each pair.
    places : (2, P) int64
        Row and column of each pair in the matrix.
    """
    own = torch.arange(len(neighbors), device=neighbors.device).unsqueeze(1)
    vectors = positions[neighbors] - positions.unsqueeze(1) + offsets
    # Of an atom and its own image that in the positive direction is taken: by the first component
    # of the offset that is not zero.
    x, y, z = offsets.unbind(2)
    is_positive = (x > 0) | ((x == 0) & ((y > 0) | ((y == 0) & (z > 0))))
    is_taken = (neighbors > own) | ((neighbors == own) & is_positive)
    is_taken &= (vectors * vectors).sum(2) < cutoff * cutoff
    rows, columns = is_taken.nonzero(as_tuple=True)
    return torch.stack([rows, neighbors[rows, columns]]), torch.stack([rows, columns])


class CompiledNetwork:
    """Energies of atoms by a network's own weights, differentiable once.

    Parameters
    ----------
    network : PaiNN
        In float32 on the CPU. Gradients accumulate in its parameters.

    Raises
    ------
    ImportError
        If the sums cannot be compiled here; see :class:`PairKernels`.
    """

    def __init__(self, network: PaiNN):
        shape = network.shape
        keep_freed_memory()
        self.network = network
        self.kernels = PairKernels(
            shape.n_rbf,
            shape.element_channels,
            shape.message_channels,
            n_components=8 if shape.tensor_channels else 3,
        )

    def __call__(
        self, numbers: Tensor, positions: Tensor, neighbors: Tensor, offsets: Tensor
    ) -> Tensor:
        """Return the energy of every atom in float64, eV, shape (N,); see :class:`PaiNN`."""
        pairs, vectors = self.pairs(positions, neighbors, offsets)
        return self.energies(numbers, pairs, vectors)

    def pairs(self, positions: Tensor, neighbors: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pairs within the cutoff, (2, P) int64, and their vectors, (P, 3) float64, Å.

        Parameters are those of :func:`pair_list`. A vector goes from the first atom of its pair to
        the second.
        """
        with torch.no_grad():
            pairs, places = pair_list(positions, neighbors, offsets, self.network.shape.cutoff)
        first, second = pairs
        return pairs, positions[second] - positions[first] + offsets[places[0], places[1]]

    def energies(self, numbers: Tensor, pairs: Tensor, vectors: Tensor) -> Tensor:
        """Return the energy of every atom in float64, eV, shape (N,).

        Parameters
        ----------
        numbers : (N,) int64
        pairs : (2, P) int64
        vectors : (P, 3) float64, Å
        """
        network = self.network
        first, second = pairs
        vectors = vectors.to(torch.float32)
        distances = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
        directions = vectors / distances
        species = network.species_of.index_select(0, numbers)
        # As if all pairs were the neighbors of one atom: arrays are (1, ..., P).
        apart = distances.t().unsqueeze(0)
        own, other = network.repulsion.table[species[pairs]].transpose(1, 2).unsqueeze(1)
        radial = network.radial_functions(own, other, apart)[0][0].t().contiguous()
        scalars, vectors = self._first_block(species, pairs, radial, directions)
        updates = cast(list[Update], list(network.updates))
        interactions = cast(list[Interaction], list(network.interactions))
        scalars, vectors, _ = updates[0](scalars, vectors)
        for interaction, update in zip(interactions, updates[1:], strict=True):
            scalars, vectors = self._interact(
                interaction, scalars, vectors, pairs, radial, directions
            )
            scalars, vectors, _ = update(scalars, vectors)
        energies = network.readout(scalars)[0].squeeze(1)
        # Half of a pair's repulsion belongs to each of its atoms.
        halves = 0.5 * network.repulsion(own, other, apart)[0].flatten()
        energies = energies.index_add(0, first, halves).index_add(0, second, halves)
        return energies.to(torch.float64) + network.reference.index_select(0, numbers)

    def _first_block(
        self, species: Tensor, indices: Tensor, radial: Tensor, directions: Tensor
    ) -> tuple[Tensor, Tensor]:
        block = self.network.first
        senders = block.channels.index_select(0, species)
        moments = _ElementMoments.apply(self.kernels, indices, radial, directions, senders)
        zeroth, first, second = cast(tuple[Tensor, Tensor, Tensor], moments)
        scalars = block.embedding.index_select(0, species) + block.scalars(zeroth)
        vectors = block.vectors(first)
        if block.moments is not None:
            scalars, vectors, _ = block.moments(second, scalars, vectors)
        return scalars, vectors

    def _interact(
        self,
        block: Interaction,
        scalars: Tensor,
        vectors: Tensor,
        indices: Tensor,
        radial: Tensor,
        directions: Tensor,
    ) -> tuple[Tensor, Tensor]:
        n_atoms, width = len(scalars), block.filters.shape[2]
        gates, _ = block.senders(scalars)
        plain, gate, directed = gates.chunk(3, dim=1)
        carried = (block.vector_senders(vectors) * gate.unsqueeze(1)).reshape(n_atoms, 3 * width)
        filters = radial @ block.filters.transpose(0, 1).reshape(-1, 3 * width)
        sent = torch.cat([plain, carried], dim=1)
        sums = cast(
            Tensor,
            _Messages.apply(
                self.kernels, indices, filters, directions, sent, directed.contiguous()
            ),
        )
        # Of an array that is not contiguous torch makes one product for every atom.
        vector_sums = sums[:, width:].contiguous().reshape(n_atoms, 3, width)
        return scalars + block.scalars(sums[:, :width]), vectors + block.vectors(vector_sums)


def _gradients_by(inputs: list[Tensor]) -> list[Tensor]:
    """Return arrays for gradients; of the inputs two are of pairs, whose gradients are set."""
    of_pairs, of_atoms = inputs[:2], inputs[2:]
    return [*map(torch.empty_like, of_pairs), *map(torch.zeros_like, of_atoms)]


class _ElementMoments(torch.autograd.Function):
    """Sums over pairs of the first interaction: (N, R C), (N, 3, R C) and (N, A - 3, R C)."""

    @staticmethod
    def forward(
        ctx: Any,
        kernels: PairKernels,
        indices: Tensor,
        radial: Tensor,
        directions: Tensor,
        senders: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        n_atoms, n_moments = len(senders), senders.shape[1] * kernels.n_rbf
        scalars = senders.new_zeros(n_atoms, n_moments)
        angular = senders.new_zeros(n_atoms, kernels.n_components, n_moments)
        kernels.call("element_moments", indices, radial, directions, senders, scalars, angular)
        ctx.kernels = kernels
        ctx.save_for_backward(indices, radial, directions, senders)
        return scalars, angular[:, :3].contiguous(), angular[:, 3:].contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *by_outputs: Tensor) -> tuple[Tensor | None, ...]:
        indices, *inputs = ctx.saved_tensors
        gradients = _gradients_by(inputs)
        by_scalars, *by_angular = by_outputs
        by_moments = [by_scalars.contiguous(), torch.cat(by_angular, dim=1)]
        ctx.kernels.call("element_gradients", indices, *inputs, *by_moments, *gradients)
        return (None, None, *gradients)


class _Messages(torch.autograd.Function):
    """Sums over pairs of a later interaction: (N, 4 M), the plain ones and those by axis."""

    @staticmethod
    def forward(
        ctx: Any,
        kernels: PairKernels,
        indices: Tensor,
        filters: Tensor,
        directions: Tensor,
        sent: Tensor,
        directed: Tensor,
    ) -> Tensor:
        sums = torch.zeros_like(sent)
        kernels.call("messages", indices, filters, directions, sent, directed, sums)
        ctx.kernels = kernels
        ctx.save_for_backward(indices, filters, directions, sent, directed)
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *by_outputs: Tensor) -> tuple[Tensor | None, ...]:
        indices, *inputs = ctx.saved_tensors
        gradients = _gradients_by(inputs)
        by_sums = by_outputs[0].contiguous()
        ctx.kernels.call("message_gradients", indices, *inputs, by_sums, *gradients)
        return (None, None, *gradients)
