"""Train a student on labeled structures."""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from ase import units

from ase_student.distill.options import Option, grouped, output_folder, positional
from ase_student.distill.training.settings import SHAPES, TrainingSettings, read_settings

OPTIONS = (
    positional(
        "dataset", "labeled HDF5 files; one that is given N times counts N times", nargs="+"
    ),
    output_folder("folder of the run"),
    Option("student", "shape of the network", choices=tuple(SHAPES), default="tiny"),
    Option("start", "student to train further: a name, a folder or weights", Path),
    Option("test", "labeled HDF5 files, each a test of its own", Path, nargs="+", default=()),
    Option(
        "calibrate",
        "labeled HDF5 file; at the end, energies are shifted by a constant per atom so that their "
        "median error on its validation part is zero",
        Path,
        metavar="FILE",
    ),
    Option("settings", "TOML file; options of the command line take precedence", Path),
    # Without defaults: what is not given is taken from the TOML file.
    *(
        Option(field.name.replace("_", "-"), f"default: {field.default}", type(field.default))
        for field in dataclasses.fields(TrainingSettings)
    ),
    *grouped(
        "devices, as Lightning Fabric names them",
        Option("accelerator", "cpu, cuda, auto", default="cpu"),
        Option("devices", "on each node", int, default=1),
        Option("num-nodes", "how many", int, default=1),
        Option("strategy", "how the devices share the work", default="auto"),
        Option("threads", "CPU threads of each process", int),
    ),
)


def run(arguments: argparse.Namespace) -> str:
    """Train as the command line says; an earlier run that stopped is continued."""
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
