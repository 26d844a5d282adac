"""Check every value of an HDF5 data set, at the door and in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_student.data.fragment_checks import check_fragments
from ase_student.data.hdf5_layout import (
    ATOMIC_PROPERTIES,
    FAILURE_COLUMNS,
    LabelLayout,
    check_columns,
    check_rows,
    damage_as_error,
    read_indices,
    read_layout,
)
from ase_student.neighbors import LARGEST_COORDINATE

#: Rows of a large column that are read at once.
BLOCK_ROWS = 1_000_000

#: By how much atomic energies may miss the energy of their structure, eV per atom. Single
#: precision stays far below, and a contribution that was forgotten far above.
ATOMIC_ENERGIES_TOLERANCE = 1e-4


def check(file: Any, name: str) -> None:
    """Raise ValueError unless the file has the layout of a data set and holds together."""
    with damage_as_error(name):
        layout = read_layout(file, name)
        _check_structures(file, name, layout.splits)
        if layout.labels is not None:
            _check_labels(file, name, layout.labels, layout.splits)
        if "failures" in file:
            check_columns(file, name, "failures", columns=FAILURE_COLUMNS)
            _check_failures(file, name, len(layout.splits) - 1)
        if "metadata" in file:
            dict(file["metadata"].attrs)


def _check_structures(file: Any, name: str, splits: NDArray[np.int64]) -> None:
    n = len(splits) - 1
    _check_coordinates(file, name, "structures/positions", splits)
    _check_coordinates(file, name, "structures/cells", np.arange(n + 1))

    def known(numbers: NDArray[Any]) -> NDArray[np.bool_]:
        return (numbers >= 1) & (numbers <= 118)

    fault = "is not an atomic number from 1 to 118"
    _check_values(file, name, "structures/atomic_numbers", splits, known, fault)
    _check_cells(file, name, n)
    for column in ("sources", "molecules"):
        _check_text(file, name, f"structures/{column}")
    if "structures/fragments" in file:
        check_fragments(file, name, splits)


def _check_cells(file: Any, name: str, n: int) -> None:
    """Check that the vectors of periodic axes span a cell."""
    for start in range(0, n, BLOCK_ROWS):
        pbc = file["structures/pbc"][start : start + BLOCK_ROWS]
        cells = file["structures/cells"][start : start + BLOCK_ROWS] * pbc[:, :, None]
        flat = np.flatnonzero(np.linalg.matrix_rank(cells) < pbc.sum(axis=1))
        if len(flat):
            i = int(flat[0]) + start
            axes = ", ".join(np.array(["x", "y", "z"])[pbc[flat[0]]])
            fault = f"does not span a cell, though structures/pbc says that {axes} are periodic"
            raise ValueError(f"{name}: structures/cells[{i}] (structure {i}) {fault}.")


def _check_text(file: Any, name: str, path: str) -> None:
    """Check that an optional column of strings is UTF-8."""
    for start in range(0, len(file[path]) if path in file else 0, BLOCK_ROWS):
        for i, text in enumerate(file[path][start : start + BLOCK_ROWS], start):
            try:
                text.decode("utf-8")
            except UnicodeDecodeError:
                raise ValueError(f"{name}: {path}[{i}] is not UTF-8.") from None


def _check_failures(file: Any, name: str, n_structures: int) -> None:
    indices = read_indices(file, name, "failures/structure_indices", n_structures=n_structures)
    why = f"there are {len(indices)} failures"
    check_rows(file, "failures/reasons", len(indices), name=name, why=why)
    _check_text(file, name, "failures/reasons")


def _check_labels(
    file: Any, name: str, labels: LabelLayout, structure_splits: NDArray[np.int64]
) -> None:
    splits, indices = labels.splits, labels.structure_indices
    n = len(splits) - 1
    differs = np.flatnonzero(np.diff(splits) != np.diff(structure_splits)[indices])
    if len(differs):
        i = int(differs[0])
        atoms = np.diff(structure_splits)[indices[i]]
        fault = f"{np.diff(splits)[i]} forces but structure {indices[i]} has {atoms} atoms"
        raise ValueError(f"{name}: labels/forces_splits gives label {i} {fault}.")
    _check_finite(file, name, "labels/energy", np.arange(n + 1))
    _check_finite(file, name, "labels/forces", splits)
    _check_stress(file, name, n)
    for column in ATOMIC_PROPERTIES:
        if f"labels/{column}" in file:
            _check_not_infinite(file, name, f"labels/{column}", splits)
    if "labels/atomic_energies" in file:
        _check_atomic_energies(file, name, splits)


def _check_stress(file: Any, name: str, n: int) -> None:
    """Check the rows of the stress that count as real."""
    if "labels/stress" not in file:
        return
    if "labels/stress_mask" not in file:
        _check_finite(file, name, "labels/stress", np.arange(n + 1))
        return
    for start in range(0, n, BLOCK_ROWS):
        stress = file["labels/stress"][start : start + BLOCK_ROWS]
        real = file["labels/stress_mask"][start : start + BLOCK_ROWS]
        bad = np.argwhere(real[:, None] & ~np.isfinite(stress))
        if len(bad):
            row, axis = bad[0].tolist()
            fault = f"= {stress[row, axis]} (label {start + row}) is not finite"
            raise ValueError(f"{name}: labels/stress[{start + row}, {axis}] {fault}.")


def _check_atomic_energies(file: Any, name: str, splits: NDArray[np.int64]) -> None:
    """Check that atomic energies add up to the energy, or are NaN for a whole structure."""
    path, sizes = "labels/atomic_energies", np.diff(splits)
    # At least one label at a time, however many atoms it has.
    firsts = np.searchsorted(splits, np.arange(0, splits[-1], BLOCK_ROWS), side="right") - 1
    for first, last in pairwise([*np.unique(firsts).tolist(), len(sizes)]):
        values = file[path][splits[first] : splits[last]].astype(np.float64)
        starts = splits[first:last] - splits[first]
        n_none = np.add.reduceat(np.isnan(values), starts, dtype=np.int64)
        sums = np.add.reduceat(values, starts)
        missed = np.abs(sums - file["labels/energy"][first:last])
        limits = ATOMIC_ENERGIES_TOLERANCE * sizes[first:last]
        bad = np.flatnonzero((n_none != sizes[first:last]) & ~(missed <= limits))
        if len(bad):
            i = int(bad[0])
            label, energy = first + i, file["labels/energy"][first + i]
            fault = f"add up to {sums[i]:.10g} eV but its energy is {energy:.10g} eV"
            rows = f"{splits[label]}:{splits[label + 1]}"
            raise ValueError(f"{name}: {path}[{rows}] of label {label} {fault}.")


def _check_coordinates(file: Any, name: str, path: str, splits: NDArray[np.int64]) -> None:
    def is_near(values: NDArray[Any]) -> NDArray[np.bool_]:
        return np.abs(values) < LARGEST_COORDINATE

    _check_values(
        file, name, path, splits, is_near, f"is not finite, or beyond {LARGEST_COORDINATE:.0e} Å"
    )


def _check_finite(file: Any, name: str, path: str, splits: NDArray[np.int64]) -> None:
    _check_values(file, name, path, splits, np.isfinite, "is not finite")


def _check_not_infinite(file: Any, name: str, path: str, splits: NDArray[np.int64]) -> None:
    _check_values(file, name, path, splits, lambda values: ~np.isinf(values), "is not finite")


def _check_values(
    file: Any,
    name: str,
    path: str,
    splits: NDArray[np.int64],
    good: Callable[[NDArray[Any]], NDArray[np.bool_]],
    fault: str,
) -> None:
    """Check every value of a column, in blocks, and name the first bad one."""
    data = file[path]
    for start in range(0, len(data), BLOCK_ROWS):
        bad = np.argwhere(~good(data[start : start + BLOCK_ROWS]))
        if len(bad):
            row, *rest = bad[0].tolist()
            row += start
            owner = int(np.searchsorted(splits, row, side="right")) - 1
            value = data[(row, *rest)]
            place = ", ".join(map(str, (row, *rest)))
            what = "label" if path.startswith("labels/") else "structure"
            raise ValueError(f"{name}: {path}[{place}] = {value} ({what} {owner}) {fault}.")
