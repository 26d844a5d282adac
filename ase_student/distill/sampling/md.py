"""Sampling of many molecules at once, and of clusters with them, by a student or a teacher."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ase_student.distill.molecules import species
from ase_student.distill.molecules.species import Molecule, Species, UnsuitableError
from ase_student.distill.sampling import clusters, geometry
from ase_student.distill.sampling.clusters import in_contact
from ase_student.distill.sampling.frames import SampledFrames
from ase_student.distill.sampling.settings import (
    CLUSTER_MINIMISATION_STEPS,
    DESCENT_STEPS,
    STRONG_DISPLACEMENTS,
    MoleculeTask,
    SamplingSettings,
    n_trajectories,
)
from ase_student.dynamics import bonds, trajectories
from ase_student.dynamics.langevin import Positions
from ase_student.potentials.base import Potential


@dataclass(frozen=True)
class Start:
    """Start of a trajectory, and the names of its frames.

    Attributes
    ----------
    molecule : Molecule
    positions : (n_atoms, 3) float64, Å
    temperature : float, K
    sources : tuple of str
        Source of each frame.
    n_displaced : int
        Number of displaced copies of the relaxed geometry.
    """

    molecule: Molecule
    positions: Positions
    temperature: float
    sources: tuple[str, ...]
    n_displaced: int = 0


def sample_jobs(
    jobs: Sequence[MoleculeTask],
    settings: SamplingSettings,
    partners: Sequence[Species],
    *,
    driver: Potential,
) -> SampledFrames:
    """Return frames of some molecules and of clusters with each of them.

    Parameters
    ----------
    jobs : sequence of MoleculeTask
        Molecules, which are moved together.
    settings : SamplingSettings
    partners : sequence of Species
        Molecules that may be combined with them in a cluster.
    driver : Potential
        Potential that moves the atoms, see
        :func:`ase_student.potentials.registry.load_potential`.
    """
    frames = SampledFrames()
    alone: list[Start] = []
    together: list[Start] = []
    for job in jobs:
        rng = species.generator(settings.seed, job.species.key)
        with frames.counting_failures("molecule"):
            seed = int(rng.integers(2**31 - 1))
            molecule = species.embed(job.species, n_trajectories(settings), seed, mmff=False)
            alone += _molecule_starts(molecule, settings, job.n_times, rng)
            for _ in range(job.n_times if settings.cluster + settings.contact else 0):
                with frames.counting_failures("cluster"):
                    together.append(_cluster_start(molecule, settings, partners, rng))
    keys = "\n".join(job.species.key for job in jobs)
    rng = species.generator(settings.seed, f"dynamics of {keys}")
    _move(frames, alone, driver, settings.molecule_steps, rng, confined=False)
    _move(frames, together, driver, settings.cluster_steps, rng, confined=True)
    return frames


def _molecule_starts(
    molecule: Molecule, settings: SamplingSettings, n_times: int, rng: np.random.Generator
) -> list[Start]:
    """Return the starts of the trajectories among which the frames of a molecule are divided."""
    n = n_trajectories(settings) * n_times
    starts = []
    for i in range(n):
        n_frames, n_displaced = (
            len(range(i, total * n_times, n)) for total in (settings.md, settings.displaced)
        )
        if n_frames or n_displaced:
            positions = molecule.conformers[i % len(molecule.conformers)]
            temperature = settings.molecule_temperature(rng)
            starts.append(Start(molecule, positions, temperature, ("md",) * n_frames, n_displaced))
    return starts


def _cluster_start(
    molecule: Molecule,
    settings: SamplingSettings,
    partners: Sequence[Species],
    rng: np.random.Generator,
) -> Start:
    cluster = clusters.build(molecule, partners, settings.max_cluster_atoms, rng=rng, mmff=False)
    try:
        positions = species.relaxed(cluster, CLUSTER_MINIMISATION_STEPS)
    except UnsuitableError:
        positions = cluster.conformers[0]
    sources = ("cluster",) * settings.cluster + ("contact",) * settings.contact
    return Start(cluster, positions, settings.cluster_temperature(rng), sources)


def _move(
    frames: SampledFrames,
    starts: list[Start],
    driver: Potential,
    n_steps: int,
    rng: np.random.Generator,
    confined: bool,
) -> None:
    """Run all trajectories and add their frames."""
    minima = [start.molecule.atoms(start.positions) for start in starts]
    minima = trajectories.relaxed(minima, driver, DESCENT_STEPS)
    for start, atoms in zip(starts, minima, strict=True):
        for _ in range(start.n_displaced):
            sigma = rng.uniform(*STRONG_DISPLACEMENTS)
            _add(frames, start, geometry.displaced(atoms.positions, sigma, rng), "displaced")
    n_rounds = max((len(start.sources) for start in starts), default=0)
    temperatures = [start.temperature for start in starts]
    rounds = trajectories.trajectories(
        minima, driver, temperatures, n_steps=n_steps, rng=rng, confined=confined
    )
    for k, moved in enumerate(itertools.islice(rounds, n_rounds)):
        for start, atoms in zip(starts, moved, strict=True):
            if k < len(start.sources):
                positions, source = atoms.positions, start.sources[k]
                if source == "contact" and np.isfinite(positions).all():
                    positions = in_contact(start.molecule, positions, rng)
                _add(frames, start, positions, source)


def _add(frames: SampledFrames, start: Start, positions: Positions, source: str) -> None:
    molecule = start.molecule
    if np.isfinite(positions).all():
        fragment_rows = (molecule.fragments == k for k in range(molecule.fragments.max() + 1))
        if any(
            bonds.came_apart(molecule.numbers[rows], start.positions[rows], positions[rows])
            for rows in fragment_rows
        ):
            frames.dropped[f"came apart ({source})"] += 1
            return
    frames.add(molecule.atoms(positions), molecule.name, source)
