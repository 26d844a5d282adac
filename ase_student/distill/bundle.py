"""Put a trained student into a folder with its ONNX file, its model card and its metrics."""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from ase_student.distill.parts import PARTS
from ase_student.export import export_student
from ase_student.files import replaced_when_complete
from ase_student.student import Student, load_student, save_student
from ase_student.validation.liquids import WATERS

#: Licence and citation of the teachers that this package knows by name.
TEACHERS = {
    "so3lr": (
        "SO3LR (MIT licence, Kabylda et al., JACS 2025, "
        "[doi:10.1021/jacs.5c09558](https://doi.org/10.1021/jacs.5c09558))"
    ),
    "gfn2-xtb": (
        "GFN2-xTB (Bannwarth, Ehlert and Grimme, JCTC 2019, "
        "[doi:10.1021/acs.jctc.8b01176](https://doi.org/10.1021/acs.jctc.8b01176))"
    ),
    "sevennet": (
        "SevenNet-0 (MIT licence, Park et al., JCTC 2024, "
        "[doi:10.1021/acs.jctc.4c00190](https://doi.org/10.1021/acs.jctc.4c00190))"
    ),
    "chgnet": (
        "CHGNet (modified BSD licence, Deng et al., Nat. Mach. Intell. 2023, "
        "[doi:10.1038/s42256-023-00716-3](https://doi.org/10.1038/s42256-023-00716-3))"
    ),
}

SOURCES = {
    "md": "molecules from dynamics",
    "displaced": "conformers with random displacements",
    "cluster": "water clusters, solvated molecules and pairs, from dynamics",
    "contact": "clusters with one molecule pressed in or pulled away",
    "diatomic": "two atoms alone, at all distances; not among all",
    "foreign": "crystals that do not exist, to keep the student sane; not among all",
    "grown": "dynamics of an earlier student, where it was likely wrong",
    "all": "all of them",
}

METRICS = "metrics.json"

#: Tests by the names of their files; 'test' is the test part of the training data's split.
TESTS = {
    "test": "like the training data",
    "teacher-md-so3lr": "dynamics of the teacher at 300 and 600 K",
    "chemicals-so3lr": "the same, of other molecules of the package chemicals",
    "drugs-so3lr": "the same, of drugs, a source that nothing was trained on",
}

