"""Run held-out molecules at 300 and 600 K, and say of each whether its dynamics was stable.

``python -m ase_student.validation.stability DATA --model tiny -o stability.json`` takes
molecules from a data set or from any file that ASE reads, runs them side by side, prints a table
and writes the same as JSON. A command that was interrupted goes on when it is given again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import read
from ase.io.formats import UnknownFileTypeError

from ase_student import cli
from ase_student.calculator import StudentCalculator
from ase_student.data.hdf5 import Dataset
from ase_student.data.splits import split_of
from ase_student.files import check_output, replaced_when_complete
from ase_student.potentials.registry import load_teacher
from ase_student.validation.stability.run import Run, Stability, check_stability
from ase_student.validation.stability.water import WATERS, water_box

WATERS_PER_SIDE = 4
WATER_TEMPERATURE = 300.0
HDF5_SUFFIXES = (".h5", ".hdf5")


def molecules_of(
    path: Path, number: int, smallest: int, *, largest: int, part: str, seed: int
) -> dict[str, Atoms]:
    """Return some molecules of a file, one conformer of each, by name.

    Of a data set, only single molecules of one part of the split are taken, and if it says how its
    structures were sampled only those from dynamics, 'md': in a displaced conformer a bond may be
    so long at the start that it does not count as one.

    Parameters
    ----------
    path : path
        HDF5 data set, or a file that ASE reads, of which every frame counts as a molecule.
    number : int
        How many to draw at random; 0 takes all there are.
    smallest, largest : int
        Atoms in a molecule.
    part : 'train', 'validation', 'test' or 'all'
        Of the split by molecules; the file must name molecules unless it is 'all'.
    seed : int

    Raises
    ------
    ValueError
        If there are fewer.
    """
    if path.suffix in HDF5_SUFFIXES:
        found = _of_dataset(path, smallest, largest, part)
    else:
        if part != "all":
            raise ValueError(
                f"{path.name}: does not say what its molecules are, so none can be called held "
                "out; take all with --part all."
            )
        try:
            frames = read(path, index=":")
        except UnknownFileTypeError as error:
            raise ValueError(f"{path.name}: ASE cannot tell what kind of file it is.") from error
        found = {
            f"{index} {atoms.get_chemical_formula()}": atoms
            for index, atoms in enumerate(frames)
            if smallest <= len(atoms) <= largest
        }
    if not found or len(found) < number:
        raise ValueError(
            f"{path.name}: has {len(found)} molecules of {smallest} to {largest} atoms "
            f"(part '{part}'); {max(number, 1)} were asked for."
        )
    names = sorted(found)
    if number:
        chosen = np.random.default_rng(seed).permutation(len(names))[:number]
        names = [names[index] for index in sorted(chosen)]
    return {name: found[name] for name in names}


def _of_dataset(path: Path, smallest: int, largest: int, part: str) -> dict[str, Atoms]:
    """Return one structure of each suitable molecule of a data set, by its SMILES."""
    found: dict[str, int] = {}
    with Dataset(path) as dataset:
        structures = dataset.read_structures()
        if structures.molecules is None:
            raise ValueError(f"{path.name}: has no 'structures/molecules' to choose molecules by.")
        sizes = np.diff(structures.splits)
        for index, smiles in enumerate(structures.molecules):
            if "." in smiles or not smallest <= sizes[index] <= largest:
                continue
            if part != "all" and split_of(smiles) != part:
                continue
            if structures.sources is not None and structures.sources[index] != "md":
                continue
            found.setdefault(smiles, index)
        return {smiles: structures.atoms(index) for smiles, index in found.items()}


def table(results: Sequence[Stability]) -> str:
    """Return results as lines of a table, and a line that counts."""
    width = min(40, max(len(result.name) for result in results))
    lines = [f"{'molecule':{width}}  atoms     K    ps  mean K  longest bond  "]
    for one in results:
        name = one.name if len(one.name) <= width else f"{one.name[: width - 1]}…"
        mean = f"{one.mean_temperature:.0f}" if one.mean_temperature else "–"
        verdict = "stable" if one.stable else f"after {one.failed_ps:.3f} ps: {one.reason}"
        lines.append(
            f"{name:{width}}  {one.n_atoms:5d} {one.temperature:5.0f} {one.picoseconds:5g}  "
            f"{mean:>6}  {one.longest_bond:12.2f}  {verdict}"
        )
    n_stable = sum(result.stable for result in results)
    return "\n".join([*lines, f"{n_stable} of {len(results)} runs stable"])


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    found = cli.Parser(
        prog="python -m ase_student.validation.stability",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument("data", type=Path, nargs="?", help="HDF5 data set or file that ASE reads")
    asked = found.add_mutually_exclusive_group()
    asked.add_argument("--model", default="tiny", help="name or file of a student (default: tiny)")
    asked.add_argument("--teacher", help="instead of a student: so3lr, … or package.module:Class")
    found.add_argument("--backend", default="auto", help="of StudentCalculator")
    found.add_argument("--device", default="auto", help="of StudentCalculator")
    found.add_argument("--threads", type=int, help="CPU threads of the backend")
    found.add_argument("--number", type=int, default=20, help="molecules; 0 is all (default: 20)")
    found.add_argument("--smallest", type=int, default=20, help="atoms (default: 20)")
    found.add_argument("--largest", type=int, default=60, help="atoms (default: 60)")
    found.add_argument(
        "--part", choices=("test", "validation", "train", "all"), default="test",
        help="part of the split by molecule to draw from (default: test)",
    )  # fmt: skip
    found.add_argument(
        "--temperatures", type=float, nargs="+", default=[300.0, 600.0], metavar="K",
        help="(default: 300 600)",
    )  # fmt: skip
    found.add_argument("--picoseconds", type=float, default=50.0, help="(default: 50)")
    found.add_argument("--timestep", type=float, default=1.0, help="fs, up to 1 (default: 1)")
    found.add_argument("--water", type=float, default=0.0, metavar="PS",
        help="also run 64 periodic waters at 300 K for so many ps (default: none)",
    )  # fmt: skip
    found.add_argument("--seed", type=int, default=0)
    found.add_argument("-o", "--output", type=Path, required=True, help="JSON file to write")
    return found


def runs_of(arguments: argparse.Namespace) -> list[Run]:
    """Return the runs that a command line asks for."""
    runs = []
    if arguments.data is not None:
        molecules = molecules_of(
            arguments.data,
            arguments.number,
            arguments.smallest,
            largest=arguments.largest,
            part=arguments.part,
            seed=arguments.seed,
        )
        runs = [
            Run(name, atoms, temperature, arguments.picoseconds)
            for temperature in arguments.temperatures
            for name, atoms in molecules.items()
        ]
    if arguments.water:
        box = water_box(WATERS_PER_SIDE, arguments.seed)
        name = f"{WATERS_PER_SIDE**3} {WATERS}"
        runs.append(Run(name, box, WATER_TEMPERATURE, arguments.water))
    if not runs:
        raise ValueError("nothing to run: give a file, or --water.")
    return runs


def kind_of(result: Stability) -> str:
    """Return 'water box' or 'molecule': boxes of water have a name that no molecule has."""
    return "water box" if result.name.endswith(WATERS) else "molecule"


def run_table(arguments: argparse.Namespace) -> bool:
    """Run, print and write what the command line asks for; return whether all was stable."""
    check_output(arguments.output)
    if arguments.number < 0:
        raise ValueError(f"--number is {arguments.number}; it must not be negative.")
    runs = runs_of(arguments)
    if arguments.teacher is not None:
        potential: Any = load_teacher(arguments.teacher)
        described = {"teacher": arguments.teacher}
    else:
        potential = StudentCalculator(
            arguments.model,
            backend=arguments.backend,
            device=arguments.device,
            threads=arguments.threads,
            # What happens outside of the training data is what is to be seen here.
            guard="off",
        )
        described = {
            "student": potential.info.name,
            "weights_sha256": potential.info.weights_sha256,
            "backend": potential.backend,
        }
    state = arguments.output.with_suffix(".state.npz")
    results = check_stability(potential, runs, arguments.timestep, seed=arguments.seed, state=state)
    cli.say(table(results))
    document = {
        **described,
        "timestep_fs": arguments.timestep,
        "seed": arguments.seed,
        "n_stable": sum(result.stable for result in results),
        "n_runs": len(results),
        "runs": [{"kind": kind_of(result), **dataclasses.asdict(result)} for result in results],
    }
    with replaced_when_complete(arguments.output) as temporary:
        temporary.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    state.unlink(missing_ok=True)
    return all(result.stable for result in results)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 1 if a run was not stable, 2 if what was given is wrong."""
    arguments = parser().parse_args(argv)
    return cli.run(lambda: 0 if run_table(arguments) else 1)


if __name__ == "__main__":
    sys.exit(main())
