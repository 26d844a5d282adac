"""Run all steps of a distillation from one recipe, and continue where an earlier run stopped."""

from __future__ import annotations

import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ase_student.checkpoint import available_students
from ase_student.cli import say, suggestion
from ase_student.distill.options import add_options
from ase_student.distill.recipes.options import Command, StrictParser, command_from
from ase_student.distill.recipes.records import (
    ChangedError,
    State,
    new_record,
    set_aside,
    state_of,
    write_record,
)
from ase_student.distill.steps import STEPS, run_step, step_module
from ase_student.files import replaced_when_complete

_KEYS = ("description", "folder", "include", "step")


@dataclass(frozen=True)
class RecipeStep:
    """One step of a recipe.

    Attributes
    ----------
    where : str
        File, number and name of the step, for messages.
    name : str
        Of the step.
    command : Command
    """

    where: str
    name: str
    command: Command

    @property
    def argv(self) -> list[str]:
        """The command line, without the program."""
        return [self.name, *self.command.argv]


def read_recipe(path: Path, folder: Path | None = None) -> tuple[Path, list[RecipeStep]]:
    """Read a recipe and check everything that can be checked before a step runs.

    A recipe is a TOML file with an array of tables ``[[step]]``. Each names its step as
    ``command``; its other keys are the options of this step's command line. A path is the output
    of an earlier step (or something in it), a file beside the recipe, or a bundled student; outputs
    are plain names. ``include`` names recipes beside this one whose steps come first; ``folder`` is
    where outputs go unless another one is given; ``description`` is for the reader.

    Parameters
    ----------
    path : path
    folder : path, optional
        Where outputs go.

    Returns
    -------
    folder : path
    steps : list of RecipeStep

    Raises
    ------
    FileNotFoundError
        If there is no such recipe.
    ValueError
        If it is not TOML, or a key or value is invalid; the message names file, step and key.
    """
    table = _read_table(path)
    if folder is None:
        folder = Path(table.get("folder", path.stem))
    steps: list[RecipeStep] = []
    _add_steps(path, table, folder, steps, ())
    if not steps:
        raise ValueError(f"{path}: has no steps; a step is a table [[step]].")
    return folder, steps


def _read_table(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"no recipe at '{path}'.")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: is not TOML: {error}.") from error
    for key, value in table.items():
        if key not in _KEYS:
            hint = suggestion(key, _KEYS)
            raise ValueError(f"{path}: unknown key '{key}'; allowed: {', '.join(_KEYS)}.{hint}")
        if key in ("description", "folder") and not isinstance(value, str):
            raise ValueError(f"{path}: '{key}' must be a text; given {value!r}.")
    return table


def _add_steps(
    path: Path,
    table: dict[str, Any],
    folder: Path,
    steps: list[RecipeStep],
    within: tuple[Path, ...],
) -> None:
    """Append the steps of a recipe, those that it includes first."""
    if path.resolve() in within:
        raise ValueError(f"{path}: includes itself.")
    for name in _texts(table.get("include", []), f"{path}: 'include'"):
        included = path.parent / name
        _add_steps(included, _read_table(included), folder, steps, (*within, path.resolve()))
    tables = table.get("step", [])
    if not isinstance(tables, list) or not all(isinstance(entry, dict) for entry in tables):
        raise ValueError(f"{path}: a step must be a table [[step]].")
    for number, options in enumerate(tables, 1):
        steps.append(_step(path, number, options, folder, steps))


def _texts(value: Any, where: str) -> list[str]:
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(text, str) for text in values):
        raise ValueError(f"{where} must be a text or an array of texts; given {value!r}.")
    return values


def _step(
    path: Path, number: int, table: dict[str, Any], folder: Path, earlier: Sequence[RecipeStep]
) -> RecipeStep:
    options = dict(table)
    name = options.pop("command", None)
    commands = [step for step in STEPS if step != "run"]
    if name not in commands:
        given = "has no 'command'" if name is None else f"has command = {name!r}"
        hint = suggestion(str(name), commands)
        raise ValueError(f"{path}: step {number} {given}; available: {', '.join(commands)}.{hint}")
    where = f"{path}: step {number} '{name}'"
    made = [step.command.output for step in earlier]

    def find(text: str) -> Path:
        inside = folder / text
        if any(inside == output or output in inside.parents for output in made):
            return inside
        if text in available_students():
            return Path(text)
        beside = path.parent / text
        if beside.exists():
            return beside
        listed = ", ".join(f"'{output.name}'" for output in made) or "there is none"
        raise FileNotFoundError(
            f"'{text}', but no earlier step makes it ({listed}), and '{beside}' does not exist."
        )

    try:
        command = command_from(options, step_module(name).OPTIONS, folder, find=find)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    if command.output in made:
        raise ValueError(f"{where}: '{command.output.name}' is made by an earlier step already.")
    return RecipeStep(where, name, command)


def states(steps: Sequence[RecipeStep], aside: Path | None = None) -> list[State]:
    """Return the state of every step: new, begun or finished.

    Parameters
    ----------
    steps : list of RecipeStep
    aside : path, optional
        Folder for outputs that were made in another way than the recipe says now; they are moved.

    Raises
    ------
    ValueError
        If there is such an output and no folder to move it to.
    """
    step_states: list[State] = []
    pending: list[Path] = []
    for step in steps:
        try:
            state = state_of(step.name, step.command, pending)
        except ChangedError as error:
            if aside is None:
                raise ValueError(
                    f"{step.where}: '{step.command.output}' cannot be reused: {error}; --force "
                    "moves it aside and makes it again, with all that depends on it; with another "
                    "-o it stays."
                ) from error
            set_aside(step.command.output, aside)
            state = "new"
        if state != "finished":
            pending.append(step.command.output)
        step_states.append(state)
    return step_states


def run_steps(steps: Sequence[RecipeStep], step_states: Sequence[State]) -> None:
    """Run the steps that are not finished; print a line before and after each."""
    for number, (step, state) in enumerate(zip(steps, step_states, strict=True), 1):
        line = f"[{number}/{len(steps)}] {step.name}: {step.command.output}"
        if state == "finished":
            say(f"{line} is finished already")
            continue
        say(f"{line} is {'continued' if state == 'begun' else 'started'}")
        started = time.monotonic()
        summary = _run_step(step)
        say(f"{summary} [{time.monotonic() - started:.0f} s]")


def _run_step(step: RecipeStep) -> str:
    """Run a step and keep the record of it; return its summary."""
    output = step.command.output
    output.parent.mkdir(parents=True, exist_ok=True)
    for file, text in step.command.files.items():
        with replaced_when_complete(file) as temporary:
            temporary.write_text(text, encoding="utf-8")
    # All its inputs exist by now, and do not change until the step is finished.
    record = new_record(step.name, step.command)
    write_record(record, output)
    parser = StrictParser()
    step_parsers = parser.add_subparsers(dest="step")
    add_options(step_parsers.add_parser(step.name), step_module(step.name).OPTIONS)
    try:
        with _command_line(step.argv):
            summary = run_step(parser.parse_args(step.argv), step.argv)
    except (ValueError, OSError, ImportError) as error:
        kind = ImportError if isinstance(error, ImportError) else ValueError
        raise kind(f"{step.where}: {error}") from error
    write_record(replace(record, summary=summary), output)
    return summary


@contextmanager
def _command_line(argv: Sequence[str]) -> Iterator[None]:
    """Set ``sys.argv`` to the command of a step.

    Training on several nodes starts copies of the process from its own command line.
    """
    before = sys.argv
    sys.argv = [before[0], *argv]
    try:
        yield
    finally:
        sys.argv = before
