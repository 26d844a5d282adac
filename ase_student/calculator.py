"""The ASE calculator."""

import os
import threading
from collections.abc import Iterable, Sequence
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import (
    Calculator,
    InputError,
    PropertyNotImplementedError,
    PropertyNotPresent,
    all_changes,
)
from ase.data import chemical_symbols
from numpy.typing import NDArray

from ase_student.backends import Backend, PotentialInfo, open_backend
from ase_student.backends.forks import renew_in_forks
from ase_student.backends.metadata import symbols, warn_of_compression
from ase_student.backends.native import NativeBackend, NativeList
from ase_student.checkpoint import available_students, check_model
from ase_student.extrapolation.electrons import ElectronCheck
from ase_student.extrapolation.guard import GUARDS, Guard, open_guard
from ase_student.neighbors import NeighborList, concatenate, neighbor_matrix
from ase_student.plugin import register
from ase_student.snapshots import Snapshot, snapshot, structures_of
from ase_student.whole_steps import NOT_FINITE, WholeSteps, ase_results

# Largest number of pairs in one call of calculate_many, so that its arrays fit into caches.
PAIRS_PER_CALL = 20_000

_WITHOUT_VOLUME = (
    "{name} needs three cell vectors that span a volume, and this structure has {cell}: set "
    "atoms.cell, and atoms.pbc for periodic axes; a molecule in empty space has no {name}."
)


