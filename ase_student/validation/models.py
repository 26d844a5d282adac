"""Specification of the students that are compared, and how they are opened."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ase_student.calculator import StudentCalculator
from ase_student.checkpoint import available_students, student_name


@dataclass(frozen=True)
class ModelSpec:
    """A student in a backend.

    Attributes
    ----------
    model : str
        Name or path, as for :class:`ase_student.StudentCalculator`.
    backend, device, dtype : str
    threads : int or None
    name : str
        Name in the report, without the backend; by default that of
        :func:`ase_student.checkpoint.student_name`.
    """

    model: str
    backend: str = "auto"
    device: str = "auto"
    dtype: str = "float32"
    threads: int | None = None
    name: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", student_name(self.model))
        if Path(self.model).is_file():
            # Another process may have another working folder.
            object.__setattr__(self, "model", str(Path(self.model).absolute()))

    def open(self) -> StudentCalculator:
        """Return a calculator without the guard: a validation measures the errors itself."""
        return StudentCalculator(
            self.model,
            backend=self.backend,
            device=self.device,
            dtype=self.dtype,
            threads=self.threads,
            guard="off",
        )

    def open_quietly(self) -> StudentCalculator:
        """Return a calculator without repeating the warnings of the first opening."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return self.open()

    def open_precise(self) -> StudentCalculator | None:
        """Return the same student in float64, run by torch on the CPU.

        None if it is an exported file, whose precision is fixed, or if torch is missing.
        """
        if self.dtype == "float64" and self.backend == "torch":
            return self.open_quietly()
        precise = replace(self, backend="torch", device="cpu", dtype="float64")
        try:
            return precise.open_quietly()
        except (ValueError, ImportError):
            return None


def distinct_names(models: Sequence[str]) -> list[str]:
    """Return a name for each student, so that no two students share a name.

    >>> distinct_names(["tiny", "old/run/weights.safetensors", "new/run/weights.safetensors"])
    ['tiny', 'old-run', 'new-run']
    """
    files = {model: _file(model) for model in models}
    names = {file: student_name(file) for file in files.values()}
    folders = {file: _folder(file) for file in names if str(file) not in available_students()}
    places = Counter((folder, names[file]) for file, folder in folders.items())
    for file, folder in folders.items():
        if places[folder, names[file]] > 1:
            names[file] += file.suffix.replace(".", "-")
    short = dict(names)
    for depth in range(1, max((len(folder.parts) for folder in folders.values()), default=0)):
        times = Counter(names.values())
        for file, folder in folders.items():
            if times[names[file]] > 1:
                names[file] = "-".join((*folder.parts[1:][-depth:], short[file]))
    return [names[files[model]] for model in models]


def _file(model: str) -> Path:
    """Return the file of a student given by file or folder, or the name of a bundled student."""
    if model in available_students():
        return Path(model)
    path = Path(model).absolute()
    return path / "weights.safetensors" if path.is_dir() else path


def _folder(file: Path) -> Path:
    """Return the folder above the file, or above the folder, that a student is named after."""
    return file.parents[1] if file.stem == "weights" else file.parent


def describe(spec: ModelSpec, calculator: StudentCalculator) -> dict[str, Any]:
    """Return the properties of a student that the report shows."""
    info = calculator.info
    return {
        "name": spec.name,
        "backend": calculator.backend,
        "device": calculator.device,
        "dtype": info.dtype,
        "n_parameters": info.metadata.get("n_parameters"),
        "cutoff": info.cutoff,
        "elements": list(info.elements),
        "weights_sha256": info.weights_sha256,
    }
