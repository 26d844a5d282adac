"""ASE's results from whole steps of the C++ engine, and the errors for rejected structures."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import InputError
from numpy.typing import NDArray

from ase_student.backends.native import ATOMS_PER_CALL, NativeBackend, NativeList
from ase_student.engine.library import NOT_FINITE as NOT_FINITE_STATUS
from ase_student.engine.library import EngineError
from ase_student.extrapolation.guard import Guard
from ase_student.extrapolation.usual import usual_of
from ase_student.neighbors import neighbor_matrix

__all__ = ["FLAT", "NOT_FINITE", "WholeSteps", "ase_results"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

NOT_FINITE = "energy or forces are not finite: atoms are on one spot or far too close."
#: Cell vectors lie in a plane if the volume, divided by the product of their lengths, is below
#: this.
FLAT = 1e-9
# Bits for the kinds of what lies outside of what training saw (ase_student.h).
TOO_CLOSE, NEIGHBOR_COUNT, LARGE_FORCE, BONDS, CONTACT = 1, 2, 4, 8, 16


class WholeSteps:
    """Results of a calculator whose backend takes whole steps.

    The engine returns bits for what lies outside of what training saw. Only if a bit is set, Python
    code checks the structure and makes the message.

    Parameters
    ----------
    backend : NativeBackend
    neighbor_list : NativeList
    guard : Guard or None
    """

    def __init__(self, backend: NativeBackend, neighbor_list: NativeList, guard: Guard | None):
        self._backend, self._list, self._guard = backend, neighbor_list, guard
        if guard is not None:
            limits, seen = guard.limits, guard.limits.seen
            distances = limits.distances.reshape(seen.shortest.shape)
            usual = usual_of(limits, backend.info.elements)
            backend.set_limits(distances, limits.counts, seen.forces[:, 1], usual)

    def results(
        self, numbers: Integers, positions: Floats, cell: Floats, pbc: Booleans
    ) -> dict[str, Any]:
        """Return ASE's results of one structure.

        Raises
        ------
        InputError
            If the structure cannot be computed.
        OutsideTrainingError
            If it lies outside of what training saw, and the guard is set to raise.
        """
        try:
            step = self._backend.step(numbers, positions, cell, pbc, self._list)
        except EngineError as error:
            self._explain(error, numbers, positions, cell, pbc)
        if self._guard is not None:
            arrays = (numbers, positions, cell, pbc)
            self._report(step.outside, *arrays, step.forces)
        energy = float(step.energies.sum())
        return ase_results(energy, step.energies, step.forces, step.virials[0], cell)

    def results_of_many(self, structures: Sequence[Atoms]) -> list[dict[str, Any]]:
        """Return the results of each structure; the student must know all elements.

        Raises
        ------
        InputError
            If a structure cannot be computed; the message has its index.
        OutsideTrainingError
            If a structure lies outside of what training saw, and the guard is set to raise; the
            message has its index.
        """
        results: list[dict[str, Any]] = []
        start = n_atoms = 0
        for index, atoms in enumerate(structures):
            if index > start and n_atoms + len(atoms) > ATOMS_PER_CALL:
                results += self._group(structures[start:index], start)
                start, n_atoms = index, 0
            n_atoms += len(atoms)
        if start < len(structures):
            results += self._group(structures[start:], start)
        return results

    def _group(self, structures: Sequence[Atoms], first: int) -> list[dict[str, Any]]:
        numbers = [atoms.numbers for atoms in structures]
        positions = [atoms.positions for atoms in structures]
        cells = [atoms.cell.array for atoms in structures]
        pbc = [atoms.pbc for atoms in structures]
        try:
            step = self._backend.compute_many(numbers, positions, cells, pbc)
        except EngineError as error:
            self._find_culprit(error, structures, first)
        ends = np.cumsum([len(part) for part in numbers]).tolist()
        energies, forces = np.split(step.energies, ends[:-1]), np.split(step.forces, ends[:-1])
        if self._guard is not None:
            for index in np.flatnonzero(step.structures_outside).tolist():
                arrays = (numbers[index], positions[index], cells[index], pbc[index])
                bits = int(step.structures_outside[index])
                self._report(bits, *arrays, forces[index], first + index)
        return [
            ase_results(float(part.sum()), part, forces[index], step.virials[index], cells[index])
            for index, part in enumerate(energies)
        ]

    def _report(
        self,
        outside: int,
        numbers: Integers,
        positions: Floats,
        cell: Floats,
        pbc: Booleans,
        forces: Floats | None,
        structure: int | None = None,
    ) -> None:
        """Let the guard check a structure that may lie outside, in the order of other backends.

        For bonds and contacts, the engine only reports, when it builds a neighbor list, that some
        may be rare.
        """
        guard = self._guard
        assert guard is not None
        kinds = [
            kind
            for bit, kind in ((TOO_CLOSE, "distance"), (NEIGHBOR_COUNT, "neighbors"))
            if outside & bit
        ]
        indices = [0 if structure is None else structure]
        ends = [len(numbers)]
        with_unusual = bool(outside & (BONDS | CONTACT)) and guard.looks_for_unusual
        if with_unusual or guard.looks_at(*kinds):
            matrix = neighbor_matrix(positions, cell, pbc, self._list.cutoff)
            pairs = matrix.neighbors, matrix.offsets(cell)
            if guard.looks_at(*kinds):
                if structure is None:
                    guard.check(numbers, positions, *pairs, rebuilt=False)
                else:
                    guard.check_many(indices, ends, numbers, positions, *pairs)
            if with_unusual:
                guard.check_unusual(numbers, positions, *pairs, structure)
        if forces is not None and outside & LARGE_FORCE and guard.looks_at("force"):
            if structure is None:
                guard.check_forces(numbers, forces)
            else:
                guard.check_many_forces(indices, ends, numbers, forces)

    def _explain(
        self,
        error: EngineError,
        numbers: Integers,
        positions: Floats,
        cell: Floats,
        pbc: Booleans,
        structure: int | None = None,
    ) -> Any:
        """Raise the error for a rejected structure, with the message of the other backends."""
        prefix = "" if structure is None else f"structure {structure}: "
        if error.status != NOT_FINITE_STATUS:
            try:
                neighbor_matrix(positions, cell, pbc, self._list.cutoff)
            except ValueError as reason:
                raise InputError(f"{prefix}{reason}") from reason
            raise InputError(f"{prefix}{error}.") from error
        if self._guard is not None:
            bits = TOO_CLOSE | NEIGHBOR_COUNT
            self._report(bits, numbers, positions, cell, pbc, None, structure)
        raise InputError(f"{prefix}{NOT_FINITE}") from error

    def _find_culprit(self, error: EngineError, structures: Sequence[Atoms], first: int) -> Any:
        """Raise the error of the first structure that is also rejected on its own."""
        for index, atoms in enumerate(structures):
            arrays = (atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)
            try:
                self._backend.compute_many(*([array] for array in arrays))
            except EngineError as own_error:
                self._explain(own_error, *arrays, structure=first + index)
        raise error


def ase_results(
    energy: float,
    energies: Floats,
    forces: Floats,
    virial: NDArray[np.floating],
    cell: Floats,
) -> dict[str, Any]:
    """Return ASE's results of one structure; the stress only for a cell with a volume.

    Parameters
    ----------
    energy : float, eV
    energies : (N,) float64, eV
    forces : (N, 3) float64, eV/Å
    virial : (3, 3) float64, eV
    cell : (3, 3) float64, Å
    """
    results: dict[str, Any] = {
        "energy": energy,
        "free_energy": energy,
        "energies": energies,
        "forces": forces,
    }
    volume = _volume(cell)
    if volume:
        virial = 0.5 * (virial + virial.T)
        results["stress"] = virial[(0, 1, 2, 1, 0, 0), (0, 1, 2, 2, 2, 1)] / volume
    return results


def _volume(cell: Floats) -> float:
    """Return the volume of a cell, 0 if its vectors lie in a plane up to rounding.

    In plain Python: NumPy takes longer for nine numbers than the engine for a small molecule.
    """
    (ax, ay, az), (bx, by, bz), (cx, cy, cz) = cell.tolist()
    if not (ax or ay or az) or not (bx or by or bz) or not (cx or cy or cz):
        return 0.0
    volume = abs(ax * (by * cz - bz * cy) + ay * (bz * cx - bx * cz) + az * (bx * cy - by * cx))
    squares = (
        (ax * ax + ay * ay + az * az)
        * (bx * bx + by * by + bz * bz)
        * (cx * cx + cy * cy + cz * cz)
    )
    return float(volume) if volume > FLAT * squares**0.5 else 0.0