class StudentCalculator(Calculator):
    """Energies, forces and stress of a distilled student.

    Parameters
    ----------
    model : str or path
        Name of a bundled student, a checkpoint (``weights.safetensors`` or the folder of a
        training that holds it, or a first-generation ``.pt``), or an exported ``.onnx`` or
        TorchScript file.
    backend : str
        'native', 'onnx', 'torchscript' or 'torch'; 'auto' selects the fastest installed backend
        for the device: on a CPU 'native', the C++ engine. If the package was installed without
        the engine, 'auto' selects 'onnx' for bundled students, else 'torchscript', as for
        first-generation students. With 'onnx', a checkpoint is first converted in memory, which
        takes some seconds. Bundled students and ``.onnx`` files need no torch.
    device : str
        'cpu', 'cuda' or 'cuda:N'; 'auto' selects a GPU if the backend can use it.
    dtype : str
        Precision of the network, 'float32' or 'float64'. Vectors between atoms, reference
        energies and totals are always in float64.
    skin : float, Å
        Neighbor lists are built for the cutoff plus the skin, and reused as long as no pair can
        have crossed the skin. Zero builds a list at every step.
    threads : int, optional
        CPU threads of the backend; by default the backend's own choice. In torch backends this
        sets the number for the whole process.
    guard : str
        What to do with a frame outside of what training saw: with two atoms closer than their
        elements ever were, more or fewer neighbors than any atom of an element had, or a larger
        force. 'warn' warns once for each of these kinds, 'raise' raises each time, 'off' does not
        check. 'auto' is 'warn' for students with a record of what training saw, else 'off'.
    trust : bool
        Exported files are programs. By default, only files are opened that this package's export
        has signed and that contain only the operations of students. With True, any TorchScript or
        ONNX program is opened that computes what its metadata describe. Such a program has all
        your permissions: it could write files or never end. Pass True only for files from sources
        that you trust.

    Attributes
    ----------
    info : PotentialInfo
        Elements, cutoff and origin of the student.
    allowed_atomic_numbers : list of int
        Elements that the student knows.
    neighbor_list : NeighborList or NativeList
        With the counters ``n_updates`` and ``n_rebuilds``; for 'native' it has only these, the
        cutoff and the skin.
    guard : str
        'warn', 'raise' or 'off'.

    Raises
    ------
    ValueError
        If an argument is unknown, the file is damaged, has another format or is a program that is
        not trusted, or a guard is requested but the student has no record of its training.
    FileNotFoundError
        If the file does not exist.
    ImportError
        If the backend is not installed.
    TypeError
        If the model is neither a name nor a path, the skin is not a number, or `trust` is neither
        True nor False.

    Notes
    -----
    Energies of atoms are in ``results['energies']``; the stress exists for cells of rank 3. The
    contributions of atoms to the stress, whose sum is the stress, are computed by ``get_stresses``.
    Their definition is a convention: each atom gets half of the contribution of each of its pairs.

    Elements that the student was not trained on raise ``InputError``, as do positions that are not
    finite, two atoms at the same position and periodic axes without a cell vector. The guard's
    warnings are :class:`ase_student.OutsideTrainingWarning`; its errors, after which there are no
    results, are :class:`ase_student.OutsideTrainingError`. If the guard does not warn, results can
    still be wrong. It recognizes charges, spins and radicals only from initial charges and magnetic
    moments, ``info['charge']``, ``info['spin']`` or an odd number of electrons.

    Several threads may share a calculator: a lock admits one thread at a time, so each gets the
    results of its own structure. Separate calculators are faster. ``results`` and ``atoms`` are
    those of the last calculation by any thread, so a thread that shares a calculator must use what
    the methods return. A calculator also works in a forked process, where torch uses one thread.

    Examples
    --------
    >>> from ase import Atoms
    >>> water = Atoms("OHH", [(0, 0, 0), (0.96, 0, 0), (-0.24, 0.93, 0)])
    >>> water.calc = StudentCalculator("tiny")
    >>> water.get_forces().shape
    (3, 3)
    """

    implemented_properties = [  # noqa: RUF012
        "energy", "free_energy", "energies", "forces", "stress", "stresses",
    ]  # fmt: skip
    # A student ignores charges and moments; there is a warning for a structure that has them.
    ignored_changes = {"initial_charges", "initial_magmoms"}  # noqa: RUF012

    def __init__(
        self,
        model: str | os.PathLike[str] = "tiny",
        backend: str = "auto",
        device: str = "auto",
        *,
        dtype: str = "float32",
        skin: float = 0.5,
        threads: int | None = None,
        guard: str = "auto",
        trust: bool = False,
    ):
        # ASE's constructor calls methods that need the lock.
        self._lock = threading.RLock()
        renew_in_forks(self)
        super().__init__()
        _check_arguments(model, skin, guard, trust)
        # A copy in another process may have a different working folder.
        path = model if model in available_students() else Path(model).absolute()
        self._arguments: dict[str, Any] = {
            "model": path,
            "backend": backend,
            "device": device,
            "dtype": dtype,
            "skin": skin,
            "threads": threads,
            "guard": guard,
            "trust": trust,
        }
        self._backend: Backend = open_backend(model, backend, device, dtype, threads, trust)
        self.neighbor_list: NeighborList | NativeList
        warn_of_compression(self.info)
        self._guard: Guard | None = open_guard(guard, self.info, skin)
        self._steps: WholeSteps | None = None
        if isinstance(self._backend, NativeBackend):
            self.neighbor_list = NativeList(self.info.cutoff, skin)
            self._steps = WholeSteps(self._backend, self.neighbor_list, self._guard)
        else:
            self.neighbor_list = NeighborList(self.info.cutoff, skin)
        action = "raise" if guard == "raise" else "warn"
        self._electrons = (
            None if guard == "off" else ElectronCheck(self.info.name, self.info.elements, action)
        )
        self.allowed_atomic_numbers = list(self.info.elements)
        self._known = np.zeros(len(chemical_symbols), dtype=bool)
        self._known[self.allowed_atomic_numbers] = True
        self._state: Snapshot | None = None
        self._numbers = np.zeros(0, dtype=np.int64)

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), **self._arguments), ()

    @property
    def info(self) -> PotentialInfo:
        """Information on the potential from its file."""
        return self._backend.info

    @property
    def backend(self) -> str:
        """Name of the backend."""
        return self._backend.backend

    @property
    def device(self) -> str:
        """Device that the backend uses."""
        return self._backend.device

    @property
    def guard(self) -> str:
        """Action for frames outside of what training saw."""
        return "off" if self._guard is None else self._guard.action

    # ASE copies the whole Atoms object at every step to detect changes later. Copying only the four
    # relevant arrays takes a tenth of the time; the Atoms object is created when it is read.
    @property
    def atoms(self) -> Atoms | None:
        """Copy of the structure of the last calculation, None if there was none."""
        if self._state is None:
            return None
        numbers, positions, cell, pbc = self._state
        return Atoms(numbers, positions, cell=cell, pbc=pbc)

    @atoms.setter
    def atoms(self, atoms: Atoms | None) -> None:
        self._state = None if atoms is None else snapshot(atoms)

    def get_property(
        self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True
    ) -> Any:
        """Return one property of a structure; see ``ase.calculators.calculator.Calculator``."""
        # ASE compares the structure, computes and reads the results in three steps.
        with self._lock:
            try:
                return super().get_property(name, atoms, allow_calculation)
            except PropertyNotImplementedError:
                raise PropertyNotImplementedError(self._why_missing(name)) from None

    def calculate_properties(self, atoms: Atoms, properties: Sequence[str]) -> Any:
        """Compute a structure and return its properties; see ASE's ``BaseCalculator``."""
        with self._lock:
            try:
                return super().calculate_properties(atoms, properties)
            except PropertyNotPresent as error:
                raise PropertyNotPresent(self._why_missing(str(error))) from None

    def _why_missing(self, name: str) -> str:
        """Return why the structure of the last calculation does not have a property."""
        if name not in self.implemented_properties:
            available = ", ".join(self.implemented_properties)
            return f"student '{self.info.name}' has no {name}; it has {available}."
        has_vectors = self._state is not None and self._state[2].any()
        cell = "cell vectors that span none" if has_vectors else "no cell"
        return _WITHOUT_VOLUME.format(name=name, cell=cell)

    def todict(self, skip_default: bool = True) -> dict[str, Any]:
        """Return what identifies this potential; ASE stores it in trajectories and databases.

        Returns
        -------
        dict
            ``student`` (its name), ``weights_sha256`` (the hash of its weights), ``backend`` and
            ``dtype``.
        """
        return {
            "student": self.info.name,
            "weights_sha256": self.info.weights_sha256,
            "backend": self.backend,
            "dtype": self.info.dtype,
        }

    def calculation_required(self, atoms: Atoms, properties: Sequence[str]) -> bool:
        """Return whether a property of a structure is not among the last results."""
        with self._lock:
            return bool(super().calculation_required(atoms, properties))

    def renew_after_fork(self) -> None:
        """Take a new lock in a forked process, where one that another thread held stays locked."""
        self._lock = threading.RLock()
        self.reset()

    def reset(self) -> None:
        """Forget the last structure and its results."""
        with self._lock:
            super().reset()

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """Return the names of what has changed since the last calculation."""
        if self._state is None:
            return list(all_changes)
        current = (atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)
        names = ("numbers", "positions", "cell", "pbc")
        return [
            name
            for name, before, now in zip(names, self._state, current, strict=True)
            if before.shape != now.shape or before.tobytes() != now.tobytes()
        ]

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Iterable[str] = all_changes,
    ) -> None:
        """Compute all properties of a structure; see ``ase.calculators.calculator.Calculator``.

        Raises
        ------
        InputError
            If the structure is invalid or has unknown elements.
        OutsideTrainingError
            If it lies outside of what training saw, and the guard is set to raise.
        """
        with self._lock:
            self._calculate(atoms)
            if "stresses" in properties and "stress" in self.results:
                self.results["stresses"] = self._stresses()

    def _calculate(self, atoms: Atoms | None) -> None:
        self.results = {}
        if atoms is not None:
            self._state = snapshot(atoms)
            if self._electrons is not None:
                self._electrons.check(atoms)
        if self._state is None:
            raise InputError("no structure was given; pass atoms.")
        numbers, positions, cell, pbc = self._state
        if self._steps is not None:
            try:
                numbers = self._checked_numbers(numbers)
                self.results = self._steps.results(numbers, positions, cell, pbc)
            except InputError:
                self._state = None
                raise
            return
        assert isinstance(self.neighbor_list, NeighborList)
        n_rebuilds = self.neighbor_list.n_rebuilds
        try:
            numbers = self._checked_numbers(numbers)
            neighbors, offsets = self.neighbor_list.update(positions, cell, pbc, numbers)
        except (InputError, ValueError) as error:
            self._state = None
            raise InputError(str(error)) from error
        if self._guard is not None:
            rebuilt = self.neighbor_list.n_rebuilds > n_rebuilds
            self._guard.check(numbers, positions, neighbors, offsets, rebuilt)
        outputs = self._backend.evaluate(numbers, positions, neighbors, offsets)
        results = _results(*outputs, cell)
        if self._guard is not None:
            self._guard.check_forces(numbers, results["forces"])
        self.results = results

    def _stresses(self) -> NDArray[np.float64]:
        """Return the contribution of each atom to the stress, (n_atoms, 6), eV/Å³, Voigt order."""
        assert self._state is not None
        numbers, positions, cell, pbc = self._state
        matrix = neighbor_matrix(positions, cell, pbc, self.info.cutoff)
        pairs = matrix.neighbors, matrix.offsets(cell)
        virials = self._backend.evaluate(self._checked_numbers(numbers), positions, *pairs)[2]
        full = 0.5 * (virials + virials.transpose(0, 2, 1)).astype(np.float64)
        return full[:, (0, 1, 2, 1, 0, 0), (0, 1, 2, 2, 2, 1)] / abs(np.linalg.det(cell))

    def set(self, **changes: Any) -> dict[str, Any]:
        """Refuse changes of parameters, which would have no effect.

        Raises
        ------
        TypeError
            If any parameter is given: a calculator cannot be changed.
        """
        if changes:
            arguments = ", ".join(f"{name}=…" for name in changes)
            raise TypeError(
                f"a {type(self).__name__} cannot be changed: make a new one with {arguments}."
            )
        return {}

    def calculate_many(self, structures: Iterable[Atoms]) -> list[dict[str, Any]]:
        """Compute all properties of many structures, of any sizes, at once.

        Structures are concatenated into calls of limited size, so that memory is limited too. The
        order and the other structures in the list change results only by rounding.

        Parameters
        ----------
        structures : iterable of Atoms

        Returns
        -------
        list of dict
            ``results`` of each structure, as after :meth:`calculate`.

        Raises
        ------
        InputError
            If a structure cannot be computed; the message has its index.
        TypeError
            If a single structure, or anything else than structures, is given.
        OutsideTrainingError
            If a structure lies outside of what training saw, and the guard is set to raise; the
            message has its index.
        """
        listed = structures_of(structures)
        # The backend and the guard are shared with other threads; the neighbor list is not used.
        with self._lock:
            return self._calculate_many(listed)

    def _calculate_many(self, structures: list[Atoms]) -> list[dict[str, Any]]:
        if self._steps is not None:
            if not self._all_known(structures):
                for index, atoms in enumerate(structures):
                    try:
                        self._check_elements(atoms.numbers)
                    except InputError as error:
                        raise InputError(f"structure {index}: {error}") from error
            if self._electrons is not None:
                for index, atoms in enumerate(structures):
                    self._electrons.check(atoms, f"structure {index}: ")
            return self._steps.results_of_many(structures)
        parts = [self._part(index, atoms) for index, atoms in enumerate(structures)]
        # Structures with similar numbers of neighbors share calls, to reduce padding.
        order = sorted(range(len(parts)), key=lambda index: parts[index][0].shape[1])
        results: list[dict[str, Any]] = [{}] * len(parts)
        start = 0
        while start < len(order):
            stop, n_atoms = start, 0
            while stop < len(order):
                size, width = parts[order[stop]][0].shape
                if stop > start and (n_atoms + size) * width > PAIRS_PER_CALL:
                    break
                n_atoms += size
                stop += 1
            indices = order[start:stop]
            group = self._evaluate_group(
                indices,
                [structures[index] for index in indices],
                [parts[index] for index in indices],
            )
            for index, result in zip(indices, group, strict=True):
                results[index] = result
            start = stop
        return results

    def _part(self, index: int, atoms: Atoms) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the neighbors and offsets of a structure; messages have its index."""
        try:
            self._check_elements(atoms.numbers)
            if self._electrons is not None:
                self._electrons.check(atoms, f"structure {index}: ")
            matrix = neighbor_matrix(atoms.positions, atoms.cell.array, atoms.pbc, self.info.cutoff)
        except (InputError, ValueError) as error:
            raise InputError(f"structure {index}: {error}") from error
        return matrix.neighbors, matrix.offsets(atoms.cell.array)

    def _evaluate_group(
        self,
        indices: Sequence[int],
        structures: Sequence[Atoms],
        parts: Sequence[tuple[NDArray[np.int64], NDArray[np.float64]]],
    ) -> list[dict[str, Any]]:
        """Return the results of structures that fit into one call."""
        neighbors, offsets = concatenate(parts, self.info.cutoff)
        numbers = np.concatenate([atoms.numbers for atoms in structures]).astype(np.int64)
        positions = np.concatenate([atoms.positions for atoms in structures])
        ends = np.cumsum([len(atoms) for atoms in structures]).tolist()
        if self._guard is not None:
            self._guard.check_many(indices, ends, numbers, positions, neighbors, offsets)
        outputs = self._backend.evaluate(numbers, positions, neighbors, offsets)
        split = zip(*(np.split(output, ends[:-1]) for output in outputs), strict=True)
        results = [
            _results(energies, forces, virials, atoms.cell.array)
            for (energies, forces, virials), atoms in zip(split, structures, strict=True)
        ]
        if self._guard is not None:
            forces = np.concatenate([result["forces"] for result in results])
            self._guard.check_many_forces(indices, ends, numbers, forces)
        return results

    def _checked_numbers(self, numbers: NDArray[np.integer]) -> NDArray[np.int64]:
        """Return the atomic numbers of a structure after checking that the student knows them.

        Changes are detected here, independently of what a caller of :meth:`calculate` passes.
        """
        checked = self._numbers
        if numbers.shape != checked.shape or (numbers != checked).any() or not len(numbers):
            self._check_elements(numbers)
            self._numbers = checked = numbers.astype(np.int64)
        return checked

    def _all_known(self, structures: Sequence[Atoms]) -> bool:
        """Return whether all structures have atoms, and the student knows all their elements."""
        if not structures or not all(len(atoms) for atoms in structures):
            return False
        numbers = np.concatenate([atoms.numbers for atoms in structures])
        return bool(self._is_known(numbers).all())

    def _is_known(self, numbers: NDArray[np.integer]) -> NDArray[np.bool_]:
        return (numbers >= 0) & self._known[np.clip(numbers, 0, len(self._known) - 1)]

    def _check_elements(self, numbers: NDArray[np.integer]) -> None:
        if len(numbers) == 0:
            raise InputError("the structure has no atoms.")
        is_known = self._is_known(numbers)
        if is_known.all():
            return
        unknown: dict[str, list[str]] = {}
        for index in np.flatnonzero(~is_known):
            number = int(numbers[index])
            is_element = 0 <= number < len(chemical_symbols)
            symbol = chemical_symbols[number] if is_element else f"atomic number {number}"
            unknown.setdefault(symbol, []).append(str(index))
        listed = "; ".join(
            f"{symbol} (atom{'s' * (len(indices) > 1)} {', '.join(indices[:10])}"
            f"{', …' * (len(indices) > 10)})"
            for symbol, indices in unknown.items()
        )
        raise InputError(
            f"student '{self.info.name}' knows {symbols(self.info.elements)}; "
            f"this structure also has {listed}."
        )


def _check_arguments(model: object, skin: object, guard: object, trust: object) -> None:
    check_model(model)
    # Any text, even 'no', would count as true.
    if not isinstance(trust, bool):
        raise TypeError(f"trust must be True or False; given {trust!r}.")
    if not isinstance(skin, Real):
        raise TypeError(f"the skin must be a number, in Å; given {skin!r}.")
    if guard not in GUARDS:
        choices = ", ".join(f"'{choice}'" for choice in GUARDS)
        raise ValueError(f"unknown guard '{guard}'; available: {choices}.")


def _results(
    energies: NDArray[np.float64],
    forces: NDArray[np.floating],
    virials: NDArray[np.floating],
    cell: NDArray[np.float64],
) -> dict[str, Any]:
    """Return ASE's results of one structure from the outputs of its atoms."""
    energy = float(energies.sum())
    precise = forces.astype(np.float64)
    if not (np.isfinite(energy) and np.isfinite(precise.sum())):
        raise InputError(NOT_FINITE)
    virial = virials.sum(axis=0, dtype=np.float64)
    return ase_results(energy, energies, precise, virial, cell)


register(StudentCalculator)
