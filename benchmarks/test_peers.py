"""Other potentials in the same dynamics, each skipped where its package is missing."""

import warnings
from typing import Any

import numpy as np
import pytest
from measuring import describe_others
from test_md import SYSTEMS, run
from timing.machine import versions
from timing.peers import PEERS, open_peer


@pytest.mark.filterwarnings("ignore")  # They are not ours.
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
    atoms = SYSTEMS["aspirin"]()
    atoms.calc = calculator
    assert np.isfinite(atoms.get_potential_energy())
    assert np.abs(atoms.get_forces()).max() > 0.0
    found = run(benchmark, SYSTEMS["aspirin"](), calculator, budget)
    # What others spend inside is not told apart.
    del found["split_milliseconds"]
    describe_others(
        benchmark,
        "peer",
        threads,
        device=device,
        system="aspirin",
        student=peer,
        backend=package,
        package=f"{package} {versions([package]).get(package, '')}".strip(),
        **found,
    )
