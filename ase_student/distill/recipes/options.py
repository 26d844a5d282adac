"""The options of a command, given as a TOML table."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from ase_student import cli


class ModelName(str):
    """The type of an option that takes a student, by name or path, or else a name of something.

    A student is read, so that a recipe notices when it is not what it was.
    """


#: What a value must be for an option of this type.
_KINDS: dict[Any, tuple[str, tuple[type, ...]]] = {
    int: ("an integer", (int,)),
    float: ("a number", (float, int)),
    str: ("a text", (str,)),
    ModelName: ("a text", (str,)),
    Path: ("a text, the path of a file", (str,)),
}


class StrictParser(cli.Parser):
    """A parser that raises ValueError instead of ending the program."""

    def error(self, message: str) -> NoReturn:
        """Raise what was wrong with the arguments."""
        raise ValueError(cli.sentence(message))


@dataclass
class Command:
    """A table of options, made into a command line.

    Attributes
    ----------
    argv : list of str
        Positional arguments first.
    output : path
        What ``-o`` names.
    inputs : dict of str to list of path
        By option, what is read.
    files : dict of path to str
        Files to write before the command is run: options that were given as tables.
    settings : dict
        By option, the values that are not paths.
    """

    argv: list[str] = field(default_factory=list)
    output: Path = Path()
    inputs: dict[str, list[Path]] = field(default_factory=dict)
    files: dict[Path, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


def parser_of(add_arguments: Callable[[argparse.ArgumentParser], None]) -> StrictParser:
    """Return the parser of a command."""
    parser = StrictParser(add_help=False, allow_abbrev=False)
    add_arguments(parser)
    return parser


def command_from(
    table: Mapping[str, Any],
    parser: argparse.ArgumentParser,
    folder: Path,
    *,
    find: Callable[[str], Path],
) -> Command:
    """Make a command line of a table whose keys are options of the command.

    Keys are long options without their dashes in front, or the names of positional arguments.
    Values have the type of the option: a boolean for one that takes no value, an array for one
    that takes several. Where an option wants a file, a table is written to one, as TOML.

    Parameters
    ----------
    table : mapping
    parser : argparse.ArgumentParser
        Of the command.
    folder : path
        Where the output goes.
    find : callable
        Says which file or folder a text stands for.

    Raises
    ------
    ValueError
        If a key is unknown or missing, or a value is of the wrong type.
    """
    actions: list[argparse.Action] = parser._actions
    given = _by_option(table, actions)
    for action in actions:
        # To argparse, even a positional argument with "*" is required.
        if action.required and action.nargs != "*" and action.dest not in given:
            raise ValueError(f"lacks '{_name(action)}'.")
    command = Command()
    (output,) = (action for action in actions if "-o" in action.option_strings)
    command.output = folder / _output_name(given[output.dest], _name(output))
    # An option with several values would swallow a positional argument behind it.
    for action in sorted(actions, key=lambda action: bool(action.option_strings)):
        if action is output:
            command.argv += ["-o", str(command.output)]
        elif action.dest in given:
            words = _words(action, given[action.dest], command, find)
            command.argv += _arguments(action, words)
    parser.parse_args(command.argv)
    return command


def _name(action: argparse.Action) -> str:
    """Return what a table calls an option."""
    long = [option for option in action.option_strings if option.startswith("--")]
    return long[0].removeprefix("--") if long else action.dest


def _by_option(table: Mapping[str, Any], actions: Sequence[argparse.Action]) -> dict[str, Any]:
    """Return the values of a table by the `dest` of their options."""
    dest_of = {_name(action).replace("-", "_"): action.dest for action in actions}
    given: dict[str, Any] = {}
    for key, value in table.items():
        dest = dest_of.get(key.replace("-", "_"))
        if dest is None:
            allowed = ", ".join(_name(action) for action in actions)
            hint = cli.suggestion(key, map(_name, actions))
            raise ValueError(f"unknown key '{key}'; allowed: {allowed}.{hint}")
        if dest in given:
            raise ValueError(f"'{key}' is given twice.")
        given[dest] = value
    return given


def _output_name(value: Any, name: str) -> str:
    if not isinstance(value, str) or value in ("", ".", "..") or Path(value).name != value:
        raise ValueError(f"'{name}' must be a plain name, without a folder; given {value!r}.")
    return value


def _words(
    action: argparse.Action, value: Any, command: Command, find: Callable[[str], Path]
) -> list[str]:
    """Return the words that stand for a value, and note in `command` what it means."""
    name = _name(action)
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise ValueError(f"'{name}' must be true or false; given {value!r}.")
        command.settings[action.dest] = value
        return ["true"] if value else []
    if isinstance(value, dict) and action.type is Path:
        file = command.output.with_name(f"{command.output.name}.{name}.toml")
        command.files[file] = toml(value)
        command.settings[action.dest] = value
        return [str(file)]
    values = _items(action, value, name)
    for item in values:
        _check(action, item, name)
    if action.type in (Path, ModelName):
        try:
            command.inputs[action.dest] = [find(item) for item in values]
            return [str(path) for path in command.inputs[action.dest]]
        except FileNotFoundError as error:
            if action.type is Path:
                raise ValueError(f"'{name}' is {error}") from error
    command.settings[action.dest] = value
    return [str(item) for item in values]


def _items(action: argparse.Action, value: Any, name: str) -> list[Any]:
    """Return the values of an option one by one."""
    if action.nargs is None or action.nargs == "?":
        return [value]
    if not isinstance(value, list) and action.nargs in ("+", "*"):
        return [value]
    if not isinstance(value, list):
        raise ValueError(f"'{name}' must be an array of {action.nargs}; given {value!r}.")
    if not value or (isinstance(action.nargs, int) and len(value) != action.nargs):
        wanted = action.nargs if isinstance(action.nargs, int) else "at least one"
        raise ValueError(f"'{name}' must be an array of {wanted}; given {len(value)}.")
    return value


def _check(action: argparse.Action, value: Any, name: str) -> None:
    """Raise ValueError if a value cannot be meant for an option."""
    kind: Any = action.type or str
    words, types = _KINDS.get(kind, ("a text or a number", (str, int, float)))
    # A boolean is an integer to Python.
    if type(value) not in types:
        raise ValueError(f"'{name}' must be {words}; given {value!r}.")
    try:
        converted = kind(str(value))
    except (ValueError, TypeError, argparse.ArgumentTypeError) as error:
        raise ValueError(f"'{name}' cannot be {value!r}: {error}.") from error
    if action.choices is not None and converted not in action.choices:
        allowed = ", ".join(f"'{choice}'" for choice in action.choices)
        raise ValueError(f"'{name}' must be one of {allowed}; given {value!r}.")


def _arguments(action: argparse.Action, words: list[str]) -> list[str]:
    """Return an option with its words as they stand on a command line."""
    if not action.option_strings:
        return words
    option = max(action.option_strings, key=len)
    if action.nargs == 0:
        negative = [o for o in action.option_strings if o.startswith("--no-")]
        return [f"--{_name(action)}"] if words else negative
    if len(words) == 1 and option.startswith("--"):
        # So that a value with a minus is no option.
        return [f"{option}={words[0]}"]
    return [option, *words]


def toml(table: Mapping[str, Any]) -> str:
    """Return a table of numbers, texts, booleans, arrays and tables as TOML."""
    return "".join(f"{_key(key)} = {_toml(value)}\n" for key, value in table.items())


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, (str, bool, int)):
        # What JSON and TOML write alike.
        return json.dumps(value)
    raise ValueError(f"a table of options cannot hold {value!r}.")


def _key(key: str) -> str:
    is_bare = key.isascii() and key.replace("-", "").replace("_", "").isalnum()
    return key if is_bare else json.dumps(key)
