"""Check that an HDF5 file is a data set, at the door and in one sentence."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_student.data.fragment_checks import check_fragments
from ase_student.data.readers.kinds import advice, foreign_advice

#: Rows of a large column that are read at once.
BLOCK_ROWS = 1_000_000

#: No compression that HDF5 has makes data smaller than by this factor; bytes below which none is
#: looked at.
MOST_EXPANSION = 1100
SMALLEST_CHECKED = 2**20

#: By how much atomic energies may miss the energy of their structure, eV per atom. Single
#: precision stays far below, and a contribution that was forgotten far above.
ATOMIC_ENERGIES_TOLERANCE = 1e-4

#: Optional columns of labels with one number for each atom, NaN for all atoms of a structure where
#: the teacher gave none: partial charges, e, and ratios of atomic volumes to those of free atoms.
ATOMIC_PROPERTIES = ("charges", "hirshfeld_ratios")

#: Column: shape after the first axis, kinds of dtype allowed, whether it may be missing.
STRUCTURE_COLUMNS: dict[str, tuple[tuple[int, ...], str, bool]] = {
    "atomic_numbers": ((), "iu", False),
    "atomic_numbers_splits": ((), "iu", False),
    "positions": ((3,), "f", False),
    "cells": ((3, 3), "f", False),
    "pbc": ((3,), "b", False),
    "sources": ((), "OS", True),
    "molecules": ((), "OS", True),
    "fragments": ((2,), "iu", True),
}
LABEL_COLUMNS: dict[str, tuple[tuple[int, ...], str, bool]] = {
    "energy": ((), "f", False),
    "forces": ((3,), "f", False),
    "forces_splits": ((), "iu", False),
    "structure_indices": ((), "iu", False),
    "stress": ((6,), "f", True),
    "stress_mask": ((), "b", True),
    "atomic_energies": ((), "f", True),
    **dict.fromkeys(ATOMIC_PROPERTIES, ((), "f", True)),
}
FAILURE_COLUMNS: dict[str, tuple[tuple[int, ...], str, bool]] = {
    "structure_indices": ((), "iu", False),
    "reasons": ((), "OS", False),
}
KINDS = {"iu": "integers", "f": "floats", "b": "booleans", "OS": "strings"}


def import_h5py() -> ModuleType:
    """Return h5py, or say how to install it."""
    try:
        h5py = importlib.import_module("h5py")
    except ImportError as error:
        raise ImportError('HDF5 data sets need h5py: pip install "ase-student[distill]"') from error
    return h5py


def open_hdf5(path: Path, name: str) -> Any:
    """Return the file opened for reading, or say in one sentence why not."""
    h5py = import_h5py()
    if not path.exists():
        raise FileNotFoundError(f"no data set at '{path}'.")
    try:
        file = h5py.File(path, "r")
    except (PermissionError, BlockingIOError) as error:
        # Somebody else is writing it, or it is not ours to read.
        raise type(error)(f"{name}: cannot be opened: {error}.") from None
    except OSError:
        raise ValueError(f"{name}: not an HDF5 file, or cut short.{advice(path)}") from None
    try:
        _check_storage(file, name)
    except BaseException:
        file.close()
        raise
    return file


def _check_storage(file: Any, name: str) -> None:
    """Refuse data in other files, and data sets that are larger than what a file stores of them."""
    h5py = import_h5py()
    for group in ("structures", "labels", "failures", "metadata"):
        try:
            link = file.get(group, getlink=True)
            check_link(link, name, group)
            members = list(file[group].items()) if isinstance(file.get(group), h5py.Group) else []
            links = {key: file[group].get(key, getlink=True) for key, _ in members}
        # h5py answers bytes that are damaged with errors of many kinds.
        except (OSError, RuntimeError, KeyError) as error:
            raise ValueError(
                f"{name}: cannot be read, it is damaged or cut short ({error})."
            ) from None
        for key, data in members:
            path = f"{group}/{key}"
            check_link(links[key], name, path)
            if isinstance(data, h5py.Dataset) and data.shape is not None:
                check_data(data, name, path)


def check_data(data: Any, name: str, path: str) -> None:
    """Refuse a dataset whose data are in other files, or that claims more than is stored of it."""
    if data.external or data.is_virtual:
        raise ValueError(f"{name}: {path} has its data in other files; put them into one.")
    stored = data.id.get_storage_size()
    if data.nbytes > MOST_EXPANSION * stored + SMALLEST_CHECKED:
        raise ValueError(f"{name}: {path} claims {data.nbytes:,} bytes, but {stored:,} are stored.")


def check_link(link: Any, name: str, path: str) -> None:
    """Refuse a link that leads elsewhere, perhaps to another file."""
    h5py = import_h5py()
    if isinstance(link, (h5py.ExternalLink, h5py.SoftLink)):
        raise ValueError(f"{name}: {path} is a link, also to other files; put the data into one.")


def check(file: Any, name: str) -> None:
    """Raise ValueError unless the file has the layout of a data set and holds together."""
    try:
        _check_columns(file, name, "structures", STRUCTURE_COLUMNS)
        splits = _check_splits(file, name, "structures/atomic_numbers_splits", "atomic_numbers")
        _check_structures(file, name, splits)
        if "labels" in file:
            _check_columns(file, name, "labels", LABEL_COLUMNS)
            _check_labels(file, name, splits)
        if "failures" in file:
            _check_columns(file, name, "failures", FAILURE_COLUMNS)
            _check_failures(file, name, len(splits) - 1)
        if "metadata" in file:
            dict(file["metadata"].attrs)
    except (OSError, RuntimeError, KeyError) as error:
        # h5py raises these when the bytes of a column are missing or damaged.
        raise ValueError(f"{name}: cannot be read, it is damaged or cut short ({error}).") from None


def _check_columns(
    file: Any, name: str, group: str, columns: dict[str, tuple[tuple[int, ...], str, bool]]
) -> None:
    h5py = import_h5py()
    if not isinstance(file.get(group), h5py.Group):
        raise ValueError(f"{name}: has no group '{group}'.{foreign_advice(file)}")
    for column, (shape, kinds, optional) in columns.items():
        data = file[group].get(column)
        if data is None and optional:
            continue
        if not isinstance(data, h5py.Dataset):
            raise ValueError(f"{name}: has no dataset '{group}/{column}'.")
        # An empty dataspace has no shape, and variable length need not mean text.
        is_text = data.dtype.kind != "O" or h5py.check_string_dtype(data.dtype) is not None
        fits = bool(data.shape) and data.shape[1:] == shape and data.dtype.kind in kinds
        if not fits or not is_text:
            expected = ("rows", *map(str, shape))
            raise ValueError(
                f"{name}: {group}/{column} has shape {data.shape} and type {data.dtype}; "
                f"it must be ({', '.join(expected)}) {KINDS[kinds]}."
            )


def _check_splits(file: Any, name: str, path: str, column: str) -> NDArray[np.int64]:
    """Check that `path` cuts the rows of `column` into pieces that are not empty."""
    group = path.split("/")[0]
    splits: NDArray[np.int64] = file[path][:].astype(np.int64)
    if len(splits) == 0 or splits[0] != 0:
        raise ValueError(f"{name}: {path} must begin with 0.")
    bad = np.flatnonzero(np.diff(splits) <= 0)
    if len(bad):
        i = int(bad[0])
        what = "label" if group == "labels" else "structure"
        sizes = f"it goes from {splits[i]} to {splits[i + 1]}"
        raise ValueError(f"{name}: {path} gives {what} {i} no atoms, {sizes}.")
    _check_rows(file, name, f"{group}/{column}", int(splits[-1]), f"{path} ends at {splits[-1]}")
    return splits


def _check_rows(file: Any, name: str, path: str, expected: int, why: str) -> None:
    if path in file and len(file[path]) != expected:
        raise ValueError(f"{name}: {path} has {len(file[path])} rows but {why}.")


def _check_structures(file: Any, name: str, splits: NDArray[np.int64]) -> None:
    end = f"structures/atomic_numbers_splits ends at {splits[-1]}"
    _check_rows(file, name, "structures/positions", int(splits[-1]), end)
    n = len(splits) - 1
    for column in ("cells", "pbc", "sources", "molecules", "fragments"):
        _check_rows(file, name, f"structures/{column}", n, f"there are {n} structures")
    _check_finite(file, name, "structures/positions", splits)
    _check_finite(file, name, "structures/cells", np.arange(n + 1))

    def known(numbers: NDArray[Any]) -> NDArray[np.bool_]:
        return (numbers >= 1) & (numbers <= 118)

    said = "is not an atomic number from 1 to 118"
    _check_values(file, name, "structures/atomic_numbers", splits, known, said)
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
            said = f"does not span a cell, though structures/pbc says that {axes} are periodic"
            raise ValueError(f"{name}: structures/cells[{i}] (structure {i}) {said}.")


def _check_text(file: Any, name: str, path: str) -> None:
    """Check that an optional column of strings is UTF-8."""
    for start in range(0, len(file[path]) if path in file else 0, BLOCK_ROWS):
        for i, text in enumerate(file[path][start : start + BLOCK_ROWS], start):
            try:
                text.decode("utf-8")
            except UnicodeDecodeError:
                raise ValueError(f"{name}: {path}[{i}] is not UTF-8.") from None


def _check_indices(file: Any, name: str, path: str, n_structures: int) -> NDArray[np.int64]:
    """Check that a column names structures, none of them twice."""
    indices: NDArray[np.int64] = file[path][:].astype(np.int64)
    outside = np.flatnonzero((indices < 0) | (indices >= n_structures))
    if len(outside):
        i = int(outside[0])
        said = f"structure {indices[i]}, but there are {n_structures} structures"
        raise ValueError(f"{name}: {path}[{i}] names {said}.")
    _, first = np.unique(indices, return_index=True)
    if len(first) != len(indices):
        i = int(np.setdiff1d(np.arange(len(indices)), first)[0])
        raise ValueError(f"{name}: {path}[{i}] names structure {indices[i]} a second time.")
    return indices


def _check_failures(file: Any, name: str, n_structures: int) -> None:
    indices = _check_indices(file, name, "failures/structure_indices", n_structures)
    said = f"there are {len(indices)} failures"
    _check_rows(file, name, "failures/reasons", len(indices), said)
    _check_text(file, name, "failures/reasons")


def _check_labels(file: Any, name: str, structure_splits: NDArray[np.int64]) -> None:
    splits = _check_splits(file, name, "labels/forces_splits", "forces")
    n = len(splits) - 1
    for column in ("energy", "structure_indices", "stress", "stress_mask"):
        _check_rows(file, name, f"labels/{column}", n, f"there are {n} labels")
    indices = _check_indices(file, name, "labels/structure_indices", len(structure_splits) - 1)
    differs = np.flatnonzero(np.diff(splits) != np.diff(structure_splits)[indices])
    if len(differs):
        i = int(differs[0])
        atoms = np.diff(structure_splits)[indices[i]]
        said = f"{np.diff(splits)[i]} forces but structure {indices[i]} has {atoms} atoms"
        raise ValueError(f"{name}: labels/forces_splits gives label {i} {said}.")
    _check_finite(file, name, "labels/energy", np.arange(n + 1))
    _check_finite(file, name, "labels/forces", splits)
    _check_stress(file, name, n)
    end = f"labels/forces_splits ends at {splits[-1]}"
    for column in ("atomic_energies", *ATOMIC_PROPERTIES):
        _check_rows(file, name, f"labels/{column}", int(splits[-1]), end)
    for column in ATOMIC_PROPERTIES:
        if f"labels/{column}" in file:
            _check_not_infinite(file, name, f"labels/{column}", splits)
    if "labels/atomic_energies" in file:
        _check_atomic_energies(file, name, splits)


def _check_stress(file: Any, name: str, n: int) -> None:
    """Check the rows of the stress that are said to be real."""
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
            said = f"= {stress[row, axis]} (label {start + row}) is not finite"
            raise ValueError(f"{name}: labels/stress[{start + row}, {axis}] {said}.")


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
            said = f"add up to {sums[i]:.10g} eV but its energy is {energy:.10g} eV"
            rows = f"{splits[label]}:{splits[label + 1]}"
            raise ValueError(f"{name}: {path}[{rows}] of label {label} {said}.")


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
    said: str,
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
            raise ValueError(f"{name}: {path}[{place}] = {value} ({what} {owner}) {said}.")
