"""Plots of the chemistry section."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any

import numpy as np

from ase_student.validation.chemistry import interactions, torsions
from ase_student.validation.extras import extra

#: Title and results of a potential.
Column = tuple[str, dict[str, Any]]
#: Function that draws the results of potentials into panels.
Drawer = Callable[[Any, Sequence[Column]], None]

DPI = 110
DIMERS = (
    "Water_dimer",
    "Formamide_dimer",
    "Uracil_dimer_h-bonded",
    "Methane_dimer",
    "Benzene_dimer_T-shaped",
    "Adenine-thymine_complex_stack",
)


def chemistry_plots(columns: Sequence[Column]) -> dict[str, bytes]:
    """Return plots of the results of all potentials, PNG by name.

    Parameters
    ----------
    columns : sequence of (str, dict)
        Title and results of each potential; the results have an entry ``measured``.
    """
    liquids = [
        (title, measured)
        for title, results in columns
        for name, measured in results["measured"].items()
        if name.startswith("pair-distribution") and "g" in measured
    ]
    plots: list[tuple[str, Drawer, list[Column], int, int]] = [
        ("dimers pulled apart", _dimers, _having(columns, "interactions"), 2, 3),
        ("torsion profiles", _torsions, _having(columns, "torsions"), 3, 4),
        ("pair distribution of water", _water, liquids, 1, 1),
    ]
    return {
        name: _plot(draw, shown, n_rows, n_columns)
        for name, draw, shown, n_rows, n_columns in plots
        if shown
    }


def _having(columns: Sequence[Column], experiment: str) -> list[Column]:
    return [
        (title, results["measured"][experiment])
        for title, results in columns
        if "refused" not in results["measured"].get(experiment, {"refused": ""})
    ]


def _plot(draw: Drawer, columns: Sequence[Column], n_rows: int, n_columns: int) -> bytes:
    size = (3.4 * n_columns + 0.6, 2.6 * n_rows + 0.4)
    figure = extra("matplotlib.figure").Figure(figsize=size, layout="constrained")
    panels = figure.subplots(n_rows, n_columns, squeeze=False)
    for axes in panels.flat:
        axes.spines[["top", "right"]].set_visible(False)
    draw(panels.ravel(), columns)
    panels[0, 0].legend(fontsize="x-small", frameon=False)
    stream = BytesIO()
    figure.savefig(stream, format="png", dpi=DPI)
    return stream.getvalue()


def _style(title: str) -> str:
    return "k--" if title.endswith("the teacher") else ":" if title == "gfn2-xtb" else "-"


def _dimers(panels: Any, columns: Sequence[Column]) -> None:
    distances = [f"{distance:.2f}" for distance in interactions.DISTANCES]
    for axes, name in zip(panels, DIMERS, strict=True):
        for title, measured in columns:
            energies_by_distance = measured["apart"][name]
            places = [place for place in distances if place in energies_by_distance]
            energies = [energies_by_distance[place] for place in places]
            axes.plot([float(place) for place in places], energies, _style(title), label=title)
        axes.axhline(0.0, color="0.6", lw=0.7)
        axes.set_title(name.replace("_", " "), fontsize="small")
        axes.set(xlabel="closest distance (Å)", ylabel="energy (kcal/mol)")


def _torsions(panels: Any, columns: Sequence[Column]) -> None:
    for axes, name in zip(panels, torsions.FRAGMENTS, strict=True):
        for title, measured in columns:
            axes.plot(torsions.ANGLES, measured["profiles"][name], _style(title), label=title)
        axes.set_title(name, fontsize="small")
        axes.set(xlabel="angle (°)", ylabel="energy (kcal/mol)", xticks=np.arange(0, 181, 60))


def _water(panels: Any, columns: Sequence[Column]) -> None:
    axes = panels[0]
    for title, measured in columns:
        axes.plot(measured["distances"], measured["g"]["O-O"], _style(title), label=title)
    axes.set(xlabel="O-O distance (Å)", ylabel="g(r)", title="water, 300 K")
