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
#: Number of molecules in clusters of pure water, small and large ones. In the largest clusters at
#: least one molecule has a complete second shell of neighbors.
FEW_WATERS = (2, 9)
MANY_WATERS = (9, 22)
MAX_SOLVENT = 12
#: Distance from hydrogen to acceptor, Å, and deviation of the angles from 180°, rad.
HYDROGEN_BOND = (1.7, 2.4)
TILT = 0.6
DONORS = "[#7,#8;!H0]"
ACCEPTORS = "[$([#8]),$([#7;X2,X1]),$([#7;X3;!$(N-*=[!#6]);!$(N-a);!$([#7;+])]),$([#9])]"
#: A donor and an acceptor of the same molecule that can bond to another molecule at the same time:
#: number of bonds between them, and distance from the donor's hydrogen to the acceptor, Å.
NEARBY_BONDS = (2, 3)
NEARBY = (1.9, 3.4)
#: Distance of the planes of stacked rings and their lateral shift, Å.
STACKING = (3.2, 4.2)
MAX_SHIFT = 2.0
#: Shortest distance of atoms that are not bonded, as a fraction of the sum of van der Waals radii.
MIN_CONTACT = 0.68
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

    The kind of cluster is drawn at random. If it cannot be built from the molecule, the result is a
    pair side by side, or, if no other molecule fits, the molecule in water.

    Parameters
    ----------
    molecule : Molecule
    partners : sequence of Species
        Molecules that may be combined with it.
    max_atoms : int
        Number of atoms of the largest cluster.
    rng : numpy.random.Generator
    mmff : bool
        Whether MMFF94 will move the cluster, see `molecules.species.embed`.

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
    """Return water molecules: a few side by side, or many on ice sites, rotated at random."""
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
    """Return molecules that touch, each rotated at random."""
    conformers = [_conformer(molecule, rng) for molecule in members]
    positions = geometry.packed([molecule.numbers for molecule in members], conformers, rng)
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
        donor_positions, acceptor_positions = (_conformer(molecule, rng) for molecule in pair)
        donor = donors[int(rng.integers(len(donors)))]
        hydrogens = [k for k in _bonded_to(pair[0], donor) if pair[0].numbers[k] == 1]
        hydrogen = hydrogens[int(rng.integers(len(hydrogens)))]
        acceptor = acceptors[int(rng.integers(len(acceptors)))]
        along = _unit(donor_positions[hydrogen] - donor_positions[donor])
        # The acceptor's lone pairs point away from its bonded neighbors, approximately.
        outwards = _unit(
            acceptor_positions[acceptor] - acceptor_positions[_bonded_to(pair[1], acceptor)].mean(0)
        )
        along = _unit(along + TILT * rng.normal(size=3) / 3)
        outwards = _unit(outwards + TILT * rng.normal(size=3))
        turned = (acceptor_positions - acceptor_positions[acceptor]) @ _rotation_between(
            outwards, -along, rng
        ).T
        placed = turned + donor_positions[hydrogen] + rng.uniform(*HYDROGEN_BOND) * along
        touching = np.zeros((len(donor_positions), len(placed)), dtype=bool)
        touching[[donor, hydrogen], acceptor] = True
        if _has_room(pair, donor_positions, placed, touching):
            return combine(pair, np.concatenate([donor_positions, placed]))
    return None


def doubly_hydrogen_bonded(pair: list[Molecule], rng: np.random.Generator) -> Molecule | None:
    """Return a pair joined by two antiparallel hydrogen bonds, as in the dimer of formic acid.

    None if a molecule has no donor with an acceptor near it.
    """
    for _ in range(ATTEMPTS):
        first, second = (_conformer(molecule, rng) for molecule in pair)
        sites = [
            _double_sites(molecule, positions)
            for molecule, positions in zip(pair, (first, second), strict=True)
        ]
        if not all(sites):
            continue
        first_sites, second_sites = (choices[int(rng.integers(len(choices)))] for choices in sites)
        donor, hydrogen, acceptor = first[list(first_sites)]
        along = _unit(hydrogen - donor)
        distance = rng.uniform(*HYDROGEN_BOND)
        bond = float(np.linalg.norm(second[second_sites[1]] - second[second_sites[0]]))
        # Target positions of the donor, hydrogen and acceptor of the second molecule.
        targets = np.array(
            [
                acceptor + (distance + bond) * along,
                acceptor + distance * along,
                hydrogen + distance * along,
            ]
        )
        site_positions = second[list(second_sites)]
        rotation, _ = Rotation.align_vectors(
            targets - targets.mean(0), site_positions - site_positions.mean(0)
        )
        placed = (second - site_positions.mean(0)) @ rotation.as_matrix().T + targets.mean(0)
        touching = np.zeros((len(first), len(placed)), dtype=bool)
        touching[np.ix_(first_sites, second_sites)] = True
        if _has_room(pair, first, placed, touching):
            return combine(pair, np.concatenate([first, placed]))
    return None


