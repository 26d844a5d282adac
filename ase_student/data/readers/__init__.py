"""Readers of labeled structures: HDF5, extended XYZ and ASE databases, behind one protocol."""

from ase_student.data.readers.base import Frame, LeftOut, StructureReader
from ase_student.data.readers.opening import open_frames

__all__ = ["Frame", "LeftOut", "StructureReader", "open_frames"]
