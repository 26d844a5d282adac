"""Sample structures: conformers, hot dynamics, strong displacements, clusters, contacts."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from tqdm import tqdm

from ase_student.dataset import Structures, write_dataset
from ase_student.distill import molecules, provenance, sampling
from ase_student.distill.molecules import Molecule, Species, UnsuitableError
from ase_student.distill.split import WATER

N_CONFORMERS = 2
#: Steps of 2 fs before a frame is kept; a cluster has to find its hydrogen bonds first.
MOLECULE_STEPS = 200
CLUSTER_STEPS = 250
CLUSTER_MINIMISATION_STEPS = 50
MOLECULE_TEMPERATURES = (300.0, 1000.0)
CLUSTER_TEMPERATURES = (300.0, 600.0)
#: MMFF94's minima are not the teacher's: a small displacement on top of the dynamics covers both.
MD_DISPLACEMENTS = (0.0, 0.03)
STRONG_DISPLACEMENTS = (0.03, 0.09)
#: Closest approach of two molecules, as a fraction of their van der Waals radii.
SQUEEZED_CONTACTS = (0.5, 0.8)
STRETCHED_CONTACTS = (0.95, 2.0)


@dataclass(frozen=True)
class Settings:
    """What to sample of every molecule.

    Attributes
    ----------
    md, displaced, cluster, contact : int
        Frames per molecule from dynamics, from strong displacement, from the dynamics of a cluster
        that holds it, and from such a cluster with one molecule pressed in or pulled away.
    small_factor : int
        How many times more frames the small molecules of the built-in list get.
    max_atoms : int
        Largest structure, clusters included.
    seed : int
    """

    md: int = 3
    displaced: int = 2
    cluster: int = 1
    contact: int = 1
    small_factor: int = 6
    max_atoms: int = 45
    seed: int = 0


@dataclass
class Frames:
    """Structures sampled so far, and counts of what was left out."""

    structures: list[Atoms] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    molecules: list[str] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)

    def add(self, molecule: Molecule, positions: NDArray[np.float64], source: str) -> None:
        """Keep a geometry, unless it clashes."""
        if not np.isfinite(positions).all():
            self.dropped[f"diverged ({source})"] += 1
            return
        if sampling.clashes(molecule.numbers, positions):
            self.dropped[f"clash ({source})"] += 1
            return
        self.structures.append(Atoms(molecule.numbers, positions - positions.mean(0)))
        self.sources.append(source)
        self.molecules.append(molecule.name)

    @contextmanager
    def counting_failures(self, what: str) -> Iterator[None]:
        """Let a molecule that cannot be sampled end the block, and count it by its reason."""
        try:
            yield
        except UnsuitableError as reason:
            self.dropped[f"{what}: {reason}"] += 1
        except RuntimeError:
            # RDKit's violated invariants: nothing is known but that this molecule cannot be done.
            self.dropped[f"{what}: RDKit gave up"] += 1

    def extend(self, other: Frames) -> None:
        """Keep the frames of another molecule."""
        self.structures += other.structures
        self.sources += other.sources
        self.molecules += other.molecules
        self.dropped += other.dropped


def sample_molecule(
    species: Species, settings: Settings, partners: Sequence[Species], n_times: int = 1
) -> Frames:
    """Return frames of one molecule and of clusters with it.

    What comes out depends on the arguments alone, not on which other molecules are sampled before
    or beside it.

    Parameters
    ----------
    species : Species
    settings : Settings
    partners : sequence of Species
        What it may meet in a cluster.
    n_times : int
        How many times the number of frames in `settings`.
    """
    rng = molecules.generator(settings.seed, species.key)
    frames = Frames()
    with frames.counting_failures("molecule"):
        molecule = molecules.embed(species, N_CONFORMERS, int(rng.integers(2**31 - 1)))
        _sample_dynamics(frames, molecule, settings.md * n_times, rng)
        for i in range(settings.displaced * n_times):
            conformer = molecule.conformers[i % len(molecule.conformers)]
            sigma = rng.uniform(*STRONG_DISPLACEMENTS)
            frames.add(molecule, sampling.displaced(conformer, sigma, rng), "displaced")
        for _ in range(n_times if settings.cluster + settings.contact else 0):
            with frames.counting_failures("cluster"):
                cluster = _cluster(molecule, settings, partners, rng)
                _sample_cluster(frames, cluster, settings, rng)
    return frames


def _sample_dynamics(
    frames: Frames, molecule: Molecule, n_frames: int, rng: np.random.Generator
) -> None:
    forces = molecules.mmff_forces(molecule)
    latest = list(molecule.conformers)
    for i in range(n_frames):
        # Each frame has its own temperature, and goes on from an earlier frame of its conformer.
        k = i % len(latest)
        temperature = rng.uniform(*MOLECULE_TEMPERATURES)
        steps = sampling.langevin(molecule.numbers, latest[k], forces, temperature, rng)
        positions = sampling.after(steps, MOLECULE_STEPS)
        sigma = rng.uniform(*MD_DISPLACEMENTS)
        frames.add(molecule, sampling.displaced(positions, sigma, rng), "md")
        if np.isfinite(positions).all():
            latest[k] = positions


def _cluster(
    molecule: Molecule, settings: Settings, partners: Sequence[Species], rng: np.random.Generator
) -> Molecule:
    """Return a cluster: waters, the molecule in water, or the molecule and another one.

    Raises
    ------
    UnsuitableError
        If nothing fits beside the molecule.
    """
    room = settings.max_atoms - len(molecule.numbers)
    fitting = [partner for partner in partners if partner.n_atoms <= room]
    water = molecules.species_of(WATER, 3)
    kind = rng.choice(["waters", "solvated", "dimer"], p=[0.2, 0.4, 0.4])
    if kind == "waters" or molecule.name == WATER or (kind == "solvated" and room < 3):
        parts = [water] * min(int(rng.integers(2, 9)), settings.max_atoms // 3)
        members = []
    elif kind == "solvated":
        parts = [water] * min(int(rng.integers(1, 7)), room // 3)
        members = [molecule]
    elif kind == "dimer" and fitting:
        parts = [fitting[int(rng.integers(len(fitting)))]]
        members = [molecule]
    else:
        parts, members = [], [molecule]
    if len(parts) + len(members) < 2:
        raise UnsuitableError("no room for a partner")
    built: dict[str, Molecule] = {}
    for species in parts:
        if species.key not in built:
            built[species.key] = molecules.embed(species, 1, int(rng.integers(2**31 - 1)))
        members.append(built[species.key])
    conformers = [one.conformers[int(rng.integers(len(one.conformers)))] for one in members]
    positions = sampling.packed([one.numbers for one in members], conformers, rng)
    return molecules.combine(members, positions)


def _sample_cluster(
    frames: Frames, cluster: Molecule, settings: Settings, rng: np.random.Generator
) -> None:
    start = molecules.relaxed(cluster, CLUSTER_MINIMISATION_STEPS)
    forces = sampling.confined(molecules.mmff_forces(cluster), start)
    temperature = rng.uniform(*CLUSTER_TEMPERATURES)
    steps = sampling.langevin(cluster.numbers, start, forces, temperature, rng)
    sources = ["cluster"] * settings.cluster + ["contact"] * settings.contact
    for source in sources:
        positions = sampling.after(steps, CLUSTER_STEPS)
        if source == "contact":
            positions = _in_contact(cluster, positions, rng)
        sigma = rng.uniform(*MD_DISPLACEMENTS)
        frames.add(cluster, sampling.displaced(positions, sigma, rng), source)


def _in_contact(
    cluster: Molecule, positions: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Press one molecule into the others, or pull it away, along a line near its own."""
    moving = cluster.fragments == rng.integers(cluster.fragments.max() + 1)
    outwards = positions[moving].mean(0) - positions[~moving].mean(0)
    direction = outwards / np.linalg.norm(outwards) + 0.3 * rng.normal(size=3)
    contacts = SQUEEZED_CONTACTS if rng.random() < 0.4 else STRETCHED_CONTACTS
    return sampling.shift_to_contact(
        cluster.numbers,
        positions,
        moving,
        direction / np.linalg.norm(direction),
        rng.uniform(*contacts),
    )


