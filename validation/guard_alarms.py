"""Measure how often a student's guard is wrong: false alarms and misses.

False alarms are counted over the frames of labelled HDF5 files that the student was not trained on,
misses over a table of odd structures that are made here. Example:

    python validation/guard_alarms.py --model tiny validation/reference/drugs-so3lr.h5
"""

import argparse
import json
import sys
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import InputError

from ase_student import StudentCalculator
from ase_student.data.hdf5 import Dataset
from ase_student.extrapolation.guard import OutsideTrainingWarning


def pair(name: str, other: str, distance: float, axis: int) -> Atoms:
    """Return two molecules whose first atoms of the same element are this far apart, in Å."""
    one, two = molecule(name), molecule(other)
    two.positions += one.positions[0] - two.positions[0]
    two.positions[:, axis] += distance
    return one + two


def stretched(name: str, first: int, second: int, factor: float) -> Atoms:
    """Return a molecule in which one bond, and all beyond it, is longer by a factor."""
    atoms = molecule(name)
    vector = atoms.positions[second] - atoms.positions[first]
    center = 0.5 * (atoms.positions[first] + atoms.positions[second])
    beyond = (atoms.positions - center) @ vector > 0
    atoms.positions[beyond] += (factor - 1.0) * vector
    return atoms


def odd_structures() -> dict[str, Atoms]:
    """Return structures that no student should answer for without a word."""
    squeezed = molecule("C6H6")
    squeezed.positions *= 0.85
    hydronium = molecule("NH3")
    hydronium.numbers[0] = 8
    ammonium = molecule("CH4")
    ammonium.numbers[0] = 7
    return {
        "two waters, 1.6 Å between oxygens": pair("H2O", "H2O", 1.6, 0),
        "two waters, 2.0 Å between oxygens": pair("H2O", "H2O", 2.0, 0),
        "two benzenes, 1.8 Å between planes": pair("C6H6", "C6H6", 1.8, 2),
        "two benzenes, 2.2 Å between planes": pair("C6H6", "C6H6", 2.2, 2),
        "ethane, C-C stretched 3 times": stretched("C2H6", 0, 1, 3.0),
        "ethane, C-C stretched 1.5 times": stretched("C2H6", 0, 1, 1.5),
        "methanol, C-O stretched 2 times": stretched("CH3OH", 0, 1, 2.0),
        "benzene, 15 % smaller": squeezed,
        "CH3 radical": molecule("CH3"),
        "OH radical": molecule("OH"),
        "H3O": hydronium,
        "NH4": ammonium,
        "methylene": molecule("CH2_s1A1d"),
        "carbon atom": Atoms("C"),
        "diamond": bulk("C", "diamond", 3.567, cubic=True),
        "diamond, 10 % smaller": bulk("C", "diamond", 3.21, cubic=True),
    }


def kinds_of(calculator: StudentCalculator, atoms: Atoms) -> set[str]:
    """Return what a fresh guard says of a structure, by kind."""
    guard = calculator._guard
    assert guard is not None
    guard._unsaid = {"distance", "neighbors", "force", "bonds", "contact"}
    before = set(guard._unsaid)
    if calculator._electrons is not None:
        calculator._electrons._told.clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", OutsideTrainingWarning)
        try:
            calculator.calculate_many([atoms])
        except InputError:
            return {"refused"}
    said = before - guard._unsaid
    return said or ({"electrons"} if caught else set())


def main() -> int:
    """Print a table of false alarms and one of misses; write both as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", type=Path, help="labelled HDF5 files")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--frames", type=int, default=300, help="of each file")
    parser.add_argument("-o", "--output", type=Path, help="JSON")
    given = parser.parse_args()
    calculator = StudentCalculator(given.model, threads=1, guard="warn")
    result: dict[str, object] = {"model": given.model}
    for path in given.files:
        with Dataset(path) as dataset:
            count = min(given.frames, len(dataset))
            chosen = np.random.default_rng(0).choice(len(dataset), count, replace=False)
            said = [kinds_of(calculator, dataset.atoms(int(index))) for index in chosen]
        per_kind = Counter(kind for kinds in said for kind in kinds)
        rates = {kind: round(1000 * n / count, 1) for kind, n in sorted(per_kind.items())}
        any_kind = round(1000 * sum(map(bool, said)) / count, 1)
        result[path.name] = {"frames": count, "alarms_per_1000": any_kind, **rates}
        print(f"{path.name}: {any_kind} alarms per 1,000 of {count} frames {rates}")
    missed = {}
    for name, atoms in odd_structures().items():
        missed[name] = sorted(kinds_of(calculator, atoms))
        print(f"{name}: {', '.join(missed[name]) or 'MISSED'}")
    result["odd_structures"] = missed
    if given.output is not None:
        given.output.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
