"""The model card of a student, in Markdown."""

from collections.abc import Iterator
from textwrap import fill
from typing import Any

from ase_student.data.splits import PARTS
from ase_student.potentials.registry import citation
from ase_student.student import Student
from ase_student.templates import render

#: Descriptions of the sources of structures.
SOURCES = {
    "md": "molecules from dynamics",
    "displaced": "conformers with random displacements",
    "cluster": "water clusters, solvated molecules and pairs, from dynamics",
    "contact": "clusters with one molecule pressed in or pulled away",
    "diatomic": "isolated pairs of atoms, at all distances; not included in 'all'",
    "foreign": "hypothetical crystals, for the stability of the student; not included in 'all'",
    "grown": "frames of an earlier student's dynamics in which it was likely wrong",
    "dimer": "two molecules at several distances",
    "trimer": "three molecules at several distances",
    "fragment": "single molecules of the complexes",
    "torsion": "molecules in torsion scans",
    "liquid": "droplets cut out of liquids",
    "molecular crystal": "pieces of molecular crystals",
    "all": "all",
}
#: Descriptions of tests by the names of their files; 'test' is the test part of the training data.
TESTS = {
    "test": "test part of the training data",
    "teacher-md-so3lr": "dynamics of the teacher at 300 and 600 K",
    "chemicals-so3lr": "the same, other molecules of the package chemicals",
    "drugs-so3lr": "the same, drugs, a source without training data",
}
_SPLIT_BY = {
    "molecule": "The split is by molecule: the training data hold no conformer of a test\n"
    "molecule, neither alone nor in a cluster.",
    "structure": "The split is by structure: the training data hold other frames of the systems\n"
    "in the test.",
}


def card(student: Student, name: str, report: dict[str, Any], *, recipe: str | None = None) -> str:
    """Return a student's model card in Markdown."""
    header = student.header()
    shape = header["architecture"]
    teacher = str(report["teacher"])
    chemistry = report.get("chemistry")
    return render(
        "distill/model_card.md.jinja",
        name=name,
        n_parameters=student.n_parameters,
        shape={"tensor_channels": 0, **shape},
        cutoff=f"{shape['cutoff']:g}",
        elements=header["elements"],
        errors=_errors(report["metrics"]),
        stability=_stability(report["stability"]),
        chemistry_words=None if chemistry is None else fill(chemistry["words"], 100),
        teacher=citation(teacher),
        split=_SPLIT_BY[report["training"].get("split", "molecule")],
        data=_files(report["data"]),
        earlier=list(_earlier(report["training"])),
        training=_training(report["training"]),
        start=_start(report["training"], teacher),
        calibration=_calibration(report["training"]),
        recipe=recipe,
    )


def _errors(metrics: dict[str, Any]) -> list[tuple[str, str, dict[str, float]]]:
    """Return test, structures and errors of each row; 'all' is the last row of a test."""
    return [
        (TESTS.get(test, test), SOURCES.get(source, source), row)
        for test, errors in metrics.items()
        if test != "validation"
        for source, row in sorted(errors.items(), key=lambda item: (item[0] == "all", item[0]))
    ]


def _stability(report: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the number of stable runs of each kind, and the unstable runs."""
    if report is None:
        return None
    counts: dict[tuple[str, float, float], list[bool]] = {}
    for run in report["runs"]:
        counts.setdefault(_kind_of(run), []).append(run["stable"])
    return {
        "timestep": f"{report['timestep_fs']:g}",
        "kinds": [
            (system, temperature, f"{picoseconds:g}", sum(stable), len(stable))
            for (system, temperature, picoseconds), stable in sorted(counts.items())
        ],
        "failures": [run for run in report["runs"] if not run["stable"]],
    }


def _kind_of(run: dict[str, Any]) -> tuple[str, float, float]:
    """Return the system of a run, its temperature and its length in ps."""
    # Tables of earlier versions have no kind; in these, only water boxes have such names.
    kind = run.get("kind", "water box" if run["name"].endswith("periodic waters") else "molecule")
    system = "molecules" if kind == "molecule" else run["name"]
    return system, run["temperature"], run["picoseconds"]


def _files(data: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return counts, sources and hash of each training file."""
    rows = []
    for entry in data:
        structures = entry["structures"]
        counts = [f"{structures[part]:,} for {part}" for part in PARTS if part in structures]
        times = entry.get("times_in_training", 1)
        if times > 1:
            counts[0] += f", {times} times each"
        sources = sorted(set(entry.get("statistics", {})) - {"all"})
        rows.append({"counts": counts, "sources": sources, "sha256": entry["sha256"]})
    return rows


def _earlier(training: dict[str, Any]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield hash and data of the weights that training started from, back to the first training."""
    start = training.get("start")
    while start:
        if start.get("data"):
            yield start["weights_sha256"][:12], _files(start["data"])
        start = (start["training"] or {}).get("start")


def _training(training: dict[str, Any]) -> dict[str, Any]:
    keys = ("epochs", "batch_size", "optimizer", "learning_rate", "ema_decay", "seed")
    return {
        "steps": training["steps"],
        "processes": training.get("processes", 1),
        "settings": ", ".join(f"{key} {training[key]}" for key in keys if key in training),
    }


def _start(training: dict[str, Any], teacher: str) -> dict[str, Any] | None:
    """Return hash and steps of the weights to start from, and their teacher if it differs."""
    if "start" not in training:
        return None
    start = training["start"]
    previous_teacher = start.get("teacher")
    return {
        "weights": start["weights_sha256"][:12],
        "steps": (start["training"] or {}).get("steps", 0),
        "teacher": None if previous_teacher == teacher else previous_teacher,
    }


def _calibration(training: dict[str, Any]) -> dict[str, Any] | None:
    if "calibration" not in training:
        return None
    return {"sha256": None, **training["calibration"]}
