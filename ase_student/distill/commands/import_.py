"""Convert labeled structures of other programs to one data set.

Reads extended XYZ, ASE databases (.db, .json), ASE trajectories (.traj), .npz in the layout of
rMD17 (coords, energies, forces, nuclear_charges) and the HDF5 files of SPICE, ANI-1x and QM7-X,
whose units are known. In other files, values are in eV and Å unless an option names a unit; only
energies of .npz are in kcal/mol, as in rMD17.
"""

from __future__ import annotations

import argparse

from ase_student.data.readers import units
from ase_student.data.readers.label_keys import LabelKeys
from ase_student.distill.labelling.imported import ImportSettings, import_structures
from ase_student.distill.labelling.label import MAX_FORCE
from ase_student.distill.options import Option, output_file, positional

#: By quantity: the units that are known, and which one is taken if none is given.
_UNITS = {
    "energy": (units.ENERGIES, "eV, for .npz kcal/mol"),
    "length": (units.LENGTHS, "Ang"),
    "forces": (units.FORCES, "of the energy by that of the length"),
    "stress": (units.STRESSES, "of the energy by the length cubed; positive in tension"),
}
OPTIONS = (
    positional("files", "labeled structures", nargs="+", metavar="FILE"),
    output_file(),
    *(
        Option(
            f"{label}-key",
            f"name of the {label} in the files; with one of these three, labels that are not named "
            "are not read",
            metavar="KEY",
        )
        for label in ("energy", "forces", "stress")
    ),
    *(
        Option(
            f"{name}-unit",
            f"{'' if name == 'forces' else ', '.join(known) + ' '}(default: {default})",
            choices=tuple(known),
            metavar="UNIT",
        )
        for name, (known, default) in _UNITS.items()
    ),
    Option("teacher", "what the labels were computed with", metavar="NAME"),
    Option(
        "source",
        "how structures were sampled, where a file does not say (default: the file's name)",
        metavar="NAME",
    ),
    Option(
        "max-force",
        "leave out structures with a larger force, eV/Å",
        float,
        default=MAX_FORCE,
        metavar="F",
    ),
    Option("skip-invalid", "leave out invalid structures", bool, default=False),
)


def run(arguments: argparse.Namespace) -> str:
    """Import files as the command line says and return a summary."""
    if not arguments.max_force > 0:
        raise ValueError(f"--max-force is {arguments.max_force:g}; it must be above 0 eV/Å.")
    for path in arguments.files:
        if path.exists() and arguments.output.exists() and arguments.output.samefile(path):
            raise ValueError(f"'{path}' is a file to read; give another output.")
    keys = LabelKeys(arguments.energy_key, arguments.forces_key, arguments.stress_key)
    settings = ImportSettings(
        keys=None if keys == LabelKeys() else keys,
        energy=arguments.energy_unit,
        length=arguments.length_unit,
        forces=arguments.forces_unit,
        stress=arguments.stress_unit,
        teacher=arguments.teacher,
        source=arguments.source,
        max_force=arguments.max_force,
        skip_invalid=arguments.skip_invalid,
    )
    result = import_structures(
        arguments.files, arguments.output, settings, command=arguments.command
    )
    dropped = ", ".join(f"{n} {reason}" for reason, n in result.dropped.items()) or "none"
    return "\n".join(
        [
            *result.sentences,
            f"{arguments.output}: {len(result.frames)} labeled structures; left out: {dropped}. "
            "It names no molecules: train on it with --split structure.",
        ]
    )
