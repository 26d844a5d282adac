"""PaiNN on a neighbor matrix, with its forces and virials written out by hand.

The network is PaiNN (Schütt, Unke and Gastegger, ICML 2021, arXiv:2102.03150) with four changes,
the first two to spend less work on every pair, the third to be smooth, the fourth to see angles:

- the first interaction, whose senders are bare elements, has a radial function for every pair of
  element channel and feature instead of a product of an embedding and a filter, and its sums over
  neighbors run over the few element channels;
- later interactions send messages through fewer channels than an atom has features;
- the filters have no bias, so they vanish at the cutoff with the envelope, whatever the weights;
- the first interaction also gathers second moments, whose norms tell a line from a right angle,
  which no product of vectors does.

Every block has a ``forward`` and a ``backward``. The backward passes gather and sum over neighbors
only. They rest on the symmetry of the neighbor list: if the image of j is in the row of i, then
that of i is in the row of j, at the same distance and in the opposite direction. Each atom can
therefore collect what its neighbors received from it without scattering. Autograd through
:class:`PaiNN` gives the same forces; a test holds the two together.

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
from torch.nn.functional import embedding

from ase_student.networks.geometry import (
    PairGeometry,
    RadialBasis,
    contracted,
    pair_geometry,
    quadrics,
)
from ase_student.networks.repulsion import Repulsion, bond_lengths
from ase_student.student import Architecture

Cache = tuple[Tensor, ...]


class Pairs(NamedTuple):
    """What the blocks need of the neighbor matrix.

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


def _second_degree(directions: Tensor) -> Tensor:
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


class Perceptron(nn.Module):
    """Two linear layers with SiLU between them."""

    def __init__(self, n_in: int, n_hidden: int, n_out: int):
        super().__init__()
        self.first = nn.Linear(n_in, n_hidden)
        self.second = nn.Linear(n_hidden, n_out)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Cache]:
        """Return the outputs and the cache for :meth:`backward`."""
        hidden = self.first(inputs)
        gate = torch.sigmoid(hidden)
        active = hidden * gate
        return self.second(active), (gate, active)

    def backward(self, gradient: Tensor, cache: Cache) -> Tensor:
        """Return the gradient by the inputs from that by the outputs."""
        gate, active = cache
        # SiLU'(x) = σ(x) (1 + x (1 − σ(x))) = σ + SiLU (1 − σ)
        slope = gate + active * (1.0 - gate)
        return ((gradient @ self.second.weight) * slope) @ self.first.weight


