"""Run the experiments on a potential; each result is stored, so that it is computed once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ase_student.files import replaced_when_complete
from ase_student.potentials.base import Potential
from ase_student.validation.chemistry import (
    conformers,
    crystals,
    interactions,
    torsions,
    vibrations,
    water,
)
from ase_student.validation.chemistry.experiment import Experiment, Measured
from ase_student.validation.extras import progress_bar
from ase_student.validation.physics.checks import RefusedError

#: The experiments without dynamics.
EXPERIMENTS = (
    Experiment(
        "interactions", "Interaction energies of dimers", 1,
        interactions.measure, interactions.compare,
    ),
    Experiment("torsions", "Torsions of drug fragments", 1, torsions.measure, torsions.compare),
    Experiment("conformers", "Conformers", 1, conformers.measure, conformers.compare),
    Experiment("vibrations", "Small molecules", 1, vibrations.measure, vibrations.compare),
    Experiment("crystals", "Molecular crystals", 1, crystals.measure, crystals.compare),
    Experiment(
        "pressure", "Pressure of water", 1, water.measure_pressure, water.compare_pressure
    ),
)  # fmt: skip


def experiments_with_liquid(picoseconds: float) -> tuple[Experiment, ...]:
    """Return all experiments, including dynamics of water if its length is not 0.

    Parameters
    ----------
    picoseconds : float
        Length of the run at constant volume, and of the run at constant pressure.
    """
    if picoseconds == 0.0:
        return EXPERIMENTS
    return (
        *EXPERIMENTS,
        Experiment(
            f"pair-distribution-{picoseconds:g}ps", "Structure of water", 1,
            water.measure_pair_distribution(picoseconds), water.compare_pair_distribution,
        ),
        Experiment(
            f"density-{picoseconds:g}ps", "Density of water", 1,
            water.measure_density(picoseconds), water.compare_density,
        ),
    )  # fmt: skip


def measure(
    potential: Potential,
    identity: dict[str, Any],
    experiments: Sequence[Experiment] = EXPERIMENTS,
    *,
    folder: Path | None = None,
    label: str = "",
) -> dict[str, Measured]:
    """Return the results of each experiment for a potential, by the experiment's name.

    The result of an experiment that the potential refuses is ``{"refused": reason}``.

    Parameters
    ----------
    potential : Potential
    identity : dict
        What determines its results, JSON types only: weights, precision, version, settings.
    experiments : sequence of Experiment
    folder : path, optional
        One file for each experiment is written there. A file whose identity and version of the
        experiment are the same is read instead of measuring again.
    label : str
        Beginning of the names of these files; by default the name of the potential.
    """
    results: dict[str, Measured] = {}
    for experiment in progress(experiments, label or potential.name):
        key = {"experiment": experiment.name, "version": experiment.version, **identity}
        path = (
            None if folder is None else folder / f"{label or potential.name}-{experiment.name}.json"
        )
        measured = None if path is None else _read_result(path, key)
        if measured is None:
            try:
                measured = experiment.measure(potential)
            except RefusedError as error:
                measured = {"refused": str(error)}
            if not _is_finite(measured):
                measured = {"refused": "its results are not finite"}
            if path is not None:
                _write_result(path, {"of": key, "measured": measured})
        results[experiment.name] = measured
    return results


def _is_finite(measured: Measured) -> bool:
    """Return whether all numbers in results are finite, as JSON requires."""
    try:
        json.dumps(measured, allow_nan=False)
    except ValueError:
        return False
    return True


def progress(experiments: Sequence[Experiment], label: str) -> Iterator[Experiment]:
    """Yield experiments one after the other, with a progress bar on a terminal."""
    with progress_bar(len(experiments), "experiment", label=f"chemistry of {label}") as bar:
        for experiment in experiments:
            yield experiment
            bar.update()


def _read_result(path: Path, key: dict[str, Any]) -> Measured | None:
    """Return the stored results of an experiment; None if there are none for this key."""
    if not path.is_file():
        return None
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return document["measured"] if document["of"] == key else None
    except (ValueError, KeyError, TypeError):
        return None


def _write_result(path: Path, document: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced_when_complete(path) as temporary:
        temporary.write_text(json.dumps(document, indent=1, ensure_ascii=False), encoding="utf-8")


def figures(
    measured: dict[str, Measured],
    teacher: dict[str, Measured] | None,
    experiments: Sequence[Experiment] = EXPERIMENTS,
) -> list[dict[str, Any]]:
    """Return the figures of all experiments, JSON types only, with the name of the experiment.

    Parameters
    ----------
    measured : dict of str to Measured
        Results of one potential, as :func:`measure` returns them.
    teacher : dict of str to Measured or None
        Results of its teacher.
    experiments : sequence of Experiment
    """
    all_figures = []
    for experiment in experiments:
        ours = measured.get(experiment.name)
        theirs = None if teacher is None else teacher.get(experiment.name)
        if ours is None or "refused" in ours:
            continue
        if theirs is not None and "refused" in theirs:
            theirs = None
        all_figures += [
            {"experiment": experiment.name, **asdict(figure)}
            for figure in experiment.compare(ours, theirs)
        ]
    return all_figures
