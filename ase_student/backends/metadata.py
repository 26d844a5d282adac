"""The metadata of exported files: made from a student, written as text and read back."""

import json
import warnings
from typing import Any

from ase.data import atomic_numbers, chemical_symbols

from ase_student.backends.interface import PotentialInfo
from ase_student.files import reason_of
from ase_student.student import FORMAT_VERSION, LARGEST_CUTOFF, Student

METADATA_KEY = "ase_student"
INPUTS = ("numbers", "positions", "neighbors", "offsets")
OUTPUTS = ("energies", "forces", "virials")


def describe(student: Student, name: str, dtype: str) -> dict[str, Any]:
    """Return the metadata of a potential made from a student.

    Parameters
    ----------
    student : Student
    name : str
    dtype : str
        Precision of the network in the file.
    """
    described = student.header()
    for key in ("teacher", "metrics", "seen"):
        if key in student.metadata:
            described[key] = student.metadata[key]
    return {
        **described,
        "name": name,
        "dtype": dtype,
        "weights_sha256": student.sha256,
        "n_parameters": student.n_parameters,
        "inputs": INPUTS,
        "outputs": OUTPUTS,
    }


def encode(metadata: dict[str, Any]) -> str:
    """Return metadata as text for a file."""
    return json.dumps(metadata, ensure_ascii=False)


def decode(text: str | None, file: str) -> PotentialInfo:
    """Return the description of the potential in a file, from the text of its metadata.

    Parameters
    ----------
    text : str or None
        As :func:`encode` has returned it; None if the file has no metadata.
    file : str
        Name of the file in error messages.

    Raises
    ------
    ValueError
        If the text is not the metadata of an exported student of this format version.
    """
    if text is None:
        raise ValueError(
            f"'{file}' is not an exported student: it has no '{METADATA_KEY}' metadata."
        )
    try:
        metadata = json.loads(text)
        version = metadata["format_version"]
        cutoff = float(metadata["cutoff"])
        if not 0.0 < cutoff <= LARGEST_CUTOFF:
            raise ValueError(
                f"the cutoff is {cutoff} Å; it must be positive and at most {LARGEST_CUTOFF:g} Å"
            )
        info = PotentialInfo(
            name=str(metadata["name"]),
            elements=tuple(atomic_numbers[symbol] for symbol in metadata["elements"]),
            cutoff=cutoff,
            dtype=str(metadata["dtype"]),
            weights_sha256=str(metadata["weights_sha256"]),
            metadata=metadata,
        )
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(
            f"'{file}' does not have the metadata of an exported student: {reason_of(error)}."
        ) from error
    if version != FORMAT_VERSION:
        raise ValueError(
            f"'{file}' has format version {version}; this release reads version {FORMAT_VERSION}."
        )
    return info


def warn_of_compression(info: PotentialInfo) -> None:
    """Warn of a compressed file that exceeds documented limits, as listed in its metadata."""
    compression = info.metadata.get("compression")
    if isinstance(compression, dict) and (crossed := compression.get("crossed")):
        listed = "; ".join(str(limit) for limit in crossed)
        warnings.warn(
            f"'{info.name}' was compressed ({compression.get('scheme')}) beyond what is documented "
            f"as harmless: {listed}. Compare with the student itself before you trust dynamics.",
            stacklevel=3,
        )


def info_of(student: Student, name: str, dtype: str) -> PotentialInfo:
    """Return the description that an exported file of a student would have.

    Backends that make a student's program in memory then have the same description as those that
    read a file: the metadata are encoded and decoded, which turns tuples into lists, for example.
    """
    return decode(encode(describe(student, name, dtype)), name)


def symbols(numbers: tuple[int, ...]) -> str:
    """Return 'H, C, N' for atomic numbers."""
    return ", ".join(chemical_symbols[number] for number in numbers)
