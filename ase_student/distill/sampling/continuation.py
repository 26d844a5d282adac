"""Sample on from the frames of earlier files: where one dynamics stopped, another takes over.

Frames of a student's dynamics, moved on by the teacher for some tens of femtoseconds, are where the
teacher's own dynamics is in all stiff coordinates, at a small part of its cost.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms

from ase_student.data.hdf5 import Dataset
from ase_student.data.splits import split_of
from ase_student.distill.molecules import species as molecules
from ase_student.distill.sampling.frames import SampledFrames
from ase_student.distill.sampling.settings import SamplingSettings
from ase_student.dynamics import trajectories
from ase_student.dynamics.bonds import is_cluster, is_sane
from ase_student.potentials.base import Potential


@dataclass(frozen=True)
class Continuation:
    """A frame to move on from.

    Attributes
    ----------
    atoms : Atoms
    molecules : str
        What it is made of.
    source : str
        How it was sampled, and what the new frame is called.
    digest : str
        Of elements, positions and cell.
    """

    atoms: Atoms
    molecules: str
    source: str
    digest: str


def read_continuations(
    paths: Sequence[Path], settings: SamplingSettings, n_frames: int | None = None
) -> list[Continuation]:
    """Return frames of files that the step 'structures' wrote, chosen by the seed.

    Parameters
    ----------
    paths : sequence of path
    settings : Settings
        Of these the part, the split's seed and the seed count.
    n_frames : int, optional
        How many; all by default.

    Raises
    ------
    ValueError
        If a file does not name its molecules and sources.
    """
    found = []
    for path in paths:
        with Dataset(path) as dataset:
            structures = dataset.read_structures()
        if structures.molecules is None or structures.sources is None:
            raise ValueError(f"{path}: does not say what its structures are made of, and how.")
        for index in range(len(structures)):
            names = structures.molecules[index]
            if settings.part in (None, split_of(names, settings.split_seed)):
                atoms = structures.atoms(index)
                arrays = (atoms.numbers, atoms.positions, atoms.cell.array)
                digest = hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()
                found.append(Continuation(atoms, names, structures.sources[index], digest))
    order = np.random.default_rng(settings.seed).permutation(len(found))
    return [found[index] for index in order[:n_frames]]


def sample_continuations(
    starts: Sequence[Continuation], settings: SamplingSettings, driver: Potential
) -> SampledFrames:
    """Return where some frames get to.

    Parameters
    ----------
    starts : sequence of Continuation
        Are moved together.
    settings : Settings
    driver : Potential
        What moves them, see `potentials.registry.load_potential`.
    """
    frames = SampledFrames()
    for confined in (False, True):
        chosen = [one for one in starts if is_cluster(one.molecules, one.atoms) == confined]
        if not chosen:
            continue
        rng = molecules.generator(settings.seed, "\n".join(start.digest for start in chosen))
        draw = settings.cluster_temperature if confined else settings.molecule_temperature
        rounds = trajectories.trajectories(
            [start.atoms for start in chosen],
            driver,
            [draw(rng) for _ in chosen],
            n_steps=settings.cluster_steps if confined else settings.molecule_steps,
            rng=rng,
            confined=confined,
        )
        for start, moved in zip(chosen, next(rounds), strict=True):
            if np.isfinite(moved.positions).all() and not is_sane(start.atoms, moved):
                frames.dropped[f"clash, or came apart ({start.source})"] += 1
            else:
                frames.add(moved, start.molecules, start.source)
    return frames
