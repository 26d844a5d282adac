"""Settings of a validation and the options of its command."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path

from ase_student import cli
from ase_student.backends import BACKENDS, DTYPES
from ase_student.data.readers.label_keys import LabelKeys
from ase_student.validation.chemistry.run import EXPERIMENTS
from ase_student.validation.models import ModelSpec, distinct_names
from ase_student.validation.physics.runner import Lengths


@dataclass(frozen=True)
class ValidationSettings:
    """Settings of a validation.

    Attributes
    ----------
    data : path or None
        HDF5, extended XYZ or ASE database; None if only chemistry is run.
    output : path
        Folder that results are written to.
    specs : tuple of ModelSpec
        One for each student and backend.
    teacher : str or None
        As for ``python -m ase_student.distill label --teacher``.
    limit : int or None
        Largest number of structures, which are drawn at random; None takes all.
    seed : int
        Of all random choices.
    skip_invalid : bool
        Whether to leave out invalid structures instead of stopping.
    physics : bool
        Whether to run the checks of physics in addition to errors and speed.
    chemistry : bool
        Whether to run the experiments of :mod:`ase_student.validation.chemistry`.
    experiments : tuple of str
        Names of the experiments of chemistry to run; empty for all.
    liquid : float, ps
        Length of each of the two simulations of water in chemistry; 0 leaves them out.
    lengths : Lengths
        Lengths of the simulations in the checks of physics.
    scheduler : str or None
        Address of a Dask scheduler.
    command : str
        Command line, recorded in the results.
    keys : LabelKeys or None
        Names of the labels in the file; None to find them by their usual names.
    """

    data: Path | None
    output: Path
    specs: tuple[ModelSpec, ...]
    teacher: str | None = None
    limit: int | None = None
    seed: int = 0
    skip_invalid: bool = False
    physics: bool = True
    chemistry: bool = False
    experiments: tuple[str, ...] = ()
    liquid: float = 0.0
    lengths: Lengths = field(default_factory=Lengths)
    scheduler: str | None = None
    command: str = ""
    keys: LabelKeys | None = None

    def __post_init__(self) -> None:
        if self.data is None and not self.chemistry:
            raise ValueError(
                "nothing to validate on: give a file of labeled structures, --chemistry, or both."
            )
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"--limit is {self.limit}; it must be at least 1.")
        if self.seed < 0:
            raise ValueError(f"--seed is {self.seed}; it must not be negative.")
        if (self.liquid or self.experiments) and not self.chemistry:
            raise ValueError(
                "--liquid and --experiment are parts of chemistry: give --chemistry too."
            )
        for name, length in {**vars(self.lengths), "liquid": self.liquid}.items():
            if not 0.0 <= length < float("inf"):
                raise ValueError(f"--{name} is {length} ps; it must be finite and not negative.")
            if 0.0 < length < 0.01:
                raise ValueError(f"--{name} is {length} ps; it must be 0, or 0.01 ps and more.")
        if len(set(self.specs)) != len(self.specs):
            raise ValueError("the same model was given twice.")
        if self.output.exists() and not self.output.is_dir():
            raise NotADirectoryError(f"'{self.output}' is a file; give a folder to write to.")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    command_line = cli.Parser(
        prog="python -m ase_student.validation",
        description="Report the errors of students, where they occur, and whether the physics is "
        "correct.",
        epilog="An interrupted command continues when it is run again.",
    )
    add = command_line.add_argument
    add(
        "data", type=Path, nargs="?",
        help="labeled structures: HDF5, extended XYZ or ASE database; optional with --chemistry",
    )  # fmt: skip
    add("--model", action="append", metavar="MODEL", help="student by name or file; repeatable")
    add(
        "--backend", action="append", choices=("auto", *BACKENDS),
        help="repeatable: every model runs in each (default: auto)",
    )  # fmt: skip
    add("--device", default="auto", help="cpu, cuda, cuda:N or auto")
    add("--dtype", default="float32", choices=DTYPES, help="precision of the network")
    add("--threads", type=int, help="CPU threads of the backends")
    add("--teacher", metavar="NAME", help="so3lr, gfn2-xtb, package.module:Class, …; for speed, "
        "vibrations and torsions")  # fmt: skip
    for label in ("energy", "forces", "stress"):
        add(f"--{label}-key", metavar="KEY", help=f"name of the {label} in the file; with one of "
            "these three, labels that are not named are not read")  # fmt: skip
    add("--limit", type=int, metavar="N", help="structures, drawn at random (default: all)")
    add("--seed", type=int, default=0, help="of all random choices (default: 0)")
    add("--skip-invalid", action="store_true", help="leave out invalid structures")
    add("--no-physics", dest="physics", action="store_false", help="errors and speed only")
    add(
        "--chemistry",
        action="store_true",
        help="interaction energies, torsions, "
        "frequencies, crystals, water, compared with the teacher and with experiment",
    )
    add(
        "--experiment", action="append", choices=[experiment.name for experiment in EXPERIMENTS],
        help="with --chemistry: only this experiment and those of --liquid; repeatable",
    )  # fmt: skip
    add(
        "--liquid",
        type=float,
        default=0.0,
        metavar="PS",
        help="with --chemistry: pair "
        "distribution and then density of 64 waters, PS each (0); 20 is enough",
    )
    add(
        "--nve",
        type=float,
        default=Lengths.nve,
        metavar="PS",
        help="dynamics at constant energy (2)",
    )
    add(
        "--nvt",
        type=float,
        default=Lengths.nvt,
        metavar="PS",
        help="dynamics with a thermostat (2)",
    )
    add("--water", type=float, default=Lengths.water, metavar="PS", help="64 waters (0)")
    add("--scheduler", metavar="ADDRESS", help="of a Dask cluster that evaluates the structures")
    add("-o", "--output", type=Path, required=True, metavar="DIR", help="folder to write to")
    return command_line


def settings_of(arguments: argparse.Namespace, command: str) -> ValidationSettings:
    """Return the settings of a command line."""
    models = arguments.model or ["tiny"]
    specs = tuple(
        ModelSpec(model, backend, arguments.device, arguments.dtype, arguments.threads, name)
        for model, name in zip(models, distinct_names(models), strict=True)
        for backend in arguments.backend or ["auto"]
    )
    return ValidationSettings(
        data=arguments.data,
        output=arguments.output,
        specs=specs,
        teacher=arguments.teacher,
        limit=arguments.limit,
        seed=arguments.seed,
        skip_invalid=arguments.skip_invalid,
        physics=arguments.physics,
        chemistry=arguments.chemistry,
        experiments=tuple(arguments.experiment or ()),
        liquid=arguments.liquid,
        lengths=Lengths(arguments.nve, arguments.nvt, arguments.water),
        scheduler=arguments.scheduler,
        command=command,
        keys=_keys(arguments),
    )


def _keys(arguments: argparse.Namespace) -> LabelKeys | None:
    keys = LabelKeys(arguments.energy_key, arguments.forces_key, arguments.stress_key)
    return None if keys == LabelKeys() else keys