class ElementInteraction(nn.Module):
    """First interaction: scalars and vectors from the elements around each atom.

    With h_c(j) the element channels of neighbor j, and own embedding e:
    s_i = e_i + Σ_j Σ_nc g_n(d_ij) h_c(j) B_nc,  v_i = Σ_j Σ_nc u_ij g_n(d_ij) h_c(j) B'_nc.

    If the architecture has tensor channels, :class:`SecondMoments` add to both.
    """

    def __init__(self, shape: Architecture):
        super().__init__()
        n_elements, n_features = len(shape.elements), shape.features
        self.n_rbf = shape.n_rbf
        self.embedding = nn.Parameter(0.5 * torch.randn(n_elements, n_features))
        # The identity when every element has a channel of its own.
        channels = torch.eye(n_elements, shape.element_channels)
        if shape.element_channels < n_elements:
            channels = 0.7 * torch.randn(n_elements, shape.element_channels)
        self.channels = nn.Parameter(channels)
        n_moments = self.n_rbf * shape.element_channels
        self.scalars = nn.Linear(n_moments, n_features, bias=False)
        self.vectors = nn.Linear(n_moments, n_features, bias=False)
        self.moments = SecondMoments(shape) if shape.tensor_channels else None

    def forward(self, species: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor, Cache]:
        """Return scalars (N, F), vectors (N, 3, F) and the cache for :meth:`backward`."""
        senders = pairs.gather(self.channels.index_select(0, species))
        scalars = self.embedding.index_select(0, species)
        scalars = scalars + self.scalars(pairs.sum_radial(senders).flatten(1))
        vectors = self.vectors(pairs.sum_angular(senders).transpose(1, 2).flatten(2))
        if self.moments is None:
            return scalars, vectors, (senders, species)
        moments = pairs.sum_tensorial(senders).transpose(1, 2).flatten(2)
        scalars, vectors, cache = self.moments(moments, scalars, vectors)
        return scalars, vectors, (senders, species, *cache)

    def backward(
        self, by_scalars: Tensor, by_vectors: Tensor, cache: Cache, pairs: Pairs
    ) -> Coefficients:
        """Return the pair coefficients from the gradients by scalars and vectors."""
        senders, species, *rest = cache
        by_moments = []
        if self.moments is not None:
            by_vectors, by_seconds = self.moments.backward(by_scalars, by_vectors, tuple(rest))
            by_moments = [self._by_component(by_seconds)]
        # Moments of one, three and five components; from j to i those of three change sign.
        gradients = [
            self._by_component((by_scalars @ self.scalars.weight).unsqueeze(1)),
            self._by_component(by_vectors @ self.vectors.weight),
            *by_moments,
        ]
        signs = (1.0, -1.0, 1.0)[: len(gradients)]
        # j receives from i: contract the moments of j with the channels of every element once,
        # then look up the element of i.
        n_elements = self.channels.shape[0]
        rows = pairs.neighbors * n_elements + species.unsqueeze(1)
        signed = torch.cat([sign * one for sign, one in zip(signs, gradients, strict=True)], dim=1)
        table = (self.channels @ signed.transpose(1, 2)).reshape(-1, signed.shape[1])
        others = embedding(rows, table).transpose(1, 2)
        # i receives from j: contract the moments of i with the channels of j.
        parts = others.split([one.shape[1] for one in gradients], dim=1)
        n_atoms, _, n_neighbors = others.shape
        sums = [
            (one @ senders.transpose(1, 2) + other).reshape(n_atoms, self.n_rbf, -1, n_neighbors)
            for one, other in zip(gradients, parts, strict=True)
        ]
        return Coefficients(sums[0].squeeze(2), *sums[1:])

    def _by_component(self, gradient: Tensor) -> Tensor:
        """Return the gradient (N, A, R C) by moments of A components as (N, R A, C)."""
        n_atoms, n_components, _ = gradient.shape
        apart = gradient.reshape(n_atoms, n_components, self.n_rbf, -1).transpose(1, 2)
        return apart.reshape(n_atoms, self.n_rbf * n_components, -1)


class SecondMoments(nn.Module):
    """What the second moments of the surroundings add to scalars and vectors.

    With y(u) half the :func:`quadrics` of a direction, t_i = Σ_j Σ_nc y(u_ij) g_n h_c(j) M_nc, its
    norm ‖t‖² = 3 (t_0² + t_1² + t_2²) + t_3² + t_4² − t_3 t_4, which no rotation changes, and t v
    the symmetric matrix that t stands for times a vector: Δs_i = S √(‖t_i‖² + 1) and
    Δv_i = V (t_i W v_i).
    """

    def __init__(self, shape: Architecture):
        super().__init__()
        n_features, n_channels = shape.features, shape.tensor_channels
        self.mixes = nn.Linear(shape.n_rbf * shape.element_channels, n_channels, bias=False)
        self.vector_mixes = nn.Linear(n_features, n_channels, bias=False)
        self.scalars = nn.Linear(n_channels, n_features, bias=False)
        self.vectors = nn.Linear(n_channels, n_features, bias=False)

    def forward(
        self, moments: Tensor, scalars: Tensor, vectors: Tensor
    ) -> tuple[Tensor, Tensor, Cache]:
        """Return the new scalars and vectors and the cache for :meth:`backward`.

        Parameters
        ----------
        moments : (N, 5, R C) float
        scalars : (N, F) float
        vectors : (N, 3, F) float
        """
        mixed = self.mixes(moments)
        matrices = self._matrices(mixed)
        norms = torch.sqrt((matrices * mixed).sum(1) + 1.0)
        turned = self.vector_mixes(vectors)
        vectors = vectors + self.vectors(contracted(matrices, turned))
        return scalars + self.scalars(norms), vectors, (matrices, norms, turned)

    def backward(
        self, by_scalars: Tensor, by_vectors: Tensor, cache: Cache
    ) -> tuple[Tensor, Tensor]:
        """Return the gradients by the vectors and by the moments; that by the scalars stays."""
        matrices, norms, turned = cache
        by_norms = by_scalars @ self.scalars.weight
        by_products = by_vectors @ self.vectors.weight
        by_mixed = matrices * (by_norms / norms).unsqueeze(1)
        by_mixed = by_mixed + self._matrices(quadrics(turned, by_products))
        by_turned = contracted(matrices, by_products)
        return by_vectors + by_turned @ self.vector_mixes.weight, by_mixed @ self.mixes.weight

    @staticmethod
    def _matrices(mixed: Tensor) -> Tensor:
        """Return half the derivatives of ‖t‖² by t: what :func:`contracted` takes for matrices."""
        straight, crossed = mixed[:, 3:], mixed[:, 3:].flip(1)
        return torch.cat([3.0 * mixed[:, :3], straight - 0.5 * crossed], dim=1)


