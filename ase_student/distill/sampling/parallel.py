"""Sampling in pieces: in several processes, each finished piece kept on disk."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ase_student import provenance
from ase_student.distill.molecules.species import Species
from ase_student.distill.sampling import md, mmff
from ase_student.distill.sampling.continuation import Continuation, sample_continuations
from ase_student.distill.sampling.frames import SampledFrames
from ase_student.distill.sampling.rattle import FrameGroup, sample_groups
from ase_student.distill.sampling.settings import MMFF94, MoleculeTask, SamplingSettings
from ase_student.jobs.executors import completed, local_processes, this_process
from ase_student.jobs.store import ChunkStore, numbered
from ase_student.potentials import registry
from ase_student.potentials.base import Potential

#: Molecules in a piece. What was not finished when a run ends is at most one piece per process.
MMFF_PIECE = 16
#: What is moved together; more gains nothing and takes longer to repeat.
DRIVEN_PIECE = 32
#: What decides how pieces come out besides the settings; increased when their making changes.
FORMAT = 1


@dataclass(frozen=True)
class SamplingChunk:
    """What is sampled together, in one process."""

    jobs: tuple[MoleculeTask, ...] = ()
    groups: tuple[FrameGroup, ...] = ()
    continuations: tuple[Continuation, ...] = ()


@dataclass(frozen=True)
class Sampler:
    """What turns a piece into frames.

    Attributes
    ----------
    settings : Settings
    partners : tuple of Species
        What a molecule may meet in a cluster.
    """

    settings: SamplingSettings
    partners: tuple[Species, ...] = ()

    def __call__(self, piece: SamplingChunk) -> SampledFrames:
        """Return the frames of a piece, which depend on nothing but the piece and the sampler."""
        if self.settings.dynamics == MMFF94:
            frames = sample_groups(piece.groups, self.settings, None)
            for one in piece.jobs:
                frames.extend(
                    mmff.sample_molecule(
                        one.species, self.settings, self.partners, n_times=one.n_times
                    )
                )
            return frames
        driver = _driver(self.settings.dynamics)
        with _one_thread():
            frames = sample_groups(piece.groups, self.settings, driver)
            frames.extend(sample_continuations(piece.continuations, self.settings, driver))
            frames.extend(md.sample_jobs(piece.jobs, self.settings, self.partners, driver=driver))
        return frames


def in_pieces(
    jobs: Sequence[MoleculeTask],
    groups: Sequence[FrameGroup],
    settings: SamplingSettings,
    *,
    continuations: Sequence[Continuation] = (),
) -> list[SamplingChunk]:
    """Return all that is to be sampled in pieces of equal size."""
    size = MMFF_PIECE if settings.dynamics == MMFF94 else DRIVEN_PIECE
    pieces = [SamplingChunk(jobs=tuple(jobs[i : i + size])) for i in range(0, len(jobs), size)]
    # Trajectories are the work; displaced copies come with them.
    ordered = sorted(groups, key=lambda group: group.displacement is not None)
    for i in range(0, len(ordered), DRIVEN_PIECE):
        pieces.append(SamplingChunk(groups=tuple(ordered[i : i + DRIVEN_PIECE])))
    for i in range(0, len(continuations), DRIVEN_PIECE):
        pieces.append(SamplingChunk(continuations=tuple(continuations[i : i + DRIVEN_PIECE])))
    return pieces


def job_of(sampler: Sampler, pieces: Sequence[SamplingChunk]) -> dict[str, Any]:
    """Return what decides the frames of all pieces."""
    versions = provenance.metadata("", "rdkit")["versions"]
    name = sampler.settings.dynamics
    return {
        **asdict(sampler.settings),
        **({} if name == MMFF94 else {"driver": registry.identity(name)}),
        "molecules": hashlib.sha256(repr((pieces, sampler.partners)).encode()).hexdigest(),
        "versions": {name: versions.get(name) for name in ("ase-student", "numpy", "rdkit")},
        "format": FORMAT,
    }


def sample(
    sampler: Sampler,
    pieces: Sequence[SamplingChunk],
    processes: int = 1,
    *,
    folder: Path | None = None,
) -> SampledFrames:
    """Return the frames of all pieces, in their order, whatever the number of processes.

    Parameters
    ----------
    sampler : Sampler
    pieces : sequence of Piece
    processes : int
    folder : path, optional
        Where finished pieces are kept; those found there are not done again.

    Raises
    ------
    ValueError
        If what is in the folder was sampled in another way.
    ChildProcessError
        If one of several processes died; what was finished is kept.
    """
    store = None
    done: dict[int, SampledFrames] = {}
    if folder is not None:
        store = ChunkStore(folder, job_of(sampler, pieces), what="structures sampled")
        missing = set(store.missing(map(numbered, range(len(pieces)))))
        done = {
            i: SampledFrames.from_arrays(store.read(numbered(i)))
            for i in range(len(pieces))
            if numbered(i) not in missing
        }
    left = [i for i in range(len(pieces)) if i not in done]
    results = _mapped(sampler, [(i, pieces[i]) for i in left], processes)
    with tqdm(total=len(pieces), initial=len(done), unit="piece", disable=None) as progress:
        for i, frames in results:
            if store is not None:
                store.write(numbered(i), frames.arrays())
            done[i] = frames
            progress.update()
    whole = SampledFrames()
    for i in range(len(pieces)):
        whole.extend(done[i])
    return whole


_sampler: Sampler | None = None


def _begin_process(sampler: Sampler) -> None:
    global _sampler
    _sampler = sampler


def _sample_piece(piece: SamplingChunk) -> SampledFrames:
    assert _sampler is not None
    return _sampler(piece)


def _mapped(
    sampler: Sampler, chunks: Sequence[tuple[int, SamplingChunk]], processes: int
) -> Iterator[tuple[int, SampledFrames]]:
    """Yield the frames of pieces with their indices, as they are finished.

    Raises
    ------
    ChildProcessError
        If one of several processes died.
    """
    n = min(processes, len(chunks))
    if n < 2:
        with this_process() as workers:
            yield from completed(workers, ((i, partial(sampler, piece)) for i, piece in chunks))
        return
    # Each process gets the sampler, with its many partners, once.
    with local_processes(n, "samples", _begin_process, sampler) as workers:
        calls = ((i, partial(_sample_piece, piece)) for i, piece in chunks)
        yield from completed(workers, calls)


@lru_cache(maxsize=1)
def _driver(name: str) -> Potential:
    return registry.load_potential(name, threads=1)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch use one thread for a while: processes share the work, and rounding stays equal."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
