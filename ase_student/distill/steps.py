"""The steps of distillation by name, and what their commands have in common."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

PROGRAM = "python -m ase_student.distill"
#: Each step is a module here with `add_arguments(parser)`, where `-o` names what is written, as
#: `output` if it is a file and as `folder` if it is a folder, and `run(arguments) -> str`, which
#: returns a summary.
STEPS = {
    "structures": "sample structures of molecules and clusters",
    "dimers": "sample complexes at several distances, with their molecules alone",
    "torsions": "sample molecules with bonds turned through a full circle",
    "liquids": "sample droplets of liquids, mixtures and solutions",
    "label": "let a teacher label structures",
    "train": "train a student on the labels",
    "grow": "find with a student's own dynamics what it should be trained on next",
    "bundle": "add ONNX file and model card to a trained student",
    "subset": "take held-out structures out of a labelled file",
    "run": "take all these steps from a recipe",
}
_MODULES = {"run": "recipe"}


def step_module(step: str) -> Any:
    """Return the module of a step.

    Raises
    ------
    ImportError
        If something that distillation needs is not installed.
    """
    try:
        return import_module(f"ase_student.distill.{_MODULES.get(step, step)}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("ase_student"):
            raise
        raise _what_to_install(error) from error


def _what_to_install(error: ModuleNotFoundError) -> ImportError:
    return ImportError(f'distillation needs {error.name}: pip install "ase-student[distill]"')


def run_step(arguments: argparse.Namespace, argv: Sequence[str]) -> str:
    """Run the step that a command line asks for and return its summary.

    Parameters
    ----------
    arguments : argparse.Namespace
        What the parser made of `argv`, the name of the step in ``step``.
    argv : sequence of str
        Is kept in the metadata of what the step writes.
    """
    arguments.command = f"{PROGRAM} {shlex.join(argv)}"
    run = step_module(arguments.step).run
    if "output" not in arguments:
        return str(run(arguments))
    check_output(arguments.output)
    with only_writer(arguments.output):
        return str(run(arguments))


@contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Keep other processes from writing the same file, and from its pieces, meanwhile.

    Raises
    ------
    ValueError
        If another process is at it.
    """
    try:
        from filelock import FileLock, Timeout
    except ModuleNotFoundError as error:
        raise _what_to_install(error) from error
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ValueError(
            f"another process is writing '{path}': wait until it is done, or give another output."
        ) from error
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def check_output(path: Path) -> None:
    """Raise before the work rather than after it if a file cannot be written."""
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"no folder '{path.absolute().parent}' to write '{path.name}' to.")
    if path.is_dir():
        raise IsADirectoryError(f"'{path}' is a folder; give the name of a file.")
