"""Write committed results into the README as a table, and draw errors against time."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

from ase_student.files import between_marks, reason_of, replaced_when_complete
from timing.plot import COLORS, MARKERS, new_figure, save
from timing.results import Results, Row, read_results

BEGIN = "<!-- benchmarks: begin; written by python benchmarks readme -->"
END = "<!-- benchmarks: end -->"
STUDENTS = Path("ase_student/students")
BACKEND = "native"
#: Two labels whose times differ by less than this factor would overlap.
OVERLAP = 1.1
#: Longest line of the text around the table.
COLUMNS = 100


@dataclass(frozen=True)
class Line:
    """A line of the table.

    Attributes
    ----------
    text : str
        First cell of the line.
    kind : str
        Kind of the rows that it shows.
    wanted : dict
        Entries that these rows have.
    shown : callable
        Returns the text of a cell for a row.
    backend : str
    """

    text: str
    kind: str
    wanted: dict[str, Any]
    shown: Callable[[Row], str]
    backend: str = BACKEND


def _milliseconds(row: Row) -> str:
    return f"{_digits(row.info['milliseconds_per_step'])} ms"


def _per_atom(row: Row) -> str:
    return f"{_digits(row.info['microseconds_per_atom'])} µs"


def _call(row: Row) -> str:
    return f"{_digits(1000.0 * row.seconds)} ms"


def _started(row: Row) -> str:
    parts = ("import_seconds", "load_seconds", "first_call_seconds")
    return f"{sum(row.info[part] for part in parts):.2f} s"


LINES = (
    Line("MD step of aspirin (21 atoms) in ASE", "md", {"system": "aspirin"}, _milliseconds),
    Line("MD step of 64 waters", "md", {"system": "64 waters"}, _milliseconds),
    Line("MD step of 512 waters", "md", {"system": "512 waters"}, _milliseconds),
    Line(
        "MD step of 512 waters, backend `onnx`",
        "md",
        {"system": "512 waters"},
        _milliseconds,
        "onnx",
    ),
    Line(
        "per atom, 1,000 atoms of separate molecules",
        "size",
        {"phase": "molecular", "atoms": 1000},
        _per_atom,
    ),
    Line(
        "per atom, 1,000 atoms of a liquid",
        "size",
        {"phase": "condensed", "atoms": 1000},
        _per_atom,
    ),
    Line(
        "64 molecules of 16 atoms in one `calculate_many`",
        "batch",
        {"structures": 64},
        _call,
    ),
    Line(
        "the same, backend `onnx`",
        "batch",
        {"structures": 64},
        _call,
        "onnx",
    ),
    Line("import, load and first energy in a new process", "cold start", {}, _started),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("results", type=Path, help="committed file in benchmarks/results")
    parser.add_argument(
        "--peers", type=Path, help="results of make bench-peers, if they are in another file"
    )
    parser.add_argument("--readme", type=Path, default=Path("README.md"))
    parser.add_argument("--plot", type=Path, default=Path("docs/cost.png"))
    parser.add_argument("--students", type=Path, default=STUDENTS, help="folder of model cards")
    parser.add_argument(
        "--errors", default="teacher-md-so3lr", help="held-out set whose errors are drawn"
    )


def run(arguments: argparse.Namespace) -> str:
    """Write table and plot, and return a summary.

    Raises
    ------
    ValueError
        If the README does not have the two marks, the results have no rows for the table, or no
        model card has errors on the held-out set.
    """
    results = read_results(arguments.results)
    peers = results if arguments.peers is None else read_results(arguments.peers)
    text = arguments.readme.read_text(encoding="utf-8")
    new_text = replaced(text, table(results, peers), str(arguments.readme))
    figure = draw_costs(peers, force_errors(arguments.students, arguments.errors))
    save(figure, arguments.plot)
    with replaced_when_complete(arguments.readme) as temporary:
        temporary.write_text(new_text, encoding="utf-8")
    return f"wrote the table in '{arguments.readme}', and '{arguments.plot}'"


def table(results: Results, peers: Results | None = None) -> str:
    """Return a Markdown table of the times of students on the CPU, with the conditions.

    Parameters
    ----------
    results : Results
    peers : Results, optional
        Results of other potentials and of the students in the same run; by default `results`.

    Raises
    ------
    ValueError
        If the results have no rows for the table.
    """
    measured = [
        (line, results.of(line.kind, backend=line.backend, device="cpu", **line.wanted))
        for line in LINES
    ]
    students = sorted({str(row.info["student"]) for _, rows in measured for row in rows})
    if not students:
        raise ValueError(f"results '{results.name}' have no student on a CPU.")
    floor = {row.info["system"]: row for row in results.of("md", backend="none")}
    head = [*(f"`{name}`" for name in students), "zeros"]
    lines = [_caption(results), "", f"| | {' | '.join(head)} |", "|---" * (len(head) + 1) + "|"]
    for line, rows in measured:
        by_student = {str(row.info["student"]): line.shown(row) for row in rows}
        if not by_student:
            continue
        cells = [by_student.get(name, "") for name in students]
        zeros = floor.get(line.wanted.get("system")) if line.kind == "md" else None
        cells.append("" if zeros is None else line.shown(zeros))
        lines.append(f"| {line.text} | {' | '.join(cells)} |")
    lines += _beside_peers(peers or results)
    return "\n".join(lines)


def _beside_peers(results: Results) -> list[str]:
    """Return a paragraph on the step of aspirin with students and peers, the fastest first."""
    peers = results.of("peer", device="cpu")
    if not peers:
        return []
    students = results.of("md", system="aspirin", backend=BACKEND, device="cpu")
    timed = [(row.seconds, f"`{row.info['student']}`: {_milliseconds(row)}") for row in students]
    timed += [(row.seconds, f"{row.info['student']}: {_milliseconds(row)}") for row in peers]
    texts = [text for _, text in sorted(timed)]
    text = (
        f"MD step of aspirin with other potentials, in one run ({_link(results)}): "
        f"{'; '.join(texts)}."
    )
    return ["", fill(text, COLUMNS, break_on_hyphens=False)]


def _link(results: Results) -> str:
    return f"[{results.name}](benchmarks/results/{results.name}.json)"


def _caption(results: Results) -> str:
    threads = sorted({int(row.info["threads"]) for row in results.rows if "threads" in row.info})
    versions = ", ".join(
        f"{name} {results.versions[name]}"
        for name in ("python", "numpy", "onnxruntime", "ase")
        if name in results.versions
    )
    count = f"{' or '.join(map(str, threads))} thread{'s' * (threads != [1])}"
    text = (
        f"The C++ engine (`native`) with {count}, "
        f"{results.hardware.get('cpu', 'unknown processor')}, {versions}; medians; "
        "'zeros' is a calculator on ASE's base class that returns zeros: what ASE itself takes, "
        "most of it for copies and comparisons that students do without. "
        f"All results: {_link(results)}."
    )
    return fill(text, COLUMNS, break_on_hyphens=False)


def replaced(text: str, new: str, file: str) -> str:
    """Return a text with the part between the two marks replaced.

    Raises
    ------
    ValueError
        If the text does not have the marks once and in order.
    """
    return between_marks(text, BEGIN, END, new=new, file=file)


def force_errors(folder: Path, held_out: str) -> dict[str, float]:
    """Return the force RMSE, eV/Å, of each student on a held-out set, from its model card.

    Raises
    ------
    ValueError
        If no student has errors on that set, or a model card cannot be read.
    """
    errors: dict[str, float] = {}
    known: set[str] = set()
    for path in sorted(folder.glob("*/metrics.json")):
        try:
            sets = json.loads(path.read_text(encoding="utf-8-sig"))["metrics"]
            known |= sets.keys()
            if held_out in sets:
                errors[path.parent.name] = float(sets[held_out]["all"]["force_rmse"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"'{path}' is not a model card ({reason_of(error)}).") from error
    if not errors:
        listed = ", ".join(f"'{name}'" for name in sorted(known)) or "none"
        raise ValueError(f"no student in '{folder}' has errors on '{held_out}'; known: {listed}.")
    return errors


def draw_costs(results: Results, errors: dict[str, float]) -> Any:
    """Return a figure of force errors over the time of a step of aspirin.

    Students are points; peers, whose errors are unknown, are vertical lines.

    Raises
    ------
    ValueError
        If no student with errors was timed.
    """
    rows = [row for row in results.of("md", system="aspirin") if row.info["student"] in errors]
    if not rows:
        raise ValueError(f"results '{results.name}' have no dynamics of aspirin with a student.")
    figure = new_figure(figsize=(6.4, 4.2))
    axes = figure.subplots()
    students = sorted(errors)
    backends = sorted({(row.info["backend"], row.info["device"]) for row in rows})
    for row in rows:
        name = str(row.info["student"])
        axes.plot(
            row.info["milliseconds_per_step"],
            errors[name],
            color=COLORS[students.index(name) % len(COLORS)],
            marker=MARKERS[backends.index((row.info["backend"], row.info["device"]))],
            ls="none",
            label=row.line,
        )
    _draw_peers(axes, [*results.of("peer"), *results.of("md", backend="none", system="aspirin")])
    _finish(axes, rows, errors)
    return figure


def _draw_peers(axes: Any, rows: Sequence[Row]) -> None:
    """Draw a vertical line with a name for each row; names that would overlap change sides."""
    previous = 0.0
    for row in sorted(rows, key=lambda row: row.seconds):
        milliseconds = float(row.info["milliseconds_per_step"])
        side = "left" if milliseconds < OVERLAP * previous else "right"
        previous = milliseconds
        axes.axvline(milliseconds, color="0.6", lw=0.9, ls="--", zorder=0)
        axes.annotate(
            str(row.info["student"]), (milliseconds, 0.98), xycoords=("data", "axes fraction"),
            rotation=90, ha=side, va="top", fontsize="x-small", color="0.4",
        )  # fmt: skip


def _finish(axes: Any, rows: Sequence[Row], errors: dict[str, float]) -> None:
    axes.set_xscale("log")
    axes.set_ylim(0.0, 1.4 * max(errors.values()))
    axes.set_xlabel("a step of aspirin in ASE (ms)")
    axes.set_ylabel("force error on held-out molecules (RMSE, eV/Å)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize="x-small", frameon=False, loc="lower right", ncols=1 + len(rows) // 6)


def _digits(value: float) -> str:
    """Return a number with two significant digits, without an exponent."""
    return f"{value:.2g}" if value < 100 else f"{float(f'{value:.2g}'):.0f}"
