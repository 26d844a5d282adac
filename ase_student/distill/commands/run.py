"""Take all steps of a distillation from one recipe, and go on where an earlier run stopped."""

from __future__ import annotations

import argparse
import shlex
import textwrap
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

from ase_student.distill.options import Option, output_folder, positional
from ase_student.distill.recipes.recipe import RecipeStep, read_recipe, run_steps, states
from ase_student.distill.steps import PROGRAM

OPTIONS = (
    positional("recipe", "TOML file"),
    output_folder(
        "where everything goes (default: what the recipe says, or a folder of its name)",
        required=False,
    ),
    Option(
        "force",
        "make anew what was made with other settings, and what depends on it; what was there is "
        "moved to a folder 'replaced-N'",
        bool,
        default=False,
    ),
    Option("dry-run", "print the commands, run nothing", bool, default=False),
)


def run(arguments: argparse.Namespace) -> str:
    """Run a recipe as the command line says and return a summary."""
    folder, steps = read_recipe(arguments.recipe, arguments.folder)
    if arguments.dry_run:
        return "\n".join(_shown(steps))
    found = states(steps, _unused(folder) if arguments.force else None)
    run_steps(steps, found)
    n_before = found.count("finished")
    return f"{folder}: {len(steps)} steps, of which {n_before} had been finished before."


def _shown(steps: Sequence[RecipeStep]) -> Iterator[str]:
    """Yield the commands of steps, for a shell."""
    for step in steps:
        for file, text in step.command.files.items():
            yield f"# {file}:\n" + textwrap.indent(text, "#   ").rstrip("\n")
        yield f"{PROGRAM} {shlex.join(step.argv)}"


def _unused(folder: Path) -> Path:
    """Return the first folder 'replaced-N' that does not exist."""
    return next(path for number in count(1) if not (path := folder / f"replaced-{number}").exists())
