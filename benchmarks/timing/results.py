"""Read result files of ``pytest benchmarks --benchmark-json``, full or condensed; condense them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ase_student.files import reason_of

#: Kinds of rows, in ``info["kind"]``.
KINDS = ("batch", "network", "size", "md", "cold start", "export", "roofline", "peer")
ENERGY, ALL = "energy", "energy, forces, virials"


@dataclass(frozen=True)
class Row:
    """Result of a case.

    Attributes
    ----------
    name : str
    seconds : float
        Median of the times of the rounds.
    lowest_seconds : float
        Time of the fastest round.
    rounds : int
        Number of rounds.
    info : dict
        Description of the case: ``kind`` (an entry of `KINDS`), ``student``, ``backend``,
        ``device``, ``threads`` and, depending on the kind, ``atoms``, ``structures`` and others.
    """

    name: str
    seconds: float
    lowest_seconds: float
    rounds: int
    info: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """Kind of the row, an entry of `KINDS`; empty if the row has none."""
        return str(self.info.get("kind", ""))

    @property
    def line(self) -> str:
        """Name of the line of a plot to which the row belongs."""
        parts = [self.info.get("student", "?"), self.info.get("backend", "")]
        if self.info.get("device", "cpu") != "cpu":
            parts.append(self.info["device"])
        if self.info.get("properties") == ENERGY:
            parts.append("energy alone")
        return ", ".join(str(part) for part in parts if part)


@dataclass(frozen=True)
class Results:
    """All rows of a file.

    Attributes
    ----------
    name : str
        Name of the file, without suffix.
    hardware, versions : dict
    rows : tuple of Row
    """

    name: str
    hardware: Mapping[str, Any]
    versions: Mapping[str, Any]
    rows: tuple[Row, ...]

    def of(self, kind: str, **wanted: Any) -> list[Row]:
        """Return the rows of a kind whose entries have the given values."""
        return [
            row
            for row in self.rows
            if row.kind == kind and all(row.info.get(key) == wanted[key] for key in wanted)
        ]


def read_results(path: Path) -> Results:
    """Return the results in a file of pytest-benchmark or in a condensed file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file has another format, or has no results.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no results '{path}'; pytest benchmarks --benchmark-json {path}")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        rows = _raw_rows(content) if "benchmarks" in content else _kept_rows(content)
        first = next(iter(rows), Row("", 1.0, 1.0, 1, {})).info
        hardware = dict(content.get("hardware") or first.get("hardware") or {})
        versions = dict(content.get("versions") or first.get("versions") or {})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"'{path}' holds no results of pytest benchmarks: {reason_of(error)}."
        ) from error
    if not rows:
        raise ValueError(f"'{path}' holds no results: every benchmark was skipped or failed.")
    if invalid := [row.name for row in rows if not 0.0 < row.seconds < float("inf")]:
        raise ValueError(f"'{path}': the time of '{invalid[0]}' must be positive.")
    return Results(path.stem, hardware, versions, tuple(rows))


def _raw_rows(content: Mapping[str, Any]) -> list[Row]:
    return [
        Row(
            str(entry["name"]),
            float(entry["stats"]["median"]),
            float(entry["stats"]["min"]),
            int(entry["stats"]["rounds"]),
            {"group": entry.get("group"), **entry["extra_info"]},
        )
        for entry in content["benchmarks"]
    ]


def _kept_rows(content: Mapping[str, Any]) -> list[Row]:
    row_keys = ("name", "median_seconds", "min_seconds", "rounds")
    return [
        Row(
            str(entry["name"]),
            float(entry["median_seconds"]),
            float(entry["min_seconds"]),
            int(entry["rounds"]),
            {key: value for key, value in entry.items() if key not in row_keys},
        )
        for entry in content["results"]
    ]


def median_of(runs: Sequence[Results]) -> Results:
    """Return each case from the run in which it has the median time.

    For an even number of runs, the faster of the two middle times is taken.

    Raises
    ------
    ValueError
        If the runs differ in hardware, versions or cases.
    """
    first = runs[0]
    for run in runs[1:]:
        if (run.hardware, run.versions) != (first.hardware, first.versions):
            raise ValueError(f"'{run.name}' is of other hardware or versions than '{first.name}'.")
        if [row.name for row in run.rows] != [row.name for row in first.rows]:
            raise ValueError(f"'{run.name}' has other cases than '{first.name}'.")
    cases = zip(*(run.rows for run in runs), strict=True)
    middle = (len(runs) - 1) // 2
    rows = tuple(sorted(case, key=lambda row: row.seconds)[middle] for case in cases)
    return Results(first.name, first.hardware, first.versions, rows)


def condensed(results: Results) -> dict[str, Any]:
    """Return results as JSON for committing, without single rounds and names of machines."""
    return {
        "about": "pytest benchmarks --benchmark-json, condensed by python benchmarks keep",
        "hardware": dict(results.hardware),
        "versions": dict(results.versions),
        "results": [
            {
                "name": row.name,
                "median_seconds": row.seconds,
                "min_seconds": row.lowest_seconds,
                "rounds": row.rounds,
                **{key: row.info[key] for key in row.info if key not in ("hardware", "versions")},
            }
            for row in results.rows
        ],
    }


def lines(rows: Iterable[Row], key: str) -> dict[str, list[Row]]:
    """Return rows by the line of a plot to which they belong, sorted by the entry `key`."""
    by_line: dict[str, list[Row]] = {}
    for row in rows:
        by_line.setdefault(row.line, []).append(row)
    return {name: sorted(by_line[name], key=lambda row: row.info[key]) for name in sorted(by_line)}


def growth(rows: Sequence[Row], smallest: int = 100) -> float | None:
    """Return the exponent p of time ∝ atoms^p, fitted to large structures.

    Parameters
    ----------
    rows : sequence of Row
        Rows with the entry ``atoms``.
    smallest : int
        Smallest number of atoms of the fit; smaller structures mostly take the time of the call.

    Returns
    -------
    float or None
        None if there are fewer than two sizes.
    """
    large = [row for row in rows if row.info["atoms"] >= smallest]
    if len({row.info["atoms"] for row in large}) < 2:
        return None
    sizes, seconds = np.log([[row.info["atoms"], row.seconds] for row in large]).T
    centered = sizes - sizes.mean()
    return float(centered @ (seconds - seconds.mean()) / (centered @ centered))
