"""The chemistry section as text and as HTML."""

from __future__ import annotations

from html import escape
from typing import Any

AGAINST = {
    "teacher": "to the teacher",
    "reference": "to CCSD(T)",
    "experiment": "to experiment",
}

Rows = list[tuple[str, list[str]]]


def columns_of(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return title and results of each potential: students, other methods, teachers."""
    columns = []
    for student in document["students"]:
        if student["name"] not in [title for title, _ in columns]:
            columns.append((student["name"], student["chemistry"]))
    for one in document["chemistry"]["references"]:
        title = f"{one['name']}, the teacher" if one["is_teacher"] else one["name"]
        columns.append((title, one))
    return columns


def label_of(figure: dict[str, Any]) -> str:
    """Return what a figure is, against what and in which unit."""
    return f"{figure['name']} {AGAINST[figure['against']]}, {figure['unit']}"


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


def chemistry_table(document: dict[str, Any]) -> str:
    """Return the figures as text for a terminal."""
    titles = [title for title, _ in columns_of(document)]
    rows = rows_of(document)
    first = max((len(label) for label, _ in rows), default=0)
    widths = [max(len(title), 8) for title in titles]
    lines = [
        "chemistry".ljust(first)
        + "".join(f"  {title:>{width}}" for title, width in zip(titles, widths, strict=True))
    ]
    lines += [
        label.ljust(first)
        + "".join(f"  {cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        for label, cells in rows
    ]
    return "\n".join([*lines, *refusals(document)])


def chemistry_section(document: dict[str, Any]) -> str:
    """Return the figures as HTML."""
    head = "".join(f"<th>{escape(title)}</th>" for title, _ in columns_of(document))
    body = "".join(
        f"<tr><td>{escape(label)}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
        for label, cells in rows_of(document)
    )
    said = "".join(f"<p>{escape(text)}</p>" for text in refusals(document))
    return (
        f'<h2>Chemistry</h2><div class="wide"><table><tr><th></th>{head}</tr>{body}</table></div>'
        f"{said}"
    )


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
