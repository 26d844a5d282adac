"""Run a student in the C++ engine with NumPy and nothing else: no ASE, scipy or ONNX Runtime.

    python numpy_engine.py weights.safetensors structure.xyz

prints the energy and the forces of a molecule in an XYZ file. The smallest install for it is
``pip install numpy`` and ``pip install --no-deps ase-student``, from a wheel with the engine.
"""

import sys
from pathlib import Path

import numpy as np

from ase_student.engine.library import Handle

# By atomic number, of the elements that bundled students know.
NUMBERS = {"H": 1, "C": 6, "N": 7, "O": 8, "F": 9, "P": 15, "S": 16, "Cl": 17}


def read_xyz(path):
    """Return atomic numbers (n_atoms,) and positions (n_atoms, 3) in Å of an XYZ file."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    rows = [line.split() for line in lines[2 : 2 + int(lines[0])]]
    numbers = np.array([NUMBERS[row[0]] for row in rows], dtype=np.int64)
    return numbers, np.array([row[1:4] for row in rows], dtype=np.float64)


def evaluate(weights, numbers, positions, cell=None, threads=1):
    """Return energy in eV and forces (n_atoms, 3) in eV/Å.

    Parameters
    ----------
    weights : path
        ``weights.safetensors`` of a student.
    numbers : (n_atoms,) int64
    positions : (n_atoms, 3) float64, Å
    cell : (3, 3) float64, Å, optional
        Rows are lattice vectors, all periodic. Without one the structure is a molecule.
    threads : int
    """
    handle = Handle(Path(weights).read_bytes(), single=True, threads=threads)
    pbc = np.full(3, cell is not None)
    cell = np.zeros((3, 3)) if cell is None else np.ascontiguousarray(cell, dtype=np.float64)
    step = handle.compute(numbers, np.ascontiguousarray(positions), cell, pbc, skin=0.0)
    return step.energies.sum(), step.forces


def main(weights, structure):
    """Print energy and forces of a molecule."""
    numbers, positions = read_xyz(structure)
    energy, forces = evaluate(weights, numbers, positions)
    print(f"energy {energy:.6f} eV")
    for index, force in enumerate(forces):
        print(f"{index:4} " + " ".join(f"{component:12.6f}" for component in force))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
