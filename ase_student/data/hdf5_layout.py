"""Layout of an HDF5 data set: how a file is opened, its columns, and how they fit together.

These checks are the same for a whole data set (:mod:`ase_student.data.checks` adds those of every
value) and for a reader that takes what it can (:mod:`ase_student.data.readers.hdf5`).
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_student.data.readers.kinds import advice, foreign_advice

#: No compression that HDF5 has makes data smaller than by this factor; bytes below which none is
#: looked at.
MOST_EXPANSION = 1100
SMALLEST_CHECKED = 2**20

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


class LayoutError(ValueError):
    """A file can be read, but is no data set."""


@dataclass(frozen=True)
class LabelLayout:
    """Where in a file each label is.

    Attributes
    ----------
    splits : (n_labels + 1,) int64
        Label i owns the forces from ``splits[i]`` up to ``splits[i + 1]``.
    structure_indices : (n_labels,) int64
        The structure that each label belongs to.
    """

    splits: NDArray[np.int64]
    structure_indices: NDArray[np.int64]


@dataclass(frozen=True)
class Layout:
    """Where in a file each structure is, and each label if there are any.

    Attributes
    ----------
    splits : (n + 1,) int64
        Structure i owns the atoms from ``splits[i]`` up to ``splits[i + 1]``.
    labels : LabelLayout or None
    """

    splits: NDArray[np.int64]
    labels: LabelLayout | None = None


def import_h5py() -> ModuleType:
    """Return h5py; without it, raise ImportError that says how to install it."""
    try:
        h5py = importlib.import_module("h5py")
    except ImportError as error:
        raise ImportError('HDF5 data sets need h5py: pip install "ase-student[distill]"') from error
    return h5py


def open_hdf5(path: Path, name: str) -> Any:
    """Return the file opened for reading, or raise an error that says in one sentence why not."""
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
    with damage_as_error(name):
        for group in ("structures", "labels", "failures", "metadata"):
            check_link(file.get(group, getlink=True), name, group)
            members = list(file[group].items()) if isinstance(file.get(group), h5py.Group) else []
            for key, data in members:
                path = f"{group}/{key}"
                check_link(file[group].get(key, getlink=True), name, path)
                if isinstance(data, h5py.Dataset) and data.shape is not None:
                    check_data(data, name, path)


@contextmanager
def damage_as_error(name: str) -> Iterator[None]:
    """Raise ValueError for the errors of many types that h5py raises for damaged bytes."""
    try:
        yield
    except Exception as error:
        if isinstance(error, ValueError) and str(error).startswith(name):
            raise
        raise ValueError(f"{name}: cannot be read, it is damaged or cut short ({error}).") from None


def check_data(data: Any, name: str, path: str) -> None:
    """Refuse a dataset whose data are in other files, or that claims more than is stored of it."""
    with damage_as_error(name):
        elsewhere = data.external or data.is_virtual
        claimed, stored = data.nbytes, data.id.get_storage_size()
    if elsewhere:
        raise ValueError(f"{name}: {path} has its data in other files; put them into one.")
    if claimed > MOST_EXPANSION * stored + SMALLEST_CHECKED:
        raise ValueError(f"{name}: {path} claims {claimed:,} bytes, but {stored:,} are stored.")


def check_link(link: Any, name: str, path: str) -> None:
    """Refuse a link that leads elsewhere, perhaps to another file."""
    h5py = import_h5py()
    if isinstance(link, (h5py.ExternalLink, h5py.SoftLink)):
        raise ValueError(f"{name}: {path} is a link, also to other files; put the data into one.")


def decoded_attribute(value: Any) -> Any:
    """Return the value of an attribute of ``/metadata``; mappings and lists are stored as JSON."""
    plain = value.item() if isinstance(value, np.generic) else value
    if isinstance(plain, str) and plain[:1] in ("{", "["):
        with suppress(json.JSONDecodeError):
            return json.loads(plain)
    return plain


def read_layout(file: Any, name: str, *, tolerant: bool = False) -> Layout:
    """Check the columns of structures and labels, and return where each of them is.

    Parameters
    ----------
    file : h5py.File
    name : str
        Name of the file in messages.
    tolerant : bool
        Whether structures without atoms and structures with several labels are allowed, for a
        reader that leaves them out.

    Raises
    ------
    LayoutError
        If a column is missing or of the wrong type or shape, if columns that belong together have
        different numbers of rows, or if splits or indices point outside of what is there. The
        message names the file and the dataset.
    """
    check_columns(file, name, "structures", columns=STRUCTURE_COLUMNS)
    path = "structures/atomic_numbers_splits"
    splits = _splits(file, name, path, column="structures/atomic_numbers", tolerant=tolerant)
    _check_rows_of_atoms(file, name, splits, of="structures", columns=("positions",))
    n = len(splits) - 1
    for column in ("cells", "pbc", "sources", "molecules", "fragments"):
        check_rows(file, f"structures/{column}", n, name=name, why=f"there are {n} structures")
    if "labels" not in file:
        return Layout(splits)
    check_columns(file, name, "labels", columns=LABEL_COLUMNS)
    path = "labels/forces_splits"
    label_splits = _splits(file, name, path, column="labels/forces", tolerant=tolerant)
    n_labels = len(label_splits) - 1
    why = f"there are {n_labels} labels"
    for column in ("energy", "structure_indices", "stress", "stress_mask"):
        check_rows(file, f"labels/{column}", n_labels, name=name, why=why)
    atomic = ("atomic_energies", *ATOMIC_PROPERTIES)
    _check_rows_of_atoms(file, name, label_splits, of="labels", columns=atomic)
    path = "labels/structure_indices"
    indices = read_indices(file, name, path, n_structures=n, may_repeat=tolerant)
    return Layout(splits, LabelLayout(label_splits, indices))


def check_columns(
    file: Any, name: str, group: str, *, columns: dict[str, tuple[tuple[int, ...], str, bool]]
) -> None:
    """Raise LayoutError if a column of a group is missing, or of the wrong shape or type."""
    h5py = import_h5py()
    if not isinstance(file.get(group), h5py.Group):
        raise LayoutError(f"{name}: has no group '{group}'.{foreign_advice(file)}")
    for column, (shape, kinds, optional) in columns.items():
        data = file[group].get(column)
        if data is None and optional:
            continue
        if not isinstance(data, h5py.Dataset):
            raise LayoutError(f"{name}: has no dataset '{group}/{column}'.")
        # An empty dataspace has no shape, and variable length need not mean text.
        is_text = data.dtype.kind != "O" or h5py.check_string_dtype(data.dtype) is not None
        fits = bool(data.shape) and data.shape[1:] == shape and data.dtype.kind in kinds
        if not fits or not is_text:
            expected = ("rows", *map(str, shape))
            raise LayoutError(
                f"{name}: {group}/{column} has shape {data.shape} and type {data.dtype}; "
                f"it must be ({', '.join(expected)}) {KINDS[kinds]}."
            )


def check_rows(file: Any, path: str, expected: int, *, name: str, why: str) -> None:
    """Raise LayoutError if a column that is there has another number of rows than expected."""
    if path in file and len(file[path]) != expected:
        raise LayoutError(f"{name}: {path} has {len(file[path])} rows but {why}.")


def _check_rows_of_atoms(
    file: Any, name: str, splits: NDArray[np.int64], *, of: str, columns: tuple[str, ...]
) -> None:
    splits_name = "atomic_numbers_splits" if of == "structures" else "forces_splits"
    why = f"{of}/{splits_name} ends at {splits[-1]}"
    for column in columns:
        check_rows(file, f"{of}/{column}", int(splits[-1]), name=name, why=why)


def _splits(file: Any, name: str, path: str, *, column: str, tolerant: bool) -> NDArray[np.int64]:
    """Return the splits of a column, checked; `tolerant` allows empty pieces."""
    splits: NDArray[np.int64] = file[path][:].astype(np.int64)
    if len(splits) == 0 or splits[0] != 0:
        raise LayoutError(f"{name}: {path} must begin with 0.")
    empty = np.flatnonzero(np.diff(splits) <= 0)
    if len(empty) and not tolerant:
        i = int(empty[0])
        what = "label" if path.startswith("labels/") else "structure"
        sizes = f"it goes from {splits[i]} to {splits[i + 1]}"
        raise LayoutError(f"{name}: {path} gives {what} {i} no atoms, {sizes}.")
    check_rows(file, column, int(splits[-1]), name=name, why=f"{path} ends at {splits[-1]}")
    outside = np.flatnonzero((splits < 0) | (splits > splits[-1]))
    if len(outside):
        i = int(outside[0])
        raise LayoutError(f"{name}: {path}[{i}] is {splits[i]}; {column} has {splits[-1]} rows.")
    return splits


def read_indices(
    file: Any, name: str, path: str, *, n_structures: int, may_repeat: bool = False
) -> NDArray[np.int64]:
    """Return a column of indices of structures, checked.

    Raises
    ------
    LayoutError
        If an index is out of range, or stands twice and `may_repeat` is false.
    """
    indices: NDArray[np.int64] = file[path][:].astype(np.int64)
    outside = np.flatnonzero((indices < 0) | (indices >= n_structures))
    if len(outside):
        i = int(outside[0])
        raise LayoutError(
            f"{name}: {path}[{i}] names structure {indices[i]}, but there are {n_structures} "
            "structures."
        )
    _, first = np.unique(indices, return_index=True)
    if len(first) != len(indices) and not may_repeat:
        i = int(np.setdiff1d(np.arange(len(indices)), first)[0])
        raise LayoutError(f"{name}: {path}[{i}] names structure {indices[i]} a second time.")
    return indices
