"""Sampling from given structures: displaced and strained copies, and dynamics."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from ase_student.data.sources import FOREIGN
from ase_student.data.splits import split_of
from ase_student.distill.molecules import species
from ase_student.distill.sampling import geometry
from ase_student.distill.sampling.builders import InputStructure
from ase_student.distill.sampling.frames import SampledFrames
from ase_student.distill.sampling.settings import DESCENT_STEPS, SamplingSettings, n_trajectories
from ase_student.dynamics import trajectories
from ase_student.potentials.base import Potential


@dataclass(frozen=True)
class FrameGroup:
    """Frames made from a structure that are always in the same part of the split.

    Attributes
    ----------
    origin : InputStructure
    number : int
        Number of the group among those of the structure.
    displacement : float or None, Å
        Standard deviation of the displacements of atoms; None for a trajectory.
    n_frames : int
    """

    origin: InputStructure
    number: int
    displacement: float | None
    n_frames: int = 1

    @property
    def name(self) -> str:
        """Name by which the frames are split."""
        return self.origin.group(self.number)


def groups_of(origins: Sequence[InputStructure], settings: SamplingSettings) -> list[FrameGroup]:
    """Return the groups of frames to make from each structure.

    Every displaced copy is a group of its own, and so is every trajectory.
    """
    groups = []
    for origin in origins:
        displacements = [s for s in settings.displacements for _ in range(settings.displaced)]
        plans: list[tuple[float | None, int]] = [(sigma, 1) for sigma in displacements]
        n = n_trajectories(settings)
        plans += [(None, len(range(i, settings.md, n))) for i in range(min(n, settings.md))]
        groups += [FrameGroup(origin, i, *plan) for i, plan in enumerate(plans)]
    if settings.part is None:
        return groups
    return [group for group in groups if split_of(group.name, settings.split_seed) == settings.part]


def sample_groups(
    groups: Sequence[FrameGroup], settings: SamplingSettings, driver: Potential | None
) -> SampledFrames:
    """Return the frames of some groups.

    Parameters
    ----------
    groups : sequence of FrameGroup
        Groups; their trajectories are moved together.
    settings : SamplingSettings
    driver : Potential or None
        Potential that moves the atoms, see
        :func:`ase_student.potentials.registry.load_potential`; None if there are no trajectories.
    """
    frames = SampledFrames()
    moving = []
    for group in groups:
        rng = _generator(settings, group)
        if group.displacement is None:
            temperature = settings.molecule_temperature(rng)
            moving.append((group, strained(group.origin.atoms, settings.strain, rng), temperature))
        else:
            atoms = strained(group.origin.atoms, settings.strain, rng)
            atoms.positions = geometry.displaced(atoms.positions, group.displacement, rng)
            frames.add(atoms, group.name, FOREIGN if settings.foreign else "displaced")
    if moving and driver is not None:
        minima = trajectories.relaxed([atoms for _, atoms, _ in moving], driver, DESCENT_STEPS)
        temperatures = [temperature for *_, temperature in moving]
        rng = _generator(settings, *(group for group, *_ in moving))
        steps = settings.molecule_steps
        rounds = trajectories.trajectories(minima, driver, temperatures, n_steps=steps, rng=rng)
        n_rounds = max(group.n_frames for group, *_ in moving)
        for k, moved in enumerate(itertools.islice(rounds, n_rounds)):
            for (group, *_), atoms in zip(moving, moved, strict=True):
                if k < group.n_frames:
                    frames.add(atoms, group.name, FOREIGN if settings.foreign else "md")
    return frames


def strained(atoms: Atoms, strain: float, rng: np.random.Generator) -> Atoms:
    """Return a copy whose periodic axes are strained at random, together with the atoms.

    Parameters
    ----------
    atoms : Atoms
    strain : float
        Largest component of the strain; along axes that are not periodic there is none.
    rng : numpy.random.Generator
    """
    copy = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    if not (atoms.pbc.any() and strain > 0):
        return copy
    components = rng.uniform(-strain, strain, size=(3, 3))
    deformation = np.eye(3) + 0.5 * (components + components.T)
    # Only the span of the periodic axes is deformed, so that a slab keeps its thickness.
    axes = np.linalg.qr(atoms.cell.array[atoms.pbc].T)[0]
    within = axes @ axes.T
    deformation = np.eye(3) + within @ (deformation - np.eye(3)) @ within
    copy.set_cell(atoms.cell.array @ deformation, scale_atoms=False)
    copy.positions = atoms.positions @ deformation
    return copy


def _generator(settings: SamplingSettings, *groups: FrameGroup) -> np.random.Generator:
    keys = (f"{group.origin.digest}/{group.origin.name}/{group.number}" for group in groups)
    return species.generator(settings.seed, "\n".join(keys))
