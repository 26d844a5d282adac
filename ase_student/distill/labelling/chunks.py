"""Answers of a teacher on disk, in pieces, so that labeling survives an interruption."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_student.data.hdf5_layout import ATOMIC_PROPERTIES
from ase_student.data.structures import Labels
from ase_student.jobs.store import ChunkStore
from ase_student.potentials.base import Answer, Evaluation, Refusal

#: Structures in a piece of work. If a run ends early, at most one piece per process is lost.
CHUNK_SIZE = 200
#: Version of the format of a piece; pieces of other versions are not read.
FORMAT = 3


def ranges(n: int) -> Iterator[tuple[int, int]]:
    """Yield start and stop (excluded) of every piece of `n` structures."""
    for start in range(0, n, CHUNK_SIZE):
        yield start, min(start + CHUNK_SIZE, n)


def key_of(start: int, stop: int) -> str:
    """Return the key of the piece with structures `start` up to `stop`."""
    return f"{start:09d}-{stop:09d}"


def label_store(folder: Path, job: dict[str, Any]) -> ChunkStore:
    """Return the store of answers of a job.

    Parameters
    ----------
    folder : path
    job : dict
        What determines the answers: the structures, the teacher, the limits.

    Raises
    ------
    ValueError
        If the folder belongs to another job.
    """
    return ChunkStore(folder, {**job, "format": FORMAT}, what="labels made")


def columns_of(start: int, answers: Sequence[Answer]) -> dict[str, NDArray[Any]]:
    """Return the answers for structures from `start` on as the arrays of a chunk."""
    labels = {i: a for i, a in enumerate(answers, start) if isinstance(a, Evaluation)}
    failures = {i: a.reason for i, a in enumerate(answers, start) if isinstance(a, Refusal)}
    no_stress = np.full(6, np.nan)
    stress = [no_stress if a.stress is None else a.stress for a in labels.values()]
    forces: list[NDArray[np.floating]] = [
        np.zeros((0, 3), np.float32),
        *(a.forces for a in labels.values()),
    ]
    return {
        "indices": np.array(list(labels), dtype=np.int64),
        "energies": np.array([a.energy for a in labels.values()], dtype=np.float64),
        "sizes": np.array([len(a.forces) for a in labels.values()], dtype=np.int64),
        "forces": np.concatenate(forces, dtype=np.float32),
        "atomic_energies": _atomic_column(labels.values(), "energies", np.float64),
        "charges": _atomic_column(labels.values(), "charges", np.float32),
        "hirshfeld_ratios": _atomic_column(labels.values(), "hirshfeld_ratios", np.float32),
        "stress": np.array(stress, dtype=np.float64).reshape(-1, 6),
        "failed": np.array(list(failures), dtype=np.int64),
        "reasons": np.array(list(failures.values()), dtype=str),
    }


def read_answers(
    store: ChunkStore, ranges: Sequence[tuple[int, int]]
) -> tuple[Labels, dict[int, str]]:
    """Return all labels as columns, and the reason of every failure.

    Raises
    ------
    ValueError
        If a piece cannot be read.
    """
    pieces = [store.read(key_of(*piece)) for piece in ranges]
    columns = {key: np.concatenate([piece[key] for piece in pieces]) for key in pieces[0]}
    mask = np.isfinite(columns["stress"]).all(axis=1)
    labels = Labels(
        structure_indices=columns["indices"],
        energies=columns["energies"],
        splits=np.concatenate([[0], np.cumsum(columns["sizes"])]),
        forces=columns["forces"],
        stress=np.where(mask[:, None], columns["stress"], 0.0) if mask.any() else None,
        stress_mask=mask if mask.any() else None,
        **{
            name: columns[name] if np.isfinite(columns[name]).any() else None
            for name in ("atomic_energies", *ATOMIC_PROPERTIES)
        },
    )
    failures = zip(columns["failed"].tolist(), columns["reasons"].tolist(), strict=True)
    return labels, dict(failures)


def _atomic_column(labels: Iterable[Evaluation], name: str, dtype: type) -> NDArray[Any]:
    """Return one value for each atom of all labels, NaN where a label has none."""
    column = [np.zeros(0)]
    for label in labels:
        values = getattr(label, name)
        column.append(np.full(len(label.forces), np.nan) if values is None else values)
    return np.concatenate(column, dtype=dtype)
