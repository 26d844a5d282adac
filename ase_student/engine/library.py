"""Load the engine's shared library and call it.

The library is plain C++ with a C interface (``ase_student.h``) and knows nothing of Python: it is
loaded with ctypes, so one build serves every Python.
"""

import ctypes
import os
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
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

# The first number of the library's version that this module works with.
INTERFACE = "1"
# Names that build tools give to a shared library.
SUFFIXES = (".so", ".dylib", ".dll", ".pyd")
INVALID, FILE, UNSUPPORTED, MEMORY, NOT_FINITE = 1, 2, 3, 4, 5


class EngineError(ValueError):
    """The engine refused a student or a structure.

    Attributes
    ----------
    status : int
        As of ``ase_student_status`` in ``ase_student.h``.
    """

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


class _Options(ctypes.Structure):
    _fields_ = (
        ("precision", ctypes.c_int32),
        ("threads", ctypes.c_int32),
        ("isa", ctypes.c_char_p),
    )


class _Structures(ctypes.Structure):
    _fields_ = (
        ("n_structures", ctypes.c_int64),
        ("n_atoms", ctypes.c_void_p),
        ("numbers", ctypes.c_void_p),
        ("positions", ctypes.c_void_p),
        ("cells", ctypes.c_void_p),
        ("pbc", ctypes.c_void_p),
        ("skin", ctypes.c_double),
    )


class _Results(ctypes.Structure):
    _fields_ = (
        ("energies", ctypes.c_void_p),
        ("forces", ctypes.c_void_p),
        ("virials", ctypes.c_void_p),
        ("atom_virials", ctypes.c_void_p),
        ("outside", ctypes.c_int32),
        ("rebuilt", ctypes.c_int32),
        ("structures_outside", ctypes.c_void_p),
    )


class _Usual(ctypes.Structure):
    _fields_ = (
        ("radius_sums", ctypes.c_void_p),
        ("bonded", ctypes.c_double),
        ("reach", ctypes.c_double),
        ("decay", ctypes.c_double),
        ("most_bonds", ctypes.c_int32),
        ("atom_keys", ctypes.c_void_p),
        ("bond_keys", ctypes.c_void_p),
        ("n_environments", ctypes.c_int64),
        ("environments", ctypes.c_void_p),
        ("orders", ctypes.c_void_p),
        ("other_orders", ctypes.c_void_p),
        ("n_bins", ctypes.c_int32),
        ("bin_width", ctypes.c_double),
        ("gaps", ctypes.c_void_p),
    )