def _double_sites(molecule: Molecule, positions: Positions) -> list[tuple[int, int, int]]:
    """Return donors, each with a hydrogen atom of its own and an acceptor near that."""
    chem, _ = import_rdkit()
    bonds = chem.GetDistanceMatrix(molecule.rdkit)
    sites = []
    for donor in _matches(molecule, DONORS):
        for hydrogen in _bonded_to(molecule, donor):
            if molecule.numbers[hydrogen] != 1:
                continue
            for acceptor in _matches(molecule, ACCEPTORS):
                distance = float(np.linalg.norm(positions[acceptor] - positions[hydrogen]))
                is_near = NEARBY[0] < distance < NEARBY[1]
                if is_near and NEARBY_BONDS[0] <= bonds[donor, acceptor] <= NEARBY_BONDS[1]:
                    sites.append((donor, hydrogen, acceptor))
    return sites


def stacked(pair: list[Molecule], rng: np.random.Generator) -> Molecule | None:
    """Return a pair with aromatic rings face to face, or None if a molecule has no such ring."""
    rings = [_aromatic_rings(molecule) for molecule in pair]
    if not all(rings):
        return None
    for _ in range(ATTEMPTS):
        below, above = (_conformer(molecule, rng) for molecule in pair)
        lower, upper = (choices[int(rng.integers(len(choices)))] for choices in rings)
        normal, second_normal = _normal(below[lower]), _normal(above[upper])
        facing = normal if rng.random() < 0.5 else -normal
        turned = (above - above[upper].mean(0)) @ _rotation_between(second_normal, facing, rng).T
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
    """Return whether two molecules do not clash, except for pairs of atoms that are to touch."""
    radii = [vdw_alvarez.vdw_radii[molecule.numbers] for molecule in pair]
    ratios = np.linalg.norm(first[:, None] - second, axis=-1) / (radii[0][:, None] + radii[1])
    return bool((ratios[... if touching is None else ~touching] > MIN_CONTACT).all())


def _matches(molecule: Molecule, smarts: str) -> list[int]:
    chem, _ = import_rdkit()
    # Hydrogen atoms are explicit here; the patterns count them as well.
    matches = molecule.rdkit.GetSubstructMatches(chem.MolFromSmarts(smarts))
    return [match[0] for match in matches]


def _bonded_to(molecule: Molecule, atom: int) -> list[int]:
    return [neighbor.GetIdx() for neighbor in molecule.rdkit.GetAtomWithIdx(atom).GetNeighbors()]


def _aromatic_rings(molecule: Molecule) -> list[list[int]]:
    rings = molecule.rdkit.GetRingInfo().AtomRings()
    is_aromatic = [atom.GetIsAromatic() for atom in molecule.rdkit.GetAtoms()]
    return [list(ring) for ring in rings if all(is_aromatic[k] for k in ring)]


def _normal(ring: Positions) -> Positions:
    """Return the unit normal of the plane that fits some points best."""
    normal: Positions = np.linalg.svd(ring - ring.mean(0))[2][2]
    return normal


def _unit(vector: Positions) -> Positions:
    unit: Positions = vector / max(float(np.linalg.norm(vector)), 1e-9)
    return unit


def _rotation_between(
    start: Positions, end: Positions, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return a rotation that takes a unit vector to another, random about that vector."""
    angle = rng.uniform(0, 2 * np.pi)
    axial_rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    frames = []
    for vector in (start, end):
        side = _unit(np.cross(vector, np.eye(3)[np.abs(vector).argmin()]))
        frames.append(np.stack([side, np.cross(vector, side), vector]))
    frames[1][:2] = axial_rotation @ frames[1][:2]
    rotation: NDArray[np.float64] = frames[1].T @ frames[0]
    return rotation


def in_contact(
    cluster: Molecule, positions: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return positions with one molecule pressed into the others, or pulled away from them.

    The direction is close to the line between its center and the center of the others.
    """
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
