"""Which molecules a student is trained on, and which it is tested on."""

from __future__ import annotations

import hashlib

WATER = "O"
TEST_FRACTION = 0.08
VALIDATION_FRACTION = 0.05


def split_of(molecules: str, seed: int = 0) -> str:
    """Return the part of the data that a structure belongs to, by what it is made of.

    The answer depends on the molecules and the seed alone, never on the other structures, so data
    sets that are made at different times agree. About 5 % of molecules are for validation and 8 %
    for the test. A cluster is in the test part if any of its molecules is, else in the validation
    part if any of its molecules is. Water belongs to every part and does not count, so pure water
    is for training.

    Parameters
    ----------
    molecules : str
        Canonical SMILES, joined by '.' in a cluster.
    seed : int
        Another seed draws another split.

    Returns
    -------
    'train', 'validation' or 'test'
    """
    parts = {_split_of_one(smiles, seed) for smiles in molecules.split(".") if smiles != WATER}
    for part in ("test", "validation"):
        if part in parts:
            return part
    return "train"


def _split_of_one(smiles: str, seed: int) -> str:
    digest = hashlib.sha256(f"{seed}:{smiles}".encode()).digest()
    fraction = int.from_bytes(digest[:8], "big") / 2**64
    if fraction < TEST_FRACTION:
        return "test"
    return "validation" if fraction < TEST_FRACTION + VALIDATION_FRACTION else "train"
