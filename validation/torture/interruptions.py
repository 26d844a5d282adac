"""Commands that are killed at random times and run again: results must be the same."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ase_student.data.hdf5 import Dataset, write_dataset
from ase_student.data.structures import Structures
from ase_student.export import verify_file
from ase_student.testing import structure
from torture.damage import data_set_arrays, is_same
from torture.trials import Block, Figures, Trial

#: Number of structures to label; 200 of them form a piece.
N_STRUCTURES = 1000
KILLS_IN_A_BLOCK = 3
#: A command that takes longer, s, counts as hanging.
LONGEST = 600.0


@dataclass(frozen=True)
class Command:
    """A command that writes a file.

    Attributes
    ----------
    arguments : sequence of str
        Arguments of ``python -m``; '{folder}' stands for the folder of its files.
    output : str
        Path of the file that it writes, relative to that folder.
    read : callable
        Returns the arrays to compare; raises an exception if the file is not complete.
    prepare : callable
        Writes the input of the command.
    """

    arguments: Sequence[str]
    output: str
    read: Callable[[Path], Any]
    prepare: Callable[[Path], None]

    def start(self, folder: Path) -> subprocess.Popen[bytes]:
        """Start the command as a new process."""
        words = [word.format(folder=folder) for word in self.arguments]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        return subprocess.Popen(
            [sys.executable, "-m", *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment,
        )

    def finish(self, folder: Path) -> float:
        """Run the command to its end and return its time in seconds."""
        start = time.perf_counter()
        process = self.start(folder)
        _, message = process.communicate(timeout=LONGEST)
        if process.returncode:
            text = message.decode(errors="replace").strip().splitlines()
            raise RuntimeError(f"{self.arguments[0]} failed: {text[-1] if text else 'no message'}")
        return time.perf_counter() - start


def _structures(folder: Path) -> None:
    rng = np.random.default_rng(0)
    atoms = []
    for _ in range(N_STRUCTURES):
        molecule = structure("aspirin")
        molecule.positions += 0.05 * rng.standard_normal(molecule.positions.shape)
        atoms.append(molecule)
    write_dataset(folder / "structures.h5", Structures.from_atoms(atoms))


def _labels(path: Path) -> list[np.ndarray]:
    with Dataset(path) as dataset:
        n_labels = dataset.n_labels
    return [np.array(n_labels), *data_set_arrays(path)]


def _exported(path: Path) -> list[np.ndarray]:
    verify_file(path).raise_if_wrong()
    return [np.array(0)]


COMMANDS = {
    "label": Command(
        ("ase_student.distill", "label", "{folder}/structures.h5", "--teacher",
         "ase.calculators.lj:LennardJones", "--max-force", "1e9", "-o", "{folder}/labeled.h5"),
        "labeled.h5", _labels, _structures,
    ),
    "export": Command(
        ("ase_student.export", "tiny", "--formats", "onnx", "-o", "{folder}/exported"),
        "exported/tiny.onnx", _exported, lambda folder: None,
    ),
}  # fmt: skip


def run(name: str, block: Block) -> Figures:
    """Kill a command several times, let it finish, and compare with an uninterrupted run."""
    command = COMMANDS[name]
    whole, killed = block.folder / "whole", block.folder / "killed"
    for folder in (whole, killed):
        folder.mkdir()
        command.prepare(folder)
    seconds = command.finish(whole)
    expected = command.read(whole / command.output)
    figures: Figures = {"kills": 0, "half_files": 0, "different": 0, "failed": 0}
    for _ in range(KILLS_IN_A_BLOCK):
        process = command.start(killed)
        try:
            process.communicate(timeout=float(block.rng.uniform(0.2, 1.0)) * seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            figures["kills"] += 1
        figures["half_files"] += _is_half(command, killed)
    try:
        command.finish(killed)
    except RuntimeError:
        figures["failed"] += 1
        return figures
    figures["different"] += int(not is_same(command.read(killed / command.output), expected))
    return figures


def _is_half(command: Command, folder: Path) -> int:
    """Return 1 if a file exists under its final name but is not complete, else 0."""
    path = folder / command.output
    if not path.exists():
        return 0
    try:
        command.read(path)
    except Exception:
        return 1
    return 0


TRIALS = [
    Trial(
        f"kill {name}", f"kills of a command at random moments: `{name}`",
        functools.partial(run, name), blocks=10, short_blocks=int(name == "label"),
        must_be_zero=("half_files", "different", "failed"),
    )
    for name in COMMANDS
]  # fmt: skip
