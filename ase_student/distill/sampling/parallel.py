"""Sampling in pieces, in several processes, with each finished piece kept on disk."""

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

#: Molecules in a piece. If a run ends early, at most one piece per process is lost.
MMFF_PIECE = 16
#: Molecules or trajectories in a piece, which are moved together. More are not faster, and take
#: longer to repeat.
DRIVEN_PIECE = 32
#: Version of the sampling code; increased when it gives other frames for the same settings.
FORMAT = 1


@dataclass(frozen=True)
class SamplingChunk:
    """Molecules, groups of frames and continuations that are sampled together in one process."""

    jobs: tuple[MoleculeTask, ...] = ()
    groups: tuple[FrameGroup, ...] = ()
    continuations: tuple[Continuation, ...] = ()


@dataclass(frozen=True)
class Sampler:
    """Function that samples the frames of a piece.

    Attributes
    ----------
    settings : SamplingSettings
    partners : tuple of Species
        Molecules that may be combined with a sampled molecule in a cluster.
    """

    settings: SamplingSettings
    partners: tuple[Species, ...] = ()

    def __call__(self, piece: SamplingChunk) -> SampledFrames:
        """Return the frames of a piece; they depend only on the piece and the sampler."""
        if self.settings.dynamics == MMFF94:
            frames = sample_groups(piece.groups, self.settings, None)
            for job in piece.jobs:
                frames.extend(
                    mmff.sample_molecule(
                        job.species, self.settings, self.partners, n_times=job.n_times
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
    """Return everything that is to be sampled, in pieces of equal size."""
    size = MMFF_PIECE if settings.dynamics == MMFF94 else DRIVEN_PIECE
    pieces = [SamplingChunk(jobs=tuple(jobs[i : i + size])) for i in range(0, len(jobs), size)]
    # Trajectories come first: they take nearly all of the time.
    ordered = sorted(groups, key=lambda group: group.displacement is not None)
    for i in range(0, len(ordered), DRIVEN_PIECE):
        pieces.append(SamplingChunk(groups=tuple(ordered[i : i + DRIVEN_PIECE])))
    for i in range(0, len(continuations), DRIVEN_PIECE):
        pieces.append(SamplingChunk(continuations=tuple(continuations[i : i + DRIVEN_PIECE])))
    return pieces


def job_of(sampler: Sampler, pieces: Sequence[SamplingChunk]) -> dict[str, Any]:
    """Return everything that determines the frames of all pieces, for comparison with a folder."""
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
    """Return the frames of all pieces in order; they do not depend on the number of processes.

    Parameters
    ----------
    sampler : Sampler
    pieces : sequence of SamplingChunk
    processes : int
    folder : path, optional
        Folder of finished pieces; pieces that it already holds are not sampled again.

    Raises
    ------
    ValueError
        If the pieces in the folder were sampled in another way.
    ChildProcessError
        If one of several processes died; finished pieces are kept.
    """
    store = None
    frames_by_piece: dict[int, SampledFrames] = {}
    if folder is not None:
        store = ChunkStore(folder, job_of(sampler, pieces), what="structures sampled")
        missing = set(store.missing(map(numbered, range(len(pieces)))))
        frames_by_piece = {
            i: SampledFrames.from_arrays(store.read(numbered(i)))
            for i in range(len(pieces))
            if numbered(i) not in missing
        }
    remaining = [i for i in range(len(pieces)) if i not in frames_by_piece]
    results = _mapped(sampler, [(i, pieces[i]) for i in remaining], processes)
    with tqdm(
        total=len(pieces), initial=len(frames_by_piece), unit="piece", disable=None
    ) as progress:
        for i, frames in results:
            if store is not None:
                store.write(numbered(i), frames.arrays())
            frames_by_piece[i] = frames
            progress.update()
    joined = SampledFrames()
    for i in range(len(pieces)):
        joined.extend(frames_by_piece[i])
    return joined


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
    """Let torch use one thread in the block: processes share the work, and rounding is the same."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)
