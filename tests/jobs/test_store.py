"""Finished chunks of work on disk."""

import numpy as np
import pytest

from ase_student.jobs.store import ChunkStore, numbered

JOB = {"seed": 0, "range": (1, 2)}
CHUNK = {"positions": np.arange(6.0).reshape(2, 3), "names": np.array(["a", "b"])}


def test_chunks_are_read_back_as_they_were(tmp_path):
    store = ChunkStore(tmp_path / "job", JOB, what="numbers made")
    keys = [numbered(i) for i in range(3)]
    assert store.missing(keys) == keys
    assert not store.folder.exists()
    store.write(keys[1], CHUNK)
    reopened = ChunkStore(tmp_path / "job", JOB, what="numbers made")
    assert reopened.missing(keys) == ["000000", "000002"]
    chunk = reopened.read(keys[1])
    assert chunk.keys() == CHUNK.keys()
    for name, values in CHUNK.items():
        np.testing.assert_array_equal(chunk[name], values)


def test_a_folder_belongs_to_one_job(tmp_path):
    ChunkStore(tmp_path, JOB, what="numbers made").write("one", CHUNK)
    with pytest.raises(ValueError, match="holds numbers made with other range, seed: delete it"):
        ChunkStore(tmp_path, {"seed": 1, "range": (1, 3)}, what="numbers made")


def test_a_damaged_chunk_is_named(tmp_path):
    store = ChunkStore(tmp_path, JOB, what="numbers made")
    store.write("one", CHUNK)
    store.path("one").write_bytes(store.path("one").read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"one\.npz' is damaged: delete it and run the same"):
        store.read("one")
