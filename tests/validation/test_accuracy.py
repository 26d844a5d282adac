import os
import signal
import time
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
from ase import Atoms
from numpy.testing import assert_allclose, assert_array_equal

from ase_student.data.hdf5 import write_dataset
from ase_student.data.readers.opening import open_frames
from ase_student.data.structures import Labels, Structures
from ase_student.files import file_sha256
from ase_student.jobs.store import ChunkStore
from ase_student.potentials.base import Evaluation, Refusal
from ase_student.validation.accuracy import evaluation, sums
from ase_student.validation.accuracy.bootstrap import N_DRAWS, draws, estimate
from ase_student.validation.accuracy.chunks import PassChunk
from ase_student.validation.accuracy.evaluation import Selection, compute_piece, plan, run_pass
from ase_student.validation.accuracy.metrics import Pass, metrics
from ase_student.validation.models import ModelSpec

h5py = pytest.importorskip("h5py")

SHIFT = {1: 0.3, 6: -1.1, 8: 2.0}
SOURCES = ("md", "cluster")


def generated(n=60, seed=0):
    """Structures of H, C and O far apart, with random forces and energies."""
    rng = np.random.default_rng(seed)
    for index in range(n):
        size = int(rng.integers(1, 30))
        grid = 3.0 * np.stack(np.unravel_index(np.arange(size), (4, 4, 4)), axis=1)
        pbc = index % 10 == 0
        atoms = Atoms(
            rng.choice([1, 6, 8], size), grid + rng.normal(scale=0.1, size=grid.shape), pbc=pbc
        )
        if pbc:
            atoms.set_cell([13.0, 13.0, 13.0])
        forces = (rng.normal(size=(size, 3)) * rng.uniform(0.1, 6.0)).astype(np.float32)
        yield atoms, float(rng.normal(scale=5.0)), forces, rng.normal(size=6)


class Fake:
    """A potential whose errors a test can compute."""

    name = "fake"

    def evaluate(self, structures):
        self.n_structures = getattr(self, "n_structures", 0) + len(structures)
        return [self.evaluate_one(atoms) for atoms in structures]

    def evaluate_one(self, atoms):
        if 9 in atoms.numbers:
            return Refusal("no fluorine today")
        rng = np.random.default_rng(abs(hash(atoms.positions.tobytes())) % 2**32)
        energy = sum(SHIFT[number] for number in atoms.numbers) + 0.02 * len(atoms)
        forces = rng.normal(scale=0.3, size=(len(atoms), 3))
        return Evaluation(energy, forces, rng.normal(size=6) if atoms.pbc.all() else None)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "data.h5"
    write(path, list(generated()))
    return path


def write(path, rows):
    forces = [row[2] for row in rows]
    mask = np.array([row[0].pbc.all() for row in rows])
    write_dataset(
        path,
        Structures.from_atoms([row[0] for row in rows], [SOURCES[i % 2] for i in range(len(rows))]),
        Labels(
            np.arange(len(rows)),
            np.array([row[1] for row in rows]),
            np.cumsum([0, *map(len, forces)]),
            np.concatenate(forces),
            stress=np.array([row[3] for row in rows]) * mask[:, None],
            stress_mask=mask,
        ),
    )


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(evaluation, "PIECE_ATOMS", 200)
    monkeypatch.setattr(evaluation, "as_potential", lambda calculator: calculator)
    fake = Fake()
    monkeypatch.setattr(ModelSpec, "open_quietly", lambda spec: fake)
    return fake


def passed(path, folder, **selection):
    return Pass.of(
        run_pass(
            ModelSpec("tiny"), "w", Selection(path, **selection), data_sha256="d", folder=folder
        )
    )


# --- sums --------------------------------------------------------------------------------------


