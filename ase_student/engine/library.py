"""Call the engine's shared library: students, structures and results as arrays.

The functions that are called here are documented in ``ase_student.h``.
"""

import ctypes
import os
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ase_student.engine.loading import (
    OptionsRecord,
    ResultsRecord,
    StructuresRecord,
    UsualRecord,
    load_library,
    why_missing,
)

__all__ = [
    "FILE",
    "INVALID",
    "MEMORY",
    "NOT_FINITE",
    "UNSUPPORTED",
    "EngineError",
    "Handle",
    "Step",
    "Usual",
    "default_threads",
    "load_library",
    "why_missing",
]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

#: Values of ``ase_student_status``.
INVALID, FILE, UNSUPPORTED, MEMORY, NOT_FINITE = 1, 2, 3, 4, 5


class EngineError(ValueError):
    """The engine refused a student or a structure.

    Attributes
    ----------
    status : int
        One of the values of ``ase_student_status`` in ``ase_student.h``.
    """

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


class Usual(NamedTuple):
    """Bonds and distances that were common in training, as in ``ase_student_usual``.

    Attributes
    ----------
    radius_sums : (n_elements, n_elements) float64, Å
    bonded, reach : float
    decay : float, Å
    atom_keys, bond_keys : (n_elements,) int64
    environments : (n_environments,) int64
        If empty, bonds are not compared.
    orders : (n_environments, 2) float64
    other_orders : (n_elements, most_bonds + 1, 2) float64
    bin_width : float, Å
    gaps : (n_elements, n_elements, n_bins) uint8
        1 where distances are rare, 2 where they are rare of atoms more than two bonds apart. If
        there are no bins, distances are not compared.
    """

    radius_sums: Floats
    bonded: float
    reach: float
    decay: float
    atom_keys: Integers
    bond_keys: Integers
    environments: Integers
    orders: Floats
    other_orders: Floats
    bin_width: float
    gaps: NDArray[np.uint8]


class Step(NamedTuple):
    """Results of one or more structures.

    Attributes
    ----------
    energies : (total atoms,) float64, eV
    forces : (total atoms, 3) float64, eV/Å
    virials : (n_structures, 3, 3) float64, eV
    outside : int
        What lies outside of the limits, as bits of all structures; see ``ase_student.h``.
    is_rebuilt : bool
        Whether the neighbor list was built for this step; else it was reused.
    structures_outside : (n_structures,) int32
        The bits of each structure.
    """

    energies: Floats
    forces: Floats
    virials: Floats
    outside: int
    is_rebuilt: bool
    structures_outside: NDArray[np.int32]


def _text(message: bytes) -> str:
    """Return a message of the engine; it may quote invalid UTF-8 from a damaged file."""
    return message.decode(errors="replace")


def default_threads() -> int:
    """Return the number of processors that this process may use, at most OMP_NUM_THREADS."""
    n_processors = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    limit = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return min(n_processors, int(limit)) if limit.isdecimal() and int(limit) else n_processors