class Interaction(nn.Module):
    """PaiNN message block (paper, eqs. 7 and 8) through ``message_channels`` channels.

    With a, b, c = MLP(s), filters W = g A, and w = b ∘ V v:
    Δs_i = O Σ_j a_j ∘ W¹_ij,  Δv_i = O' Σ_j (w_j ∘ W²_ij + u_ij c_j ∘ W³_ij).
    """

    def __init__(self, shape: Architecture):
        super().__init__()
        n_features, n_messages = shape.features, shape.message_channels
        self.senders = Perceptron(n_features, shape.hidden, 3 * n_messages)
        self.vector_senders = nn.Linear(n_features, n_messages, bias=False)
        self.filters = nn.Parameter(torch.randn(3, shape.n_rbf, n_messages) * shape.n_rbf**-0.5)
        self.scalars = nn.Linear(n_messages, n_features, bias=False)
        self.vectors = nn.Linear(n_messages, n_features, bias=False)

    def forward(
        self, scalars: Tensor, vectors: Tensor, pairs: Pairs
    ) -> tuple[Tensor, Tensor, Cache]:
        """Return the new scalars and vectors and the cache for :meth:`backward`."""
        n_atoms, width = scalars.shape[0], self.filters.shape[2]
        gates, hidden = self.senders(scalars)
        plain, gate, directed = gates.chunk(3, dim=1)
        carriers = self.vector_senders(vectors)
        carried = (carriers * gate.unsqueeze(1)).reshape(n_atoms, 3 * width)
        # What is summed with radial functions goes as one message of 4 M channels.
        sent = torch.cat([plain, carried], dim=1)
        sent_j, directed_j = pairs.gather(sent), pairs.gather(directed)
        sums = (pairs.sum_radial(sent_j) * self._radial_filters()).sum(1)
        directed_sums = (pairs.sum_angular(directed_j) * self.filters[2].unsqueeze(1)).sum(1)
        vector_sums = sums[:, width:].reshape(n_atoms, 3, width) + directed_sums
        return (
            scalars + self.scalars(sums[:, :width]),
            vectors + self.vectors(vector_sums),
            (gate, directed, carriers, sent, sent_j, directed_j, *hidden),
        )

    def backward(
        self, by_scalars: Tensor, by_vectors: Tensor, cache: Cache, pairs: Pairs
    ) -> tuple[Tensor, Tensor, Coefficients]:
        """Return the gradients by the block's inputs and the pair coefficients."""
        gate, directed, carriers, sent, sent_j, directed_j, *hidden = cache
        n_atoms, width = directed.shape
        filters = self._radial_filters()
        into_vectors = by_vectors @ self.vectors.weight
        received = torch.cat(
            [by_scalars @ self.scalars.weight, into_vectors.reshape(n_atoms, 3 * width)], dim=1
        )
        received_j = pairs.gather(received)
        into_vectors_j = pairs.gather_by_axis(into_vectors)
        # What the neighbors received from this atom; they saw it in the opposite direction.
        by_sent = (pairs.sum_radial(received_j) * filters).sum(1)
        by_carried = by_sent[:, width:].reshape(n_atoms, 3, width)
        by_directed = -(pairs.sum_projected(into_vectors_j) * self.filters[2]).sum(1)
        by_gates = torch.cat(
            [by_sent[:, :width], (by_carried * carriers).sum(1), by_directed], dim=1
        )
        # Both directions of every pair: what i has received from j, and j from i.
        radial = _contract(filters * received.unsqueeze(1), sent_j)
        radial = radial + _contract(filters * sent.unsqueeze(1), received_j)
        into = (self.filters[2].unsqueeze(1) * into_vectors.unsqueeze(1)).reshape(
            n_atoms, -1, width
        )
        angular = _contract(into, directed_j).reshape(pairs.angular.shape)
        angular = angular - _contract(
            self.filters[2] * directed.unsqueeze(1), into_vectors_j
        ).reshape(pairs.angular.shape)
        return (
            by_scalars + self.senders.backward(by_gates, tuple(hidden)),
            by_vectors + (by_carried * gate.unsqueeze(1)) @ self.vector_senders.weight,
            Coefficients(radial, angular),
        )

    def _radial_filters(self) -> Tensor:
        """Return the filters of the plain channels and of the three axes of the carried ones."""
        carried = self.filters[1]
        return torch.cat([self.filters[0], carried, carried, carried], dim=1)


