"""Text files that begin with a byte order mark are read like files without it."""

import json

import pytest

MARK = b"\xef\xbb\xbf"


def test_settings_with_a_byte_order_mark_are_read(tmp_path):
    from ase_student.distill.training.settings import read_settings

    path = tmp_path / "settings.toml"
    path.write_bytes(MARK + b"epochs = 3\n")
    settings, _ = read_settings(path)
    assert settings["epochs"] == 3


def test_smiles_with_a_byte_order_mark_are_read(tmp_path):
    pytest.importorskip("rdkit")
    from ase_student.distill.molecules.smiles import read_smiles

    path = tmp_path / "molecules.smi"
    path.write_bytes(MARK + b"CCO ethanol\nC\n")
    assert read_smiles(path) == ["CCO", "C"]


def test_json_with_a_byte_order_mark_is_read_before_it_is_refused(tmp_path):
    from timing.results import read_results

    path = tmp_path / "other.json"
    path.write_bytes(MARK + json.dumps({"students": []}).encode())
    with pytest.raises(ValueError, match="no results of pytest benchmarks: it has no 'results'"):
        read_results(path)
    path.write_bytes(MARK + b"{")
    with pytest.raises(ValueError, match="it is not JSON"):
        read_results(path)
