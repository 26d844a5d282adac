"""Labels of a teacher for the structures of a file, in pieces that survive an interruption."""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ase_student import provenance
from ase_student.data.hdf5 import Dataset, write_dataset
from ase_student.data.structures import Labels, Structures
from ase_student.distill.labelling.chunks import (
    columns_of,
    key_of,
    label_store,
    ranges,
    read_answers,
)
from ase_student.distill.labelling.parallel import Answers, Piece, labeled
from ase_student.files import file_sha256
from ase_student.jobs.executors import Workers, workers_for
from ase_student.potentials.base import Refusal, Teacher
from ase_student.potentials.calculator import symbols_of

#: Largest force of a valid label, eV/Å.
MAX_FORCE = 60.0
#: A number in the text of a reason; digits within names, as in H2O, are not numbers.
_NUMBER = re.compile(r"(?<![\w.])([-+]?\d+(?:\.\d*)?(?:e[-+]?\d+)?)(?!\w)")


def label_structures(
    path: Path,
    teacher: Teacher,
    output: Path,
    *,
    first: int | None = None,
    max_force: float = MAX_FORCE,
    command: str = "",
    processes: int = 1,
    scheduler: str | None = None,
) -> dict[str, Any]:
    """Label the structures of a file and write structures and labels to another file.

    An interrupted run can be continued: until all structures are labeled, finished pieces are kept
    in the folder ``<output>.partial``. Structures that a teacher cannot label are kept without a
    label, with the reason. If a teacher can label none of the first structures, an error is raised
    at once.

    Parameters
    ----------
    path : path
        HDF5 file of structures.
    teacher : Teacher
        The teacher. Other processes load their own instance by its name.
    output : path
        HDF5 file to write.
    first : int, optional
        Number of structures to label, from the first on; all by default.
    max_force : float, eV/Å
        A structure with a larger force on any atom gets no label.
    command : str, optional
        Command that is recorded in the file's metadata.
    processes : int
        Number of processes on this machine that label at the same time.
    scheduler : str, optional
        Address of a Dask scheduler, whose workers label instead.

    Returns
    -------
    dict
        Counts of labels, of labels with atomic energies, of labels of crystals without a stress,
        and of failures, in total and by reason.

    Raises
    ------
    ValueError
        If no structure could be labeled, or if the pieces on disk belong to other settings.
    ImportError, ChildProcessError, ConnectionError
        If a process that labels cannot load the teacher, dies, or cannot be reached.
    """
    with Dataset(path) as dataset:
        n = len(dataset) if first is None else min(first, len(dataset))
        if n == 0:
            raise ValueError(f"{path.name}: has no structures to label.")
        is_known = _has_known_elements(dataset.read_structures(0, n), teacher, path.name)
        digest = file_sha256(path)
        job = {
            "structures": digest,
            "teacher": {"name": teacher.name, **teacher.settings},
            "max_force": max_force,
        }
        partial = label_store(output.with_name(f"{output.name}.partial"), job)
        pieces = list(ranges(n))
        unfinished = set(partial.missing(key_of(*piece) for piece in pieces))
        missing_pieces = [piece for piece in pieces if key_of(*piece) in unfinished]
        n_missing = sum(stop - start for start, stop in missing_pieces)
        with (
            workers_for(
                processes if missing_pieces else 1, scheduler if missing_pieces else None
            ) as workers,
            tqdm(total=n, initial=n - n_missing, unit="structure", disable=None) as progress,
        ):
            for piece, answers in _answers(workers, teacher, dataset, missing_pieces, max_force):
                if piece[0] == 0:
                    _check_first(answers, is_known[slice(*piece)], teacher, path.name)
                partial.write(key_of(*piece), columns_of(piece[0], answers))
                progress.update(len(answers))
        labels, failures = read_answers(partial, pieces)
        structures = dataset.read_structures(0, n)
        crystals = np.flatnonzero(structures.are_crystals[labels.structure_indices])
        report = {
            "n_structures": n,
            "n_labels": len(labels),
            "n_atomic_energies": labels.n_atomic_energies,
            "n_without_stress": sum(labels.stress_of(row) is None for row in crystals.tolist()),
            "n_failures": len(failures),
            "failure_reasons": by_reason(failures.values()),
        }
        if len(labels):
            metadata = {
                **provenance.metadata(command, "h5py"),
                "teacher": teacher.name,
                "teacher_settings": teacher.settings,
                "structures_sha256": digest,
                "max_force": max_force,
                **report,
                "statistics": statistics(structures, labels),
                "structures_metadata": dataset.metadata,
            }
            write_dataset(output, structures, labels, metadata=metadata, failures=failures)
    shutil.rmtree(partial.folder)
    if not len(labels):
        raise ValueError(
            f"the teacher '{teacher.name}' could label none of the {n} structures of {path.name}; "
            f"its message for the first: {failures[0]}"
        )
    return report


