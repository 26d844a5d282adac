"""Settings of a step: one dataclass declares names, defaults, limits and options of its command."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any, TypeVar

from ase_student.distill.options import Option

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
        for declared in options_of(type(self)):
            broken = declared.broken_limit(getattr(self, declared.dest))
            if broken is not None:
                raise ValueError(f"--{declared.name} is {broken}.")


def options_of(settings: type[StepSettings]) -> tuple[Option, ...]:
    """Return the options of all settings of a step."""
    options = []
    for field in dataclasses.fields(settings):
        default: Any = field.default
        several = isinstance(default, tuple)
        options.append(
            Option(
                field.name.replace("_", "-"),
                field.metadata["text"],
                type(default[0] if several else default),
                nargs=len(default) if several else None,
                default=default,
                least=field.metadata["least"],
                metavar=field.metadata["metavar"],
            )
        )
    return tuple(options)


def settings_from(arguments: argparse.Namespace, settings: type[Settings]) -> Settings:
    """Return the settings of a command line that has the options of `options_of`.

    Raises
    ------
    ValueError
        If a value is not allowed.
    """
    given = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(settings)}
    return settings(**{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})
