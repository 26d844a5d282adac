"""Write a compressed ONNX file, measured beside the same student in float32."""

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

#: Largest differences from the references may be so many times those measured: processors round
#: and saturate integers in different ways.
MARGIN = 2.0
PICOSECONDS = 2.0
#: Seed of the structures that ranges of activations are calibrated on.
CALIBRATION_SEED = 7


class LimitError(ValueError):
    """A compressed student is worse than what is documented as harmless.

    Attributes
    ----------
    table : str
        What was measured.
    """

    def __init__(self, message: str, table: str) -> None:
        super().__init__(message)
        self.table = table


@dataclass(frozen=True)
class Comparison:
    """A student that compressed files of it are compared with.

    Attributes
    ----------
    student : Student
    name : str
    exact : Potential
        In float64.
    plain : bytes
        The ONNX file in float32.
    plain_potential : Potential
        It, opened.
    plain_cost : Cost
    structures : dict of str to Atoms
    molecules : dict of str to Atoms
        At rest.
    references : list of dict
        That the file in float32 carries.
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
        """Measure a compressed form of the student."""
        return cost_of(
            potential,
            self.exact,
            self.structures,
            molecules=self.molecules,
            picoseconds=self.picoseconds,
        )


@dataclass(frozen=True)
class Compressed:
    """A compressed file and what it costs.

    Attributes
    ----------
    scheme : str
    content : bytes
    document : dict
        What the file says of itself under ``compression`` in its metadata.
    crossed : list of str
        Documented limits that it crosses.
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
    """Open a student and measure it in float32, once for all that is compared with it.

    Parameters
    ----------
    model : str or path
        Name of a bundled student, or a checkpoint.
    folder : path
        For files on the way.
    threads : int
    picoseconds : float
        Of NVE.
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
    """Return a compressed file and what it costs.

    Parameters
    ----------
    comparison : Comparison
    scheme : str
        Of `SCHEMES`.
    folder : path
        For files on the way.
    """
    if scheme == "int8":
        both = [compressed(comparison, kind, folder) for kind in KINDS]
        return min(both, key=lambda one: float(one.document["measured"]["force_rmse"]))
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
    # Measured first with tolerances that let anything pass, and written again with what was found.
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
    """Return what was measured and on what, in a form that JSON can hold."""
    times = timed(
        {"float32": comparison.plain_potential, "compressed": potential},
        list(comparison.structures.values()),
    )
    lowest = {name: one["lowest"] for name, one in times.items()}
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
    """Write a compressed ONNX file of a student, named after both.

    Parameters
    ----------
    model : str or path
        Name of a bundled student, or a checkpoint.
    folder : path
        Made if there is none.
    scheme : str
        Of `SCHEMES`.
    accept : bool
        Write the file also if it crosses a documented limit; it says so itself, and the calculator
        warns when it opens it.
    threads : int
    picoseconds : float
        Of NVE.

    Returns
    -------
    path, Compressed

    Raises
    ------
    LimitError
        If a limit is crossed and that is not accepted. Nothing is written.
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
        found = compressed(comparison, scheme, Path(temporary))
    path = folder / f"{comparison.name}-{found.scheme}.onnx"
    check_output(path)
    if found.crossed and not accept:
        raise LimitError(
            f"'{path}' would cross {len(found.crossed)} documented limits; "
            "pass --accept to write it all the same.",
            described(found),
        )
    with replaced_when_complete(path) as partial:
        partial.write_bytes(found.content)
        verify_file(partial, called=str(path)).raise_if_wrong()
    return path, found


def described(found: Compressed) -> str:
    """Return what was measured, as lines for a terminal."""
    about = found.document
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
    return "\n".join([*lines, *(f"limit crossed: {sentence}" for sentence in found.crossed)])


def _shown(value: float | None, unit: str) -> str:
    return "not finite" if value is None else f"{value:.2g} {unit}"


def _calibration(comparison: Comparison) -> Sequence[Atoms]:
    elements = comparison.student.elements
    frames = structures_for(comparison.exact, elements, CALIBRATION_SEED)
    return [*frames.values(), *reference_structures(elements)]


def unsealed(content: bytes) -> onnx.ModelProto:
    """Return the model in a file, without the hash of the file."""
    model = onnx.load_from_string(content)
    kept = [entry for entry in model.metadata_props if entry.key != SEAL_KEY.decode()]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    return model


def _finished(
    model: onnx.ModelProto,
    comparison: Comparison,
    references: list[dict[str, Any]],
    about: dict[str, Any],
) -> bytes:
    """Return the bytes of a model with its metadata and seal."""
    # The SHA-256 of the weights stays that of the student which all this is measured against.
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
