"""Dynamics that starts from existing frames, with another driver."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rdkit")
pytest.importorskip("h5py")

from ase_student.data.hdf5 import Dataset
from ase_student.data.splits import split_of
from ase_student.data.structures import Structures
from ase_student.distill.__main__ import main


def sampled(step: str, path: Path, *options: str) -> Structures:
    assert main([step, "-o", str(path), *options]) == 0
    with Dataset(path) as dataset:
        return dataset.read_structures()


@pytest.fixture(scope="module")
def first_frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("begun")
    (folder / "some.smi").write_text("\n".join(["CCO", "CC(N)=O", "CS", "CCCl", "c1ccoc1", "CF"]))
    options = ["--smiles", str(folder / "some.smi"), "--md=1", "--cluster=1", "--contact=0"]
    sampled("structures", folder / "begun.h5", *options, "--displaced=0", "--steps=20")
    return folder / "begun.h5"


def test_every_frame_moves_a_short_way(first_frames: Path, tmp_path: Path) -> None:
    with Dataset(first_frames) as dataset:
        start_structures = dataset.read_structures()
    path = tmp_path / "moved.h5"
    moved_structures = sampled(
        "continue", path, str(first_frames), "--dynamics=ultra-tiny", "--steps=2"
    )
    assert sorted(moved_structures.molecules) == sorted(start_structures.molecules)
    assert sorted(moved_structures.sources) == sorted(start_structures.sources)
    assert {"md", "cluster"} == set(moved_structures.sources)
    for i in range(len(moved_structures)):
        moved = moved_structures.atoms(i)
        starts = [
            start_structures.atoms(k)
            for k in range(len(start_structures))
            if (start_structures.molecules[k], start_structures.sources[k])
            == (moved_structures.molecules[i], moved_structures.sources[i])
        ]
        shifts = [np.abs(moved.positions - start.positions).max() for start in starts]
        # 4 fs at some hundred kelvin.
        assert 1e-3 < min(shifts) < 0.4
    with Dataset(path) as dataset:
        assert dataset.metadata["structure_sources"] == ["begun.h5"]


def test_frames_are_selected_by_number_and_part(first_frames: Path, tmp_path: Path) -> None:
    options = [str(first_frames), "--dynamics=ultra-tiny", "--steps=1"]
    assert len(sampled("continue", tmp_path / "three.h5", *options, "--frames=3")) == 3
    train_structures = sampled("continue", tmp_path / "train.h5", *options, "--part=train")
    assert {split_of(names) for names in train_structures.molecules} == {"train"}


def test_invalid_options_are_refused(
    first_frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["continue", str(first_frames), "-o", str(tmp_path / "out.h5")]
    assert main([*words, "--dynamics=mmff94"]) == 2
    assert "mmff94 cannot move" in capsys.readouterr().err
    assert main([*words, "--dynamics=tiny", "--frames=0"]) == 2
    assert "--frames is 0" in capsys.readouterr().err
