"""Run the experiments on a potential, keeping each result, so that nothing is computed twice."""

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

#: The experiments that take no dynamics.
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
    """Return all experiments, with dynamics of water where its length is not 0.

    Parameters
    ----------
    picoseconds : float
        At constant volume, and as long again at constant pressure.
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
    """Return what each experiment measured of a potential, by the experiment's name.

    An experiment that the potential refuses holds ``{"refused": reason}``.

    Parameters
    ----------
    potential : Potential
    identity : dict
        What decides its results, JSON only: weights, precision, version, settings.
    experiments : sequence of Experiment
    folder : path, optional
        One file for each experiment is kept there, and read instead of measuring again where
        identity and version of the experiment are the same.
    label : str
        How names of these files begin; by default the name of the potential.
    """
    found: dict[str, Measured] = {}
    for experiment in progress(experiments, label or potential.name):
        key = {"experiment": experiment.name, "version": experiment.version, **identity}
        path = (
            None if folder is None else folder / f"{label or potential.name}-{experiment.name}.json"
        )
        measured = None if path is None else _kept(path, key)
        if measured is None:
            try:
                measured = experiment.measure(potential)
            except RefusedError as error:
                measured = {"refused": str(error)}
            if not _is_finite(measured):
                measured = {"refused": "its results are not finite"}
            if path is not None:
                _keep(path, {"of": key, "measured": measured})
        found[experiment.name] = measured
    return found


def _is_finite(measured: Measured) -> bool:
    """Return whether results hold only what JSON can hold."""
    try:
        json.dumps(measured, allow_nan=False)
    except ValueError:
        return False
    return True


def progress(experiments: Sequence[Experiment], label: str) -> Iterator[Experiment]:
    """Return experiments one after the other, with a progress bar on a terminal."""
    with progress_bar(len(experiments), "experiment", label=f"chemistry of {label}") as bar:
        for experiment in experiments:
            yield experiment
            bar.update()


def _kept(path: Path, key: dict[str, Any]) -> Measured | None:
    """Return what a file holds of a measurement; None if there is none, or another's."""
    if not path.is_file():
        return None
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return document["measured"] if document["of"] == key else None
    except (ValueError, KeyError, TypeError):
        return None


def _keep(path: Path, document: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced_when_complete(path) as temporary:
        temporary.write_text(json.dumps(document, indent=1, ensure_ascii=False), encoding="utf-8")


def figures(
    measured: dict[str, Measured],
    teacher: dict[str, Measured] | None,
    experiments: Sequence[Experiment] = EXPERIMENTS,
) -> list[dict[str, Any]]:
    """Return the figures of all experiments, JSON only, each with the name of its experiment.

    Parameters
    ----------
    measured : dict of str to Measured
        Of one potential, as :func:`measure` returns it.
    teacher : dict of str to Measured or None
        Of its teacher.
    experiments : sequence of Experiment
    """
    found = []
    for experiment in experiments:
        ours = measured.get(experiment.name)
        theirs = None if teacher is None else teacher.get(experiment.name)
        if ours is None or "refused" in ours:
            continue
        if theirs is not None and "refused" in theirs:
            theirs = None
        found += [
            {"experiment": experiment.name, **asdict(figure)}
            for figure in experiment.compare(ours, theirs)
        ]
    return found
