"""What a calculator takes of a structure: numbers, positions, cell and pbc, in plain types."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import InputError
from numpy.typing import NDArray

Snapshot = tuple[NDArray[Any], NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]

_FLOATS = np.dtype(np.float64)


def snapshot(atoms: Atoms) -> Snapshot:
    """Return copies of numbers, positions, cell and pbc of a structure.

    Arrays that were set by hand may be of any real type and byte order; positions and cell come
    back as float64.

    Raises
    ------
    InputError
        If atomic numbers are not integers, or positions or cell not real numbers.
    TypeError
        If something else than Atoms is given.
    """
    try:
        numbers, positions = atoms.numbers, atoms.positions
    except AttributeError:
        raise TypeError(f"a structure must be of ase.Atoms; given {_named(atoms)}.") from None
    cell = atoms.cell.array
    return (
        numbers.copy() if numbers.dtype.kind in "iu" else _integers(numbers),
        positions.copy() if positions.dtype == _FLOATS else _floats(positions, "positions"),
        cell.copy() if cell.dtype == _FLOATS else _floats(cell, "the cell"),
        atoms.pbc.copy(),
    )


def structures_of(given: Iterable[Atoms]) -> list[Atoms]:
    """Return many structures as a list, each with arrays of the types of :func:`snapshot`.

    Raises
    ------
    InputError
        As :func:`snapshot` does; the message says which structure.
    TypeError
        If a single structure, a string or something else than structures is given.
    """
    # Strings and mappings can be iterated over, but hold no structures.
    if isinstance(given, (Atoms, str, bytes, dict)) or not isinstance(given, Iterable):
        raise TypeError(f"calculate_many takes a list of structures; given {_named(given)}.")
    structures = list(given)
    for index, atoms in enumerate(structures):
        if not isinstance(atoms, Atoms):
            raise TypeError(
                f"calculate_many takes a list of ase.Atoms; structure {index} is {_named(atoms)}."
            )
        arrays = atoms.numbers, atoms.positions, atoms.cell.array
        if arrays[0].dtype.kind in "iu" and all(one.dtype == _FLOATS for one in arrays[1:]):
            continue
        try:
            numbers, positions, cell, _ = snapshot(atoms)
        except InputError as error:
            raise InputError(f"structure {index}: {error}") from None
        plain = atoms.copy()
        plain.arrays.update(numbers=numbers, positions=positions)
        plain.cell.array = cell
        structures[index] = plain
    return structures


def _floats(values: NDArray[Any], what: str) -> NDArray[np.float64]:
    if values.dtype.kind not in "fiu":
        raise InputError(f"{what} must be real numbers; given an array of {values.dtype}.")
    return values.astype(np.float64)


def _integers(values: NDArray[Any]) -> NDArray[np.int64]:
    if values.dtype.kind == "f" and (values == np.rint(values)).all():
        return values.astype(np.int64)
    raise InputError(f"atomic numbers must be integers; given an array of {values.dtype}.")


def _named(given: object) -> str:
    """Return what was given as a message calls it: short values as they are, others by type."""
    if given is None:
        return "None"
    if isinstance(given, (str, bytes, int, float)):
        return f"{given!r}" if len(repr(given)) <= 60 else f"a {type(given).__name__}"
    if isinstance(given, Atoms):
        return "a single one"
    return f"an object of type '{type(given).__name__}'"