_SPLIT_BY = {
    "molecule": "The split is by molecule, so that no conformer of a test molecule, alone or in a\n"
    "cluster, is trained on.",
    "structure": "The split is by structure: other frames of what is tested are trained on.",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line of ``bundle``."""
    parser.add_argument(
        "weights",
        type=Path,
        help="weights.safetensors of a finished training, or of a folder that this command wrote, "
        "whose learning curve and stability are kept",
    )
    parser.add_argument(
        "-o", dest="folder", type=Path, required=True, help="folder, named after the student"
    )
    parser.add_argument("--recipe", help="what to say of how it is made, e.g. recipes/tiny.toml")
    parser.add_argument(
        "--stability", type=Path, nargs="+",
        help="JSON of python -m ase_student.validation.stability_table; several make one table",
    )  # fmt: skip
    parser.add_argument(
        "--chemistry", type=Path, metavar="JSON",
        help="metrics.json of python -m ase_student.validation --chemistry with this student",
    )  # fmt: skip


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
    save_student(student, folder / "weights.safetensors")
    export_student(folder / "weights.safetensors", folder, formats=("onnx",))
    text = json.dumps(report, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    card_text = card(student, folder.absolute().name, report, arguments.recipe)
    for file, content in (("README.md", card_text), (METRICS, text)):
        with replaced_when_complete(folder / file) as temporary:
            temporary.write_text(content, encoding="utf-8")
    return f"{folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}"


def _known(path: Path, sha256: str) -> dict[str, Any]:
    """Return what an earlier call wrote of the same weights; nothing if there is none."""
    if not path.is_file():
        return {}
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return report if report.get("weights_sha256") == sha256 else {}


def learning_curve(path: Path) -> list[dict[str, float]]:
    """Return steps and errors on the validation part from the history of a run."""
    if not path.is_file():
        return []
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
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
        If one run is in two of them.
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
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        measured = report["weights_sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: is not a table of stability: {error!r}.") from error
    if measured != sha256:
        raise ValueError(f"{path}: is of other weights ({measured}) than these ({sha256}).")
    return report


def chemistry(path: Path, sha256: str) -> dict[str, Any]:
    """Return what a validation says these weights are good for: ``words`` and ``verdicts``.

    Raises
    ------
    ValueError
        If the file is no validation of these weights with ``--chemistry``.
    """
    try:
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        own = [one for one in report["students"] if one["weights_sha256"] == sha256]
        return {key: own[0]["chemistry"][key] for key in ("words", "verdicts")}
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise ValueError(
            f"{path}: has no chemistry of these weights ({sha256}); give metrics.json of "
            "python -m ase_student.validation --chemistry with this student."
        ) from error


def card(student: Student, name: str, report: dict[str, Any], recipe: str | None = None) -> str:
    """Return a student's model card in Markdown."""
    header = student.header()
    shape = header["architecture"]
    cutoff = f"{shape['cutoff']:g}"
    teacher = str(report["teacher"])
    n_tensors = shape.get("tensor_channels", 0)
    moments = f", second moments of {n_tensors} channels" if n_tensors else ""
    sections = [
        f"""# {name}

A PaiNN student with {student.n_parameters:,} parameters ({shape["blocks"]} blocks of
{shape["features"]} features, {shape["n_rbf"]} radial functions, messages of
{shape["message_channels"]} channels{moments}, cutoff {cutoff} Å) for
{", ".join(header["elements"])}. This file is written by `python -m ase_student.distill bundle`.""",
        f"""## Errors

Against the teacher, on structures that training never saw. σ is the standard deviation
of the teacher's force components; energies are compared as they are, without a fitted shift.

{_error_table(report["metrics"])}""",
        _stability_section(report["stability"]),
        _chemistry_section(report.get("chemistry")),
        f"""## Teacher

{TEACHERS.get(teacher, teacher)}.""",
        _data_section(report),
        f"""## Limits

- It knows what it was trained on. Ions, radicals, reactions, metals and other elements are outside
  of neutral closed-shell molecules. `StudentCalculator(guard=...)` compares every frame with the
  closest contacts, the numbers of neighbors and the forces of the training data (`seen` in
  `metrics.json`) and says where one lies outside; inside does not mean right.
- Sees {cutoff} Å far: what the teacher has of electrostatics and dispersion beyond is missing.""",
        _making_section(report, recipe),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _error_table(metrics: dict[str, Any]) -> str:
    head = (
        "| test | structures | number | σ, eV/Å | force RMSE, eV/Å | force R² "
        "| energy MAE, meV/atom |"
    )
    rows = [
        f"| {TESTS.get(test, test)} | {SOURCES.get(source, source)} | {row['structures']:.0f} "
        f"| {row['force_sigma']:.2f} | {row['force_rmse']:.3f} | {row['force_r2']:.4f} "
        f"| {1000 * row['energy_mae']:.1f} |"
        for test, errors in metrics.items()
        if test != "validation"
        for source, row in sorted(errors.items(), key=_all_last)
    ]
    return "\n".join([head, "|---|---|---|---|---|---|---|", *rows])


def _stability_section(report: dict[str, Any] | None) -> str:
    if report is None:
        return ""
    runs = report["runs"]
    rows = []
    for kind in sorted({_kind_of(run) for run in runs}):
        of_kind = [run for run in runs if _kind_of(run) == kind]
        n_stable = sum(run["stable"] for run in of_kind)
        what, temperature, picoseconds = kind
        rows.append(
            f"| {what} | {temperature:.0f} | {picoseconds:g} | {n_stable} of {len(of_kind)} |"
        )
    failures = [
        f"- {run['name']} at {run['temperature']:.0f} K after {run['failed_ps']:.2f} ps: "
        f"{run['reason']}"
        for run in runs
        if not run["stable"]
    ]
    head = ["| | temperature, K | ps | stable |", "|---|---|---|---|"]
    text = (
        "## Stability\n\nLangevin dynamics of what is held out, in steps of "
        f"{report['timestep_fs']:g} fs: no bond breaks or forms, no runaway of\nthe temperature, "
        "energies finite.\n\n" + "\n".join([*head, *rows])
    )
    return text + ("\n\n" + "\n".join(failures) if failures else "")


def _chemistry_section(report: dict[str, Any] | None) -> str:
    if report is None:
        return ""
    return (
        "## What it is good for\n\n"
        + fill(report["words"], 100)
        + "\n\n"
        + fill(
            "In brackets: how far it is off, on average, from the teacher, or for crystals and "
            "liquids from experiment. Limits and experiments: "
            "`python -m ase_student.validation --chemistry`.",
            100,
        )
    )


def _kind_of(run: dict[str, Any]) -> tuple[str, float, float]:
    """Return what is run, at what temperature and for how long."""
    what = run["name"] if run["name"].endswith(WATERS) else "molecules"
    return what, run["temperature"], run["picoseconds"]


def _data_section(report: dict[str, Any]) -> str:
    text = (
        "## Data\n\nStructures of each file, and how they were sampled; settings of teacher and "
        f"sampling are in\n`metrics.json`. {_SPLIT_BY[report['training'].get('split', 'molecule')]}"
        "\n\n" + _data_rows(report["data"])
    )
    start = report["training"].get("start")
    while start:
        if start.get("data"):
            text += (
                f"\n\nThe weights `{start['weights_sha256'][:12]}` that this began with had been "
                "trained on\n\n" + _data_rows(start["data"])
            )
        start = (start["training"] or {}).get("start")
    return text


def _data_rows(data: list[dict[str, Any]]) -> str:
    rows = []
    for entry in data:
        counts = entry["structures"]
        named = [f"{counts[part]:,} for {part}" for part in PARTS if part in counts]
        times = entry.get("times_in_training", 1)
        if times > 1:
            named[0] += f", {times} times each"
        sources = sorted(set(entry.get("statistics", {})) - {"all"})
        rows.append(
            f"- {', '.join(named)}: {', '.join(sources)} (SHA-256 `{entry['sha256'][:12]}`)"
        )
    return "\n".join(rows)


def _making_section(report: dict[str, Any], recipe: str | None) -> str:
    training = report["training"]
    keys = ("epochs", "batch_size", "optimizer", "learning_rate", "ema_decay", "seed")
    settings = ", ".join(f"{key} {training[key]}" for key in keys if key in training)
    n_processes = training.get("processes", 1)
    processes = f" of {n_processes} processes" if n_processes > 1 else ""
    text = f"## Training\n\n{training['steps']:,} steps{processes} ({settings})."
    if "start" in training:
        before = training["start"]["training"] or {}
        text += (
            f"\nBegan with the weights `{training['start']['weights_sha256'][:12]}`, which had "
            f"{before.get('steps', 0):,} steps{_of_another(training['start'], report['teacher'])}."
        )
    if "calibration" in training:
        calibration = training["calibration"]
        sha256 = calibration.get("sha256")
        file = f" (SHA-256 `{sha256[:12]}`)" if sha256 else ""
        text += (
            f"\nAfterwards all energies were shifted by {1e3 * calibration['shift']:.2f} meV for "
            "every atom, so that\ntheir median error vanishes in "
            f"{calibration['structures']} structures of molecules for validation{file}."
        )
    if recipe:
        text += f"\nTo make it again:\n\n```bash\npython -m ase_student.distill run {recipe}\n```"
    return text


def _of_another(start: dict[str, Any], teacher: str) -> str:
    """Say whose labels the first weights come from, where these are another teacher's."""
    before = start.get("teacher")
    return f" with labels of {before}" if before not in (None, teacher) else ""


def _all_last(item: tuple[str, Any]) -> tuple[bool, str]:
    return item[0] == "all", item[0]
