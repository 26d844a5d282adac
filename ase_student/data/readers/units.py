"""Units of labels in files, and conversion to ASE's units."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ase import units

from ase_student.data.readers.base import Frame
from ase_student.data.readers.label_keys import LabelKeys

_UNITS = {
    "eV": 1.0, "meV": 1e-3, "Hartree": units.Hartree, "Ha": units.Hartree, "Ry": units.Rydberg,
    "kcal": units.kcal, "kJ": units.kJ, "Ang": 1.0, "Angstrom": 1.0, "A": 1.0, "Å": 1.0,
    "Bohr": units.Bohr, "Ang³": 1.0, "A³": 1.0, "Å³": 1.0, "Bohr³": units.Bohr**3,
    "GPa": units.GPa, "kbar": 0.1 * units.GPa,
}  # fmt: skip
ENERGIES = ("eV", "meV", "Hartree", "Ry", "kcal/mol", "kJ/mol")
LENGTHS = ("Ang", "Bohr")
FORCES = tuple(f"{energy}/{length}" for energy in ENERGIES for length in LENGTHS)
STRESSES = ("eV/Ang^3", "Hartree/Bohr^3", "GPa", "kbar")


def unit_of(text: str) -> float:
    """Return the value of a unit in ASE's units.

    Raises
    ------
    ValueError
        If the unit is not known.

    Examples
    --------
    >>> unit_of("meV/Ang")
    0.001
    >>> f"{unit_of('kcal/mol'):.5f}"
    '0.04336'
    """
    value = 1.0
    for place, part in enumerate(text.replace("^3", "³").split("/")):
        if part == "mol" and place:
            value /= units.mol
        elif part in _UNITS:
            value = value / _UNITS[part] if place else value * _UNITS[part]
        else:
            raise ValueError(f"unit '{text}' is not known.")
    return value


@dataclass(frozen=True)
class LabelUnits:
    """Units of the structures and labels in a file.

    Attributes
    ----------
    energy, length : str
    forces : str, optional
        By default the unit of the energy divided by that of the length.
    stress : str, optional
        By default the unit of the energy divided by that of the length cubed. A virial has the unit
        of the energy.
    """

    energy: str = "eV"
    length: str = "Ang"
    forces: str | None = None
    stress: str | None = None

    @property
    def forces_or_default(self) -> str:
        """The unit of the forces."""
        return self.forces or f"{self.energy}/{self.length}"

    def convert(self, frame: Frame, keys: LabelKeys) -> Frame:
        """Return a frame in ASE's units.

        Raises
        ------
        ValueError
            If a unit of stress is given for a virial.
        """
        if keys.is_virial and self.stress is not None:
            raise ValueError(
                f"'{keys.stress}' is a virial, which has the unit of the energy; give no unit of "
                "the stress."
            )
        energy, length = unit_of(self.energy), unit_of(self.length)
        stress = energy / length**3 if self.stress is None else unit_of(self.stress)
        atoms = frame.atoms
        if length != 1.0:
            atoms = atoms.copy()
            atoms.positions *= length
            atoms.cell.array[:] *= length
        return replace(
            frame,
            atoms=atoms,
            energy=None if frame.energy is None else frame.energy * energy,
            forces=None if frame.forces is None else frame.forces * unit_of(self.forces_or_default),
            stress=None if frame.stress is None else frame.stress * stress,
        )
