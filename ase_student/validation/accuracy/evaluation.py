"""Evaluation of a file by a student: in pieces, resumable, locally or on a Dask cluster."""

from __future__ import annotations

import functools
import hashlib
import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ase_student.backends.metadata import symbols
from ase_student.data.readers.base import Frame, LeftOut, StructureReader
from ase_student.data.readers.label_keys import LabelKeys
from ase_student.data.readers.opening import open_frames
from ase_student.files import file_sha256
from ase_student.jobs.executors import Workers, completed, workers_for
from ase_student.jobs.store import ChunkStore, numbered
from ase_student.potentials.base import (
    Evaluation,
    Potential,
    Refusal,
    StudentPotential,
    as_potential,
)
from ase_student.validation.accuracy.chunks import PassChunk, reduce
from ase_student.validation.extras import progress_bar
from ase_student.validation.models import ModelSpec

#: About the largest number of atoms and structures in a piece. An interrupted pass loses at most
#: one piece.
PIECE_ATOMS = 20_000
PIECE_STRUCTURES = 1_000
#: Raised whenever the content of pieces changes.
FORMAT = 1


@dataclass(frozen=True)
class Selection:
    """Which structures of a file are evaluated.

    Attributes
    ----------
    path : path
    limit : int or None
        Number of structures that are drawn at random; all if None.
    seed : int
        Of the random choice of structures, and of the bootstrap.
    skip_invalid : bool
        Whether to leave out invalid structures instead of stopping.
    elements : tuple of int
        Elements that every compared student knows; a structure with any other is invalid.
    keys : LabelKeys or None
        Names of the labels; None to find them by their usual names.
    """

    path: Path
    limit: int | None = None
    seed: int = 0
    skip_invalid: bool = False
    elements: tuple[int, ...] = ()
    keys: LabelKeys | None = None


def plan(frames: StructureReader, selection: Selection) -> list[NDArray[np.int64]]:
    """Return the indices of the structures of each piece, ascending."""
    n = len(frames.sizes)
    chosen = np.arange(n)
    if selection.limit is not None and selection.limit < n:
        rng = np.random.default_rng(selection.seed)
        chosen = np.sort(rng.permutation(n)[: selection.limit])
    pieces: list[list[int]] = [[]]
    n_atoms = 0
    for index in chosen.tolist():
        size = int(frames.sizes[index])
        if pieces[-1] and (n_atoms + size > PIECE_ATOMS or len(pieces[-1]) == PIECE_STRUCTURES):
            pieces.append([])
            n_atoms = 0
        pieces[-1].append(index)
        n_atoms += size
    return [np.array(piece, dtype=np.int64) for piece in pieces if piece]


def run_pass(
    spec: ModelSpec,
    weights: str,
    selection: Selection,
    *,
    data_sha256: str,
    folder: Path,
    scheduler: str | None = None,
) -> Iterator[PassChunk]:
    """Yield the results of each piece of a file, in order.

    Parameters
    ----------
    spec : ModelSpec
    weights, data_sha256 : str
        Hashes of the student and of the file: stored pieces of any others are not reused.
    selection : Selection
    folder : path
        Where finished pieces are stored.
    scheduler : str, optional
        Address of a Dask scheduler whose workers see the same files.

    Raises
    ------
    ValueError
        If a structure is invalid, unless invalid structures are skipped; or if workers have
        another student or file of that name.
    ImportError, ConnectionError, ChildProcessError
        If the workers cannot be started or reached, or fail. Finished pieces stay stored.
    """
    job = {"format": FORMAT, "spec": asdict(spec), "weights": weights, "data": data_sha256}
    job["selection"] = {**asdict(selection), "path": str(selection.path.absolute())}
    text = json.dumps(job, sort_keys=True)
    # Each student has a folder of its own.
    folder = folder / hashlib.sha256(text.encode()).hexdigest()[:16]
    store = ChunkStore(folder, job, what="errors computed")
    frames = open_frames(selection.path, selection.keys)
    try:
        plans = {numbered(i): indices for i, indices in enumerate(plan(frames, selection))}
    finally:
        frames.close()
    missing = store.missing(plans)
    total = sum(len(indices) for indices in plans.values())
    n_done = total - sum(len(plans[key]) for key in missing)
    # Other processes may have another working folder.
    selection = replace(selection, path=selection.path.absolute())
    request = _Request(spec, weights, selection, data_sha256)
    pieces = [(key, plans[key], int(key)) for key in missing]
    with (
        # If all pieces are done, no worker is started and no scheduler is contacted.
        workers_for(1, scheduler if missing else None) as workers,
        progress_bar(total, "structure", n_done, label=spec.name) as bar,
    ):
        work = _run_on_workers if workers.are_elsewhere else _run_here
        for key, chunk in work(workers, request, pieces):
            store.write(key, chunk.arrays())
            bar.update(len(plans[key]))
    for key in plans:
        yield PassChunk(**store.read(key))


