"""The model card of a student, in Markdown."""

from textwrap import fill
from typing import Any

from ase_student.data.splits import PARTS
from ase_student.student import Student

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
    "dimer": "two molecules at several distances",
    "trimer": "three molecules at several distances",
    "fragment": "molecules of these complexes alone",
    "torsion": "molecules with a bond turned",
    "liquid": "droplets cut out of liquids",
    "molecular crystal": "pieces of molecular crystals",
    "all": "all of them",
}
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
    # Tables of earlier versions have no kind; in these, only boxes of water have such names.
    kind = run.get("kind", "water box" if run["name"].endswith("periodic waters") else "molecule")
    what = "molecules" if kind == "molecule" else run["name"]
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
