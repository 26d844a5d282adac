"""Write committed results of the chemistry section into the README as a table."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import fill
from typing import Any

from ase_student.files import between_marks, replaced_when_complete
from ase_student.validation.chemistry.report import columns_of, label_of

BEGIN = "<!-- chemistry: begin; written by python -m ase_student.validation.chemistry readme -->"
END = "<!-- chemistry: end -->"
#: Figures of the table: the beginning of their labels, and their names in the table.
LINES = {
    "S22 interaction energies, mean absolute difference to the teacher":
        "S22 dimers against the teacher, kcal/mol",
    "S22 interaction energies, mean absolute difference to CCSD(T)":
        "S22 dimers against CCSD(T), kcal/mol",
    "S22 pulled apart to 3.5–4.5 Å, mean absolute difference to the teacher":
        "the same pulled apart to 3.5–4.5 Å, against the teacher, kcal/mol",
    "S22 pulled apart to 3.5–4.5 Å, difference of the summed energies":
        "their summed attraction, deviation from the teacher, %",
    "torsion barriers of drug fragments, mean absolute difference":
        "torsion barriers of 12 drug fragments against the teacher, kcal/mol",
    "torsion barriers, mean difference": "torsion barriers, mean deviation from the teacher, %",
    "relative energies of conformers": "energies of conformers against the teacher, kcal/mol",
    "frequencies of G2 molecules": "frequencies of G2 molecules against the teacher, cm⁻¹",
    "cell lengths of molecular crystals, mean absolute difference to experiment":
        "cells of urea, CO2, benzene, ice against experiment, %",
    "molecular crystals lost": "of these 4 crystals, number lost",
    "pressure of a frame": "pressure of liquid water, deviation from the teacher, kbar",
    "first O-O peak of water, difference of the height":
        "height of the O-O peak of water, deviation from experiment",
    "density of water": "density of water, deviation from experiment, %",
}  # fmt: skip


def chemistry_markdown(document: dict[str, Any]) -> str:
    """Return the table, and below it the verdicts on each student, in Markdown.

    Parameters
    ----------
    document : dict
        Content of ``metrics.json`` of ``python -m ase_student.validation --chemistry``.

    Raises
    ------
    ValueError
        If it has no results of chemistry.
    """
    if "chemistry" not in document:
        raise ValueError("the results hold no chemistry: run the validation with --chemistry.")
    columns = columns_of(document)
    students = [title for title, results in columns if "verdicts" in results]
    head = [f"`{title}`" if title in students else title for title, _ in columns]
    values: list[dict[str, str]] = [
        {
            label_of(figure): f"{figure['value']:.3g}"
            for figure in results["figures"]
            if figure["value"] is not None
        }
        for _, results in columns
    ]
    lines = [f"| | {' | '.join(head)} |", "|---" * (len(head) + 1) + "|"]
    for start, text in LINES.items():
        cells = [
            next((value for label, value in column.items() if label.startswith(start)), "")
            for column in values
        ]
        if any(cells):
            lines.append(f"| {text} | {' | '.join(cells)} |")
    sentences = [
        fill(f"- `{title}`: {results['words']}", 100, subsequent_indent="  ")
        for title, results in columns
        if "verdicts" in results
    ]
    return "\n".join([*lines, "", *sentences])


def write_readme(results: Path, readme: Path) -> str:
    """Write the results of a file into a README, between its two marks, and return a summary.

    Raises
    ------
    ValueError
        If the README does not have the marks once and in order, or the results hold no chemistry.
    """
    document = json.loads(results.read_text(encoding="utf-8-sig"))
    text = readme.read_text(encoding="utf-8")
    table = chemistry_markdown(document)
    new_text = between_marks(text, BEGIN, END, new=table, file=str(readme))
    with replaced_when_complete(readme) as temporary:
        temporary.write_text(new_text, encoding="utf-8")
    return f"wrote the table of chemistry in '{readme}'"
