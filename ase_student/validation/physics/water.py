"""Pair distributions of liquid water."""

from __future__ import annotations

import numpy as np
from ase import Atoms, units
from numpy.typing import NDArray

from ase_student.dynamics.bonds import Topology
from ase_student.dynamics.langevin import Walker
from ase_student.neighbors import neighbor_matrix
from ase_student.potentials.base import Potential
from ase_student.validation.extras import progress_bar
from ase_student.validation.physics.checks import Check, Subject, ask
from ase_student.validation.stability.run import FRICTION
from ase_student.validation.stability.water import water_box

PER_SIDE = 4
TEMPERATURE = 300.0
TIMESTEP_FS = 1.0
BIN = 0.05
FIRST_SHARE = 0.3
STEPS_PER_SAMPLE = 20
#: First peak of oxygen-oxygen pairs in x-ray diffraction at 295 K (Skinner et al., J. Chem. Phys.
#: 138, 074506, 2013), Å and height.
EXPERIMENT = (2.80, 2.57)
PAIRS = {"O-O": (8, 8), "O-H": (8, 1), "H-H": (1, 1)}


def pair_distributions(
    potential: Potential, picoseconds: float, seed: int = 0
) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float64]], bool]:
    """Return distances in Å, the pair distribution functions there, and whether bonds held.

    The run has 64 waters at 300 K; its first 30 % is discarded.
    """
    walker = Walker(
        water_box(PER_SIDE, seed),
        TEMPERATURE,
        TIMESTEP_FS * units.fs,
        friction=FRICTION,
        seed=[seed, 0],
    )
    atoms, topology = walker.atoms, Topology.of(walker.atoms)
    radius = 0.5 * float(atoms.cell.lengths().min())
    edges = np.arange(0.0, radius, BIN)
    counts = {name: np.zeros(len(edges) - 1) for name in PAIRS}
    n_steps = round(1000.0 * picoseconds / TIMESTEP_FS)
    n_samples = 0
    answer = ask(potential, [atoms])[0]
    with progress_bar(n_steps, "step", label="water") as bar:
        for step in range(n_steps):
            walker.move(step, answer.forces)
            answer = ask(potential, [atoms])[0]
            walker.arrive(answer.forces)
            bar.update()
            if step < FIRST_SHARE * n_steps or step % STEPS_PER_SAMPLE:
                continue
            if topology.change(atoms) is not None:
                return edges, {}, False
            n_samples += 1
            for name, count in counts.items():
                count += np.histogram(_distances(atoms, PAIRS[name], radius), edges)[0]
    shells = 4.0 / 3.0 * np.pi * np.diff(edges**3)
    distributions = {}
    for name, (first, second) in PAIRS.items():
        n_pairs = (atoms.numbers == first).sum() * (atoms.numbers == second).sum()
        ideal = n_samples * n_pairs / atoms.get_volume() * shells
        distributions[name] = counts[name] / ideal
    return 0.5 * (edges[1:] + edges[:-1]), distributions, True


def _distances(atoms: Atoms, pair: tuple[int, int], radius: float) -> NDArray[np.float64]:
    numbers, cell = atoms.numbers, atoms.cell.array
    positions = atoms.positions
    matrix = neighbor_matrix(positions, cell, atoms.pbc, radius)
    vectors = positions[matrix.neighbors] + matrix.offsets(cell) - positions[:, None]
    is_counted = (
        ~matrix.is_padding & (numbers == pair[0])[:, None] & (numbers[matrix.neighbors] == pair[1])
    )
    distances: NDArray[np.float64] = np.linalg.norm(vectors[is_counted], axis=1)
    return distances


def check_water(subject: Subject, picoseconds: float) -> list[Check]:
    """Return the first peak of oxygen-oxygen pairs and that of experiment; it is not judged."""
    name = "first O-O peak of water"
    if not {1, 8} <= set(subject.elements):
        return [Check(name, None, detail="the data hold no H and O")]
    distances, distributions, bonds_held = pair_distributions(subject.potential, picoseconds)
    if not bonds_held:
        return [Check(name, False, None, None, "Å", "a bond broke")]
    beyond = distances > 2.0
    peak = int(np.argmax(np.where(beyond, distributions["O-O"], 0.0)))
    position, height = EXPERIMENT
    detail = (
        f"height {distributions['O-O'][peak]:.2f}; experiment {position:.2f} Å, {height:.2f}; "
        f"64 waters, {TEMPERATURE:g} K, {picoseconds:g} ps"
    )
    curves = {
        "distances": np.round(distances, 4).tolist(),
        "g": {key: np.round(values, 4).tolist() for key, values in distributions.items()},
    }
    return [Check(name, None, float(distances[peak]), None, "Å", detail, curves)]
