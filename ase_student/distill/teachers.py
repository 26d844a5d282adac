"""Teachers: whatever can label structures with energies and forces.

Those with a name here live in modules of their own, because what they need is large and optional.
"""

from __future__ import annotations

import ast
import functools
import importlib
import sys
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.data import chemical_symbols
from numpy.typing import NDArray

from ase_student.files import file_sha256

#: Where the teachers with a name are made.
TEACHERS = {
    "so3lr": "ase_student.distill.so3lr:So3lrTeacher",
    "gfn2-xtb": "ase_student.distill.xtb:gfn2_xtb",
    "sevennet": "ase_student.distill.materials:sevennet",
    "sevennet-l3i5": "ase_student.distill.materials:sevennet_l3i5",
    "chgnet": "ase_student.distill.materials:ChgnetTeacher",
}
#: Longest reason of a failure that is kept: some libraries print whole tables.
_REASON_LENGTH = 300


@dataclass(frozen=True)
class Label:
    """What a teacher says about one structure.

    Attributes
    ----------
    energy : float, eV
    forces : (n_atoms, 3) float, eV/Å
    stress : (6,) float, eV/Å³, or None
        Voigt order, positive in tension; None unless the structure is periodic along three axes.
    energies : (n_atoms,) float, eV, or None
        Parts of the energy that belong to the atoms, where the teacher has such.
    charges : (n_atoms,) float, e, or None
        Partial charges, where the teacher has such.
    hirshfeld_ratios : (n_atoms,) float, or None
        Volume of each atom in the structure relative to that of the free atom, where the teacher
        has such; dispersion models start from them.
    """

    energy: float
    forces: NDArray[np.floating]
    stress: NDArray[np.floating] | None = None
    energies: NDArray[np.floating] | None = None
    charges: NDArray[np.floating] | None = None
    hirshfeld_ratios: NDArray[np.floating] | None = None


@dataclass(frozen=True)
class Failure:
    """Why a teacher has no label for a structure."""

    reason: str


class Teacher(Protocol):
    """Anything that labels structures.

    Attributes
    ----------
    name : str
        What it was asked for by.
    settings : dict
        Version and settings that decide its labels; two teachers with equal settings agree.
    elements : frozenset of int, or None
        Atomic numbers that it knows; None, or not there, if that cannot be told.
    """

    name: str
    settings: dict[str, Any]
    elements: frozenset[int] | None

    def label(self, structures: Sequence[Atoms]) -> list[Label | Failure]:
        """Return one label, or the reason why there is none, for each structure."""
        ...


class CalculatorTeacher:
    """Any ASE calculator, one structure at a time.

    The calculator is reset for each structure. One that keeps something all the same, such as a
    wave function to start from, may give answers that depend, within its convergence, on what it
    was asked before.

    Parameters
    ----------
    name : str
    make : callable
        Returns the calculator. It is called again after a failure, which may have left the old
        calculator in a bad state.
    settings : dict
    elements : collection of int, optional
        Atomic numbers that it knows; by default those are left to the calculator.

    Raises
    ------
    ValueError
        If the calculator says that it has no energies or no forces.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[], Any],
        settings: dict[str, Any],
        elements: Collection[int] | None = None,
    ) -> None:
        self.name = name
        self.settings = settings
        self.elements = None if elements is None else frozenset(elements)
        self._make = make
        self._calculator = make()
        self._properties = getattr(self._calculator, "implemented_properties", ())
        lacks = [name for name in ("energy", "forces") if name not in self._properties]
        if lacks and self._properties:
            raise ValueError(
                f"teacher '{name}' gives no {' and no '.join(lacks)}, only "
                f"{', '.join(self._properties)}; a student learns from energy and forces."
            )

    def label(self, structures: Sequence[Atoms]) -> list[Label | Failure]:
        """Return one label, or the reason why there is none, for each structure."""
        return [self._label_one(atoms) for atoms in structures]

    def _label_one(self, atoms: Atoms) -> Label | Failure:
        if (failure := foreign(atoms, self.elements)) is not None:
            return failure
        # A calculator is third-party code: whatever it raises must not stop a long job.
        try:
            return self._evaluate(atoms)
        except Exception as error:
            self._calculator = self._make()
            return Failure(one_line(error))

    def _evaluate(self, atoms: Atoms) -> Label:
        if hasattr(self._calculator, "reset"):
            self._calculator.reset()
        atoms = atoms.copy()
        atoms.calc = self._calculator
        energy = _energy(atoms, "free_energy" in self._properties)
        forces = np.array(atoms.get_forces())
        stress = None
        if is_crystal(atoms):
            with suppress(NotImplementedError):
                stress = np.array(atoms.get_stress())
        energies = charges = None
        if "energies" in self._properties:
            with suppress(NotImplementedError):
                energies = np.array(atoms.get_potential_energies())
        if "charges" in self._properties:
            with suppress(NotImplementedError):
                charges = np.array(atoms.get_charges())
        return Label(energy, forces, stress, energies, charges)


def _energy(atoms: Atoms, has_free_energy: bool) -> float:
    """Return the energy whose derivatives the forces are, eV.

    With smeared occupations of electronic states that is the free energy, not the energy
    extrapolated to zero width.
    """
    if has_free_energy:
        with suppress(PropertyNotImplementedError):
            return float(atoms.get_potential_energy(force_consistent=True))
    return float(atoms.get_potential_energy())


def is_crystal(atoms: Atoms) -> bool:
    """Say whether a structure is periodic along three axes, so that it has a stress."""
    return bool(atoms.pbc.all()) and atoms.cell.rank == 3


def foreign(atoms: Atoms, elements: frozenset[int] | None) -> Failure | None:
    """Return a failure if a structure has elements that a teacher does not know."""
    if elements is None or elements.issuperset(atoms.numbers.tolist()):
        return None
    unknown = sorted(set(atoms.numbers.tolist()) - elements)
    return Failure(f"has {symbols_of(unknown)}, which the teacher does not know")


def symbols_of(elements: Collection[int]) -> str:
    """Return the symbols of elements, by atomic number."""
    return ", ".join(chemical_symbols[number] for number in sorted(elements))


def one_line(error: Exception) -> str:
    """Return what an exception says, in one line that is not too long."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= _REASON_LENGTH else f"{text[:_REASON_LENGTH]} …"


