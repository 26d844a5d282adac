"""Comparison of a new student with the published student of the same name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: The new student counts as worse if a figure is more than this many times larger. Trainings of the
#: same recipe with different seeds differ by as much.
FORCE_SLACK = 1.01
ENERGY_SLACK = 1.05


def figures_of(described: Mapping[str, Any]) -> dict[str, float]:
    """Return the errors of a student in a validation.

    Parameters
    ----------
    described : mapping
        The student's entry in ``students`` of ``metrics.json``.

    Returns
    -------
    dict
        ``force_rmse`` in eV/Å and ``energy_mae`` in meV/atom, if the data have such labels, and
        ``microseconds_per_atom``.
    """
    accuracy = described["accuracy"]
    figures = {"microseconds_per_atom": float(described["speed"]["microseconds_per_atom"])}
    if accuracy["forces"] is not None:
        figures["force_rmse"] = float(accuracy["forces"]["rmse"]["value"])
    if accuracy["energy"] is not None:
        figures["energy_mae"] = 1000.0 * float(accuracy["energy"]["raw"]["mae_per_atom"]["value"])
    return figures


def failed_checks(described: Mapping[str, Any]) -> list[str]:
    """Return the names of the checks of physics that a student failed."""
    return [str(check["name"]) for check in described["physics"] if check["passed"] is False]


def worse(
    new: Mapping[str, Mapping[str, float]],
    old: Mapping[str, Mapping[str, float]],
    stable: tuple[int, int],
    *,
    stable_before: tuple[int, int] | None,
) -> list[str]:
    """Return a sentence for each figure in which the new student is worse.

    Parameters
    ----------
    new, old : mapping of str to mapping
        Figures of each student from the same validation, by the name of the data, as
        :func:`figures_of` returns them.
    stable : tuple of int
        Numbers of stable runs and of all runs of the new student.
    stable_before : tuple of int, optional
        The same for the old student, if known.
    """
    sentences = []
    for data, figures in new.items():
        before = old[data]
        for name, slack, unit in (
            ("force_rmse", FORCE_SLACK, "eV/Å"),
            ("energy_mae", ENERGY_SLACK, "meV/atom"),
        ):
            # NaN is worse than anything.
            if name in before and not figures.get(name, float("nan")) <= slack * before[name]:
                words = "forces" if name == "force_rmse" else "energies"
                sentences.append(
                    f"{words} of {data} are wrong by {figures.get(name, float('nan')):.4g} {unit}, "
                    f"before by {before[name]:.4g}"
                )
    if stable_before is not None and stable[0] * stable_before[1] < stable_before[0] * stable[1]:
        sentences.append(
            f"{stable[0]} of {stable[1]} runs are stable, before {stable_before[0]} of "
            f"{stable_before[1]}"
        )
    return sentences
