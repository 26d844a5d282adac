"""The steps of a release, each of which runs an existing command."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable
from typing import Any

from ase_student import cli
from ase_student.checkpoint import load_student
from ase_student.distill.commands import bundle
from ase_student.distill.options import add_options
from ase_student.export import export_student, verify_file
from ase_student.files import replaced_when_complete
from ase_student.release.comparison import failed_checks, figures_of, worse
from ase_student.release.settings import PROGRAM, ROOT, ReleaseSettings
from ase_student.validation.settings import parser as validation_parser
from ase_student.validation.settings import settings_of as validation_settings
from ase_student.validation.stability import __main__ as stability
from ase_student.validation.validate import validate

Result = dict[str, Any]
HISTORY = "history.jsonl"


def export(settings: ReleaseSettings) -> Result:
    """Write both formats; each is verified before it is kept."""
    return dict(export_student(settings.weights, settings.folder / "exported"))


def verify(settings: ReleaseSettings) -> Result:
    """Read the exported files again and repeat the check with their reference results."""
    reports: Result = {}
    for name in export_names(settings):
        report = verify_file(settings.folder / "exported" / name)
        report.raise_if_wrong()
        reports[name] = report.as_dict()
    return reports


def export_names(settings: ReleaseSettings) -> list[str]:
    """Return the names of the exported files."""
    summary = json.loads((settings.folder / "exported" / "export.json").read_text("utf-8"))
    return sorted(summary["files"])


def validation(settings: ReleaseSettings) -> Result:
    """Validate the new and the published student on all data, with checks of physics."""
    models = [settings.weights]
    before = settings.target / "weights.safetensors"
    if before.is_file() and load_student(before).sha256 != load_student(settings.weights).sha256:
        models.append(before)
    results: Result = {}
    for path in settings.data:
        folder = settings.folder / "validation" / path.stem
        words = [str(path), "-o", str(folder), "--threads", str(settings.threads)]
        for model in models:
            words += ["--model", str(model)]
        lengths = str(settings.physics_picoseconds)
        physics = settings.physics_picoseconds > 0 and path == settings.data[0]
        words += ["--nve", lengths, "--nvt", lengths] if physics else ["--no-physics"]
        if settings.chemistry and path == settings.data[0]:
            words.append("--chemistry")
        arguments = validation_parser().parse_args(words)
        validate(validation_settings(arguments, f"{PROGRAM}: {' '.join(words)}"))
        students = json.loads((folder / "metrics.json").read_text("utf-8"))["students"]
        results[path.stem] = {
            "new": figures_of(students[0]),
            "old": figures_of(students[1]) if len(students) > 1 else None,
            "failed_checks": failed_checks(students[0]),
        }
    return results


def stable(settings: ReleaseSettings) -> Result:
    """Run held-out molecules at 300 and at 600 K."""
    path = settings.folder / "stability.json"
    words = [
        str(settings.molecules), "--model", str(settings.weights), "-o", str(path),
        "--picoseconds", str(settings.picoseconds), "--number", str(settings.number),
        "--threads", str(settings.threads),
    ]  # fmt: skip
    stability.run_table(stability.parser().parse_args(words))
    document = json.loads(path.read_text("utf-8"))
    return {"n_stable": document["n_stable"], "n_runs": document["n_runs"]}


def card(settings: ReleaseSettings) -> Result:
    """Write the student's folder with ONNX file, model card and metrics."""
    folder = settings.folder / settings.name
    parser = argparse.ArgumentParser()
    add_options(parser, bundle.OPTIONS)
    words = [str(settings.weights), "-o", str(folder)]
    words += ["--stability", str(settings.folder / "stability.json")]
    if settings.recipe:
        words += ["--recipe", settings.recipe]
    if settings.chemistry:
        metrics = settings.folder / "validation" / settings.data[0].stem / "metrics.json"
        words += ["--chemistry", str(metrics)]
    return {"summary": bundle.run(parser.parse_args(words))}


def benchmarks(settings: ReleaseSettings) -> Result:
    """Measure speed for a line of the history, if there is a checkout of the repository."""
    if not settings.benchmark:
        return {"left_out": "--no-benchmark"}
    if not (ROOT / "benchmarks" / "__main__.py").is_file():
        return {"left_out": "no checkout of the repository"}
    line = settings.folder / HISTORY
    line.unlink(missing_ok=True)
    student_folder = settings.folder / settings.name
    _history(
        "--add", str(student_folder), "--threads", str(settings.threads), "--history", str(line)
    )
    result: Result = json.loads(line.read_text("utf-8"))
    return result


def _history(*words: str) -> None:
    """Run ``python benchmarks history``; the history itself belongs to the repository."""
    if cli.main(["benchmark", "history", *words]):
        raise ValueError(f"the command failed: python benchmarks history {' '.join(words)}")


STEPS: dict[str, Callable[[ReleaseSettings], Result]] = {
    "export": export,
    "verify": verify,
    "validation": validation,
    "stability": stable,
    "card": card,
    "benchmarks": benchmarks,
}


def stability_before(settings: ReleaseSettings) -> tuple[int, int] | None:
    """Return numbers of stable and of all runs of the published student, if they are recorded."""
    path = settings.target / bundle.METRICS
    if not path.is_file():
        return None
    table = json.loads(path.read_text("utf-8")).get("stability")
    return None if not table else (int(table["n_stable"]), int(table["n_runs"]))


def verdict(settings: ReleaseSettings, results: dict[str, Result]) -> list[str]:
    """Return why the new student must not replace the published student; empty if it may."""
    validations = results["validation"]
    compared = {data: row for data, row in validations.items() if row["old"] is not None}
    runs = results["stability"]
    reasons = worse(
        {data: row["new"] for data, row in compared.items()},
        {data: row["old"] for data, row in compared.items()},
        (runs["n_stable"], runs["n_runs"]),
        stable_before=stability_before(settings) if compared else None,
    )
    for data, row in validations.items():
        if row["failed_checks"]:
            reasons.append(
                f"it fails checks of physics on {data}: {', '.join(row['failed_checks'])}"
            )
    return reasons


def publish(settings: ReleaseSettings) -> None:
    """Copy the student's folder to its published place, file by file, the weights last."""
    student_folder = settings.folder / settings.name
    files = sorted(student_folder.iterdir(), key=lambda path: path.suffix == ".safetensors")
    for path in files:
        with replaced_when_complete(settings.target / path.name) as temporary:
            shutil.copyfile(path, temporary)
    line = settings.folder / HISTORY
    if settings.benchmark and line.is_file():
        _history("--merge", str(line), "--history", str(ROOT / "benchmarks" / HISTORY))
