"""HTML page with all results, which needs no network and no other file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ase import Atoms

from ase_student.templates import image, render
from ase_student.validation.chemistry.plots import chemistry_plots
from ase_student.validation.chemistry.report import columns_of, refusals, rows_of, verdicts_of
from ase_student.validation.chemistry.verdicts import GOOD, POOR
from ase_student.validation.report import viewer
from ase_student.validation.report.table import (
    GROUPS,
    accuracy_rows,
    check_value,
    figure,
    lookup,
    speed_text,
    title_of,
    verdict,
)

OVERVIEW = (
    "student", "parameters", "force RMSE, eV/Å", "force variance explained, %", "cost", "physics",
)  # fmt: skip
FORCE_GROUPS = ("components", "σ, eV/Å", "RMSE, eV/Å", "MAE, eV/Å", "R²", "weighted angle, °")
ENERGY_GROUPS = ("MAE, meV/atom", "RMSE, meV/atom", "MAE, meV")


def page(
    document: dict[str, Any],
    plots: Sequence[Mapping[str, bytes]],
    comparison: bytes,
    *,
    worst: Sequence[Sequence[Atoms]],
) -> str:
    """Return the report as HTML.

    Parameters
    ----------
    document : dict
        Content of ``metrics.json``.
    plots : sequence of mapping
        Plots of each student, PNG by name.
    comparison : bytes
        PNG of error against cost.
    worst : sequence of sequence of Atoms
        The worst structures of each student.
    """
    students, data = document["students"], document["data"]
    titles = [title_of(student) for student in students]
    flat = [atoms for structures in worst for atoms in structures]
    owners = [title for title, structures in zip(titles, worst, strict=True) for _ in structures]
    return render(
        "validation/report/report.html.jinja",
        title=f"Validation on {data['file']}",
        data=data,
        overview_head=OVERVIEW,
        overview=_overview(document),
        comparison=image(comparison),
        accuracy={
            "head": ["", *titles],
            "rows": [[n, *cells] for n, cells in accuracy_rows(students)],
        },
        groups_of_students=[(title_of(student), _groups(student)) for student in students],
        physics=[(title_of(student), _physics(student)) for student in students],
        chemistry=_chemistry(document) if "chemistry" in document else None,
        plots_of_students=[(title, _images(own)) for title, own in zip(titles, plots, strict=True)],
        viewer={"structures": viewer.dataset(flat, owners), "program": viewer.script()}
        if flat
        else None,
        origin=_origin(document),
    )


def chemistry_page(document: dict[str, Any]) -> str:
    """Return a report that has only the section on chemistry, as HTML."""
    names = ", ".join(dict.fromkeys(student["name"] for student in document["students"]))
    return render(
        "validation/report/chemistry_page.html.jinja",
        title=f"Chemistry of {names}",
        chemistry=_chemistry(document),
        origin=_origin(document),
    )


def _images(plots: Mapping[str, bytes]) -> list[tuple[str, str]]:
    return [(name, image(content)) for name, content in plots.items()]


def _overview(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of the overview: cells, number of passed checks, names of failed checks."""
    rows = []
    teacher = document["teacher"]
    for student in document["students"]:
        failed = [check["name"] for check in student["physics"] if check["passed"] is False]
        judged = [check for check in student["physics"] if check["passed"] is not None]
        n_parameters = student["n_parameters"]
        cells = [
            title_of(student),
            f"{n_parameters:,}" if n_parameters else "–",
            figure(lookup(student["accuracy"], ("forces", "rmse"))),
            figure(lookup(student["accuracy"], ("forces", "r2")), 100.0, 2),
            speed_text(student, teacher),
        ]
        checks = f"{len(judged) - len(failed)} of {len(judged)} pass"
        rows.append({"cells": cells, "checks": checks, "failed": ", ".join(failed)})
    if teacher is not None:
        rmse = teacher["force_rmse"]
        own = "–" if rmse is None else f"{rmse:.4f} against its labels"
        cost = f"{teacher['speed']['microseconds_per_atom']:.1f} µs/atom"
        cells = [f"teacher {teacher['name']}", "", own, "", cost]
        rows.append({"cells": cells, "checks": "", "failed": ""})
    return rows


def _groups(student: dict[str, Any]) -> list[tuple[list[str], list[list[str]]]]:
    """Return head and rows of a table for each grouping of the data."""
    tables = []
    for key, heading in GROUPS.items():
        groups = lookup(student["accuracy"], ("forces", key)) or {}
        rows = [
            [
                name,
                f"{errors['n_components']:,}",
                figure(errors["sigma"], digits=3).split(" (")[0],
                figure(errors["rmse"]),
                figure(errors["mae"]),
                figure(errors["r2"], digits=4),
                figure(errors["angle_weighted"], digits=1),
            ]
            for name, errors in groups.items()
        ]
        tables.append(([heading, *FORCE_GROUPS], rows))
    for key in ("by_source", "by_size"):
        groups = lookup(student["accuracy"], ("energy", key)) or {}
        rows = [
            [
                name,
                figure(errors["mae_per_atom"], 1000.0, 2),
                figure(errors["rmse_per_atom"], 1000.0, 2),
                figure(errors["mae"], 1000.0, 1),
            ]
            for name, errors in groups.items()
        ]
        tables.append(([f"shifted energy {GROUPS[key]}", *ENERGY_GROUPS], rows))
    return [(head, rows) for head, rows in tables if rows]


def _physics(student: dict[str, Any]) -> list[dict[str, str]]:
    return [
        {
            "verdict": verdict(check),
            "name": check["name"],
            "value": check_value(check),
            "detail": check["detail"],
        }
        for check in student["physics"]
    ]


def _chemistry(document: dict[str, Any]) -> dict[str, Any]:
    """Return the content of the section on chemistry."""
    columns = columns_of(document)
    return {
        "verdicts": [(title, results["verdicts"]) for title, results in verdicts_of(document)],
        "kinds": {GOOD: "pass", POOR: "FAIL"},
        "head": ["", *(title for title, _ in columns)],
        "rows": [[label, *cells] for label, cells in rows_of(document)],
        "refusals": refusals(document),
        "references": [
            (
                reference["name"],
                ", ".join(f"{key} {value}" for key, value in sorted(reference["settings"].items())),
            )
            for reference in document["chemistry"]["references"]
        ],
        "images": _images(chemistry_plots(columns)),
    }


def _origin(document: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """Return the origin of the results as rows: name, text, whether the text is code."""
    data = document["data"]
    return [
        ("made", document["made"], False),
        ("command", document["command"], True),
        *([] if data is None else [("data", data["sha256"], True)]),
        *(
            (
                student["name"] if data is None else title_of(student),
                student["weights_sha256"],
                True,
            )
            for student in document["students"]
        ),
        *((name, text, False) for name, text in document["versions"].items()),
        ("machine", document["machine"], False),
    ]
