"""Write a trained student to a folder with its ONNX file, its model card and its metrics."""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ase_student.checkpoint import load_student, save_student
from ase_student.distill.model_card import card
from ase_student.distill.options import Option, output_folder, positional
from ase_student.export import export_student
from ase_student.files import reason_of, replaced_when_complete

METRICS = "metrics.json"


OPTIONS = (
    positional(
        "weights",
        "weights.safetensors of a finished training, or of a folder that this command wrote, whose "
        "learning curve and stability are kept",
    ),
    output_folder("folder, named after the student"),
    Option("recipe", "recipe to name in the model card, e.g. recipes/tiny.toml"),
    Option(
        "stability",
        "JSON of python -m ase_student.validation.stability; several make one table",
        Path,
        nargs="+",
    ),
    Option(
        "chemistry",
        "metrics.json of python -m ase_student.validation --chemistry with this student",
        Path,
        metavar="JSON",
    ),
)


def run(arguments: argparse.Namespace) -> str:
    """Write the folder as the command line says and return a summary."""
    student = load_student(arguments.weights)
    if "test" not in student.metadata.get("metrics", {}):
        raise ValueError(f"{arguments.weights}: has no metrics on held-out molecules.")
    folder: Path = arguments.folder
    known = _known(arguments.weights.with_name(METRICS), student.sha256)
    report = {
        "weights_sha256": student.sha256,
        **student.metadata,
        "learning_curve": learning_curve(arguments.weights.with_name("history.jsonl"))
        or known.get("learning_curve", []),
        "stability": known.get("stability")
        if arguments.stability is None
        else joined([stability(path, student.sha256) for path in arguments.stability]),
        "chemistry": known.get("chemistry")
        if arguments.chemistry is None
        else chemistry(arguments.chemistry, student.sha256),
    }
    # Errors in the report are raised before anything is written.
    card_text = card(student, folder.absolute().name, report, recipe=arguments.recipe)
    save_student(student, folder / "weights.safetensors")
    export_student(folder / "weights.safetensors", folder, formats=("onnx",))
    text = json.dumps(report, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    for file, content in (("README.md", card_text), (METRICS, text)):
        with replaced_when_complete(folder / file) as temporary:
            temporary.write_text(content, encoding="utf-8")
    return f"{folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}"


def _known(path: Path, sha256: str) -> dict[str, Any]:
    """Return the report that an earlier call wrote for the same weights, or an empty one."""
    if not path.is_file():
        return {}
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8-sig"))
    return report if report.get("weights_sha256") == sha256 else {}


def learning_curve(path: Path) -> list[dict[str, float]]:
    """Return steps and errors on the validation part from the history of a run."""
    if not path.is_file():
        return []
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8-sig").splitlines()]
    keys = ("force_rmse", "force_r2", "energy_mae")
    return [
        {"step": row["step"], **{key: row["validation"]["all"][key] for key in keys}}
        for row in rows
    ]


def joined(tables: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return tables of stability, of different runs of the same student, as one.

    Raises
    ------
    ValueError
        If a run is in two of the tables.
    """
    runs = [run for table in tables for run in table["runs"]]
    counts = Counter((run["name"], run["temperature"], run["picoseconds"]) for run in runs)
    for (name, temperature, _), count in counts.items():
        if count > 1:
            raise ValueError(
                f"{name} at {temperature:g} K is {count} times in the tables of stability: "
                "give each run once."
            )
    n_stable = sum(run["stable"] for run in runs)
    return {**tables[0], "n_runs": len(runs), "n_stable": n_stable, "runs": runs}


def stability(path: Path, sha256: str) -> dict[str, Any]:
    """Return a table of stability.

    Raises
    ------
    ValueError
        If it is not one, or not of these weights.
    """
    try:
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8-sig"))
        measured = report["weights_sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: is not a table of stability: {reason_of(error)}.") from error
    if measured != sha256:
        raise ValueError(f"{path}: is of other weights ({measured}) than these ({sha256}).")
    return report


def chemistry(path: Path, sha256: str) -> dict[str, Any]:
    """Return the verdicts of a validation on these weights: ``words`` and ``verdicts``.

    Raises
    ------
    ValueError
        If the file is no validation of these weights with ``--chemistry``.
    """
    try:
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8-sig"))
        matching = [row for row in report["students"] if row["weights_sha256"] == sha256]
        return {key: matching[0]["chemistry"][key] for key in ("words", "verdicts")}
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise ValueError(
            f"{path}: has no chemistry of these weights ({sha256}); give metrics.json of "
            "python -m ase_student.validation --chemistry with this student."
        ) from error
