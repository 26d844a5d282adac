"""Complexes of two or three molecules at several distances, with each molecule alone beside them.

What binds molecules is a small difference of large energies. A complex and its molecules in the
same geometries give that difference without any error of what happens inside a molecule.
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
#: Arrangements, and how often each is tried; one that cannot be built becomes one side by side.
KINDS = {"bonded": 0.35, "stacked": 0.3, "side by side": 0.35}
#: How often the second molecule is one of the same species as the first.
SAME_SPECIES = 0.2
#: Steps downhill as rigid bodies: few leave the arrangement as drawn, more find a minimum.
FEW_STEPS, MANY_STEPS = 4, 50
RELAXED_SHARE = 0.7
#: Temperatures of complexes whose molecules have relaxed together, K.
BOUND_TEMPERATURES = (30.0, 300.0)
#: The innermost point of a scan, as a fraction of the shortest contact of the arrangement, and how
#: often it is one of the closer range.
PRESSED, CLOSER, CLOSER_SHARE = (0.86, 1.0), (0.74, 0.86), 0.2
#: Shortest contact at all, as a fraction of the van der Waals radii.
CLOSEST = 0.5
#: The outermost point of a scan: shortest distance between atoms of two molecules, Å.
FARTHEST = 5.0
#: Points lie closer where energies change fast.
CROWDING = 1.5
#: Length, as a fraction of the radii, over which contacts share in the direction of the scan.
CONTACT_WIDTH = 0.08
TILT = 0.2
#: Largest force of the driver on an atom of a complex, eV/Å: beyond it is a collision.
LARGEST_FORCE = 15.0
#: Draws of three molecules that are too large before two are drawn.
ATTEMPTS = 1000
#: Arrangements that are made together at most, and how many more than are missing.
BATCH, SPARE = 48, 2


@dataclass(frozen=True)
class DimerScanSettings(StepSettings):
    """What scans to make.

    Attributes
    ----------
    complexes : int
        How many, all scans together.
    points : int
        Distances of each scan, which share the molecules' geometries.
    trimers : float
        Share of scans with three molecules.
    doubly_bonded : float
        Share of scans of molecules joined by two hydrogen bonds, where they can be.
    bound : float
        Share of scans that begin at a complex relaxed as a whole, in short dynamics there: bonds of
        the molecules then have the lengths that they have in the complex.
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
        0.0, "share of scans that begin at a complex which has relaxed as a whole", metavar="S"
    )
    max_complex_atoms: int = option(70, "atoms of the largest complex", metavar="N", least=4)
    seed: int = option(0, "of all that is drawn")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("trimers", "doubly_bonded", "bound"):
            share = getattr(self, name)
            if not 0 <= share <= 1:
                shown = f"--{name.replace('_', '-')}"
                raise ValueError(f"{shown} is {share:g}; it must be from 0 to 1.")


