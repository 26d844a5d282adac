"""The chemistry section as text and as HTML."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from typing import Any

from ase_student.validation.chemistry.plots import chemistry_plots
from ase_student.validation.chemistry.verdicts import GOOD, POOR

Rows = list[tuple[str, list[str]]]


def columns_of(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return title and results of each potential: students, other methods, teachers."""
    columns: list[tuple[str, dict[str, Any]]] = []
    for student in document["students"]:
        if student["name"] not in [title for title, _ in columns]:
            columns.append((student["name"], student["chemistry"]))
    for one in document["chemistry"]["references"]:
        title = f"{one['name']}, the teacher" if one["is_teacher"] else one["name"]
        columns.append((title, one))
    return columns


def label_of(figure: dict[str, Any]) -> str:
    """Return what a figure is, against what and in which unit."""
    against = {"teacher": " to the teacher", "": ""}.get(
        figure["against"], f" to {figure['against']}"
    )
    unit = f", {figure['unit']}" if figure["unit"] else ""
    return f"{figure['name']}{against}{unit}"


def rows_of(document: dict[str, Any]) -> Rows:
    """Return label and cells of each figure."""
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
    said = [f"{title}: {results['words']}" for title, results in verdicts_of(document)]
    return "\n".join([*lines, "", *said, *refusals(document)])


def chemistry_section(document: dict[str, Any]) -> str:
    """Return verdicts, figures and plots as HTML."""
    titles = [title for title, _ in columns_of(document)]
    rows = [[escape(label), *cells] for label, cells in rows_of(document)]
    parts = [
        "<h2>Chemistry</h2>",
        *(_verdicts(title, results) for title, results in verdicts_of(document)),
        "<h3>Figures</h3>",
        _table(["", *map(escape, titles)], rows),
        "".join(f"<p>{escape(text)}</p>" for text in refusals(document)),
        *(
            f'<p class="soft">{escape(one["name"])}: {escape(_settings_of(one))}</p>'
            for one in document["chemistry"]["references"]
        ),
        '<div class="plots">',
        *(
            f'<img alt="{escape(name)}" src="data:image/png;base64,'
            f'{base64.b64encode(content).decode("ascii")}">'
            for name, content in chemistry_plots(columns_of(document)).items()
        ),
        "</div>",
    ]
    return "".join(parts)


def _settings_of(reference: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in sorted(reference["settings"].items()))


def _verdicts(title: str, results: dict[str, Any]) -> str:
    kinds = {GOOD: "pass", POOR: "FAIL"}
    rows = [
        [
            escape(one["topic"]),
            f'<span class="{kinds.get(one["grade"], "soft")}">{escape(one["grade"])}</span>',
            f'<span class="soft">{escape(one["sentence"])}</span>',
        ]
        for one in results["verdicts"]
    ]
    return f"<h3>What {escape(title)} is good for</h3>{_table(['', '', ''], rows)}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose cells are HTML."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{top}</tr>{body}</table></div>'


def chemistry_page(document: dict[str, Any], style: str) -> str:
    """Return a report of chemistry alone, with a style sheet."""
    names = ", ".join(dict.fromkeys(student["name"] for student in document["students"]))
    rows = "".join(
        f"<tr><td>{escape(key)}</td><td>{escape(str(text))}</td></tr>"
        for key, text in [
            ("made", document["made"]),
            ("command", document["command"]),
            *((one["name"], one["weights_sha256"]) for one in document["students"]),
            *document["versions"].items(),
            ("machine", document["machine"]),
        ]
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Chemistry of {escape(names)}</title><style>{style}</style></head><body>"
        f"<h1>Chemistry of {escape(names)}</h1>{chemistry_section(document)}"
        f"<h2>How this was made</h2><table>{rows}</table></body></html>\n"
    )
