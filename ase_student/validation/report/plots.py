"""Plots of a validation."""

from __future__ import annotations

import functools
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np

from ase_student.validation.accuracy.chunks import ERROR_EDGES, PARITY_EDGES
from ase_student.validation.accuracy.metrics import Pass
from ase_student.validation.extras import extra
from ase_student.validation.report.table import title_of

#: Colors of Okabe and Ito, which color-blind readers can distinguish.
BLUE, ORANGE, GREEN, BLACK = "#0072B2", "#D55E00", "#009E73", "#000000"
MARKERS = "osD^vP*X"
DPI = 110


def png(draw: Callable[[Any], None], width: float = 5.2, height: float = 4.0) -> bytes:
    """Return the figure that `draw` draws, as the content of a PNG file."""
    figure = extra("matplotlib.figure").Figure(figsize=(width, height), layout="constrained")
    draw(figure)
    stream = BytesIO()
    figure.savefig(stream, format="png", dpi=DPI)
    return stream.getvalue()


def _axes(figure: Any) -> Any:
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def plots_of(student: dict[str, Any], results: Pass) -> dict[str, bytes]:
    """Return the plots of one student in one backend, PNG by name."""
    plots: dict[str, bytes] = {}
    forces = student["accuracy"]["forces"]
    if forces is not None:
        plots["parity"] = png(lambda figure: _parity(figure, results, student))
        plots["errors"] = png(lambda figure: _errors(figure, results))
        plots["elements"] = png(lambda figure: _bars(figure, forces["by_element"], "element"))
        plots["magnitudes"] = png(
            lambda figure: _bars(figure, forces["by_magnitude"], "teacher's force on the atom")
        )
    for check in student["physics"]:
        drawer = CHECK_PLOTS.get(check["name"])
        if drawer is not None and check["curves"]:
            name, draw = drawer
            plots[name] = png(functools.partial(draw, check=check))
    return plots


def _parity(figure: Any, results: Pass, student: dict[str, Any]) -> None:
    axes = _axes(figure)
    used = np.flatnonzero(results.parity.any(axis=0) | results.parity.any(axis=1))
    limit = max(abs(PARITY_EDGES[used[0]]), abs(PARITY_EDGES[used[-1] + 1]))
    counts = np.ma.masked_equal(results.parity.T, 0)
    norm = extra("matplotlib.colors").LogNorm()
    mesh = axes.pcolormesh(PARITY_EDGES, PARITY_EDGES, counts, norm=norm, cmap="viridis")
    axes.plot([-limit, limit], [-limit, limit], color="0.6", lw=0.7)
    axes.set_xscale("asinh", linear_width=1.0)
    axes.set_yscale("asinh", linear_width=1.0)
    axes.set(
        xlim=(-limit, limit),
        ylim=(-limit, limit),
        xlabel="teacher's force component (eV/Å)",
        ylabel=f"{student['name']} (eV/Å)",
        title="force components",
    )
    figure.colorbar(mesh, ax=axes, label="components")


def _errors(figure: Any, results: Pass) -> None:
    axes = _axes(figure)
    share = results.errors / max(results.errors.sum(), 1)
    axes.stairs(100.0 * np.cumsum(share), ERROR_EDGES, color=BLUE, baseline=None)
    axes.set_xscale("log")
    axes.set(
        xlim=(1e-4, 10.0 * ERROR_EDGES[np.flatnonzero(results.errors)[-1]]),
        ylim=(0.0, 100.0),
        xlabel="absolute error of a force component (eV/Å)",
        ylabel="components with a smaller error (%)",
        title="distribution of errors",
    )
    axes.axvline(0.05, color="0.6", lw=0.7)


def _bars(figure: Any, groups: dict[str, Any], grouping: str) -> None:
    axes = _axes(figure)
    rmse = [errors["rmse"] for errors in groups.values()]
    values = [estimate["value"] for estimate in rmse]
    intervals = [estimate["interval"] or 2 * [estimate["value"]] for estimate in rmse]
    below = [max(0.0, v - low) for v, (low, _) in zip(values, intervals, strict=True)]
    above = [max(0.0, high - v) for v, (_, high) in zip(values, intervals, strict=True)]
    axes.bar(range(len(groups)), values, yerr=[below, above], color=BLUE, capsize=3)
    axes.set_xticks(range(len(groups)), [name.replace(" eV/Å", "") for name in groups])
    axes.tick_params(axis="x", rotation=30 if grouping != "element" else 0)
    unit = " (eV/Å)" if grouping != "element" else ""
    axes.set(xlabel=f"{grouping}{unit}", ylabel="force RMSE (eV/Å)", title=f"errors by {grouping}")


