"""Clusters: each kind has the geometry of its name and no clashes."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rdkit")

from ase_student.distill.molecules import species
from ase_student.distill.sampling import clusters
from ase_student.dynamics import bonds

N_BUILT = 15


def embedded(smiles):
    return species.embed(species.species_of(smiles, 70), 1, 0)


def built(monkeypatch, kind, smiles_of_molecule, smiles_of_partners, max_atoms=70):
    monkeypatch.setattr(clusters, "KINDS", {kind: 1.0})
    rng = np.random.default_rng(0)
    partners = [species.species_of(smiles, 70) for smiles in smiles_of_partners]
    molecule = embedded(smiles_of_molecule)
    return [clusters.build(molecule, partners, max_atoms, rng=rng) for _ in range(N_BUILT)]


def test_hydrogen_bonds_are_short_and_nearly_straight(monkeypatch):
    for pair in built(monkeypatch, "bonded", "CNC(C)=O", ["CO", "O", "c1cc[nH]c1"]):
        positions = pair.conformers[0]
        is_first = pair.fragments == 0
        angles = []
        for hydrogen in np.flatnonzero(pair.numbers == 1):
            other_heavy = np.flatnonzero((is_first != is_first[hydrogen]) & (pair.numbers > 6))
            own_heavy = np.flatnonzero((is_first == is_first[hydrogen]) & (pair.numbers > 6))
            donor = own_heavy[
                np.linalg.norm(positions[own_heavy] - positions[hydrogen], axis=1).argmin()
            ]
            if np.linalg.norm(positions[donor] - positions[hydrogen]) > 1.1:
                continue
            for acceptor in other_heavy:
                arm, bond = positions[[donor, acceptor]] - positions[hydrogen]
                if 1.7 <= np.linalg.norm(bond) <= 2.4:
                    cosine = arm @ bond / np.linalg.norm(arm) / np.linalg.norm(bond)
                    angles.append(np.degrees(np.arccos(cosine)))
        assert max(angles, default=0) > 140


@pytest.mark.parametrize("smiles", [("OC=O", "OC=O"), ("NC=O", "O=c1cccc[nH]1")])
def test_two_hydrogen_bonds_join_an_acid_and_an_amide(smiles):
    rng = np.random.default_rng(3)
    pair = [embedded(text) for text in smiles]
    attempts = [clusters.doubly_hydrogen_bonded(pair, rng) for _ in range(N_BUILT)]
    built_clusters = [cluster for cluster in attempts if cluster is not None]
    assert built_clusters
    for cluster in built_clusters:
        positions = cluster.conformers[0]
        is_first = cluster.fragments == 0
        n_short = 0
        for hydrogen in np.flatnonzero(cluster.numbers == 1):
            other_polar = np.flatnonzero(
                (is_first != is_first[hydrogen]) & np.isin(cluster.numbers, (7, 8))
            )
            distances = np.linalg.norm(positions[other_polar] - positions[hydrogen], axis=1)
            n_short += int(distances.min() < 2.7)
        assert n_short >= 2


def test_two_hydrogen_bonds_need_a_donor_beside_an_acceptor():
    rng = np.random.default_rng(0)
    pair = [embedded("OC=O"), embedded("COC")]
    assert clusters.doubly_hydrogen_bonded(pair, rng) is None


def test_stacked_rings_are_parallel_and_at_the_right_distance(monkeypatch):
    for pair in built(monkeypatch, "stacked", "Oc1ccccc1", ["c1ccncc1"]):
        is_first = pair.fragments == 0
        heavy = pair.numbers > 1
        rings = [pair.conformers[0][of_ring & heavy] for of_ring in (is_first, ~is_first)]
        normals = [np.linalg.svd(ring - ring.mean(0))[2][2] for ring in rings]
        assert abs(normals[0] @ normals[1]) > 0.99
        height = abs((rings[1].mean(0) - rings[0].mean(0)) @ normals[0])
        assert 3.1 < height < 4.3


def test_numbers_of_waters_are_small_and_large(monkeypatch):
    pools = built(monkeypatch, "waters", "CO", [])
    sizes = {len(pool.keys) for pool in pools}
    assert min(sizes) < 9 <= max(sizes) <= 21
    assert {pool.name.replace("O", "").replace(".", "") for pool in pools} == {""}


@pytest.mark.parametrize("kind", list(clusters.KINDS))
def test_no_cluster_clashes_or_is_too_large(monkeypatch, kind):
    for cluster in built(monkeypatch, kind, "Cc1ccccc1O", ["CO", "C", "Nc1ncnc2[nH]cnc12"], 40):
        assert len(cluster.numbers) <= 40
        assert not bonds.clashes(cluster.numbers, cluster.conformers[0])
        assert len(cluster.keys) == cluster.fragments.max() + 1 >= 2


@pytest.mark.parametrize("kind", ["bonded", "stacked"])
def test_molecules_that_cannot_bond_or_stack_are_put_side_by_side(monkeypatch, kind):
    for pair in built(monkeypatch, kind, "CC", ["C"]):
        assert pair.name == "C.CC"


def test_a_molecule_without_room_for_a_partner_is_refused():
    with pytest.raises(species.UnsuitableError, match=r"^no room for a partner$"):
        clusters.build(embedded("O"), [], 5, rng=np.random.default_rng(0))
