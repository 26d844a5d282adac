"""Select some structures of one part of the split from a labeled file."""

import argparse
from collections import defaultdict
from dataclasses import replace

import numpy as np

from ase_student import provenance
from ase_student.data.hdf5 import Dataset, write_dataset
from ase_student.data.splits import SPLITS, parts_of
from ase_student.distill.options import Option, output_file, positional

#: What is kept of the metadata of the file that the structures come from.
_KEPT = ("teacher", "teacher_settings", "max_force")


OPTIONS = (
    positional("dataset", "labeled HDF5 file"),
    output_file(),
    Option("part", "of the split", choices=("train", "validation", "test"), default="test"),
    Option(
        "per-source",
        "structures per source; complexes bring their fragments",
        int,
        default=60,
        least=1,
        metavar="N",
    ),
    Option("split", "what is split", choices=SPLITS, default="molecule"),
    Option("seed", "of the split and of the choice", int, default=0, least=0),
)


def run(arguments: argparse.Namespace) -> str:
    """Write the subset as the command line says and return a summary."""
    with Dataset(arguments.dataset) as dataset:
        structures, labels = dataset.read_structures(), dataset.read_labels()
        metadata = dataset.metadata
    if structures.sources is None:
        raise ValueError(f"{arguments.dataset}: no structures/sources.")
    parts = parts_of(structures, arguments.split, arguments.seed, path=arguments.dataset)
    rows_of: dict[str, list[int]] = defaultdict(list)
    members = (
        np.full((len(structures), 2), -1)
        if structures.fragments is None
        else (structures.fragments)
    )
    for row, index in enumerate(labels.structure_indices):
        # Fragments come with the complexes that are chosen.
        if parts[index] == arguments.part and members[index, 1] < 0:
            rows_of[structures.sources[index]].append(row)
    if not rows_of:
        raise ValueError(f"{arguments.dataset}: no structures in the {arguments.part} part.")
    generator = np.random.default_rng(arguments.seed)
    chosen: list[int] = []
    for _, rows in sorted(rows_of.items()):
        n_taken = min(arguments.per_source, len(rows))
        chosen += sorted(generator.choice(rows, n_taken, replace=False).tolist())
    groups = set(members[labels.structure_indices[chosen], 0].tolist()) - {-1}
    for row, index in enumerate(labels.structure_indices):
        if members[index, 0] in groups and members[index, 1] >= 0:
            chosen.append(row)
    subset = structures.take(labels.structure_indices[chosen])
    write_dataset(
        arguments.output,
        subset,
        replace(labels.take(chosen), structure_indices=np.arange(len(chosen))),
        metadata={
            **provenance.metadata("", "h5py"),
            "part": f"{arguments.part} part of the split by {arguments.split} with seed "
            f"{arguments.seed}",
            **{key: metadata[key] for key in _KEPT if key in metadata},
        },
    )
    return f"{arguments.output}: {len(chosen)} structures of {len(rows_of)} sources."