def _contract(own: Tensor, neighbors: Tensor) -> Tensor:
    """Return Σ_m own_nm neighbors_km for every atom: (N, R, M) and (N, K, M) to (N, R, K)."""
    return own @ neighbors.transpose(1, 2)


class Update(nn.Module):
    """PaiNN update block (paper, eqs. 9 and 10) with √(‖V v‖² + 1) for the norm.

    The norm has no kink where a vector vanishes by symmetry. The last block's vectors are not
    read by anything, so it has no parameters for them.
    """

    def __init__(self, shape: Architecture, is_last: bool):
        super().__init__()
        n_features = shape.features
        self.is_last = is_last
        self.mixes = nn.Linear(n_features, 2 * n_features, bias=False)
        n_out = (2 if is_last else 3) * n_features
        self.gates = Perceptron(2 * n_features, shape.hidden, n_out)

    def forward(self, scalars: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor, Cache]:
        """Return the new scalars and vectors and the cache for :meth:`backward`."""
        mix_u, mix_v = self.mixes(vectors).chunk(2, dim=2)
        norms = torch.sqrt((mix_v * mix_v).sum(1) + 1.0)
        dots = (mix_u * mix_v).sum(1)
        gates, hidden = self.gates(torch.cat([scalars, norms], dim=1))
        if self.is_last:
            by_self, by_dots = gates.chunk(2, dim=1)
            by_vectors = by_dots  # not used
        else:
            by_self, by_dots, by_vectors = gates.chunk(3, dim=1)
            vectors = vectors + by_vectors.unsqueeze(1) * mix_u
        cache = (mix_u, mix_v, norms, dots, by_dots, by_vectors, *hidden)
        return scalars + by_self + by_dots * dots, vectors, cache

    def backward(
        self, by_scalars: Tensor, by_vectors: Tensor | None, cache: Cache
    ) -> tuple[Tensor, Tensor]:
        """Return the gradients by the block's inputs; the last block takes no ``by_vectors``."""
        mix_u, mix_v, norms, dots, gate_dots, gate_vectors, *hidden = cache
        by_gates = [by_scalars, by_scalars * dots]
        into_dots = (by_scalars * gate_dots).unsqueeze(1)
        by_mix_u = into_dots * mix_v
        if by_vectors is not None:
            by_gates.append((by_vectors * mix_u).sum(1))
            by_mix_u = by_mix_u + by_vectors * gate_vectors.unsqueeze(1)
        by_inputs = self.gates.backward(torch.cat(by_gates, dim=1), tuple(hidden))
        direct, by_norms = by_inputs.chunk(2, dim=1)
        by_mix_v = into_dots * mix_u + (by_norms / norms).unsqueeze(1) * mix_v
        through_mixes = torch.cat([by_mix_u, by_mix_v], dim=2) @ self.mixes.weight
        if by_vectors is not None:
            through_mixes = through_mixes + by_vectors
        return by_scalars + direct, through_mixes


