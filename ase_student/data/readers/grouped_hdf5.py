"""Reader of HDF5 files with one group for each molecule, in the known layouts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from ase_student.data.hdf5_layout import check_data, check_link, open_hdf5
from ase_student.data.readers.base import Frame, LeftOut, checked
from ase_student.data.readers.group_layouts import LAYOUTS, groups_of, layout_of
from ase_student.data.readers.label_keys import LabelKeys


class GroupedHdf5Frames:
    """A file of SPICE, ANI-1x or QM7-X; values are returned in ASE's units.

    Attributes
    ----------
    path : path
    sizes : (n,) int64
    metadata : dict
        Empty.
    keys : LabelKeys
        Names of the labels in the file.
    layout : GroupLayout

    Raises
    ------
    ValueError
        If the file has another layout, or names of labels are given.
    """

    states_units = True

    def __init__(self, path: Path, keys: LabelKeys | None = None) -> None:
        self.path = path
        self.metadata: dict[str, Any] = {}
        self._file = open_hdf5(path, path.name)
        try:
            layout = layout_of(self._file)
            if layout is None and "structures" in self._file:
                raise ValueError(f"{path.name}: is already a data set; give it to the next step.")
            if layout is None:
                supported = ", ".join(known_layout.name for known_layout in LAYOUTS)
                raise ValueError(
                    f"{path.name}: HDF5 in an unknown layout (known are {supported}); read it "
                    "with h5py and write extended XYZ with ase.io.write, which can be imported."
                )
            if keys is not None:
                raise ValueError(f"{path.name}: labels of {layout.name} have fixed names.")
            self.layout = layout
            self.keys = LabelKeys(layout.energy, layout.forces)
            self._places: list[tuple[str, int]] = []
            sizes: list[int] = []
            for place, group in groups_of(self._file):
                n, n_atoms = self._shape(place, group)
                self._places += [(place, row) for row in range(n)]
                sizes += [n_atoms] * n
        except ValueError:
            self._file.close()
            raise
        # h5py raises exceptions of many types for missing or damaged bytes.
        except Exception as error:
            self._file.close()
            reason = " ".join(str(error).split())
            raise ValueError(f"{path.name}: is damaged or cut short ({reason}).") from None
        self.sizes: NDArray[np.int64] = np.array(sizes, dtype=np.int64)
        self._group: tuple[str, dict[str, NDArray[Any]]] = ("", {})

    def _shape(self, place: str, group: Any) -> tuple[int, int]:
        """Return the numbers of geometries and of atoms in a group, after checking all shapes."""
        layout, shapes = self.layout, {}
        for key in (layout.numbers, layout.positions, layout.energy, layout.forces):
            if key not in group:
                raise ValueError(f"{self.path.name}: {place} has no dataset '{key}'.")
            check_link(group.get(key, getlink=True), self.path.name, f"{place}/{key}")
            check_data(group[key], self.path.name, f"{place}/{key}")
            shapes[key] = group[key].shape
        positions = shapes[layout.positions]
        n, n_atoms = (1, *positions)[-3:-1] if len(positions) in (2, 3) else (0, 0)
        scalar_shapes = [()] if n == 1 else []
        allowed: dict[str, list[tuple[int, ...]]] = {
            layout.numbers: [(n_atoms,)],
            layout.positions: [(n, n_atoms, 3), *((n_atoms, 3) for _ in scalar_shapes)],
            layout.energy: [(n,), (n, 1), *scalar_shapes],
            layout.forces: [(n, n_atoms, 3), *((n_atoms, 3) for _ in scalar_shapes)],
        }
        for key, shape in shapes.items():
            if shape not in allowed[key]:
                raise ValueError(
                    f"{self.path.name}: {place}/{key} has shape {shape}; it must be "
                    f"{allowed[key][0]}, as {layout.positions} has {positions}."
                )
        return n, n_atoms

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, indices: Sequence[int]) -> list[Frame | LeftOut]:
        """Return the structures of ascending indices, each checked."""
        return [self._read_one(index) for index in indices]

    def _read_one(self, index: int) -> Frame | LeftOut:
        place, row = self._places[index]
        location = f"{self.path.name}: {place}, structure {row}"
        layout = self.layout
        try:
            arrays = self._arrays(place)
        except Exception as error:
            reason = " ".join(str(error).split())
            return LeftOut(index, f"{location} cannot be read, the file is damaged ({reason}).")
        atoms = Atoms()
        atoms.arrays["numbers"] = arrays[layout.numbers].astype(int)
        atoms.arrays["positions"] = arrays[layout.positions][row] * layout.length
        energy = float(arrays[layout.energy][row]) * layout.energy_unit
        forces = arrays[layout.forces][row] * layout.force_unit
        # ANI-1x has NaN where a method was not computed.
        frame = Frame(
            index,
            atoms,
            None if np.isnan(energy) else energy,
            None if np.isnan(forces).all() else forces,
            None,
        )
        names = {
            "numbers": layout.numbers, "positions": layout.positions, "cell": "cell",
            "energy": layout.energy, "forces": layout.forces, "stress": "stress",
        }  # fmt: skip
        return checked(frame, location, names)

    def _arrays(self, place: str) -> dict[str, NDArray[Any]]:
        """Return the datasets of a molecule's group; those of the last group are cached."""
        if self._group[0] != place:
            layout, group = self.layout, self._file[place]
            n_atoms = len(group[layout.numbers])
            self._group = (
                place,
                {
                    layout.numbers: group[layout.numbers][()],
                    layout.energy: np.asarray(group[layout.energy][()], np.float64).reshape(-1),
                    **{
                        key: np.asarray(group[key][()], np.float64).reshape(-1, n_atoms, 3)
                        for key in (layout.positions, layout.forces)
                    },
                },
            )
        return self._group[1]
