import json
import pickle
import warnings

import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.calculator import CalculationFailed
from ase.md.verlet import VelocityVerlet
from ase.neighborlist import neighbor_list

import ase_student.calculator
from ase_student import StudentCalculator
from ase_student.backends import open_backend
from ase_student.data.hdf5 import write_dataset
from ase_student.data.splits import parts_of
from ase_student.data.structures import Labels, Structures
from ase_student.extrapolation.guard import Guard, OutsideTrainingError, OutsideTrainingWarning
from ase_student.extrapolation.limits import DISTANCE_TOLERANCE, Limits
from ase_student.extrapolation.ranges import TrainingRanges, ranges_of_files
from ase_student.neighbors import NeighborList, concatenate, neighbor_matrix
from ase_student.testing import STRUCTURES, small_structures, structure

CUTOFF = 5.0
H, C, O, S = 1, 6, 8, 16  # noqa: E741


def arrays(atoms, skin=0.0):
    """Return numbers, positions, neighbors and offsets of a structure."""
    cell = atoms.cell.array
    matrix = neighbor_matrix(atoms.positions, cell, atoms.pbc, CUTOFF, skin)
    return atoms.numbers.astype(np.int64), atoms.positions, matrix.neighbors, matrix.offsets(cell)


def forces_for(atoms):
    return np.random.default_rng(len(atoms)).normal(size=(len(atoms), 3)).astype(np.float32)


def seen_of(*structures):
    ranges = TrainingRanges(CUTOFF)
    for atoms in structures:
        ranges.add(*arrays(atoms), forces_for(atoms))
    return ranges


def pair(symbols, distance):
    return Atoms(symbols, [[0.0, 0.0, 0.0], [0.0, 0.0, distance]])


# --- the record --------------------------------------------------------------------------------


def test_records_can_be_joined():
    combined, first, second = TrainingRanges(4.0), TrainingRanges(4.0), TrainingRanges(4.0)
    for number, distance in ((6, 1.1), (8, 0.9)):
        positions = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, distance]])
        arguments = (
            np.array([1, number]), positions, np.array([[1], [0]]), None, distance * positions,
        )  # fmt: skip
        combined.add(*arguments)
        (first if number == 6 else second).add(*arguments)
    first.include(second)
    assert first.as_dict() == {**combined.as_dict(), "structures": 1}
    with pytest.raises(ValueError, match="cutoffs of 4.0 and 5.0"):
        first.include(TrainingRanges(5.0))


@pytest.mark.parametrize("skin", [0.0, 1.3])
@pytest.mark.parametrize("name", STRUCTURES)
def test_record_of_one_structure(name, skin):
    atoms = structure(name)
    forces = forces_for(atoms)
    ranges = TrainingRanges(CUTOFF)
    ranges.add(*arrays(atoms, skin), forces)
    first, second, distances = neighbor_list("ijd", atoms, CUTOFF)
    counts = np.bincount(first, minlength=len(atoms))
    magnitudes = np.sqrt((forces.astype(float) ** 2).sum(axis=1))
    elements = np.unique(atoms.numbers)
    for element in elements:
        is_element = atoms.numbers == element
        assert ranges.counts[element].tolist() == [
            counts[is_element].min(),
            counts[is_element].max(),
        ]
        expected = [magnitudes[is_element].min(), magnitudes[is_element].max()]
        np.testing.assert_allclose(ranges.forces[element], expected, rtol=1e-12)
        for other_element in elements:
            of_pair = is_element[first] & (atoms.numbers[second] == other_element)
            expected = distances[of_pair].min(initial=np.inf)
            np.testing.assert_allclose(ranges.shortest[element, other_element], expected, rtol=1e-9)
    unseen = np.setdiff1d(np.arange(119), elements)
    assert np.isinf(ranges.shortest[unseen]).all()
    assert (ranges.counts[unseen, 1] == -1).all()


