"""Run all steps of a distillation from one recipe, and continue where an earlier run stopped."""

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
        "folder for all outputs (default: that of the recipe, or one with its name)",
        required=False,
    ),
    Option(
        "force",
        "make outputs again that were made with other settings, with all that depends on them; the "
        "old ones are moved to a folder 'replaced-N'",
        bool,
        default=False,
    ),
    Option("dry-run", "print the commands without running them", bool, default=False),
)


def run(arguments: argparse.Namespace) -> str:
    """Run a recipe as the command line says and return a summary."""
    folder, steps = read_recipe(arguments.recipe, arguments.folder)
    if arguments.dry_run:
        return "\n".join(_shown(steps))
    step_states = states(steps, _unused(folder) if arguments.force else None)
    run_steps(steps, step_states)
    n_before = step_states.count("finished")
    return f"{folder}: {len(steps)} steps, {n_before} of them finished in earlier runs."


def _shown(steps: Sequence[RecipeStep]) -> Iterator[str]:
    """Yield the commands of steps, for a shell."""
    for step in steps:
        for file, text in step.command.files.items():
            yield f"# {file}:\n" + textwrap.indent(text, "#   ").rstrip("\n")
        yield f"{PROGRAM} {shlex.join(step.argv)}"


def _unused(folder: Path) -> Path:
    """Return the first folder 'replaced-N' that does not exist."""
    return next(path for number in count(1) if not (path := folder / f"replaced-{number}").exists())
