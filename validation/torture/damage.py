"""Damaged files: each must be rejected, or give the values of the undamaged file."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ase.calculators.calculator import InputError
from ase.io import write

from ase_student import StudentCalculator
from ase_student.checkpoint import student_folder
from ase_student.data.hdf5 import Dataset, write_dataset
from ase_student.data.readers.opening import open_frames
from ase_student.data.structures import Labels, Structures
from ase_student.testing import structure
from torture.trials import Block, Figures, Trial

FILES_IN_A_BLOCK = 10
#: Largest difference of results that count as the same, eV and eV/Å.
TOLERANCE = 1e-6
#: Exceptions that a damaged file may raise.
REFUSALS = (ValueError, OSError, InputError)
SECTOR = 512


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """Return the content of a file with one random fault, as disks and networks cause."""
    data = bytearray(content)
    start = int(rng.integers(len(data)))
    length = int(rng.integers(1, SECTOR + 1))
    kind = rng.choice(["bit", "byte", "zeros", "cut", "lost", "twice", "noise"])
    if kind == "bit":
        data[start] ^= 1 << int(rng.integers(8))
    elif kind == "byte":
        data[start] = (data[start] + int(rng.integers(1, 256))) % 256
    elif kind == "zeros":
        sector = start // SECTOR * SECTOR
        data[sector : sector + SECTOR] = bytes(len(data[sector : sector + SECTOR]))
    elif kind == "cut":
        del data[start:]
    elif kind == "lost":
        del data[start : start + length]
    elif kind == "twice":
        data[start:start] = data[start : start + length]
    else:
        data[start : start + length] = rng.bytes(len(data[start : start + length]))
    return bytes(data)


def damaged_text(content: bytes, rng: np.random.Generator) -> bytes:
    """Return a text with a line lost, repeated or corrupted, or cut between its lines.

    Text has no checksum, so that a changed digit cannot be detected.
    """
    lines = content.splitlines(keepends=True)
    place = int(rng.integers(len(lines)))
    kind = rng.choice(["cut", "lost", "twice", "spoiled"])
    if kind == "cut":
        del lines[place:]
    elif kind == "lost":
        del lines[place]
    elif kind == "twice":
        lines.insert(place, lines[place])
    else:
        words = lines[place].split()
        words[int(rng.integers(len(words)))] = b"\x00#"
        lines[place] = b" ".join(words) + b"\n"
    return b"".join(lines)


def student_results(path: Path) -> list[np.ndarray]:
    """Return energy and forces of aspirin from the student in a file."""
    calculator = StudentCalculator(path, device="cpu", threads=1, guard="off")
    atoms = structure("aspirin")
    calculator.calculate(atoms)
    return [np.array(calculator.results["energy"]), calculator.results["forces"]]


def data_set_arrays(path: Path) -> list[np.ndarray]:
    """Return every column of a data set."""
    with Dataset(path) as dataset:
        structures, labels = dataset.read_structures(), dataset.read_labels()
        return [
            structures.numbers, structures.splits, structures.positions, structures.cells,
            structures.pbc, labels.structure_indices, labels.energies, labels.forces,
        ]  # fmt: skip


def frames_of(path: Path) -> list[np.ndarray]:
    """Return numbers, positions and forces, and energy, of every frame of an extended XYZ file."""
    frames = open_frames(path)
    arrays = []
    for frame in frames.read(range(len(frames.sizes))):
        if not hasattr(frame, "atoms"):
            raise ValueError(frame.reason)
        values = (frame.atoms.numbers[:, None], frame.atoms.positions, frame.forces)
        arrays += [np.hstack(values), np.array(frame.energy)]
    return arrays


def _waters() -> tuple[Structures, Labels]:
    atoms = [structure("water_dimer") for _ in range(20)]
    for index, water_dimer in enumerate(atoms):
        water_dimer.rattle(0.1, seed=index)
    structures = Structures.from_atoms(atoms)
    rng = np.random.default_rng(0)
    return structures, Labels(
        np.arange(20), rng.standard_normal(20), structures.splits,
        rng.standard_normal((len(structures.numbers), 3)).astype(np.float32),
    )  # fmt: skip


def _data_set(path: Path) -> bytes:
    write_dataset(path, *_waters(), metadata={"teacher": "none"})
    return path.read_bytes()


def _extxyz(path: Path) -> bytes:
    structures, labels = _waters()
    frames = []
    for index in range(3):
        atoms = structure("water_dimer")
        atoms.info["energy"] = float(labels.energies[index])
        rows = slice(*structures.splits[index : index + 2])
        atoms.arrays["forces"] = labels.forces[rows].astype(float)
        frames.append(atoms)
    write(path, frames, format="extxyz")
    return path.read_bytes()


def _bundled(name: str, path: Path) -> bytes:
    return (student_folder("tiny") / name).read_bytes()


KINDS: dict[str, tuple[Callable[[Path], bytes], Callable[[Path], list[np.ndarray]], Any]] = {
    "weights.safetensors": (
        functools.partial(_bundled, "weights.safetensors"), student_results, damaged,
    ),
    "student.onnx": (functools.partial(_bundled, "tiny.onnx"), student_results, damaged),
    "data.h5": (_data_set, data_set_arrays, damaged),
    "data.xyz": (_extxyz, frames_of, damaged_text),
}  # fmt: skip


def is_same(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    """Return whether all arrays have the same shapes and values."""
    return len(first) == len(second) and all(
        a.shape == b.shape and np.abs(a.astype(float) - b).max(initial=0) < TOLERANCE
        for a, b in zip(first, second, strict=True)
    )


def is_part(frames: list[np.ndarray], whole: list[np.ndarray]) -> bool:
    """Return whether frames are the first frames of a file, as those of a cut text file are."""
    return len(frames) % 2 == 0 and is_same(frames, whole[: len(frames)])


def run(name: str, block: Block) -> Figures:
    """Damage a file repeatedly, and read it each time."""
    make, read, damage = KINDS[name]
    path = block.folder / name
    content = make(path)
    path.write_bytes(content)
    expected = read(path)
    fits = is_part if name == "data.xyz" else is_same
    figures: Figures = dict.fromkeys(("files", "refused", "unharmed", "wrong", "other_errors"), 0)
    while figures["files"] < FILES_IN_A_BLOCK:
        changed = damage(content, block.rng)
        if changed == content:
            continue
        path.write_bytes(changed)
        figures["files"] += 1
        try:
            # A missing hash causes a warning, which counts as a rejection.
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)
                results = read(path)
        except (*REFUSALS, UserWarning):
            figures["refused"] += 1
        except Exception:
            figures["other_errors"] += 1
        else:
            figures["unharmed" if fits(results, expected) else "wrong"] += 1
    return figures


TITLES = {
    "weights.safetensors": "checkpoints, one fault each",
    "student.onnx": "exported ONNX files, one fault each",
    "data.h5": "HDF5 data sets, one fault each",
    "data.xyz": "extended XYZ files, lines lost, repeated, corrupted or cut",
}
TRIALS = [
    Trial(
        f"damage {name}", title, functools.partial(run, name), blocks=50, short_blocks=1,
        must_be_zero=("wrong", "other_errors"),
    )
    for name, title in TITLES.items()
]  # fmt: skip
