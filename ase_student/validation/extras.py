"""Packages that validation needs beyond those of the calculator, imported when first used."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def extra(module: str) -> Any:
    """Return a module, or raise an error that tells how to install it.

    Raises
    ------
    ImportError
        With the line for pip.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        raise ImportError(
            f'validation needs {error.name or package}: pip install "ase-student[validation]"'
        ) from error


def progress_bar(total: int, unit: str, initial: int = 0, *, label: str | None = None) -> Any:
    """Return tqdm's progress bar: it shows on a terminal and is silent in a pipe."""
    return extra("tqdm").tqdm(total=total, initial=initial, unit=unit, desc=label, disable=None)
