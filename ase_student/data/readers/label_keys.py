"""Which keys of a file are its labels: one family of them, so that no level of theory is mixed.

A family is what names share around the words for energy, forces and stress: ``REF_energy`` and
``REF_forces`` are of one, ``energy`` and ``force`` of another. The family with energies and forces
in most frames is taken; among equals one with a name comes before the plain one, since a plain
``energy`` is often what a program left behind, and ``REF`` before others. What is read and what is
not can be told by :meth:`LabelKeys.sentence`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

#: What the three labels are called, best first. Forces are derivatives of the free energy.
WORDS = {
    "energy": ("free_energy", "energy", "energies_total"),
    "forces": ("forces", "force"),
    "stress": ("stress", "virial", "virials"),
}
LOOKED_FOR = "names with 'energy' and 'forces' in them, such as 'energy' or 'REF_forces'"
#: Names of what is no label: the structures themselves.
STRUCTURE_NAMES = {"Properties", "Lattice", "pbc", "species", "pos", "numbers", "positions"}
#: Names of a file that a message lists.
MOST_NAMED = 10
_WORD = re.compile(
    r"^(?P<before>.*?)(?P<word>free_energy|energy|forces?|stress|virials?)(?P<after>.*)$",
    re.IGNORECASE,
)
#: Names that hold such a word and are no labels of a whole structure.
_OTHERS = re.compile(
    r"^(energies|stresses|local_energy|local_virial|total_energy_.*|.*(weight|rmse|mae|error|unit|std|"
    r"var|variance|uncertainty|convergence|cutoff).*|(kinetic|kin|potential_shift)_energy.*)$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class LabelKeys:
    """Names of the labels in a file.

    Attributes
    ----------
    energy, forces, stress : str or None
        None if there are none. A stress may be a virial, which its name says.
    unused : tuple of str
        Names that look like labels and are not read.
    others : tuple of str
        If nothing is read, the names that there are apart from those of the structures.
    """

    energy: str | None = None
    forces: str | None = None
    stress: str | None = None
    unused: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    @property
    def is_virial(self) -> bool:
        """Whether the stress is given as a virial, -V times the stress."""
        return self.stress is not None and "virial" in self.stress.lower()

    def sentence(self, file: str) -> str:
        """Return what is read of a file."""
        read = ", ".join(
            f"{label} from '{key}'"
            for label, key in (
                ("energy", self.energy), ("forces", self.forces), ("stress", self.stress)
            )
            if key is not None
        )  # fmt: skip
        said = f"{file}: read {read}" if read else f"{file}: holds no labels; {self._looked_for()}"
        if self.unused:
            names = ", ".join(f"'{key}'" for key in self.unused)
            said += f"; not read, though they look like labels: {names}"
        return f"{said}."

    def _looked_for(self) -> str:
        there = ", ".join(f"'{name}'" for name in self.others[:MOST_NAMED]) or "none"
        more = f" and {len(self.others) - MOST_NAMED} more" * (len(self.others) > MOST_NAMED)
        return f"looked for {LOOKED_FOR}; names in the file: {there}{more}"


def choose_keys(
    counts: Counter[str], given: LabelKeys | None = None, file: str = "the file"
) -> LabelKeys:
    """Return the names of a file's labels.

    Parameters
    ----------
    counts : Counter of str
        In how many frames each name is.
    given : LabelKeys, optional
        Names that are asked for; those that are not None are taken as they are.
    file : str
        What messages call the file.

    Raises
    ------
    ValueError
        If a name is asked for that no frame has.
    """
    asked = given or LabelKeys()
    for label in WORDS:
        key = getattr(asked, label)
        if key is not None and key not in counts:
            known = ", ".join(f"'{name}'" for name in sorted(counts)) or "none"
            raise ValueError(f"{file}: no frame has '{key}' for its {label}; there are: {known}.")
    families: dict[tuple[str, str], dict[str, str]] = {}
    looks_like: set[str] = set()
    for key in counts:
        match = _WORD.match(key)
        if match is None or _OTHERS.match(key):
            continue
        word = match["word"].lower()
        looks_like.add(key)
        family = families.setdefault((match["before"].lower(), match["after"].lower()), {})
        label = next(name for name, words in WORDS.items() if word in words)
        best = family.get(label)
        if best is None or _rank(label, key) < _rank(label, best):
            family[label] = key
    chosen: dict[str, str] = {}
    if families:
        chosen = max(families.items(), key=lambda item: _worth(item[0], item[1], counts))[1]
    names = {label: getattr(asked, label) or chosen.get(label) for label in WORDS}
    if given is not None and any(getattr(given, label) for label in WORDS):
        # What was asked for is not joined by labels of another family.
        names = {label: getattr(asked, label) for label in WORDS}
    unused = tuple(sorted(looks_like - set(names.values())))
    others = () if any(names.values()) else tuple(sorted(counts.keys() - STRUCTURE_NAMES))
    return LabelKeys(**names, unused=unused, others=others)


def _rank(label: str, key: str) -> int:
    match = _WORD.match(key)
    assert match is not None
    return WORDS[label].index(match["word"].lower())


def _worth(
    around: tuple[str, str], family: dict[str, str], counts: Counter[str]
) -> tuple[int, int, bool, bool, tuple[str, str]]:
    both = (
        min(counts[family[label]] for label in family) if {"energy", "forces"} <= set(family) else 0
    )
    one = max(counts[key] for key in family.values())
    return both, one, around[0].startswith("ref"), around != ("", ""), around


def label_of(
    label: str, value: Any, keys: LabelKeys, *, atoms: Atoms
) -> float | NDArray[np.float64] | None:
    """Return a label as a number or an array of floats; stress in Voigt order.

    Parameters
    ----------
    label : 'energy', 'forces' or 'stress'
    value : array_like or None
        What the file has; a virial, in eV, becomes a stress by the volume of the cell.
    keys : LabelKeys
    atoms : Atoms

    Raises
    ------
    ValueError
        If it has no shape that such a label can have.
    """
    if value is None:
        return None
    values = np.asarray(value, dtype=np.float64)
    if label == "energy":
        if values.size != 1:
            raise ValueError(f"'{keys.energy}' has shape {values.shape}; it must be one number")
        return float(values.reshape(()))
    if label == "forces":
        return values
    if values.shape != (6,):
        full = values.reshape(3, 3)
        values = full[(0, 1, 2, 1, 0, 0), (0, 1, 2, 2, 2, 1)]
    if keys.is_virial:
        if atoms.cell.rank < 3:
            raise ValueError(f"'{keys.stress}' needs a cell with a volume to become a stress")
        values = -values / atoms.get_volume()
    return values


def labels_of(atoms: Atoms, keys: LabelKeys) -> dict[str, Any]:
    """Return the labels that structures of ASE carry; None for each that is missing.

    Results of a calculator are read as they are stored: asked for, ASE would set those of
    constrained atoms to zero.
    """
    results = atoms.calc.results if atoms.calc is not None else {}
    labels: dict[str, Any] = dict.fromkeys(WORDS)
    for label in WORDS:
        key = getattr(keys, label)
        for place in (results, atoms.info, atoms.arrays):
            if key is not None and key in place:
                labels[label] = label_of(label, place[key], keys, atoms=atoms)
                break
    return labels


def names_in(places: Iterable[Collection[str]]) -> Counter[str]:
    """Return in how many places, one for each frame, each name is."""
    return Counter(name for place in places for name in set(place))
