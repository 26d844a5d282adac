"""Labelling by several processes or a Dask cluster: the same labels, and clear errors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future

import numpy as np
import pytest
from ase.build import molecule

pytest.importorskip("h5py")

from ase_student.data.hdf5 import Dataset, write_dataset
from ase_student.data.structures import Structures
from ase_student.distill.__main__ import main
from ase_student.distill.labelling import chunks, label, parallel
from ase_student.jobs import executors
from ase_student.potentials.registry import load_teacher

#: A module that workers import: teachers that record their process and can be made to fail.
TEACHERS = '''
import os, signal, time
from pathlib import Path
from ase_student.potentials.calculator import Evaluation, Refusal

class Sums:
    """The energy is the sum of positions; every fifth structure is refused."""

    elements = frozenset((1, 8))

    def __init__(self):
        self.settings = {"version": os.environ.get("SUMS_VERSION", "1"), "threads": 1}

    def evaluate(self, structures):
        Path(os.environ["SUMS_SEEN"], str(os.getpid())).write_text(os.environ["OMP_NUM_THREADS"])
        return [self.evaluate_one(atoms) for atoms in structures]

    def evaluate_one(self, atoms):
        number = round(atoms.positions[0, 0])
        if number % 5 == 3:
            return Refusal(f"structure {number} is odd")
        return Evaluation(atoms.positions.sum(), atoms.positions, None, atoms.positions.sum(axis=1))

class Deadly(Sums):
    def evaluate_one(self, atoms):
        if "SPARED" not in os.environ and round(atoms.positions[0, 0]) == 9:
            time.sleep(float(os.environ.get("DELAY", "0")))
            os.kill(os.getpid(), signal.SIGKILL)
        return super().evaluate_one(atoms)

class Slow(Sums):
    def evaluate_one(self, atoms):
        time.sleep(0.05 if atoms.positions[0, 0] < 9 else 60)
        return super().evaluate_one(atoms)
'''


@pytest.fixture
def path(tmp_path, monkeypatch):
    """Return a file of 13 waters, in pieces of two, for the teachers of the module `worked`."""
    (tmp_path / "worked.py").write_text(TEACHERS)
    (tmp_path / "seen").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "worked", raising=False)
    monkeypatch.setenv("SUMS_SEEN", str(tmp_path / "seen"))
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setattr(chunks, "CHUNK_SIZE", 2)
    parallel._load_once.cache_clear()
    structures = [molecule("H2O") for _ in range(13)]
    for i, atoms in enumerate(structures):
        atoms.positions[0, 0] = i
    write_dataset(tmp_path / "waters.h5", Structures.from_atoms(structures))
    return tmp_path / "waters.h5"


@pytest.fixture
def expected(path):
    """Return the labels and failures that this process computes."""
    output = path.with_name("alone.h5")
    label.label_structures(path, load_teacher("worked:Sums"), output)
    for file in path.with_name("seen").iterdir():
        file.unlink()
    return content(output)


def content(path):
    with Dataset(path) as dataset:
        labels = dataset.read_labels()
        columns = (labels.energies, labels.forces, labels.atomic_energies)
        return (
            labels.structure_indices.tolist(),
            [column.tobytes() for column in columns],
            dataset.failures,
        )


def test_processes_give_the_same_labels_with_one_thread_each(path, expected):
    output = path.with_name("out.h5")
    report = label.label_structures(path, load_teacher("worked:Sums"), output, processes=2)
    assert content(output) == expected
    assert report["n_labels"] == 11
    assert report["failure_reasons"] == {"structure 3 to 8 is odd": 2}
    process_files = list(path.with_name("seen").iterdir())
    assert 1 <= len(process_files) <= 2
    assert str(os.getpid()) not in {file.name for file in process_files}
    assert {file.read_text() for file in process_files} == {"1"}
    assert os.environ["OMP_NUM_THREADS"] == "7"


def test_a_dead_process_is_reported_and_finished_pieces_are_kept(path, expected, monkeypatch):
    output = path.with_name("out.h5")
    teacher = load_teacher("worked:Deadly")
    monkeypatch.setenv("DELAY", "0.5")
    with pytest.raises(ChildProcessError, match=r"was killed, .*; finished work is kept"):
        label.label_structures(path, teacher, output, processes=2)
    assert not output.exists()
    finished = {file.name for file in path.with_name("out.h5.partial").glob("*.npz")}
    assert "000000000-000000002.npz" in finished
    assert "000000008-000000010.npz" not in finished
    monkeypatch.setenv("SPARED", "1")
    label.label_structures(path, teacher, output)
    assert content(output) == expected


def test_ctrl_c_ends_all_processes_at_once(path, tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    script = tmp_path / "small_pieces.py"
    script.write_text(
        "import signal, sys\n"
        "from ase_student.distill.labelling import chunks\n"
        "from ase_student.distill.__main__ import main\n"
        "chunks.CHUNK_SIZE = 2\n"
        "if __name__ == '__main__':\n"
        # A background job of a shell ignores interrupts.
        "    signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "    sys.exit(main(sys.argv[1:]))\n"
    )
    command = ["label", "waters.h5", "-o", "out.h5", "--teacher", "worked:Slow", "--processes", "2"]
    process = subprocess.Popen(
        [sys.executable, str(script), *command], cwd=tmp_path, env=environment,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    partial = tmp_path / "out.h5.partial"
    until = time.monotonic() + 60
    while time.monotonic() < until and len(list(partial.glob("*.npz"))) < 4:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130
    assert error == "interrupted: run the same command again.\n"
    assert len(list(partial.glob("*.npz"))) >= 4
    started = [int(file.name) for file in (tmp_path / "seen").iterdir()]
    assert len(started) == 2
    for pid in started:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.fixture
def cluster(path):
    """Return a Dask cluster of two threads in this process."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None
    ) as cluster:
        yield cluster


