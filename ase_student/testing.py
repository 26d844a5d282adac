"""Structures and tolerances for the tests of this package and of others.

The structures are cases in which neighbor lists and networks are often wrong: a single atom, atoms
beyond each other's cutoff, cells smaller than the cutoff, triclinic cells, mixed periodic axes,
atoms outside the cell. Every call returns new but identical `ase.Atoms` of H, C, N, O, F, P, S and
Cl.

>>> structure("aspirin").get_chemical_formula()
'C9H8O4'
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from ase import Atoms
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "LARGE_FORCE",
    "STRUCTURES",
    "TOLERANCES",
    "Tolerances",
    "force_difference",
    "small_structures",
    "structure",
]


@dataclass(frozen=True)
class Tolerances:
    """Largest allowed absolute differences, by name; the unit is given next to each."""

    # The same structure rotated, translated or with its atoms in another order.
    symmetry_energy_float64: float = 1e-9  # eV
    symmetry_energy_float32: float = 1e-4  # eV, up to 50 atoms
    # Derivatives in float64 against finite differences of the energy.
    finite_difference_forces: float = 1e-6  # eV/Å
    finite_difference_stress: float = 1e-7  # eV/Å³
    # The hand-written derivatives in float64 against automatic ones.
    autograd_forces: float = 1e-10  # eV/Å
    autograd_virial: float = 1e-10  # eV
    # Two atoms, just within the cutoff against just beyond it, in float64.
    cutoff_energy: float = 1e-9  # eV
    # A backend or an exported file against the float64 reference.
    backend_energy_per_atom: float = 1e-5  # eV/atom
    backend_forces: float = 1e-4  # eV/Å, of `force_difference`
    # Several structures in one call against one by one, in float32.
    batch_energy: float = 1e-6  # eV
    batch_forces: float = 1e-6  # eV/Å
    # With a skin against without, in float64.
    skin_energy: float = 1e-9  # eV
    skin_forces: float = 1e-9  # eV/Å
    # The vector between two atoms against an independent neighbor list.
    pair_vectors: float = 1e-9  # Å
    # First-generation checkpoints against the energies recorded with them.
    legacy_energy_float64: float = 1e-10  # eV
    legacy_energy_float32: float = 1e-4  # eV
    # Slope of the total energy in 10 ps of NVE at 300 K.
    drift_mev_per_atom_ps: float = 0.01


TOLERANCES = Tolerances()
LARGE_FORCE = 60.0  # eV/Å; students are not trained on larger ones


def force_difference(forces: ArrayLike, expected: ArrayLike) -> float:
    """Return the largest difference between forces on the atoms of one structure, eV/Å.

    Rounding errors grow with the forces: if the largest expected component F exceeds `LARGE_FORCE`,
    the difference is divided by F / `LARGE_FORCE`.

    Parameters
    ----------
    forces, expected : array_like, shape (atoms, 3), eV/Å
    """
    expected = np.asarray(expected, dtype=np.float64)
    difference = np.abs(np.asarray(forces, dtype=np.float64) - expected).max(initial=0.0)
    return float(difference * LARGE_FORCE / np.abs(expected).max(initial=LARGE_FORCE))


# Near the minimum of the SO3LR force field.
WATER = np.array([[0.0, 0.0, 0.0], [0.964, 0.016, 0.0], [-0.226, 0.938, 0.0]])
AMMONIA = np.array(
    [[0.0, 0.0, 0.324], [0.924, 0.0, -0.108], [-0.462, 0.8, -0.108], [-0.462, -0.8, -0.108]]
)
WATER_DIMER = np.array(
    [
        [-1.677, -0.246, 0.000],
        [-0.709, -0.320, 0.000],
        [-1.825, 0.704, 0.000],
        [1.156, -0.357, 0.000],
        [1.527, 0.110, 0.757],
        [1.527, 0.110, -0.757],
    ]
)
ASPIRIN = np.array(
    [
        [2.859, 1.890, 0.101],
        [1.883, 0.870, -0.386],
        [1.688, 0.525, -1.507],
        [1.214, 0.336, 0.689],
        [0.174, -0.509, 0.417],
        [0.406, -1.863, 0.568],
        [-0.610, -2.767, 0.314],
        [-1.858, -2.314, -0.084],
        [-2.083, -0.959, -0.221],
        [-1.080, -0.029, 0.034],
        [-1.334, 1.423, -0.116],
        [-0.528, 2.298, 0.050],
        [-2.607, 1.681, -0.468],
        [3.381, 2.320, -0.751],
        [3.576, 1.430, 0.783],
        [2.324, 2.666, 0.648],
        [1.390, -2.194, 0.876],
        [-0.421, -3.828, 0.424],
        [-2.656, -3.015, -0.289],
        [-3.054, -0.604, -0.537],
        [-2.666, 2.643, -0.545],
    ]
)
# Near the minimum of the MMFF94 force field.
EIGHT_ELEMENTS = np.array(
    [
        [2.494, 1.156, -0.906],
        [2.866, 0.280, 0.088],
        [3.739, 0.633, 0.881],
        [2.116, -1.079, 0.138],
        [1.535, -1.395, -1.058],
        [3.291, -2.368, 0.515],
        [0.829, -1.027, 1.402],
        [-0.697, -0.174, 0.298],
        [-1.571, -1.458, -0.591],
        [-0.177, 0.903, -0.616],
        [-1.828, 0.387, 1.310],
        [-2.747, 1.341, 0.814],
        [2.894, 2.082, -0.820],
        [1.509, 1.150, -1.190],
        [-0.904, -1.967, -1.292],
        [-1.972, -2.201, 0.103],
        [-2.402, -1.037, -1.162],
        [-3.515, 1.515, 1.572],
        [-2.231, 2.283, 0.611],
        [-3.227, 0.976, -0.097],
    ]
)
SPACING = 3.1  # Å between water molecules on a grid; gives the density of the liquid


def _atom() -> Atoms:
    return Atoms("O", positions=[[0.3, -0.2, 0.1]])


def _far_pair() -> Atoms:
    return Atoms("CN", positions=[[0.0, 0.0, 0.0], [12.0, 14.0, 16.0]])


def _crystal() -> Atoms:
    return Atoms("S", cell=[2.6, 2.6, 2.6], pbc=True)


def _small_triclinic() -> Atoms:
    cell = [[3.1, 0.0, 0.0], [0.7, 2.9, 0.0], [-0.5, 0.9, 3.3]]
    return Atoms("CF", positions=[[0.1, 0.2, 0.3], [1.5, 1.9, 1.7]], cell=cell, pbc=True)


def _wire() -> Atoms:
    """Return a zigzag chain of hydrogen fluoride, periodic along its third axis only."""
    positions = [[0.0, 0.0, 0.0], [0.48, 0.0, 0.79], [1.3, 0.0, 2.15], [0.82, 0.0, 2.94]]
    return Atoms("FHFH", positions=positions, cell=[0.0, 0.0, 4.3], pbc=[False, False, True])


def _triclinic() -> Atoms:
    positions = np.concatenate([WATER_DIMER, AMMONIA + np.array([0.2, 3.3, 0.6])])
    cell = [[6.1, 0.0, 0.0], [1.4, 6.2, 0.0], [-1.1, 1.7, 5.3]]
    return Atoms("OH2OH2NH3", positions=positions, cell=cell, pbc=True)


def _slab(height: float = 20.0) -> Atoms:
    positions = _jittered_waters((3, 3, 1), 9, np.random.default_rng(1))
    cell = [3 * SPACING, 3 * SPACING, height]
    return Atoms("OH2" * 9, positions=positions, cell=cell, pbc=[True, True, False])


def _slab_zero_vector() -> Atoms:
    return _slab(height=0.0)


def _water_dimer() -> Atoms:
    return Atoms("OH2OH2", positions=WATER_DIMER)


def _eight_elements() -> Atoms:
    return Atoms("NCOCFClSPCOOCH8", positions=EIGHT_ELEMENTS)


def _aspirin() -> Atoms:
    return Atoms("C2O2C7O2H8", positions=ASPIRIN)


def _water_box() -> Atoms:
    positions = _jittered_waters((3, 3, 3), 27, np.random.default_rng(2))
    return Atoms("OH2" * 27, positions=positions, cell=[3 * SPACING] * 3, pbc=True)


def _outside() -> Atoms:
    """Return the water box with each atom moved by a different number of whole cells."""
    atoms = _water_box()
    shifts = np.random.default_rng(3).integers(-3, 4, size=(len(atoms), 3))
    atoms.positions += shifts @ atoms.cell.array
    return atoms


def _thousand_atoms() -> Atoms:
    """Return 332 water molecules and one ammonia molecule on 333 sites of a grid."""
    positions = _jittered_waters((7, 7, 7), 333, np.random.default_rng(4))
    last = positions[-3] + AMMONIA
    positions = np.concatenate([positions[:-3], last])
    return Atoms("OH2" * 332 + "NH3", positions=positions, cell=[7 * SPACING] * 3, pbc=True)


def _jittered_waters(
    shape: tuple[int, int, int], n_waters: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return positions of water molecules on a grid, slightly displaced and rotated.

    Without this, all molecules would be parallel, with each hydrogen pointing to an oxygen.
    """
    sites = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1).reshape(-1, 3)
    sites = sites[np.sort(rng.permutation(len(sites))[:n_waters])]
    oxygens = SPACING * sites + rng.normal(scale=0.1, size=sites.shape)
    turns = np.eye(3) + rng.normal(scale=0.25, size=(n_waters, 3, 3))
    # The nearest rotation to each matrix.
    left_vectors, _, right_vectors = np.linalg.svd(turns)
    turns = left_vectors @ right_vectors
    turns *= np.linalg.det(turns)[:, None, None]
    return np.reshape(oxygens[:, None] + WATER @ turns, (-1, 3))


