"""Results as text for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

#: Name in the table, path in the accuracy of a student, factor, digits.
ACCURACY_ROWS = (
    ("force RMSE, eV/Å", ("forces", "rmse"), 1.0, 4),
    ("force MAE, eV/Å", ("forces", "mae"), 1.0, 4),
    ("force R²", ("forces", "r2"), 1.0, 5),
    ("force variance explained, %", ("forces", "r2"), 100.0, 2),
    ("angle of forces, °", ("forces", "angle"), 1.0, 2),
    ("angle, weighted by the force, °", ("forces", "angle_weighted"), 1.0, 2),
    ("components within 0.05 eV/Å, %", ("forces", "share_close"), 100.0, 1),
    ("energy MAE, meV/atom", ("energy", "raw", "mae_per_atom"), 1000.0, 2),
    ("energy RMSE, meV/atom", ("energy", "raw", "rmse_per_atom"), 1000.0, 2),
    ("energy MAE, meV", ("energy", "raw", "mae"), 1000.0, 1),
    ("energy RMSE, meV", ("energy", "raw", "rmse"), 1000.0, 1),
    ("shifted energy MAE, meV/atom", ("energy", "shifted", "mae_per_atom"), 1000.0, 2),
    ("shifted energy RMSE, meV/atom", ("energy", "shifted", "rmse_per_atom"), 1000.0, 2),
    ("shifted energy MAE, meV", ("energy", "shifted", "mae"), 1000.0, 1),
    ("shifted energy RMSE, meV", ("energy", "shifted", "rmse"), 1000.0, 1),
    ("stress MAE, meV/Å³", ("stress", "mae"), 1000.0, 3),
    ("stress RMSE, meV/Å³", ("stress", "rmse"), 1000.0, 3),
)  # fmt: skip
GROUPS = {
    "by_source": "by source",
    "by_element": "by element",
    "by_magnitude": "by the teacher's force",
    "by_size": "by size",
}


def lookup(document: Any, path: Sequence[str]) -> Any:
    """Return the value at a path of nested dicts, None if there is no value."""
    for key in path:
        if document is None:
            return None
        document = document.get(key)
    return document


def figure(estimate: dict[str, Any] | None, factor: float = 1.0, digits: int = 4) -> str:
    """Return an estimate and its interval as text.

    Examples
    --------
    >>> figure({"value": 0.1234, "interval": [0.1, 0.2]}, 1000.0, 1)
    '123.4 (100.0 to 200.0)'
    >>> figure(None)
    '–'
    """
    if estimate is None or estimate["value"] is None:
        return "–"
    text = f"{factor * estimate['value']:.{digits}f}"
    if estimate["interval"] is None:
        return text
    low, high = estimate["interval"]
    return f"{text} ({factor * low:.{digits}f} to {factor * high:.{digits}f})"


def title_of(student: dict[str, Any]) -> str:
    """Return the title of a student in a backend."""
    return f"{student['name']}, {student['backend']}, {student['dtype']}"


def accuracy_rows(students: Sequence[dict[str, Any]]) -> list[tuple[str, list[str]]]:
    """Return name and cells of each row for which at least one student has a value."""
    rows = []
    for name, path, factor, digits in ACCURACY_ROWS:
        cells = [figure(lookup(student["accuracy"], path), factor, digits) for student in students]
        if any(cell != "–" for cell in cells):
            rows.append((name, cells))
    return rows


def check_value(check: dict[str, Any]) -> str:
    """Return value and limit of a check as text."""
    if check["value"] is None:
        return "–"
    text = f"{check['value']:.3g}"
    if check["limit"] is not None:
        text += f" (at most {check['limit']:g})"
    return f"{text} {check['unit']}".strip()


def verdict(check: dict[str, Any]) -> str:
    """Return whether a check passed, as a word."""
    return {True: "pass", False: "FAIL", None: "–"}[check["passed"]]


def speed_text(student: dict[str, Any], teacher: dict[str, Any] | None) -> str:
    """Return a student's time per atom, and how many times faster than the teacher it is."""
    cost = student["speed"]["microseconds_per_atom"]
    text = f"{cost:.1f} µs/atom"
    if teacher is not None:
        text += f", {teacher['speed']['microseconds_per_atom'] / cost:.1f} times faster"
    return text


def table(document: dict[str, Any]) -> str:
    """Return the results of a validation as text.

    Parameters
    ----------
    document : dict
        Content of ``metrics.json``.
    """
    data, teacher = document["data"], document["teacher"]
    lines = [
        f"{data['file']}: {data['n_used']} of {data['n_structures']} structures, "
        f"{data['n_atoms']} atoms; 95 % intervals in brackets"
    ]
    if data["n_invalid"]:
        lines.append(f"{data['n_invalid']} structures left out, see metrics.json")
    for student in document["students"]:
        lines += ["", title_of(student)]
        lines += [f"  {name:50} {cells[0]}" for name, cells in accuracy_rows([student])]
        for key, heading in GROUPS.items():
            groups = lookup(student["accuracy"], ("forces", key)) or {}
            if groups:
                lines.append(f"  force RMSE, eV/Å, {heading}")
            lines += [
                f"    {name:48} {figure(errors['rmse'])}, R² {figure(errors['r2'], digits=4)}"
                for name, errors in groups.items()
            ]
        for key in ("by_source", "by_size"):
            groups = lookup(student["accuracy"], ("energy", key)) or {}
            if groups:
                lines.append(f"  shifted energy MAE, meV/atom, {GROUPS[key]}")
            lines += [
                f"    {name:48} {figure(errors['mae_per_atom'], 1000.0, 2)}"
                for name, errors in groups.items()
            ]
        lines.append(f"  {'speed':50} {speed_text(student, teacher)}")
        for check in student["physics"]:
            lines.append(f"  {verdict(check):4} {check['name']:45} {check_value(check)}")
            if check["passed"] is False:
                lines.append(f"       {check['detail']}")
    if teacher is not None:
        cost = teacher["speed"]["microseconds_per_atom"]
        lines += ["", f"teacher {teacher['name']}: {cost:.1f} µs/atom"]
    return "\n".join(lines)
