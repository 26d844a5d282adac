"""Torsion scans: molecules with one of their bonds rotated through a full circle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
from ase import Atoms
from tqdm import tqdm

from ase_student.data.sources import TORSION
from ase_student.distill.molecules.species import (
    Molecule,
    Species,
    UnsuitableError,
    generator,
    import_rdkit,
)
from ase_student.distill.sampling.frames import SampledFrames
from ase_student.distill.sampling.scan_molecules import Embedder
from ase_student.distill.settings import StepSettings, option
from ase_student.dynamics.bonds import is_physical, newly_bound
from ase_student.dynamics.langevin import Positions
from ase_student.dynamics.trajectories import relaxed, trajectories
from ase_student.potentials.base import Potential

#: Bonds that can be rotated: single bonds outside of rings, between atoms with further neighbors
#: (hydrogen atoms count), and not next to a triple bond.
ROTATABLE = "[!$(*#*);!D1;!#1]-;!@[!$(*#*);!D1;!#1]"
#: Probability of choosing only among bonds that rotate more than hydrogen atoms, if there are any.
HEAVY_SHARE = 0.8
#: Force constant that restrains the torsion, kcal/mol/rad², its free deviation, degrees, and steps
#: of MMFF94's minimization.
STIFFNESS, SLACK, MMFF_STEPS = 200.0, 1.0, 100
#: Steps downhill of the driver from MMFF94's geometry, which correct bonds and angles but not the
#: torsion, then steps of dynamics of 2 fs.
DESCENT_STEPS, DYNAMICS_STEPS = 15, 12
TEMPERATURES = (10.0, 300.0)
#: Number of scans that are made together.
BATCH = 16


@dataclass(frozen=True)
class TorsionScanSettings(StepSettings):
    """Settings of the scans.

    Attributes
    ----------
    frames : int
        Number of frames of all scans together.
    angles : int
        Number of angles of each scan, equally spaced over the circle from a random angle on.
    seed : int

    Raises
    ------
    ValueError
        If a value is not allowed.
    """

    frames: int = option(1000, "how many frames", metavar="N", least=1)
    angles: int = option(12, "angles of each scan, equally spaced", metavar="N", least=1)
    seed: int = option(0, "of all random choices", least=0)


def scan_torsions(
    sets: Sequence[Sequence[Species]], settings: TorsionScanSettings, driver: Potential
) -> SampledFrames:
    """Return scans of torsions of molecules that are drawn from sets.

    Parameters
    ----------
    sets : sequence of sequence of Species
        Molecules are drawn from all sets equally often. Molecules without a bond that can be
        rotated are skipped.
    settings : TorsionScanSettings
    driver : Potential
        Moves the atoms after MMFF94 has relaxed them, see
        :func:`ase_student.potentials.registry.load_potential`.

    Raises
    ------
    ValueError
        If almost no molecule that is drawn can be used.
    """
    frames = SampledFrames()
    embed = Embedder(settings.seed)
    n_empty_batches = 0
    with tqdm(total=settings.frames, unit="frame", disable=None) as progress:
        for number in count():
            n_before = len(frames.structures)
            rng = generator(settings.seed, f"torsions {number}")
            _add_scans(frames, sets, settings, driver, embed, rng)
            del frames.structures[settings.frames :]
            del frames.sources[settings.frames :], frames.molecules[settings.frames :]
            progress.update(len(frames.structures) - n_before)
            if len(frames.structures) == settings.frames:
                return frames
            n_empty_batches = n_empty_batches + 1 if len(frames.structures) == n_before else 0
            if n_empty_batches == 5:
                reasons = ", ".join(f"{n} {reason}" for reason, n in frames.dropped.most_common(3))
                raise ValueError(
                    f"no torsion of {5 * BATCH} molecules that were drawn can be used: {reasons}."
                )
    raise AssertionError


def _add_scans(
    frames: SampledFrames,
    sets: Sequence[Sequence[Species]],
    settings: TorsionScanSettings,
    driver: Potential,
    embed: Embedder,
    rng: np.random.Generator,
) -> None:
    """Add the scans of one batch."""
    names: list[str] = []
    starts: list[Atoms] = []
    dropped: Counter[str] = frames.dropped
    for _ in range(BATCH):
        molecules = sets[int(rng.integers(len(sets)))]
        species = molecules[int(rng.integers(len(molecules)))]
        try:
            scan = turned(embed(species), settings.angles, rng)
        except UnsuitableError as reason:
            dropped[f"molecule: {reason}"] += 1
            continue
        starts += scan
        names += [species.key] * len(scan)
    if not starts:
        return
    minima = relaxed(starts, driver, DESCENT_STEPS)
    temperatures = rng.uniform(*TEMPERATURES, size=len(minima)).tolist()
    moved = next(trajectories(minima, driver, temperatures, n_steps=DYNAMICS_STEPS, rng=rng))
    for name, start, atoms in zip(names, starts, moved, strict=True):
        if np.isfinite(atoms.positions).all() and (
            not is_physical(start, atoms) or newly_bound(start, atoms)
        ):
            dropped["bond broken or formed"] += 1
        else:
            frames.add(atoms, name, TORSION)


def turned(molecule: Molecule, angles: int, rng: np.random.Generator) -> list[Atoms]:
    """Return a molecule with one of its bonds at several angles, relaxed by MMFF94 otherwise.

    Each angle starts from the geometry of the previous angle, so that neighbors of the rotated bond
    move in the same sense. Angles at which parts of the molecule cannot pass each other have high
    energies; they are kept as long as atoms do not clash.

    Parameters
    ----------
    molecule : Molecule
        One conformer is taken at random.
    angles : int
    rng : numpy.random.Generator

    Raises
    ------
    UnsuitableError
        If it has no bond that can be rotated, or MMFF94 lacks parameters.
    """
    chem, all_chem = import_rdkit()
    from rdkit.Chem import rdMolTransforms

    torsions = torsions_of(molecule)
    if not torsions:
        raise UnsuitableError("no bond that can be turned")
    heavy = [atoms for atoms in torsions if (molecule.numbers[[atoms[0], atoms[3]]] > 1).all()]
    choices = heavy if heavy and rng.random() < HEAVY_SHARE else torsions
    torsion = choices[int(rng.integers(len(choices)))]
    parameters = all_chem.MMFFGetMoleculeProperties(molecule.rdkit)
    if parameters is None:
        raise UnsuitableError("no MMFF94 parameters")
    working = chem.Mol(molecule.rdkit)
    positions = molecule.conformers[int(rng.integers(len(molecule.conformers)))]
    offset = rng.uniform(0.0, 360.0)
    scan = []
    for k in range(angles):
        working.RemoveAllConformers()
        conformer = chem.Conformer(len(positions))
        conformer.SetPositions(np.ascontiguousarray(positions))
        working.AddConformer(conformer)
        angle = (offset + 360.0 * k / angles) % 360.0 - 180.0
        rdMolTransforms.SetDihedralDeg(working.GetConformer(), *torsion, angle)
        field = all_chem.MMFFGetMoleculeForceField(working, parameters)
        field.Initialize()
        field.MMFFAddTorsionConstraint(*torsion, False, angle - SLACK, angle + SLACK, STIFFNESS)
        field.Minimize(maxIts=MMFF_STEPS)
        positions = np.array(field.Positions(), dtype=np.float64).reshape(-1, 3)
        scan.append(molecule.atoms(positions))
    return scan


def torsions_of(molecule: Molecule) -> list[tuple[int, int, int, int]]:
    """Return the four atoms of a torsion for each bond that can be rotated.

    The outer atoms are the heaviest neighbors.
    """
    chem, _ = import_rdkit()
    torsions = []
    for j, k in molecule.rdkit.GetSubstructMatches(chem.MolFromSmarts(ROTATABLE)):
        outer_atoms = []
        for inner, partner in ((j, k), (k, j)):
            bound = [a.GetIdx() for a in molecule.rdkit.GetAtomWithIdx(inner).GetNeighbors()]
            candidates = [a for a in bound if a != partner]
            outer_atoms.append(max(candidates, key=lambda a: (int(molecule.numbers[a]), -a)))
        torsions.append((outer_atoms[0], j, k, outer_atoms[1]))
    return torsions


def torsion_of(positions: Positions, torsion: Sequence[int]) -> float:
    """Return the torsion of four atoms, degrees from -180 to 180."""
    return float((Atoms("H4", positions[list(torsion)]).get_dihedral(0, 1, 2, 3) + 180) % 360 - 180)