def test_errors_of_atoms():
    truth = np.array([[3.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 0.0]])
    predicted = np.array([[0.0, 3.0, 0.0], [0.0, 4.04, 0.0], [0.0, 0.0, 1.0]])
    errors = sums.force_errors(sums.of_atoms(truth, predicted).sum(axis=0))
    difference = (predicted - truth).ravel()
    assert_allclose(errors["mae"], np.abs(difference).mean())
    assert_allclose(errors["rmse"], np.sqrt((difference**2).mean()))
    assert_allclose(errors["r2"], 1.0 - (difference**2).mean() / truth.var())
    assert_allclose(errors["sigma"], truth.std())
    assert_allclose(errors["share_close"], 6.0 / 9.0)
    # The atom without a force has no angle; the other two have 90° and 0°.
    assert_allclose(errors["angle"], 45.0)
    assert_allclose(errors["angle_weighted"], 90.0 * 3.0 / 7.0)


def test_groups():
    assert_array_equal(
        sums.group_of(np.array([0.0, 0.49, 0.5, 99.0]), sums.MAGNITUDES), [0, 0, 1, 6]
    )
    assert_array_equal(sums.group_of(np.array([1, 9, 10, 5000]), sums.SIZES), [0, 0, 1, 6])
    rng = np.random.default_rng(0)
    atoms, sizes = rng.normal(size=(9, 4)), np.array([2, 3, 4])
    groups, weights = rng.integers(0, 3, 9), rng.normal(size=(5, 3))
    sums_by_group = sums.by_group(atoms, sizes, groups, n_groups=3, weights=weights)
    of_atoms = np.repeat(weights, sizes, axis=1)
    for group in range(3):
        member = groups == group
        assert_allclose(sums_by_group[:, group], of_atoms[:, member] @ atoms[member])
    assert_allclose(sums.by_structure(atoms, sizes)[1], atoms[2:5].sum(axis=0))


# --- the bootstrap -----------------------------------------------------------------------------


def test_intervals_hold_the_true_mean_at_their_confidence_level():
    n_covered = 0
    for seed in range(100):
        sample = np.random.default_rng([1, seed]).exponential(size=150)
        weights = draws(seed, 0, len(sample))
        estimated = estimate((weights * sample).sum(axis=1) / weights.sum(axis=1))
        assert_allclose(estimated["value"], sample.mean())
        n_covered += estimated["interval"][0] <= 1.0 <= estimated["interval"][1]
    assert 85 <= n_covered <= 99


def test_draws_belong_to_the_piece():
    assert_array_equal(draws(3, 1, 5), draws(3, 1, 5))
    assert (draws(3, 1, 50) != draws(3, 2, 50)).any()
    assert_array_equal(draws(3, 1, 5)[0], 1.0)
    assert draws(0, 0, 5).shape == (1 + N_DRAWS, 5)


def test_no_figure_without_data():
    assert estimate(np.full(1 + N_DRAWS, np.nan)) == {"value": None, "interval": None}


def test_no_interval_from_one_structure():
    weights = draws(0, 0, 1)[:, 0]
    with np.errstate(invalid="ignore"):
        values = weights * 3.0 / weights
    assert estimate(values) == {"value": 3.0, "interval": None}


# --- the pass ----------------------------------------------------------------------------------


def test_metrics_are_those_of_all_structures(path, tmp_path, small_pieces):
    report = metrics(passed(path, tmp_path), 0)
    rows = list(generated())
    truth = np.concatenate([row[2] for row in rows]).astype(np.float64)
    evaluations = [small_pieces.evaluate_one(row[0]) for row in rows]
    predicted = np.concatenate([evaluation.forces for evaluation in evaluations])
    numbers = np.concatenate([row[0].numbers for row in rows])
    errors = predicted - truth
    assert report["n_structures"] == 60
    assert report["n_atoms"] == len(truth)
    forces = report["forces"]
    assert_allclose(forces["rmse"]["value"], np.sqrt((errors**2).mean()))
    assert_allclose(forces["r2"]["value"], 1.0 - (errors**2).mean() / truth.var())
    lower, upper = forces["rmse"]["interval"]
    assert lower < forces["rmse"]["value"] < upper
    assert list(forces["by_element"]) == ["H", "C", "O"]
    for symbol, number in (("H", 1), ("C", 6), ("O", 8)):
        rmse = np.sqrt((errors[numbers == number] ** 2).mean())
        assert_allclose(forces["by_element"][symbol]["rmse"]["value"], rmse)
    for group in ("by_magnitude", "by_size", "by_source"):
        assert sum(
            group_errors["n_components"] for group_errors in forces[group].values()
        ) == 3 * len(truth)
    assert list(forces["by_source"]) == ["cluster", "md"]
    odd = np.repeat(np.arange(60) % 2 == 1, [len(row[0]) for row in rows])
    rmse = np.sqrt((errors[odd] ** 2).mean())
    assert_allclose(forces["by_source"]["cluster"]["rmse"]["value"], rmse)
    strong = np.linalg.norm(truth, axis=1) >= 16.0
    rmse = np.sqrt((errors[strong] ** 2).mean())
    assert_allclose(forces["by_magnitude"]["16 eV/Å and more"]["rmse"]["value"], rmse)
    stresses = [
        (evaluation.stress, row[3]) for evaluation, row in zip(evaluations, rows, strict=True)
    ]
    differences = np.array([a - b for a, b in stresses if a is not None])
    assert report["stress"]["n_structures"] == 6
    assert_allclose(report["stress"]["rmse"]["value"], np.sqrt((differences**2).mean()))


