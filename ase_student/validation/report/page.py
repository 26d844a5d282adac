"""One page with all results, which needs no network and no other file."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ase import Atoms

from ase_student.validation.chemistry.report import chemistry_section
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

STYLE = """
:root { --ink: #1a1a1a; --soft: #666; --line: #ddd; --good: #00714f; --bad: #b03a00; }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: #fff;
  margin: 0 auto; max-width: 1180px; padding: 1rem 1.2rem 4rem; }
h1 { font-size: 1.6rem; } h2 { margin-top: 2.4rem; border-bottom: 1px solid var(--line); }
p, li { max-width: 50rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .6rem 0; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
.figures td, .figures th { white-space: nowrap; font-size: .9em; }
.pass { color: var(--good); } .FAIL { color: var(--bad); font-weight: bold; }
.soft { color: var(--soft); font-size: .9em; }
.plots { display: flex; flex-wrap: wrap; gap: .5rem; }
.plots img { max-width: 100%; width: 540px; height: auto; }
#viewer { display: grid; grid-template-columns: 1fr 1fr; gap: .6rem; min-height: 520px; }
#viewer > div { position: relative; }
#chemiscope-map, #chemiscope-structure { height: 480px; border: 1px solid var(--line); }
@media (max-width: 800px) { #viewer { grid-template-columns: 1fr; } }
"""
START = """
const shown = JSON.parse(document.getElementById("worst-structures").textContent);
const config = { meta: "chemiscope-meta", map: "chemiscope-map", info: "chemiscope-info",
  structure: "chemiscope-structure" };
const warnings = new Chemiscope.Warnings();
warnings.addHandler((message) => console.warn(message));
Chemiscope.DefaultVisualizer.load(config, shown, warnings).then(
  () => { document.body.dataset.viewer = "ready"; },
  (error) => {
    document.body.dataset.viewer = "failed";
    document.getElementById("viewer-error").textContent =
      "The structures cannot be shown in this browser (" + error + ").";
  });
"""
ABOUT = """
<p>R² is 1 minus the mean squared error of force components over their variance, so 100 R² is the
share of the force variance that is explained, of which at least 95 % are expected. The first angle
between the two forces is the mean over atoms, the second is weighted by the teacher's force, so
that atoms at rest don't count. Shifted energies are compared after a least-squares fit of one
energy per element to these structures, which takes out another zero of energy and nothing else.
Brackets hold 95 % intervals from 200 draws of structures (bootstrap).</p>
"""


def page(
    document: dict[str, Any],
    plots: Sequence[Mapping[str, bytes]],
    comparison: bytes,
    worst: Sequence[Sequence[Atoms]],
) -> str:
    """Return the report as HTML.

    Parameters
    ----------
    document : dict
        What ``metrics.json`` holds.
    plots : sequence of mapping
        Those of each student, PNG by name.
    comparison : bytes
        PNG of error against cost.
    worst : sequence of sequence of Atoms
        The worst structures of each student.
    """
    students, data = document["students"], document["data"]
    parts = [
        f"<h1>Validation on {escape(data['file'])}</h1>",
        _overview(document),
        _image(comparison, "error and cost"),
        "<h2>Accuracy</h2>",
        _accuracy(students),
        ABOUT,
        *(_groups(student) for student in students),
        *(["<h2>Physics</h2>"] if any(student["physics"] for student in students) else []),
        *(_physics(student) for student in students if student["physics"]),
        chemistry_section(document) if "chemistry" in document else "",
        "<h2>Plots</h2>",
    ]
    for student, own in zip(students, plots, strict=True):
        images = "".join(_image(content, name) for name, content in own.items())
        parts.append(f'<h3>{escape(title_of(student))}</h3><div class="plots">{images}</div>')
    flat = [atoms for one in worst for atoms in one]
    names = [title_of(s) for s, one in zip(students, worst, strict=True) for _ in one]
    if flat:
        parts.append(_viewer(flat, names))
    parts += [_left_out(data), _origin(document)]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Validation on {escape(data['file'])}</title><style>{STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "") -> str:
    """Return a table, its cells HTML, of a class of the style sheet."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="wide {kind}"><table><tr>{top}</tr>{body}</table></div>'


def _image(content: bytes, name: str) -> str:
    data = base64.b64encode(content).decode("ascii")
    return f'<img alt="{escape(name)}" src="data:image/png;base64,{data}">'


def _overview(document: dict[str, Any]) -> str:
    data, teacher = document["data"], document["teacher"]
    rows = []
    for student in document["students"]:
        failed = [check["name"] for check in student["physics"] if check["passed"] is False]
        judged = [check for check in student["physics"] if check["passed"] is not None]
        said = f"{len(judged) - len(failed)} of {len(judged)} pass"
        if failed:
            said = f'<span class="FAIL">{said}</span>: {escape(", ".join(failed))} fail'
        n_parameters = student["n_parameters"]
        rows.append(
            [
                escape(title_of(student)),
                f"{n_parameters:,}" if n_parameters else "–",
                figure(lookup(student["accuracy"], ("forces", "rmse"))),
                figure(lookup(student["accuracy"], ("forces", "r2")), 100.0, 2),
                escape(speed_text(student, teacher)),
                said,
            ]
        )
    if teacher is not None:
        rmse = teacher["force_rmse"]
        own = "–" if rmse is None else f"{rmse:.4f} against its labels"
        cost = f"{teacher['speed']['microseconds_per_atom']:.1f} µs/atom"
        rows.append([f"teacher {escape(teacher['name'])}", "", own, "", cost, ""])
    head = [
        "student", "parameters", "force RMSE, eV/Å", "force variance explained, %", "cost",
        "physics",
    ]  # fmt: skip
    intro = (
        f"<p>{data['n_used']:,} of {data['n_structures']:,} structures, {data['n_atoms']:,} atoms"
        f"{', labelled by ' + escape(str(data['teacher'])) if data['teacher'] else ''}.</p>"
    )
    return intro + _table(head, rows)


def _accuracy(students: Sequence[dict[str, Any]]) -> str:
    rows = [[escape(name), *cells] for name, cells in accuracy_rows(students)]
    return _table(["", *(escape(title_of(student)) for student in students)], rows)


def _groups(student: dict[str, Any]) -> str:
    parts = [f"<h3>Parts of the data, {escape(title_of(student))}</h3>"]
    for key, heading in GROUPS.items():
        groups = lookup(student["accuracy"], ("forces", key)) or {}
        rows = [
            [
                escape(name),
                f"{one['n_components']:,}",
                figure(one["sigma"], digits=3).split(" (")[0],
                figure(one["rmse"]),
                figure(one["mae"]),
                figure(one["r2"], digits=4),
                figure(one["angle_weighted"], digits=1),
            ]
            for name, one in groups.items()
        ]
        if rows:
            head = [
                heading, "components", "σ, eV/Å", "RMSE, eV/Å", "MAE, eV/Å", "R²",
                "weighted angle, °",
            ]  # fmt: skip
            parts.append(_table(head, rows, "figures"))
    for key in ("by_source", "by_size"):
        groups = lookup(student["accuracy"], ("energy", key)) or {}
        rows = [
            [
                escape(name),
                figure(one["mae_per_atom"], 1000.0, 2),
                figure(one["rmse_per_atom"], 1000.0, 2),
                figure(one["mae"], 1000.0, 1),
            ]
            for name, one in groups.items()
        ]
        if rows:
            head = [
                f"shifted energy {GROUPS[key]}", "MAE, meV/atom", "RMSE, meV/atom", "MAE, meV",
            ]  # fmt: skip
            parts.append(_table(head, rows, "figures"))
    return "".join(parts) if len(parts) > 1 else ""


def _physics(student: dict[str, Any]) -> str:
    rows = [
        [
            f'<span class="{verdict(check)}">{verdict(check)}</span>',
            escape(check["name"]),
            escape(check_value(check)),
            f'<span class="soft">{escape(check["detail"])}</span>',
        ]
        for check in student["physics"]
    ]
    return f"<h3>{escape(title_of(student))}</h3>{_table(['', 'check', 'value', ''], rows)}"


def _viewer(structures: Sequence[Atoms], names: Sequence[str]) -> str:
    return (
        "<h2>Worst structures</h2><p>Those with the largest force errors. Turn them with the "
        "mouse. Arrows are forces, blue the teacher's and orange the student's, in every "
        "structure scaled to its largest; colors are the errors of atoms.</p>"
        '<p id="viewer-error" class="FAIL"></p>'
        '<div id="chemiscope-meta"></div><div id="viewer">'
        '<div><div id="chemiscope-map"></div></div>'
        '<div><div id="chemiscope-structure"></div><div id="chemiscope-info"></div></div></div>'
        f'<script type="application/json" id="worst-structures">'
        f"{viewer.dataset(structures, names)}</script>"
        f"<script>{viewer.script()}</script><script>{START}</script>"
    )


def _left_out(data: dict[str, Any]) -> str:
    if not data["left_out"]:
        return ""
    rows = "".join(f"<li>{escape(one['reason'])}</li>" for one in data["left_out"])
    more = data["n_left_out"] - len(data["left_out"])
    tail = f"<p>and {more:,} more.</p>" if more else ""
    return f"<h2>Left out</h2><ul>{rows}</ul>{tail}"


def _origin(document: dict[str, Any]) -> str:
    data = document["data"]
    rows = [
        ["made", escape(document["made"])],
        ["command", f"<code>{escape(document['command'])}</code>"],
        ["data", f"<code>{data['sha256']}</code>"],
        *(
            [escape(title_of(student)), f"<code>{student['weights_sha256']}</code>"]
            for student in document["students"]
        ),
        *([escape(name), escape(text)] for name, text in document["versions"].items()),
        ["machine", escape(document["machine"])],
    ]
    return f"<h2>How this was made</h2>{_table(['', ''], rows)}"
