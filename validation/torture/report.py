"""Results of trials as JSON, and as a table between two marks of a page."""

from __future__ import annotations

import json
import math
import os
import platform
import textwrap
from pathlib import Path
from typing import Any

from ase_student.files import between_marks, replaced_when_complete
from ase_student.provenance import __version__, with_python
from torture.long_runs import drifts, final_figures
from torture.trials import Trial

FORMAT = 1
BEGIN = "<!-- figures: begin; written by python validation/torture -->"
END = "<!-- figures: end -->"
#: Texts in the table for figures whose names are not texts.
LABELS = {
    "largest_error": "eV or eV/Å largest difference",
    "largest_memory_growth_mb": "MB largest growth of memory",
    "largest_deviation_mev_per_atom": "meV/atom largest deviation of the total energy",
    "drift_mev_per_atom_ps": "meV/atom/ps drift",
    "drift_uncertainty_mev_per_atom_ps": "meV/atom/ps uncertainty of the drift",
    "temperature_k": "K mean temperature",
    "lost": "runs lost",
    "half_files": "half files",
}
PACKAGES = ("ase", "numpy", "h5py", "onnxruntime", "safetensors")


def header(short: bool, seed: int) -> dict[str, Any]:
    """Return what results depend on; a run continues only from results with the same header."""
    return {
        "format": FORMAT,
        "form": "short" if short else "long",
        "seed": seed,
        "versions": {"ase_student": __version__, **with_python(PACKAGES)},
        "hardware": _processor(),
        "system": platform.platform(),
        "threads": 1,
    }


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} CPUs"


def read_results(path: Path, header: dict[str, Any]) -> dict[str, Any]:
    """Return earlier results to continue from, or new results.

    Raises
    ------
    ValueError
        If the file holds other content, or results with a different header.
    """
    if not path.exists():
        return {**header, "trials": {}}
    try:
        results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8-sig"))
        differs = [key for key in header if results.get(key) != header[key]]
        results["trials"].values()
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"'{path}' does not hold results of this command ({error}).") from error
    if differs:
        raise ValueError(
            f"'{path}' holds results with other {', '.join(differs)}: delete it or write to "
            "another file."
        )
    return results


def write_results(path: Path, results: dict[str, Any]) -> None:
    """Write results under a temporary name and rename them."""
    with replaced_when_complete(path) as temporary:
        temporary.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def failures(results: dict[str, Any], trials: list[Trial]) -> list[str]:
    """Return a text for each figure that must be zero and is not, and for each drifting energy."""
    must_be_zero = [
        f"{trial.name}: {name} = {results['trials'][trial.name]['figures'][name]:g}"
        for trial in trials
        if trial.name in results["trials"]
        for name in trial.must_be_zero
        if results["trials"][trial.name]["figures"].get(name, 0) != 0
    ]
    return must_be_zero + [
        f"{trial.name}: the energy drifts"
        for trial in trials
        if drifts(results["trials"].get(trial.name, {}).get("state", {}))
    ]


def table(results: dict[str, Any], trials: list[Trial]) -> str:
    """Return the figures as a Markdown table, with the conditions of the run."""
    rows = ["| trial | figures |", "|---|---|"]
    for trial in trials:
        entry = results["trials"].get(trial.name)
        if entry is None:
            continue
        figures = {**entry["figures"], **final_figures(entry["state"])}
        words = [
            f"{_number(value)} {LABELS.get(name, name.replace('_', ' '))}"
            for name, value in figures.items()
        ]
        progress = (
            "" if entry["blocks"] == entry["of"] else f" ({entry['blocks']} of {entry['of']})"
        )
        rows.append(f"| {trial.title}{progress} | {', '.join(words)} |")
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    cells = (
        f"The {results['form']} form, seed {results['seed']}, {results['hardware']}, one thread of "
        f"each calculator; {versions}."
    )
    return "\n".join([textwrap.fill(cells, 100), "", *rows])


def _number(value: float) -> str:
    is_whole = math.isfinite(value) and value == int(value)
    return f"{value:,.0f}" if is_whole and abs(value) < 1e9 else f"{value:.3g}"


def write_table(page: Path, text: str) -> None:
    """Write a table between the marks of a page.

    Raises
    ------
    ValueError
        If the page does not have the marks once and in order.
    """
    content = page.read_text(encoding="utf-8")
    new = between_marks(content, BEGIN, END, new=text, file=str(page))
    with replaced_when_complete(page) as temporary:
        temporary.write_text(new, encoding="utf-8")
