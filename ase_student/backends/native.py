"""Run students in the C++ engine: the fastest backend on CPUs, without torch or ONNX Runtime.

Besides the method that all backends share, this backend computes whole steps: the engine has its
own neighbor list, and compares structures with the limits of the training data.
"""

import json
import os
import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from ase_student.backends.accelerators import torch_takes_gpu
from ase_student.backends.forks import renew_in_forks
from ase_student.backends.interface import Results
from ase_student.backends.metadata import info_of
from ase_student.checkpoint import (
    available_students,
    load_student,
    resolve_model,
    student_name,
)
from ase_student.engine.library import (
    UNSUPPORTED,
    EngineError,
    Handle,
    Step,
    Usual,
    default_threads,
    load_library,
    why_missing,
)
from ase_student.student import Architecture, Student

__all__ = ["NativeBackend", "NativeList", "open_native"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
# Most atoms in one call for many structures, to limit memory.
ATOMS_PER_CALL = 20_000


class NativeList:
    """Settings and counters of the engine's neighbor list, for a calculator.

    Parameters
    ----------
    cutoff, skin : float, Å

    Attributes
    ----------
    n_updates, n_rebuilds : int
        Number of steps, and number of those for which the list was built.
    """

    def __init__(self, cutoff: float, skin: float) -> None:
        if not 0.0 <= skin < np.inf:
            raise ValueError(f"the skin is {skin} Å; it must be zero or positive, and finite.")
        self._cutoff, self._skin = float(cutoff), float(skin)
        self.n_updates = 0
        self.n_rebuilds = 0

    @property
    def cutoff(self) -> float:
        """Largest distance of pairs, Å."""
        return self._cutoff

    @property
    def skin(self) -> float:
        """Distance by which lists reach beyond the cutoff, Å; fixed for a calculator."""
        return self._skin


class NativeBackend:
    """A potential in the C++ engine, with one neighbor list for steps and one for other calls.

    Parameters
    ----------
    student : Student
    name : str
    device : str
        'auto' or 'cpu'.
    dtype : str
    threads : int or None
        Largest number of threads; by default the number of processors that the process may use,
        at most OMP_NUM_THREADS. Small structures use one.
    isa : str, optional
        Instruction set, for example 'x86-64-v2'; by default the value of the environment variable
        ASE_STUDENT_ENGINE_ISA, or else the best of the processor.

    Attributes
    ----------
    isa : str
        Instruction set in use.

    Raises
    ------
    ValueError
        If the device is not a CPU, the student is of another family, or its radial functions are
        too narrow for the engine's tables.
    ImportError
        If the package was installed without the engine.
    """

    backend = "native"
    device = "cpu"

    def __init__(
        self,
        student: Student,
        name: str,
        device: str = "auto",
        dtype: str = "float32",
        threads: int | None = None,
        isa: str | None = None,
    ):
        if device not in ("auto", "cpu"):
            raise ValueError(f"backend 'native' runs on the CPU; given device '{device}'.")
        load_library()
        isa = isa or os.environ.get("ASE_STUDENT_ENGINE_ISA")
        if student.architecture.family != Architecture.family:
            raise ValueError(
                f"backend 'native' runs students of the family '{Architecture.family}'; "
                f"'{name}' is of the first generation."
            )
        self.info = info_of(student, name, dtype)
        try:
            self._steps = Handle(
                _content(student), dtype == "float32", threads or default_threads(), isa
            )
        except EngineError as error:
            raise EngineError(error.status, f"student '{name}': {error}.") from error
        self._others = self._steps.share()
        self.isa = self._steps.isa
        # ctypes releases Python's global lock during a call, so that other threads run meanwhile.
        self._lock = threading.Lock()
        self._limits: tuple[Floats, NDArray[np.int32], Floats] | None = None
        self._usual: Usual | None = None
        renew_in_forks(self)

    def renew_after_fork(self) -> None:
        """Make the backend usable in a forked process, in which the other threads are gone.

        If one of them was computing, the lock is never released and its neighbor list may be
        incomplete: both are replaced.
        """
        if not self._lock.locked():
            return
        self._lock = threading.Lock()
        self._steps, self._others = self._steps.share(), self._others.share()
        self._apply_limits()

    def set_limits(
        self,
        distances: Floats,
        counts: NDArray[np.integer],
        forces: Floats,
        usual: Usual | None = None,
    ) -> None:
        """Set the limits of the training data; results then report in bits what lies outside.

        Parameters
        ----------
        distances : (119, 119) float64, Å
            Smallest distance of a pair, by atomic numbers.
        counts : (119, 2) int
            Fewest and most neighbors within the cutoff.
        forces : (119,) float64, eV/Å
            Largest force on an atom.
        usual : Usual, optional
            Common bonds and distances, by the student's elements in ascending order.
        """
        numbers = np.array(self.info.elements)
        ranges = np.clip(counts[numbers], -(2**31), 2**31 - 1).astype(np.int32)
        self._limits = distances[np.ix_(numbers, numbers)], ranges, forces[numbers]
        self._usual = usual
        self._apply_limits()

    def _apply_limits(self) -> None:
        if self._limits is not None:
            for handle in (self._steps, self._others):
                handle.set_limits(*self._limits)
                if self._usual is not None:
                    handle.set_usual(self._usual)

    def step(
        self,
        numbers: Integers,
        positions: Floats,
        cell: Floats,
        pbc: NDArray[np.bool_],
        neighbor_list: NativeList,
    ) -> Step:
        """Compute a structure, and keep its neighbor list for the next step.

        Parameters
        ----------
        numbers : (N,) int64
        positions : (N, 3) float64, Å
        cell : (3, 3) float64, Å
        pbc : (3,) bool
        neighbor_list : NativeList
            Its counters are increased.

        Raises
        ------
        EngineError
            If the structure cannot be computed.
        """
        with self._lock:
            step = self._steps.compute(
                numbers,
                np.ascontiguousarray(positions, dtype=np.float64),
                np.ascontiguousarray(cell, dtype=np.float64),
                np.ascontiguousarray(pbc),
                neighbor_list.skin,
            )
        neighbor_list.n_updates += 1
        neighbor_list.n_rebuilds += step.is_rebuilt
        return step

    def compute_many(
        self,
        numbers: Sequence[Integers],
        positions: Sequence[Floats],
        cells: Sequence[Floats],
        pbc: Sequence[NDArray[np.bool_]],
    ) -> Step:
        """Compute structures that do not interact in one call.

        Raises
        ------
        EngineError
            If a structure cannot be computed.
        """
        with self._lock:
            return self._others.compute(
                np.concatenate(numbers).astype(np.int64, copy=False),
                np.ascontiguousarray(np.concatenate(positions), dtype=np.float64),
                np.ascontiguousarray(np.stack(cells), dtype=np.float64),
                np.ascontiguousarray(np.stack(pbc)),
                0.0,
                np.array([len(structure) for structure in numbers], dtype=np.int64),
            )

    def evaluate(
        self,
        numbers: NDArray[np.int64],
        positions: NDArray[np.float64],
        neighbors: NDArray[np.int64],
        offsets: NDArray[np.float64],
    ) -> Results:
        """Return energies, forces and virials; see :class:`ase_student.backends.Backend`.

        Raises
        ------
        ValueError
            If the neighbor matrix has only one direction of a pair.
        """
        n_atoms, n_columns = neighbors.shape
        own = np.arange(n_atoms).repeat(n_columns).reshape(neighbors.shape)
        # Padding is the atom itself, in an image beyond the cutoff.
        squares = np.einsum("ijk,ijk->ij", offsets, offsets)
        is_pair = (neighbors != own) | (squares < self.info.cutoff**2)
        rows = np.concatenate([[0], np.cumsum(is_pair.sum(axis=1))]).astype(np.int64)
        with self._lock:
            self._others.set_list(
                np.ascontiguousarray(numbers, dtype=np.int64),
                rows,
                np.ascontiguousarray(neighbors[is_pair]),
                np.ascontiguousarray(offsets[is_pair]),
            )
            return self._others.evaluate(np.ascontiguousarray(positions, dtype=np.float64))


def _content(student: Student) -> bytes:
    """Return the bytes of a student's file, without metadata about its training."""
    tensors = {name: np.asarray(tensor, order="C") for name, tensor in student.tensors.items()}
    return bytes(save(tensors, metadata={"ase_student": json.dumps(student.header())}))


def _is_of_this_generation(model: str | os.PathLike[str]) -> bool:
    """Return whether a model is a safetensors file; older checkpoints have other networks."""
    if model in available_students():
        return True
    with open(resolve_model(model), "rb") as file:
        return file.read(9)[8:] == b"{"


def open_native(
    model: str | os.PathLike[str], backend: str, device: str, dtype: str, threads: int | None
) -> NativeBackend | None:
    """Open a student for 'native', or for 'auto' if the engine is the best backend for it.

    Returns
    -------
    NativeBackend or None
        None for 'auto' if another backend must be used: on a GPU, without the engine, and for
        students that the engine cannot run.
    """
    is_requested = backend == "native"
    if not is_requested and not (
        device in ("auto", "cpu")
        and why_missing() is None
        and not torch_takes_gpu(device)
        and _is_of_this_generation(model)
    ):
        return None
    try:
        return NativeBackend(load_student(model), student_name(model), device, dtype, threads)
    except EngineError as error:
        is_required = is_requested or "ASE_STUDENT_ENGINE_ISA" in os.environ
        if is_required or error.status != UNSUPPORTED:
            raise
        return None
