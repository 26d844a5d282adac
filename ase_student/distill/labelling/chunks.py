"""Answers of a teacher on disk, piece by piece, so that labelling survives an interruption."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from ase_student.data.checks import ATOMIC_PROPERTIES
from ase_student.data.structures import Labels
from ase_student.files import replaced_when_complete
from ase_student.jobs.store import begin_job, check_job
from ase_student.potentials.base import Answer, Evaluation, Refusal

#: Structures per piece of work. What was not finished when a run ends is at most one piece.
CHUNK_SIZE = 200
#: What a piece holds; pieces written by another version of this module are not read.
FORMAT = 3


def ranges(n: int) -> Iterator[tuple[int, int]]:
    """Yield first and last (excluded) structure of every piece of `n` structures."""
    for start in range(0, n, CHUNK_SIZE):
        yield start, min(start + CHUNK_SIZE, n)


class LabelStore:
    """Answers on disk, one file per finished piece, in a folder that belongs to one job.

    The folder is made for the first piece.

    Parameters
    ----------
    folder : path
    job : dict
        What decides the answers: the structures, the teacher, the limits.

    Raises
    ------
    ValueError
        If the folder was begun by another job.
    """

    def __init__(self, folder: Path, job: dict[str, Any]) -> None:
        self.folder = folder
        self._job = {**job, "format": FORMAT}
        check_job(folder, self._job, "labels made")

    def path(self, start: int, stop: int) -> Path:
        """Return where the answers for structures `start` up to `stop` are."""
        return self.folder / f"{start:09d}-{stop:09d}.npz"

    def has(self, start: int, stop: int) -> bool:
        """Say whether the answers for structures `start` up to `stop` are there."""
        return self.path(start, stop).exists()

    def write(self, start: int, stop: int, answers: Sequence[Answer]) -> None:
        """Keep the answers for structures `start` up to `stop`."""
        labels = {i: a for i, a in enumerate(answers, start) if isinstance(a, Evaluation)}
        failures = {i: a.reason for i, a in enumerate(answers, start) if isinstance(a, Refusal)}
        none = np.full(6, np.nan)
        if not self.folder.exists():
            begin_job(self.folder, self._job)
        with (
            replaced_when_complete(self.path(start, stop)) as temporary,
            temporary.open("wb") as file,
        ):
            np.savez(
                file,
                indices=np.array(list(labels), dtype=np.int64),
                energies=np.array([a.energy for a in labels.values()], dtype=np.float64),
                sizes=np.array([len(a.forces) for a in labels.values()], dtype=np.int64),
                forces=np.concatenate(
                    [np.zeros((0, 3), np.float32), *(a.forces for a in labels.values())],
                    dtype=np.float32,
                ),
                atomic_energies=_atomic_column(labels.values(), "energies", np.float64),
                charges=_atomic_column(labels.values(), "charges", np.float32),
                hirshfeld_ratios=_atomic_column(labels.values(), "hirshfeld_ratios", np.float32),
                stress=np.array(
                    [none if a.stress is None else a.stress for a in labels.values()],
                    dtype=np.float64,
                ).reshape(-1, 6),
                failed=np.array(list(failures), dtype=np.int64),
                reasons=np.array(list(failures.values()), dtype=str),
            )

    def read(self, ranges: Sequence[tuple[int, int]]) -> tuple[Labels, dict[int, str]]:
        """Return all labels as columns, and the reason of every failure.

        Raises
        ------
        ValueError
            If a piece cannot be read.
        """
        pieces = []
        for start, stop in ranges:
            path = self.path(start, stop)
            try:
                with path.open("rb") as file, np.load(file, allow_pickle=False) as piece:
                    pieces.append({key: piece[key] for key in piece.files})
            except (ValueError, EOFError, BadZipFile, zlib.error) as error:
                raise ValueError(
                    f"'{path}' is damaged: delete it and run the same command again."
                ) from error
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