def test_a_dask_cluster_gives_the_same_labels(path, expected, cluster, capsys):
    output = path.with_name("out.h5")
    command = ["label", str(path), "-o", str(output), "--teacher", "worked:Sums"]
    assert main([*command, "--scheduler", cluster.scheduler_address]) == 0
    assert content(output) == expected
    out = capsys.readouterr().out
    assert out.endswith(
        " 11 structures labeled by worked:Sums, 2 failed: 2 × structure 3 to 8 is odd.\n"
    )


def test_workers_with_other_versions_are_refused(path, cluster, monkeypatch, capsys):
    teacher = load_teacher("worked:Sums")
    monkeypatch.setenv("SUMS_VERSION", "2")
    with pytest.raises(ValueError, match=r"has version '2' instead of '1'; install the same vers"):
        label.label_structures(
            path, teacher, path.with_name("out.h5"), scheduler=cluster.scheduler_address
        )
    assert not path.with_name("out.h5").exists()


def test_a_missing_scheduler_is_reported(path, monkeypatch, capsys):
    dask = pytest.importorskip("dask")
    command = ["label", str(path), "-o", str(path.with_name("out.h5")), "--teacher", "worked:Sums"]
    with dask.config.set({"distributed.comm.timeouts.connect": "0.3s"}):
        assert main([*command, "--scheduler", "tcp://127.0.0.1:9"]) == 2
    assert capsys.readouterr().err == "error: no Dask scheduler answers at 'tcp://127.0.0.1:9'.\n"


def test_missing_dask_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(ImportError, match=r'pip install "ase-student\[dask\]"'),
        executors.workers_for(1, "tcp://127.0.0.1:9"),
    ):
        pass


class Late:
    """An executor that finishes two calls together, the second with an error."""

    def __init__(self):
        self.futures = []

    def submit(self, function, *arguments):
        future = Future()
        self.futures.append(future)
        if len(self.futures) == 2:
            self.futures[0].set_exception(RuntimeError("first"))
            self.futures[1].set_result(["second"])
        return future


def test_no_finished_piece_is_lost_to_an_error_of_another(path):
    workers = executors.Workers(Late(), lambda: 2, are_elsewhere=False)
    structures = Structures.from_atoms([molecule("H2O")])
    pieces = [((0, 1), structures), ((1, 2), structures), ((2, 3), structures)]
    labeled_pieces = parallel.labeled(workers, load_teacher("worked:Sums"), pieces, max_force=60.0)
    assert next(labeled_pieces) == ((1, 2), ["second"])
    with pytest.raises(RuntimeError, match="first"):
        next(labeled_pieces)
    assert len(workers.executor.futures) == 2


def test_no_worker_is_started_when_all_pieces_exist(path, monkeypatch):
    output = path.with_name("out.h5")
    teacher = load_teacher("worked:Sums")
    original = label.write_dataset

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(label, "write_dataset", interrupted)
    with pytest.raises(KeyboardInterrupt):
        label.label_structures(path, teacher, output)
    monkeypatch.setattr(label, "write_dataset", original)
    report = label.label_structures(path, teacher, output, scheduler="tcp://127.0.0.1:9")
    assert report["n_labels"] == 11
    assert np.array_equal(content(output)[0], [0, 1, 2, 4, 5, 6, 7, 9, 10, 11, 12])
