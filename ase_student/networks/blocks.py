"""The blocks of PaiNN, each with an analytic backward pass."""

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from ase_student.networks.geometry import contracted, quadrics
from ase_student.networks.pairs import Cache, Coefficients, Pairs, contract
from ase_student.student import Architecture


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
        """Return the gradient by the inputs from the gradient by the outputs."""
        gate, active = cache
        # SiLU'(x) = σ(x) (1 + x (1 − σ(x))) = σ + SiLU (1 − σ)
        slope = gate + active * (1.0 - gate)
        return ((gradient @ self.second.weight) * slope) @ self.first.weight


class ElementInteraction(nn.Module):
    """First interaction: scalars and vectors from the elements around each atom.

    With h_c(j) the element channels of neighbor j, and own embedding e:
    s_i = e_i + Σ_j Σ_nc g_n(d_ij) h_c(j) B_nc,  v_i = Σ_j Σ_nc u_ij g_n(d_ij) h_c(j) B'_nc.

    If the architecture has tensor channels, :class:`SecondMoments` are added to both.
    """

    def __init__(self, shape: Architecture):
        super().__init__()
        n_elements, n_features = len(shape.elements), shape.features
        self.n_rbf = shape.n_rbf
        self.embedding = nn.Parameter(0.5 * torch.randn(n_elements, n_features))
        # The identity if every element has a channel of its own.
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
        senders, species, *moments_cache = cache
        by_moments = []
        if self.moments is not None:
            by_vectors, by_seconds = self.moments.backward(
                by_scalars, by_vectors, tuple(moments_cache)
            )
            by_moments = [self._by_component(by_seconds)]
        # Moments of one, three and five components; from j to i those of three change their sign.
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
        signed = torch.cat(
            [sign * gradient for sign, gradient in zip(signs, gradients, strict=True)], dim=1
        )
        table = (self.channels @ signed.transpose(1, 2)).reshape(-1, signed.shape[1])
        received = embedding(rows, table).transpose(1, 2)
        # i receives from j: contract the moments of i with the channels of j.
        parts = received.split([gradient.shape[1] for gradient in gradients], dim=1)
        n_atoms, _, n_neighbors = received.shape
        sums = [
            (gradient @ senders.transpose(1, 2) + part).reshape(
                n_atoms, self.n_rbf, -1, n_neighbors
            )
            for gradient, part in zip(gradients, parts, strict=True)
        ]
        return Coefficients(sums[0].squeeze(2), *sums[1:])

    def _by_component(self, gradient: Tensor) -> Tensor:
        """Return the gradient (N, A, R C) by moments of A components as (N, R A, C)."""
        n_atoms, n_components, _ = gradient.shape
        by_function = gradient.reshape(n_atoms, n_components, self.n_rbf, -1).transpose(1, 2)
        return by_function.reshape(n_atoms, self.n_rbf * n_components, -1)


class SecondMoments(nn.Module):
    """Contribution of second moments of an atom's environment to its scalars and vectors.

    With y(u) half the :func:`quadrics` of a direction, t_i = Σ_j Σ_nc y(u_ij) g_n h_c(j) M_nc, its
    norm ‖t‖² = 3 (t_0² + t_1² + t_2²) + t_3² + t_4² − t_3 t_4, which is invariant under rotations,
    and t v the product of the symmetric matrix with the components t and a vector:
    Δs_i = S √(‖t_i‖² + 1) and Δv_i = V (t_i W v_i).
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
        """Return the gradients by the vectors and by the moments; that by scalars is the same."""
        matrices, norms, turned = cache
        by_norms = by_scalars @ self.scalars.weight
        by_products = by_vectors @ self.vectors.weight
        by_mixed = matrices * (by_norms / norms).unsqueeze(1)
        by_mixed = by_mixed + self._matrices(quadrics(turned, by_products))
        by_turned = contracted(matrices, by_products)
        return by_vectors + by_turned @ self.vector_mixes.weight, by_mixed @ self.mixes.weight

    @staticmethod
    def _matrices(mixed: Tensor) -> Tensor:
        """Return half the derivatives of ‖t‖² by t, the matrices that :func:`contracted` takes."""
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
        # Everything that is summed with radial functions is sent as one message of 4 M channels.
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
        # What the neighbors received from this atom; for them its direction is the opposite one.
        by_sent = (pairs.sum_radial(received_j) * filters).sum(1)
        by_carried = by_sent[:, width:].reshape(n_atoms, 3, width)
        by_directed = -(pairs.sum_projected(into_vectors_j) * self.filters[2]).sum(1)
        by_gates = torch.cat(
            [by_sent[:, :width], (by_carried * carriers).sum(1), by_directed], dim=1
        )
        # Both directions of every pair: what i received from j, and j from i.
        radial = contract(filters * received.unsqueeze(1), sent_j)
        radial = radial + contract(filters * sent.unsqueeze(1), received_j)
        into = (self.filters[2].unsqueeze(1) * into_vectors.unsqueeze(1)).reshape(
            n_atoms, -1, width
        )
        angular = contract(into, directed_j).reshape(pairs.angular.shape)
        angular = angular - contract(
            self.filters[2] * directed.unsqueeze(1), into_vectors_j
        ).reshape(pairs.angular.shape)
        return (
            by_scalars + self.senders.backward(by_gates, tuple(hidden)),
            by_vectors + (by_carried * gate.unsqueeze(1)) @ self.vector_senders.weight,
            Coefficients(radial, angular),
        )

    def _radial_filters(self) -> Tensor:
        """Return the filters of the plain channels and of the three axes of the vector channels."""
        carried = self.filters[1]
        return torch.cat([self.filters[0], carried, carried, carried], dim=1)


class Update(nn.Module):
    """PaiNN update block (paper, eqs. 9 and 10) with √(‖V v‖² + 1) for the norm.

    This norm is differentiable where a vector vanishes by symmetry. The vectors of the last block
    are not used, so it has no parameters for them.
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
