"""What a trial is, and the random numbers and figures that all of them share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Figures = dict[str, float]
State = dict[str, Any]

#: Figures with names that begin like this are the largest of all blocks; the others are added up.
LARGEST = "largest"


@dataclass(frozen=True)
class Block:
    """One part of a trial, after which its figures are written to disk.

    Attributes
    ----------
    number : int
    rng : numpy.random.Generator
        Of this block alone, so that a trial that was interrupted goes on as if it had not been.
    folder : path
        Empty; for temporary files.
    state : dict
        What the block before this one left, JSON only; changes are kept for the next one.
    """

    number: int
    rng: np.random.Generator
    folder: Path
    state: State = field(default_factory=dict)


@dataclass(frozen=True)
class Trial:
    """A trial of many like parts.

    Attributes
    ----------
    name : str
    title : str
        Of its row in the table; what is done.
    run : callable
        Does one block and returns its figures.
    blocks, short_blocks : int
        Parts of the long and of the short form.
    must_be_zero : tuple of str
        Figures that are failures of the package.
    """

    name: str
    title: str
    run: Callable[[Block], Figures]
    blocks: int
    short_blocks: int
    must_be_zero: tuple[str, ...] = ()


def merged(figures: Mapping[str, float], new: Mapping[str, float]) -> Figures:
    """Return the figures of several blocks.

    Examples
    --------
    >>> merged({"files": 2, "largest_error": 0.5}, {"files": 3, "largest_error": 0.25})
    {'files': 5, 'largest_error': 0.5}
    """
    result = dict(figures)
    for name, given in new.items():
        # Numbers of NumPy cannot be written as JSON.
        value = given.item() if isinstance(given, np.generic) else given
        if name not in result:
            result[name] = value
        elif name.startswith(LARGEST):
            result[name] = max(result[name], value)
        else:
            result[name] += value
    return result


def generator(seed: int, name: str, block: int) -> np.random.Generator:
    """Return the random numbers of a block of a trial."""
    return np.random.default_rng([seed, block, *name.encode()])
