"""Results of the chemistry section as rows of a table and as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Rows = list[tuple[str, list[str]]]


def columns_of(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return title and results of each potential: students, other methods, teachers."""
    columns: list[tuple[str, dict[str, Any]]] = []
    for student in document["students"]:
        if student["name"] not in [title for title, _ in columns]:
            columns.append((student["name"], student["chemistry"]))
    for reference in document["chemistry"]["references"]:
        title = (
            f"{reference['name']}, the teacher" if reference["is_teacher"] else reference["name"]
        )
        columns.append((title, reference))
    return columns


def label_of(figure: dict[str, Any]) -> str:
    """Return the label of a figure: its name, what it is compared with, and its unit."""
    against = {"teacher": " to the teacher", "": ""}.get(
        figure["against"], f" to {figure['against']}"
    )
    unit = f", {figure['unit']}" if figure["unit"] else ""
    return f"{figure['name']}{against}{unit}"


def rows_of(document: dict[str, Any]) -> Rows:
    """Return label and cells of the row of each figure."""
    columns = columns_of(document)
    values: dict[str, dict[int, str]] = {}
    for place, (_, results) in enumerate(columns):
        for figure in results["figures"]:
            if figure["value"] is not None:
                values.setdefault(label_of(figure), {})[place] = f"{figure['value']:.4g}"
    return [
        (label, [cells.get(place, "–") for place in range(len(columns))])
        for label, cells in values.items()
    ]


def refusals(document: dict[str, Any]) -> list[str]:
    """Return a sentence for each experiment that a potential refused."""
    return [
        f"{title}: no {experiment}, {measured['refused']}"
        for title, results in columns_of(document)
        for experiment, measured in results["measured"].items()
        if "refused" in measured
    ]


def verdicts_of(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return title and results of each student."""
    return [pair for pair in columns_of(document) if "verdicts" in pair[1]]


def chemistry_table(document: dict[str, Any]) -> str:
    """Return the figures as text for a terminal."""
    titles = [title for title, _ in columns_of(document)]
    rows = rows_of(document)
    first = max((len(label) for label, _ in rows), default=0)
    widths = [max(len(title), 8) for title in titles]

    def line(label: str, cells: Sequence[str]) -> str:
        padded = (f"  {cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        return label.ljust(first) + "".join(padded)

    lines = [line("chemistry", titles), *(line(label, cells) for label, cells in rows)]
    sentences = [f"{title}: {results['words']}" for title, results in verdicts_of(document)]
    return "\n".join([*lines, "", *sentences, *refusals(document)])
