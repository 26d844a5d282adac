"""One pass of a student over a file: piece by piece, resumable, here or on a Dask cluster."""

from __future__ import annotations

import functools
import hashlib
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_student.backends.metadata import symbols
from ase_student.data.readers.base import Frame, LeftOut, StructureReader
from ase_student.data.readers.label_keys import LabelKeys
from ase_student.data.readers.opening import open_frames
from ase_student.files import replaced_when_complete
from ase_student.potentials.base import Evaluation, Potential, Refusal, as_potential
from ase_student.validation.accuracy.chunks import PassChunk, reduce
from ase_student.validation.extras import extra, progress_bar
from ase_student.validation.models import ModelSpec

#: Atoms and structures in a piece, about: what is lost at most when a pass is interrupted.
PIECE_ATOMS = 20_000
PIECE_STRUCTURES = 1_000
#: Changes with what pieces hold.
FORMAT = 1


@dataclass(frozen=True)
class Selection:
    """Which structures of a file are looked at.

    Attributes
    ----------
    path : path
    limit : int or None
        So many, drawn at random; all if None.
    seed : int
        Of the choice, and of the bootstrap.
    skip_invalid : bool
        Whether to leave out what is wrong with the file instead of stopping.
    elements : tuple of int
        Those that every compared student knows; a structure with another is invalid.
    keys : LabelKeys or None
        Names of the labels, None to choose them.
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
    data_sha256: str,
    folder: Path,
    scheduler: str | None = None,
) -> Iterator[PassChunk]:
    """Yield what is kept of each piece of a file, in order.

    Parameters
    ----------
    spec : ModelSpec
    weights, data_sha256 : str
        Hashes of the student and of the file: pieces of others are not taken up again.
    selection : Selection
    folder : path
        Where finished pieces are kept.
    scheduler : str, optional
        Address of a Dask scheduler whose workers see the same files.

    Raises
    ------
    ValueError
        If something is wrong with a structure, unless that is to be skipped.
    """
    job = {"format": FORMAT, "spec": asdict(spec), "weights": weights, "data": data_sha256}
    job["selection"] = {**asdict(selection), "path": str(selection.path.absolute())}
    text = json.dumps(job, sort_keys=True)
    folder = folder / hashlib.sha256(text.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    frames = open_frames(selection.path, selection.keys)
    try:
        plans = plan(frames, selection)
    finally:
        frames.close()
    paths = [folder / f"{number:06d}.npz" for number in range(len(plans))]
    todo = [number for number, path in enumerate(paths) if not path.exists()]
    total = sum(len(indices) for indices in plans)
    done = total - sum(len(plans[number]) for number in todo)
    work = _here if scheduler is None else functools.partial(_on_cluster, scheduler)
    with progress_bar(total, "structure", done, spec.name) as bar:
        for number, content in work(spec, selection, plans, todo):
            with replaced_when_complete(paths[number]) as temporary:
                temporary.write_bytes(content)
            bar.update(len(plans[number]))
    for path in paths:
        yield PassChunk.from_bytes(path.read_bytes())


def _here(
    spec: ModelSpec, selection: Selection, plans: list[NDArray[np.int64]], todo: list[int]
) -> Iterator[tuple[int, bytes]]:
    if not todo:
        return
    potential, frames = (
        as_potential(spec.open_quietly()),
        open_frames(selection.path, selection.keys),
    )
    try:
        for number in todo:
            yield number, compute_piece(potential, frames, selection, plans[number], number)
    finally:
        frames.close()


def _on_cluster(
    scheduler: str,
    spec: ModelSpec,
    selection: Selection,
    plans: list[NDArray[np.int64]],
    todo: list[int],
) -> Iterator[tuple[int, bytes]]:
    """Yield pieces as the workers of a Dask cluster finish them."""
    if not todo:
        return
    distributed = extra("distributed")
    with distributed.Client(scheduler) as client:
        futures = client.map(
            _on_worker,
            todo,
            [plans[number] for number in todo],
            spec=spec,
            selection=selection,
            pure=False,
        )
        finished: Iterable[Any] = distributed.as_completed(futures, with_results=True)
        for _, result in finished:
            yield result


def _on_worker(
    number: int, indices: NDArray[np.int64], spec: ModelSpec, selection: Selection
) -> tuple[int, bytes]:
    frames = open_frames(selection.path, selection.keys)
    try:
        return number, compute_piece(_potential(spec), frames, selection, indices, number)
    finally:
        frames.close()


@functools.lru_cache(maxsize=1)
def _potential(spec: ModelSpec) -> Potential:
    """Return the student of a worker, which is opened once for many pieces."""
    return as_potential(spec.open_quietly())


def compute_piece(
    potential: Potential,
    frames: StructureReader,
    selection: Selection,
    indices: NDArray[np.int64],
    number: int,
) -> bytes:
    """Return one piece as the content of its file.

    Raises
    ------
    ValueError
        If something is wrong with a structure, unless that is to be skipped.
    """
    kept: list[Frame] = []
    left_out: list[LeftOut] = []
    for one in frames.read(indices.tolist()):
        frame = _known(one, frames.path.name, selection.elements)
        (left_out if isinstance(frame, LeftOut) else kept).append(frame)  # type: ignore[arg-type]
    start = time.perf_counter()
    answers = potential.evaluate([frame.atoms for frame in kept])
    seconds = time.perf_counter() - start
    said: list[Evaluation] = []
    used: list[Frame] = []
    for frame, answer in zip(kept, answers, strict=True):
        if isinstance(answer, Refusal):
            reason = f"{frames.path.name}: structure {frame.index}: {answer.reason}"
            left_out.append(LeftOut(frame.index, reason))
        else:
            used.append(frame)
            said.append(answer)
    left_out.sort(key=lambda one: one.index)
    invalid = [one for one in left_out if one.invalid]
    if invalid and not selection.skip_invalid:
        raise ValueError(f"{invalid[0].reason} To go on without such structures, --skip-invalid.")
    return reduce(used, said, left_out, seconds, selection.seed, number).to_bytes()


def _known(one: Frame | LeftOut, file: str, elements: tuple[int, ...]) -> Frame | LeftOut:
    """Return the frame, unless it has elements that not every student knows."""
    if isinstance(one, LeftOut) or not elements:
        return one
    unknown = sorted(set(one.atoms.numbers.tolist()) - set(elements))
    if not unknown:
        return one
    atom = int(np.flatnonzero(one.atoms.numbers == unknown[0])[0])
    return LeftOut(
        one.index,
        f"{file}: structure {one.index} has {symbols(tuple(unknown))} (first at atom {atom}); "
        f"the students know {symbols(elements)}.",
    )
