"""The report of a release, in Markdown."""

from __future__ import annotations

from typing import Any

from ase_student.provenance import __version__
from ase_student.release.settings import ReleaseSettings

_ROWS = (
    ("force_rmse", "force RMSE, eV/Å"),
    ("energy_mae", "energy MAE, meV/atom"),
    ("microseconds_per_atom", "time, µs/atom"),
)


def report(settings: ReleaseSettings, results: dict[str, Any], reasons: list[str]) -> str:
    """Return the results of all steps, and the reasons not to publish the student, if any."""
    lines = [f"# Release of {settings.name} with ase-student {__version__}", ""]
    lines += ["| | new | before |", "|---|---|---|"]
    for data, row in results["validation"].items():
        for key, label in _ROWS:
            if key in row["new"]:
                before = (row["old"] or {}).get(key)
                shown = "" if before is None else f"{before:.4g}"
                lines.append(f"| {data}: {label} | {row['new'][key]:.4g} | {shown} |")
    runs = results["stability"]
    lines.append(f"| stable runs | {runs['n_stable']} of {runs['n_runs']} | |")
    for name, checked in results["verify"].items():
        lines.append(f"| {name}: largest force difference, eV/Å | {checked['forces']:.1e} | |")
    for system, milliseconds in results["benchmarks"].get("milliseconds_per_step", {}).items():
        lines.append(f"| a step of {system} in ASE, ms | {milliseconds:.3g} | |")
    if "left_out" in results["benchmarks"]:
        lines += ["", f"Speed was not measured: {results['benchmarks']['left_out']}."]
    lines += ["", *(f"- Worse: {reason}." for reason in reasons)]
    if not reasons:
        lines.append("The new student is not worse in any compared figure.")
    folders = "`validation/` holds the full reports, `exported/` both formats"
    return "\n".join([*lines, "", f"{folders}, `{settings.name}/` the folder to publish.", ""])