STRUCTURES: Mapping[str, Callable[[], Atoms]] = MappingProxyType(
    {
        "atom": _atom,
        "far_pair": _far_pair,
        "crystal": _crystal,
        "small_triclinic": _small_triclinic,
        "wire": _wire,
        "water_dimer": _water_dimer,
        "triclinic": _triclinic,
        "eight_elements": _eight_elements,
        "aspirin": _aspirin,
        "slab": _slab,
        "slab_zero_vector": _slab_zero_vector,
        "water_box": _water_box,
        "outside": _outside,
        "thousand_atoms": _thousand_atoms,
    }
)


def structure(name: str) -> Atoms:
    """Return a new copy of a structure.

    Parameters
    ----------
    name : str
        A key of `STRUCTURES`.

    Raises
    ------
    ValueError
        If there is no structure of that name.
    """
    if name not in STRUCTURES:
        available = ", ".join(repr(key) for key in STRUCTURES)
        raise ValueError(f"no structure named {name!r}; available: {available}.")
    return STRUCTURES[name]()


def small_structures(largest: int = 30) -> dict[str, Atoms]:
    """Return new copies of the structures that are quick to evaluate many times.

    Parameters
    ----------
    largest : int
        Structures with more atoms are left out.
    """
    structures = {name: make() for name, make in STRUCTURES.items()}
    return {name: atoms for name, atoms in structures.items() if len(atoms) <= largest}