class Usual(NamedTuple):
    """Bonds and distances that were common in training, as ``ase_student_usual`` has them.

    Attributes
    ----------
    radius_sums : (n_elements, n_elements) float64, Å
    bonded, reach : float
    decay : float, Å
    atom_keys, bond_keys : (n_elements,) int64
    environments : (n_environments,) int64
        Empty: bonds are not compared.
    orders : (n_environments, 2) float64
    other_orders : (n_elements, most_bonds + 1, 2) float64
    bin_width : float, Å
    gaps : (n_elements, n_elements, n_bins) bool
        Without bins, distances are not compared.
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
    gaps: NDArray[np.bool_]


class Step(NamedTuple):
    """Results of one or several structures.

    Attributes
    ----------
    energies : (total atoms,) float64, eV
    forces : (total atoms, 3) float64, eV/Å
    virials : (n_structures, 3, 3) float64, eV
    outside : int
        Bits of what lies outside of the limits; see ``ase_student.h``.
    is_rebuilt : bool
        Whether the neighbor list was built, and not reused.
    structures_outside : (n_structures,) int32
        Bits of each structure.
    """

    energies: Floats
    forces: Floats
    virials: Floats
    outside: int
    is_rebuilt: bool
    structures_outside: NDArray[np.int32]


def _library_file() -> Path | None:
    """Return the file of the library that was built with the package, if there is one.

    The environment variable ASE_STUDENT_ENGINE_LIBRARY names another, for tests.
    """
    if chosen := os.environ.get("ASE_STUDENT_ENGINE_LIBRARY"):
        return Path(chosen)
    folder = Path(__file__).parent
    for path in sorted(folder.glob("_library*")):
        if path.suffix in SUFFIXES:
            return path
    return None


@cache
def load_library() -> ctypes.CDLL:
    """Load the library.

    Raises
    ------
    ImportError
        If the package was installed without it, or it does not fit.
    """
    path = _library_file()
    if path is None:
        raise ImportError(
            "ase-student was installed without its C++ engine, because no compiler was found; "
            "install a C++ compiler and ase-student again, or use backend='onnx'."
        )
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise ImportError(f"the C++ engine '{path}' cannot be loaded: {error}.") from error
    _declare(library)
    version = library.ase_student_version().decode()
    if version.partition(".")[0] != INTERFACE:
        raise ImportError(
            f"the C++ engine '{path}' has version {version}; this package works with version "
            f"{INTERFACE}: install ase-student again."
        )
    return library


def why_missing() -> str | None:
    """Return why the engine cannot be used here; None if it can."""
    try:
        library = load_library()
    except ImportError as error:
        return str(error)
    if not library.ase_student_isas():
        return "the C++ engine needs a processor with x86-64-v2 (2009 or newer)."
    return None


def _text(message: bytes) -> str:
    """Return a message of the engine, which may name what it has read in a damaged file."""
    return message.decode(errors="replace")


def _declare(library: ctypes.CDLL) -> None:
    """Tell ctypes the types of the functions that are called."""
    pointer, status = ctypes.c_void_p, ctypes.c_int
    text, size = ctypes.c_char_p, ctypes.c_size_t
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "version": (text, []),
        "isas": (text, []),
        "open_memory": (status, [text, size, pointer, pointer]),
        "share": (status, [pointer, pointer]),
        "close": (None, [pointer]),
        "last_error": (text, [pointer]),
        "isa": (text, [pointer]),
        "table_error": (ctypes.c_double, [pointer]),
        "set_limits": (status, [pointer] * 4),
        "set_usual": (status, [pointer] * 2),
        "compute": (status, [pointer] * 3),
        "set_list": (status, [pointer, ctypes.c_int64, ctypes.c_int64, *[pointer] * 4]),
        "set_cell": (status, [pointer] * 2),
        "evaluate": (status, [pointer] * 5),
        "n_phases": (ctypes.c_int32, [pointer]),
        "begin": (status, [pointer] * 2),
        "exchange": (status, [pointer, ctypes.c_int32, pointer, pointer]),
        "phase": (status, [pointer, ctypes.c_int32]),
        "finish": (status, [pointer] * 4),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, f"ase_student_{name}")
        function.restype, function.argtypes = result, arguments


def default_threads() -> int:
    """Return the number of processors that this process may use, or less: OMP_NUM_THREADS."""
    n_processors = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    wanted = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return min(n_processors, int(wanted)) if wanted.isdecimal() and int(wanted) else n_processors


class Handle:
    """A student in the engine, with a neighbor list of its own.

    One handle serves one thread of Python at a time.

    Parameters
    ----------
    content : bytes
        Of the student's ``weights.safetensors``.
    single : bool
        Whether the network runs in float32; else in float64.
    threads : int
        At most so many.
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
        options = _Options(32 if single else 64, threads, isa.encode() if isa else None)
        status = self._library.ase_student_open_memory(
            content, len(content), ctypes.byref(options), ctypes.byref(self._address)
        )
        if status:
            raise EngineError(status, _text(self._library.ase_student_last_error(None)))
        self._prepare()

    def _prepare(self) -> None:
        self._compute = self._library.ase_student_compute
        self._structures, self._results = _Structures(), _Results()
        self._pointers = (ctypes.byref(self._structures), ctypes.byref(self._results))
        self._one = np.zeros(1, dtype=np.int64)

    def share(self) -> "Handle":
        """Return another handle of the same student, with a neighbor list of its own."""
        other = object.__new__(type(self))
        other._library = self._library
        other._address = ctypes.c_void_p()
        status = self._library.ase_student_share(self._address, ctypes.byref(other._address))
        if status:
            raise EngineError(status, _text(self._library.ase_student_last_error(None)))
        other._prepare()
        return other

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
        """Largest error of the tabulated radial functions, relative to their largest value."""
        return float(self._library.ase_student_table_error(self._address))

    def set_limits(self, distances: Floats, counts: NDArray[np.int32], forces: Floats) -> None:
        """Set what structures are compared with; see ``ase_student.h``."""
        distances = np.ascontiguousarray(distances, dtype=np.float64)
        counts = np.ascontiguousarray(counts, dtype=np.int32)
        forces = np.ascontiguousarray(forces, dtype=np.float64)
        self._check(
            self._library.ase_student_set_limits(
                self._address, distances.ctypes.data, counts.ctypes.data, forces.ctypes.data
            )
        )

    def set_usual(self, usual: Usual) -> None:
        """Set which bonds and contacts are looked for when a list is built."""
        arrays = {
            name: np.ascontiguousarray(value)
            for name, value in usual._asdict().items()
            if isinstance(value, np.ndarray)
        }
        record = _Usual(
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
        """Compute structures that don't see each other, with a list that is made where needed.

        Parameters
        ----------
        numbers : (total atoms,) int64
        positions : (total atoms, 3) float64, Å
        cells : (n_structures, 3, 3) or (3, 3) float64, Å
        pbc : (n_structures, 3) or (3,) bool
        skin : float, Å
        n_atoms : (n_structures,) int64, optional
            Of each structure; by default there is one.

        Raises
        ------
        EngineError
            If a structure cannot be computed.

        Notes
        -----
        Arrays must be contiguous and of these types: ``ase_student.backends.native`` sees to it.
        """
        if n_atoms is None:
            n_atoms = self._one
            n_atoms[0] = len(numbers)
        energies = np.empty(len(numbers))
        forces = np.empty((len(numbers), 3))
        virials = np.empty((len(n_atoms), 3, 3))
        # One structure has the bits of all.
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
        """Set a neighbor list from outside; see ``ase_student_set_list``."""
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
        """Return energies (N,), forces (N, 3) and virials (N, 3, 3) of atoms, for that list."""
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
        """Return the rows that a phase reads of ghosts, (n_atoms, bytes), or None; writable."""
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
        """Return what :meth:`evaluate` does, after the last phase."""
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
