"""Diatomics: all pairs of elements at all distances."""

import numpy as np
import pytest
from ase.data import covalent_radii

from ase_student.data.hdf5 import Dataset
from ase_student.data.sources import DIATOMIC
from ase_student.distill.__main__ import main
from ase_student.distill.sampling.diatomics import LONGEST, diatomics

SYMBOLS = ("H", "C", "Cl")
N_DISTANCES = 12


def test_every_pair_has_a_distance_in_every_interval():
    frames = diatomics(SYMBOLS, N_DISTANCES, seed=3)
    assert set(frames.sources) == {DIATOMIC}
    distances_by_pair = {}
    for atoms in frames.structures:
        distances_by_pair.setdefault(tuple(sorted(atoms.symbols)), []).append(
            atoms.get_distance(0, 1)
        )
    assert len(distances_by_pair) == 6
    for pair, distances in distances_by_pair.items():
        shortest = 0.6 * sum(covalent_radii[{"H": 1, "C": 6, "Cl": 17}[symbol]] for symbol in pair)
        edges = np.linspace(shortest, LONGEST, N_DISTANCES + 1)
        assert np.histogram(distances, edges)[0].tolist() == [1] * N_DISTANCES


def test_distances_depend_on_the_seed_and_not_on_other_elements():
    def carbon(frames):
        return [
            atoms.get_distance(0, 1) for atoms in frames.structures if set(atoms.symbols) == {"C"}
        ]

    assert carbon(diatomics(SYMBOLS, 5, 1)) == carbon(diatomics(("C",), 5, 1))
    assert carbon(diatomics(("C",), 5, 1)) != carbon(diatomics(("C",), 5, 2))


def test_an_unknown_symbol_is_refused():
    with pytest.raises(ValueError, match="'Xx' is the symbol of no element"):
        diatomics(["H", "Xx"], 3)


def test_the_command_writes_every_pair_once(tmp_path, capsys):
    path = tmp_path / "out.h5"
    words = ["diatomics", "-o", str(path), "--distances=3", "--elements", "Cl", "H", "H"]
    assert main([*words, "--seed=2"]) == 0
    assert "9 structures of 3 pairs of elements (9 diatomic)" in capsys.readouterr().out
    with Dataset(path) as dataset:
        written = dataset.read_structures()
        assert dataset.metadata["structure_sources"] == ["3 distances of diatomics"]
    expected = diatomics(("H", "Cl"), 3, 2).structures
    distances = sorted(atoms.get_distance(0, 1) for atoms in expected)
    assert sorted(written.atoms(i).get_distance(0, 1) for i in range(9)) == distances
    assert main([*words, "--distances=0"]) == 2
    assert "--distances is 0; it must be at least 1." in capsys.readouterr().err
