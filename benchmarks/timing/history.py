"""Speed and error over releases: add a student to the history, or draw the history."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from ase_student import StudentCalculator
from ase_student.files import replaced_when_complete
from ase_student.provenance import __version__
from ase_student.testing import structure
from timing.clock import undisturbed_clock
from timing.dynamics import dynamics
from timing.machine import hardware, versions
from timing.plot import COLORS, MARKERS, new_figure, save
from timing.structures import waters

HISTORY = Path("benchmarks/history.jsonl")
PLOT = Path("docs/history.png")
SYSTEMS = {"aspirin": lambda: structure("aspirin"), "64 waters": lambda: waters(64)}
ROUNDS = 7
#: Number of steps of aspirin; larger systems run fewer.
STEPS = 200
Line = dict[str, Any]
#: Keys that identify a line; of two lines with the same values, the newer one is kept.
KEY = ("version", "student", "backend", "threads", "cpu")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument(
        "--history", type=Path, default=HISTORY, help="file with a line of JSON per entry"
    )
    parser.add_argument(
        "--add", type=Path, metavar="FOLDER",
        help="measure a student with its model card, e.g. ase_student/students/tiny",
    )  # fmt: skip
    parser.add_argument(
        "--merge", type=Path, metavar="FILE", help="add the lines of another history"
    )
    parser.add_argument("--backend", default="auto", help="backend of the student, for --add")
    parser.add_argument(
        "--threads", type=int, default=1, help="CPU threads, for --add (default: 1)"
    )
    parser.add_argument(
        "--plot",
        type=Path,
        default=PLOT,
        help="image to write if neither --add nor --merge is given",
    )


def run(arguments: argparse.Namespace) -> str:
    """Add lines to the history, or draw it, and return a summary.

    Raises
    ------
    FileNotFoundError
        If there is no history, or no student.
    ValueError
        If a line is damaged.
    """
    path: Path = arguments.history
    if arguments.add is None and arguments.merge is None:
        lines = read_history(path)
        save(draw(lines), arguments.plot)
        return f"wrote '{arguments.plot}', {len(lines)} lines of '{path}'"
    new = [] if arguments.merge is None else read_history(arguments.merge)
    if arguments.add is not None:
        new.append(measured(arguments.add, arguments.backend, arguments.threads))
    lines = merged(read_history(path) if path.is_file() else [], new)
    with replaced_when_complete(path) as temporary:
        text = "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines)
        temporary.write_text(text, encoding="utf-8")
    return f"wrote '{path}', {len(lines)} lines"


def read_history(path: Path) -> list[Line]:
    """Return the lines of a history.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a line is not one of those that :func:`measured` returns.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no history '{path}': add a student with --add FOLDER.")
    lines = []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            line: Line = json.loads(text)
            key_of(line)
            if not all(time > 0.0 for time in line["milliseconds_per_step"].values()):
                raise ValueError("times must be positive")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"'{path}', line {number}, is no line of history: {error!r}."
            ) from error
        lines.append(line)
    return lines


def key_of(line: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the values that identify a line: release, student, backend, threads, processor."""
    values = {**line, "cpu": line["hardware"]["cpu"]}
    return tuple(str(values[name]) for name in KEY)


def merged(old: Sequence[Line], new: Sequence[Line]) -> list[Line]:
    """Return all lines by date; of two lines with the same key, only the new one is kept."""
    lines = {key_of(line): line for line in [*old, *new]}
    return sorted(lines.values(), key=lambda line: str(line["date"]))


def measured(folder: Path, backend: str, threads: int) -> Line:
    """Return the line of a student: errors of its model card, and times of dynamics in ASE.

    Parameters
    ----------
    folder : path
        Folder with ``weights.safetensors`` and ``metrics.json``.
    backend : str
    threads : int

    Raises
    ------
    FileNotFoundError
        If one of these two files is missing.
    """
    weights, card = folder / "weights.safetensors", folder / "metrics.json"
    for path in (weights, card):
        if not path.is_file():
            raise FileNotFoundError(f"no '{path}': --add takes the folder of a bundled student.")
    report = json.loads(card.read_text(encoding="utf-8"))
    calculator = StudentCalculator(
        weights, backend=backend, device="cpu", threads=threads, guard="off"
    )
    table = report.get("stability") or {}
    return {
        "version": __version__,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "student": folder.absolute().name,
        "weights_sha256": calculator.info.weights_sha256,
        "n_parameters": calculator.info.metadata["n_parameters"],
        "backend": calculator.backend,
        "threads": threads,
        "hardware": hardware(),
        "versions": versions(),
        "milliseconds_per_step": {name: _milliseconds(name, calculator) for name in SYSTEMS},
        "errors": {
            test: {key: rows["all"][key] for key in ("force_rmse", "energy_mae")}
            for test, rows in report["metrics"].items()
            if test != "validation" and "all" in rows
        },
        "n_stable": table.get("n_stable"),
        "n_runs": table.get("n_runs"),
    }


def _milliseconds(system: str, calculator: StudentCalculator) -> float:
    """Return the median time of a step of dynamics, without the time of other processes, ms."""
    atoms = SYSTEMS[system]()
    loop, clock = dynamics(atoms, calculator), undisturbed_clock()
    steps = max(2, STEPS * 21 // len(atoms))
    seconds = []
    for _ in range(1 + ROUNDS):
        start = clock()
        loop.run(steps)
        seconds.append(clock() - start)
    # The first round warms up.
    return 1000.0 * float(np.median(seconds[1:])) / steps


def draw(lines: Sequence[Line]) -> Any:
    """Return a figure with step times (for each processor) and force errors over versions."""
    names = list(dict.fromkeys(str(line["version"]) for line in lines))
    students = sorted({str(line["student"]) for line in lines})
    cpus = sorted({str(line["hardware"]["cpu"]) for line in lines})
    figure = new_figure(figsize=(8.0, 3.6))
    times, errors = figure.subplots(1, 2)
    for student in students:
        color = COLORS[students.index(student) % len(COLORS)]
        own = [line for line in lines if line["student"] == student]
        for cpu in cpus:
            here = [line for line in own if line["hardware"]["cpu"] == cpu]
            if here:
                times.plot(
                    [names.index(str(line["version"])) for line in here],
                    [line["milliseconds_per_step"]["aspirin"] for line in here],
                    color=color,
                    marker=MARKERS[cpus.index(cpu) % len(MARKERS)],
                    label=student if len(cpus) == 1 else f"{student}, {cpu}",
                )
        tests = sorted({test for line in own for test in line["errors"]})
        for test, style in zip(tests, cycle(("-", ":", "--")), strict=False):
            with_test = [line for line in own if test in line["errors"]]
            errors.plot(
                [names.index(str(line["version"])) for line in with_test],
                [line["errors"][test]["force_rmse"] for line in with_test],
                style, color=color, marker="o", label=f"{student}, {test}",
            )  # fmt: skip
    for axes, label in ((times, "a step of aspirin in ASE (ms)"), (errors, "force RMSE (eV/Å)")):
        axes.set_xticks(range(len(names)), names)
        axes.set_xlabel("version")
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0.0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize="xx-small", frameon=False)
    return figure