def _answers(
    workers: Workers, teacher: Teacher, dataset: Dataset, pieces: list[Piece], max_force: float
) -> Iterator[tuple[Piece, Answers]]:
    """Yield the answers for pieces of a file, which are read when they are needed."""
    questions = ((piece, dataset.read_structures(*piece)) for piece in pieces)
    return labeled(workers, teacher, questions, max_force=max_force)


def _has_known_elements(structures: Structures, teacher: Teacher, name: str) -> NDArray[np.bool_]:
    """Return which structures have only elements that the teacher knows.

    Raises
    ------
    ValueError
        If no structure has only such elements.
    """
    elements = getattr(teacher, "elements", None)
    if elements is None:
        return np.ones(len(structures), dtype=bool)
    is_unknown = ~np.isin(structures.numbers, list(elements))
    is_known = np.add.reduceat(is_unknown, structures.splits[:-1], dtype=np.int64) == 0
    if is_known.any():
        return is_known
    row = int(is_unknown.argmax())
    symbol = symbols_of([int(structures.numbers[row])])
    raise ValueError(
        f"{name}: the teacher '{teacher.name}' knows {_elements(elements)}; structure 0 "
        f"has {symbol} (structures/atomic_numbers[{row}]), and every other has such an element."
    )


def _elements(elements: Collection[int]) -> str:
    """Return the symbols of a few elements; for many, their number and the heaviest."""
    if len(elements) <= 20:
        return symbols_of(elements)
    return f"{len(elements)} elements up to {symbols_of([max(elements)])}"


def _check_first(answers: Answers, known: NDArray[np.bool_], teacher: Teacher, name: str) -> None:
    """Raise ValueError if all structures of the first piece failed for the same reason."""
    relevant = [answer for answer, is_known in zip(answers, known, strict=True) if is_known]
    reasons = {answer.reason if isinstance(answer, Refusal) else None for answer in relevant}
    if len(reasons) == 1 and None not in reasons:
        raise ValueError(
            f"the teacher '{teacher.name}' could label none of the first {len(answers)} structures "
            f"of {name}; its message for structure {known.argmax()} and all others: "
            f"{reasons.pop()}"
        )


def by_reason(reasons: Iterable[str]) -> dict[str, int]:
    """Count failures by their reason, most frequent first.

    Reasons that differ only in their numbers are counted together; the result shows the smallest
    and the largest number.

    >>> by_reason(["force on atom 3 is 71.2", "energy is nan", "force on atom 0 is 1e+03"])
    {'force on atom 0 to 3 is 71.2 to 1e+03': 2, 'energy is nan': 1}
    """
    kinds: dict[tuple[str, ...], list[list[str]]] = {}
    for reason in reasons:
        # Captured numbers are at odd positions: text, number, text ...
        parts = _NUMBER.split(reason)
        kinds.setdefault(tuple(parts[::2]), []).append(parts[1::2])
    counts = {}
    for texts, numbers in sorted(kinds.items(), key=lambda item: -len(item[1])):
        ranges = [_range(values) for values in zip(*numbers, strict=True)]
        counts["".join(map("".join, zip(texts, [*ranges, ""], strict=True)))] = len(numbers)
    return counts


def _range(numbers: Sequence[str]) -> str:
    smallest, largest = min(numbers, key=float), max(numbers, key=float)
    return smallest if float(smallest) == float(largest) else f"{smallest} to {largest}"


def statistics(structures: Structures, labels: Labels) -> dict[str, dict[str, float]]:
    """Return count, spread and largest force of the labels by source of structures, and for all.

    Returns
    -------
    dict
        By source: ``n``, ``forces_std`` of the components and ``forces_max``, the largest norm.
    """
    source_of = structures.sources or ("unknown",) * len(structures)
    sources = np.array([source_of[i] for i in labels.structure_indices])
    of_atom = np.repeat(sources, np.diff(labels.splits))
    norms = np.linalg.norm(labels.forces, axis=1)
    result = {}
    for source in ("all", *np.unique(sources).tolist()):
        chosen = slice(None) if source == "all" else of_atom == source
        result[source] = {
            "n": len(labels) if source == "all" else int((sources == source).sum()),
            "forces_std": float(labels.forces[chosen].std(dtype=np.float64)),
            "forces_max": float(norms[chosen].max()),
        }
    return result
