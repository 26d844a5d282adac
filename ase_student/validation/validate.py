"""A whole validation: errors, speed and physics of every student, and the report."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import InputError

from ase_student import cli
from ase_student.calculator import StudentCalculator
from ase_student.data.readers.base import StructureReader
from ase_student.data.readers.opening import open_frames
from ase_student.files import file_sha256, replaced_when_complete
from ase_student.jobs.store import only_writer
from ase_student.potentials.base import Potential, as_potential
from ase_student.potentials.registry import load_teacher
from ase_student.provenance import __version__, with_python
from ase_student.validation.accuracy.evaluation import Selection, run_pass
from ase_student.validation.accuracy.metrics import Pass, metrics
from ase_student.validation.accuracy.worst import worst_structures, write_worst
from ase_student.validation.chemistry.plots import chemistry_plots
from ase_student.validation.chemistry.report import chemistry_table, columns_of
from ase_student.validation.chemistry.section import add_chemistry
from ase_student.validation.extras import extra
from ase_student.validation.models import ModelSpec, describe
from ase_student.validation.physics.runner import molecules_of, run_checks, subject_of
from ase_student.validation.report.page import chemistry_page, page
from ase_student.validation.report.plots import comparison, plots_of
from ase_student.validation.report.table import table
from ase_student.validation.settings import ValidationSettings
from ase_student.validation.speed import force_rmse, sample_of, timed

FORMAT_VERSION = 1
#: Largest number of left-out structures that the results list.
N_LEFT_OUT = 100
PACKAGES = ("ase", "numpy", "onnxruntime", "torch", "vesin", "h5py", "chemiscope")


@dataclass(frozen=True)
class ValidatedStudent:
    """One student in one backend, opened, and its results on the data."""

    spec: ModelSpec
    calculator: StudentCalculator
    results: Pass

    @property
    def slug(self) -> str:
        """Name that its files begin with."""
        info = self.calculator.info
        return f"{self.spec.name}-{self.calculator.backend}-{info.dtype}"


def validate(settings: ValidationSettings) -> str:
    """Run the validation, write its results, and return the table for the terminal.

    Raises
    ------
    ValueError
        If the data, the students or the settings are invalid.
    FileNotFoundError, ImportError
        If a file or a package is missing.
    """
    for module in ("matplotlib.figure", "chemiscope", "jinja2", "tqdm", "filelock"):
        extra(module)
    with only_writer(settings.output):
        return _validate_alone(settings)


def _validate_alone(settings: ValidationSettings) -> str:
    """Validate while no other process writes to the same folder."""
    # Errors in these should appear before the long work, not after it.
    calculators = [spec.open() for spec in settings.specs]
    loaded = None if settings.teacher is None else load_teacher(settings.teacher)
    if settings.data is None:
        return _validate_chemistry(settings, calculators, loaded)
    frames = open_frames(settings.data, settings.keys)
    keys = getattr(frames, "keys", None)
    if keys is not None:
        cli.say(keys.sentence(settings.data.name), sys.stderr)
    partial = settings.output / ".partial"
    partial.mkdir(parents=True, exist_ok=True)
    try:
        text = _validate(settings, calculators, loaded, frames, partial)
    except (ValueError, InputError):
        # The same command would fail again, so no partial results are kept.
        shutil.rmtree(partial)
        if not any(settings.output.iterdir()):
            settings.output.rmdir()
        raise
    finally:
        frames.close()
    shutil.rmtree(partial)
    return text


def _validate_chemistry(
    settings: ValidationSettings, calculators: list[StudentCalculator], teacher: Any
) -> str:
    """Run the experiments of chemistry alone, write them, and return the table."""
    settings.output.mkdir(parents=True, exist_ok=True)
    pairs = list(zip(settings.specs, calculators, strict=True))
    document = {
        **_header(settings),
        "data": None,
        "students": [describe(spec, calculator) for spec, calculator in pairs],
        "teacher": None,
    }
    add_chemistry(
        document,
        pairs,
        teacher,
        folder=settings.output,
        only=settings.experiments,
        liquid=settings.liquid,
    )
    _write_chemistry_plots(settings.output, document)
    _write(settings.output / "metrics.json", _json(document))
    _write(settings.output / "report.html", chemistry_page(document).encode())
    return f"{chemistry_table(document)}\n\n{_written(settings)}"


def _write_chemistry_plots(folder: Path, document: dict[str, Any]) -> None:
    for name, content in chemistry_plots(columns_of(document)).items():
        _write(folder / "plots" / f"chemistry-{name.replace(' ', '-')}.png", content)


def _header(settings: ValidationSettings) -> dict[str, Any]:
    """Return how and when the results were made."""
    return {
        "format_version": FORMAT_VERSION,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": settings.command,
        "settings": _settings(settings),
        "versions": versions(),
        "machine": f"{platform.platform()}, {os.cpu_count()} CPUs",
    }


def _json(document: dict[str, Any]) -> bytes:
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()


def _written(settings: ValidationSettings) -> str:
    return f"wrote {settings.output / 'report.html'}, metrics.json beside it"


def _validate(
    settings: ValidationSettings,
    calculators: list[StudentCalculator],
    loaded: Any,
    frames: StructureReader,
    partial: Path,
) -> str:
    data = frames.path
    teacher = None if loaded is None else as_potential(loaded)
    sha256 = file_sha256(data)
    common_elements = set.intersection(
        *(set(calculator.info.elements) for calculator in calculators)
    )
    selection = Selection(
        data,
        settings.limit,
        settings.seed,
        settings.skip_invalid,
        tuple(sorted(common_elements)),
        settings.keys,
    )
    students = [
        ValidatedStudent(
            spec,
            calculator,
            Pass.of(
                run_pass(
                    spec,
                    calculator.info.weights_sha256,
                    selection,
                    data_sha256=sha256,
                    folder=partial,
                    scheduler=settings.scheduler,
                )
            ),
        )
        for spec, calculator in zip(settings.specs, calculators, strict=True)
    ]  # fmt: skip
    document: dict[str, Any] = {
        **_header(settings),
        "data": _data(settings, frames, sha256, students[0].results),
        "students": [
            {
                **describe(student.spec, student.calculator),
                "seconds": student.results.seconds,
                "accuracy": metrics(student.results, settings.seed),
            }
            for student in students
        ],
    }
    _add_speed(document, settings, students, teacher, frames)
    _add_physics(document, settings, students, teacher, frames, partial)
    if settings.chemistry:
        pairs = [(student.spec, student.calculator) for student in students]
        add_chemistry(
            document,
            pairs,
            loaded,
            folder=settings.output,
            only=settings.experiments,
            liquid=settings.liquid,
        )
        _write_chemistry_plots(settings.output, document)
    worst = [
        worst_structures(
            as_potential(student.calculator), frames, described["accuracy"]["worst_structures"]
        )
        for student, described in zip(students, document["students"], strict=True)
    ]
    write_results(settings.output, document, students, worst=worst)
    text = table(document)
    if settings.chemistry:
        text += f"\n\n{chemistry_table(document)}"
    return f"{text}\n\n{_written(settings)}"


def write_results(
    folder: Path,
    document: dict[str, Any],
    students: list[ValidatedStudent],
    *,
    worst: list[list[Atoms]],
) -> None:
    """Write metrics, plots, worst structures and the page."""
    plots = []
    for student, described, structures in zip(students, document["students"], worst, strict=True):
        plots.append(plots_of(described, student.results))
        for name, content in plots[-1].items():
            _write(folder / "plots" / f"{student.slug}-{name}.png", content)
        if structures:
            write_worst(folder / f"worst-{student.slug}.extxyz", structures)
    overview = comparison(document["students"], document["teacher"])
    _write(folder / "plots" / "comparison.png", overview)
    _write(folder / "metrics.json", _json(document))
    _write(folder / "report.html", page(document, plots, overview, worst=worst).encode())


def _write(path: Path, content: bytes) -> None:
    with replaced_when_complete(path) as temporary:
        temporary.write_bytes(content)


def _add_speed(
    document: dict[str, Any],
    settings: ValidationSettings,
    students: list[ValidatedStudent],
    teacher: Potential | None,
    frames: StructureReader,
) -> None:
    """Time the students and the teacher alternately on the same structures."""
    indices = students[0].results.column("indices").tolist()
    sample = sample_of(frames, indices, settings.seed)
    potentials = {str(i): as_potential(student.calculator) for i, student in enumerate(students)}
    if teacher is not None:
        potentials["teacher"] = teacher
    speeds = timed(potentials, [frame.atoms for frame in sample])
    for index, described in enumerate(document["students"]):
        described["speed"] = speeds[str(index)]
        if teacher is not None:
            ours = speeds[str(index)]["microseconds_per_atom"]
            ratio = speeds["teacher"]["microseconds_per_atom"] / ours
            described["speed"]["times_faster_than_teacher"] = ratio
    document["teacher"] = None
    if teacher is not None:
        document["teacher"] = {
            "name": teacher.name,
            "speed": speeds["teacher"],
            "force_rmse": force_rmse(teacher, sample),
        }


def _add_physics(
    document: dict[str, Any],
    settings: ValidationSettings,
    students: list[ValidatedStudent],
    teacher: Potential | None,
    frames: StructureReader,
    partial: Path,
) -> None:
    """Check the physics of each student, in the first of its backends only."""
    results_by_key: dict[str, list[dict[str, Any]]] = {}
    indices = students[0].results.column("indices").tolist()
    elements = tuple(np.flatnonzero(students[0].results.column("counts").any(axis=0)).tolist())
    for student, described in zip(students, document["students"], strict=True):
        described["physics"] = []
        if not settings.physics:
            continue
        key = hashlib.sha256(
            f"{FORMAT_VERSION} {described['weights_sha256']} {described['dtype']} "
            f"{settings.lengths} {settings.seed} {settings.teacher} {indices}".encode()
        ).hexdigest()[:16]
        path = partial / f"physics-{key}.json"
        if key not in results_by_key and path.exists():
            results_by_key[key] = json.loads(path.read_text(encoding="utf-8"))
        if key not in results_by_key:
            molecules = molecules_of(frames, indices, settings.seed)
            subject = subject_of(student.spec, molecules, elements)
            checks = run_checks(student.spec, subject, settings.lengths, teacher=teacher)
            results_by_key[key] = [_plain(asdict(check)) for check in checks]
            _write(path, json.dumps(results_by_key[key]).encode())
        described["physics"] = results_by_key[key]


def _plain(value: Any) -> Any:
    """Return a value that JSON can hold; numbers that are not finite become None."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    return value


def _settings(settings: ValidationSettings) -> dict[str, Any]:
    return {
        "limit": settings.limit,
        "seed": settings.seed,
        "skip_invalid": settings.skip_invalid,
        "lengths_ps": asdict(settings.lengths),
        "models": [spec.model for spec in settings.specs],
    }


def _data(
    settings: ValidationSettings, frames: StructureReader, sha256: str, results: Pass
) -> dict[str, Any]:
    return {
        "file": frames.path.name,
        "sha256": sha256,
        "teacher": frames.metadata.get("teacher"),
        "n_structures": len(frames.sizes),
        "n_used": len(results.column("indices")) if results.rows else 0,
        "n_atoms": results.n_atoms,
        "n_left_out": len(results.left_out),
        "n_invalid": sum(invalid for _, _, invalid in results.left_out),
        "left_out": [
            {"index": index, "reason": reason, "invalid": invalid}
            for index, reason, invalid in results.left_out[:N_LEFT_OUT]
        ],
    }


def versions() -> dict[str, str]:
    """Return the versions of the packages that the results depend on."""
    return {"ase_student": __version__, **with_python(PACKAGES)}
