"""Run students with sums over pairs compiled for this processor: for hundreds of atoms at once."""

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from ase_student.backends.devices import set_threads
from ase_student.backends.interface import Results
from ase_student.backends.metadata import decode, describe, encode
from ase_student.networks import build_network
from ase_student.networks.kernels import CompiledNetwork
from ase_student.networks.painn import PaiNN
from ase_student.student import Architecture, Student


class CompiledBackend:
    """A potential in torch and C++, in float32 on the CPU; forces by torch's autograd.

    Parameters
    ----------
    student : Student
    name : str
    device : str
    dtype : str
    threads : int or None
        Sums over pairs take one thread whatever is given.

    Raises
    ------
    ValueError
        If another precision, device or family of students is asked for.
    ImportError
        If there is no C++ compiler.

    Notes
    -----
    The process keeps up to half a GiB of memory that it frees, see
    :mod:`ase_student.networks.kernels.memory`.
    """

    backend = "compiled"
    device = "cpu"

    def __init__(
        self,
        student: Student,
        name: str,
        device: str = "auto",
        dtype: str = "float32",
        threads: int | None = None,
    ):
        if device not in ("auto", "cpu") or dtype != "float32":
            raise ValueError(
                f"backend 'compiled' computes in float32 on the CPU; given {dtype} and device "
                f"'{device}'."
            )
        if student.architecture.family != Architecture.family:
            raise ValueError(
                f"backend 'compiled' runs students of the family '{Architecture.family}'; "
                f"'{name}' is of the first generation."
            )
        set_threads(threads)
        self.info = decode(encode(describe(student, name, dtype)), name)
        network = cast(PaiNN, build_network(student)).requires_grad_(False)
        self._network = CompiledNetwork(network)

    def evaluate(
        self,
        numbers: NDArray[np.int64],
        positions: NDArray[np.float64],
        neighbors: NDArray[np.int64],
        offsets: NDArray[np.float64],
    ) -> Results:
        """Return energies, forces and virials; see :class:`ase_student.backends.Backend`."""
        inputs = [torch.from_numpy(array) for array in (numbers, positions, neighbors, offsets)]
        pairs, vectors = self._network.pairs(*inputs[1:])
        vectors.requires_grad_()
        energies = self._network.energies(inputs[0], pairs, vectors)
        (gradients,) = torch.autograd.grad(energies.sum(), vectors)
        first, second = pairs
        forces = torch.zeros_like(inputs[1])
        forces.index_add_(0, first, gradients).index_add_(0, second, gradients, alpha=-1.0)
        # Half of a pair's virial belongs to each of its atoms.
        halves = 0.5 * gradients.unsqueeze(2) * vectors.detach().unsqueeze(1)
        virials = forces.new_zeros(len(forces), 3, 3)
        virials.index_add_(0, first, halves).index_add_(0, second, halves)
        return energies.detach().numpy(), forces.numpy(), virials.numpy()