@dataclass
class Complexes:
    """Complexes with their fragments, group after group, and counts of what was left out."""

    structures: list[Atoms] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    molecules: list[str] = field(default_factory=list)
    fragments: list[tuple[int, int]] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    n_groups: int = 0
    n_complexes: int = 0

    def add(self, molecule: Molecule, scan: Sequence[Positions]) -> None:
        """Add a scan: complexes of the same molecules, whose geometries are those of the first."""
        source = DIMER if len(molecule.keys) == 2 else TRIMER
        for positions in scan:
            self._append(molecule.atoms(positions), molecule.name, source, -1)
        for k, key in enumerate(molecule.keys):
            own = molecule.fragments == k
            positions = scan[0][own] - scan[0][own].mean(0)
            self._append(Atoms(molecule.numbers[own], positions), key, FRAGMENT, k)
        self.n_groups += 1
        self.n_complexes += len(scan)

    def _append(self, atoms: Atoms, name: str, source: str, fragment: int) -> None:
        self.structures.append(atoms)
        self.sources.append(source)
        self.molecules.append(name)
        self.fragments.append((self.n_groups, fragment))

    def columns(self) -> Structures:
        """Return all structures, with the column that says what belongs together."""
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
        Each is drawn from as often as the others.
    settings : DimerScanSettings
    driver : Potential
        Moves molecules and brings them together, see
        :func:`ase_student.potentials.registry.load_potential`.

    Raises
    ------
    ValueError
        If the molecules are too large, or next to nothing that is drawn can be used.
    """
    smallest = min(one.n_atoms for listed in sets for one in listed)
    if 2 * smallest > settings.max_complex_atoms:
        raise ValueError(
            f"--max-complex-atoms is {settings.max_complex_atoms}, but no two molecules of the "
            f"sets have so few atoms: the smallest has {smallest}."
        )
    result = Complexes()
    embed = Embedder(settings.seed)
    barren = 0
    with tqdm(total=settings.complexes, unit="complex", disable=None) as progress:
        for number in count():
            before = result.n_complexes
            rng = generator(settings.seed, f"complexes {number}")
            missing = settings.complexes - before
            n = min(BATCH, -(-missing // settings.points) + SPARE)
            for molecule, scan in _scans(n, sets, settings, driver, embed, rng, result.dropped):
                scan = scan[: settings.complexes - result.n_complexes]
                if scan:
                    result.add(molecule, scan)
            progress.update(result.n_complexes - before)
            if result.n_complexes >= settings.complexes:
                return result
            barren = barren + 1 if result.n_complexes == before else 0
            if barren == 5:
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
    """Return the scans of `n` arrangements, but for those that cannot be used."""
    arranged = _arrangements(n, sets, settings, driver, embed, rng, dropped)
    structures = [one.atoms(one.conformers[0]) for one in arranged]
    few = rng.random(len(arranged)) >= RELAXED_SHARE
    n_steps = np.where(few, FEW_STEPS, MANY_STEPS).tolist()
    fragments = [one.fragments for one in arranged]
    descended = descended_rigidly(structures, fragments, driver, n_steps=n_steps)
    relaxed = _relaxed_together(arranged, descended, settings.bound, driver, rng=rng)
    scans = []
    for molecule, positions in zip(arranged, relaxed, strict=True):
        if positions is None:
            dropped["complex came apart, or without forces"] += 1
            continue
        scans.append((molecule, scan_distances(molecule, positions, settings.points, rng=rng)))
    flat = [molecule.atoms(positions) for molecule, scan in scans for positions in scan]
    # A comparison with NaN is false.
    forces = forces_of(driver, flat) if flat else []
    sound = iter([bool(np.abs(force).max() < LARGEST_FORCE) for force in forces])
    kept = []
    for molecule, scan in scans:
        good = [positions for positions in scan if next(sound)]
        dropped["collision"] += len(scan) - len(good)
        if good:
            kept.append((molecule, good))
    return kept


def _relaxed_together(
    arranged: Sequence[Molecule],
    positions: Sequence[Positions],
    share: float,
    driver: Potential,
    *,
    rng: np.random.Generator,
) -> list[Positions | None]:
    """Return the positions of complexes, a share of them after they have relaxed as a whole.

    None where positions are not finite, or where a bond of a molecule broke.
    """
    result = [one if np.isfinite(one).all() else None for one in positions]
    drawn = np.flatnonzero(rng.random(len(arranged)) < share).tolist()
    chosen = [k for k in drawn if result[k] is not None]
    complexes = [replace(arranged[k], conformers=[positions[k]]) for k in chosen]
    geometries = thermal_geometries(complexes, driver, rng, between=BOUND_TEMPERATURES)
    for k, geometry_of_complex in zip(chosen, geometries, strict=True):
        result[k] = geometry_of_complex
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
    """Return complexes of thermal geometries, each arranged in one of the kinds."""
    drawn: list[list[Molecule]] = []
    for _ in range(n):
        n_molecules = 3 if rng.random() < settings.trimers else 2
        species = _drawn_species(sets, n_molecules, settings.max_complex_atoms, rng)
        try:
            drawn.append([embed(one) for one in species])
        except UnsuitableError as reason:
            dropped[f"molecule: {reason}"] += 1
    geometries = iter(thermal_geometries([one for group in drawn for one in group], driver, rng))
    arranged = []
    for group in drawn:
        own = [next(geometries) for _ in group]
        if any(positions is None for positions in own):
            dropped["molecule came apart"] += 1
            continue
        members = [
            replace(one, conformers=[positions])
            for one, positions in zip(group, own, strict=True)
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
    """Return molecules that have room in one complex; two where three never seem to fit."""
    for attempt in count():
        n = 2 if attempt > ATTEMPTS else n
        drawn: list[Species] = []
        for _ in range(n):
            if drawn and rng.random() < SAME_SPECIES:
                drawn.append(drawn[0])
            else:
                one = sets[int(rng.integers(len(sets)))]
                drawn.append(one[int(rng.integers(len(one)))])
        if sum(one.n_atoms for one in drawn) <= max_atoms:
            return drawn
    raise AssertionError


def _arranged(members: list[Molecule], doubly_bonded: float, rng: np.random.Generator) -> Molecule:
    kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
    places = [{"bonded": clusters.hydrogen_bonded, "stacked": clusters.stacked}.get(kind)]
    if rng.random() < doubly_bonded:
        places.insert(0, clusters.doubly_hydrogen_bonded)
    tried = (place(members[:2], rng) for place in places if place)
    pair = next(filter(None, tried), None) or clusters.side_by_side(members[:2], rng)
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

    The first point is closer than the arrangement, the others are spread from its shortest distance
    to `FARTHEST`, at random in intervals that get wider.

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