@pytest.mark.parametrize("name", ["atom", "far_pair", "aspirin"])
def test_molecules_are_recorded_without_offsets(name):
    numbers, positions, neighbors, _ = arrays(structure(name))
    ranges = TrainingRanges(CUTOFF)
    ranges.add(numbers, positions, neighbors.astype(np.int32), None, forces_for(structure(name)))
    assert ranges.as_dict() == seen_of(structure(name)).as_dict()


def test_a_record_is_written_in_json():
    atoms = Atoms("OHH", [[0.0, 0.0, 0.0], [0.96123, 0.0, 0.0], [0.0, 9.0, 0.0]])
    ranges = TrainingRanges(CUTOFF)
    ranges.add(
        *arrays(atoms), np.array([[3.0, 4.0, 0.0], [0.00001, 0.0, 0.0], [0.0, 0.0, 0.20001]])
    )
    assert json.loads(json.dumps(ranges.as_dict())) == {
        "cutoff": 5.0,
        "structures": 1,
        "shortest_distances": {"H-O": 0.9612},
        "neighbors": {"H": [0, 1], "O": [1, 1]},
        "forces": {"H": [0.0, 0.2001], "O": [5.0, 5.0]},
        "distances": {"H-O": [19, [1]]},
        "nonbonded_distances": {},
        "environments": {
            "H()": [1, 0, 0, 0, 0],
            "H(O)": [1, 1029, 1029**2, 1029, 1029],
            "O(H)": [1, 1029, 1029**2, 1029, 1029],
        },
    }


def test_a_record_is_read_back_and_extended():
    aspirin, water_box = structure("aspirin"), structure("water_box")
    restored = TrainingRanges.from_dict(json.loads(json.dumps(seen_of(aspirin).as_dict())))
    assert restored.as_dict() == seen_of(aspirin).as_dict()
    restored.add(*arrays(water_box), forces_for(water_box))
    assert (
        restored.as_dict()
        == seen_of(aspirin, water_box).as_dict()
        == seen_of(water_box, aspirin).as_dict()
    )


GOOD = seen_of(structure("water_dimer")).as_dict()


@pytest.mark.parametrize(
    "record",
    [
        [],
        {},
        {**GOOD, "cutoff": "far"},
        {**GOOD, "cutoff": float("nan")},
        {**GOOD, "structures": None},
        {**GOOD, "shortest_distances": {"H-X1": 1.0}},
        {**GOOD, "shortest_distances": {"HO": 1.0}},
        {**GOOD, "shortest_distances": {"H-O": float("nan")}},
        {**GOOD, "shortest_distances": {"H-O": -1.0}},
        {**GOOD, "neighbors": {"H": [1]}},
        {**GOOD, "neighbors": {"H": 4}},
        {**GOOD, "neighbors": {"H": [1, 1e300]}},
        {**GOOD, "forces": {"H": [0.0, float("inf")]}},
        {**GOOD, "forces": ["H"]},
        {**GOOD, "distances": {"H-O": [3, [-1]]}},
        {**GOOD, "distances": {"H-O": [69, [1, 1]]}},
        {**GOOD, "distances": {"H-O": 3}},
        {**GOOD, "environments": {"O(HH)": [1, 2000, 4000000, 2000]}},
        {**GOOD, "environments": {"O(HH)": [0, 0, 0, 0, 0]}},
        {**GOOD, "environments": {"O(HX)": [1, 2000, 4000000, 2000, 2000]}},
        {**GOOD, "environments": {"Fe(O)": [1, 2000, 4000000, 2000, 2000]}},
        {**GOOD, "environments": []},
    ],
    ids=str,
)
def test_damaged_records_are_refused(record):
    with pytest.raises(ValueError, match="^the record of what training saw is damaged: .*[.]$"):
        TrainingRanges.from_dict(record)


