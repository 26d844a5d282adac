"""Reader of HDF5 data sets, in the layout of :mod:`ase_student.data.hdf5`; it reads lazily.

:class:`ase_student.data.hdf5.Dataset` rejects a file with any error. This reader rejects a file
only for errors that make the whole file unreadable. Errors in a single structure are found when
that structure is read, so that the other structures can be used.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from ase_student.data.hdf5_layout import LayoutError, decoded_attribute, open_hdf5, read_layout
from ase_student.data.readers.base import UNKNOWN_SOURCE, Frame, LeftOut, checked

#: Largest number of unused rows that are read in order to read two structures at once.
GAP_ROWS = 2000
NAMES = {
    "numbers": "structures/atomic_numbers",
    "positions": "structures/positions",
    "cell": "structures/cells",
    "energy": "labels/energy",
    "forces": "labels/forces",
    "stress": "labels/stress",
}


class Hdf5Frames:
    """A labeled HDF5 data set.

    Attributes
    ----------
    path : path
    sizes : (n,) int64
    metadata : dict
        The attributes of ``/metadata``.

    Raises
    ------
    ValueError
        If a column is missing or of the wrong type or shape, if splits don't fit their column, or
        if there are no labels. The message names the file and the dataset.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open_hdf5(path, path.name)
        try:
            self._open()
        except LayoutError:
            self._file.close()
            raise
        # h5py raises exceptions of many types for missing or damaged bytes.
        except Exception as error:
            self._file.close()
            reason = " ".join(str(error).split())
            raise ValueError(f"{path.name}: is damaged or cut short ({reason}).") from None

    def _open(self) -> None:
        layout = read_layout(self._file, self.path.name, tolerant=True)
        if layout.labels is None:
            raise LayoutError(
                f"{self.path.name}: has no group 'labels', so there is nothing to compare with."
            )
        self._splits, self._label_splits = layout.splits, layout.labels.splits
        self._label_of, self._second_label_of = _owners(layout.labels.structure_indices)
        self.sizes: NDArray[np.int64] = np.maximum(np.diff(self._splits), 0)
        self.metadata = self._metadata()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, indices: Sequence[int]) -> list[Frame | LeftOut]:
        """Return the structures of ascending indices, each checked."""
        frames: list[Frame | LeftOut] = []
        readable: list[int] = []
        for index in indices:
            reason = self._wrong_with_splits(index)
            if reason is None:
                readable.append(index)
            else:
                frames.append(reason)
        for run in self._runs(readable):
            try:
                frames.extend(self._read_run(run))
            except Exception:
                # Some bytes are damaged; structures in the other bytes may still be readable.
                frames.extend(self._read_alone(index) for index in run)
        return sorted(frames, key=lambda frame: frame.index)

    def _read_alone(self, index: int) -> Frame | LeftOut:
        try:
            return self._read_run([index])[0]
        except Exception as error:
            reason = " ".join(str(error).split())
            place = f"{self.path.name}: structure {index}"
            return LeftOut(index, f"{place} cannot be read, the file is damaged ({reason}).")

    def _wrong_with_splits(self, index: int) -> LeftOut | None:
        """Return why the rows of a structure or its label are invalid, None if they are valid."""
        start, stop = self._splits[index : index + 2]
        name = f"{self.path.name}: structures/atomic_numbers_splits"
        if start >= stop:
            problem = f"gives structure {index} no atoms, it goes from {start} to {stop}"
            return LeftOut(index, f"{name} {problem}.")
        if index in self._second_label_of:
            row = self._second_label_of[index]
            problem = f"labels/structure_indices[{row}] names structure {index} a second time"
            return LeftOut(index, f"{self.path.name}: {problem}.")
        if index not in self._label_of:
            problem = f"{self.path.name}: structure {index} has no label."
            return LeftOut(index, problem, invalid=False)
        row = self._label_of[index]
        n_forces = self._label_splits[row + 1] - self._label_splits[row]
        if n_forces != stop - start:
            problem = (
                f"gives label {row} {n_forces} forces but structure {index} has {stop - start}"
            )
            return LeftOut(index, f"{self.path.name}: labels/forces_splits {problem} atoms.")
        return None

    def _runs(self, indices: Sequence[int]) -> list[list[int]]:
        """Return the indices in groups whose rows are close enough to be read at once."""
        runs: list[list[int]] = []
        for index in indices:
            near = runs and 0 <= self._splits[index] - self._splits[runs[-1][-1] + 1] <= GAP_ROWS
            if near:
                runs[-1].append(index)
            else:
                runs.append([index])
        return runs

    def _read_run(self, indices: list[int]) -> list[Frame | LeftOut]:
        structures, labels = self._file["structures"], self._file["labels"]
        first, last = indices[0], indices[-1] + 1
        origin = self._splits[first]
        rows = slice(origin, self._splits[last])
        numbers, positions = structures["atomic_numbers"][rows], structures["positions"][rows]
        cells, pbc = structures["cells"][first:last], structures["pbc"][first:last]
        sources = self._sources(first, last)
        frames = []
        label_rows = [self._label_of[index] for index in indices]
        spread = slice(min(label_rows), max(label_rows) + 1)
        # Labels are usually in the order of their structures; otherwise they are read one by one.
        together = spread.stop - spread.start <= 2 * (last - first)
        forces_of = self._forces(spread) if together else None
        energies = labels["energy"][spread] if together else None
        for index, row in zip(indices, label_rows, strict=True):
            atoms = slice(self._splits[index] - origin, self._splits[index + 1] - origin)
            if forces_of is not None and energies is not None:
                forces, energy = forces_of(row), energies[row - spread.start]
            else:
                forces = labels["forces"][slice(*self._label_splits[row : row + 2])]
                energy = labels["energy"][row]
            frame = Frame(
                index,
                _atoms(numbers[atoms], positions[atoms], cells[index - first], pbc[index - first]),
                float(energy),
                np.asarray(forces, dtype=np.float64),
                self._stress(row),
                sources[index - first],
            )
            place = f"{self.path.name}: structure {index}, label {row}"
            frames.append(checked(frame, place, NAMES))
        return frames

    def _forces(self, rows: slice) -> Any:
        start, stop = self._label_splits[rows.start], self._label_splits[rows.stop]
        if start > stop or (np.diff(self._label_splits[rows.start : rows.stop + 1]) < 0).any():
            return None
        block = self._file["labels/forces"][start:stop]
        return lambda row: block[
            self._label_splits[row] - start : self._label_splits[row + 1] - start
        ]

    def _stress(self, row: int) -> NDArray[np.float64] | None:
        labels = self._file["labels"]
        if "stress" not in labels or ("stress_mask" in labels and not labels["stress_mask"][row]):
            return None
        return np.asarray(labels["stress"][row], dtype=np.float64)

    def _sources(self, start: int, stop: int) -> list[str]:
        group = self._file["structures"]
        if "sources" not in group:
            return [UNKNOWN_SOURCE] * (stop - start)
        return [text or UNKNOWN_SOURCE for text in group["sources"].asstr()[start:stop].tolist()]

    def _metadata(self) -> dict[str, Any]:
        if "metadata" not in self._file:
            return {}
        attributes = self._file["metadata"].attrs.items()
        decoded = {key: decoded_attribute(value) for key, value in attributes}
        # Others, such as arrays, cannot be written as JSON.
        json_types = (str, bool, int, float, list, dict)
        return {key: value for key, value in decoded.items() if isinstance(value, json_types)}


def _owners(structure_indices: NDArray[np.int64]) -> tuple[dict[int, int], dict[int, int]]:
    """Return the first label of each structure, and a second one where there is one."""
    first: dict[int, int] = {}
    second: dict[int, int] = {}
    for row, index in enumerate(structure_indices.tolist()):
        if index in first:
            second.setdefault(index, row)
        else:
            first[index] = row
    return first, second


def _atoms(
    numbers: NDArray[np.integer],
    positions: NDArray[np.floating],
    cell: NDArray[np.floating],
    pbc: NDArray[np.bool_],
) -> Atoms:
    atoms = Atoms(pbc=pbc)
    # Numbers are checked later; Atoms(numbers) would fail for invalid atomic numbers.
    atoms.arrays["numbers"] = numbers.astype(int)
    atoms.arrays["positions"] = positions.astype(np.float64)
    atoms.cell.array[:] = cell
    return atoms
