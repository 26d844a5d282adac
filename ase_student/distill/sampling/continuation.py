"""Dynamics that continue from frames of earlier files, with another potential.

If the teacher moves frames of a student's dynamics for some tens of femtoseconds, all stiff
coordinates become those of the teacher's own dynamics, at a small part of the cost of these.
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
from ase_student.dynamics.bonds import is_cluster, is_physical
from ase_student.potentials.base import Potential


@dataclass(frozen=True)
class Continuation:
    """A frame from which dynamics continue.

    Attributes
    ----------
    atoms : Atoms
    molecules : str
        SMILES of its molecules, joined by dots.
    source : str
        How it was sampled; the new frame gets the same source.
    digest : str
        Hash of elements, positions and cell.
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
    settings : SamplingSettings
        Only the part, the seed of the split and the seed are used.
    n_frames : int, optional
        Number of frames; all by default.

    Raises
    ------
    ValueError
        If a file does not name its molecules and sources.
    """
    continuations = []
    for path in paths:
        with Dataset(path) as dataset:
            structures = dataset.read_structures()
        if structures.molecules is None or structures.sources is None:
            raise ValueError(
                f"{path}: does not name molecules and sources of its structures; give a file of "
                "the step 'structures'."
            )
        for index in range(len(structures)):
            names = structures.molecules[index]
            if settings.part in (None, split_of(names, settings.split_seed)):
                atoms = structures.atoms(index)
                arrays = (atoms.numbers, atoms.positions, atoms.cell.array)
                digest = hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()
                continuations.append(Continuation(atoms, names, structures.sources[index], digest))
    order = np.random.default_rng(settings.seed).permutation(len(continuations))
    return [continuations[index] for index in order[:n_frames]]


def sample_continuations(
    starts: Sequence[Continuation], settings: SamplingSettings, driver: Potential
) -> SampledFrames:
    """Return the frames after dynamics that continue from given frames.

    Parameters
    ----------
    starts : sequence of Continuation
        Frames, which are moved together.
    settings : SamplingSettings
    driver : Potential
        Potential that moves the atoms, see
        :func:`ase_student.potentials.registry.load_potential`.
    """
    frames = SampledFrames()
    for confined in (False, True):
        chosen = [start for start in starts if is_cluster(start.molecules, start.atoms) == confined]
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
            if np.isfinite(moved.positions).all() and not is_physical(start.atoms, moved):
                frames.dropped[f"clash, or came apart ({start.source})"] += 1
            else:
                frames.add(moved, start.molecules, start.source)
    return frames
