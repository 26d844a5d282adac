"""Compare an exported file with the reference results that it carries."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from ase_student.backends.interface import Backend, Results
from ase_student.backends.metadata import symbols
from ase_student.files import reason_of
from ase_student.neighbors import neighbor_matrix

# Largest allowed differences from the float64 reference: eV per atom, eV/Å, and eV per atom.
TOLERANCES = {
    "float32": {"energy_per_atom": 1e-5, "forces": 1e-4, "virial_per_atom": 1e-4},
    "float64": {"energy_per_atom": 1e-9, "forces": 1e-9, "virial_per_atom": 1e-9},
}
# Largest tolerance that a file may specify for itself, in the same units.
LARGEST_TOLERANCE = 100.0


class VerificationError(ValueError):
    """The results of an exported file differ from those of its student."""


@dataclass(frozen=True)
class Report:
    """Largest differences between an exported file and the results that it carries.

    Attributes
    ----------
    file : str
    dtype : str
    n_structures : int
    largest_call : int
        Number of atoms of the largest call.
    energy_per_atom : float, eV
    forces : float, eV/Å
    virial_per_atom : float, eV
    tolerances : dict of str to float
        Largest allowed differences.
    """

    file: str
    dtype: str
    n_structures: int
    largest_call: int
    energy_per_atom: float
    forces: float
    virial_per_atom: float
    tolerances: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """Return the differences, and the numbers of structures and atoms, as a dictionary."""
        excluded = ("file", "dtype", "tolerances")
        return {key: value for key, value in asdict(self).items() if key not in excluded}

    def raise_if_wrong(self) -> None:
        """Raise VerificationError if a difference is above its tolerance or not a number."""
        for name, tolerance in self.tolerances.items():
            value = getattr(self, name)
            if not value <= tolerance:
                raise VerificationError(
                    f"'{self.file}' does not compute what its student does: {name} differs by "
                    f"{value:.1e}; allowed is {tolerance:.0e}."
                )


class ReferenceResults(NamedTuple):
    """A structure that a file carries, with its results in float64."""

    atoms: Atoms
    energy: float
    forces: NDArray[np.float64]
    virial: NDArray[np.float64]


def read_references(backend: Backend, file: str) -> list[ReferenceResults]:
    """Return the reference structures that a file carries; ValueError if they cannot be read."""
    elements = set(backend.info.elements)
    if backend.info.dtype not in TOLERANCES:
        raise ValueError(
            f"'{file}' computes in {backend.info.dtype}; allowed are 'float32' and 'float64'."
        )
    try:
        references = [
            ReferenceResults(
                Atoms(row["numbers"], row["positions"], cell=row["cell"], pbc=row["pbc"]),
                float(row["energy"]),
                np.array(row["forces"], dtype=np.float64).reshape(len(row["numbers"]), 3),
                np.array(row["virial"], dtype=np.float64).reshape(3, 3),
            )
            for row in backend.info.metadata.get("references", [])
        ]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"'{file}' carries reference structures that cannot be read: {reason_of(error)}."
        ) from error
    checked = {number for reference in references for number in reference.atoms.numbers.tolist()}
    if references and not checked >= elements:
        raise ValueError(
            f"'{file}' lists the elements {symbols(tuple(sorted(elements - checked)))}, which none "
            "of its reference structures has."
        )
    return references


@contextmanager
def failures_named(file: str) -> Iterator[None]:
    """Turn any exception of a foreign program into a ValueError with one sentence."""
    try:
        yield
    # The exceptions of runtimes have no common base class.
    except Exception as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise ValueError(f"'{file}' cannot be evaluated: {lines[0]}") from error


def report_of(
    file: str,
    backend: Backend,
    differences: list[tuple[float, float, float]],
    n_structures: int,
    largest_call: int,
) -> Report:
    """Return the largest of the differences of each kind."""
    # If a difference is NaN, the maximum is NaN, which is never within a tolerance.
    energy, forces, virial = np.max(differences, axis=0)
    return Report(
        file=file,
        dtype=backend.info.dtype,
        n_structures=n_structures,
        largest_call=largest_call,
        energy_per_atom=float(energy),
        forces=float(forces),
        virial_per_atom=float(virial),
        tolerances=tolerances_of(backend, file),
    )


def tolerances_of(backend: Backend, file: str) -> dict[str, float]:
    """Return the largest allowed differences from a file's references.

    A compressed file has tolerances of its own, derived from its differences when it was made. The
    calculator warns of such a file if it exceeds documented limits.

    Raises
    ------
    ValueError
        If the file's tolerances are invalid.
    """
    usual = TOLERANCES[backend.info.dtype]
    try:
        own = backend.info.metadata.get("compression", {}).get("tolerances", usual)
        tolerances = {name: float(own[name]) for name in usual}
        if not all(0.0 < value < LARGEST_TOLERANCE for value in tolerances.values()):
            raise ValueError(f"tolerances of {own}")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"'{file}' has invalid tolerances: {error!r}.") from error
    return tolerances


def check_opened(backend: Backend, file: str) -> None:
    """Compare the results of a file that was just opened with a small reference that it carries.

    This takes a millisecond or two, and detects damaged files and exchanged weights before a
    simulation starts.

    Raises
    ------
    ValueError
        If the file is damaged or cannot be evaluated.
    VerificationError
        If the results differ.
    """
    # The smallest molecule of at least five atoms; periodic structures need a longer search.
    suitable = [
        reference
        for reference in read_references(backend, file)
        if len(reference.atoms) >= 5 and not reference.atoms.pbc.any()
    ]
    if not suitable:
        raise ValueError(
            f"'{file}' carries no reference structures to check it with; export the student again."
        )
    reference = min(suitable, key=lambda reference: len(reference.atoms))
    with failures_named(file):
        difference = differences_from(evaluate(backend, reference.atoms), reference)
    report_of(file, backend, [difference], 1, len(reference.atoms)).raise_if_wrong()


def evaluate(backend: Backend, atoms: Atoms) -> Results:
    """Return a backend's energies, forces and virials of a structure."""
    neighbors, offsets = neighbors_of(atoms, backend.info.cutoff)
    return backend.evaluate(atoms.numbers.astype(np.int64), atoms.positions, neighbors, offsets)


def neighbors_of(atoms: Atoms, cutoff: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return neighbors (N, K) of a structure and their offsets (N, K, 3) in Å."""
    matrix = neighbor_matrix(atoms.positions, atoms.cell.array, atoms.pbc, cutoff)
    return matrix.neighbors, matrix.offsets(atoms.cell.array)


def differences_from(output: Results, reference: ReferenceResults) -> tuple[float, float, float]:
    """Return the differences in energy per atom, forces and virial per atom from a reference."""
    energies, forces, virials = output
    n_atoms = len(reference.atoms)
    for name, values, shape in (
        ("energies", energies, (n_atoms,)),
        ("forces", forces, (n_atoms, 3)),
        ("virials", virials, (n_atoms, 3, 3)),
    ):
        if np.shape(values) != shape or np.asarray(values).dtype.kind != "f":
            raise ValueError(
                f"{name} have shape {np.shape(values)} for {n_atoms} atoms; it must be {shape}."
            )
    energy = abs(float(energies.sum()) - reference.energy) / n_atoms
    force = np.abs(forces - reference.forces).max()
    virial = np.abs(virials.sum(axis=0) - reference.virial).max() / n_atoms
    return energy, float(force), float(virial)
