"""The data of a structure that a calculator uses: numbers, positions, cell and pbc."""

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

    Arrays of the structure may have any real type and byte order; positions and cell are returned
    as float64.

    Raises
    ------
    InputError
        If atomic numbers are not integers, or positions or cell not real numbers.
    TypeError
        If `atoms` is not an Atoms object.
    """
    try:
        numbers, positions = atoms.numbers, atoms.positions
    except AttributeError:
        raise TypeError(
            f"a structure must be an ase.Atoms object; given {_description(atoms)}."
        ) from None
    cell = atoms.cell.array
    return (
        numbers.copy() if numbers.dtype.kind in "iu" else _integers(numbers),
        positions.copy() if positions.dtype == _FLOATS else _floats(positions, "positions"),
        cell.copy() if cell.dtype == _FLOATS else _floats(cell, "the cell"),
        atoms.pbc.copy(),
    )


def structures_of(structures_given: Iterable[Atoms]) -> list[Atoms]:
    """Return structures as a list, each with arrays of the types that :func:`snapshot` returns.

    Raises
    ------
    InputError
        As :func:`snapshot` does; the message has the index of the structure.
    TypeError
        If a single structure, a string or any other object is given.
    """
    # Strings and mappings are iterable, but do not contain structures.
    if isinstance(structures_given, (Atoms, str, bytes, dict)) or not isinstance(
        structures_given, Iterable
    ):
        raise TypeError(
            f"calculate_many takes a list of structures; given {_description(structures_given)}."
        )
    structures = list(structures_given)
    for index, atoms in enumerate(structures):
        if not isinstance(atoms, Atoms):
            raise TypeError(
                f"calculate_many takes a list of ase.Atoms; structure {index} is "
                f"{_description(atoms)}."
            )
        arrays = atoms.numbers, atoms.positions, atoms.cell.array
        if arrays[0].dtype.kind in "iu" and all(a.dtype == _FLOATS for a in arrays[1:]):
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


def _floats(values: NDArray[Any], name: str) -> NDArray[np.float64]:
    if values.dtype.kind not in "fiu":
        raise InputError(f"{name} must be real numbers; given an array of {values.dtype}.")
    return values.astype(np.float64)


def _integers(values: NDArray[Any]) -> NDArray[np.int64]:
    if values.dtype.kind == "f" and (values == np.rint(values)).all():
        return values.astype(np.int64)
    raise InputError(f"atomic numbers must be integers; given an array of {values.dtype}.")


def _description(value: object) -> str:
    """Return a description of a value for a message: short values themselves, others by type."""
    if value is None:
        return "None"
    if isinstance(value, (str, bytes, int, float)):
        return f"{value!r}" if len(repr(value)) <= 60 else f"a {type(value).__name__}"
    if isinstance(value, Atoms):
        return "a single one"
    return f"an object of type '{type(value).__name__}'"
