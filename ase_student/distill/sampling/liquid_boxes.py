"""Droplets with the environments of liquids: whole molecules cut out of a periodic box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
from ase import Atoms, units
from ase.data import atomic_masses, covalent_radii
from numpy.typing import NDArray
from tqdm import tqdm

from ase_student.distill.molecules.species import (
    Molecule,
    Species,
    UnsuitableError,
    generator,
)
from ase_student.distill.sampling.frames import SampledFrames
from ase_student.distill.sampling.scan_molecules import Embedder
from ase_student.distill.settings import StepSettings, option
from ase_student.dynamics.bonds import BONDED, came_apart, newly_bound
from ase_student.dynamics.rotations import random_rotation
from ase_student.dynamics.trajectories import relaxed, trajectories
from ase_student.potentials.base import Potential

SOURCE = "liquid"
#: Density of liquids at room temperature or, for gases, at their boiling point, g/cm³, rounded
#: (CRC Handbook of Chemistry and Physics, 97th edition, sections 3 and 6).
DENSITIES = {
    "O": 0.997, "CO": 0.787, "CCO": 0.785, "N": 0.682, "c1ccccc1": 0.874, "Cc1ccccc1": 0.862,
    "CC#N": 0.777, "NC=O": 1.129, "CNC=O": 1.011, "CC(C)=O": 0.785, "ClC(Cl)Cl": 1.479,
    "ClCCl": 1.317, "CCCCCC": 0.655, "CC(=O)O": 1.045, "O=CO": 1.214, "CS(C)=O": 1.096,
    "CN(C)C=O": 0.945, "C1CCOC1": 0.880, "CCOCC": 0.708, "c1ccncc1": 0.978, "O=C=O": 1.178,
    "N#N": 0.807, "C": 0.423, "CC": 0.544, "CCC": 0.493, "C=C": 0.568, "C#N": 0.684, "S": 0.940,
    "S=C=S": 1.256, "OCCO": 1.110, "OCC(O)CO": 1.257, "COC(C)=O": 0.927, "CCCCO": 0.806,
    "CC(C)O": 0.781, "C1CCCCC1": 0.774, "C[N+](=O)[O-]": 1.130, "Nc1ccccc1": 1.018,
    "CCN": 0.677, "c1ccsc1": 1.059, "c1ccoc1": 0.946, "c1cc[nH]c1": 0.965, "OCC(F)(F)F": 1.374,
    "Fc1ccccc1": 1.019, "CSC": 0.842, "COC": 0.735, "Cl": 1.190, "NN": 1.000,
    "COP(=O)(OC)OC": 1.214,
}  # fmt: skip
#: Volume of an atomic mass unit at 1 g/cm³, Å³.
CUBIC_ANGSTROM = units._amu * 1e3 * 1e24
#: Solvents of solutes, repeated by weight.
SOLVENTS = ("O", "O", "O", "CO", "CS(C)=O", "CC#N", "ClC(Cl)Cl", "CCCCCC")
#: Share of boxes with a solute, and share with a mixture of two liquids.
SOLUTION_SHARE, MIXTURE_SHARE = 0.3, 0.2
#: Probability that a liquid is water, besides its share as one of the liquids.
WATER, WATER_SHARE = "O", 0.2
#: Range of the number of atoms of a box, of its density relative to that of the liquids, and of its
#: temperature, K.
BOX_ATOMS = (150, 200)
DENSITY_RANGE = (0.92, 1.1)
TEMPERATURES = (200.0, 450.0)
#: A box is packed with a side that is longer by the factor `EXPANSION`, and contracted in `STAGES`
#: stages, each with steps downhill and steps of dynamics. `EQUILIBRATION` steps of dynamics follow;
#: then a snapshot is taken every `SNAPSHOT_INTERVAL` steps.
EXPANSION, STAGES, STAGE_DESCENT, STAGE_DYNAMICS = 1.6, 16, 4, 5
EQUILIBRATION, SNAPSHOT_INTERVAL = 150, 15
#: Number of droplets from a snapshot of a box, each about another molecule.
PER_SNAPSHOT = 2
#: Number of boxes that are moved together.
BATCH = 6
#: Approximate volume of a solute, Å³ per atom other than hydrogen.
VOLUME_PER_ATOM = 19.0


@dataclass(frozen=True)
class LiquidSettings(StepSettings):
    """Settings of the droplets.

    Attributes
    ----------
    frames : int
        Number of droplets.
    per_box : int
        Number of droplets that are cut out of each box, two every 30 fs.
    atoms : tuple of int
        Smallest and largest number of atoms of a droplet.
    seed : int

    Raises
    ------
    ValueError
        If a value is not allowed.
    """

    frames: int = option(1000, "how many droplets", metavar="N", least=1)
    per_box: int = option(
        40, "droplets of each periodic box, two every 30 fs", metavar="N", least=1
    )
    atoms: tuple[int, int] = option(
        (60, 140), f"fewest and most atoms of a droplet, at most {BOX_ATOMS[0]}", metavar="N"
    )
    seed: int = option(0, "of all random choices", least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = self.atoms
        if not 1 <= low <= high <= BOX_ATOMS[0]:
            raise ValueError(
                f"--atoms are {low} and {high}; give the smaller number first, and at most "
                f"{BOX_ATOMS[0]}."
            )


@dataclass(frozen=True)
class Box:
    """A periodic box of molecules.

    Attributes
    ----------
    members : tuple of Molecule
        In the order of the atoms.
    atoms : ase.Atoms
        Whole molecules, not wrapped into the cell.
    """

    members: tuple[Molecule, ...]
    atoms: Atoms

    @property
    def owners(self) -> NDArray[np.int64]:
        """The molecule that each atom belongs to, (n_atoms,)."""
        sizes = [len(molecule.numbers) for molecule in self.members]
        return np.repeat(np.arange(len(sizes)), sizes)


def sample_liquids(
    liquids: Sequence[Species],
    solutes: Sequence[Species],
    settings: LiquidSettings,
    *,
    driver: Potential,
) -> SampledFrames:
    """Return droplets cut out of periodic boxes of liquids, mixtures and solutions.

    Parameters
    ----------
    liquids : sequence of Species
        Liquids with an entry in `DENSITIES`.
    solutes : sequence of Species
        Without solutes there are no solutions.
    settings : LiquidSettings
    driver : Potential
        Moves the atoms of periodic structures, see
        :func:`ase_student.potentials.registry.load_potential`.

    Raises
    ------
    ValueError
        If bonds break or form in almost all boxes.
    """
    frames = SampledFrames()
    embed = Embedder(settings.seed)
    n_empty_batches = 0
    with tqdm(total=settings.frames, unit="frame", disable=None) as progress:
        for number in count():
            n_before = len(frames.structures)
            rng = generator(settings.seed, f"liquids {number}")
            n_boxes = min(BATCH, -(-(settings.frames - n_before) // settings.per_box))
            boxes = [drawn_box(liquids, solutes, embed, rng=rng) for _ in range(n_boxes)]
            _add_droplets(frames, [box for box in boxes if box], settings, driver, rng)
            del frames.structures[settings.frames :]
            del frames.sources[settings.frames :], frames.molecules[settings.frames :]
            progress.update(len(frames.structures) - n_before)
            if len(frames.structures) == settings.frames:
                return frames
            n_empty_batches = n_empty_batches + 1 if len(frames.structures) == n_before else 0
            if n_empty_batches == 5:
                reasons = ", ".join(f"{n} {reason}" for reason, n in frames.dropped.most_common(3))
                raise ValueError(f"none of {5 * BATCH} boxes of liquids stayed whole: {reasons}.")
    raise AssertionError


def drawn_box(
    liquids: Sequence[Species],
    solutes: Sequence[Species],
    embed: Embedder,
    *,
    rng: np.random.Generator,
) -> Box | None:
    """Return an expanded box of a random liquid, mixture or solution.

    None if a molecule cannot be embedded.
    """
    liquids_by_key = {liquid.key: liquid for liquid in liquids}
    kind_draw = rng.random()
    drawn: list[Species] = []
    if solutes and kind_draw < SOLUTION_SHARE:
        names = [name for name in SOLVENTS if name in liquids_by_key]
        solvent = liquids_by_key[names[int(rng.integers(len(names)))]] if names else liquids[0]
        drawn = [solvent]
        solute = solutes[int(rng.integers(len(solutes)))]
    else:
        solute = None
        for _ in range(2 if kind_draw < SOLUTION_SHARE + MIXTURE_SHARE else 1):
            is_water = WATER in liquids_by_key and rng.random() < WATER_SHARE
            drawn.append(
                liquids_by_key[WATER] if is_water else liquids[int(rng.integers(len(liquids)))]
            )
    n_atoms = int(rng.integers(*BOX_ATOMS))
    members: list[Molecule] = []
    volume = 0.0
    try:
        if solute is not None:
            members.append(embed(solute))
            volume += VOLUME_PER_ATOM * float((members[0].numbers > 1).sum())
        while sum(len(molecule.numbers) for molecule in members) < n_atoms:
            species = drawn[int(rng.integers(len(drawn)))]
            members.append(embed(species))
            mass = float(atomic_masses[members[-1].numbers].sum())
            volume += mass / DENSITIES[species.key] * CUBIC_ANGSTROM
    except UnsuitableError:
        return None
    volume /= rng.uniform(*DENSITY_RANGE)
    order = rng.permutation(len(members))
    return packed_box([members[i] for i in order], volume ** (1 / 3) * EXPANSION, rng)


def packed_box(members: Sequence[Molecule], side: float, rng: np.random.Generator) -> Box:
    """Return molecules on the sites of a cubic lattice in a cubic box, each rotated at random."""
    n = int(np.ceil(len(members) ** (1 / 3)))
    sites = np.indices((n, n, n)).reshape(3, -1).T / n * side
    chosen = sites[rng.choice(len(sites), len(members), replace=False)]
    positions = []
    for molecule, site in zip(members, chosen, strict=True):
        conformer = molecule.conformers[int(rng.integers(len(molecule.conformers)))]
        positions.append((conformer - conformer.mean(0)) @ random_rotation(rng) + site)
    numbers = np.concatenate([molecule.numbers for molecule in members])
    atoms = Atoms(numbers, np.concatenate(positions), cell=[side] * 3, pbc=True)
    return Box(tuple(members), atoms)


def _add_droplets(
    frames: SampledFrames,
    boxes: list[Box],
    settings: LiquidSettings,
    driver: Potential,
    rng: np.random.Generator,
) -> None:
    """Contract boxes, move them, and add droplets of each."""
    temperatures = rng.uniform(*TEMPERATURES, size=len(boxes)).tolist()
    current = relaxed([box.atoms for box in boxes], driver, 3 * STAGE_DESCENT)
    for _ in range(STAGES):
        for box, atoms in zip(boxes, current, strict=True):
            contract(atoms, box.owners, EXPANSION ** (-1 / STAGES))
        current = relaxed(current, driver, STAGE_DESCENT)
        moved = trajectories(current, driver, temperatures, n_steps=STAGE_DYNAMICS, rng=rng)
        current = next(moved, [])
    rounds = trajectories(current, driver, temperatures, n_steps=SNAPSHOT_INTERVAL, rng=rng)
    for _ in range(EQUILIBRATION // SNAPSHOT_INTERVAL):
        next(rounds, [])
    for _ in range(-(-settings.per_box // PER_SNAPSHOT)):
        for box, atoms in zip(boxes, next(rounds, []), strict=True):
            if not np.isfinite(atoms.positions).all():
                frames.dropped["box diverged"] += 1
            elif not is_whole(box, atoms):
                frames.dropped["box with bonds broken or formed"] += 1
            else:
                for _ in range(PER_SNAPSHOT):
                    name, droplet, owners = cut_out(box, atoms, settings.atoms, rng=rng)
                    if are_apart(droplet, owners):
                        frames.add(droplet, name, SOURCE)
                    else:
                        frames.dropped["molecules grown together"] += 1


def contract(atoms: Atoms, owners: NDArray[np.int64], factor: float) -> None:
    """Scale a box and the centers of its molecules, whose geometries stay the same."""
    if not np.isfinite(atoms.positions).all():
        return
    counts = np.bincount(owners)
    centers = np.stack(
        [np.bincount(owners, weights=axis) / counts for axis in atoms.positions.T], axis=1
    )
    atoms.positions += (factor - 1.0) * centers[owners]
    atoms.set_cell(atoms.cell.array * factor)


def is_whole(box: Box, atoms: Atoms) -> bool:
    """Return whether all molecules of a box have their original bonds and no others."""
    start = 0
    for molecule in box.members:
        rows = slice(start, start + len(molecule.numbers))
        start = rows.stop
        original = Atoms(molecule.numbers, molecule.conformers[0])
        current = Atoms(molecule.numbers, atoms.positions[rows])
        if came_apart(molecule.numbers, original.positions, current.positions):
            return False
        if newly_bound(original, current):
            return False
    return True


def are_apart(droplet: Atoms, owners: NDArray[np.int64]) -> bool:
    """Return whether no two molecules are as close as if they were bound to each other.

    Parameters
    ----------
    droplet : ase.Atoms
    owners : (n_atoms,) int64
        The molecule that each atom belongs to.
    """
    radii = covalent_radii[droplet.numbers]
    bound = droplet.get_all_distances() < BONDED * (radii[:, None] + radii)
    return not bool((bound & (owners[:, None] != owners)).any())


def cut_out(
    box: Box, atoms: Atoms, bounds: tuple[int, int], *, rng: np.random.Generator
) -> tuple[str, Atoms, NDArray[np.int64]]:
    """Return a droplet: the molecules of a box that are closest to a random one of its molecules.

    Parameters
    ----------
    box : Box
    atoms : ase.Atoms
        The box after some dynamics; molecules are whole.
    bounds : tuple of int
        Smallest and largest number of atoms of the droplet. A single molecule may be larger.
    rng : numpy.random.Generator

    Returns
    -------
    name : str
        SMILES of the molecules, joined by dots.
    droplet : ase.Atoms
    owners : (n_atoms,) int64
        The molecule that each atom belongs to.
    """
    owners = box.owners
    counts = np.bincount(owners)
    centers = np.stack(
        [np.bincount(owners, weights=axis) / counts for axis in atoms.positions.T], axis=1
    )
    side = atoms.cell.lengths()
    vectors = centers - centers[int(rng.integers(len(centers)))]
    shifts = -np.round(vectors / side) * side
    order = np.argsort(np.linalg.norm(vectors + shifts, axis=1), kind="stable")
    max_atoms = int(rng.integers(bounds[0], bounds[1] + 1))
    n_chosen = max(1, int(np.searchsorted(np.cumsum(counts[order]), max_atoms, side="right")))
    chosen = np.sort(order[:n_chosen])
    rows = np.concatenate([np.flatnonzero(owners == k) for k in chosen])
    positions = atoms.positions[rows] + shifts[owners[rows]]
    name = ".".join(sorted(box.members[k].keys[0] for k in chosen))
    return name, Atoms(atoms.numbers[rows], positions - positions.mean(0)), owners[rows]
