"""Sample one molecule after the other with MMFF94, and clusters with it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ase_student.distill.molecules.species import (
    Molecule,
    Species,
    embed,
    generator,
    mmff_forces,
    relaxed,
)
from ase_student.distill.sampling import clusters, geometry
from ase_student.distill.sampling.clusters import in_contact
from ase_student.distill.sampling.frames import SampledFrames
from ase_student.distill.sampling.settings import (
    CLUSTER_MINIMISATION_STEPS,
    STRONG_DISPLACEMENTS,
    SamplingSettings,
    n_trajectories,
)
from ase_student.dynamics import langevin

#: MMFF94's minima are not the teacher's: a small displacement on top of the dynamics covers both.
MD_DISPLACEMENTS = (0.0, 0.03)


def sample_molecule(
    species: Species, settings: SamplingSettings, partners: Sequence[Species], *, n_times: int = 1
) -> SampledFrames:
    """Return frames of one molecule and of clusters with it.

    What comes out depends on the arguments alone, not on which other molecules are sampled before
    or beside it.

    Parameters
    ----------
    species : Species
    settings : Settings
    partners : sequence of Species
        What it may meet in a cluster.
    n_times : int
        How many times the number of frames in `settings`.
    """
    rng = generator(settings.seed, species.key)
    frames = SampledFrames()
    with frames.counting_failures("molecule"):
        n = n_trajectories(settings)
        molecule = embed(species, n, int(rng.integers(2**31 - 1)))
        _sample_dynamics(frames, molecule, settings, n_times, rng)
        for i in range(settings.displaced * n_times):
            conformer = molecule.conformers[i % len(molecule.conformers)]
            positions = geometry.displaced(conformer, rng.uniform(*STRONG_DISPLACEMENTS), rng)
            frames.add(molecule.atoms(positions), molecule.name, "displaced")
        for _ in range(n_times if settings.cluster + settings.contact else 0):
            with frames.counting_failures("cluster"):
                cluster = clusters.build(molecule, partners, settings.max_cluster_atoms, rng=rng)
                _sample_cluster(frames, cluster, settings, rng)
    return frames


def _sample_dynamics(
    frames: SampledFrames,
    molecule: Molecule,
    settings: SamplingSettings,
    n_times: int,
    rng: np.random.Generator,
) -> None:
    forces = mmff_forces(molecule)
    latest = list(molecule.conformers)
    for i in range(settings.md * n_times):
        # Each frame has its own temperature, and goes on from an earlier frame of its conformer.
        k = i % len(latest)
        temperature = settings.molecule_temperature(rng)
        steps = langevin.langevin(molecule.numbers, latest[k], forces, temperature, rng)
        positions = langevin.after(steps, settings.molecule_steps)
        shaken = geometry.displaced(positions, rng.uniform(*MD_DISPLACEMENTS), rng)
        frames.add(molecule.atoms(shaken), molecule.name, "md")
        if np.isfinite(positions).all():
            latest[k] = positions


def _sample_cluster(
    frames: SampledFrames, cluster: Molecule, settings: SamplingSettings, rng: np.random.Generator
) -> None:
    start = relaxed(cluster, CLUSTER_MINIMISATION_STEPS)
    forces = langevin.confined(mmff_forces(cluster), start)
    temperature = settings.cluster_temperature(rng)
    steps = langevin.langevin(cluster.numbers, start, forces, temperature, rng)
    sources = ["cluster"] * settings.cluster + ["contact"] * settings.contact
    for source in sources:
        positions = langevin.after(steps, settings.cluster_steps)
        if source == "contact":
            positions = in_contact(cluster, positions, rng)
        shaken = geometry.displaced(positions, rng.uniform(*MD_DISPLACEMENTS), rng)
        frames.add(cluster.atoms(shaken), cluster.name, source)
