"""Definition of a trial, its blocks, random numbers and figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Figures = dict[str, float]
State = dict[str, Any]

#: Figures whose names begin with this are maxima over all blocks; the others are sums.
LARGEST = "largest"


@dataclass(frozen=True)
class Block:
    """A part of a trial; its figures are written to disk when it is complete.

    Attributes
    ----------
    number : int
    rng : numpy.random.Generator
        Generator of this block alone, so that an interruption does not change results.
    folder : path
        Empty folder for temporary files.
    state : dict
        State that the previous block left, JSON types only; changes are kept for the next block.
    """

    number: int
    rng: np.random.Generator
    folder: Path
    state: State = field(default_factory=dict)


@dataclass(frozen=True)
class Trial:
    """A trial of many similar blocks.

    Attributes
    ----------
    name : str
    title : str
        Title of its row in the table: what is done.
    run : callable
        Runs a block and returns its figures.
    blocks, short_blocks : int
        Number of blocks of the long and of the short form.
    must_be_zero : tuple of str
        Names of figures that count failures of the package.
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
    for name, figure in new.items():
        # NumPy's numbers cannot be written as JSON.
        value = figure.item() if isinstance(figure, np.generic) else figure
        if name not in result:
            result[name] = value
        elif name.startswith(LARGEST):
            result[name] = max(result[name], value)
        else:
            result[name] += value
    return result


def generator(seed: int, name: str, block: int) -> np.random.Generator:
    """Return the random number generator of a block of a trial."""
    return np.random.default_rng([seed, block, *name.encode()])
