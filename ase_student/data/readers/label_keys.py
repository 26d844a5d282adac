"""Choice of the keys of a file that are its labels.

All labels are from one family of keys, so that levels of theory are not mixed. The keys of a family
share the text around the words for energy, forces and stress: ``REF_energy`` and ``REF_forces`` are
in one family, ``energy`` and ``force`` in another. The family with energies and forces in most
frames is chosen. Among equals, a family with such a text comes before the plain family, since a
program may write a plain ``energy`` on its own, and ``REF`` comes before others.
:meth:`LabelKeys.sentence` reports what is read and what is not.
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

#: Words for the three labels, preferred first. Forces are derivatives of the free energy.
WORDS = {
    "energy": ("free_energy", "energy", "energies_total"),
    "forces": ("forces", "force"),
    "stress": ("stress", "virial", "virials"),
}
LOOKED_FOR = "names with 'energy' and 'forces' in them, such as 'energy' or 'REF_forces'"
#: Names that belong to the structures themselves and are not labels.
STRUCTURE_NAMES = {"Properties", "Lattice", "pbc", "species", "pos", "numbers", "positions"}
#: Largest number of names of a file that a message lists.
MOST_NAMED = 10
_WORD = re.compile(
    r"^(?P<before>.*?)(?P<word>free_energy|energy|forces?|stress|virials?)(?P<after>.*)$",
    re.IGNORECASE,
)
#: Names that contain such a word and are not labels of a whole structure.
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
        None if there is no such label. A stress may be a virial, which its name shows.
    unused : tuple of str
        Names that look like labels and are not read.
    others : tuple of str
        If nothing is read, the names in the file apart from those of the structures.
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
        """Return a sentence on the labels that are read from a file."""
        read = ", ".join(
            f"{label} from '{key}'"
            for label, key in (
                ("energy", self.energy), ("forces", self.forces), ("stress", self.stress)
            )
            if key is not None
        )  # fmt: skip
        text = f"{file}: read {read}" if read else f"{file}: holds no labels; {self._looked_for()}"
        if self.unused:
            names = ", ".join(f"'{key}'" for key in self.unused)
            text += f"; not read, though they look like labels: {names}"
        return f"{text}."

    def _looked_for(self) -> str:
        names = ", ".join(f"'{name}'" for name in self.others[:MOST_NAMED]) or "none"
        remainder = f" and {len(self.others) - MOST_NAMED} more" * (len(self.others) > MOST_NAMED)
        return f"looked for {LOOKED_FOR}; names in the file: {names}{remainder}"


def choose_keys(
    counts: Counter[str], requested: LabelKeys | None = None, file: str = "the file"
) -> LabelKeys:
    """Return the names of a file's labels.

    Parameters
    ----------
    counts : Counter of str
        Number of frames that have each name.
    requested : LabelKeys, optional
        Requested names; those that are not None are taken unchanged.
    file : str
        Name of the file in messages.

    Raises
    ------
    ValueError
        If no frame has a requested name.
    """
    wanted = requested or LabelKeys()
    for label in WORDS:
        key = getattr(wanted, label)
        if key is not None and key not in counts:
            names_in_file = ", ".join(f"'{name}'" for name in sorted(counts)) or "none"
            raise ValueError(
                f"{file}: no frame has '{key}' for its {label}; there are: {names_in_file}."
            )
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
    names = {label: getattr(wanted, label) or chosen.get(label) for label in WORDS}
    if requested is not None and any(getattr(requested, label) for label in WORDS):
        # Requested labels are not completed with labels of another family.
        names = {label: getattr(wanted, label) for label in WORDS}
    unused = tuple(sorted(looks_like - set(names.values())))
    other_names = () if any(names.values()) else tuple(sorted(counts.keys() - STRUCTURE_NAMES))
    return LabelKeys(**names, unused=unused, others=other_names)


def _rank(label: str, key: str) -> int:
    match = _WORD.match(key)
    assert match is not None
    return WORDS[label].index(match["word"].lower())


def _worth(
    around: tuple[str, str], family: dict[str, str], counts: Counter[str]
) -> tuple[int, int, bool, bool, tuple[str, str]]:
    n_with_both = (
        min(counts[family[label]] for label in family) if {"energy", "forces"} <= set(family) else 0
    )
    n_with_any = max(counts[key] for key in family.values())
    return n_with_both, n_with_any, around[0].startswith("ref"), around != ("", ""), around


def label_of(
    label: str, value: Any, keys: LabelKeys, *, atoms: Atoms
) -> float | NDArray[np.float64] | None:
    """Return a label as a number or an array of floats; stress in Voigt order.

    Parameters
    ----------
    label : 'energy', 'forces' or 'stress'
    value : array_like or None
        Value in the file; a virial, in eV, is converted to a stress with the volume of the cell.
    keys : LabelKeys
    atoms : Atoms

    Raises
    ------
    ValueError
        If the value has a shape that is invalid for such a label.
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
    """Return the labels of an ASE structure; None for each that is missing.

    Results of a calculator are read as they are stored: ASE's methods would set those of
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
    """Return the number of frames that have each name; `places` holds the names of each frame."""
    return Counter(name for place in places for name in set(place))