def test_energies_raw_and_after_a_shift(path, tmp_path, small_pieces):
    report = metrics(passed(path, tmp_path), 0)["energy"]
    rows = list(generated())
    sizes = np.array([len(row[0]) for row in rows])
    errors = np.array([small_pieces.evaluate_one(row[0]).energy - row[1] for row in rows])
    counts = np.array([[(row[0].numbers == z).sum() for z in (1, 6, 8)] for row in rows])
    assert_allclose(report["raw"]["mae"]["value"], np.abs(errors).mean())
    assert_allclose(
        report["raw"]["rmse_per_atom"]["value"], np.sqrt(((errors / sizes) ** 2).mean())
    )
    shifts = np.linalg.lstsq(counts, errors, rcond=None)[0]
    assert_allclose([report["shifts"][s] for s in "HCO"], shifts)
    remaining = errors - counts @ shifts
    assert_allclose(report["shifted"]["rmse"]["value"], np.sqrt((remaining**2).mean()))
    assert_allclose(report["shifted"]["mae_per_atom"]["value"], np.abs(remaining / sizes).mean())
    of_source = report["by_source"]["md"]["rmse"]["value"]
    assert_allclose(of_source, np.sqrt((remaining[::2] ** 2).mean()))
    small = report["by_size"]["1 to 10 atoms"]["mae"]["value"]
    assert_allclose(small, np.abs(remaining[sizes < 10]).mean())


def test_another_zero_of_energy_is_no_error(tmp_path, small_pieces):
    rows = []
    for atoms, _, forces, stress in generated():
        energy = small_pieces.evaluate_one(atoms).energy + 100.0 * (atoms.numbers == 8).sum()
        rows.append((atoms, energy, forces, stress))
    write(tmp_path / "data.h5", rows)
    report = metrics(passed(tmp_path / "data.h5", tmp_path / "pieces"), 0)["energy"]
    assert report["raw"]["mae"]["value"] > 100.0
    assert report["shifted"]["mae"]["value"] < 1e-9
    assert_allclose(report["shifts"]["O"], -100.0)


def test_the_worst_structures_and_atoms_are_reported(path, tmp_path, small_pieces):
    report = metrics(passed(path, tmp_path), 0)
    rows = list(generated())
    errors = [small_pieces.evaluate_one(row[0]).forces - row[2] for row in rows]
    rmse = [np.sqrt((error**2).mean()) for error in errors]
    worst = report["worst_structures"]
    assert [entry["index"] for entry in worst] == np.argsort(rmse)[::-1][:20].tolist()
    norms = [np.linalg.norm(error, axis=1).max() for error in errors]
    atom = report["worst_atoms"][0]
    assert atom["index"] == np.argmax(norms)
    assert_allclose(atom["force_error"], max(norms))
    norm = np.linalg.norm(errors[atom["index"]][atom["atom"]])
    assert_allclose(atom["force_error"], norm)