def test_record_of_a_dataset(tmp_path):
    pytest.importorskip("h5py")
    pytest.importorskip("tqdm")
    atoms = [*small_structures().values(), structure("slab")]
    forces = [forces_for(structure_) for structure_ in atoms]
    molecules = [f"molecule-{index}" for index in range(len(atoms))]
    # One structure has no label.
    labelled = [index for index in range(len(atoms)) if index != 3]
    ends = np.cumsum([0] + [len(atoms[index]) for index in labelled])
    labels = Labels(
        structure_indices=np.array(labelled),
        energies=np.zeros(len(labelled)),
        splits=ends,
        forces=np.concatenate([forces[index] for index in labelled]),
    )
    path, plain = tmp_path / "data.h5", tmp_path / "plain.h5"
    write_dataset(path, Structures.from_atoms(atoms, molecules=molecules), labels)
    write_dataset(plain, Structures.from_atoms(atoms), labels)
    all_ranges = seen_of(*(atoms[index] for index in labelled)).as_dict()
    assert ranges_of_files([path], CUTOFF, None).as_dict() == all_ranges
    assert ranges_of_files([plain], CUTOFF, None).as_dict() == all_ranges
    unlike = Structures.from_atoms(atoms, ["md", "diatomic", "foreign", *["md"] * (len(atoms) - 3)])
    write_dataset(plain, unlike, labels)
    usual_ranges = seen_of(*(atoms[index] for index in labelled if index not in (1, 2))).as_dict()
    assert ranges_of_files([plain], CUTOFF, None).as_dict() == usual_ranges
    write_dataset(plain, Structures.from_atoms(atoms), labels)
    doubled = ranges_of_files([path, plain], CUTOFF, None)
    single = seen_of(*(atoms[index] for index in labelled))
    assert doubled.as_dict()["shortest_distances"] == all_ranges["shortest_distances"]
    assert doubled.n_structures == 2 * len(labelled)
    np.testing.assert_array_equal(doubled.distances, 2 * single.distances)
    for key, row in single.environments.rows.items():
        assert doubled.environments.rows[key] == (*(2 * sum_ for sum_ in row[:3]), *row[3:])
    for split in ("molecule", "structure"):
        parts = parts_of(Structures.from_atoms(atoms, molecules=molecules), split, 1)
        train = [atoms[index] for index in labelled if parts[index] == "train"]
        assert len(train) < len(labelled)
        assert (
            ranges_of_files([path], CUTOFF, 1, split=split).as_dict() == seen_of(*train).as_dict()
        )
    with pytest.raises(ValueError, match=r"plain\.h5: no structures/molecules"):
        ranges_of_files([plain], CUTOFF)


# --- comparisons -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STRUCTURES)
def test_structures_of_the_training_are_inside(name):
    atoms = structure(name)
    limits = Limits(TrainingRanges.from_dict(seen_of(atoms).as_dict()))
    assert limits.find(*arrays(atoms)) == []
    assert limits.find(*arrays(atoms, skin=0.7)) == []
    assert limits.find_forces(atoms.numbers, forces_for(atoms).astype(float)) == []


