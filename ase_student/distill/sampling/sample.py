"""Sampling of all chosen molecules and structures, and the joined result."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ase_student.data.structures import Structures
from ase_student.distill.molecules.species import Species
from ase_student.distill.sampling import parallel
from ase_student.distill.sampling.continuation import Continuation
from ase_student.distill.sampling.frames import SampledFrames
from ase_student.distill.sampling.rattle import FrameGroup
from ase_student.distill.sampling.settings import MoleculeTask, SamplingSettings


def make_structures(
    jobs: Sequence[MoleculeTask],
    settings: SamplingSettings,
    partners: Sequence[Species] = (),
    *,
    groups: Sequence[FrameGroup] = (),
    skipped: Mapping[str, int] | None = None,
    processes: int = 1,
    folder: Path | None = None,
    given: SampledFrames | None = None,
    continuations: Sequence[Continuation] = (),
) -> tuple[Structures, dict[str, Any]]:
    """Sample all molecules; return their frames in random order, and a report with counts.

    The result does not depend on the number of processes.

    Parameters
    ----------
    jobs : sequence of MoleculeTask
    settings : SamplingSettings
    partners : sequence of Species
        Molecules that may be combined with the sampled molecules in a cluster.
    groups : sequence of FrameGroup
        Groups of frames to make from given structures.
    skipped : mapping of str to int, optional
        Counts of molecules that were skipped during selection, for the report.
    processes : int
    folder : path, optional
        Folder in which finished pieces are kept.
    given : SampledFrames, optional
        Existing frames, which are joined with the sampled frames.
    continuations : sequence of Continuation
        Frames from which dynamics continue.

    Raises
    ------
    ValueError
        If no structure is left.
    """
    pieces = parallel.in_pieces(jobs, groups, settings, continuations=continuations)
    sampler = parallel.Sampler(settings, tuple(partners))
    frames = parallel.sample(sampler, pieces, processes, folder=folder)
    if given is not None:
        frames.extend(given)
    frames = frames.without_duplicates()
    if not frames.structures:
        if folder is not None and folder.exists():
            shutil.rmtree(folder)
        left_out = Counter(skipped or {}) + frames.dropped
        raise ValueError(f"no structure could be sampled; left out: {in_words(left_out)}.")
    order = np.random.default_rng(settings.seed).permutation(len(frames.structures))
    structures = Structures.from_atoms(frames.structures, frames.sources, frames.molecules)
    report = {
        "n_molecules": len(jobs),
        "skipped_molecules": dict(skipped or {}),
        "dropped": dict(frames.dropped),
        "sources": dict(Counter(frames.sources)),
    }
    return structures.take(order), report


def in_words(counts: Mapping[str, int]) -> str:
    """Return counts as a list such as '3 clash, 1 not finite'."""
    return ", ".join(f"{n} {reason}" for reason, n in counts.items()) or "nothing"
