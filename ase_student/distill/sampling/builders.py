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

#: With fewer structures of one name, frames of one structure are on several sides of the split.
MANY = 20
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
        Where it comes from; has no '.', which would be read as several molecules.
    atoms : Atoms
    in_groups : bool
        Whether groups of its frames are split, because there are few structures beside it.
    digest : str
        What the structure is, as a hash.
    """

    name: str
    atoms: Atoms = field(repr=False, compare=False)
    in_groups: bool = False
    digest: str = ""

    def group(self, number: int) -> str:
        """Return the name that the split goes by for a group of frames made from the structure.

        Frames of one group, of a trajectory for instance, are always in the same part.
        """
        return f"{self.name}/{number}" if self.in_groups else self.name


def read_file(path: Path, repeat: Sequence[int] = (1, 1, 1)) -> list[InputStructure]:
    """Return all structures of a file, called ``stem#index``.

    Parameters
    ----------
    path : path
        Anything that ASE reads.
    repeat : sequence of 3 int
        How often each is repeated along its axes.

    Raises
    ------
    FileNotFoundError
    ValueError
        If ASE cannot read it, or a structure is not fit to start from; the message says which.
    """
    if not path.exists():
        raise FileNotFoundError(f"no file of structures at '{path}'.")
    try:
        found = ase.io.read(path, index=":")
    except Exception as error:
        # Whatever one of ASE's many readers raises.
        said = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"'{path}' cannot be read by ASE: {said}") from error
    if not found:
        raise ValueError(f"'{path}' has no structures.")
    return _origins(path.stem, list(found), repeat, f"'{path}'")


def crystal(text: str, repeat: Sequence[int] = (1, 1, 1)) -> list[InputStructure]:
    """Return the crystal that a text such as ``'NaCl:rocksalt:5.64'`` describes.

    Parameters
    ----------
    text : str
        Formula, structure, lattice constants a and c in Å, as ``ase.build.bulk`` takes them. What
        is at the end may be left out for elements, for which ASE knows it. The cell is a cube where
        it can be.
    repeat : sequence of 3 int

    Raises
    ------
    ValueError
        If ASE cannot build it.
    """
    what = f"the crystal '{text}'"
    formula, structure, *lengths = [*text.split(":"), ""][: max(2, text.count(":") + 1)]
    if structure and structure not in CRYSTALS:
        raise ValueError(f"{what} has no known structure; available: {', '.join(CRYSTALS)}.")
    if len(lengths) > 2:
        raise ValueError(f"{what} has too many parts; give 'formula:structure:a:c'.")
    constants: dict[str, Any] = dict(
        zip("ac", (_length(one, what) for one in lengths), strict=False)
    )
    try:
        # Without a structure, whether the cell can be a cube is up to the element.
        known = structure or _usual_structure(formula)
        atoms = ase.build.bulk(formula, structure or None, cubic=known in CUBIC, **constants)
    except (ValueError, KeyError, RuntimeError, NotImplementedError) as error:
        raise ValueError(f"{what} cannot be built by ASE: {_said(error)}") from error
    return _origins(text.replace(":", "-"), [atoms], repeat, what)


def surface(text: str, repeat: Sequence[int] = (1, 1, 1)) -> list[InputStructure]:
    """Return the surface that a text such as ``'Cu:fcc111:2,2,4:10'`` describes.

    Parameters
    ----------
    text : str
        Element, face, number of cells along the surface twice and of layers, vacuum on each side in
        Å, and, if it is not to be ASE's, the lattice constant in Å.
    repeat : sequence of 3 int

    Raises
    ------
    ValueError
        If ASE cannot build it.
    """
    what = f"the surface '{text}'"
    parts = text.split(":")
    if len(parts) not in (4, 5):
        raise ValueError(f"{what} must be 'element:face:2,2,4:vacuum', with ':a' if need be.")
    symbol, face, counts, vacuum = parts[:4]
    if face not in SURFACES:
        raise ValueError(f"{what} has no known face; available: {', '.join(SURFACES)}.")
    if symbol not in chemical_symbols[1:]:
        raise ValueError(f"{what} is of no known element.")
    try:
        size = tuple(int(word) for word in counts.split(","))
    except ValueError:
        size = ()
    if len(size) != 3 or min(size) < 1:
        raise ValueError(f"{what} needs a size of three whole numbers such as '2,2,4'.")
    constants = {"a": _length(parts[4], what)} if len(parts) == 5 else {}
    try:
        build = getattr(ase.build, face)
        atoms = build(symbol, size=size, vacuum=_length(vacuum, what), **constants)
    except (ValueError, KeyError, RuntimeError, NotImplementedError) as error:
        raise ValueError(f"{what} cannot be built by ASE: {_said(error)}") from error
    return _origins(text.replace(":", "-"), [atoms], repeat, what)


def _origins(
    name: str, structures: Sequence[Atoms], repeat: Sequence[int], what: str
) -> list[InputStructure]:
    name = "-".join(name.replace(".", "_").split())
    in_groups = len(structures) < MANY
    found = []
    for i, atoms in enumerate(structures):
        where = f"structure {i} of {what}" if len(structures) > 1 else what
        plain = _repeated(_plain(atoms, where), repeat, where)
        arrays = (plain.numbers, plain.positions, plain.cell.array, plain.pbc)
        digest = hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()
        found.append(InputStructure(f"{name}#{i}", plain, in_groups, digest))
    return found


def _plain(atoms: Atoms, where: str) -> Atoms:
    """Return elements, positions and cell alone, checked."""
    if len(atoms) == 0:
        raise ValueError(f"{where} has no atoms.")
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        raise ValueError(f"{where} has positions or a cell that are not finite.")
    if (atoms.numbers < 1).any():
        raise ValueError(f"{where} has atoms of no element.")
    if np.linalg.matrix_rank(atoms.cell.array[atoms.pbc]) < atoms.pbc.sum():
        raise ValueError(f"{where} is periodic, but its cell is not complete.")
    if not atoms.pbc.any():
        return Atoms(atoms.numbers, atoms.positions)
    return Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)


def _repeated(atoms: Atoms, repeat: Sequence[int], where: str) -> Atoms:
    for axis, (n, periodic) in enumerate(zip(repeat, atoms.pbc, strict=True)):
        if n > 1 and not periodic:
            raise ValueError(f"{where} is not periodic along axis {axis}: it cannot be repeated.")
    return atoms.repeat(tuple(repeat)) if max(repeat) > 1 else atoms


def _usual_structure(symbol: str) -> str | None:
    state = reference_states[atomic_numbers[symbol]] if symbol in atomic_numbers else None
    return str(state["symmetry"]) if state else None


def _length(text: str, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not 0 < value < np.inf:
        raise ValueError(f"{what} has the length '{text}'; it must be a number above 0 Å.")
    return value


def _said(error: Exception) -> str:
    said = " ".join(str(error.args[0] if error.args else error).split())
    return said if said.endswith(".") else f"{said}."


def all_origins(
    files: Iterable[Path],
    crystals: Iterable[str],
    surfaces: Iterable[str],
    *,
    repeat: Sequence[int] = (1, 1, 1),
) -> list[InputStructure]:
    """Return the structures of files, crystals and surfaces."""
    found = [origin for path in files for origin in read_file(path, repeat)]
    found += [origin for text in crystals for origin in crystal(text, repeat)]
    found += [origin for text in surfaces for origin in surface(text, repeat)]
    return found