def _dimers(figure: Any, check: dict[str, Any]) -> None:
    axes = _axes(figure)
    curves = check["curves"]
    for energies in curves["energies"].values():
        axes.plot(curves["distances"], energies, lw=0.7, alpha=0.7)
    axes.set_yscale("symlog", linthresh=1.0)
    axes.axhline(0.0, color="0.6", lw=0.7)
    axes.set(
        xlabel="distance (Å)",
        ylabel="energy above separate atoms (eV)",
        title=f"two atoms, {len(curves['energies'])} pairs of elements",
    )


def _drift(figure: Any, check: dict[str, Any]) -> None:
    axes = _axes(figure)
    curves = check["curves"]
    for name, energies in curves["energies"].items():
        axes.plot(curves["times"], energies, lw=0.6, label=name)
    axes.set(xlabel="time (ps)", ylabel="total energy (meV/atom)", title="constant energy, 300 K")
    axes.legend(fontsize="x-small", frameon=False)


def _torsions(figure: Any, check: dict[str, Any]) -> None:
    axes = _axes(figure)
    curves = check["curves"]
    for color, (name, scan) in zip((BLUE, ORANGE, GREEN), curves["of"].items(), strict=False):
        is_compared = np.array(scan["compared"])
        for potential, style in (("teacher", "--"), ("student", "-")):
            energies = np.where(is_compared, 1000.0 * np.array(scan[potential]), np.nan)
            label = name if potential == "student" else None
            axes.plot(curves["angles"], energies, style, color=color, label=label)
    axes.set(xlabel="angle (°)", ylabel="energy (meV)", title="torsions; dashed: the teacher")
    axes.legend(fontsize="x-small", frameon=False)


def _frequencies(figure: Any, check: dict[str, Any]) -> None:
    axes = _axes(figure)
    for name, values in check["curves"]["of"].items():
        axes.plot(values["teacher"], values["student"], "o", ms=3, alpha=0.7, label=name)
    limit = max(max(values["teacher"]) for values in check["curves"]["of"].values())
    axes.plot([0.0, limit], [0.0, limit], color="0.6", lw=0.7)
    axes.set(xlabel="teacher (cm⁻¹)", ylabel="student (cm⁻¹)", title="harmonic frequencies")
    axes.legend(fontsize="x-small", frameon=False)


def _water(figure: Any, check: dict[str, Any]) -> None:
    axes = _axes(figure)
    for name, values in check["curves"]["g"].items():
        axes.plot(check["curves"]["distances"], values, lw=1.0, label=name)
    axes.set(
        xlabel="distance (Å)",
        ylabel="g(r)",
        ylim=(0.0, 5.0),
        title="pair distributions of water, 300 K",
    )
    axes.legend(frameon=False)


CHECK_PLOTS: dict[str, tuple[str, Callable[..., None]]] = {
    "holes in dimer curves": ("dimers", _dimers),
    "drift of the energy": ("drift", _drift),
    "torsion scans against the teacher": ("torsions", _torsions),
    "frequencies against the teacher": ("frequencies", _frequencies),
    "first O-O peak of water": ("water", _water),
}


def comparison(students: list[dict[str, Any]], teacher: dict[str, Any] | None) -> bytes:
    """Return a plot of error against cost, PNG, one point for each student and the teacher."""

    def draw(figure: Any) -> None:
        axes = _axes(figure)
        colors = extra("matplotlib").color_sequences["tab10"]
        names = list(dict.fromkeys(student["name"] for student in students))
        for index, student in enumerate(students):
            forces = student["accuracy"]["forces"]
            if forces is None:
                continue
            axes.plot(
                student["speed"]["microseconds_per_atom"],
                forces["rmse"]["value"],
                MARKERS[index % len(MARKERS)],
                color=colors[names.index(student["name"]) % 10],
                label=title_of(student),
            )
        if teacher is not None:
            cost = teacher["speed"]["microseconds_per_atom"]
            axes.plot(cost, 0.0, "*", ms=12, color=BLACK, label=f"teacher {teacher['name']}")
        axes.set_xscale("log")
        axes.set_ylim(bottom=0.0)
        axes.set(xlabel="cost (µs per atom)", ylabel="force RMSE (eV/Å)", title="error and cost")
        axes.legend(fontsize="small", frameon=False)

    return png(draw, 6.4, 4.2)
