"""Let a teacher label structures, in steps that survive an interruption."""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from tqdm import tqdm

from ase_student.dataset import Dataset, Labels, Structures, write_dataset
from ase_student.distill import provenance
from ase_student.distill.teachers import Failure, Label, Teacher, load_teacher, one_line
from ase_student.files import replaced_when_complete

#: Structures per piece of work. What was not finished when a run ends is at most one piece.
CHUNK_SIZE = 200
#: Largest force that is believed, eV/Å.
MAX_FORCE = 60.0


def checked(answer: Label | Failure, atoms: Atoms, max_force: float) -> Label | Failure:
    """Return the label, or a failure if it cannot be right.

    Parameters
    ----------
    answer : Label or Failure
    atoms : ase.Atoms
        The structure it is for.
    max_force : float, eV/Å
    """
    if isinstance(answer, Failure):
        return answer
    if np.shape(answer.forces) != (len(atoms), 3):
        return Failure(f"forces of shape {np.shape(answer.forces)} for {len(atoms)} atoms")
    if not np.isfinite(answer.energy):
        return Failure(f"energy is {answer.energy}")
    if not np.isfinite(answer.forces).all():
        return Failure("forces are not finite")
    if answer.stress is not None and not np.isfinite(answer.stress).all():
        return Failure("stress is not finite")
    norms = np.linalg.norm(answer.forces, axis=1)
    worst = int(norms.argmax())
    if norms[worst] > max_force:
        return Failure(
            f"force on atom {worst} is {norms[worst]:.4g} eV/Å, above the limit of {max_force:g}"
        )
    return answer


def ask(teacher: Teacher, structures: Sequence[Atoms], max_force: float) -> list[Label | Failure]:
    """Return the teacher's answers, each checked, whatever the teacher raises."""
    try:
        answers = teacher.label(structures)
    except Exception as error:
        answers = [Failure(one_line(error))] * len(structures)
    pairs = zip(answers, structures, strict=True)
    return [checked(answer, atoms, max_force) for answer, atoms in pairs]


