"""Text files that an editor began with a mark of their encoding are read as if they had none."""

import json

import pytest

MARK = b"\xef\xbb\xbf"


def test_settings_of_a_training(tmp_path):
    from ase_student.distill.training.settings import read_settings

    path = tmp_path / "settings.toml"
    path.write_bytes(MARK + b"epochs = 3\n")
    given, _ = read_settings(path)
    assert given["epochs"] == 3


def test_smiles(tmp_path):
    pytest.importorskip("rdkit")
    from ase_student.distill.molecules.smiles import read_smiles

    path = tmp_path / "molecules.smi"
    path.write_bytes(MARK + b"CCO ethanol\nC\n")
    assert read_smiles(path) == ["CCO", "C"]


def test_json_of_another_kind_is_named(tmp_path):
    from timing.results import read_results

    path = tmp_path / "other.json"
    path.write_bytes(MARK + json.dumps({"students": []}).encode())
    with pytest.raises(ValueError, match="no results of pytest benchmarks: it has no 'results'"):
        read_results(path)
    path.write_bytes(MARK + b"{")
    with pytest.raises(ValueError, match="it is not JSON"):
        read_results(path)
