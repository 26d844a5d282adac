"""Structures to start from: files that ASE reads, crystals and surfaces that it builds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ase.build
import ase.io
import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols, reference_states

#: From this many structures of a name on, all frames of a structure are in the same part of the
#: split. With fewer structures, groups of frames are split.
MIN_WHOLE_STRUCTURES = 20
#: Crystals whose cell can be a cube.
CUBIC = ("sc", "fcc", "bcc", "diamond", "zincblende", "rocksalt", "cesiumchloride", "fluorite")
CRYSTALS = (*CUBIC, "hcp", "wurtzite", "tetragonal", "bct", "rhombohedral", "orthorhombic")
SURFACES = (
    "fcc100", "fcc110", "fcc111", "fcc211", "bcc100", "bcc110", "bcc111", "hcp0001", "hcp10m10",
    "diamond100", "diamond111",
)  # fmt: skip


@dataclass(frozen=True)
class InputStructure:
    """A structure that frames are made from.

    Attributes
    ----------
    name : str
        Where it comes from. Contains no '.', which would be read as several molecules.
    atoms : Atoms
    in_groups : bool
        Whether groups of its frames are split, because there are few other structures.
    digest : str
        Hash of the structure.
    """

    name: str
    atoms: Atoms = field(repr=False, compare=False)
    in_groups: bool = False
    digest: str = ""

    def group(self, number: int) -> str:
        """Return the name by which a group of frames made from the structure is split.

        Frames of one group, of a trajectory for instance, are always in the same part.
        """
        return f"{self.name}/{number}" if self.in_groups else self.name


def read_file(path: Path, repeat: Sequence[int] = (1, 1, 1)) -> list[InputStructure]:
    """Return all structures of a file, called ``stem#index``.

    Parameters
    ----------
    path : path
        File in any format that ASE reads.
    repeat : sequence of 3 int
        Number of repetitions of each structure along its three axes.

    Raises
    ------
    FileNotFoundError
    ValueError
        If ASE cannot read the file, or a structure cannot be used; the message names it.
    """
    if not path.exists():
        raise FileNotFoundError(f"no file of structures at '{path}'.")
    try:
        structures = ase.io.read(path, index=":")
    except Exception as error:
        # ASE's readers raise errors of many types.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"'{path}' cannot be read by ASE: {reason}") from error
    if not structures:
        raise ValueError(f"'{path}' has no structures.")
    return _origins(path.stem, list(structures), repeat, f"'{path}'")


def crystal(text: str, repeat: Sequence[int] = (1, 1, 1)) -> list[InputStructure]:
    """Return the crystal that a text such as ``'NaCl:rocksalt:5.64'`` describes.

    Parameters
    ----------
    text : str
        Formula, structure, lattice constants a and c in Å, as ``ase.build.bulk`` takes them. For
        elements, parts at the end may be left out: ASE knows them. The cell is cubic if the
        structure allows it.
    repeat : sequence of 3 int

    Raises
    ------
    ValueError
        If ASE cannot build it.
    """
    label = f"the crystal '{text}'"
    formula, structure, *lengths = [*text.split(":"), ""][: max(2, text.count(":") + 1)]
    if structure and structure not in CRYSTALS:
        raise ValueError(f"{label} has no known structure; available: {', '.join(CRYSTALS)}.")
    if len(lengths) > 2:
        raise ValueError(f"{label} has too many parts; give 'formula:structure:a:c'.")
    constants: dict[str, Any] = dict(
        zip("ac", (_length(length, label) for length in lengths), strict=False)
    )
    try:
        # Without a structure in the text, that of the element decides if the cell is cubic.
        cell_structure = structure or _usual_structure(formula)
        atoms = ase.build.bulk(
            formula, structure or None, cubic=cell_structure in CUBIC, **constants
        )
    except (ValueError, KeyError, RuntimeError, NotImplementedError) as error:
        raise ValueError(f"{label} cannot be built by ASE: {_reason(error)}") from error
    return _origins(text.replace(":", "-"), [atoms], repeat, label)


def surface(text: str, repeat: Sequence[int] = (1, 1, 1)) -> list[InputStructure]:
    """Return the surface that a text such as ``'Cu:fcc111:2,2,4:10'`` describes.

    Parameters
    ----------
    text : str
        Element, face, number of cells along both axes of the surface and number of layers, vacuum
        on each side in Å, and optionally the lattice constant in Å instead of ASE's.
    repeat : sequence of 3 int

    Raises
    ------
    ValueError
        If ASE cannot build it.
    """
    label = f"the surface '{text}'"
    parts = text.split(":")
    if len(parts) not in (4, 5):
        raise ValueError(f"{label} must be 'element:face:2,2,4:vacuum', with ':a' if needed.")
    symbol, face, counts, vacuum = parts[:4]
    if face not in SURFACES:
        raise ValueError(f"{label} has no known face; available: {', '.join(SURFACES)}.")
    if symbol not in chemical_symbols[1:]:
        raise ValueError(f"{label} has an unknown element.")
    try:
        size = tuple(int(word) for word in counts.split(","))
    except ValueError:
        size = ()
    if len(size) != 3 or min(size) < 1:
        raise ValueError(f"{label} needs a size of three whole numbers such as '2,2,4'.")
    constants = {"a": _length(parts[4], label)} if len(parts) == 5 else {}
    try:
        build = getattr(ase.build, face)
        atoms = build(symbol, size=size, vacuum=_length(vacuum, label), **constants)
    except (ValueError, KeyError, RuntimeError, NotImplementedError) as error:
        raise ValueError(f"{label} cannot be built by ASE: {_reason(error)}") from error
    return _origins(text.replace(":", "-"), [atoms], repeat, label)


def _origins(
    name: str, structures: Sequence[Atoms], repeat: Sequence[int], label: str
) -> list[InputStructure]:
    name = "-".join(name.replace(".", "_").split())
    in_groups = len(structures) < MIN_WHOLE_STRUCTURES
    origins = []
    for i, atoms in enumerate(structures):
        structure_label = f"structure {i} of {label}" if len(structures) > 1 else label
        structure = _repeated(_plain(atoms, structure_label), repeat, structure_label)
        arrays = (structure.numbers, structure.positions, structure.cell.array, structure.pbc)
        digest = hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()
        origins.append(InputStructure(f"{name}#{i}", structure, in_groups, digest))
    return origins


def _plain(atoms: Atoms, label: str) -> Atoms:
    """Return a copy with elements, positions and cell only, after checks."""
    if len(atoms) == 0:
        raise ValueError(f"{label} has no atoms.")
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        raise ValueError(f"{label} has positions or a cell that are not finite.")
    if (atoms.numbers < 1).any():
        raise ValueError(f"{label} has atoms without an element.")
    if np.linalg.matrix_rank(atoms.cell.array[atoms.pbc]) < atoms.pbc.sum():
        raise ValueError(f"{label} is periodic, but its cell is not complete.")
    if not atoms.pbc.any():
        return Atoms(atoms.numbers, atoms.positions)
    return Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)


def _repeated(atoms: Atoms, repeat: Sequence[int], label: str) -> Atoms:
    for axis, (n, periodic) in enumerate(zip(repeat, atoms.pbc, strict=True)):
        if n > 1 and not periodic:
            raise ValueError(f"{label} is not periodic along axis {axis}: it cannot be repeated.")
    return atoms.repeat(tuple(repeat)) if max(repeat) > 1 else atoms


def _usual_structure(symbol: str) -> str | None:
    state = reference_states[atomic_numbers[symbol]] if symbol in atomic_numbers else None
    return str(state["symmetry"]) if state else None


def _length(text: str, label: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not 0 < value < np.inf:
        raise ValueError(f"{label} has the length '{text}'; it must be a number above 0 Å.")
    return value


def _reason(error: Exception) -> str:
    reason = " ".join(str(error.args[0] if error.args else error).split())
    return reason if reason.endswith(".") else f"{reason}."


def all_origins(
    files: Iterable[Path],
    crystals: Iterable[str],
    surfaces: Iterable[str],
    *,
    repeat: Sequence[int] = (1, 1, 1),
) -> list[InputStructure]:
    """Return the structures of files, crystals and surfaces."""
    origins = [origin for path in files for origin in read_file(path, repeat)]
    origins += [origin for text in crystals for origin in crystal(text, repeat)]
    origins += [origin for text in surfaces for origin in surface(text, repeat)]
    return origins