def make_structures(
    smiles: Iterable[str],
    settings: Settings,
    n_molecules: int | None = None,
    processes: int = 1,
    small_molecules: bool = True,
) -> tuple[Structures, dict[str, Any]]:
    """Sample all molecules and return their frames in random order, with what was left out.

    The result does not depend on the number of processes.

    Parameters
    ----------
    smiles : iterable of str
    settings : Settings
    n_molecules : int, optional
        How many molecules to take, chosen by the seed; all by default.
    processes : int
    small_molecules : bool
        Whether to add the built-in small molecules.

    Raises
    ------
    ValueError
        If no structure is left.
    """
    species, skipped = molecules.select_species(
        smiles, settings.max_atoms, n_molecules, settings.seed
    )
    small, _ = molecules.select_species(
        molecules.SMALL_MOLECULES if small_molecules else (),
        settings.max_atoms,
        None,
        settings.seed,
    )
    small_keys = {one.key for one in small}
    large = [one for one in species if one.key not in small_keys]
    # A third of the partners are small molecules, which fit and pair with anything.
    partners = large + small * max(1, len(large) // max(1, 2 * len(small)))
    frames = Frames()
    for jobs, n_times in ((small, settings.small_factor), (large, 1)):
        work = partial(sample_molecule, settings=settings, partners=partners, n_times=n_times)
        for one in tqdm(_mapped(work, jobs, processes), total=len(jobs), disable=None):
            frames.extend(one)
    if not frames.structures:
        left_out = {**skipped, **frames.dropped}
        raise ValueError(f"no structure could be sampled; left out: {_counts(left_out)}.")
    order = np.random.default_rng(settings.seed).permutation(len(frames.structures))
    structures = Structures.from_atoms(frames.structures, frames.sources, frames.molecules)
    report = {
        "n_molecules": len(large) + len(small),
        "skipped_molecules": skipped,
        "dropped": dict(frames.dropped),
        "sources": dict(Counter(frames.sources)),
    }
    return structures.take(order), report


def _mapped(work: Any, jobs: Sequence[Species], processes: int) -> Iterable[Frames]:
    if processes == 1:
        yield from map(work, jobs)
        return
    with get_context("spawn").Pool(processes) as pool:
        yield from pool.imap(work, jobs, chunksize=4)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{n} {reason}" for reason, n in counts.items()) or "nothing"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line of ``structures``."""
    default = Settings()
    parser.add_argument("-o", "--output", type=Path, required=True, help="HDF5 file to write")
    parser.add_argument(
        "--smiles", type=Path, help="file with one SMILES per line (default: RDKit's NCI set)"
    )
    parser.add_argument("--molecules", type=int, help="how many molecules to take (default: all)")
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--max-atoms", type=int, default=default.max_atoms)
    for name, what in (
        ("md", "dynamics"),
        ("displaced", "strong displacement"),
        ("cluster", "dynamics of a cluster"),
        ("contact", "molecules pressed together or pulled apart"),
    ):
        value = getattr(default, name)
        text = f"frames per molecule from {what} (default: {value})"
        parser.add_argument(f"--{name}", type=int, default=value, help=text)
    parser.add_argument(
        "--small-factor", type=int, default=default.small_factor,
        help="how many times more frames small molecules get (0 leaves them out)",
    )  # fmt: skip
    parser.add_argument("--processes", type=int, default=1)


def run(arguments: argparse.Namespace) -> str:
    """Sample structures as the command line says, write them, and return a summary."""
    for name in ("molecules", "max_atoms", "processes"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            option = name.replace("_", "-")
            raise ValueError(f"--{option} is {value}; it must be at least 1.")
    names = ("md", "displaced", "cluster", "contact", "small_factor", "max_atoms", "seed")
    settings = Settings(**{name: getattr(arguments, name) for name in names})
    for name, value in asdict(settings).items():
        if value < 0:
            option = name.replace("_", "-")
            raise ValueError(f"--{option} is {value}; it must not be negative.")
    smiles = molecules.nci_smiles() if arguments.smiles is None else _read(arguments.smiles)
    structures, report = make_structures(
        smiles, settings, arguments.molecules, arguments.processes, settings.small_factor > 0
    )
    metadata = {
        **provenance.metadata(arguments.command, "rdkit"),
        "smiles": "RDKit NCI first_5K" if arguments.smiles is None else arguments.smiles.name,
        "sampling": asdict(settings),
        **report,
    }
    write_dataset(arguments.output, structures, metadata=metadata)
    return (
        f"{arguments.output}: {len(structures)} structures of {report['n_molecules']} molecules "
        f"({_counts(report['sources'])}); skipped {_counts(report['skipped_molecules'])}; "
        f"dropped {_counts(report['dropped'])}."
    )


def _read(path: Path) -> list[str]:
    if not path.exists():
        raise FileNotFoundError(f"no file of SMILES at '{path}'.")
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.split()[0] for line in lines if line.strip() and not line.startswith("#")]
