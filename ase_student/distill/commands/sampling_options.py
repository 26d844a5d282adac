"""Options and output that the commands for molecules and given structures share."""

from __future__ import annotations

import argparse
import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from ase_student import provenance
from ase_student.data.hdf5 import write_dataset
from ase_student.distill.options import Option
from ase_student.distill.sampling.sample import in_words, make_structures
from ase_student.distill.sampling.settings import MMFF94, MoleculeTask, SamplingSettings
from ase_student.potentials import registry

DEFAULT = SamplingSettings()


def temperature_range(text: str) -> tuple[float, float]:
    """Return the lowest and highest temperature that '300' or '300:1000' means, in K."""
    try:
        bounds = [float(word) for word in text.split(":")]
        low, high = bounds * 2 if len(bounds) == 1 else bounds
    except ValueError:
        low = high = math.nan
    if not 0 < low <= high < math.inf:
        raise argparse.ArgumentTypeError(
            f"'{text}' is no temperature above 0 K such as '300', nor a range such as '300:1000'"
        )
    return low, high


TEMPERATURES = Option(
    "temperatures",
    "of the dynamics, K: each trajectory takes one of these, which may be ranges such as 300:1000 "
    "(default: 300:1000 for molecules, 300:600 for clusters)",
    temperature_range,
    nargs="+",
    default=(),
    metavar="T",
)
STEPS = Option(
    "steps",
    "steps of 2 fs before each frame (default: 200, for clusters 250)",
    int,
    least=1,
    metavar="N",
)
SEED = Option("seed", "of all that is drawn", int, default=DEFAULT.seed, least=0)
PROCESSES = Option(
    "processes", "number of processes that share the work", int, default=1, least=1, metavar="N"
)


def number_option(name: str, text: str, *, least: int = 0) -> Option:
    """Return the option for a setting that is an integer, with its usual default."""
    default = getattr(DEFAULT, name.replace("-", "_"))
    return Option(name, text, int, default=default, least=least, metavar="N")


def sampling_settings(arguments: argparse.Namespace) -> SamplingSettings:
    """Return the settings that a command line gives; others have their defaults.

    Raises
    ------
    ValueError, FileNotFoundError, ImportError
        If nothing that could move atoms has the name given, or it cannot be loaded.
    """
    names = {field.name for field in fields(SamplingSettings)}
    given = {k: v for k, v in vars(arguments).items() if k in names and v is not None}
    lists = {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    settings = SamplingSettings(**{**given, **lists})
    if settings.dynamics != MMFF94:
        # A model that cannot be loaded is reported before the work begins.
        registry.load_potential(settings.dynamics)
    return settings


def sample_and_write(
    arguments: argparse.Namespace,
    settings: SamplingSettings,
    *,
    made_of: Sequence[str],
    described: str,
    jobs: Sequence[MoleculeTask] = (),
    **work: Any,
) -> str:
    """Sample, write the structures with how they were made, and return a summary.

    Parameters
    ----------
    arguments : argparse.Namespace
        Of a command; finished pieces of its work are kept beside the output until it is written.
    settings : SamplingSettings
    made_of : sequence of str
        Sets, files or names of what is sampled.
    described : str
        What is sampled, in words.
    jobs : sequence of MoleculeTask
    **work
        What else :func:`ase_student.distill.sampling.sample.make_structures` takes.

    Raises
    ------
    ValueError
        If no structure is left.
    """
    folder = arguments.output.with_name(f"{arguments.output.name}.partial")
    structures, report = make_structures(jobs, settings, folder=folder, **work)
    metadata = {
        **provenance.metadata(arguments.command, "rdkit", "chemicals"),
        "structure_sources": list(made_of),
        "sampling": asdict(settings),
        **report,
    }
    write_dataset(arguments.output, structures, metadata=metadata)
    if folder.exists():
        shutil.rmtree(folder)
    skipped = f"skipped {in_words(report['skipped_molecules'])}; " if jobs else ""
    return (
        f"{arguments.output}: {len(structures)} structures of {described} "
        f"({in_words(report['sources'])}); {skipped}dropped {in_words(report['dropped'])}."
    )
