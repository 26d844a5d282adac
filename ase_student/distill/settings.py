"""Settings of a step: one dataclass declares names, defaults, limits and options of its command.

A recipe's table holds the same options, so that a setting is declared once for Python, the command
line and TOML.
"""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any, TypeVar

Settings = TypeVar("Settings", bound="StepSettings")


def option(
    default: Any, text: str, *, metavar: str | None = None, least: float | None = None
) -> Any:
    """Return a field of settings that is an option of the command as well.

    Parameters
    ----------
    default : int, float, str or tuple
        Decides the type of the option; one that is a tuple takes as many values.
    text : str
        Help of the option, to which the default is added.
    metavar : str, optional
        What the help calls the value.
    least : float, optional
        Smallest value that is allowed.
    """
    metadata = {"text": text, "metavar": metavar, "least": least}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class StepSettings:
    """Settings whose fields are made by `option`.

    Raises
    ------
    ValueError
        If a value is below the least that is allowed.
    """

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            least, value = field.metadata["least"], getattr(self, field.name)
            if least is not None and not value >= least:
                raise ValueError(f"{flag(field.name)} is {value}; it must be at least {least:g}.")


def flag(name: str) -> str:
    """Return the option of a setting.

    >>> flag("max_complex_atoms")
    '--max-complex-atoms'
    """
    return f"--{name.replace('_', '-')}"


def add_settings(parser: argparse.ArgumentParser, settings: type[StepSettings]) -> None:
    """Describe the options of all settings of a step."""
    for field in dataclasses.fields(settings):
        default: Any = field.default
        several = isinstance(default, tuple)
        shown = " ".join(map(_shown, default)) if isinstance(default, tuple) else _shown(default)
        parser.add_argument(
            flag(field.name),
            type=type(default[0] if isinstance(default, tuple) else default),
            nargs=len(default) if isinstance(default, tuple) else None,
            default=list(default) if several else default,
            metavar=field.metadata["metavar"],
            help=f"{field.metadata['text']} (default: {shown})",
        )


def settings_from(arguments: argparse.Namespace, settings: type[Settings]) -> Settings:
    """Return the settings of a command line that `add_settings` described.

    Raises
    ------
    ValueError
        If a value is not allowed.
    """
    given = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(settings)}
    return settings(**{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
