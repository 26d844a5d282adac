"""Scans of complexes of two or three molecules over distances, with each molecule by itself too.

The interaction energy of molecules is a small difference of large energies. A complex and its
molecules in the same geometries give this difference without errors of energies inside a molecule.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import count

import numpy as np
from ase import Atoms
from ase.data import vdw_alvarez
from numpy.typing import NDArray
from tqdm import tqdm

from ase_student.data.structures import Structures
from ase_student.distill.molecules.species import (
    Molecule,
    Species,
    UnsuitableError,
    generator,
)
from ase_student.distill.sampling import clusters, geometry
from ase_student.distill.sampling.rigid import descended_rigidly
from ase_student.distill.sampling.scan_molecules import Embedder, thermal_geometries
from ase_student.distill.settings import StepSettings, option
from ase_student.dynamics.langevin import Positions
from ase_student.potentials.base import Potential, forces_of

#: Sources of the structures.
DIMER, TRIMER, FRAGMENT = "dimer", "trimer", "fragment"
#: Arrangements with their probabilities; if an arrangement cannot be built, molecules are put side
#: by side.
KINDS = {"bonded": 0.35, "stacked": 0.3, "side by side": 0.35}
#: Probability that the next molecule of a complex is of the same species as the first.
SAME_SPECIES = 0.2
#: Steps downhill as rigid bodies: few steps change the arrangement little, many find a minimum.
FEW_STEPS, MANY_STEPS = 4, 50
#: Share of the arrangements that take many steps.
RELAXED_SHARE = 0.7
#: Temperatures of complexes whose molecules have relaxed together, K.
BOUND_TEMPERATURES = (30.0, 300.0)
#: Innermost point of a scan, as a fraction of the shortest contact of the arrangement: the usual
#: range, the closer range, and the probability of the closer range.
PRESSED, CLOSER, CLOSER_SHARE = (0.86, 1.0), (0.74, 0.86), 0.2
#: Lower limit of all contacts, as a fraction of the van der Waals radii.
CLOSEST = 0.5
#: Outermost point of a scan: shortest distance between atoms of two molecules, Å.
FARTHEST = 5.0
#: Exponent of the spacing of points: above 1 they are denser at short distances, where energies
#: change fast.
CROWDING = 1.5
#: In the direction of the scan, the weight of a contact falls by a factor e when its length, as a
#: fraction of the radii, grows by this.
CONTACT_WIDTH = 0.08
#: Random deviation from this direction.
TILT = 0.2
#: Largest component of the driver's force on an atom of a complex, eV/Å; above, it is a collision.
LARGEST_FORCE = 15.0
#: After this many draws of molecules that are together too large, two molecules are drawn.
MAX_DRAWS = 1000
#: Largest number of arrangements made together, and how many more are made than are missing.
BATCH, SPARE = 48, 2


@dataclass(frozen=True)
class DimerScanSettings(StepSettings):
    """Settings of the scans.

    Attributes
    ----------
    complexes : int
        Number of complexes in all scans together.
    points : int
        Number of distances in each scan, which share the geometries of the molecules.
    trimers : float
        Share of scans with three molecules.
    doubly_bonded : float
        Share of scans of molecules joined by two hydrogen bonds, if the molecules allow it.
    bound : float
        Share of scans that start from a complex that was relaxed as a whole and then moved by short
        dynamics: bonds of the molecules then have the lengths that they have in the complex.
    max_complex_atoms : int
    seed : int

    Raises
    ------
    ValueError
        If a value is not allowed.
    """

    complexes: int = option(
        1000, "how many complexes; their molecules come with them", metavar="N", least=1
    )
    points: int = option(
        3,
        "distances of each pair, which share the geometries of the molecules",
        metavar="N",
        least=1,
    )
    trimers: float = option(0.1, "share of complexes of three molecules", metavar="S")
    doubly_bonded: float = option(
        0.0,
        "share of complexes that two hydrogen bonds join, where molecules allow it",
        metavar="S",
    )
    bound: float = option(
        0.0, "share of scans that start from a complex relaxed as a whole", metavar="S"
    )
    max_complex_atoms: int = option(70, "atoms of the largest complex", metavar="N", least=4)
    seed: int = option(0, "of all random choices", least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("trimers", "doubly_bonded", "bound"):
            share = getattr(self, name)
            if not 0 <= share <= 1:
                flag = f"--{name.replace('_', '-')}"
                raise ValueError(f"{flag} is {share:g}; it must be from 0 to 1.")


@dataclass
class Complexes:
    """Complexes with their fragments, group by group, and counts of what was left out."""

    structures: list[Atoms] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    molecules: list[str] = field(default_factory=list)
    fragments: list[tuple[int, int]] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    n_groups: int = 0
    n_complexes: int = 0

    def add(self, molecule: Molecule, scan: Sequence[Positions]) -> None:
        """Add a scan: complexes of the same molecules in the same geometries, and the fragments."""
        source = DIMER if len(molecule.keys) == 2 else TRIMER
        for positions in scan:
            self._append(molecule.atoms(positions), molecule.name, source, -1)
        for k, key in enumerate(molecule.keys):
            is_own = molecule.fragments == k
            positions = scan[0][is_own] - scan[0][is_own].mean(0)
            self._append(Atoms(molecule.numbers[is_own], positions), key, FRAGMENT, k)
        self.n_groups += 1
        self.n_complexes += len(scan)

    def _append(self, atoms: Atoms, name: str, source: str, fragment: int) -> None:
        self.structures.append(atoms)
        self.sources.append(source)
        self.molecules.append(name)
        self.fragments.append((self.n_groups, fragment))

    def columns(self) -> Structures:
        """Return all structures, with the column of groups and fragments."""
        return Structures.from_atoms(
            self.structures, self.sources, self.molecules, fragments=self.fragments
        )


def scan_complexes(
    sets: Sequence[Sequence[Species]], settings: DimerScanSettings, driver: Potential
) -> Complexes:
    """Return scans of complexes of molecules that are drawn from sets.

    Parameters
    ----------
    sets : sequence of sequence of Species
        Molecules are drawn from all sets equally often.
    settings : DimerScanSettings
    driver : Potential
        Moves the molecules and relaxes the complexes, see
        :func:`ase_student.potentials.registry.load_potential`.

    Raises
    ------
    ValueError
        If the molecules are too large, or if almost no complex can be used.
    """
    smallest = min(species.n_atoms for molecules in sets for species in molecules)
    if 2 * smallest > settings.max_complex_atoms:
        raise ValueError(
            f"--max-complex-atoms is {settings.max_complex_atoms}, but no two molecules of the "
            f"sets have so few atoms: the smallest has {smallest}."
        )
    result = Complexes()
    embed = Embedder(settings.seed)
    n_empty_batches = 0
    with tqdm(total=settings.complexes, unit="complex", disable=None) as progress:
        for number in count():
            n_before = result.n_complexes
            rng = generator(settings.seed, f"complexes {number}")
            n_missing = settings.complexes - n_before
            n = min(BATCH, -(-n_missing // settings.points) + SPARE)
            for molecule, scan in _scans(n, sets, settings, driver, embed, rng, result.dropped):
                scan = scan[: settings.complexes - result.n_complexes]
                if scan:
                    result.add(molecule, scan)
            progress.update(result.n_complexes - n_before)
            if result.n_complexes >= settings.complexes:
                return result
            n_empty_batches = n_empty_batches + 1 if result.n_complexes == n_before else 0
            if n_empty_batches == 5:
                reasons = ", ".join(f"{n} {reason}" for reason, n in result.dropped.most_common(3))
                raise ValueError(f"no complex of {5 * n} that were drawn can be used: {reasons}.")
    raise AssertionError


def _scans(
    n: int,
    sets: Sequence[Sequence[Species]],
    settings: DimerScanSettings,
    driver: Potential,
    embed: Embedder,
    rng: np.random.Generator,
    dropped: Counter[str],
) -> list[tuple[Molecule, list[Positions]]]:
    """Return the scans of `n` arrangements, without those that cannot be used."""
    arranged = _arrangements(n, sets, settings, driver, embed, rng, dropped)
    structures = [molecule.atoms(molecule.conformers[0]) for molecule in arranged]
    takes_few_steps = rng.random(len(arranged)) >= RELAXED_SHARE
    n_steps = np.where(takes_few_steps, FEW_STEPS, MANY_STEPS).tolist()
    fragments = [molecule.fragments for molecule in arranged]
    descended = descended_rigidly(structures, fragments, driver, n_steps=n_steps)
    relaxed = _relaxed_together(arranged, descended, settings.bound, driver, rng=rng)
    scans = []
    for molecule, positions in zip(arranged, relaxed, strict=True):
        if positions is None:
            dropped["complex came apart, or without forces"] += 1
            continue
        scans.append((molecule, scan_distances(molecule, positions, settings.points, rng=rng)))
    flat = [molecule.atoms(positions) for molecule, scan in scans for positions in scan]
    forces = forces_of(driver, flat) if flat else []
    # A comparison with NaN is false.
    is_usable = iter([bool(np.abs(force).max() < LARGEST_FORCE) for force in forces])
    usable_scans = []
    for molecule, scan in scans:
        usable = [positions for positions in scan if next(is_usable)]
        dropped["collision"] += len(scan) - len(usable)
        if usable:
            usable_scans.append((molecule, usable))
    return usable_scans


def _relaxed_together(
    arranged: Sequence[Molecule],
    positions: Sequence[Positions],
    share: float,
    driver: Potential,
    *,
    rng: np.random.Generator,
) -> list[Positions | None]:
    """Return the positions of complexes, with a share of them relaxed as a whole.

    None if positions are not finite, or if a bond of a molecule broke.
    """
    result = [array if np.isfinite(array).all() else None for array in positions]
    drawn = np.flatnonzero(rng.random(len(arranged)) < share).tolist()
    chosen = [k for k in drawn if result[k] is not None]
    complexes = [replace(arranged[k], conformers=[positions[k]]) for k in chosen]
    geometries = thermal_geometries(complexes, driver, rng, between=BOUND_TEMPERATURES)
    for k, relaxed_positions in zip(chosen, geometries, strict=True):
        result[k] = relaxed_positions
    return result


def _arrangements(
    n: int,
    sets: Sequence[Sequence[Species]],
    settings: DimerScanSettings,
    driver: Potential,
    embed: Embedder,
    rng: np.random.Generator,
    dropped: Counter[str],
) -> list[Molecule]:
    """Return complexes of molecules in thermal geometries, each in one of the arrangements."""
    drawn: list[list[Molecule]] = []
    for _ in range(n):
        n_molecules = 3 if rng.random() < settings.trimers else 2
        species = _drawn_species(sets, n_molecules, settings.max_complex_atoms, rng)
        try:
            drawn.append([embed(member) for member in species])
        except UnsuitableError as reason:
            dropped[f"molecule: {reason}"] += 1
    geometries = iter(
        thermal_geometries([molecule for group in drawn for molecule in group], driver, rng)
    )
    arranged = []
    for group in drawn:
        group_geometries = [next(geometries) for _ in group]
        if any(positions is None for positions in group_geometries):
            dropped["molecule came apart"] += 1
            continue
        members = [
            replace(molecule, conformers=[positions])
            for molecule, positions in zip(group, group_geometries, strict=True)
            if positions is not None
        ]
        try:
            arranged.append(_arranged(members, settings.doubly_bonded, rng))
        except UnsuitableError as reason:
            dropped[f"complex: {reason}"] += 1
    return arranged


def _drawn_species(
    sets: Sequence[Sequence[Species]], n: int, max_atoms: int, rng: np.random.Generator
) -> list[Species]:
    """Return molecules that are together small enough; two if three were always too large."""
    for attempt in count():
        n = 2 if attempt > MAX_DRAWS else n
        drawn: list[Species] = []
        for _ in range(n):
            if drawn and rng.random() < SAME_SPECIES:
                drawn.append(drawn[0])
            else:
                species = sets[int(rng.integers(len(sets)))]
                drawn.append(species[int(rng.integers(len(species)))])
        if sum(member.n_atoms for member in drawn) <= max_atoms:
            return drawn
    raise AssertionError


def _arranged(members: list[Molecule], doubly_bonded: float, rng: np.random.Generator) -> Molecule:
    kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
    places = [{"bonded": clusters.hydrogen_bonded, "stacked": clusters.stacked}.get(kind)]
    if rng.random() < doubly_bonded:
        places.insert(0, clusters.doubly_hydrogen_bonded)
    placed = (place(members[:2], rng) for place in places if place)
    pair = next(filter(None, placed), None) or clusters.side_by_side(members[:2], rng)
    if len(members) == 2:
        return pair
    trimer = clusters.side_by_side([pair, members[2]], rng)
    return replace(trimer, fragments=np.where(trimer.fragments == 1, 2, _padded(pair, trimer)))


def _padded(pair: Molecule, trimer: Molecule) -> NDArray[np.int64]:
    return np.resize(pair.fragments, len(trimer.numbers))


def scan_distances(
    molecule: Molecule, positions: Positions, points: int, *, rng: np.random.Generator
) -> list[Positions]:
    """Return positions with one molecule pressed against the others or pulled away from them.

    The first point is closer than the arrangement. The other points lie between its shortest
    distance and `FARTHEST`, at random in intervals that become wider.

    Parameters
    ----------
    molecule : Molecule
    positions : (n_atoms, 3) float64, Å
        The arrangement.
    points : int
    rng : numpy.random.Generator
    """
    moving = molecule.fragments == rng.integers(molecule.fragments.max() + 1)
    vectors = positions[moving][:, None] - positions[~moving]
    distances = np.linalg.norm(vectors, axis=-1)
    radii = vdw_alvarez.vdw_radii[molecule.numbers]
    ratios = distances / (radii[moving, None] + radii[~moving])
    weights = np.exp((ratios.min() - ratios) / CONTACT_WIDTH) / distances
    outwards = np.einsum("ij,ijk->k", weights, vectors)
    direction = outwards / np.linalg.norm(outwards) + TILT * rng.normal(size=3) / np.sqrt(3)
    direction /= np.linalg.norm(direction)
    bounds = CLOSER if rng.random() < CLOSER_SHARE else PRESSED
    contact = max(float(ratios.min()) * rng.uniform(*bounds), CLOSEST)
    scan = [
        geometry.shift_to_contact(
            molecule.numbers, positions, moving, direction=direction, contact=contact
        )
    ]
    start = min(float(distances.min()), FARTHEST)
    for k in range(points - 1):
        fraction = ((k + rng.random()) / (points - 1)) ** CROWDING
        limit = start + (FARTHEST - start) * fraction
        scan.append(geometry.shift_to_limits(positions, moving, direction, limits=limit))
    return scan
