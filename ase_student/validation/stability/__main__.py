"""Run dynamics of held-out molecules at 300 and 600 K, and report which runs are stable.

``python -m ase_student.validation.stability DATA --model tiny -o stability.json`` takes
molecules from a data set or from any file that ASE reads, runs them side by side, prints a table
and writes the same as JSON. An interrupted command continues when it is run again.
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

    From a data set, only single molecules of one part of the split are taken. If the data set
    records how its structures were sampled, only those from dynamics, 'md', are taken: in a
    displaced conformer a bond may be so long at the start that it is not recognized as a bond.

    Parameters
    ----------
    path : path
        HDF5 data set, or a file that ASE reads, of which every frame counts as a molecule.
    number : int
        Number of molecules, drawn at random; 0 takes all.
    smallest, largest : int
        Number of atoms in a molecule.
    part : 'train', 'validation', 'test' or 'all'
        Of the split by molecules; the file must name molecules unless it is 'all'.
    seed : int

    Raises
    ------
    ValueError
        If there are fewer suitable molecules than `number`, or if ASE cannot read the file.
    """
    if path.suffix in HDF5_SUFFIXES:
        molecules = _of_dataset(path, smallest, largest, part)
    else:
        if part != "all":
            raise ValueError(
                f"{path.name}: does not name its molecules, so the held-out ones are unknown; "
                "take all with --part all."
            )
        try:
            frames = read(path, index=":")
        except UnknownFileTypeError as error:
            raise ValueError(f"{path.name}: ASE does not recognize its file format.") from error
        molecules = {
            f"{index} {atoms.get_chemical_formula()}": atoms
            for index, atoms in enumerate(frames)
            if smallest <= len(atoms) <= largest
        }
    if not molecules or len(molecules) < number:
        raise ValueError(
            f"{path.name}: has {len(molecules)} molecules of {smallest} to {largest} atoms "
            f"(part '{part}'); {max(number, 1)} were asked for."
        )
    names = sorted(molecules)
    if number:
        chosen = np.random.default_rng(seed).permutation(len(names))[:number]
        names = [names[index] for index in sorted(chosen)]
    return {name: molecules[name] for name in names}


def _of_dataset(path: Path, smallest: int, largest: int, part: str) -> dict[str, Atoms]:
    """Return one structure of each suitable molecule of a data set, by its SMILES."""
    index_by_smiles: dict[str, int] = {}
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
            index_by_smiles.setdefault(smiles, index)
        return {smiles: structures.atoms(index) for smiles, index in index_by_smiles.items()}


def table(results: Sequence[Stability]) -> str:
    """Return results as a table, and a last line with the number of stable runs."""
    width = min(40, max(len(result.name) for result in results))
    lines = [f"{'molecule':{width}}  atoms     K    ps  mean K  longest bond  "]
    for result in results:
        name = result.name if len(result.name) <= width else f"{result.name[: width - 1]}…"
        mean = f"{result.mean_temperature:.0f}" if result.mean_temperature else "–"
        verdict = "stable" if result.stable else f"after {result.failed_ps:.3f} ps: {result.reason}"
        lines.append(
            f"{name:{width}}  {result.n_atoms:5d} {result.temperature:5.0f} "
            f"{result.picoseconds:5g}  {mean:>6}  {result.longest_bond:12.2f}  {verdict}"
        )
    n_stable = sum(result.stable for result in results)
    return "\n".join([*lines, f"{n_stable} of {len(results)} runs stable"])


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    command_line = cli.Parser(
        prog="python -m ase_student.validation.stability",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command_line.add_argument(
        "data", type=Path, nargs="?", help="HDF5 data set or file that ASE reads"
    )
    potential_options = command_line.add_mutually_exclusive_group()
    potential_options.add_argument(
        "--model", default="tiny", help="name or file of a student (default: tiny)"
    )
    potential_options.add_argument(
        "--teacher", help="instead of a student: so3lr, … or package.module:Class"
    )
    command_line.add_argument("--backend", default="auto", help="of StudentCalculator")
    command_line.add_argument("--device", default="auto", help="of StudentCalculator")
    command_line.add_argument("--threads", type=int, help="CPU threads of the backend")
    command_line.add_argument(
        "--number", type=int, default=20, help="molecules; 0 is all (default: 20)"
    )
    command_line.add_argument("--smallest", type=int, default=20, help="atoms (default: 20)")
    command_line.add_argument("--largest", type=int, default=60, help="atoms (default: 60)")
    command_line.add_argument(
        "--part", choices=("test", "validation", "train", "all"), default="test",
        help="part of the split by molecule to draw from (default: test)",
    )  # fmt: skip
    command_line.add_argument(
        "--temperatures", type=float, nargs="+", default=[300.0, 600.0], metavar="K",
        help="(default: 300 600)",
    )  # fmt: skip
    command_line.add_argument("--picoseconds", type=float, default=50.0, help="(default: 50)")
    command_line.add_argument(
        "--timestep", type=float, default=1.0, help="fs, up to 1 (default: 1)"
    )
    command_line.add_argument("--water", type=float, default=0.0, metavar="PS",
        help="also run 64 periodic waters at 300 K for PS picoseconds (default: none)",
    )  # fmt: skip
    command_line.add_argument("--seed", type=int, default=0)
    command_line.add_argument("-o", "--output", type=Path, required=True, help="JSON file to write")
    return command_line


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
    """Run all runs of a command line, print and write results; return whether all were stable."""
    check_output(arguments.output)
    for name in ("number", "seed"):
        if (value := getattr(arguments, name)) < 0:
            raise ValueError(f"--{name} is {value}; it must not be negative.")
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
            # This command tests what happens outside of the training data.
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
    """Run the command; return 1 if a run was not stable, 2 if the input is invalid."""
    arguments = parser().parse_args(argv)
    return cli.run(lambda: 0 if run_table(arguments) else 1)


if __name__ == "__main__":
    sys.exit(main())