def test_only_intervals_depend_on_the_pieces(path, tmp_path, small_pieces, monkeypatch):
    of_many_pieces = metrics(passed(path, tmp_path / "many"), 0)
    monkeypatch.setattr(evaluation, "PIECE_ATOMS", 10**6)
    of_one_piece = metrics(passed(path, tmp_path / "one"), 0)
    assert_allclose(
        of_one_piece["forces"]["r2"]["value"], of_many_pieces["forces"]["r2"]["value"], rtol=1e-12
    )
    assert of_one_piece["worst_atoms"] == of_many_pieces["worst_atoms"]


def test_interrupted_pass_is_resumed(path, tmp_path, small_pieces, monkeypatch):
    pieces = run_pass(
        ModelSpec("tiny"), "w", Selection(path), data_sha256="d", folder=tmp_path / "whole"
    )
    uninterrupted = metrics(Pass.of(pieces), 0)
    assert small_pieces.n_structures == 60

    def interrupted(potential, frames, selection, indices, number):
        if number == 2:
            raise KeyboardInterrupt
        return compute_piece(potential, frames, selection, indices=indices, number=number)

    monkeypatch.setattr(evaluation, "compute_piece", interrupted)
    with pytest.raises(KeyboardInterrupt):
        passed(path, tmp_path / "part")
    monkeypatch.setattr(evaluation, "compute_piece", compute_piece)
    n_before = small_pieces.n_structures
    resumed = metrics(passed(path, tmp_path / "part"), 0)
    assert small_pieces.n_structures - n_before < 60
    assert resumed == uninterrupted
    # A pass of another student, file or selection starts from the beginning.
    list(
        run_pass(
            ModelSpec("tiny"), "other", Selection(path), data_sha256="d", folder=tmp_path / "part"
        )
    )
    assert len(list((tmp_path / "part").iterdir())) == 2


def test_a_random_selection_is_sorted_and_follows_its_seed(path, tmp_path, small_pieces):
    chosen = passed(path, tmp_path, limit=10, seed=1).column("indices")
    assert len(chosen) == 10
    assert (np.diff(chosen) > 0).all()
    repeated = passed(path, tmp_path, limit=10, seed=1).column("indices")
    assert_array_equal(repeated, chosen)
    assert set(passed(path, tmp_path, limit=10, seed=2).column("indices")) != set(chosen)
    assert len(passed(path, tmp_path, limit=1000).column("indices")) == 60


def test_pieces_are_of_bounded_size(path, small_pieces):
    frames = open_frames(path)
    pieces = plan(frames, Selection(path))
    sizes = [frames.sizes[piece].sum() for piece in pieces]
    frames.close()
    assert max(sizes) <= 200
    assert min(sizes[:-1]) > 170
    assert_array_equal(np.concatenate(pieces), np.arange(60))


def test_invalid_structures_stop_the_pass_or_are_left_out(tmp_path, small_pieces):
    rows = list(generated())
    rows[5][0].numbers[0] = 67
    rows[7][0].numbers[0] = 9
    path = tmp_path / "data.h5"
    write(path, rows)
    with h5py.File(path, "a") as file:
        file["labels/energy"][3] = np.nan
    selection = {"elements": (1, 6, 8, 9)}
    message = r"^data\.h5: structure 3, label 3: labels/energy is not finite. .*--skip-invalid"
    with pytest.raises(ValueError, match=message):
        passed(path, tmp_path / "pieces", **selection)
    accuracy_pass = passed(path, tmp_path / "pieces", skip_invalid=True, **selection)
    assert [index for index, _, _ in accuracy_pass.left_out] == [3, 5, 7]
    reasons = [reason for _, reason, _ in accuracy_pass.left_out]
    assert reasons[1].startswith("data.h5: structure 5 has Ho (first at atom 0); the students know")
    assert reasons[2] == "data.h5: structure 7: no fluorine today"
    assert len(accuracy_pass.column("indices")) == 57


def test_pieces_are_read_as_they_were_written(path, tmp_path, small_pieces):
    piece = next(
        run_pass(ModelSpec("tiny"), "w", Selection(path), data_sha256="d", folder=tmp_path)
    )
    store = ChunkStore(tmp_path / "store", {"of": "this test"}, what="errors computed")
    store.write("one", piece.arrays())
    read_back = PassChunk(**store.read("one"))
    for name, value in vars(piece).items():
        assert_array_equal(getattr(read_back, name), value)
        assert getattr(read_back, name).dtype == value.dtype


