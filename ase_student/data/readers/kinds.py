"""What a file seems to be, and which command makes a data set of it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from ase_student.data.readers.group_layouts import LAYOUTS, layout_of

#: How files of a kind begin.
_HEADS = (
    (b"\x89HDF\r\n\x1a\n", "HDF5"),
    (b"SQLite format 3\0", "an ASE database"),
    (b"- of Ulm", "an ASE trajectory"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"PK\x03\x04", "a zip archive"),
)
#: Bytes that are looked at.
_HEAD = 4096
_IMPORTED = ("an ASE database", "an ASE trajectory", "a NumPy archive", "an XYZ file")


def kind_of(path: Path) -> str | None:
    """Return what a file seems to be by its first bytes, with its article; None if not known."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    for begin, kind in _HEADS:
        if head.startswith(begin):
            is_numpy = kind == "a zip archive" and path.suffix.lower() == ".npz"
            return "a NumPy archive" if is_numpy else kind
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.split(b"\n", 1)[0].strip().isdigit():
        return "an XYZ file"
    if text.startswith(b"{") and b'"unique_id"' in head:
        return "an ASE database"
    return None


def advice(path: Path) -> str:
    """Return sentences on what a file that is no HDF5 seems to be and what to do with it.

    Begins with a space; is empty where nothing is known.
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
    """Return the command that makes a data set of a file, beside it under another name."""
    output = path.with_suffix(".h5")
    if output == path:
        output = path.with_name(f"{path.stem}-imported.h5")
    words = ("ase-student", "distill", "import", str(path), "-o", str(output))
    return shlex.join(words)


def foreign_advice(file: Any) -> str:
    """Return a sentence on whose layout an open HDF5 file has that is no data set of this package.

    Begins with a space; is empty where the file looks like a data set that lacks something.
    """
    if "structures" in file or "labels" in file:
        return ""
    layout = layout_of(file)
    if layout is not None:
        path = Path(file.filename)
        return f" It seems to be a file of {layout.name}; convert it: {import_command(path)}"
    known = ", ".join(one.name for one in LAYOUTS)
    return (
        " It is in the layout of another program; 'ase-student distill import' reads those of "
        f"{known}, and extended XYZ, which h5py and ase.io.write make of it."
    )