WATERS = [structure("water_dimer"), pair("OH", 1.2), pair("HH", 4.0), pair("OO", 1.5)]
WATER = Atoms("OHH", [[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])


@pytest.mark.parametrize("symbols", ["OO", "HO", "OH", "HH"])
def test_a_pair_is_outside_below_the_shortest_distance(symbols):
    limits = Limits(seen_of(*WATERS))
    shortest = limits.seen.shortest[tuple(Atoms(symbols).numbers)]
    assert limits.find(*arrays(pair(symbols, shortest - DISTANCE_TOLERANCE + 0.001))) == []
    (outside,) = limits.find(*arrays(pair(symbols, shortest - DISTANCE_TOLERANCE - 0.001)))
    assert outside.kind == "distance"
    assert outside.atoms == (0, 1)


def described(limits, atoms):
    return {outside.kind: outside for outside in limits.find(*arrays(atoms))}


def test_description_of_pairs():
    limits = Limits(seen_of(*WATERS))
    squeezed = Atoms("OHHO", [[0, 0, 0], [0.9, 0, 0], [-0.7, 0, 0], [0.9, 0, 0.8]])
    outside = described(limits, squeezed)["distance"]
    assert outside.atoms == (0, 1, 2, 3)
    assert outside.text == (
        "atoms 0 (O) and 3 (O) are 1.20 Å apart; training saw no O–O closer than 1.50 Å "
        "(3 more such pairs: 0–1, 0–2, 1–3)"
    )
    foreign = described(limits, Atoms("HCO", [[0, 0, 0], [0, 0, 4.9], [0, 0, 10]]))["distance"]
    assert foreign.text == "atoms 0 (H) and 1 (C) are 4.90 Å apart; training saw no H–C within 5 Å"
    wire = Atoms("O", cell=[1.2, 9, 9], pbc=True)
    outside = described(limits, wire)["distance"]
    assert outside.atoms == (0,)
    assert outside.text == (
        "atom 0 (O) and its periodic image are 1.20 Å apart; training saw no O–O closer than 1.50 Å"
    )


def test_an_unseen_pair_beyond_the_cutoff_is_no_pair():
    limits = Limits(seen_of(*WATERS, Atoms("C"), Atoms("O")))
    assert limits.find(*arrays(pair("CO", 5.1), skin=1.0)) == []
    assert "distance" in described(limits, pair("CO", 4.9))


def test_description_of_numbers_of_neighbors():
    limits = Limits(seen_of(structure("water_dimer")))
    assert limits.seen.counts[[H, O]].tolist() == [[5, 5], [5, 5]]
    alone = described(limits, Atoms("H"))["neighbors"]
    assert alone.atoms == (0,)
    assert alone.text == "atom 0 (H) has 0 neighbors within 5 Å; training saw 5 to 5 around H"
    bonded = described(limits, pair("HO", 1.0))["neighbors"]
    assert bonded.atoms == (0, 1)
    assert bonded.text == (
        "atom 0 (H) has 1 neighbor within 5 Å; training saw 5 to 5 around H (1 more such atom: 1)"
    )
    box = described(limits, structure("water_box"))["neighbors"]
    assert len(box.atoms) == 81
    assert box.text == (
        "atom 9 (O) has 61 neighbors within 5 Å; training saw 5 to 5 around O "
        "(80 more such atoms: 0, 1, 2, 3, 4, 5, 6, 7, 8, 10, …)"
    )
    unseen = described(limits, Atoms("S"))["neighbors"]
    assert unseen.text == "atom 0 (S) has 0 neighbors within 5 Å; training saw no S"


def test_description_of_forces():
    ranges = TrainingRanges(CUTOFF)
    ranges.add(*arrays(WATER), np.array([[9.0, 0, 0], [2.0, 0, 0], [0, 0, 3.0]]))
    limits = Limits(ranges)
    numbers = WATER.numbers
    assert limits.find_forces(numbers, np.array([[5.0, 7.0, 0], [3.0, 0, 0], [0, 3.0, 0]])) == []
    (outside,) = limits.find_forces(numbers, np.array([[9.0, 0.1, 0], [0, 30.5, 0], [0, 3.01, 0]]))
    assert outside.kind == "force"
    assert outside.atoms == (0, 1, 2)
    assert outside.text == (
        "the force on atom 1 (H) is 30.5 eV/Å; training saw at most 3 eV/Å on H "
        "(2 more such atoms: 0, 2)"
    )


# --- the guard ---------------------------------------------------------------------------------


def walk(name, scale, n_steps=60):
    """Yield a structure along a random walk in which its cell sometimes changes."""
    atoms, rng = structure(name), np.random.default_rng(1)
    for step in range(n_steps):
        yield atoms
        atoms.positions += rng.normal(scale=scale, size=atoms.positions.shape)
        if step % 20 in (10, 11):
            strain = np.eye(3) + rng.uniform(-0.02, 0.03, (3, 3))
            atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
        if step == 35:
            atoms.wrap()


@pytest.mark.parametrize("skin", [0.0, 0.3, 1.0, 6.0])
@pytest.mark.parametrize("name", ["far_pair", "small_triclinic", "triclinic", "slab", "aspirin"])
def test_guard_misses_nothing_along_a_random_walk(name, skin):
    ranges = TrainingRanges(CUTOFF)
    for step, atoms in enumerate(walk(name, 0.02)):
        if step % 3 == 0:
            ranges.add(*arrays(atoms), forces_for(atoms))
    limits, guard = Limits(ranges), Guard(ranges, "tiny", "raise", skin)
    neighbors = NeighborList(CUTOFF, skin)
    n_outside = 0
    for atoms in walk(name, 0.025):
        n_rebuilds = neighbors.n_rebuilds
        matrix = neighbors.update(atoms.positions, atoms.cell.array, atoms.pbc, atoms.numbers)
        rebuilt = neighbors.n_rebuilds > n_rebuilds
        expected = limits.find(*arrays(atoms))
        message = ""
        try:
            guard.check(atoms.numbers, atoms.positions, *matrix, rebuilt)
        except OutsideTrainingError as error:
            message = str(error)
            n_outside += 1
        assert bool(message) == bool(expected)
        assert not expected or f"was trained on: {expected[0].text}." in message
    assert n_outside < 60
    if name not in ("far_pair", "small_triclinic"):
        assert n_outside > 3


def oxygens(distance):
    return pair("OO", distance)


def in_a_box(distance):
    """Return two oxygen atoms across the boundary of a cell."""
    half = 0.5 * distance
    return Atoms("OO", [[3, 3, half], [3, 3, 12 - half]], cell=[8, 8, 12], pbc=True)


@pytest.mark.parametrize(
    ("make", "first_distance", "second_distance", "message"),
    [
        (oxygens, 1.7, 1.3, "are 1.30 Å apart"),
        (in_a_box, 1.7, 1.3, "are 1.30 Å apart"),
        (oxygens, 4.8, 5.05, "has 0 neighbors"),
        (oxygens, 4.4, 5.05, "has 0 neighbors"),
        (in_a_box, 4.8, 5.05, "has 0 neighbors"),
        (oxygens, 5.2, 4.95, "has 1 neighbor"),
    ],
)
def test_atoms_that_leave_the_range_between_rebuilds_are_found(
    make, first_distance, second_distance, message
):
    ranges = seen_of(pair("OO", 1.5))
    ranges.counts[O] = [1, 1] if first_distance < CUTOFF else [0, 0]
    guard, neighbors = Guard(ranges, "tiny", "raise", 0.7), NeighborList(CUTOFF, 0.7)
    guard.check(*updated(neighbors, make(first_distance)), True)
    arguments = updated(neighbors, make(second_distance))
    assert neighbors.n_rebuilds == 1
    for _ in range(2):
        with pytest.raises(OutsideTrainingError, match=message):
            guard.check(*arguments, False)


def updated(neighbors, atoms):
    matrix = neighbors.update(atoms.positions, atoms.cell.array, atoms.pbc, atoms.numbers)
    return atoms.numbers, atoms.positions, *matrix


def test_a_close_image_stays_outside():
    wire = Atoms("O", cell=[1.2, 9, 9], pbc=True)
    ranges = seen_of(Atoms("O", cell=[1.3, 9, 9], pbc=True))
    guard, neighbors = Guard(ranges, "tiny", "raise", 0.5), NeighborList(CUTOFF, 0.5)
    for rebuilt in (True, False, False):
        with pytest.raises(OutsideTrainingError, match="and its periodic image are 1.20 Å apart"):
            guard.check(*updated(neighbors, wire), rebuilt)


def counting(monkeypatch):
    """Return a list that grows with each comparison of a whole frame."""
    comparisons = []
    compare = Limits.compare

    def counted(self, *arguments):
        comparisons.append(1)
        return compare(self, *arguments)

    monkeypatch.setattr(Limits, "compare", counted)
    return comparisons


@pytest.mark.parametrize("name", ["aspirin", "water_box"])
def test_whole_frames_are_compared_only_at_rebuilds(monkeypatch, name):
    atoms = structure(name)
    ranges = seen_of(atoms)
    ranges.shortest -= 0.2
    ranges.counts += [-1, 1]
    guard, neighbors = Guard(ranges, "tiny", "raise", 0.5), NeighborList(CUTOFF, 0.5)
    comparisons, rng = counting(monkeypatch), np.random.default_rng(0)
    for step in range(12):
        positions = atoms.positions + rng.uniform(-0.01, 0.01, size=atoms.positions.shape)
        matrix = neighbors.update(positions, atoms.cell.array, atoms.pbc, atoms.numbers)
        guard.check(atoms.numbers, positions, *matrix, step == 0)
    assert neighbors.n_rebuilds == 1
    assert len(comparisons) == 1


def test_dynamics_compares_whole_frames_only_at_rebuilds(student, monkeypatch):
    comparisons = counting(monkeypatch)
    atoms = dimer()
    atoms.calc = student()
    VelocityVerlet(atoms, 0.5 * units.fs).run(20)
    assert len(comparisons) == atoms.calc.neighbor_list.n_rebuilds < 5


def test_nothing_is_compared_after_every_warning_was_given(monkeypatch):
    guard = Guard(seen_of(WATER), "tiny", "warn", 0.0)
    comparisons = counting(monkeypatch)
    outside = Atoms("OHHH", [[0, 0, 0], [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]])
    with pytest.warns(OutsideTrainingWarning) as caught:
        guard.check(*arrays(outside), True)
    assert len(caught) == 2
    for _ in range(3):
        guard.check(*arrays(outside), True)
        guard.check_many([0, 1], [4, 8], *joined(outside, outside))
    assert len(comparisons) == 1


def joined(*structures):
    parts = [arrays(atoms) for atoms in structures]
    matrix = concatenate([part[2:] for part in parts], CUTOFF)
    return (*(np.concatenate([part[i] for part in parts]) for i in range(2)), *matrix)


# --- the calculator ----------------------------------------------------------------------------

LIQUID = structure("water_box")


@pytest.fixture
def record():
    """The ranges of a training on two molecules of water at several distances."""
    ranges = TrainingRanges(CUTOFF)
    for shift in np.linspace(0.0, 20.0, 41):
        atoms = structure("water_dimer")
        atoms.positions[3:] += [shift, 0.0, 0.0]
        ranges.add(*arrays(atoms), 4.0 * np.eye(6, 3))
    return ranges.as_dict()


@pytest.fixture
def student(monkeypatch, record):
    """Return a function that makes calculators of a student that carries a record."""

    def opened(*arguments):
        backend = open_backend(*arguments)
        backend.info.metadata["seen"] = record
        return backend

    monkeypatch.setattr(ase_student.calculator, "open_backend", opened)
    return lambda guard="auto", **arguments: StudentCalculator(
        "tiny", "onnx", "cpu", guard=guard, **arguments
    )


def dimer(stretch=0.0):
    """Return two molecules of water, the bond between atoms 3 and 4 stretched."""
    atoms = structure("water_dimer")
    bond = atoms.positions[4] - atoms.positions[3]
    atoms.positions[4] += stretch * bond / np.linalg.norm(bond)
    return atoms


KINDS = {
    "distance": (
        lambda: dimer(-0.06),
        "atoms 3 (O) and 4 (H) are 0.90 Å apart; training saw no O–H closer than 0.96 Å",
    ),
    "neighbors": (
        # Two atoms: a single one has an odd number of electrons, which is another kind of warning.
        lambda: Atoms("HH", [[0.0, 0.0, 0.0], [0.0, 0.0, 9.0]]),
        "atom 0 (H) has 0 neighbors within 5 Å; training saw 2 to 5 around H",
    ),
    "force": (lambda: dimer(0.25), "the force on atom "),
}


def test_the_guard_is_silent_inside(student, record):
    # In tests, warnings are errors.
    for guard in ("warn", "raise"):
        calc = student(guard)
        atoms = dimer()
        atoms.calc = calc
        VelocityVerlet(atoms, 0.5 * units.fs).run(20)
        calc.calculate_many([dimer(), WATER, dimer()])
        assert calc.guard == guard


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_warning_is_given_once(student, kind):
    make, text = KINDS[kind]
    calc = student("warn")
    atoms = make()
    with pytest.warns(OutsideTrainingWarning) as caught:
        calc.calculate(atoms)
    expected = calc.results
    assert expected["forces"].shape == (len(atoms), 3)
    (warning,) = caught
    start = f"outside of what student 'tiny' was trained on: {text}"
    assert str(warning.message).startswith(start)
    assert str(warning.message).endswith(".")
    # It is not repeated, also not in calculate_many; another calculator warns again.
    moved = make()
    moved.positions += 0.001
    calc.calculate(moved)
    calc.calculate_many([dimer(), make()])
    other_makers = [maker for name, (maker, _) in KINDS.items() if name != kind]
    for make_other in other_makers:
        with pytest.warns(OutsideTrainingWarning):
            calc.calculate(make_other())
    with pytest.warns(OutsideTrainingWarning):
        student("warn").calculate(atoms)


def test_warnings_point_at_the_line_of_the_user(student):
    atoms = dimer(-0.06)
    atoms.calc = student()
    with pytest.warns(OutsideTrainingWarning) as caught:
        atoms.get_potential_energy()
    assert caught[0].filename == __file__
    atoms = dimer(-0.06)
    atoms.calc = student()
    with pytest.warns(OutsideTrainingWarning) as caught:
        VelocityVerlet(atoms, 0.5 * units.fs).run(2)
    assert caught[0].filename == __file__
    with pytest.warns(OutsideTrainingWarning) as caught:
        student().calculate_many([dimer(-0.06)])
    assert caught[0].filename == __file__


@pytest.mark.parametrize("kind", KINDS)
def test_errors_are_raised_each_time_and_leave_no_results(student, kind):
    make, text = KINDS[kind]
    calc = student("raise")
    atoms = dimer()
    atoms.calc = calc
    energy = atoms.get_potential_energy()
    outside = make()
    outside.calc = calc
    for method in (outside.get_potential_energy, outside.get_forces, outside.get_potential_energy):
        with pytest.raises(OutsideTrainingError) as caught:
            method()
        assert isinstance(caught.value, CalculationFailed)
        assert text in str(caught.value)
        assert calc.results == {}
    assert atoms.get_potential_energy() == energy


@pytest.mark.parametrize("kind", KINDS)
def test_calculate_many_names_the_structure(student, kind):
    make, text = KINDS[kind]
    structures = [dimer(), WATER, make(), dimer(), make()]
    message = f"structure 2: outside of what student 'tiny' was trained on: {text}"
    calc = student("warn")
    with pytest.warns(OutsideTrainingWarning) as caught:
        guarded = calc.calculate_many(structures)
    (warning,) = caught
    assert str(warning.message).startswith(message)
    expected = student("off").calculate_many(structures)
    assert [results["energy"] for results in guarded] == [results["energy"] for results in expected]
    for _ in range(2):
        with pytest.raises(OutsideTrainingError) as error:
            student("raise").calculate_many(structures)
        assert str(error.value).startswith(message)


def test_warnings_turned_into_errors_are_raised_each_time(student):
    calc = student("warn")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            with pytest.raises(OutsideTrainingWarning):
                calc.calculate(dimer(-0.06))
            assert calc.results == {}


def test_results_are_the_same_with_and_without_a_guard(student):
    off = student("off")
    assert off.guard == "off"
    calc = student("auto")
    assert calc.guard == "warn"
    with pytest.warns(OutsideTrainingWarning):
        calc.calculate(LIQUID)
    off.calculate(LIQUID)
    np.testing.assert_array_equal(calc.results["forces"], off.results["forces"])
    assert calc.results["energy"] == off.results["energy"]


@pytest.mark.parametrize("guard", ["auto", "warn", "raise", "off"])
def test_copies_have_the_same_guard(student, guard):
    calc = student(guard)
    copy = pickle.loads(pickle.dumps(calc))
    assert copy.guard == calc.guard == ("warn" if guard == "auto" else guard)


def test_a_list_built_before_the_first_check_hides_nothing(student, record):
    record["forces"] = {"H": [0.0, 1e6], "O": [0.0, 1e6]}
    calc = student("raise", skin=1.0)
    # A list built at the first distance is used for the other two; between the second and the
    # third distance the atoms move by nearly two skins.
    atoms = pair("OH", 1.8) + Atoms("H", [[0.0, 1.8, 0.0]])
    calc.neighbor_list.update(atoms.positions, atoms.cell.array, atoms.pbc, atoms.numbers)
    atoms.positions[:2, 2] = [-0.46, 2.26]
    calc.calculate(atoms)
    atoms.positions[:2, 2] = [0.46, 1.34]
    with pytest.raises(OutsideTrainingError, match="are 0.88 Å apart"):
        calc.calculate(atoms)
    assert calc.neighbor_list.n_rebuilds == 1


def test_students_without_a_record_have_no_guard(monkeypatch):
    def opened(*arguments):
        backend = open_backend(*arguments)
        backend.info.metadata.pop("seen", None)
        return backend

    monkeypatch.setattr(ase_student.calculator, "open_backend", opened)
    for guard in ("auto", "off"):
        calc = StudentCalculator("tiny", "onnx", "cpu", guard=guard)
        assert calc.guard == "off"
        calc.calculate(Atoms("H"))
    for guard in ("warn", "raise"):
        message = f"^guard='{guard}' compares with what training saw, which student 'tiny' does not"
        with pytest.raises(ValueError, match=message):
            StudentCalculator("tiny", "onnx", "cpu", guard=guard)


def test_unknown_guards_are_refused():
    with pytest.raises(ValueError, match="^unknown guard 'loud'; available: 'auto', 'warn', "):
        StudentCalculator("tiny", guard="loud")


def test_records_of_another_cutoff_are_refused(student, record):
    record["cutoff"] = 4.5
    with pytest.raises(ValueError, match="cutoff of 5 Å, but its record .* is for 4.5 Å"):
        student()
    del record["cutoff"]
    with pytest.raises(ValueError, match="^student 'tiny': the record of what .* is damaged"):
        student()
    assert student("off").guard == "off"


# --- files -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a student that has a record, and the files exported from it."""
    pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    from dataclasses import replace

    from ase_student.checkpoint import load_student, save_student
    from ase_student.export import export_student

    folder = tmp_path_factory.mktemp("guarded")
    tiny = load_student("tiny")
    ranges = seen_of(WATER, structure("aspirin")).as_dict()
    student = replace(tiny, metadata={**tiny.metadata, "seen": ranges})
    assert student.sha256 == tiny.sha256
    save_student(student, folder / "mine.safetensors")
    export_student(folder / "mine.safetensors", folder)
    return folder


@pytest.mark.parametrize(
    ("file", "backend"),
    [
        ("mine.safetensors", "torch"),
        ("mine.safetensors", "torchscript"),
        ("mine.onnx", "onnx"),
        ("mine.pt", "torchscript"),
    ],
)
def test_every_file_holds_the_record(folder, file, backend):
    calc = StudentCalculator(folder / file, backend, "cpu")
    assert calc.guard == "warn"
    with pytest.warns(OutsideTrainingWarning) as caught:
        calc.calculate(pair("OH", 0.8))
    message = (
        "outside of what student 'mine' was trained on: atoms 0 (O) and 1 (H) are 0.80 Å apart"
    )
    assert any(str(warning.message).startswith(message) for warning in caught)