def load_teacher(name: str) -> Teacher:
    """Return a teacher by name, or any other by its import path.

    Parameters
    ----------
    name : str
        A key of `TEACHERS`, or ``'package.module:Class'``; the class, or any other callable that
        returns a teacher or an ASE calculator, is called. Options may follow, as in
        ``'so3lr:long_range=12,dtype=float64'``: keyword arguments of the call.

    Raises
    ------
    ValueError
        If there is no such teacher, it gives no forces, or it refuses an option.
    ImportError
        If what it needs is not installed.
    """
    path, options = _parsed(name)
    function = _imported(name, TEACHERS.get(path, path))
    make = functools.partial(function, **options) if options else function
    try:
        made = make()
    except ImportError:
        raise
    except Exception as error:
        raise ValueError(f"teacher '{name}' cannot be made: {one_line(error)}") from error
    if hasattr(made, "settings") and callable(getattr(made, "label", None)):
        made.name = name
        return made
    if isinstance(made, Atoms) or not hasattr(made, "get_potential_energy"):
        raise ValueError(f"'{name}' makes neither a teacher nor an ASE calculator.")
    settings = {"package": _package(made), "calculator": path, **_code(path), **options}
    return CalculatorTeacher(name, make, settings)


def _parsed(name: str) -> tuple[str, dict[str, Any]]:
    """Return the key of `TEACHERS` or import path in a teacher's name, and its options.

    >>> _parsed("so3lr:long_range=12,dtype=float64")
    ('so3lr', {'long_range': 12, 'dtype': 'float64'})
    >>> _parsed("package.module:Class:cutoff=6.5")
    ('package.module:Class', {'cutoff': 6.5})
    """
    parts = name.split(":")
    n_path = 1 if parts[0] in TEACHERS else 2
    path, options = ":".join(parts[:n_path]), ":".join(parts[n_path:])
    if n_path == 2 and len(parts) == 1:
        raise ValueError(
            f"no teacher named '{name}'; available: {', '.join(map(repr, TEACHERS))}. "
            "To take any ASE calculator, give its path as 'package.module:Class'."
        )
    pairs = [option.partition("=") for option in options.split(",") if option]
    for key, _, value in pairs:
        if not key.isidentifier() or not value:
            raise ValueError(
                f"teacher '{name}': options are written as key=value,key=value; given '{options}'."
            )
    return path, {key: _value(text) for key, _, text in pairs}


def _value(text: str) -> Any:
    """Return a number, True, False or None written in Python, and any other text as it is."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _imported(name: str, path: str) -> Callable[[], Any]:
    module_name, _, attribute = path.partition(":")
    try:
        make: Callable[[], Any] = getattr(importlib.import_module(module_name), attribute)
    except ModuleNotFoundError as error:
        raise ImportError(f"teacher '{name}': {error}.") from error
    except AttributeError:
        raise ValueError(
            f"teacher '{name}': module '{module_name}' has no '{attribute}'."
        ) from None
    if not callable(make):
        raise ValueError(f"teacher '{name}' cannot be called.")
    return make


def _code(path: str) -> dict[str, str]:
    """Return the SHA-256 of the module that a path names: what it makes may have no version."""
    file = getattr(sys.modules[path.partition(":")[0]], "__file__", None)
    if file is None or Path(file).suffix != ".py":
        return {}
    return {"module_sha256": file_sha256(Path(file))}


def _package(calculator: Any) -> str:
    root = type(calculator).__module__.split(".")[0]
    distributions = packages_distributions().get(root, [])
    try:
        return f"{distributions[0]} {version(distributions[0])}"
    except (IndexError, PackageNotFoundError):
        return root
