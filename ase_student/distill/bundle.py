"""Put a trained student into a folder with its ONNX file, its model card and its metrics."""

import argparse
import json
from pathlib import Path
from typing import Any

from ase_student.export import export_student
from ase_student.files import replaced_when_complete
from ase_student.student import Student, load_student, save_student

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
}

SOURCES = {
    "md": "molecules from MMFF94 dynamics at 300 to 1000 K",
    "displaced": "conformers with random displacements of 0.03 to 0.09 Å",
    "cluster": "water clusters, solvated molecules and dimers, from dynamics at 300 to 600 K",
    "contact": "clusters with one molecule pressed in or pulled away",
    "all": "all of them",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line of ``bundle``."""
    parser.add_argument("weights", type=Path, help="weights.safetensors of a finished training")
    parser.add_argument(
        "-o", dest="folder", type=Path, required=True, help="folder, named after the student"
    )


def run(arguments: argparse.Namespace) -> str:
    """Write the folder as the command line says and return a summary."""
    student = load_student(arguments.weights)
    if "test" not in student.metadata.get("metrics", {}):
        raise ValueError(f"{arguments.weights}: has no metrics on held-out molecules.")
    folder: Path = arguments.folder
    name = folder.absolute().name
    save_student(student, folder / "weights.safetensors")
    export_student(folder / "weights.safetensors", folder, formats=("onnx",))
    for file, text in (("README.md", card(student, name)), ("metrics.json", metrics(student))):
        with replaced_when_complete(folder / file) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return f"{folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}"


def metrics(student: Student) -> str:
    """Return a student's metadata as JSON: teacher, data, training settings and errors."""
    return (
        json.dumps({"weights_sha256": student.sha256, **student.metadata}, indent=2, sort_keys=True)
        + "\n"
    )


def card(student: Student, name: str) -> str:
    """Return a student's model card in Markdown."""
    metadata = student.metadata
    header = student.header()
    training = metadata["training"]
    data = metadata["data"]
    teacher = str(metadata["teacher"])
    n_train = sum(entry["structures"].get("train", 0) for entry in data)
    rows = [
        f"| {SOURCES.get(source, source)} | {row['structures']:.0f} | {row['force_sigma']:.2f} "
        f"| {row['force_rmse']:.3f} | {row['force_r2']:.4f} | {1000 * row['energy_mae']:.1f} |"
        for source, row in sorted(metadata["metrics"]["test"].items(), key=_all_last)
    ]
    settings = ", ".join(
        f"{key} {training[key]}"
        for key in ("epochs", "batch_size", "learning_rate", "ema_decay", "seed")
    )
    shape = header["architecture"]
    return f"""# {name}

A PaiNN student with {student.n_parameters:,} parameters ({shape["blocks"]} blocks of
{shape["features"]} features, {shape["n_rbf"]} radial functions, messages of
{shape["message_channels"]} channels, cutoff {shape["cutoff"]:g} Å) for
{", ".join(header["elements"])}. This file is written by `python -m ase_student.distill bundle`.

## Errors

Against the teacher, on structures of molecules that training never saw. σ is the standard deviation
of the teacher's force components; energies are compared as they are, without a fitted shift.

| held-out structures | number | σ, eV/Å | force RMSE, eV/Å | force R² | energy MAE, meV/atom |
|---|---|---|---|---|---|
{chr(10).join(rows)}

## Teacher

{TEACHERS.get(teacher, teacher)}.

## Data

{n_train:,} structures for training; the split is by molecule, so that no conformer of a test
molecule, alone or in a cluster, is trained on. Settings of teacher and sampling, hashes and counts
are in `metrics.json`.

## Limits

- Trained on neutral closed-shell molecules of up to 45 atoms and on their clusters. Ions, radicals,
  reactions, metals and other elements are outside of that; nothing warns about the first four.
- Sees 5 Å far: what the teacher has of electrostatics and dispersion beyond that is missing.
- Liquids and crystals were not trained on; errors on them are unknown.

## Make it again

```bash
python -m ase_student.distill structures -o structures.h5 --seed 0
python -m ase_student.distill label structures.h5 --teacher {teacher} -o labelled.h5
python -m ase_student.distill train labelled.h5 --student {name} -o run
python -m ase_student.distill bundle run/weights.safetensors -o {name}
```

Training took {training["steps"]:,} steps ({settings}).
"""


def _all_last(item: tuple[str, Any]) -> tuple[bool, str]:
    return item[0] == "all", item[0]
