"""Other potentials in the same dynamics; each is skipped if its package is not installed."""

import warnings
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from measuring import describe_others
from measuring import run as timed_rounds
from test_md import SYSTEMS, run
from timing.machine import versions
from timing.memory import PHASES
from timing.peers import NEP, PEERS, PERIODIC, open_peer
from timing.structures import moved

from ase_student import StudentCalculator
from ase_student.checkpoint import STUDENT_NAMES

# Atoms of the structures in which students are timed beside the fastest peer.
N_ATOMS = 1000


def in_a_cell(atoms: Atoms, name: str) -> Atoms:
    """Return a structure, put into a cell if it has none and the potential needs one."""
    if name in PERIODIC and not atoms.cell.rank:
        atoms.center(vacuum=20.0)
    return atoms


def aspirin(peer: str) -> Atoms:
    """Return the molecule, in a cell if the peer needs a cell."""
    return in_a_cell(SYSTEMS["aspirin"](), peer)


def opened(peer: str, device: str, threads: int) -> Any:
    """Return the calculator of a peer; skip the test if it cannot run here."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return open_peer(peer, device, threads)
    except (ImportError, ValueError) as error:
        pytest.skip(str(error))


@pytest.mark.filterwarnings("ignore")  # Warnings of other packages.
@pytest.mark.parametrize("peer", PEERS)
def test_peers(benchmark: Any, peer: str, device: str, threads: int, budget: float) -> None:
    package, _ = PEERS[peer]
    calculator = opened(peer, device, threads)
    benchmark.group = "md of aspirin"
    atoms = aspirin(peer)
    atoms.calc = calculator
    assert np.isfinite(atoms.get_potential_energy())
    assert np.abs(atoms.get_forces()).max() > 0.0
    figures = run(benchmark, aspirin(peer), calculator, budget)
    # The parts of other calculators are not timed separately.
    del figures["split_milliseconds"]
    describe_others(
        benchmark,
        "peer",
        threads,
        device=device,
        system="aspirin",
        student=peer,
        backend=package,
        package=f"{package} {versions([package]).get(package, '')}".strip(),
        **figures,
    )


@pytest.mark.filterwarnings("ignore")  # Warnings of other packages.
@pytest.mark.parametrize("name", [NEP, *STUDENT_NAMES])
@pytest.mark.parametrize("phase", PHASES)
def test_peers_with_1000_atoms(
    benchmark: Any, name: str, phase: str, device: str, threads: int, budget: float
) -> None:
    """Time forces of moved atoms; NEP builds its neighbor list each time."""
    atoms = in_a_cell(PHASES[phase](N_ATOMS), name)
    if name in PEERS:
        calculator, package = opened(name, device, threads), PEERS[name][0]
    else:
        calculator, package = StudentCalculator(name, device=device, threads=threads), "ase-student"
    benchmark.group = f"{phase}, {N_ATOMS} atoms"
    rng = np.random.default_rng(0)

    def forces(atoms: Atoms) -> Any:
        atoms.calc = calculator
        return atoms.get_forces()

    seconds = timed_rounds(benchmark, forces, lambda: (moved(atoms, rng),), device, budget)
    describe_others(
        benchmark, "peer size", threads, device=device, phase=phase, student=name,
        backend=package, atoms=N_ATOMS, microseconds_per_atom=1e6 * seconds / N_ATOMS,
    )  # fmt: skip
