"""Write a compressed ONNX file and compare it with the same student in float32."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx
from ase import Atoms

from ase_student.backends.metadata import METADATA_KEY, describe, encode
from ase_student.backends.onnx_export import to_onnx
from ase_student.backends.onnx_safety import SEAL_KEY, seal
from ase_student.backends.self_check import LARGEST_TOLERANCE, TOLERANCES
from ase_student.calculator import StudentCalculator
from ase_student.checkpoint import load_student, save_student, student_name
from ase_student.compression import KINDS, ROUNDINGS, SCHEMES
from ase_student.compression.measurement import (
    LIMITS,
    Cost,
    cost_of,
    crossed,
    molecules_for,
    structures_for,
)
from ase_student.compression.quantization import quantized
from ase_student.compression.rounding import hold_short, rounded
from ase_student.export.references import reference_results, reference_structures
from ase_student.export.verification import verify_file
from ase_student.files import check_output, replaced_when_complete
from ase_student.potentials.base import Potential, StudentPotential
from ase_student.provenance import with_python
from ase_student.student import Student
from ase_student.validation.physics.relaxation import relaxed
from ase_student.validation.speed import timed

#: Tolerances of the file are this many times the measured differences from the references:
#: processors round and saturate integers differently.
MARGIN = 2.0
PICOSECONDS = 2.0
#: Seed of the structures that ranges of activations are calibrated on.
CALIBRATION_SEED = 7


class LimitError(ValueError):
    """A compressed student exceeds a documented limit.

    Attributes
    ----------
    table : str
        The measured figures.
    """

    def __init__(self, message: str, table: str) -> None:
        super().__init__(message)
        self.table = table


@dataclass(frozen=True)
class Comparison:
    """A student with which its compressed files are compared.

    Attributes
    ----------
    student : Student
    name : str
    exact : Potential
        The student in float64.
    plain : bytes
        The ONNX file in float32.
    plain_potential : Potential
        The opened ONNX file.
    plain_cost : Cost
    structures : dict of str to Atoms
    molecules : dict of str to Atoms
        Molecules at minima.
    references : list of dict
        Reference results in the file in float32.
    threads : int
    picoseconds : float
    """

    student: Student
    name: str
    exact: Potential
    plain: bytes
    plain_potential: Potential
    plain_cost: Cost
    structures: dict[str, Atoms]
    molecules: dict[str, Atoms]
    references: list[dict[str, Any]]
    threads: int
    picoseconds: float

    def cost_of(self, potential: Potential) -> Cost:
        """Return the cost of a compressed form of the student."""
        return cost_of(
            potential,
            self.exact,
            self.structures,
            molecules=self.molecules,
            picoseconds=self.picoseconds,
        )


@dataclass(frozen=True)
class Compressed:
    """A compressed file and its measured cost.

    Attributes
    ----------
    scheme : str
    content : bytes
    document : dict
        Entry ``compression`` of the file's metadata.
    crossed : list of str
        A sentence for each documented limit that it crosses.
    """

    scheme: str
    content: bytes
    document: dict[str, Any]
    crossed: list[str]


def prepared(
    model: str | os.PathLike[str],
    folder: Path,
    threads: int = 1,
    *,
    picoseconds: float = PICOSECONDS,
) -> Comparison:
    """Open a student and measure it in float32, once for all compressed files.

    Parameters
    ----------
    model : str or path
        Name of a bundled student, or a checkpoint.
    folder : path
        Folder for temporary files.
    threads : int
    picoseconds : float
        Length of NVE dynamics.
    """
    student, name = load_student(model), student_name(model)
    weights = folder / "weights.safetensors"
    save_student(student, weights)
    exact = StudentPotential(
        StudentCalculator(weights, device="cpu", dtype="float64", threads=threads, guard="off")
    )
    structures = structures_for(exact, student.elements)
    molecules = molecules_for(student.elements)
    resting = relaxed(exact, list(molecules.values()))
    molecules = dict(zip(molecules, resting, strict=True))
    references = reference_results(student, reference_structures(student.elements))
    plain = to_onnx(student, name, "float32", {"references": references})
    potential = opened(plain, folder / f"{name}.onnx", threads)
    return Comparison(
        student=student,
        name=name,
        exact=exact,
        plain=plain,
        plain_potential=potential,
        plain_cost=cost_of(
            potential, exact, structures, molecules=molecules, picoseconds=picoseconds
        ),
        structures=structures,
        molecules=molecules,
        references=references,
        threads=threads,
        picoseconds=picoseconds,
    )


def opened(content: bytes, path: Path, threads: int) -> StudentPotential:
    """Write an ONNX file and open it as a potential."""
    path.write_bytes(content)
    calculator = StudentCalculator(
        path, backend="onnx", device="cpu", threads=threads, guard="off", skin=0.0
    )
    return StudentPotential(calculator)


def compressed(comparison: Comparison, scheme: str, folder: Path) -> Compressed:
    """Return a compressed file and its measured cost.

    Parameters
    ----------
    comparison : Comparison
    scheme : str
        A name from `SCHEMES`.
    folder : path
        Folder for temporary files.
    """
    if scheme == "int8":
        candidates = [compressed(comparison, kind, folder) for kind in KINDS]
        return min(
            candidates, key=lambda candidate: float(candidate.document["measured"]["force_rmse"])
        )
    student, references = comparison.student, comparison.references
    if scheme in ROUNDINGS:
        student = rounded(student, scheme)
        references = reference_results(student, reference_structures(student.elements))
        model = unsealed(to_onnx(student, comparison.name))
        hold_short(model, student, scheme)
    else:
        calibration = _calibration(comparison) if scheme == "int8-static" else []
        plain = unsealed(comparison.plain)
        model = quantized(plain, scheme, student.cutoff, calibration=calibration)
    # The file is first written with the largest tolerances and measured, then written again with
    # tolerances from the measured differences.
    about: dict[str, Any] = {
        "scheme": scheme,
        "tolerances": dict.fromkeys(TOLERANCES["float32"], 0.9 * LARGEST_TOLERANCE),
    }
    path = folder / f"{comparison.name}-{scheme}.onnx"
    content = _finished(model, comparison, references, about)
    potential = opened(content, path, comparison.threads)
    report = verify_file(path)
    cost = comparison.cost_of(potential)
    about["tolerances"] = {
        name: max(tolerance, MARGIN * getattr(report, name))
        for name, tolerance in TOLERANCES["float32"].items()
    }
    about["crossed"] = crossed(cost, comparison.plain_cost)
    about.update(_figures(comparison, potential, cost, content))
    content = _finished(model, comparison, references, about)
    return Compressed(scheme, content, about, about["crossed"])


def _figures(
    comparison: Comparison, potential: Potential, cost: Cost, content: bytes
) -> dict[str, Any]:
    """Return the measured figures and how they were measured, as JSON types."""
    times = timed(
        {"float32": comparison.plain_potential, "compressed": potential},
        list(comparison.structures.values()),
    )
    lowest = {name: time["lowest"] for name, time in times.items()}
    return {
        "limits": {name: f"{limit:g} {unit}" for name, (limit, unit) in LIMITS.items()},
        "measured": cost.as_dict(),
        "float32": comparison.plain_cost.as_dict(),
        "bytes": len(content),
        "times_smaller": round(len(comparison.plain) / len(content), 3),
        "microseconds_per_atom": round(lowest["compressed"], 3),
        "times_faster": round(lowest["float32"] / lowest["compressed"], 3),
        "measured_on": {
            "machine": platform.machine(),
            "threads": comparison.threads,
            "versions": with_python(("onnxruntime", "onnx", "numpy")),
        },
    }


def write_compressed(
    model: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    scheme: str,
    *,
    accept: bool = False,
    threads: int = 1,
    picoseconds: float = PICOSECONDS,
) -> tuple[Path, Compressed]:
    """Write a compressed ONNX file of a student, named after the student and the scheme.

    Parameters
    ----------
    model : str or path
        Name of a bundled student, or a checkpoint.
    folder : path
        Created if it does not exist.
    scheme : str
        A name from `SCHEMES`.
    accept : bool
        Write the file even if it crosses a documented limit; the file records this, and the
        calculator warns when it opens the file.
    threads : int
    picoseconds : float
        Length of NVE dynamics.

    Returns
    -------
    path, Compressed

    Raises
    ------
    LimitError
        If a limit is crossed and `accept` is False. Nothing is written.
    ValueError
        If the scheme is unknown or the student cannot be compressed.
    """
    if not 0.01 <= picoseconds < float("inf"):
        raise ValueError(f"--picoseconds is {picoseconds:g}; it must be 0.01 or more.")
    if scheme not in SCHEMES:
        choices = ", ".join(f"'{choice}'" for choice in SCHEMES)
        raise ValueError(f"unknown scheme '{scheme}'; available: {choices}.")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as temporary:
        comparison = prepared(model, Path(temporary), threads, picoseconds=picoseconds)
        result = compressed(comparison, scheme, Path(temporary))
    path = folder / f"{comparison.name}-{result.scheme}.onnx"
    check_output(path)
    if result.crossed and not accept:
        raise LimitError(
            f"'{path}' would cross {len(result.crossed)} documented limits; "
            "pass --accept to write it anyway.",
            described(result),
        )
    with replaced_when_complete(path) as partial:
        partial.write_bytes(result.content)
        verify_file(partial, called=str(path)).raise_if_wrong()
    return path, result


def described(result: Compressed) -> str:
    """Return the measured figures, as lines for a terminal."""
    about = result.document
    rows = [
        ("", "compressed", "float32"),
        ("size", f"{about['bytes'] / 1e3:.0f} kB", f"{about['times_smaller']:g} times larger"),
        (
            "time per atom",
            f"{about['microseconds_per_atom']:.3g} µs",
            f"{about['times_faster']:g} times that",
        ),
    ]
    for name, (_, unit) in LIMITS.items():
        ours, theirs = about["measured"][name], about["float32"][name]
        if name != "disagreement":
            unit = unit.replace(" more than in float32", "")
            rows.append((name.replace("_", " "), _shown(ours, unit), _shown(theirs, unit)))
            continue
        for step in ours:
            label = f"forces against differences of the energy at {step} Å"
            rows.append((label, _shown(ours[step], "eV/Å"), _shown(theirs[step], "eV/Å")))
    width = max(len(row[0]) for row in rows)
    lines = [f"{label:{width}}  {ours:>18}  {theirs:>18}" for label, ours, theirs in rows]
    return "\n".join([*lines, *(f"limit crossed: {sentence}" for sentence in result.crossed)])


def _shown(value: float | None, unit: str) -> str:
    return "not finite" if value is None else f"{value:.2g} {unit}"


def _calibration(comparison: Comparison) -> Sequence[Atoms]:
    elements = comparison.student.elements
    frames = structures_for(comparison.exact, elements, CALIBRATION_SEED)
    return [*frames.values(), *reference_structures(elements)]


def unsealed(content: bytes) -> onnx.ModelProto:
    """Return the model in a file, without the hash of the file."""
    model = onnx.load_from_string(content)
    entries = [entry for entry in model.metadata_props if entry.key != SEAL_KEY.decode()]
    del model.metadata_props[:]
    model.metadata_props.extend(entries)
    return model


def _finished(
    model: onnx.ModelProto,
    comparison: Comparison,
    references: list[dict[str, Any]],
    about: dict[str, Any],
) -> bytes:
    """Return the bytes of a model with its metadata and seal."""
    # The SHA-256 of the weights is that of the original student, with which the file is compared.
    metadata = {
        **describe(comparison.student, comparison.name, "float32"),
        "references": references,
        "compression": about,
    }
    finished = onnx.ModelProto()
    finished.CopyFrom(model)
    del finished.metadata_props[:]
    onnx.helper.set_model_props(finished, {METADATA_KEY: encode(metadata)})
    onnx.checker.check_model(finished, full_check=True)
    content = finished.SerializeToString()
    return seal(content)
