"""Check that an exported file computes the same as its student."""

import os
from pathlib import Path

import numpy as np
from ase import Atoms

from ase_student.backends import Backend, Results, open_exported
from ase_student.backends.self_check import (
    Report,
    differences_from,
    evaluate,
    failures_named,
    neighbors_of,
    read_references,
    report_of,
)
from ase_student.neighbors import concatenate


def verify_file(
    path: str | os.PathLike[str], called: str | None = None, trust: bool = False
) -> Report:
    """Compare results of an exported file with the reference results in it.

    Every structure is evaluated separately, and then all in one call with more padding. Results
    must not change: the export must not fix sizes or neighbors.

    Parameters
    ----------
    path : path
        An exported ``.onnx`` or TorchScript file.
    called : str, optional
        Name of the file in messages.
    trust : bool
        Run any program, see :class:`ase_student.StudentCalculator`.

    Returns
    -------
    Report
        Its method ``raise_if_wrong`` raises an error if the differences are too large.

    Raises
    ------
    ValueError
        If the file is damaged, has another format, or has no reference results.
    FileNotFoundError, ImportError
        If the file does not exist, or a package to run it is not installed.
    """
    file = called or str(path)
    path = Path(path)
    try:
        backend = open_exported(path, device="cpu", trust=trust)
    except ValueError as error:
        raise ValueError(str(error).replace(str(path), file)) from error
    references = read_references(backend, file)
    if not references:
        raise ValueError(f"'{file}' has no reference structures to check it with.")
    with failures_named(file):
        structures = [reference.atoms for reference in references]
        outputs = [evaluate(backend, atoms) for atoms in structures]
        outputs += _evaluate_together(backend, structures)
        differences = [
            differences_from(output, reference)
            for output, reference in zip(outputs, references * 2, strict=True)
        ]
    n_atoms = 1 + sum(len(atoms) for atoms in structures)
    return report_of(file, backend, differences, len(structures), n_atoms)


def _evaluate_together(backend: Backend, structures: list[Atoms]) -> list[Results]:
    """Return the results of structures that are evaluated in one call, with more padding."""
    cutoff = backend.info.cutoff
    parts = [neighbors_of(atoms, cutoff) for atoms in structures]
    widest = max(neighbors.shape[1] for neighbors, _ in parts) + 3
    padding = (np.zeros((1, widest), dtype=np.int64), np.full((1, widest, 3), 2.0 * cutoff))
    # An additional atom without neighbors makes all rows as wide as its own row of padding.
    neighbors, offsets = concatenate([*parts, padding], cutoff)
    numbers = np.concatenate([*(atoms.numbers for atoms in structures), structures[0].numbers[:1]])
    positions = np.concatenate([*(atoms.positions for atoms in structures), np.zeros((1, 3))])
    outputs = backend.evaluate(numbers.astype(np.int64), positions, neighbors, offsets)
    ends = np.cumsum([len(atoms) for atoms in structures])
    rows = zip(*(np.split(output, ends)[:-1] for output in outputs), strict=True)
    return [(energies, forces, virials) for energies, forces, virials in rows]
