"""Growing training data by dynamics of students, never with molecules of their test split."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

pytest.importorskip("h5py")

from ase_student import StudentCalculator, load_student
from ase_student.checkpoint import save_student
from ase_student.data.hdf5 import Dataset, write_dataset
from ase_student.data.splits import split_of
from ase_student.data.structures import Structures
from ase_student.distill.__main__ import main
from ase_student.distill.active_learning import exploration, initial
from ase_student.distill.active_learning.exploration import (
    DOUBTFUL,
    RANDOM,
    Exploration,
    ExplorationSettings,
)
from ase_student.distill.active_learning.grow import check_teacher, grow
from ase_student.distill.active_learning.initial import choose_starts
from ase_student.distill.active_learning.trajectories import (
    CHECK_INTERVAL,
    LAST_FRAMES,
    run_trajectories,
)
from ase_student.distill.active_learning.uncertainty import (
    MAX_PER_TRAJECTORY,
    Uncertainties,
    estimate_uncertainties,
    rank_correlation,
    select,
)
from ase_student.distill.commands.grow import summary
from ase_student.dynamics.bonds import is_physical, newly_bound
from ase_student.extrapolation.limits import Limits
from ase_student.extrapolation.ranges import TrainingRanges
from ase_student.potentials.base import Evaluation, Refusal, StudentPotential, forces_of
from ase_student.student import Student

SETTINGS = ExplorationSettings(trajectories=5, steps=40, every=10, frames=8)
KINDS = {"CO": "CH3OH", "O": "H2O", "CC": "C2H6", "N.O": "NH3", "C": "CH4"}
TRAIN = [f"{name}{i}" for name in ("A", "B") for i in range(9) if split_of(f"{name}{i}") == "train"]
TEST = [f"T{i}" for i in range(60) if split_of(f"T{i}") == "test"]


class StudentTeacher:
    """A student as the teacher, so that the difference of two students is the error of one."""

    name = "another"

    def __init__(self, model: str | Path, interrupts: bool = False) -> None:
        self.settings = {"model": str(model)}
        self.interrupts = interrupts
        self._student = StudentPotential(StudentCalculator(model, guard="off", backend="torch"))

    def evaluate(self, structures: Any) -> list[Evaluation]:
        if self.interrupts:
            raise KeyboardInterrupt
        return [Evaluation(0.0, forces) for forces in forces_of(self._student, structures)]


@pytest.fixture(scope="module")
def noisy_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the run of a student that is 'tiny' with some noise in its weights."""
    pytest.importorskip("torch")
    student = load_student("tiny")
    generator = np.random.default_rng(0)
    tensors = {
        name: (tensor * (1 + 0.02 * generator.normal(size=tensor.shape))).astype(tensor.dtype)
        for name, tensor in student.tensors.items()
    }
    folder = tmp_path_factory.mktemp("runs") / "other"
    save_student(dataclasses.replace(student, tensors=tensors), folder / "weights.safetensors")
    return folder


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of molecules, some of which belong to the test split."""
    path = tmp_path_factory.mktemp("data") / "start.h5"
    kinds = [molecule(name) for name in KINDS.values()] * 2
    names = TRAIN[:3] + TEST[:2] + [f"{TRAIN[3]}.{TRAIN[4]}", f"{TRAIN[5]}.{TEST[2]}", *TRAIN[6:9]]
    write_dataset(path, Structures.from_atoms(kinds, ["md"] * 10, names))
    return path


def growth_of(path: Path, folder: Path, *other_models: Path, **changes: Any) -> Exploration:
    models = ["tiny", *other_models]
    settings = dataclasses.replace(SETTINGS, **changes)
    return Exploration(
        models,
        [path],
        settings,
        folder=folder,
        labels={"teacher": "another"},
        device="cpu",
        threads=1,
    )


def test_frames_where_two_students_differ_have_larger_errors(
    path: Path, noisy_run: Path, tmp_path: Path
) -> None:
    settings = {"trajectories": 7, "steps": 200, "frames": 24}
    job = growth_of(path, tmp_path / "parts", noisy_run, **settings)
    output = tmp_path / "grown.h5"
    metadata_written = grow(job, StudentTeacher(noisy_run / "weights.safetensors"), output)
    report = metadata_written["grow"]
    assert report["correlation"] > 0.99
    assert report["ratio"] > 1.1
    assert report["doubtful"]["structures"] == report["random"]["structures"] == 12
    assert metadata_written["n_labels"] == 24
    assert report["frames"] == 7 * 20
    assert "times that of random ones\n  rank correlation of uncertainty" in summary(report)
    with Dataset(output) as dataset:
        structures, metadata = dataset.read_structures(), dataset.metadata
    assert structures.sources == (DOUBTFUL,) * 12 + (RANDOM,) * 12
    assert metadata["grow"]["ratio"] == report["ratio"]
    assert metadata["teacher"] == "another"
    assert metadata["structures_metadata"]["sampling"]["temperatures"] == [300, 1000]
    assert metadata["statistics"][DOUBTFUL]["n"] == 12
    assert not (tmp_path / "parts").exists()


def test_a_teacher_with_other_settings_is_refused_before_any_dynamics(
    path: Path, tmp_path: Path
) -> None:
    student = load_student("tiny")
    data = [{"sha256": "0"}, {"sha256": "1", "teacher_settings": {"model": "old", "torch": "1"}}]
    metadata = {**student.metadata, "teacher": "another", "data": data}
    file = tmp_path / "mine" / "weights.safetensors"
    save_student(dataclasses.replace(student, metadata=metadata), file)
    job = Exploration(
        [file],
        [path],
        SETTINGS,
        folder=tmp_path / "parts",
        labels={"teacher": "another"},
        device="cpu",
    )
    with pytest.raises(ValueError, match="trained on: model is 'tiny' here and 'old' there"):
        grow(job, StudentTeacher("tiny"), tmp_path / "grown.h5")
    assert not (tmp_path / "grown.h5").exists()
    data[1]["teacher_settings"] = {"model": "tiny", "torch": "1"}
    check_teacher([metadata], StudentTeacher("tiny"))


def test_no_molecule_of_the_test_split_is_grown(path: Path, tmp_path: Path) -> None:
    report = grow(growth_of(path, tmp_path / "parts"), StudentTeacher("tiny"), tmp_path / "g.h5")
    assert report["n_labels"] == 8
    with Dataset(tmp_path / "g.h5") as dataset:
        molecules = dataset.read_structures().molecules
    assert molecules
    assert {split_of(name) for name in molecules} == {"train"}


def test_dynamics_starts_only_from_molecules_that_all_students_were_trained_on(path: Path) -> None:
    student = load_student("tiny")

    def split_by(seed: int) -> Student:
        training = {**student.metadata["training"], "split_seed": seed, "seed": 77}
        return dataclasses.replace(student, metadata={**student.metadata, "training": training})

    for seeds in ([0], [1], [0, 1, 2]):
        starts = choose_starts([path, path], [split_by(seed) for seed in seeds], 30, seed=0)
        assert len(starts.structures) == 30
        assert set(starts.molecules) <= {name for name in starts.molecules if in_train(name, seeds)}
    training = {**student.metadata["training"], "split": "structure"}
    by_structure = dataclasses.replace(student, metadata={"training": training})
    starts = choose_starts([path], [by_structure], 30, seed=0)
    assert {split_of(name) for name in starts.molecules} == {"train", "test"}


def test_no_dynamics_starts_from_structures_unlike_use(tmp_path: Path) -> None:
    # Otherwise diatomics would be labelled as usual frames, and the guard would not warn of them.
    kinds = [molecule("H2"), molecule("CH4"), molecule("H2O"), molecule("N2")]
    sources = ["diatomic", "md", "displaced", "foreign"]
    write_dataset(tmp_path / "s.h5", Structures.from_atoms(kinds, sources, TRAIN[:4]))
    starts = choose_starts([tmp_path / "s.h5"], [load_student("tiny")], 8, seed=0)
    assert set(starts.molecules) == set(TRAIN[1:3])
    write_dataset(tmp_path / "u.h5", Structures.from_atoms(kinds[:1], sources[:1], TRAIN[:1]))
    with pytest.raises(ValueError, match="no structure that the student was trained on"):
        choose_starts([tmp_path / "u.h5"], [load_student("tiny")], 8, seed=0)


def in_train(name: str, seeds: list[int]) -> bool:
    return all(split_of(name, seed) == "train" for seed in seeds)


def test_clusters_and_molecules_run_in_separate_pieces(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(initial, "PIECE", 2)
    starts = choose_starts([path], [load_student("tiny")], 7, seed=0)
    pieces = list(starts.pieces())
    assert sorted(index for members, _ in pieces for index in members) == list(range(7))
    for members, confined in pieces:
        assert len(members) <= 2
        assert {"." in starts.molecules[index] for index in members} == {confined}


def test_an_interrupted_job_gives_the_same_result(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(initial, "PIECE", 2)
    grow(growth_of(path, tmp_path / "whole.partial"), StudentTeacher("tiny"), tmp_path / "whole.h5")
    n_runs = 0

    def run_twice(*arguments: Any, **options: Any) -> Any:
        nonlocal n_runs
        if n_runs == 2:
            raise KeyboardInterrupt
        n_runs += 1
        return run_trajectories(*arguments, **options)

    output = tmp_path / "parts.h5"
    with monkeypatch.context() as patch:
        patch.setattr(exploration, "run_trajectories", run_twice)
        with pytest.raises(KeyboardInterrupt):
            grow(growth_of(path, tmp_path / "parts.partial"), StudentTeacher("tiny"), output)
        n_runs = 1
        teacher = StudentTeacher("tiny", interrupts=True)
        with pytest.raises(KeyboardInterrupt):
            grow(growth_of(path, tmp_path / "parts.partial"), teacher, output)
        # All dynamics has been run.
        n_runs = 2
        grow(growth_of(path, tmp_path / "parts.partial"), StudentTeacher("tiny"), output)
    with Dataset(tmp_path / "whole.h5") as uninterrupted, Dataset(output) as resumed:
        np.testing.assert_array_equal(
            uninterrupted.read_structures().positions, resumed.read_structures().positions
        )
        assert uninterrupted.metadata["grow"] == resumed.metadata["grow"]


def test_dynamics_of_other_settings_is_not_mixed_in(path: Path, tmp_path: Path) -> None:
    growth_of(path, tmp_path / "parts").run_dynamics()
    growth_of(path, tmp_path / "parts")
    with pytest.raises(ValueError, match="parts' holds dynamics run with other seed, steps"):
        growth_of(path, tmp_path / "parts", steps=50, seed=1)


class Springs:
    """Springs that hold CH together and drive NH and OH apart; FH is refused."""

    name = "springs"

    def evaluate(self, structures: Any) -> list[Evaluation | Refusal]:
        results: list[Evaluation | Refusal] = []
        for atoms in structures:
            if atoms.symbols[0] == "F":
                results.append(Refusal("has F"))
                continue
            stiffness = {"C": 20.0, "N": -2.0, "O": -3.0}[atoms.symbols[0]]
            vector = atoms.positions[1] - atoms.positions[0]
            length = np.linalg.norm(vector)
            pull = stiffness * (length - 0.96) * vector / length
            results.append(Evaluation(0.0, np.stack([pull, -pull])))
        return results


def test_an_unstable_trajectory_ends_with_its_last_sane_frames() -> None:
    pair = [(0.0, 0, 0), (0.96, 0, 0)]
    kinds = [Atoms(symbols, pair) for symbols in ("CH", "NH", "OH", "FH")]
    trajectories = run_trajectories(
        kinds, Springs(), [300.0] * 4, n_steps=400, every=200, rng=np.random.default_rng(0)
    )
    assert sorted(trajectories.unstable.tolist()) == [1, 2, 3]
    # Of a molecule without forces from the first step on, no frame is left.
    counts = np.bincount(trajectories.owners, minlength=4).tolist()
    assert (counts[0], counts[3]) == (2, 0)
    assert 1 <= min(counts[1:3]) <= max(counts[1:3]) <= LAST_FRAMES
    for frame, owner in zip(trajectories.frames(kinds), trajectories.owners, strict=True):
        assert is_physical(kinds[owner], frame)
        assert str(frame.symbols) == str(kinds[owner].symbols)


def test_crystals_may_change_their_neighbors_and_molecules_may_not() -> None:
    crystal = bulk("Cu", cubic=True)
    cluster = Atoms(crystal.numbers, crystal.positions)
    for atoms in (crystal, cluster):
        moved = atoms.copy()
        moved.positions[0, 0] += 2 * 3.61
        assert is_physical(atoms, moved) == (atoms is crystal)
        moved.positions[0] = atoms.positions[1] + 0.1
        assert not is_physical(atoms, moved)
        moved.positions[0] = np.nan
        assert not is_physical(atoms, moved)


def test_new_bonds_are_counted() -> None:
    ethane = molecule("C2H6")
    moved = ethane.copy()
    moved.rattle(0.05, seed=1)
    assert newly_bound(ethane, moved) == 0
    # A hydrogen atom of one carbon moves to the other.
    hydrogen = next(i for i in range(2, 8) if ethane.get_distance(0, i) < 1.3)
    moved.positions[hydrogen] = moved.positions[1] + (0.0, 0.0, -1.05)
    moved.positions[hydrogen, 0] += 0.3
    assert newly_bound(ethane, moved) == 2
    crystal = bulk("Cu", cubic=True)
    crystal.positions[0] += 0.5
    assert newly_bound(bulk("Cu", cubic=True), crystal) == 0


def displacements(n: int, spacing: float) -> list[Atoms]:
    frames = [molecule("H2O") for _ in range(n)]
    for index, frame in enumerate(frames):
        frame.positions[0, 2] += spacing * index
    return frames


@pytest.mark.parametrize("seed", range(3))
def test_the_most_uncertain_frames_are_selected_once_each(seed: int) -> None:
    rng = np.random.default_rng(seed)
    frames = displacements(20, 0.3) * 2
    uncertainties = Uncertainties(np.arange(40) % 20 // 19, rng.random(40))
    doubtful, random = select(
        frames, [0] * 20 + [1] * 20, uncertainties, n_doubtful=8, n_random=10, rng=rng
    )
    assert len({*doubtful, *random}) == 18
    left = [index for index in uncertainties.order().tolist() if index not in random]
    # Frames outside of the training range come first, whatever their uncertainty.
    assert doubtful[: sum(index % 20 == 19 for index in left)] == [
        index for index in left if index % 20 == 19
    ]
    assert np.bincount(np.array(doubtful) // 20).tolist() == [MAX_PER_TRAJECTORY] * 2
    # If more frames are wanted, one trajectory may give more than its share.
    doubtful, random = select(
        frames, [0] * 20 + [1] * 20, uncertainties, n_doubtful=30, n_random=10, rng=rng
    )
    assert sorted(doubtful + random) == list(range(40))


def test_near_duplicates_are_not_selected() -> None:
    frames = displacements(20, 0.02)
    uncertainties = Uncertainties(np.zeros(20, int), np.linspace(1, 0, 20))
    doubtful, random = select(
        frames, [0] * 20, uncertainties, n_doubtful=10, n_random=5, rng=np.random.default_rng(0)
    )
    assert 2 <= len(doubtful) + len(random) <= 5
    # The same geometry of another trajectory belongs to another molecule.
    doubtful, _ = select(
        frames,
        list(range(20)),
        uncertainties,
        n_doubtful=10,
        n_random=0,
        rng=np.random.default_rng(0),
    )
    assert doubtful == list(range(10))


@pytest.fixture(scope="module")
def limits() -> Limits:
    """Return the limits of a training that saw some small molecules at rest."""
    from ase_student.neighbors import neighbor_matrix

    ranges = TrainingRanges(5.0)
    for name in KINDS.values():
        atoms = molecule(name)
        matrix = neighbor_matrix(atoms.positions, atoms.cell.array, atoms.pbc, 5.0)
        offsets = matrix.offsets(atoms.cell.array)
        forces = np.full((len(atoms), 3), 5.0)
        numbers = atoms.numbers.astype(np.int64)
        ranges.add(numbers, atoms.positions, matrix.neighbors, offsets, forces)
    return Limits(ranges)


def test_structures_outside_of_training_are_uncertain(limits: Limits) -> None:
    squeezed, distorted, rest = molecule("H2O"), molecule("H2O"), molecule("H2O")
    squeezed.positions[1] = 0.7 * squeezed.positions[1] + 0.3 * squeezed.positions[0]
    distorted.positions[1] *= 1.05
    crowded = molecule("H2O")
    crowded.extend(Atoms("HHHH", np.array([(3, 0, 0), (-3, 0, 0), (0, 3, 1), (0, -3, 1)])))
    calculators = [StudentCalculator("tiny", backend="onnx", guard="off", threads=1)]
    uncertainties = estimate_uncertainties(
        [rest, distorted, squeezed, crowded], calculators, limits
    )
    assert uncertainties.outside[:2].tolist() == [0, 0]
    assert uncertainties.outside[2] == 2 or uncertainties.outside[2] == 3
    assert uncertainties.outside[3] > 0
    assert uncertainties.values[0] < uncertainties.values[1] < uncertainties.values[2]
    assert set(uncertainties.order()[:2].tolist()) == {2, 3}


def test_a_structure_without_forces_is_the_most_uncertain(limits: Limits) -> None:
    broken = molecule("H2O")
    broken.positions[1] = broken.positions[0]
    calculators = [StudentCalculator("tiny", backend="onnx", guard="off", threads=1)]
    for students in (calculators, calculators * 2):
        uncertainties = estimate_uncertainties([molecule("H2O"), broken], students, limits)
        assert np.isinf(uncertainties.values[1])
        assert uncertainties.order().tolist() == [1, 0]


def test_rank_correlation() -> None:
    x = np.array([1.0, 2.0, np.inf, 4.0])
    assert rank_correlation(x, np.array([1.0, 20.0, 500.0, 30.0])) == pytest.approx(1.0)
    assert rank_correlation(x, -x) == pytest.approx(-1.0)
    assert rank_correlation(x[:2], x[:2]) is None
    assert rank_correlation(np.ones(4), x) is None


COMMAND = ("grow", "tiny", "--teacher", "ase.calculators.emt:EMT", "--device", "cpu")


def test_the_command_labels_the_structures_it_grows(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    output = tmp_path / "grown.h5"
    options = ("--trajectories=2", "--steps=20", "--every=10", "--frames=4", "--threads=1")
    command = [*COMMAND, "--start-structures", str(path), "-o", str(output), *options]
    assert main([*command, "--temperatures", "100", "200"]) == 0
    out = capsys.readouterr().out
    assert "4 structures labeled by ase.calculators.emt:EMT, 0 failed.\n  0 of 2" in out
    with Dataset(output) as dataset:
        assert dataset.n_labels == 4
        assert dataset.metadata["command"].startswith("python -m ase_student.distill grow tiny")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--steps=0"], "--steps is 0; it must be at least 1"),
        (["--every=7"], "--every is 7; it must be a multiple of 5"),
        (["--every=2000"], "--every is 2000; it must be .* not above --steps, 1000"),
        (["--temperatures", "400", "300"], "--temperatures are 400 and 300 K"),
        (["--temperatures", "0", "300"], "--temperatures are 0 and 300 K"),
        (["--random-share=1.5"], "--random-share is 1.5; it must be from 0 to 1"),
        (["--max-force=0"], "--max-force is 0"),
        (["--processes=0"], "--processes is 0; it must be at least 1"),
        (["--processes=2", "--scheduler=x"], "--processes and --scheduler exclude each other"),
        (["--seed=-1"], "--seed is -1; it must not be negative"),
        (["--start-structures", "none.h5"], "no data set at 'none.h5'"),
        (["--teacher", "nobody"], "no teacher named 'nobody'"),
    ],
)
def test_mistakes_get_one_line(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture, options: list[str], message: str
) -> None:
    command = [*COMMAND, "--start-structures", str(path), "-o", str(tmp_path / "grown.h5")]
    assert main([*command, *options]) == 2
    err = capsys.readouterr().err
    assert re.search(message, err), err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_unsuitable_start_structures_are_refused(tmp_path: Path) -> None:
    student = load_student("tiny")
    for atoms, name, message in (
        (molecule("H2O"), TEST[0], "no structure that the student was trained on"),
        (molecule("SiH4"), TRAIN[0], "a structure to start from has Si, which the student"),
    ):
        write_dataset(tmp_path / "s.h5", Structures.from_atoms([atoms], ["md"], [name]))
        with pytest.raises(ValueError, match=message):
            choose_starts([tmp_path / "s.h5"], [student], 2, seed=0)
    write_dataset(tmp_path / "s.h5", Structures.from_atoms([molecule("H2O")]))
    with pytest.raises(ValueError, match="s.h5: no structures/molecules"):
        choose_starts([tmp_path / "s.h5"], [student], 2, seed=0)
    with pytest.raises(ValueError, match="must say how its data were split"):
        choose_starts([tmp_path / "s.h5"], [dataclasses.replace(student, metadata={})], 2, seed=0)


def test_a_student_that_refuses_every_structure_is_reported(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = growth_of(path, tmp_path / "parts")
    refusal = Refusal("does not run")
    monkeypatch.setattr(
        StudentPotential, "evaluate", lambda self, structures: [refusal] * len(structures)
    )
    job.run_dynamics()
    with pytest.raises(ValueError, match="all 5 trajectories became unstable at once"):
        job.choose()


def test_frames_are_taken_at_checked_steps() -> None:
    assert ExplorationSettings().every % CHECK_INTERVAL == 0