class Partial:
    """Answers on disk, one file per finished piece, in a folder that belongs to one job.

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
        known = folder / "job.json"
        if known.exists():
            before = json.loads(known.read_text(encoding="utf-8"))
            differs = sorted(key for key in job if before.get(key) != job[key])
            if differs:
                raise ValueError(
                    f"'{folder}' holds labels made with other {', '.join(differs)}: "
                    "delete it or write to another file."
                )
            return
        folder.mkdir(parents=True, exist_ok=True)
        with replaced_when_complete(known) as temporary:
            temporary.write_text(json.dumps(job, indent=1), encoding="utf-8")

    def path(self, start: int, stop: int) -> Path:
        """Return where the answers for structures `start` up to `stop` are."""
        return self.folder / f"{start:09d}-{stop:09d}.npz"

    def write(self, start: int, stop: int, answers: Sequence[Label | Failure]) -> None:
        """Keep the answers for structures `start` up to `stop`."""
        labels = {i: a for i, a in enumerate(answers, start) if isinstance(a, Label)}
        failures = {i: a.reason for i, a in enumerate(answers, start) if isinstance(a, Failure)}
        stress = [np.full(6, np.nan) if a.stress is None else a.stress for a in labels.values()]
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
                stress=np.array(stress, dtype=np.float64).reshape(-1, 6),
                failed=np.array(list(failures), dtype=np.int64),
                reasons=np.array(list(failures.values()), dtype=str),
            )

    def read(self, ranges: Sequence[tuple[int, int]]) -> tuple[Labels, dict[int, str]]:
        """Return all labels as columns, and the reason of every failure."""
        pieces = []
        for start, stop in ranges:
            with np.load(self.path(start, stop), allow_pickle=False) as piece:
                pieces.append({key: piece[key] for key in piece.files})
        columns = {key: np.concatenate([piece[key] for piece in pieces]) for key in pieces[0]}
        mask = np.isfinite(columns["stress"]).all(axis=1)
        labels = Labels(
            structure_indices=columns["indices"],
            energies=columns["energies"],
            splits=np.concatenate([[0], np.cumsum(columns["sizes"])]),
            forces=columns["forces"],
            stress=np.where(mask[:, None], columns["stress"], 0.0) if mask.any() else None,
            stress_mask=mask if mask.any() else None,
        )
        failures = zip(columns["failed"].tolist(), columns["reasons"].tolist(), strict=True)
        return labels, dict(failures)


def label_structures(
    path: Path,
    teacher: Teacher,
    output: Path,
    first: int | None = None,
    max_force: float = MAX_FORCE,
    command: str = "",
) -> dict[str, Any]:
    """Label the structures of a file and write both to another, going on where a run stopped.

    Until all are labelled, finished pieces are kept in the folder ``<output>.partial``.

    Parameters
    ----------
    path : path
        HDF5 file of structures.
    teacher : Teacher
    output : path
        HDF5 file to write.
    first : int, optional
        How many structures to label, from the first; all by default.
    max_force : float, eV/Å
        A structure with a larger force on any atom gets no label.
    command : str, optional
        What to say in the file's metadata about how it was made.

    Returns
    -------
    dict
        Counts of labels and failures, by reason.

    Raises
    ------
    ValueError
        If no structure could be labelled, or what is on disk belongs to other settings.
    """
    with Dataset(path) as dataset:
        n = len(dataset) if first is None else min(first, len(dataset))
        if n == 0:
            raise ValueError(f"{path.name}: has no structures to label.")
        job = {
            "structures": hashlib.sha256(path.read_bytes()).hexdigest(),
            "teacher": {"name": teacher.name, **teacher.settings},
            "max_force": max_force,
        }
        partial = Partial(output.with_name(f"{output.name}.partial"), job)
        ranges = list(_ranges(n))
        with tqdm(total=n, unit="structure", disable=None) as progress:
            for start, stop in ranges:
                if not partial.path(start, stop).exists():
                    piece = dataset.read_structures(start, stop)
                    atoms = [piece.atoms(i) for i in range(len(piece))]
                    partial.write(start, stop, ask(teacher, atoms, max_force))
                progress.update(stop - start)
        labels, failures = partial.read(ranges)
        report = {"n_structures": n, "n_labels": len(labels), "n_failures": len(failures)}
        if len(labels):
            structures = dataset.read_structures(0, n)
            metadata = {
                **provenance.metadata(command, "h5py"),
                "teacher": teacher.name,
                "teacher_settings": teacher.settings,
                "structures_sha256": job["structures"],
                "max_force": max_force,
                **report,
                "statistics": statistics(structures, labels),
                "structures_metadata": dataset.metadata,
            }
            write_dataset(output, structures, labels, metadata, failures)
    shutil.rmtree(partial.folder)
    if not len(labels):
        raise ValueError(
            f"the teacher '{teacher.name}' could label none of the {n} structures of {path.name}; "
            f"it says of the first: {failures[0]}"
        )
    return report


def statistics(structures: Structures, labels: Labels) -> dict[str, dict[str, float]]:
    """Return count and spread of the labels for each source of structures, and for all.

    Returns
    -------
    dict
        By source: ``n``, ``forces_std`` of the components and ``forces_max``, the largest norm.
    """
    named = structures.sources or ("unknown",) * len(structures)
    sources = np.array([named[i] for i in labels.structure_indices])
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


def _ranges(n: int) -> Iterator[tuple[int, int]]:
    for start in range(0, n, CHUNK_SIZE):
        yield start, min(start + CHUNK_SIZE, n)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line of ``label``."""
    parser.add_argument("structures", type=Path, help="HDF5 file of structures")
    parser.add_argument("-o", "--output", type=Path, required=True, help="HDF5 file to write")
    parser.add_argument(
        "--teacher", required=True, metavar="NAME", help="so3lr, gfn2-xtb or package.module:Class"
    )
    parser.add_argument("--first", type=int, metavar="N", help="label the first N structures only")
    parser.add_argument(
        "--max-force", type=float, default=MAX_FORCE, metavar="F",
        help=f"give no label where a force is larger, eV/Å (default: {MAX_FORCE:g})",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> str:
    """Label as the command line says and return a summary."""
    if arguments.first is not None and arguments.first < 1:
        raise ValueError(f"--first is {arguments.first}; it must be at least 1.")
    if not arguments.max_force > 0:
        raise ValueError(f"--max-force is {arguments.max_force:g}; it must be above 0 eV/Å.")
    if not arguments.structures.exists():
        raise FileNotFoundError(f"no data set at '{arguments.structures}'.")
    if arguments.output.exists() and arguments.output.samefile(arguments.structures):
        raise ValueError(f"'{arguments.output}' is the file of structures; give another output.")
    teacher = load_teacher(arguments.teacher)
    report = label_structures(
        arguments.structures,
        teacher,
        arguments.output,
        arguments.first,
        arguments.max_force,
        arguments.command,
    )
    return (
        f"{arguments.output}: {report['n_labels']} structures labelled by {teacher.name}, "
        f"{report['n_failures']} failed."
    )
