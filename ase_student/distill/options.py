"""Options of the steps: each is declared once, for the command line and for recipes."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal


class ModelName(str):
    """Type of an option that takes a student, by name or path, or the name of something else.

    A recipe records the hash of such a student, so that it notices when the student changes.
    """


@dataclass(frozen=True)
class Option:
    """An option of a step: a word of its command line, and a key of its table in a recipe.

    Attributes
    ----------
    name : str
        Long name without the dashes in front, or the name of a positional argument.
    help : str
        The default value is added to it.
    type : callable
        Makes the value of a word. `bool` is an option without a value; `pathlib.Path` is a file or
        folder to read; `ModelName` is a student or something else.
    nargs : int, '+', '*' or None
        Number of values; None is one value that is not in a list.
    choices : tuple of str, optional
    default : object
        Of an option that is not given; a tuple where there are several values.
    required : bool
    least : float, optional
        Smallest value that is allowed.
    metavar : str, optional
        Name of the value in the help.
    dest : str
        Attribute of the parsed arguments; by default the name with underscores.
    group : str
        Heading in the help.
    kind : str
        'option', 'positional', or how the output is named: 'file' (``-o`` or ``--output``) or
        'folder' (``-o``, and 'folder' in recipes). 'moved' is an option that now belongs to the
        step `help`.
    """

    name: str
    help: str
    type: Callable[[str], Any] = str
    nargs: int | Literal["+", "*"] | None = None
    choices: tuple[str, ...] | None = None
    default: Any = None
    required: bool = False
    least: float | None = None
    metavar: str | None = None
    dest: str = ""
    group: str = ""
    kind: Literal["option", "positional", "file", "folder", "moved"] = "option"

    def __post_init__(self) -> None:
        if not self.dest:
            object.__setattr__(self, "dest", self.name.replace("-", "_"))

    @property
    def flags(self) -> tuple[str, ...]:
        """Words of the command line that the option goes by; none for a positional argument."""
        if self.kind == "positional":
            return ()
        if self.kind == "folder":
            return ("-o",)
        return ("-o", f"--{self.name}") if self.kind == "file" else (f"--{self.name}",)

    @property
    def is_output(self) -> bool:
        """Whether the option names what the step writes."""
        return self.kind in ("file", "folder")

    @property
    def is_flag(self) -> bool:
        """Whether the option takes no value."""
        return self.type is bool

    def broken_limit(self, value: Any) -> str | None:
        """Return what is wrong with a value, such as '-1; it must not be negative', or None."""
        values = value if isinstance(value, (list, tuple)) else [value]
        if self.least is None or value is None or all(number >= self.least for number in values):
            return None
        rule = "not be negative" if self.least == 0 else f"be at least {self.least:g}"
        return f"{min(values)}; it must {rule}"


def output_file(text: str = "HDF5 file to write") -> Option:
    """Return the option that names the file which a step writes."""
    return Option("output", text, Path, required=True, kind="file")


def output_folder(text: str, *, required: bool = True) -> Option:
    """Return the option that names the folder which a step writes."""
    return Option("folder", text, Path, required=required, kind="folder")


def positional(name: str, text: str, **settings: Any) -> Option:
    """Return a positional argument, which is a path and required unless said otherwise."""
    return Option(name, text, **{"type": Path, "required": True, **settings}, kind="positional")


def moved(step: str, *names: str) -> tuple[Option, ...]:
    """Return options that another step has now, for a message that says so."""
    return tuple(Option(name, step, kind="moved") for name in names)


def grouped(heading: str, *options: Option) -> tuple[Option, ...]:
    """Return options under a heading of the help."""
    return tuple(replace(option, group=heading) for option in options)


def add_options(parser: argparse.ArgumentParser, options: Iterable[Option]) -> None:
    """Add the options of a step to the parser of its command."""
    groups: dict[str, Any] = {"": parser}
    for option in options:
        if option.group not in groups:
            groups[option.group] = parser.add_argument_group(option.group)
        groups[option.group].add_argument(*option.flags, **_keywords(option))


def _keywords(option: Option) -> dict[str, Any]:
    """Return what `argparse.ArgumentParser.add_argument` takes beside the flags."""
    if option.kind == "moved":
        # Named unlike an option, so that nobody reads it.
        names = {"dest": f"moved {option.name}", "default": argparse.SUPPRESS, "nargs": "*"}
        return {**names, "action": _Moved, "const": option.help, "help": argparse.SUPPRESS}
    keywords: dict[str, Any] = {"dest": option.dest, "help": _help(option)}
    if option.is_flag:
        return {**keywords, "action": "store_true"}
    several = isinstance(option.default, tuple)
    keywords |= {
        "type": option.type,
        "nargs": option.nargs,
        "choices": option.choices,
        "metavar": option.metavar,
        "default": list(option.default) if several else option.default,
    }
    return keywords | ({} if option.kind == "positional" else {"required": option.required})


def _help(option: Option) -> str:
    if option.default is None or option.default is False or option.default == ():
        return option.help
    values = option.default if isinstance(option.default, tuple) else (option.default,)
    shown = " ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)
    return f"{option.help} (default: {shown})".lstrip()


class _Moved(argparse.Action):
    """Ends the program with a message that names the step which has the option now."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        parser.error(f"{option_string} has moved to the step '{self.const}'.")


def check_limits(arguments: argparse.Namespace, options: Sequence[Option]) -> None:
    """Raise ValueError if a value of a command line is below the least that is allowed."""
    for option in options:
        broken = option.broken_limit(getattr(arguments, option.dest, None))
        if broken is not None:
            raise ValueError(f"{(option.flags or (option.name,))[-1]} is {broken}.")
