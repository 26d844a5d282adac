"""The options of a step, given as a TOML table."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from ase_student import cli
from ase_student.distill.options import ModelName, Option, add_options

#: By type of an option: description and types of a value in a recipe.
_KINDS: dict[Any, tuple[str, tuple[type, ...]]] = {
    int: ("an integer", (int,)),
    float: ("a number", (float, int)),
    str: ("a text", (str,)),
    ModelName: ("a text", (str,)),
    Path: ("a text, the path of a file", (str,)),
}


class StrictParser(cli.Parser):
    """A parser that raises ValueError where argparse ends the program."""

    def error(self, message: str) -> NoReturn:
        """Raise ValueError with the message."""
        raise ValueError(cli.sentence(message))


@dataclass
class Command:
    """A table of options, made into a command line.

    Attributes
    ----------
    argv : list of str
        Positional arguments first.
    output : path
        File or folder that the step writes.
    inputs : dict of str to list of path
        By option, files and folders that the step reads.
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


def command_from(
    table: Mapping[str, Any],
    options: Sequence[Option],
    folder: Path,
    *,
    find: Callable[[str], Path],
) -> Command:
    """Make a command line of a table whose keys are options of a step.

    Keys are long options without their dashes in front, or the names of positional arguments.
    Values have the type of the option: a boolean for one that takes no value, an array for one
    that takes several. Where an option wants a file, a table is written to one, as TOML.

    Parameters
    ----------
    table : mapping
    options : sequence of Option
        Of the step.
    folder : path
        Where the output goes.
    find : callable
        Returns the file or folder that a text names.

    Raises
    ------
    ValueError
        If a key is unknown or missing, or a value is of the wrong type or not allowed.
    """
    given = _by_option(table, options)
    for option in options:
        if option.required and option.name not in given:
            raise ValueError(f"lacks '{option.name}'.")
    command = Command()
    (output,) = (option for option in options if option.is_output)
    command.output = folder / _output_name(given[output.name], output.name)
    # An option with several values would swallow a positional argument behind it.
    for option in sorted(options, key=lambda option: bool(option.flags)):
        if option is output:
            command.argv += ["-o", str(command.output)]
        elif option.name in given:
            words = _words(option, given[option.name], command, find)
            command.argv += _arguments(option, words)
    parser = StrictParser(add_help=False, allow_abbrev=False)
    add_options(parser, options)
    parser.parse_args(command.argv)
    return command


def _by_option(table: Mapping[str, Any], options: Sequence[Option]) -> dict[str, Any]:
    """Return the values of a table by the names of their options."""
    known = {option.name.replace("-", "_"): option for option in options}
    given: dict[str, Any] = {}
    for key, value in table.items():
        option = known.get(key.replace("-", "_"))
        if option is None:
            names = [option.name for option in options if option.kind != "moved"]
            hint = cli.suggestion(key, names)
            raise ValueError(f"unknown key '{key}'; allowed: {', '.join(names)}.{hint}")
        if option.kind == "moved":
            raise ValueError(f"'{key}' has moved to the step '{option.help}'.")
        if option.name in given:
            raise ValueError(f"'{key}' is given twice.")
        given[option.name] = value
    return given


def _output_name(value: Any, name: str) -> str:
    if not isinstance(value, str) or value in ("", ".", "..") or Path(value).name != value:
        raise ValueError(f"'{name}' must be a plain name, without a folder; given {value!r}.")
    return value


def _words(option: Option, value: Any, command: Command, find: Callable[[str], Path]) -> list[str]:
    """Return the words of the command line for a value, and add the value to `command`."""
    if option.is_flag:
        if not isinstance(value, bool):
            raise ValueError(f"'{option.name}' must be true or false; given {value!r}.")
        command.settings[option.dest] = value
        return ["true"] if value else []
    if isinstance(value, dict) and option.type is Path:
        file = command.output.with_name(f"{command.output.name}.{option.name}.toml")
        command.files[file] = toml(value)
        command.settings[option.dest] = value
        return [str(file)]
    values = _items(option, value)
    for item in values:
        _check(option, item)
    if option.type in (Path, ModelName):
        try:
            command.inputs[option.dest] = [find(item) for item in values]
            return [str(path) for path in command.inputs[option.dest]]
        except FileNotFoundError as error:
            if option.type is Path:
                raise ValueError(f"'{option.name}' is {error}") from error
    command.settings[option.dest] = value
    return [str(item) for item in values]


def _items(option: Option, value: Any) -> list[Any]:
    """Return the values of an option one by one."""
    if option.nargs is None:
        return [value]
    if not isinstance(value, list) and option.nargs in ("+", "*"):
        return [value]
    if not isinstance(value, list):
        raise ValueError(f"'{option.name}' must be an array of {option.nargs}; given {value!r}.")
    if not value or (isinstance(option.nargs, int) and len(value) != option.nargs):
        wanted = option.nargs if isinstance(option.nargs, int) else "at least one"
        raise ValueError(f"'{option.name}' must be an array of {wanted}; given {len(value)}.")
    return value


def _check(option: Option, value: Any) -> None:
    """Raise ValueError if a value is not allowed for an option."""
    kind: Any = option.type
    words, types = _KINDS.get(kind, ("a text or a number", (str, int, float)))
    # A boolean is an integer to Python.
    if type(value) not in types:
        raise ValueError(f"'{option.name}' must be {words}; given {value!r}.")
    try:
        converted = kind(str(value))
    except (ValueError, TypeError, argparse.ArgumentTypeError) as error:
        raise ValueError(f"'{option.name}' cannot be {value!r}: {error}.") from error
    if option.choices is not None and converted not in option.choices:
        allowed = ", ".join(f"'{choice}'" for choice in option.choices)
        raise ValueError(f"'{option.name}' must be one of {allowed}; given {value!r}.")
    broken = option.broken_limit(value)
    if broken is not None:
        raise ValueError(f"'{option.name}' is {broken}.")


def _arguments(option: Option, words: list[str]) -> list[str]:
    """Return an option with its words as they stand on a command line."""
    if not option.flags:
        return words
    flag = f"--{option.name}"
    if option.is_flag:
        return [flag] if words else []
    # One word is joined to its option, so that a value with a minus is no option.
    return [f"{flag}={words[0]}"] if len(words) == 1 else [flag, *words]


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
        # JSON and TOML write these in the same way.
        return json.dumps(value)
    raise ValueError(f"a table of options cannot hold {value!r}.")


def _key(key: str) -> str:
    is_bare = key.isascii() and key.replace("-", "").replace("_", "").isalnum()
    return key if is_bare else json.dumps(key)
