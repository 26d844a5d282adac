"""Labeled structures: columns, HDF5 files, their checks, and how they are split."""