class Handle:
    """A student in the engine, with a neighbor list of its own.

    Only one thread of Python may call a handle at a time.

    Parameters
    ----------
    content : bytes
        Content of the student's ``weights.safetensors``.
    single : bool
        Whether the network runs in float32; else in float64.
    threads : int
        Largest number of threads.
    isa : str, optional
        Instruction set; by default the best of the processor.

    Raises
    ------
    EngineError
        If the student is damaged or the engine cannot run it.
    ImportError
        See :func:`load_library`.
    """

    def __init__(self, content: bytes, single: bool, threads: int, isa: str | None = None):
        self._library = load_library()
        self._address = ctypes.c_void_p()
        options = OptionsRecord(32 if single else 64, threads, isa.encode() if isa else None)
        status = self._library.ase_student_open_memory(
            content, len(content), ctypes.byref(options), ctypes.byref(self._address)
        )
        if status:
            raise EngineError(status, _text(self._library.ase_student_last_error(None)))
        self._prepare()

    def _prepare(self) -> None:
        self._compute = self._library.ase_student_compute
        self._structures, self._results = StructuresRecord(), ResultsRecord()
        self._pointers = (ctypes.byref(self._structures), ctypes.byref(self._results))
        self._single_n_atoms = np.zeros(1, dtype=np.int64)

    def share(self) -> "Handle":
        """Return another handle of the same student, with a neighbor list of its own."""
        shared = object.__new__(type(self))
        shared._library = self._library
        shared._address = ctypes.c_void_p()
        status = self._library.ase_student_share(self._address, ctypes.byref(shared._address))
        if status:
            raise EngineError(status, _text(self._library.ase_student_last_error(None)))
        shared._prepare()
        return shared

    def __del__(self) -> None:
        address = getattr(self, "_address", None)
        if address:
            self._library.ase_student_close(address)

    @property
    def isa(self) -> str:
        """Instruction set in use."""
        return str(self._library.ase_student_isa(self._address).decode())

    @property
    def table_error(self) -> float:
        """Largest error of the tabulated radial functions, by their largest value or slope."""
        return float(self._library.ase_student_table_error(self._address))

    def set_limits(self, distances: Floats, counts: NDArray[np.int32], forces: Floats) -> None:
        """Set the limits of the training data; see ``ase_student_set_limits``."""
        distances = np.ascontiguousarray(distances, dtype=np.float64)
        counts = np.ascontiguousarray(counts, dtype=np.int32)
        forces = np.ascontiguousarray(forces, dtype=np.float64)
        self._check(
            self._library.ase_student_set_limits(
                self._address, distances.ctypes.data, counts.ctypes.data, forces.ctypes.data
            )
        )

    def set_usual(self, usual: Usual) -> None:
        """Set the bonds and distances that are compared when a list is built."""
        arrays = {
            name: np.ascontiguousarray(value)
            for name, value in usual._asdict().items()
            if isinstance(value, np.ndarray)
        }
        record = UsualRecord(
            bonded=usual.bonded,
            reach=usual.reach,
            decay=usual.decay,
            most_bonds=usual.other_orders.shape[1] - 1,
            n_environments=len(usual.environments),
            n_bins=usual.gaps.shape[2],
            bin_width=usual.bin_width,
            **{name: array.ctypes.data for name, array in arrays.items()},
        )
        self._check(self._library.ase_student_set_usual(self._address, ctypes.byref(record)))

    def compute(
        self,
        numbers: Integers,
        positions: Floats,
        cells: Floats,
        pbc: NDArray[np.bool_],
        skin: float,
        n_atoms: Integers | None = None,
    ) -> Step:
        """Compute structures that do not interact; the list is built if it cannot be reused.

        Parameters
        ----------
        numbers : (total atoms,) int64
        positions : (total atoms, 3) float64, Å
        cells : (n_structures, 3, 3) or (3, 3) float64, Å
        pbc : (n_structures, 3) or (3,) bool
        skin : float, Å
        n_atoms : (n_structures,) int64, optional
            Number of atoms of each structure; by default all belong to one structure.

        Raises
        ------
        EngineError
            If a structure cannot be computed.

        Notes
        -----
        Arrays must be contiguous and of these types; :mod:`ase_student.backends.native` converts
        them.
        """
        if n_atoms is None:
            n_atoms = self._single_n_atoms
            n_atoms[0] = len(numbers)
        energies = np.empty(len(numbers))
        forces = np.empty((len(numbers), 3))
        virials = np.empty((len(n_atoms), 3, 3))
        # The bits of a single structure are those of all.
        outside = np.empty(len(n_atoms), dtype=np.int32) if len(n_atoms) > 1 else None
        structures, results = self._structures, self._results
        structures.n_structures = len(n_atoms)
        structures.n_atoms = n_atoms.ctypes.data
        structures.numbers = numbers.ctypes.data
        structures.positions = positions.ctypes.data
        structures.cells = cells.ctypes.data
        structures.pbc = pbc.ctypes.data
        structures.skin = skin
        results.energies = energies.ctypes.data
        results.forces = forces.ctypes.data
        results.virials = virials.ctypes.data
        results.structures_outside = None if outside is None else outside.ctypes.data
        status = self._compute(self._address, *self._pointers)
        if status:
            self._check(status)
        if outside is None:
            outside = np.array([results.outside], dtype=np.int32)
        return Step(energies, forces, virials, results.outside, bool(results.rebuilt), outside)

    def set_list(
        self,
        numbers: Integers,
        rows: Integers,
        neighbors: Integers,
        shifts: Floats,
        n_ghosts: int = 0,
    ) -> None:
        """Set an external neighbor list; see ``ase_student_set_list``."""
        self._check(
            self._library.ase_student_set_list(
                self._address,
                len(numbers),
                n_ghosts,
                numbers.ctypes.data,
                rows.ctypes.data,
                neighbors.ctypes.data,
                shifts.ctypes.data,
            )
        )

    def evaluate(self, positions: Floats) -> tuple[Floats, Floats, Floats]:
        """Return energies (N,), forces (N, 3) and virials (N, 3, 3) for the external list."""
        outputs = self._outputs(len(positions))
        pointers = [output.ctypes.data for output in outputs]
        self._check(
            self._library.ase_student_evaluate(self._address, positions.ctypes.data, *pointers)
        )
        return outputs

    @property
    def n_phases(self) -> int:
        """Number of phases of an evaluation."""
        return int(self._library.ase_student_n_phases(self._address))

    def begin(self, positions: Floats) -> None:
        """Begin an evaluation whose phases are run one by one."""
        self._check(self._library.ase_student_begin(self._address, positions.ctypes.data))

    def exchanged(self, phase: int, n_atoms: int) -> NDArray[np.uint8] | None:
        """Return the array in which the rows of ghosts must be filled in before a phase.

        Returns
        -------
        (n_atoms, bytes) uint8, or None
            Memory of the engine, to be written to; None if the phase reads no rows of ghosts.
        """
        rows, size = ctypes.c_void_p(), ctypes.c_int64()
        self._check(
            self._library.ase_student_exchange(
                self._address, phase, ctypes.byref(rows), ctypes.byref(size)
            )
        )
        if not rows.value:
            return None
        memory = (ctypes.c_uint8 * (n_atoms * size.value)).from_address(rows.value)
        return np.ctypeslib.as_array(memory).reshape(n_atoms, size.value)

    def phase(self, phase: int) -> None:
        """Run one phase."""
        self._check(self._library.ase_student_phase(self._address, phase))

    def finish(self, n_atoms: int) -> tuple[Floats, Floats, Floats]:
        """Return the results of the phases, as :meth:`evaluate` does, after the last phase."""
        outputs = self._outputs(n_atoms)
        pointers = [output.ctypes.data for output in outputs]
        self._check(self._library.ase_student_finish(self._address, *pointers))
        return outputs

    @staticmethod
    def _outputs(n_atoms: int) -> tuple[Floats, Floats, Floats]:
        return np.empty(n_atoms), np.empty((n_atoms, 3)), np.empty((n_atoms, 3, 3))

    def _check(self, status: int) -> None:
        if status:
            message = _text(self._library.ase_student_last_error(self._address))
            if status == MEMORY:
                raise MemoryError(message)
            raise EngineError(status, message)
