"""The network of :mod:`ase_student.networks.painn` on lists of pairs, compiled.

Weights and formulas are those of :class:`PaiNN`; tests compare the two. Every pair of atoms is in
the list once and counts in both directions, so that its radial functions and filters are computed
once. Derivatives are of first order, by positions and by all weights.
"""

import ctypes
import weakref
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_student.networks.geometry import RadialBasis
from ase_student.networks.kernels.build import compile_network
from ase_student.networks.painn import PaiNN

#: Structures are computed together up to this number of atoms, so that activations fit the cache.
CHUNK = 64


class PairList(NamedTuple):
    """The pairs of a structure within the cutoff, each once, ordered by the first atom.

    Attributes
    ----------
    first, second : (n_pairs,) int32
    shifts : (n_pairs, 3) float64, Å, or None
        Lattice translation of the second atom's image; None if all are zero.
    """

    first: NDArray[np.int32]
    second: NDArray[np.int32]
    shifts: NDArray[np.float64] | None


def pair_list(
    positions: NDArray[np.float64],
    neighbors: NDArray[np.integer],
    offsets: NDArray[np.float64] | None,
    cutoff: float,
) -> PairList:
    """Return the pairs of a full neighbor matrix.

    Parameters
    ----------
    positions : (N, 3) float64, Å
    neighbors : (N, K) int
    offsets : (N, K, 3) float64, Å, or None
        None if there are no images.
    cutoff : float, Å
    """
    atoms = np.arange(len(neighbors))[:, None]
    is_taken = neighbors > atoms
    if offsets is not None:
        # Of the two pairs of an atom with opposite images of itself, take the pair in which the
        # first component of the offset that is not zero is positive.
        x, y, z = offsets[..., 0], offsets[..., 1], offsets[..., 2]
        is_positive = (x > 0) | ((x == 0) & ((y > 0) | ((y == 0) & (z > 0))))
        is_taken |= (neighbors == atoms) & is_positive
    rows, columns = np.nonzero(is_taken)
    partners = neighbors[rows, columns]
    vectors = positions[partners] - positions[rows]
    shifts = None
    if offsets is not None:
        shifts = offsets[rows, columns]
        vectors = vectors + shifts
    is_near = (vectors * vectors).sum(1) < cutoff * cutoff
    return PairList(
        rows[is_near].astype(np.int32),
        partners[is_near].astype(np.int32),
        None if shifts is None or not shifts.any() else shifts[is_near],
    )


@dataclass(frozen=True)
class PairStructures:
    """Several structures with their lists of pairs, one after another.

    Attributes
    ----------
    numbers : (n_atoms,) int64
    positions : (n_atoms, 3) float64, Å
    pairs : PairList
        Pairs of all structures; indices count the atoms of all structures.
    atom_splits, pair_splits : (n_structures + 1,) int64
        Index of the first atom and of the first pair of each structure.
    """

    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    pairs: PairList
    atom_splits: NDArray[np.int64]
    pair_splits: NDArray[np.int64]


class PairResults(NamedTuple):
    """Results of a compiled network.

    Attributes
    ----------
    energies : (n_atoms,) float64, eV
    forces : (n_atoms, 3) float64, eV/Å, or None
    virials : (n_atoms, 3, 3) float64, eV, or None
    gradient : (n_weights,) float32 Tensor, eV, or None
        Gradient of the weighted sum of energies by all weights, joined in their order.
    """

    energies: NDArray[np.float64]
    forces: NDArray[np.float64] | None
    virials: NDArray[np.float64] | None
    gradient: Tensor | None


