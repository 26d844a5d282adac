"""Sampling of molecules with MMFF94, one after another, and of clusters with them."""

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

#: MMFF94 and the teacher have different minima: a small displacement covers both.
MD_DISPLACEMENTS = (0.0, 0.03)


def sample_molecule(
    species: Species, settings: SamplingSettings, partners: Sequence[Species], *, n_times: int = 1
) -> SampledFrames:
    """Return frames of one molecule and of clusters with it.

    The result depends only on the arguments, not on other molecules that are sampled before or at
    the same time.

    Parameters
    ----------
    species : Species
    settings : SamplingSettings
    partners : sequence of Species
        Molecules that may be combined with it in a cluster.
    n_times : int
        Factor of the numbers of frames in `settings`.
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
        # Each frame has its own temperature and starts from the previous frame of its conformer.
        k = i % len(latest)
        temperature = settings.molecule_temperature(rng)
        steps = langevin.langevin(molecule.numbers, latest[k], forces, temperature, rng)
        positions = langevin.positions_after(steps, settings.molecule_steps)
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
        positions = langevin.positions_after(steps, settings.cluster_steps)
        if source == "contact":
            positions = in_contact(cluster, positions, rng)
        shaken = geometry.displaced(positions, rng.uniform(*MD_DISPLACEMENTS), rng)
        frames.add(cluster.atoms(shaken), cluster.name, source)
