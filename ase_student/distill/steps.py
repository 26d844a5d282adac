"""Names of the steps of distillation, and how a step is run."""

from __future__ import annotations

import argparse
import keyword
import shlex
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from ase_student.distill.options import check_limits
from ase_student.files import check_output
from ase_student.jobs.store import only_writer, what_to_install

PROGRAM = "python -m ase_student.distill"
#: Each step is a module of `commands` (`import_` and `continue_` for words of Python) with
#: `OPTIONS`, of which one names what is written, as `output` if it is a file and as `folder` if it
#: is a folder, and `run(arguments) -> str`, which returns a summary.
STEPS = {
    "structures": "sample structures of molecules and clusters",
    "displace": "displace, strain and move structures of files, crystals and surfaces",
    "continue": "move frames of earlier files on by another dynamics",
    "diatomics": "sample two atoms alone, of every pair of elements",
    "dimers": "sample complexes at several distances, with their molecules alone",
    "torsions": "sample molecules with bonds turned through a full circle",
    "liquids": "sample droplets of liquids, mixtures and solutions",
    "crystals": "sample surroundings of molecules in their crystals",
    "label": "label structures with a teacher",
    "import": "read labeled structures of other programs",
    "train": "train a student on the labels",
    "grow": "select structures by a student's own dynamics, and label them",
    "bundle": "add ONNX file and model card to a trained student",
    "subset": "select held-out structures of a labeled file",
    "run": "run all steps of a recipe",
}


def step_module(step: str) -> Any:
    """Return the module of a step.

    Raises
    ------
    ImportError
        If something that distillation needs is not installed.
    """
    try:
        name = f"{step}_" if keyword.iskeyword(step) else step
        return import_module(f"ase_student.distill.commands.{name}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("ase_student"):
            raise
        raise what_to_install(error) from error


def run_step(arguments: argparse.Namespace, argv: Sequence[str]) -> str:
    """Run the step of a command line and return its summary.

    Parameters
    ----------
    arguments : argparse.Namespace
        The parsed words of `argv`, with the name of the step as ``step``.
    argv : sequence of str
        Words of the command line, for the metadata of the output.

    Raises
    ------
    ValueError
        If a value is not allowed.
    """
    arguments.command = f"{PROGRAM} {shlex.join(argv)}"
    module = step_module(arguments.step)
    check_limits(arguments, module.OPTIONS)
    if "output" not in arguments:
        return str(module.run(arguments))
    check_output(arguments.output)
    with only_writer(arguments.output):
        return str(module.run(arguments))