@dataclass(frozen=True)
class _Request:
    """What workers evaluate, with the hashes that their files must have."""

    spec: ModelSpec
    weights: str
    selection: Selection
    data_sha256: str


Piece = tuple[str, NDArray[np.int64], int]


def _run_here(
    workers: Workers, request: _Request, pieces: Sequence[Piece]
) -> Iterator[tuple[str, PassChunk]]:
    """Yield pieces that this process computes, with one student and one open file."""
    if not pieces:
        return
    selection = request.selection
    potential = as_potential(request.spec.open_quietly())
    frames = open_frames(selection.path, selection.keys)
    try:
        yield from completed(
            workers,
            (
                (
                    key,
                    partial(
                        compute_piece, potential, frames, selection, indices=indices, number=number
                    ),
                )
                for key, indices, number in pieces
            ),
        )
    finally:
        frames.close()


def _run_on_workers(
    workers: Workers, request: _Request, pieces: Sequence[Piece]
) -> Iterator[tuple[str, PassChunk]]:
    """Yield pieces that other processes compute, each with a student and a file of its own."""
    calls = (
        (key, partial(_on_worker, request, indices, number)) for key, indices, number in pieces
    )
    return completed(workers, calls)


def _on_worker(request: _Request, indices: NDArray[np.int64], number: int) -> PassChunk:
    """Compute one piece on a worker that may be another machine.

    Raises
    ------
    ValueError
        If the student or the file on the worker differs from the requested one.
    """
    selection = request.selection
    stat = selection.path.stat()
    _check_same(
        f"'{selection.path}'",
        _hash_of_file(selection.path, stat.st_mtime_ns, stat.st_size),
        request.data_sha256,
    )
    # Students, like ASE's calculators, cannot be used by several threads at once.
    with _lock:
        potential = _potential(request.spec)
        _check_same(
            f"student '{request.spec.model}'",
            potential.calculator.info.weights_sha256,
            request.weights,
        )
        frames = open_frames(selection.path, selection.keys)
        try:
            return compute_piece(potential, frames, selection, indices=indices, number=number)
        finally:
            frames.close()


def _check_same(name: str, sha256: str, expected: str) -> None:
    if sha256 != expected:
        raise ValueError(
            f"{name} on {socket.gethostname()} has SHA-256 {sha256[:12]}… instead of "
            f"{expected[:12]}…; workers need the same files as this machine."
        )


_lock = threading.Lock()


@functools.lru_cache(maxsize=4)
def _hash_of_file(path: Path, modified: int, size: int) -> str:
    """Return the SHA-256 of a file; it is read once as long as it does not change."""
    return file_sha256(path)


@functools.lru_cache(maxsize=1)
def _potential(spec: ModelSpec) -> StudentPotential:
    """Return the student of a worker; it is opened once for many pieces."""
    return StudentPotential(spec.open_quietly())


def compute_piece(
    potential: Potential,
    frames: StructureReader,
    selection: Selection,
    *,
    indices: NDArray[np.int64],
    number: int,
) -> PassChunk:
    """Return the results of one piece.

    Raises
    ------
    ValueError
        If a structure is invalid, unless invalid structures are skipped.
    """
    frames_to_evaluate: list[Frame] = []
    left_out: list[LeftOut] = []
    for entry in frames.read(indices.tolist()):
        frame = _unless_unknown_elements(entry, frames.path.name, selection.elements)
        (left_out if isinstance(frame, LeftOut) else frames_to_evaluate).append(frame)  # type: ignore[arg-type]
    start = time.perf_counter()
    answers = potential.evaluate([frame.atoms for frame in frames_to_evaluate])
    seconds = time.perf_counter() - start
    evaluations: list[Evaluation] = []
    used: list[Frame] = []
    for frame, answer in zip(frames_to_evaluate, answers, strict=True):
        if isinstance(answer, Refusal):
            reason = f"{frames.path.name}: structure {frame.index}: {answer.reason}"
            left_out.append(LeftOut(frame.index, reason))
        else:
            used.append(frame)
            evaluations.append(answer)
    left_out.sort(key=lambda structure: structure.index)
    invalid = [structure for structure in left_out if structure.invalid]
    if invalid and not selection.skip_invalid:
        raise ValueError(
            f"{invalid[0].reason} To continue without such structures, give --skip-invalid."
        )
    return reduce(used, evaluations, left_out, seconds=seconds, seed=selection.seed, number=number)


def _unless_unknown_elements(
    entry: Frame | LeftOut, file: str, elements: tuple[int, ...]
) -> Frame | LeftOut:
    """Return the frame, or why it is left out if not every student knows its elements."""
    if isinstance(entry, LeftOut) or not elements:
        return entry
    unknown = sorted(set(entry.atoms.numbers.tolist()) - set(elements))
    if not unknown:
        return entry
    atom = int(np.flatnonzero(entry.atoms.numbers == unknown[0])[0])
    return LeftOut(
        entry.index,
        f"{file}: structure {entry.index} has {symbols(tuple(unknown))} (first at atom {atom}); "
        f"the students know {symbols(elements)}.",
    )
