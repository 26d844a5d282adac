"""Write structures and a student's float64 results, for programs that have neither ASE nor NumPy.

``python tests/cross/references.py STUDENT`` prints the number of structures, then for each: the
number of atoms, the periodic axes (0 or 1), the rows of the cell (Å), the virial (eV), and for each
atom its atomic number, position (Å), energy (eV) and force (eV/Å).
"""

import sys

import numpy as np

from ase_student.checkpoint import student_folder
from ase_student.engine.library import Handle
from ase_student.testing import STRUCTURES, structure

# Some of its atoms are a third of a bond apart: forces of 10,000 eV/Å.
LEFT_OUT = "thousand_atoms"


def main(student: str) -> None:
    """Print the references of a bundled student."""
    content = (student_folder(student) / "weights.safetensors").read_bytes()
    handle = Handle(content, False, 1)
    names = [name for name in STRUCTURES if name != LEFT_OUT]
    print(len(names))
    for name in names:
        atoms = structure(name)
        atoms.rattle(0.05, rng=np.random.default_rng(0))
        numbers = atoms.numbers.astype(np.int64)
        cell, pbc = np.ascontiguousarray(atoms.cell.array), np.ascontiguousarray(atoms.pbc)
        step = handle.compute(numbers, atoms.positions, cell, pbc, 0.0)
        print_numbers(len(atoms))
        print_numbers(*pbc)
        print_numbers(*cell.flat)
        print_numbers(*step.virials[0].flat)
        for number, position, energy, force in zip(
            numbers, atoms.positions, step.energies, step.forces, strict=True
        ):
            print_numbers(number, *position, energy, *force)


def print_numbers(*values: float) -> None:
    """Print numbers in a line, with all digits."""
    print(*(f"{value:.17g}" for value in values))


if __name__ == "__main__":
    main(sys.argv[1])
