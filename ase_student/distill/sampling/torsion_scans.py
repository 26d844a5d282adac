"""Molecules with one of their bonds turned through a full circle."""

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
from ase_student.dynamics.bonds import is_sane, newly_bound
from ase_student.dynamics.langevin import Positions
from ase_student.dynamics.trajectories import relaxed, trajectories
from ase_student.potentials.base import Potential

#: Single bonds outside of rings between atoms that are bound to others, hydrogen atoms included;
#: not beside a triple bond.
TURNED = "[!$(*#*);!D1;!#1]-;!@[!$(*#*);!D1;!#1]"
#: How often a bond that turns more than hydrogen atoms is taken where there is one.
HEAVY_SHARE = 0.8
#: Force constant that holds the torsion, kcal/mol/rad², by how much it may deviate, degrees, and
#: steps of MMFF94's minimisation.
STIFFNESS, SLACK, MMFF_STEPS = 200.0, 1.0, 100
#: Steps downhill of the driver from MMFF94's geometry, which correct bonds and angles and leave the
#: torsion, then steps of dynamics of 2 fs.
DESCENT_STEPS, DYNAMICS_STEPS = 15, 12
TEMPERATURES = (10.0, 300.0)
#: Scans that are made together.
BATCH = 16


@dataclass(frozen=True)
class TorsionScanSettings(StepSettings):
    """What scans to make.

    Attributes
    ----------
    frames : int
        How many, all scans together.
    angles : int
        Of each scan, equally spaced over the circle from a random one.
    seed : int

    Raises
    ------
    ValueError
        If a value is not allowed.
    """

    frames: int = option(1000, "how many frames", metavar="N", least=1)
    angles: int = option(12, "angles of each scan, equally spaced", metavar="N", least=1)
    seed: int = option(0, "of all that is drawn")


def scan_torsions(
    sets: Sequence[Sequence[Species]], settings: TorsionScanSettings, driver: Potential
) -> SampledFrames:
    """Return scans of torsions of molecules that are drawn from sets.

    Parameters
    ----------
    sets : sequence of sequence of Species
        Each is drawn from as often as the others. Molecules without a bond that can be turned are
        passed over.
    settings : TorsionScanSettings
    driver : Potential
        Moves the atoms after MMFF94 has relaxed them, see
        :func:`ase_student.potentials.registry.load_potential`.

    Raises
    ------
    ValueError
        If next to nothing that is drawn can be used.
    """
    frames = SampledFrames()
    embed = Embedder(settings.seed)
    barren = 0
    with tqdm(total=settings.frames, unit="frame", disable=None) as progress:
        for number in count():
            before = len(frames.structures)
            rng = generator(settings.seed, f"torsions {number}")
            _add_scans(frames, sets, settings, driver, embed, rng)
            del frames.structures[settings.frames :]
            del frames.sources[settings.frames :], frames.molecules[settings.frames :]
            progress.update(len(frames.structures) - before)
            if len(frames.structures) == settings.frames:
                return frames
            barren = barren + 1 if len(frames.structures) == before else 0
            if barren == 5:
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
        one = sets[int(rng.integers(len(sets)))]
        species = one[int(rng.integers(len(one)))]
        try:
            scan = turned(embed(species), settings.angles, rng)
        except UnsuitableError as reason:
            dropped[f"molecule: {reason}"] += 1
            continue
        starts += scan
        names += [species.key] * len(scan)
    if not starts:
        return
    begun = relaxed(starts, driver, DESCENT_STEPS)
    temperatures = rng.uniform(*TEMPERATURES, size=len(begun)).tolist()
    moved = next(trajectories(begun, driver, temperatures, n_steps=DYNAMICS_STEPS, rng=rng))
    for name, start, after in zip(names, starts, moved, strict=True):
        if np.isfinite(after.positions).all() and (
            not is_sane(start, after) or newly_bound(start, after)
        ):
            dropped["bond broken or formed"] += 1
        else:
            frames.add(after, name, TORSION)


def turned(molecule: Molecule, angles: int, rng: np.random.Generator) -> list[Atoms]:
    """Return a molecule with one of its bonds at several angles, the rest relaxed by MMFF94.

    Each angle begins at the geometry of the one before it, so that neighbors of the turned bond
    give way in the same sense; angles at which parts of the molecule cannot pass each other have
    high energies and are kept as long as atoms do not clash.

    Parameters
    ----------
    molecule : Molecule
        One conformer is taken at random.
    angles : int
    rng : numpy.random.Generator

    Raises
    ------
    UnsuitableError
        If it has no bond that can be turned, or MMFF94 lacks parameters.
    """
    chem, all_chem = import_rdkit()
    from rdkit.Chem import rdMolTransforms

    torsions = torsions_of(molecule)
    if not torsions:
        raise UnsuitableError("no bond that can be turned")
    heavy = [one for one in torsions if (molecule.numbers[[one[0], one[3]]] > 1).all()]
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
    """Return four atoms of each bond that can be turned, the heaviest at the ends."""
    chem, _ = import_rdkit()
    torsions = []
    for j, k in molecule.rdkit.GetSubstructMatches(chem.MolFromSmarts(TURNED)):
        ends = []
        for inner, other in ((j, k), (k, j)):
            bound = [a.GetIdx() for a in molecule.rdkit.GetAtomWithIdx(inner).GetNeighbors()]
            outer = [a for a in bound if a != other]
            ends.append(max(outer, key=lambda a: (int(molecule.numbers[a]), -a)))
        torsions.append((ends[0], j, k, ends[1]))
    return torsions


def torsion_of(positions: Positions, torsion: Sequence[int]) -> float:
    """Return the torsion of four atoms, degrees from -180 to 180."""
    return float((Atoms("H4", positions[list(torsion)]).get_dihedral(0, 1, 2, 3) + 180) % 360 - 180)
