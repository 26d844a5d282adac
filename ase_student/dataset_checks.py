"""Check that an HDF5 file is a data set, at the door and in one sentence."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Rows of a large column that are read at once.
BLOCK_ROWS = 1_000_000

#: Column: shape after the first axis, kinds of dtype allowed, whether it may be missing.
STRUCTURE_COLUMNS: dict[str, tuple[tuple[int, ...], str, bool]] = {
    "atomic_numbers": ((), "iu", False),
    "atomic_numbers_splits": ((), "iu", False),
    "positions": ((3,), "f", False),
    "cells": ((3, 3), "f", False),
    "pbc": ((3,), "b", False),
    "sources": ((), "OS", True),
    "molecules": ((), "OS", True),
}
LABEL_COLUMNS: dict[str, tuple[tuple[int, ...], str, bool]] = {
    "energy": ((), "f", False),
    "forces": ((3,), "f", False),
    "forces_splits": ((), "iu", False),
    "structure_indices": ((), "iu", False),
    "stress": ((6,), "f", True),
    "stress_mask": ((), "b", True),
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
        return h5py.File(path, "r")
    except OSError:
        raise ValueError(f"{name}: not an HDF5 file, or cut short.") from None


def check(file: Any, name: str) -> None:
    """Raise ValueError unless the file has the layout of a data set and holds together."""
    try:
        _check_columns(file, name, "structures", STRUCTURE_COLUMNS)
        splits = _check_splits(file, name, "structures/atomic_numbers_splits", "atomic_numbers")
        _check_structures(file, name, splits)
        if "labels" in file:
            _check_columns(file, name, "labels", LABEL_COLUMNS)
            _check_labels(file, name, splits)
    except (OSError, RuntimeError) as error:
        # h5py raises these when the bytes of a column are missing or damaged.
        raise ValueError(f"{name}: cannot be read, it is damaged or cut short ({error}).") from None


def _check_columns(
    file: Any, name: str, group: str, columns: dict[str, tuple[tuple[int, ...], str, bool]]
) -> None:
    h5py = import_h5py()
    if not isinstance(file.get(group), h5py.Group):
        raise ValueError(f"{name}: has no group '{group}'.")
    for column, (shape, kinds, optional) in columns.items():
        data = file[group].get(column)
        if data is None and optional:
            continue
        if not isinstance(data, h5py.Dataset):
            raise ValueError(f"{name}: has no dataset '{group}/{column}'.")
        if data.ndim == 0 or data.shape[1:] != shape or data.dtype.kind not in kinds:
            expected = ("rows", *map(str, shape))
            raise ValueError(
                f"{name}: {group}/{column} has shape {data.shape} and type {data.dtype}; "
                f"it must be ({', '.join(expected)}) {KINDS[kinds]}."
            )


def _check_splits(file: Any, name: str, path: str, column: str) -> NDArray[np.int64]:
    """Check that `path` cuts the rows of `column` into pieces that are not empty."""
    splits: NDArray[np.int64] = file[path][:].astype(np.int64)
    if len(splits) == 0 or splits[0] != 0:
        raise ValueError(f"{name}: {path} must begin with 0.")
    bad = np.flatnonzero(np.diff(splits) <= 0)
    if len(bad):
        i = int(bad[0])
        sizes = f"it goes from {splits[i]} to {splits[i + 1]}"
        raise ValueError(f"{name}: {path} gives structure {i} no atoms, {sizes}.")
    group = path.split("/")[0]
    _check_rows(file, name, f"{group}/{column}", int(splits[-1]), f"{path} ends at {splits[-1]}")
    return splits


def _check_rows(file: Any, name: str, path: str, expected: int, why: str) -> None:
    if path in file and len(file[path]) != expected:
        raise ValueError(f"{name}: {path} has {len(file[path])} rows but {why}.")


def _check_structures(file: Any, name: str, splits: NDArray[np.int64]) -> None:
    end = f"structures/atomic_numbers_splits ends at {splits[-1]}"
    _check_rows(file, name, "structures/positions", int(splits[-1]), end)
    n = len(splits) - 1
    for column in ("cells", "pbc", "sources", "molecules"):
        _check_rows(file, name, f"structures/{column}", n, f"there are {n} structures")
    _check_finite(file, name, "structures/positions", splits)
    _check_finite(file, name, "structures/cells", np.arange(n + 1))

    def known(numbers: NDArray[Any]) -> NDArray[np.bool_]:
        return (numbers >= 1) & (numbers <= 118)

    said = "is not an atomic number from 1 to 118"
    _check_values(file, name, "structures/atomic_numbers", splits, known, said)


def _check_labels(file: Any, name: str, structure_splits: NDArray[np.int64]) -> None:
    splits = _check_splits(file, name, "labels/forces_splits", "forces")
    n = len(splits) - 1
    for column in ("energy", "structure_indices", "stress", "stress_mask"):
        _check_rows(file, name, f"labels/{column}", n, f"there are {n} labels")
    indices = file["labels/structure_indices"][:].astype(np.int64)
    n_structures = len(structure_splits) - 1
    outside = np.flatnonzero((indices < 0) | (indices >= n_structures))
    if len(outside):
        i = int(outside[0])
        said = f"structure {indices[i]}, but there are {n_structures} structures"
        raise ValueError(f"{name}: labels/structure_indices[{i}] names {said}.")
    _, first = np.unique(indices, return_index=True)
    if len(first) != n:
        i = int(np.setdiff1d(np.arange(n), first)[0])
        said = f"names structure {indices[i]} a second time"
        raise ValueError(f"{name}: labels/structure_indices[{i}] {said}.")
    differs = np.flatnonzero(np.diff(splits) != np.diff(structure_splits)[indices])
    if len(differs):
        i = int(differs[0])
        atoms = np.diff(structure_splits)[indices[i]]
        said = f"{np.diff(splits)[i]} forces but structure {indices[i]} has {atoms} atoms"
        raise ValueError(f"{name}: labels/forces_splits gives label {i} {said}.")
    _check_finite(file, name, "labels/energy", np.arange(n + 1))
    _check_finite(file, name, "labels/forces", splits)
    if "labels/stress" in file and "labels/stress_mask" not in file:
        _check_finite(file, name, "labels/stress", np.arange(n + 1))


def _check_finite(file: Any, name: str, path: str, splits: NDArray[np.int64]) -> None:
    _check_values(file, name, path, splits, np.isfinite, "is not finite")


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
