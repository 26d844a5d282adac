"""Detection of a file's format, and the command that converts it to a data set."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from ase_student.data.readers.group_layouts import LAYOUTS, layout_of

#: First bytes of files of each format.
_SIGNATURES = (
    (b"\x89HDF\r\n\x1a\n", "HDF5"),
    (b"SQLite format 3\0", "an ASE database"),
    (b"- of Ulm", "an ASE trajectory"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"PK\x03\x04", "a zip archive"),
)
#: Number of bytes that are read to detect the format.
_N_FIRST_BYTES = 4096
#: Formats that can be imported.
_IMPORTED = ("an ASE database", "an ASE trajectory", "a NumPy archive", "an XYZ file")


def kind_of(path: Path) -> str | None:
    """Return the format of a file by its first bytes, with an article; None if unknown."""
    with path.open("rb") as file:
        head = file.read(_N_FIRST_BYTES)
    for signature, kind in _SIGNATURES:
        if head.startswith(signature):
            is_numpy = kind == "a zip archive" and path.suffix.lower() == ".npz"
            return "a NumPy archive" if is_numpy else kind
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.split(b"\n", 1)[0].strip().isdigit():
        return "an XYZ file"
    if text.startswith(b"{") and b'"unique_id"' in head:
        return "an ASE database"
    return None


def advice(path: Path) -> str:
    """Return sentences on the format of a file that is not HDF5, and how to use the file.

    The text begins with a space; it is empty if the format is unknown.
    """
    kind = kind_of(path)
    if kind is None or kind == "HDF5":
        return ""
    if kind not in _IMPORTED:
        return f" It seems to be {kind}."
    return (
        f" It seems to be {kind}: 'ase-student distill displace --file' samples around its "
        f"structures; labeled ones are converted by: {import_command(path)}"
    )


def import_command(path: Path) -> str:
    """Return the command that converts a file to a data set in the same folder."""
    output = path.with_suffix(".h5")
    if output == path:
        output = path.with_name(f"{path.stem}-imported.h5")
    words = ("ase-student", "distill", "import", str(path), "-o", str(output))
    return shlex.join(words)


def foreign_advice(file: Any) -> str:
    """Return a sentence on the layout of an HDF5 file that is not a data set of this package.

    The text begins with a space; it is empty if the file looks like an incomplete data set.
    """
    if "structures" in file or "labels" in file:
        return ""
    layout = layout_of(file)
    if layout is not None:
        path = Path(file.filename)
        return f" It seems to be a file of {layout.name}; convert it: {import_command(path)}"
    supported = ", ".join(known_layout.name for known_layout in LAYOUTS)
    return (
        " It is in the layout of another program; 'ase-student distill import' reads those of "
        f"{supported}, and extended XYZ, to which h5py and ase.io.write can convert it."
    )
