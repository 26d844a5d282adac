"""Measure the rates of false alarms and of misses of a student's guard.

False alarms are counted over frames of dynamics at 300 K (liquid water at 1 g/cm³, urea at its
measured cell, a peptide), which the student runs itself, and over the frames of labeled HDF5 files
that it was not trained on, by their source. Misses are counted over a table of unusual structures.
Example:

    python validation/guard_alarms.py --model tiny validation/reference/drugs-so3lr.h5
"""

import argparse
import json
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.calculator import InputError
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution

from ase_student import StudentCalculator
from ase_student.data.hdf5 import Dataset
from ase_student.extrapolation import limits
from ase_student.extrapolation.guard import OutsideTrainingWarning
from ase_student.validation.chemistry.crystals import urea
from ase_student.validation.chemistry.structures import read_structures

#: Dynamics: temperature in K, time step in fs, steps before the first frame and between frames.
TEMPERATURE, TIME_STEP, FIRST_STEPS, STEPS = 300.0, 0.5, 200, 20
PEPTIDE = "CC(=O)NC(C)C(=O)NCC(=O)NC(CO)C(=O)NC(CC(N)=O)C(=O)NC"


def peptide() -> Atoms:
    """Return four amino acids, capped at both ends, with the geometry of a force field."""
    from rdkit import Chem
    from rdkit.Chem import AllChem

    structure = Chem.AddHs(Chem.MolFromSmiles(PEPTIDE))
    AllChem.EmbedMolecule(structure, randomSeed=1)
    AllChem.MMFFOptimizeMolecule(structure)
    symbols = [atom.GetSymbol() for atom in structure.GetAtoms()]
    return Atoms(symbols, structure.GetConformer().GetPositions())


def ordinary_frames(atoms: Atoms, model: str, backend: str, count: int) -> Iterator[Atoms]:
    """Yield frames of dynamics with a student's forces."""
    atoms.calc = StudentCalculator(model, backend, threads=1, guard="off")
    rng = np.random.default_rng(0)
    MaxwellBoltzmannDistribution(atoms, temperature_K=TEMPERATURE, rng=rng)
    dynamics = Langevin(
        atoms, TIME_STEP * units.fs, temperature_K=TEMPERATURE, friction=0.02 / units.fs, rng=rng
    )
    dynamics.run(FIRST_STEPS)
    for _ in range(count):
        dynamics.run(STEPS)
        yield Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)


def pair(name: str, other_name: str, distance: float, axis: int) -> Atoms:
    """Return two molecules whose first atoms of the same element are this far apart, in Å."""
    first, second = molecule(name), molecule(other_name)
    second.positions += first.positions[0] - second.positions[0]
    second.positions[:, axis] += distance
    return first + second


def stretched(name: str, first: int, second: int, factor: float) -> Atoms:
    """Return a molecule with one bond longer by a factor; the atoms beyond it are shifted."""
    atoms = molecule(name)
    vector = atoms.positions[second] - atoms.positions[first]
    center = 0.5 * (atoms.positions[first] + atoms.positions[second])
    beyond = (atoms.positions - center) @ vector > 0
    atoms.positions[beyond] += (factor - 1.0) * vector
    return atoms


def odd_structures() -> dict[str, Atoms]:
    """Return structures that the guard of every student should report."""
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
    """Return the kinds of warnings that a guard without history gives for a structure."""
    guard = calculator._guard
    assert guard is not None
    all_kinds = {"distance", "neighbors", "force"} | guard.limits.unusual_kinds
    guard._not_reported = set(all_kinds)
    if calculator._electrons is not None:
        calculator._electrons._reported.clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", OutsideTrainingWarning)
        try:
            calculator.calculate_many([atoms])
        except InputError:
            return {"refused"}
    reported = all_kinds - guard._not_reported
    return reported or ({"electrons"} if caught else set())


def alarms(name: str, reported: list[set[str]]) -> dict[str, float]:
    """Print and return the number of alarms per 1,000 frames, by kind."""
    per_kind = Counter(kind for kinds in reported for kind in kinds)
    rates = {
        kind: round(1000 * count / len(reported), 1) for kind, count in sorted(per_kind.items())
    }
    any_kind = round(1000 * sum(map(bool, reported)) / len(reported), 1)
    print(f"{name}: {any_kind} alarms per 1,000 of {len(reported)} frames {rates}", flush=True)
    return {"frames": len(reported), "alarms_per_1000": any_kind, **rates}


def main() -> int:
    """Print a table of false alarms and one of misses; write both as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", type=Path, help="labeled HDF5 files")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--backend", default="auto")
    parser.add_argument(
        "--frames", type=int, default=300, help="number of frames of each kind and file"
    )
    parser.add_argument(
        "--extremes", action="store_true", help="use only the extremes of training as limits"
    )
    parser.add_argument("-o", "--output", type=Path, help="JSON")
    arguments = parser.parse_args()
    if arguments.extremes:
        # Then no record is large enough to show what is usual.
        limits.FEWEST_STRUCTURES = sys.maxsize
    calculator = StudentCalculator(arguments.model, arguments.backend, threads=1, guard="warn")
    result: dict[str, object] = {"model": arguments.model}
    water = read_structures("water.extxyz")["64 waters"][0]
    ordinary = {"liquid water": water, "urea": urea().repeat((2, 2, 2)), "peptide": peptide()}
    for name, atoms in ordinary.items():
        frames = ordinary_frames(atoms, arguments.model, arguments.backend, arguments.frames)
        result[name] = alarms(name, [kinds_of(calculator, frame) for frame in frames])
    for path in arguments.files:
        with Dataset(path) as dataset:
            count = min(arguments.frames, len(dataset))
            chosen = np.random.default_rng(0).choice(len(dataset), count, replace=False)
            reported = [kinds_of(calculator, dataset.atoms(int(index))) for index in chosen]
            all_sources = dataset.read_structures().sources or ["unknown source"] * len(dataset)
            sources = [all_sources[index] for index in chosen]
        for source in sorted(set(sources)):
            label = f"{path.name}, {source}"
            of_source = [
                kinds for kinds, own in zip(reported, sources, strict=True) if own == source
            ]
            result[label] = alarms(label, of_source)
    missed = {}
    for name, atoms in odd_structures().items():
        missed[name] = sorted(kinds_of(calculator, atoms))
        print(f"{name}: {', '.join(missed[name]) or 'MISSED'}")
    result["odd_structures"] = missed
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
