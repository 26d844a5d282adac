"""Unusual structures: each must be rejected, or give the results of a copy in plain types."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from ase import Atoms
from ase.calculators.calculator import InputError

from ase_student import StudentCalculator
from ase_student.testing import structure
from torture.trials import Block, Figures, Trial

IN_A_BLOCK = 50
TOLERANCE = 1e-5
NAMES = ("aspirin", "triclinic", "slab", "wire", "water_dimer", "crystal")
Change = Callable[[Atoms, np.random.Generator], None]


def _set(name: str, kind: str) -> Change:
    def change(atoms: Atoms, rng: np.random.Generator) -> None:
        atoms.arrays[name] = atoms.arrays[name].astype(kind)

    return change


def _put(value: float) -> Change:
    def change(atoms: Atoms, rng: np.random.Generator) -> None:
        atoms.positions[rng.integers(len(atoms)), rng.integers(3)] = value

    return change


def _cell(value: float) -> Change:
    def change(atoms: Atoms, rng: np.random.Generator) -> None:
        atoms.pbc = True
        atoms.cell.array[rng.integers(3)] = value

    return change


def _element(number: int) -> Change:
    def change(atoms: Atoms, rng: np.random.Generator) -> None:
        atoms.numbers[rng.integers(len(atoms))] = number

    return change


def _one_spot(atoms: Atoms, rng: np.random.Generator) -> None:
    extra = atoms[[int(rng.integers(len(atoms)))]]
    atoms.extend(extra)


def _empty(atoms: Atoms, rng: np.random.Generator) -> None:
    del atoms[:]


def _far(atoms: Atoms, rng: np.random.Generator) -> None:
    atoms.positions += 1e15


#: Unusual but valid: the results must be those of a copy in plain types.
READ = [_set("positions", kind) for kind in ("<f4", ">f4", ">f8", "f2", "f16")] + [
    _set("numbers", kind) for kind in (">i8", "i4", "u1", "f8")
]
#: Invalid: they must be rejected.
REFUSED = [
    *map(_put, (np.nan, np.inf, -np.inf, 1e300)), *map(_cell, (0.0, np.nan, np.inf)),
    *map(_element, (0, 14, 67, 119, 200, -1)), _set("positions", "c16"), _set("positions", "U32"),
    _set("numbers", "c16"), _one_spot, _empty, _far,
]  # fmt: skip


def run(block: Block) -> Figures:
    """Give unusual structures to a calculator, with a valid structure after each."""
    calculator = StudentCalculator("tiny", device="cpu", threads=1, guard="off")
    good = structure("triclinic")
    expected = calculator.get_potential_energy(good)
    figures: Figures = dict.fromkeys(("structures", "refused", "right", "wrong"), 0)
    for _ in range(IN_A_BLOCK):
        atoms = structure(NAMES[block.rng.integers(len(NAMES))])
        changes = READ if block.rng.random() < 0.4 else REFUSED
        changes[block.rng.integers(len(changes))](atoms, block.rng)
        figures["structures"] += 1
        try:
            energy = calculator.get_potential_energy(atoms)
        except (InputError, TypeError):
            is_right = changes is REFUSED and calculator.results == {}
            figures["refused" if is_right else "wrong"] += 1
        else:
            is_right = changes is READ and abs(energy - _plain(calculator, atoms)) < TOLERANCE
            figures["right" if is_right else "wrong"] += 1
        # The unusual structure must not change later results.
        if abs(calculator.get_potential_energy(good) - expected) > TOLERANCE:
            figures["wrong"] += 1
    return figures


def _plain(calculator: StudentCalculator, atoms: Atoms) -> float:
    numbers, positions = atoms.numbers.astype(np.int64), atoms.positions.astype(np.float64)
    plain = Atoms(numbers, positions, cell=atoms.cell.array.astype(np.float64), pbc=atoms.pbc)
    (result,) = calculator.calculate_many([plain])
    return float(result["energy"])


TRIALS = [
    Trial("odd inputs", "odd structures: NaN, other types, foreign elements, flat cells and others",
          run, blocks=40, short_blocks=2, must_be_zero=("wrong",))
]  # fmt: skip
