"""Clusters: water, a molecule in water, hydrogen-bonded, stacked and random pairs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from ase.data import vdw_alvarez
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from ase_student.data.splits import WATER
from ase_student.distill.molecules.species import (
    Molecule,
    Species,
    UnsuitableError,
    combine,
    embed,
    import_rdkit,
    species_of,
)
from ase_student.distill.sampling import geometry
from ase_student.dynamics import rotations
from ase_student.dynamics.langevin import Positions

KINDS = {"waters": 0.15, "solvated": 0.3, "dimer": 0.2, "bonded": 0.2, "stacked": 0.15}
#: Waters in pure water; the largest hold a molecule whose neighbors all have neighbors.
FEW_WATERS = (2, 9)
MANY_WATERS = (9, 22)
MAX_SOLVENT = 12
#: Distance from hydrogen to acceptor, Å, and how far the angles are from straight, rad.
HYDROGEN_BOND = (1.7, 2.4)
TILT = 0.6
DONORS = "[#7,#8;!H0]"
ACCEPTORS = "[$([#8]),$([#7;X2,X1]),$([#7;X3;!$(N-*=[!#6]);!$(N-a);!$([#7;+])]),$([#9])]"
#: A donor and an acceptor of one molecule that can both bond to another molecule at once: bonds
#: between them, and distance from the donor's hydrogen to the acceptor, Å.
NEARBY_BONDS = (2, 3)
NEARBY = (1.9, 3.4)
#: Distance of the planes of stacked rings and their lateral shift, Å.
STACKING = (3.2, 4.2)
MAX_SHIFT = 2.0
#: What is not bonded must stay this far apart, as a fraction of the van der Waals radii.
ROOM = 0.68
ATTEMPTS = 30
#: Side of the cell of cubic ice, Å, and its eight sites.
ICE_CELL = 6.35
ICE_SITES = np.array(
    [(0, 0, 0), (0, 2, 2), (2, 0, 2), (2, 2, 0), (1, 1, 1), (1, 3, 3), (3, 1, 3), (3, 3, 1)]
) * (ICE_CELL / 4)  # fmt: skip


#: Closest approach of two molecules, as a fraction of their van der Waals radii.
SQUEEZED_CONTACTS = (0.5, 0.8)
STRETCHED_CONTACTS = (0.95, 2.0)


def build(
    molecule: Molecule,
    partners: Sequence[Species],
    max_atoms: int,
    *,
    rng: np.random.Generator,
    mmff: bool = True,
) -> Molecule:
    """Return a cluster: waters, or the molecule with waters or with another molecule.

    Where the kind that was drawn cannot be built from the molecule, a pair side by side is, or, if
    no other molecule fits, the molecule in water.

    Parameters
    ----------
    molecule : Molecule
    partners : sequence of Species
        What it may meet.
    max_atoms : int
        Largest cluster.
    rng : numpy.random.Generator
    mmff : bool
        Whether MMFF94 is to move it, see `molecules.embed`.

    Raises
    ------
    UnsuitableError
        If nothing fits beside the molecule.
    """
    room = max_atoms - len(molecule.numbers)
    kind = rng.choice(list(KINDS), p=list(KINDS.values()))
    if kind == "waters" or molecule.name == WATER:
        return _waters(max_atoms // 3, rng)
    partner = None if kind == "solvated" else _partner(partners, room, rng, mmff)
    if partner is None and room >= 3:
        n = min(int(rng.integers(1, MAX_SOLVENT + 1)), room // 3)
        return side_by_side([molecule] + [_water()] * n, rng)
    if partner is None:
        raise UnsuitableError("no room for a partner")
    pair = [molecule, partner]
    place = {"bonded": hydrogen_bonded, "stacked": stacked}.get(str(kind))
    return (place(pair, rng) if place else None) or side_by_side(pair, rng)


@lru_cache(maxsize=1)
def _water() -> Molecule:
    return embed(species_of(WATER, 3), 1, 0)


def _waters(limit: int, rng: np.random.Generator) -> Molecule:
    """Return water: a few molecules side by side, or many on sites of ice, turned at random."""
    bounds = FEW_WATERS if rng.random() < 0.5 else MANY_WATERS
    n = min(int(rng.integers(*bounds)), limit)
    if n < 2:
        raise UnsuitableError("no room for a partner")
    waters = [_water()] * n
    if n < MANY_WATERS[0]:
        return side_by_side(waters, rng)
    shifts = np.indices((4, 4, 4)).reshape(3, -1).T * ICE_CELL
    sites = (shifts[:, None] + ICE_SITES).reshape(-1, 3)
    center = ICE_CELL * (1.5 + rng.random(3))
    nearest = sites[np.argsort(np.linalg.norm(sites - center, axis=1))[:n]]
    water = waters[0].conformers[0]
    water = water - water.mean(0)
    turned = [site + water @ rotations.random_rotation(rng) for site in nearest]
    return combine(waters, np.concatenate(turned))


def _partner(
    partners: Sequence[Species], room: int, rng: np.random.Generator, mmff: bool
) -> Molecule | None:
    fitting = [partner for partner in partners if partner.n_atoms <= room]
    if not fitting:
        return None
    species = fitting[int(rng.integers(len(fitting)))]
    return embed(species, 1, int(rng.integers(2**31 - 1)), mmff=mmff)


def _conformer(molecule: Molecule, rng: np.random.Generator) -> Positions:
    return molecule.conformers[int(rng.integers(len(molecule.conformers)))]


def side_by_side(members: list[Molecule], rng: np.random.Generator) -> Molecule:
    """Return molecules that touch, each turned at random."""
    conformers = [_conformer(one, rng) for one in members]
    positions = geometry.packed([one.numbers for one in members], conformers, rng)
    return combine(members, positions)


def hydrogen_bonded(pair: list[Molecule], rng: np.random.Generator) -> Molecule | None:
    """Return a pair joined by a hydrogen bond, or None if it has no donor or no acceptor."""
    if rng.random() < 0.5:
        pair = pair[::-1]
    donors, acceptors = _matches(pair[0], DONORS), _matches(pair[1], ACCEPTORS)
    if not donors or not acceptors:
        donors, acceptors = _matches(pair[1], DONORS), _matches(pair[0], ACCEPTORS)
        pair = pair[::-1]
    if not donors or not acceptors:
        return None
    for _ in range(ATTEMPTS):
        giving, taking = (_conformer(one, rng) for one in pair)
        donor = donors[int(rng.integers(len(donors)))]
        hydrogens = [k for k in _bonded_to(pair[0], donor) if pair[0].numbers[k] == 1]
        hydrogen = hydrogens[int(rng.integers(len(hydrogens)))]
        acceptor = acceptors[int(rng.integers(len(acceptors)))]
        along = _unit(giving[hydrogen] - giving[donor])
        # The acceptor's lone pairs look away from what it is bound to, roughly.
        outwards = _unit(taking[acceptor] - taking[_bonded_to(pair[1], acceptor)].mean(0))
        along = _unit(along + TILT * rng.normal(size=3) / 3)
        outwards = _unit(outwards + TILT * rng.normal(size=3))
        turned = (taking - taking[acceptor]) @ _rotation_between(outwards, -along, rng).T
        placed = turned + giving[hydrogen] + rng.uniform(*HYDROGEN_BOND) * along
        touching = np.zeros((len(giving), len(placed)), dtype=bool)
        touching[[donor, hydrogen], acceptor] = True
        if _has_room(pair, giving, placed, touching):
            return combine(pair, np.concatenate([giving, placed]))
    return None


def doubly_hydrogen_bonded(pair: list[Molecule], rng: np.random.Generator) -> Molecule | None:
    """Return a pair joined by two antiparallel hydrogen bonds, as in the dimer of formic acid.

    None if no donor of a molecule has an acceptor of the same molecule beside it.
    """
    for _ in range(ATTEMPTS):
        first, second = (_conformer(one, rng) for one in pair)
        sites = [_double_sites(*one) for one in zip(pair, (first, second), strict=True)]
        if not all(sites):
            continue
        here, there = (choices[int(rng.integers(len(choices)))] for choices in sites)
        donor, hydrogen, acceptor = first[list(here)]
        along = _unit(hydrogen - donor)
        distance = rng.uniform(*HYDROGEN_BOND)
        bond = float(np.linalg.norm(second[there[1]] - second[there[0]]))
        # Where the donor, hydrogen and acceptor of the second molecule should come to lie.
        targets = np.array(
            [
                acceptor + (distance + bond) * along,
                acceptor + distance * along,
                hydrogen + distance * along,
            ]
        )
        own = second[list(there)]
        turn, _ = Rotation.align_vectors(targets - targets.mean(0), own - own.mean(0))
        placed = (second - own.mean(0)) @ turn.as_matrix().T + targets.mean(0)
        touching = np.zeros((len(first), len(placed)), dtype=bool)
        touching[np.ix_(here, there)] = True
        if _has_room(pair, first, placed, touching):
            return combine(pair, np.concatenate([first, placed]))
    return None


def _double_sites(molecule: Molecule, positions: Positions) -> list[tuple[int, int, int]]:
    """Return donors, their hydrogen atoms, and an acceptor on the same side of the molecule."""
    chem, _ = import_rdkit()
    bonds = chem.GetDistanceMatrix(molecule.rdkit)
    sites = []
    for donor in _matches(molecule, DONORS):
        for hydrogen in _bonded_to(molecule, donor):
            if molecule.numbers[hydrogen] != 1:
                continue
            for acceptor in _matches(molecule, ACCEPTORS):
                apart = float(np.linalg.norm(positions[acceptor] - positions[hydrogen]))
                near = NEARBY[0] < apart < NEARBY[1]
                if near and NEARBY_BONDS[0] <= bonds[donor, acceptor] <= NEARBY_BONDS[1]:
                    sites.append((donor, hydrogen, acceptor))
    return sites


def stacked(pair: list[Molecule], rng: np.random.Generator) -> Molecule | None:
    """Return a pair whose aromatic rings lie face to face, or None if one of them has none."""
    rings = [_aromatic_rings(one) for one in pair]
    if not all(rings):
        return None
    for _ in range(ATTEMPTS):
        below, above = (_conformer(one, rng) for one in pair)
        lower, upper = (choices[int(rng.integers(len(choices)))] for choices in rings)
        normal, other = _normal(below[lower]), _normal(above[upper])
        facing = normal if rng.random() < 0.5 else -normal
        turned = (above - above[upper].mean(0)) @ _rotation_between(other, facing, rng).T
        sideways = np.cross(normal, geometry.random_direction(rng))
        shift = rng.uniform(*STACKING) * normal + MAX_SHIFT * rng.random() * _unit(sideways)
        placed = turned + below[lower].mean(0) + shift
        if _has_room(pair, below, placed):
            return combine(pair, np.concatenate([below, placed]))
    return None


def _has_room(
    pair: list[Molecule],
    first: Positions,
    second: Positions,
    touching: NDArray[np.bool_] | None = None,
) -> bool:
    """Say whether two molecules are apart, but for the pairs of atoms that are to touch."""
    radii = [vdw_alvarez.vdw_radii[one.numbers] for one in pair]
    ratios = np.linalg.norm(first[:, None] - second, axis=-1) / (radii[0][:, None] + radii[1])
    return bool((ratios[... if touching is None else ~touching] > ROOM).all())


def _matches(molecule: Molecule, smarts: str) -> list[int]:
    chem, _ = import_rdkit()
    # Hydrogen atoms are atoms of their own here; the pattern counts them all the same.
    found = molecule.rdkit.GetSubstructMatches(chem.MolFromSmarts(smarts))
    return [match[0] for match in found]


def _bonded_to(molecule: Molecule, atom: int) -> list[int]:
    return [one.GetIdx() for one in molecule.rdkit.GetAtomWithIdx(atom).GetNeighbors()]


def _aromatic_rings(molecule: Molecule) -> list[list[int]]:
    rings = molecule.rdkit.GetRingInfo().AtomRings()
    is_aromatic = [atom.GetIsAromatic() for atom in molecule.rdkit.GetAtoms()]
    return [list(ring) for ring in rings if all(is_aromatic[k] for k in ring)]


def _normal(ring: Positions) -> Positions:
    """Return the unit vector that is perpendicular to the plane closest to some points."""
    normal: Positions = np.linalg.svd(ring - ring.mean(0))[2][2]
    return normal


def _unit(vector: Positions) -> Positions:
    unit: Positions = vector / max(float(np.linalg.norm(vector)), 1e-9)
    return unit


def _rotation_between(
    start: Positions, end: Positions, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return a rotation that takes one unit vector to another and is else random."""
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    frames = []
    for vector in (start, end):
        side = _unit(np.cross(vector, np.eye(3)[np.abs(vector).argmin()]))
        frames.append(np.stack([side, np.cross(vector, side), vector]))
    frames[1][:2] = turn @ frames[1][:2]
    rotation: NDArray[np.float64] = frames[1].T @ frames[0]
    return rotation


def in_contact(
    cluster: Molecule, positions: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Press one molecule into the others, or pull it away, along a line near its own."""
    moving = cluster.fragments == rng.integers(cluster.fragments.max() + 1)
    outwards = positions[moving].mean(0) - positions[~moving].mean(0)
    direction = outwards / np.linalg.norm(outwards) + 0.3 * rng.normal(size=3)
    contacts = SQUEEZED_CONTACTS if rng.random() < 0.4 else STRETCHED_CONTACTS
    return geometry.shift_to_contact(
        cluster.numbers,
        positions,
        moving,
        direction=direction / np.linalg.norm(direction),
        contact=rng.uniform(*contacts),
    )
