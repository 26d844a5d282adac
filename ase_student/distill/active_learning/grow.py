"""Active learning: label structures of a student's own dynamics for its next training."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_student import provenance
from ase_student.data.hdf5 import Dataset, write_dataset
from ase_student.data.label_settings import settings_difference
from ase_student.distill.active_learning.exploration import RANDOM, Exploration
from ase_student.distill.active_learning.uncertainty import rank_correlation
from ase_student.distill.labelling import label
from ase_student.potentials.base import StudentPotential, Teacher, forces_of


def grow(
    growth: Exploration,
    teacher: Teacher,
    output: Path,
    *,
    max_force: float = label.MAX_FORCE,
    command: str = "",
    processes: int = 1,
    scheduler: str | None = None,
) -> dict[str, Any]:
    """Run dynamics, choose frames, label and write them; an interrupted run is continued.

    Parameters
    ----------
    growth : Exploration
    teacher : Teacher
    output : path
        HDF5 file to write.
    max_force : float, eV/Å
        A structure with a larger force on any atom gets no label.
    command : str, optional
        Command that is recorded in the file's metadata.
    processes : int
        Number of processes that label.
    scheduler : str, optional
        Address of a Dask scheduler, whose workers label instead.

    Returns
    -------
    dict
        The file's metadata. Under ``grow`` they hold the number of ``trajectories``, of unstable
        trajectories (``astray``), of ``frames`` to choose from and of frames ``outside`` of the
        training ranges; and the errors of the student, see :func:`compared`.
    """
    check_teacher(growth.metadata, teacher)
    growth.run_dynamics()
    chosen = growth.folder / "structures.h5"
    if not chosen.exists():
        structures, counts = growth.choose()
        sampling = {"students": growth.weights, **asdict(growth.settings)}
        write_dataset(chosen, structures, metadata={"sampling": sampling, "found": counts})
    labeled = growth.folder / "labelled.h5"
    if not labeled.exists():
        label.label_structures(
            chosen,
            teacher,
            labeled,
            max_force=max_force,
            command=command,
            processes=processes,
            scheduler=scheduler,
        )
    with Dataset(labeled) as dataset:
        structures, labels = dataset.read_structures(), dataset.read_labels()
        metadata, failures = dataset.metadata, dataset.failures
    report = {**metadata["structures_metadata"]["found"], **compared(growth, labeled)}
    metadata = {**metadata, **provenance.metadata(command, "h5py"), "grow": report}
    write_dataset(output, structures, labels, metadata=metadata, failures=failures)
    shutil.rmtree(growth.folder)
    return metadata


def check_teacher(students: Iterable[Mapping[str, Any]], teacher: Teacher) -> None:
    """Check that a teacher has the settings with which it labeled the students' data.

    Parameters
    ----------
    students : iterable of mapping
        Metadata of the students.
    teacher : Teacher

    Raises
    ------
    ValueError
        If a student was trained on labels of this teacher with other settings.
    """
    for metadata in students:
        if metadata.get("teacher") != teacher.name:
            continue
        for entry in metadata.get("data") or ():
            settings = entry.get("teacher_settings")
            difference = settings and settings_difference(teacher.settings, settings)
            if difference:
                raise ValueError(
                    f"the teacher '{teacher.name}' has other settings than for the labels that the "
                    f"student was trained on: {difference}; new labels could not be joined with "
                    "those. Give the teacher the same settings."
                )


def compared(growth: Exploration, path: Path) -> dict[str, Any]:
    """Return the student's errors on the teacher's labels of the chosen structures.

    Returns
    -------
    dict
        For the uncertain (``doubtful``) and the ``random`` structures: their number,
        ``structures``; ``force_rmse``; its median over structures, ``force_rmse_median``; and the
        largest error of the force on an atom, ``force_max``, in eV/Å. Besides, the ``ratio`` of the
        medians, and the rank ``correlation`` of uncertainty and error among random structures.
        None if there are too few structures.
    """
    with Dataset(path) as dataset:
        structures, labels = dataset.read_structures(), dataset.read_labels()
    frames = [structures.atoms(index) for index in labels.structure_indices]
    truth = np.split(labels.forces.astype(np.float64), labels.splits[1:-1])
    predicted = forces_of(StudentPotential(growth.calculators[0]), frames)
    errors = [forces - reference for forces, reference in zip(predicted, truth, strict=True)]
    sources = np.array(structures.sources, dtype=object)[labels.structure_indices]
    is_random = sources == RANDOM
    doubtful = _errors([errors[index] for index in np.flatnonzero(~is_random)])
    random = _errors([errors[index] for index in np.flatnonzero(is_random)])
    rmse_values = np.array([_rmse(error) for error in errors])
    ratio = None
    if doubtful["structures"] and random["force_rmse_median"]:
        ratio = doubtful["force_rmse_median"] / random["force_rmse_median"]
    return {
        "doubtful": doubtful,
        "random": random,
        "ratio": ratio,
        "correlation": rank_correlation(
            growth.uncertainties(frames).values[is_random], rmse_values[is_random]
        ),
    }


def _errors(errors: Sequence[NDArray[np.float64]]) -> dict[str, Any]:
    if not errors:
        keys = ("force_rmse", "force_rmse_median", "force_max")
        return {"structures": 0, **dict.fromkeys(keys)}
    joined = np.concatenate(errors)
    return {
        "structures": len(errors),
        "force_rmse": _rmse(joined),
        "force_rmse_median": float(np.median([_rmse(error) for error in errors])),
        "force_max": float(np.linalg.norm(joined, axis=1).max()),
    }


def _rmse(errors: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(errors**2)))
