"""Run students compiled for this processor: for hundreds of atoms at once."""

from typing import cast

import numpy as np
from numpy.typing import NDArray

from ase_student.backends.devices import set_threads
from ase_student.backends.interface import Results
from ase_student.backends.metadata import decode, describe, encode
from ase_student.networks import build_network
from ase_student.networks.kernels import CompiledNetwork, PairStructures, pair_list
from ase_student.networks.painn import PaiNN
from ase_student.student import Architecture, Student


class CompiledBackend:
    """A potential in C++, in float32 on the CPU.

    Parameters
    ----------
    student : Student
    name : str
    device : str
    dtype : str
    threads : int or None
        One thread is taken whatever is given.

    Raises
    ------
    ValueError
        If another precision, device or family of students is asked for.
    ImportError
        If there is no C++ compiler.
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
        self._network, self._cutoff = CompiledNetwork(network), network.shape.cutoff

    def evaluate(
        self,
        numbers: NDArray[np.int64],
        positions: NDArray[np.float64],
        neighbors: NDArray[np.int64],
        offsets: NDArray[np.float64],
    ) -> Results:
        """Return energies, forces and virials; see :class:`ase_student.backends.Backend`."""
        pairs = pair_list(positions, neighbors, offsets, self._cutoff)
        structures = PairStructures(
            numbers,
            positions,
            pairs,
            atom_splits=np.array([0, len(numbers)]),
            pair_splits=np.array([0, len(pairs.first)]),
        )
        results = self._network.evaluate(structures, with_virials=True)
        assert results.forces is not None
        assert results.virials is not None
        return results.energies, results.forces, results.virials
