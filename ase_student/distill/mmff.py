"""Sample one molecule after the other with MMFF94, and clusters with it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ase_student.distill import clusters, molecules, sampling
from ase_student.distill.frames import Frames
from ase_student.distill.molecules import Molecule, Species
from ase_student.distill.plan import STRONG_DISPLACEMENTS, Settings, n_trajectories
from ase_student.dynamics import langevin

CLUSTER_MINIMISATION_STEPS = 50
#: MMFF94's minima are not the teacher's: a small displacement on top of the dynamics covers both.
MD_DISPLACEMENTS = (0.0, 0.03)
#: Closest approach of two molecules, as a fraction of their van der Waals radii.
SQUEEZED_CONTACTS = (0.5, 0.8)
STRETCHED_CONTACTS = (0.95, 2.0)


def sample_molecule(
    species: Species, settings: Settings, partners: Sequence[Species], n_times: int = 1
) -> Frames:
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
    rng = molecules.generator(settings.seed, species.key)
    frames = Frames()
    with frames.counting_failures("molecule"):
        n = n_trajectories(settings)
        molecule = molecules.embed(species, n, int(rng.integers(2**31 - 1)))
        _sample_dynamics(frames, molecule, settings, n_times, rng)
        for i in range(settings.displaced * n_times):
            conformer = molecule.conformers[i % len(molecule.conformers)]
            positions = sampling.displaced(conformer, rng.uniform(*STRONG_DISPLACEMENTS), rng)
            frames.add(molecule.atoms(positions), molecule.name, "displaced")
        for _ in range(n_times if settings.cluster + settings.contact else 0):
            with frames.counting_failures("cluster"):
                cluster = clusters.build(molecule, partners, settings.max_cluster_atoms, rng)
                _sample_cluster(frames, cluster, settings, rng)
    return frames


def _sample_dynamics(
    frames: Frames,
    molecule: Molecule,
    settings: Settings,
    n_times: int,
    rng: np.random.Generator,
) -> None:
    forces = molecules.mmff_forces(molecule)
    latest = list(molecule.conformers)
    for i in range(settings.md * n_times):
        # Each frame has its own temperature, and goes on from an earlier frame of its conformer.
        k = i % len(latest)
        temperature = settings.molecule_temperature(rng)
        steps = langevin.langevin(molecule.numbers, latest[k], forces, temperature, rng)
        positions = langevin.after(steps, settings.molecule_steps)
        shaken = sampling.displaced(positions, rng.uniform(*MD_DISPLACEMENTS), rng)
        frames.add(molecule.atoms(shaken), molecule.name, "md")
        if np.isfinite(positions).all():
            latest[k] = positions


def _sample_cluster(
    frames: Frames, cluster: Molecule, settings: Settings, rng: np.random.Generator
) -> None:
    start = molecules.relaxed(cluster, CLUSTER_MINIMISATION_STEPS)
    forces = langevin.confined(molecules.mmff_forces(cluster), start)
    temperature = settings.cluster_temperature(rng)
    steps = langevin.langevin(cluster.numbers, start, forces, temperature, rng)
    sources = ["cluster"] * settings.cluster + ["contact"] * settings.contact
    for source in sources:
        positions = langevin.after(steps, settings.cluster_steps)
        if source == "contact":
            positions = in_contact(cluster, positions, rng)
        shaken = sampling.displaced(positions, rng.uniform(*MD_DISPLACEMENTS), rng)
        frames.add(cluster.atoms(shaken), cluster.name, source)


def in_contact(
    cluster: Molecule, positions: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Press one molecule into the others, or pull it away, along a line near its own."""
    moving = cluster.fragments == rng.integers(cluster.fragments.max() + 1)
    outwards = positions[moving].mean(0) - positions[~moving].mean(0)
    direction = outwards / np.linalg.norm(outwards) + 0.3 * rng.normal(size=3)
    contacts = SQUEEZED_CONTACTS if rng.random() < 0.4 else STRETCHED_CONTACTS
    return sampling.shift_to_contact(
        cluster.numbers,
        positions,
        moving,
        direction / np.linalg.norm(direction),
        rng.uniform(*contacts),
    )