class CompiledNetwork:
    """Energies, forces and gradients by the weights of a network, on one thread.

    Parameters
    ----------
    network : PaiNN
        Network in float32 on the CPU.
    library : ctypes.CDLL, optional
        Compiled library of a network of the same shape; by default it is compiled.

    Raises
    ------
    ImportError
        If it cannot be compiled here; see :func:`compile_network`.
    TypeError
        If a weight is not a contiguous float32 array on the CPU.
    """

    def __init__(self, network: PaiNN, library: ctypes.CDLL | None = None):
        self.network = network
        self.weights = list(network.parameters())
        for weight in self.weights:
            is_readable = weight.dtype == torch.float32 and weight.is_contiguous()
            if weight.device.type != "cpu" or not is_readable:
                raise TypeError(
                    "a compiled network takes contiguous float32 weights on the CPU; given "
                    f"{weight.dtype} on {weight.device}."
                )
        self.library = compile_network(network.shape) if library is None else library
        repulsion = network.repulsion
        # These arrays must stay alive: the library reads them at every call.
        self._constants = [
            tensor.detach().contiguous().clone()
            for tensor in (repulsion.table, repulsion.weights, repulsion.rates)
        ]
        self._species_of = network.species_of.numpy().astype(np.int32)
        self._reference = network.reference.numpy().copy()
        shape = network.shape
        handle = self.library.network_new(
            shape.cutoff,
            shape.inner_cutoff,
            RadialBasis.RATE,
            *[tensor.data_ptr() for tensor in self._constants],
            CHUNK,
        )
        if not handle:
            raise MemoryError("not enough memory for a compiled network.")
        self._handle = ctypes.c_void_p(handle)
        weakref.finalize(self, self.library.network_delete, self._handle)
        self.read_weights()

    def read_weights(self) -> None:
        """Read the current weights of the network."""
        pointers = (ctypes.c_void_p * len(self.weights))(*[w.data_ptr() for w in self.weights])
        self._check(self.library.network_set_weights(self._handle, pointers))

    def evaluate(
        self,
        structures: PairStructures,
        *,
        seeds: NDArray[np.float64] | None = None,
        with_forces: bool = True,
        with_virials: bool = False,
        with_gradient: bool = False,
    ) -> PairResults:
        """Return the energies of all atoms, and the requested derivatives.

        Parameters
        ----------
        structures : PairStructures
        seeds : (n_atoms,) float64, optional
            Weights of the atoms' energies in the sum that is differentiated; 1 by default.
        with_forces, with_virials, with_gradient : bool
            Virials require forces.
        """
        n_atoms = len(structures.numbers)
        species = self._species_of[structures.numbers]
        energies = np.empty(n_atoms)
        forces = np.empty((n_atoms, 3)) if with_forces else None
        virials = np.empty((n_atoms, 3, 3)) if with_virials else None
        n_weights = sum(weight.numel() for weight in self.weights)
        gradient = torch.empty(n_weights) if with_gradient else None
        first, second, shifts = structures.pairs
        arrays = [
            _read(structures.atom_splits, np.int64),
            _read(structures.pair_splits, np.int64),
            species,
            _read(structures.positions, np.float64),
            _read(first, np.int32),
            _read(second, np.int32),
            None if shifts is None else _read(shifts, np.float64),
            None if seeds is None else _read(seeds, np.float64),
            energies,
            forces,
            virials,
        ]
        pointers = [None if array is None else array.ctypes.data for array in arrays]
        pointers.append(None if gradient is None else gradient.data_ptr())
        n_structures = len(structures.atom_splits) - 1
        self._check(self.library.network_evaluate(self._handle, n_structures, *pointers))
        energies += self._reference[structures.numbers]
        return PairResults(energies, forces, virials, gradient)

    def split(self, gradient: Tensor) -> list[Tensor]:
        """Return the gradient by each weight, as views of a joined gradient by all weights."""
        parts = gradient.split([weight.numel() for weight in self.weights])
        return [part.view_as(weight) for part, weight in zip(parts, self.weights, strict=True)]

    @staticmethod
    def _check(status: int) -> None:
        if status:
            raise MemoryError("not enough memory for a compiled network; use smaller batches.")


def _read(array: NDArray[Any], dtype: type) -> NDArray[Any]:
    return np.ascontiguousarray(array, dtype)
