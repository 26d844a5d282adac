"""Other potentials in the same dynamics; each is skipped if its package is not installed."""

import warnings
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from measuring import describe_others
from test_md import SYSTEMS, run
from timing.machine import versions
from timing.peers import PEERS, PERIODIC, open_peer


def aspirin(peer: str) -> Atoms:
    """Return the molecule, in a cell if the peer needs a cell."""
    atoms = SYSTEMS["aspirin"]()
    if peer in PERIODIC:
        atoms.center(vacuum=20.0)
    return atoms


@pytest.mark.filterwarnings("ignore")  # Warnings of other packages.
@pytest.mark.parametrize("peer", PEERS)
def test_peers(benchmark: Any, peer: str, device: str, threads: int, budget: float) -> None:
    package, _ = PEERS[peer]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            calculator = open_peer(peer, device, threads)
    except (ImportError, ValueError) as error:
        pytest.skip(str(error))
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