def test_a_pass_without_structures_is_refused(path):
    with pytest.raises(ValueError, match="no structure is left to compare with"):
        metrics(Pass(), 0)


def test_data_with_energies_only(tmp_path, small_pieces):
    text = "1\nenergy=2.0\nH 0 0 0\n2\nenergy=1.0\nO 0 0 0\nC 3 0 0\n"
    (tmp_path / "data.xyz").write_text(text)
    report = metrics(passed(tmp_path / "data.xyz", tmp_path), 0)
    assert report["forces"] is None
    assert report["stress"] is None
    assert report["worst_structures"] == []
    assert_allclose(report["energy"]["raw"]["mae"]["value"], (1.68 + 0.06) / 2)


# --- workers -----------------------------------------------------------------------------------


@pytest.fixture
def run_tiny(path, monkeypatch):
    """Return a function that evaluates 'tiny' on the data in pieces of 200 atoms."""
    monkeypatch.setattr(evaluation, "PIECE_ATOMS", 200)
    spec = ModelSpec("tiny", backend="onnx", threads=1)
    weights = spec.open_quietly().info.weights_sha256
    data = file_sha256(path)
    return partial(run_pass, spec, weights, Selection(path), data_sha256=data)


@contextmanager
def cluster(**options):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        threads_per_worker=1, dashboard_address=None, **options
    ) as cluster:
        yield cluster.scheduler_address


def test_pass_on_a_dask_cluster(run_tiny, tmp_path):
    local = metrics(Pass.of(run_tiny(folder=tmp_path / "here")), 0)
    with cluster(n_workers=2, processes=False) as address:
        distributed = metrics(Pass.of(run_tiny(folder=tmp_path / "there", scheduler=address)), 0)
    assert distributed == local
    # When all pieces exist, no scheduler is contacted.
    assert (
        metrics(Pass.of(run_tiny(folder=tmp_path / "there", scheduler="tcp://127.0.0.1:9")), 0)
        == local
    )


@pytest.mark.parametrize("differs", ["weights", "data"])
def test_workers_with_other_files_are_refused(run_tiny, tmp_path, differs):
    (spec, weights, selection), data = run_tiny.args, run_tiny.keywords["data_sha256"]
    expected = {
        "weights": rf"student 'tiny' on .* has SHA-256 {weights[:12]}… instead of 0{{12}}…; ",
        "data": rf"data.h5' on .* has SHA-256 {data[:12]}… instead of 0{{12}}…; workers need the ",
    }[differs]
    weights, data = ("0" * 64, data) if differs == "weights" else (weights, "0" * 64)
    with (
        cluster(n_workers=1, processes=False) as address,
        pytest.raises(ValueError, match=expected),
    ):
        list(
            run_pass(
                spec,
                weights,
                selection,
                data_sha256=data,
                folder=tmp_path / "there",
                scheduler=address,
            )
        )


def test_finished_pieces_are_kept_when_workers_die(run_tiny, tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    import dask

    uninterrupted = metrics(Pass.of(run_tiny(folder=tmp_path / "whole")), 0)

    # Nested, so that it is sent to the workers by value; they import the original function.
    def deadly(work, indices, number):
        from ase_student.validation.accuracy import evaluation

        if number == 2:
            time.sleep(2.0)
            os.kill(os.getpid(), signal.SIGKILL)
        return evaluation._on_worker(work, indices, number)

    monkeypatch.setattr(evaluation, "_on_worker", deadly)
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        cluster(n_workers=1, processes=True) as address,
        pytest.raises(ChildProcessError, match="died again and again .* finished work is kept"),
    ):
        list(run_tiny(folder=tmp_path / "part", scheduler=address))
    (folder,) = (tmp_path / "part").iterdir()
    finished = {file.name: file.stat().st_mtime_ns for file in folder.glob("*.npz")}
    assert "000000.npz" in finished
    assert "000002.npz" not in finished
    assert metrics(Pass.of(run_tiny(folder=tmp_path / "part")), 0) == uninterrupted
    assert finished.items() <= {f.name: f.stat().st_mtime_ns for f in folder.iterdir()}.items()
