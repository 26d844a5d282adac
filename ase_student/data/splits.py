"""Split of data into parts for training, validation and test."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ase_student.data.structures import Structures

SPLITS = ("molecule", "structure")
WATER = "O"
TEST_FRACTION = 0.08
VALIDATION_FRACTION = 0.05


PARTS = ("train", "validation", "test")


def split_of(molecules: str, seed: int = 0) -> str:
    """Return the part of the data that a structure belongs to, by its molecules.

    The part depends only on the molecules and the seed, not on other structures, so that data sets
    made at different times agree. About 5 % of molecules are for validation and 8 % for the test. A
    cluster is in the test part if any of its molecules is, else in the validation part if any of
    its molecules is. Water belongs to every part and is ignored, so that pure water is for
    training.

    Parameters
    ----------
    molecules : str
        Canonical SMILES, joined by '.' in a cluster.
    seed : int
        Seed of the random split.

    Returns
    -------
    'train', 'validation' or 'test'
    """
    parts = {_drawn(smiles.encode(), seed) for smiles in molecules.split(".") if smiles != WATER}
    for part in ("test", "validation"):
        if part in parts:
            return part
    return "train"


def parts_of(
    structures: Structures, split: str = "molecule", seed: int = 0, *, path: Path | None = None
) -> list[str]:
    """Return the part of the data that each structure belongs to.

    A complex and its fragments belong to the same part. If any of them is held out, all are.

    Parameters
    ----------
    structures : Structures
    split : 'molecule' or 'structure'
        By molecule as :func:`split_of` does, or by the structure's own elements, positions and
        cell, for data of one molecule or one crystal.
    seed : int
    path : path, optional
        File that the structures are from, for the message.

    Raises
    ------
    ValueError
        If the structures do not name their molecules.
    """
    if split == "structure":
        return [
            _drawn(fingerprint(structures, index), seed) for index in _representatives(structures)
        ]
    if structures.molecules is None:
        prefix = "" if path is None else f"{path}: "
        raise ValueError(
            f"{prefix}no structures/molecules, by which data are split; --split structure splits "
            "by geometries."
        )
    parts = [split_of(molecules, seed) for molecules in structures.molecules]
    if structures.fragments is None:
        return parts
    groups = structures.fragments[:, 0].tolist()
    parts_in: dict[int, set[str]] = defaultdict(set)
    for group, part in zip(groups, parts, strict=True):
        parts_in[group].add(part)
    withheld_first = ("test", "validation", "train")
    return [
        part
        if group < 0
        else next(candidate for candidate in withheld_first if candidate in parts_in[group])
        for group, part in zip(groups, parts, strict=True)
    ]


def _representatives(structures: Structures) -> list[int]:
    """Return the structure by which each is split: itself, or the first fragment of its group."""
    if structures.fragments is None:
        return list(range(len(structures)))
    first: dict[int, tuple[int, int]] = {}
    members = structures.fragments.tolist()
    for index, (group, fragment) in enumerate(members):
        # Complexes, which have -1, represent their group only if it has no fragment.
        rank = (fragment if fragment >= 0 else len(structures), index)
        first[group] = min(first.get(group, rank), rank)
    return [index if group < 0 else first[group][1] for index, (group, _) in enumerate(members)]


def split_settings(metadata: Mapping[str, Any]) -> tuple[str, int] | None:
    """Return how the data of a student were split, and the seed; None if this is not recorded.

    Parameters
    ----------
    metadata : mapping
        Metadata of the student.
    """
    training = metadata.get("training") or {}
    if "seed" not in training:
        return None
    # Older students have a single seed for everything, and no split_seed.
    return training.get("split", "molecule"), training.get("split_seed", training["seed"])


def fingerprint(structures: Structures, index: int) -> bytes:
    """Return bytes that identify a structure: elements and positions, and a crystal's cell.

    The positions in a primitive cell alone would not identify a crystal.
    """
    atoms = slice(*structures.splits[index : index + 2])
    # To 0.001 Å, so that the same structure in another file belongs to the same part.
    positions = np.rint(structures.positions[atoms] / 0.001).astype("<i8")
    key = structures.numbers[atoms].astype("<i8").tobytes() + positions.tobytes()
    if not structures.pbc[index].any():
        return key
    cell = np.rint(structures.cells[index] / 0.001).astype("<i8")
    return key + cell.tobytes() + structures.pbc[index].tobytes()


def _drawn(key: bytes, seed: int) -> str:
    digest = hashlib.sha256(f"{seed}:".encode() + key).digest()
    fraction = int.from_bytes(digest[:8], "big") / 2**64
    if fraction < TEST_FRACTION:
        return "test"
    return "validation" if fraction < TEST_FRACTION + VALIDATION_FRACTION else "train"
