"""Make a data set as large as that of the first results: 4,883 structures, 914,812 atoms.

``python benchmarks/scale_data.py out.h5`` writes 3,883 molecules of about 24 atoms and 1,000 dense
fragments of about 821 atoms, at most 2,154, at synthetic positions. A student labels them, and
noise is added to its forces. ``--share 0.1`` writes a tenth of the data set.
"""

import argparse
from pathlib import Path

import numpy as np
from ase import Atoms

from ase_student import StudentCalculator
from ase_student.data.hdf5 import write_dataset
from ase_student.data.structures import Labels, Structures
from ase_student.testing import SPACING, WATER, structure

N_MOLECULES, N_FRAGMENTS = 3883, 1000
SMALLEST, LARGEST, MEAN_FRAGMENT = 9, 2154, 821
NOISE = 0.05  # eV/Å


def molecule(rng: np.random.Generator) -> Atoms:
    """Return one of two molecules, with random displacements and up to two waters beside it."""
    atoms = structure(rng.choice(["aspirin", "eight_elements"]))
    for _ in range(int(rng.integers(0, 3))):
        far = atoms.positions.max(axis=0) + 2.0
        atoms += Atoms("OH2", positions=far + WATER)
    atoms.positions += rng.normal(scale=0.04, size=atoms.positions.shape)
    return atoms


def fragment(n_atoms: int, rng: np.random.Generator) -> Atoms:
    """Return a droplet with the density of a liquid around a molecule of eight elements."""
    core = structure("eight_elements")
    n_waters = max(1, (n_atoms - len(core)) // 3)
    side = int(np.ceil((n_waters + 30) ** (1 / 3))) + 2
    axis = SPACING * (np.arange(side) - 0.5 * side)
    sites = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    center = core.positions.mean(axis=0)
    gaps = np.linalg.norm(sites[:, None] - (core.positions - center), axis=2).min(axis=1)
    sites = sites[gaps > 3.0]
    nearest = np.argsort(np.linalg.norm(sites, axis=1))[:n_waters]
    positions = [site + WATER for site in sites[nearest]]
    atoms = Atoms("OH2" * n_waters, np.concatenate(positions))
    core.positions -= center
    atoms += core
    atoms.positions += rng.normal(scale=0.04, size=atoms.positions.shape)
    return atoms


def make(path: Path, share: float, seed: int = 0) -> None:
    """Write the data set."""
    rng = np.random.default_rng(seed)
    structures = [molecule(rng) for _ in range(round(share * N_MOLECULES))]
    sizes = rng.gamma(4.0, MEAN_FRAGMENT / 4.0, size=round(share * N_FRAGMENTS))
    structures += [fragment(int(n), rng) for n in np.clip(sizes, 60, LARGEST)]
    order = rng.permutation(len(structures))
    structures = [structures[index] for index in order]
    calculator = StudentCalculator("tiny", backend="onnx", guard="off")
    results = calculator.calculate_many(structures)
    forces = np.concatenate([result["forces"] for result in results])
    forces += rng.normal(scale=NOISE, size=forces.shape)
    labels = Labels(
        structure_indices=np.arange(len(structures)),
        energies=np.array([result["energy"] for result in results]),
        splits=np.cumsum([0, *map(len, structures)]),
        forces=forces.astype(np.float32),
    )
    kinds = ["molecule" if len(atoms) < 60 else "fragment" for atoms in structures]
    write_dataset(
        path, Structures.from_atoms(structures, kinds), labels, metadata={"teacher": "tiny"}
    )
    print(f"{path}: {len(structures)} structures, {len(forces)} atoms")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--share", type=float, default=1.0)
    arguments = parser.parse_args()
    make(arguments.output, arguments.share)
