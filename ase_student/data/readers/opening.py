"""Open a file of labeled structures in any supported format."""

from pathlib import Path

from ase_student.data.readers.base import StructureReader
from ase_student.data.readers.label_keys import LabelKeys


def open_frames(path: Path, keys: LabelKeys | None = None) -> StructureReader:
    """Open a file of labeled structures: HDF5, extended XYZ, ASE database or trajectory.

    Parameters
    ----------
    path : path
    keys : LabelKeys, optional
        Names of the labels, if a file has several families of labels; not for HDF5.

    Raises
    ------
    FileNotFoundError
    ValueError
        If the format is not supported, or the file is so damaged that no structure can be read.
    """
    if not path.exists():
        raise FileNotFoundError(f"no file at '{path}'.")
    if path.is_dir():
        raise IsADirectoryError(f"'{path}' is a folder; give a file of structures.")
    suffix = path.suffix.lower()
    if suffix in (".h5", ".hdf5"):
        from ase_student.data.readers.hdf5 import Hdf5Frames

        if keys is not None:
            raise ValueError(f"'{path.name}': labels of an HDF5 data set have fixed names.")
        return Hdf5Frames(path)
    if suffix in (".xyz", ".extxyz"):
        from ase_student.data.readers.extxyz import ExtxyzFrames

        return ExtxyzFrames(path, keys)
    if suffix in (".db", ".json"):
        from ase_student.data.readers.ase_db import DatabaseFrames

        return DatabaseFrames(path, keys)
    if suffix == ".traj":
        from ase_student.data.readers.trajectory import TrajectoryFrames

        return TrajectoryFrames(path, keys)
    if suffix == ".npz":
        raise ValueError(
            f"'{path.name}': a NumPy archive does not give its units; convert it first: "
            f"ase-student distill import {path.name} -o {path.stem}.h5"
        )
    raise ValueError(
        f"'{path.name}': files of structures end in .h5 or .hdf5 (HDF5), .xyz or .extxyz "
        "(extended XYZ), .db or .json (ASE database), .traj (ASE trajectory)."
    )
