"""Train a student on labelled structures."""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from ase import units

from ase_student.distill.training.settings import SHAPES, TrainingSettings, read_settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "dataset",
        type=Path,
        nargs="+",
        help="labelled HDF5 files; one that is given several times counts so often",
    )
    parser.add_argument("-o", dest="folder", type=Path, required=True, help="folder of the run")
    parser.add_argument("--student", choices=SHAPES, default="tiny", help="shape of the network")
    parser.add_argument(
        "--start", type=Path, help="train on from this student: a name, a folder or weights"
    )
    parser.add_argument(
        "--test", type=Path, nargs="+", default=[],
        help="labelled HDF5 files, each a test of its own",
    )  # fmt: skip
    parser.add_argument(
        "--calibrate", type=Path, metavar="FILE",
        help="labelled HDF5 file; in the end all energies are shifted by the same for every atom, "
        "so that their median error vanishes in its validation part",
    )  # fmt: skip
    parser.add_argument("--settings", type=Path, help="TOML file; options given here outrank it")
    for field in dataclasses.fields(TrainingSettings):
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=type(field.default),
            help=f"default {field.default}",
        )
    devices = parser.add_argument_group("devices, as Lightning Fabric names them")
    devices.add_argument("--accelerator", default="cpu", help="cpu, cuda, auto (default cpu)")
    devices.add_argument("--devices", type=int, default=1, help="on each node (default 1)")
    devices.add_argument("--num-nodes", type=int, default=1, help="default 1")
    devices.add_argument("--strategy", default="auto", help="default auto")
    devices.add_argument("--threads", type=int, help="CPU threads of each process")


def run(arguments: argparse.Namespace) -> str:
    """Train as the command line says, going on where an earlier run stopped."""
    for path in filter(None, (*arguments.dataset, *arguments.test, arguments.calibrate)):
        if not path.is_file():
            raise FileNotFoundError(f"no data set at '{path}'.")
    given, changes = read_settings(arguments.settings) if arguments.settings else ({}, {})
    for field in dataclasses.fields(TrainingSettings):
        if getattr(arguments, field.name) is not None:
            given[field.name] = getattr(arguments, field.name)
    try:
        settings = TrainingSettings(**given)
    except TypeError as error:
        raise ValueError(str(error)) from error
    try:
        from ase_student.distill.training.launch import launch
    except ModuleNotFoundError as error:
        raise ImportError(
            f'training needs {error.name}: pip install "ase-student[distill]"'
        ) from error
    metrics = launch(arguments, settings, changes)
    return f"{arguments.folder / 'weights.safetensors'}: errors on held-out data\n" + table(metrics)


def table(metrics: dict[str, Any]) -> str:
    """Return the errors on all tests, a line for each source."""
    return "\n".join(
        f"  {name:12s} {source:10s} force RMSE {row['force_rmse']:.4f} eV/Å, "
        f"R² {row['force_r2']:.5f}, energy MAE {1000 * row['energy_mae']:.2f} meV/atom, "
        f"{_stress(row)}{_interaction(row)}{row['structures']:.0f} structures"
        for name, errors in metrics.items()
        if name != "validation"
        for source, row in errors.items()
    )


def _interaction(row: dict[str, float]) -> str:
    if "interaction_mae_kcal_mol" not in row:
        return ""
    mae, n = row["interaction_mae_kcal_mol"], row["complexes"]
    return f"interaction MAE {mae:.2f} kcal/mol of {n:.0f} complexes, "


def _stress(row: dict[str, float]) -> str:
    if "stress_rmse" not in row:
        return ""
    return f"stress RMSE {row['stress_rmse'] / units.GPa:.3f} GPa, "
