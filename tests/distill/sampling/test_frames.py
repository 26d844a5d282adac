"""Frames: duplicates are found and counted, and written frames are read back."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

pytest.importorskip("h5py")
pytest.importorskip("rdkit")

from ase_student.distill.sampling import frames
from ase_student.dynamics import rotations
from ase_student.jobs.store import ChunkStore


def turned(atoms, seed=0):
    rng = np.random.default_rng(seed)
    copy = atoms.copy()
    copy.positions = copy.positions @ rotations.random_rotation(rng) + rng.normal(size=3)
    return copy


def shifted(atoms, distance):
    copy = atoms.copy()
    copy.positions[0, 0] += distance
    return copy


ETHANOL = molecule("CH3CH2OH")
SALT = bulk("NaCl", "rocksalt", 5.64)


@pytest.mark.parametrize(
    ("first", "second", "are_same"),
    [
        (ETHANOL, turned(ETHANOL), True),
        (ETHANOL, shifted(turned(ETHANOL), 1e-5), True),
        (ETHANOL, shifted(ETHANOL, 0.01), False),
        (ETHANOL, molecule("CH3OCH3"), False),
        (SALT, SALT.copy(), True),
        (SALT, shifted(SALT, 5.64), True),
        (SALT, shifted(SALT, 0.01), False),
        (SALT, bulk("NaCl", "rocksalt", 5.65), False),
        (Atoms("H"), Atoms("H", [[3.0, 0, 0]]), True),
        (Atoms("H"), Atoms("He"), False),
    ],
)
def test_duplicates_are_found(first, second, are_same):
    structures = [molecule("H2O"), first, molecule("NH3"), second]
    assert frames.duplicates(structures) == ({3} if are_same else set())


def test_an_atom_moved_by_a_lattice_vector_gives_a_duplicate():
    copy = SALT.copy()
    copy.positions[1] += copy.cell[0] - 2 * copy.cell[2]
    copy.positions += 0.7
    assert frames.duplicates([SALT, copy]) == {1}


def test_many_similar_structures_are_no_duplicates():
    structures = [ETHANOL.copy() for _ in range(60)]
    for seed, atoms in enumerate(structures):
        atoms.rattle(0.02, seed=seed)
    assert frames.duplicates(structures) == set()
    assert frames.duplicates([*structures, turned(structures[7]), turned(structures[9])]) == {
        60,
        61,
    }


def test_dropped_frames_are_counted_by_reason():
    sampled = frames.SampledFrames()
    sampled.add(ETHANOL, "CCO", "md")
    sampled.add(turned(ETHANOL), "CCO", "md")
    sampled.add(Atoms("H2", [[0, 0, 0], [0, 0, 0.1]]), "[HH]", "contact")
    sampled.add(Atoms("H2", [[0, 0, 0], [0, 0, np.nan]]), "[HH]", "md")
    remaining = sampled.without_duplicates()
    assert remaining.structures == [ETHANOL]
    assert remaining.dropped == {"clash (contact)": 1, "diverged (md)": 1, "duplicate (md)": 1}


@pytest.mark.parametrize("filled", [True, False])
def test_frames_are_read_back_as_they_were(tmp_path, filled):
    sampled = frames.SampledFrames()
    if filled:
        sampled.add(ETHANOL, "CCO", "md")
        sampled.add(SALT, "NaCl#0", "displaced")
        sampled.dropped["clash (md)"] = 3
    store = ChunkStore(tmp_path, {"of": "this test"}, what="structures sampled")
    store.write("one", sampled.arrays())
    read_back = frames.SampledFrames.from_arrays(store.read("one"))
    assert read_back == sampled