class PaiNN(nn.Module):
    """The student network: energies of atoms from their surroundings.

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
    ) -> tuple[Tensor, "Evaluation"]:
        """Return the energies and all that the backward pass reads again."""
        geometry = pair_geometry(positions, neighbors, offsets, self.first.embedding.dtype)
        species = self.species_of.index_select(0, numbers)
        own, others = self.repulsion.pair_rows(species, neighbors)
        repulsion, repulsion_slopes = self.repulsion(own, others, geometry.distances)
        radial, radial_slopes = self.radial_functions(own, others, geometry.distances)
        by_function = radial.unsqueeze(2)
        pairs = Pairs(neighbors, radial, by_function * geometry.directions.unsqueeze(1))
        if self.first.moments is not None:
            tensorial = by_function * _second_degree(geometry.directions).unsqueeze(1)
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
        return energies, Evaluation(geometry, radial_slopes, repulsion_slopes, pairs, caches)

    def radial_functions(
        self, own: Tensor, others: Tensor, distances: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the radial functions of every pair and their slopes, (N, R, K) each.

        Parameters
        ----------
        own, others : (N, 3, 1) and (N, 3, K) float
            See :meth:`Repulsion.pair_rows`.
        distances : (N, 1, K) float, Å
        """
        fraction = self.shape.inner_cutoff
        nearest = fraction * bond_lengths(own, others) if fraction else None
        radial, slopes = self.basis(distances, nearest)
        return radial, slopes

    def _later_blocks(self) -> list[tuple[Interaction, Update]]:
        """Return the interactions and updates after the first, in order."""
        blocks = list(zip(self.interactions, self.updates[1:], strict=True))
        return cast(list[tuple[Interaction, Update]], blocks)

    def pair_gradients(self, evaluation: "Evaluation") -> Tensor:
        """Return dE/dr for the vector r to every neighbor, (N, 3, K), eV/Å, by hand."""
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
            # Only the first block, which comes last here, has tensorial ones.
            total = Coefficients(
                total.radial + share.radial, total.angular + share.angular, share.tensorial
            )
        return pair_derivatives(total, geometry, pairs.radial, radial_slopes, repulsion_slopes)


class Evaluation(NamedTuple):
    """Intermediate results of a forward pass."""

    geometry: PairGeometry
    radial_slopes: Tensor
    repulsion_slopes: Tensor
    pairs: Pairs
    caches: list[Cache]


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
        y = _second_degree(directions)
        projected = projected + (coefficients.tensorial * y.unsqueeze(1)).sum(2)
        by_quadrics = (radial.unsqueeze(2) * coefficients.tensorial).sum(1)
        by_directions = by_directions + contracted(by_quadrics, directions)
    along = (radial_slopes * (coefficients.radial + projected)).sum(1, keepdim=True)
    turning = by_directions / geometry.distances
    along = along + repulsion_slopes - (directions * turning).sum(1, keepdim=True)
    return directions * along + turning


class PaiNNPotential(nn.Module):
    """Energies, forces and virials by the hand-written pass: what runs and what is exported.

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
        """Evaluate one structure, or several that do not see each other.

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
            Summed over a structure and divided by its volume they are the stress.
        """
        energies, evaluation = self.network.evaluate(numbers, positions, neighbors, offsets)
        gradients = self.network.pair_gradients(evaluation)
        vectors = evaluation.geometry.vectors
        virials = 0.5 * (gradients @ vectors.transpose(1, 2))
        return energies, gradients.sum(2), virials
