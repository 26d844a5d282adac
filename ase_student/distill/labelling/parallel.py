"""Labeling of pieces by this process, several processes, or a Dask cluster."""

from __future__ import annotations

import functools
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ase_student.data.structures import Structures
from ase_student.distill.labelling.checks import ask
from ase_student.jobs.executors import Workers, completed
from ase_student.potentials.base import Answer, Teacher
from ase_student.potentials.registry import load_teacher

Piece = tuple[int, int]
Answers = list[Answer]


def labeled(
    workers: Workers,
    teacher: Teacher,
    pieces: Iterable[tuple[Piece, Structures]],
    *,
    max_force: float,
) -> Iterator[tuple[Piece, Answers]]:
    """Let workers label pieces, and yield each piece when it is finished.

    Pieces are taken from the iterable only when they are needed. If a piece fails, finished pieces
    are still yielded.

    Raises
    ------
    ValueError
        If the settings of a worker's teacher differ from those of the teacher given here.
    ImportError
        If a worker lacks a package that the teacher needs.
    """
    if workers.are_elsewhere:
        label: Callable[[Structures], Answers] = functools.partial(
            label_with_own_teacher,
            name=teacher.name,
            settings=teacher.settings,
            max_force=max_force,
        )
    else:
        label = functools.partial(label_with_teacher, teacher=teacher, max_force=max_force)
    calls = ((piece, functools.partial(label, structures)) for piece, structures in pieces)
    return completed(workers, calls)


def label_with_teacher(structures: Structures, teacher: Teacher, max_force: float) -> Answers:
    """Return the checked answers of a teacher."""
    return ask(teacher, [structures.atoms(i) for i in range(len(structures))], max_force)


_load_once = functools.cache(load_teacher)
# Like ASE's calculators, teachers are not safe to use from several threads.
_lock = threading.Lock()


def label_with_own_teacher(
    structures: Structures, name: str, settings: dict[str, Any], *, max_force: float
) -> Answers:
    """Return the checked answers of this process's own teacher, which is loaded once.

    Parameters
    ----------
    structures : Structures
    name : str
    settings : dict
        Settings that the teacher must have.
    max_force : float, eV/Å

    Raises
    ------
    ValueError
        If its settings differ.
    ImportError
        If it cannot be loaded.
    """
    with _lock:
        try:
            teacher = _load_once(name)
        except ImportError as error:
            raise ImportError(f"on {socket.gethostname()}, {error}") from error
        differences = [
            f"{key} {teacher.settings.get(key)!r} instead of {settings.get(key)!r}"
            for key in sorted({*settings, *teacher.settings})
            if teacher.settings.get(key) != settings.get(key)
        ]
        if differences:
            raise ValueError(
                f"the teacher '{name}' on {socket.gethostname()} has {', '.join(differences)}; "
                "install the same versions there as here."
            )
        return label_with_teacher(structures, teacher, max_force)
