"""Cut-outs with the environments of molecular crystals: whole molecules of a strained cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.spacegroup import crystal
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from tqdm import tqdm

from ase_student.distill.molecules.species import generator
from ase_student.distill.sampling.frames import SampledFrames
from ase_student.distill.sampling.rigid import rotation
from ase_student.dynamics.bonds import BONDED
from ase_student.dynamics.trajectories import relaxed, trajectories
from ase_student.potentials.base import Potential

SOURCE = "molecular crystal"
#: Largest component of the random strain, and standard deviations of the random motion of each
#: molecule: displacement along each axis, Å, and rotation about each axis, rad.
STRAIN, SHIFT, ROTATION = 0.04, 0.08, 0.08
#: Steps downhill of the driver, which correct the bonds of the published structure, then steps of
#: dynamics of 2 fs.
DESCENT_STEPS, DYNAMICS_STEPS = 15, 12
TEMPERATURES = (10.0, 300.0)
#: Smallest and largest number of atoms of a cut-out.
ATOMS = (60, 140)
BATCH = 32


@dataclass(frozen=True)
class PublishedCrystal:
    """A crystal structure from the literature.

    Attributes
    ----------
    molecule : str
        Canonical SMILES.
    space_group : int
        Number in the International Tables, standard setting.
    cell : tuple of float
        a, b, c in Å; all angles are 90°.
    sites : tuple of (str, tuple of float)
        Element and fractional coordinates of the asymmetric unit.
    """

    molecule: str
    space_group: int
    cell: tuple[float, float, float]
    sites: tuple[tuple[str, tuple[float, float, float]], ...]


CRYSTALS = {
    # Swaminathan, Craven, McMullan, Acta Cryst. B 40, 300 (1984): neutrons, 12 K.
    "urea": PublishedCrystal(
        "NC(N)=O", 113, (5.565, 5.565, 4.684),
        (("C", (0, 0.5, 0.3260)), ("O", (0, 0.5, 0.5953)), ("N", (0.1459, 0.6459, 0.1766)),
         ("H", (0.2575, 0.7575, 0.2827)), ("H", (0.1441, 0.6441, -0.0380))),
    ),
    # Simon, Peters, Acta Cryst. B 36, 2750 (1980): X-rays, 150 K.
    "carbon dioxide": PublishedCrystal(
        "O=C=O", 205, (5.624, 5.624, 5.624), (("C", (0, 0, 0)), ("O", (0.1185, 0.1185, 0.1185)))
    ),
    # Bacon, Curry, Wilson, Proc. R. Soc. A 279, 98 (1964): neutrons, 218 K.
    "benzene": PublishedCrystal(
        "c1ccccc1", 61, (7.44, 9.55, 6.92),
        (("C", (-0.0569, 0.1387, -0.0054)), ("C", (-0.1335, 0.0460, 0.1264)),
         ("C", (-0.0774, -0.0925, 0.1295)), ("H", (-0.0976, 0.2447, -0.0177)),
         ("H", (-0.2409, 0.0794, 0.2218)), ("H", (-0.1371, -0.1631, 0.2312))),
    ),
    # Ice XI, that is ice Ih with ordered protons: cell and symmetry of Leadbetter et al., J. Chem.
    # Phys. 82, 424 (1985), 5 K; oxygen on ideal tetrahedral sites, hydrogen 0.97 Å from it.
    "ice": PublishedCrystal(
        "O", 36, (4.465, 7.859, 7.292),
        (("O", (0, 0.6667, 0.0625)), ("O", (0.5, 0.8333, -0.0625)), ("H", (0, 0.6667, 0.1955)),
         ("H", (0, 0.5501, 0.0188)), ("H", (0.6767, 0.7744, -0.0183))),
    ),
}  # fmt: skip


def sample_crystals(
    names: Sequence[str], n_frames: int, seed: int, *, driver: Potential
) -> SampledFrames:
    """Return cut-outs of molecular crystals, each strained and disturbed at random.

    Parameters
    ----------
    names : sequence of str
        Keys of `CRYSTALS`.
    n_frames : int
    seed : int
    driver : Potential
        The driver, see :func:`ase_student.potentials.registry.load_potential`.

    Raises
    ------
    ValueError
        If the driver gives forces for none of the cut-outs.
    """
    frames = SampledFrames()
    cells = [molecules_of_cell(CRYSTALS[name]) for name in names]
    with tqdm(total=n_frames, unit="frame", disable=None) as progress:
        for number in count():
            n_before = len(frames.structures)
            rng = generator(seed, f"molecular crystals {number}")
            n = min(BATCH, n_frames - n_before)
            drawn = rng.integers(len(names), size=n).tolist()
            starts = [cut_out(cells[i][0], cells[i][1], rng) for i in drawn]
            minima = relaxed(starts, driver, DESCENT_STEPS)
            temperatures = rng.uniform(*TEMPERATURES, size=n).tolist()
            moved = next(
                trajectories(minima, driver, temperatures, n_steps=DYNAMICS_STEPS, rng=rng)
            )
            for i, atoms in zip(drawn, moved, strict=True):
                smiles = CRYSTALS[names[i]].molecule
                n_molecules = len(atoms) // (len(cells[i][1]) // (cells[i][1].max() + 1))
                frames.add(atoms, ".".join([smiles] * n_molecules), SOURCE)
            progress.update(len(frames.structures) - n_before)
            if len(frames.structures) >= n_frames:
                return frames
            if number >= 2 and not frames.structures:
                raise ValueError("no cut-out of a crystal has forces of the driver.")
    raise AssertionError


def molecules_of_cell(published: PublishedCrystal) -> tuple[Atoms, NDArray[np.int64]]:
    """Return a unit cell of whole molecules, and the molecule that each atom belongs to.

    Atoms are sorted by molecule; molecules may extend beyond the cell.
    """
    symbols, sites = zip(*published.sites, strict=True)
    cell = crystal(
        symbols, sites, spacegroup=published.space_group, cellpar=[*published.cell, 90, 90, 90]
    )
    radii = covalent_radii[cell.numbers]
    limits = BONDED * (radii[:, None] + radii)
    bound = cell.get_all_distances(mic=True) < limits
    n_molecules, owners = connected_components(bound, directed=False)
    order = np.argsort(owners, kind="stable")
    positions = cell.positions.copy()
    placed = np.zeros(len(cell), dtype=bool)
    for k in range(n_molecules):
        stack = [int(np.flatnonzero(owners == k)[0])]
        placed[stack] = True
        while stack:
            i = stack.pop()
            for j in np.flatnonzero(bound[i] & ~placed).tolist():
                vector = positions[j] - positions[i]
                vector -= np.round(vector / published.cell) * published.cell
                positions[j] = positions[i] + vector
                placed[j] = True
                stack.append(j)
    unwrapped = Atoms(cell.numbers[order], positions[order], cell=cell.cell, pbc=True)
    return unwrapped, owners[order].astype(np.int64)


def cut_out(cell: Atoms, owners: NDArray[np.int64], rng: np.random.Generator) -> Atoms:
    """Return the molecules around a random point of a strained crystal, each slightly displaced.

    Parameters
    ----------
    cell : ase.Atoms
        Whole molecules of equal size.
    owners : (n_atoms,) int64
        The molecule that each atom belongs to.
    rng : numpy.random.Generator
    """
    n_molecules = int(owners.max()) + 1
    members = cell.positions.reshape(n_molecules, -1, 3)
    numbers = cell.numbers.reshape(n_molecules, -1)
    centers = members.mean(1)
    noise = rng.uniform(-STRAIN, STRAIN, size=(3, 3))
    strain = np.eye(3) + 0.5 * (noise + noise.T)
    translations = (np.indices((7, 7, 7)).reshape(3, -1).T - 3) @ cell.cell.array
    sites = ((centers[:, None] + translations) @ strain).reshape(-1, 3)
    kinds = np.repeat(np.arange(n_molecules), len(translations))
    # The point is near a molecule of the middle cell; the outer layers then end at different
    # molecules.
    point = centers[int(rng.integers(n_molecules))] @ strain + rng.normal(size=3)
    max_atoms = int(rng.integers(ATOMS[0], ATOMS[1] + 1))
    n_chosen = max(2, max_atoms // members.shape[1])
    chosen = np.argsort(np.linalg.norm(sites - point, axis=1), kind="stable")[:n_chosen]
    positions = [
        (members[kinds[i]] - centers[kinds[i]]) @ rotation(ROTATION * rng.normal(size=3)).T
        + sites[i]
        + SHIFT * rng.normal(size=3)
        for i in chosen
    ]
    joined = np.concatenate(positions)
    return Atoms(numbers[kinds[chosen]].ravel(), joined - joined.mean(0))
