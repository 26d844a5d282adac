"""Settings of a release and the options of its command."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from ase_student import cli
from ase_student.checkpoint import student_folder

PROGRAM = "ase-student release"
#: Folder of the repository, or the folder in which the package is installed.
ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "validation" / "reference"


@dataclass(frozen=True)
class ReleaseSettings:
    """Settings of a release.

    Attributes
    ----------
    weights : path
        ``weights.safetensors`` of a finished training.
    name : str
        Name of the student.
    folder : path
        Working folder; an interrupted release continues from its content.
    students : path
        Folder that holds a folder for each published student.
    data : tuple of path
        Labeled structures that training did not see.
    molecules : path
        Data set from which the molecules of the stability test are taken.
    picoseconds : float
        Length of each stability run.
    number : int
        Number of molecules in the stability test.
    physics_picoseconds : float
        Length of each run of dynamics in the checks of physics; 0 leaves physics out.
    threads : int
    recipe : str or None
        Text of the model card on how the student is made.
    chemistry : bool
        Whether to run the experiments of chemistry.
    force : bool
        Whether to replace the published student even if it is better.
    benchmark : bool
        Whether to measure speed and add a line to the history, in a checkout.
    """

    weights: Path
    name: str
    folder: Path
    students: Path
    data: tuple[Path, ...]
    molecules: Path
    picoseconds: float
    number: int
    physics_picoseconds: float
    threads: int
    recipe: str | None
    chemistry: bool
    force: bool
    benchmark: bool

    @property
    def target(self) -> Path:
        """Folder of the published student."""
        return self.students / self.name


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    command_line = cli.Parser(
        prog=PROGRAM,
        description="Export, verify, validate, test and describe a trained student, compare it "
        "with the published student of that name, and publish it.",
        epilog="An interrupted command continues when it is run again.",
    )
    add = command_line.add_argument
    add("run", type=Path, help="folder of a finished training, or its weights.safetensors")
    add("--name", help="of the student (default: the folder's)")
    add("-o", "--output", type=Path, help="folder to work in (default: RUN/release)")
    add("--students", type=Path, help="folder of published students (default: the package's)")
    add(
        "--data", type=Path, nargs="+",
        help="labeled structures that training did not see (default: validation/reference)",
    )  # fmt: skip
    add("--molecules", type=Path, help="data set for stability (default: the first of --data)")
    add("--picoseconds", type=float, default=50.0, help="of each stability run (default: 50)")
    add("--number", type=int, default=20, help="molecules of the stability test (default: 20)")
    add(
        "--physics", type=float, default=2.0, metavar="PS",
        help="dynamics in the checks of physics; 0 leaves physics out (default: 2)",
    )  # fmt: skip
    add("--threads", type=int, default=1, help="CPU threads (default: 1)")
    add("--recipe", help="text of the model card on how it is made, e.g. recipes/tiny.toml")
    add("--chemistry", action="store_true", help="also run the experiments of chemistry")
    add("--no-benchmark", dest="benchmark", action="store_false", help="no line in the history")
    add("--force", action="store_true", help="replace the student although it is better")
    return command_line


def settings_of(arguments: argparse.Namespace) -> ReleaseSettings:
    """Return the settings of a command line.

    Raises
    ------
    FileNotFoundError
        If weights or data do not exist.
    ValueError
        If the name is not valid for a student.
    """
    run: Path = arguments.run
    weights = run / "weights.safetensors" if run.is_dir() else run
    if not weights.is_file():
        raise FileNotFoundError(f"'{run}' has no weights.safetensors: has its training ended?")
    name = arguments.name or weights.absolute().parent.name
    if Path(name).name != name or name in (".", ".."):
        raise ValueError(f"'{name}' cannot be the name of a student: it must name a folder.")
    data = tuple(arguments.data or sorted(REFERENCE.glob("*.h5")))
    if not data:
        raise FileNotFoundError("no data to validate on: give --data FILE ….")
    for path in data:
        if not path.is_file():
            raise FileNotFoundError(f"no data '{path}'.")
    return ReleaseSettings(
        weights=weights,
        name=name,
        folder=arguments.output or weights.parent / "release",
        students=arguments.students or student_folder("tiny").parent,
        data=data,
        molecules=arguments.molecules or data[0],
        picoseconds=arguments.picoseconds,
        number=arguments.number,
        physics_picoseconds=arguments.physics,
        threads=arguments.threads,
        recipe=arguments.recipe,
        chemistry=arguments.chemistry,
        force=arguments.force,
        benchmark=arguments.benchmark,
    )
