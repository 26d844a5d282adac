"""Interaction energies of complexes, and energies of conformers: groups, split, loss and errors."""

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

h5py = pytest.importorskip("h5py")
torch = pytest.importorskip("torch")

from ase_student.data.hdf5 import Dataset, Labels, Structures, write_dataset  # noqa: E402
from ase_student.data.splits import parts_of, split_of  # noqa: E402
from ase_student.distill.__main__ import main  # noqa: E402
from ase_student.distill.training.batches import collate, read_samples, shuffled  # noqa: E402
from ase_student.distill.training.data import TrainingData  # noqa: E402
from ase_student.distill.training.energy_differences import (  # noqa: E402
    conformer_coefficients,
    conformer_groups,
    interaction_coefficients,
    units_of,
)
from ase_student.distill.training.finite_difference import backward_by_displacement  # noqa: E402
from ase_student.distill.training.loss import Predictions, loss, predict  # noqa: E402
from ase_student.distill.training.metrics import EV_PER_KCAL_MOL, evaluate  # noqa: E402
from ase_student.distill.training.pair_batches import PairCollator  # noqa: E402
from ase_student.distill.training.settings import SHAPES, TrainingSettings  # noqa: E402
from ase_student.networks.kernels import CompiledNetwork  # noqa: E402
from ase_student.networks.painn import PaiNN  # noqa: E402
from ase_student.student import Architecture  # noqa: E402

CPU = torch.device("cpu")
CUTOFF = 5.0
#: The interactions are the only term of the loss, apart from forces without an error.
INTERACTIONS = TrainingSettings(stress_weight=0.0, interaction_scale=0.1, interaction_weight=2.0)
#: Groups of two complexes and two fragments.
N_GROUPS = 30


def arbitrary_labels(structures: Structures, rng: np.random.Generator) -> Labels:
    """Return random energies, and forces that are zero."""
    return Labels(
        np.arange(len(structures)),
        rng.normal(-20.0, 1.0, size=len(structures)),
        structures.splits,
        np.zeros((len(structures.numbers), 3), np.float32),
    )


def complexes(n_groups: int = N_GROUPS, n_alone: int = 40) -> tuple[Structures, Labels]:
    """Return scans of C-C beside O-H, and single molecules, with arbitrary labels."""
    rng = np.random.default_rng(0)
    atoms, sources, names, fragments = [], [], [], []
    for group in range(n_groups):
        carbons = Atoms("C2", [[0, 0, 0], [0, 0, 1.4 + 0.1 * rng.random()]])
        hydroxyl = Atoms("OH", [[0, 0, 0], [0, 0, 0.9 + 0.1 * rng.random()]])
        for distance in (2.5, 3.5):
            moved = hydroxyl.copy()
            moved.positions += (distance, 0, 0)
            atoms.append(carbons + moved)
        atoms += [carbons, hydroxyl]
        sources += ["dimer", "dimer", "fragment", "fragment"]
        names += [f"a{group}.b{group}"] * 2 + [f"a{group}", f"b{group}"]
        fragments += [(group, -1), (group, -1), (group, 0), (group, 1)]
    for index in range(n_alone):
        atoms.append(Atoms("CO", [[0, 0, 0], [0, 0, 1.1 + 0.01 * index]]))
        sources.append("md")
        names.append(f"c{index}")
        fragments.append((-1, -1))
    order = rng.permutation(len(atoms))
    structures = Structures.from_atoms(atoms, sources, names, fragments=fragments).take(order)
    return structures, arbitrary_labels(structures, rng)


def torsion_scans() -> tuple[Structures, Labels]:
    """Return scans of 6, 5 and 1 angles with arbitrary labels, and a frame of dynamics."""
    rng = np.random.default_rng(1)
    names = ["a"] * 6 + ["b"] * 5 + ["c", "c"]
    sources = ["torsion"] * 12 + ["md"]
    sizes = {"a": 2, "b": 3, "c": 4}
    atoms = [
        Atoms(
            f"C{sizes[name]}",
            1.5 * np.arange(sizes[name])[:, None] + 0.8 * rng.random((sizes[name], 3)),
        )
        for name in names
    ]
    structures = Structures.from_atoms(atoms, sources, names)
    return structures, arbitrary_labels(structures, rng)


@pytest.fixture
def scans(tmp_path: Path) -> list:
    path = tmp_path / "torsions.h5"
    write_dataset(path, *torsion_scans(), metadata={"teacher": "none"})
    with Dataset(path) as dataset:
        return read_samples(dataset, range(len(dataset)), CUTOFF)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "complexes.h5"
    write_dataset(path, *complexes(), metadata={"teacher": "none"})
    return path


@pytest.fixture
def samples(path: Path) -> list:
    with Dataset(path) as dataset:
        return read_samples(dataset, range(len(dataset)), CUTOFF)


@pytest.fixture
def network() -> PaiNN:
    torch.manual_seed(0)
    elements = (1, 6, 8)
    return PaiNN(Architecture(elements, **SHAPES["ultra-tiny"]), dict.fromkeys(elements, -10.0))


def group_of(samples: list, name: str) -> list:
    return [sample for sample in samples if sample.group == name]


def test_the_column_of_fragments_is_read_and_taken(path: Path) -> None:
    structures, _ = complexes()
    with Dataset(path) as dataset:
        np.testing.assert_array_equal(dataset.read_structures().fragments, structures.fragments)
        part = dataset.read_structures(5, 9)
    np.testing.assert_array_equal(part.fragments, structures.fragments[5:9])
    np.testing.assert_array_equal(structures.take([7, 2]).fragments, structures.fragments[[7, 2]])


def test_data_without_complexes_have_no_column(tmp_path: Path) -> None:
    write_dataset(tmp_path / "x.h5", Structures.from_atoms([Atoms("H")]))
    with h5py.File(tmp_path / "x.h5") as file:
        assert "fragments" not in file["structures"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda fragments, _: fragments.__setitem__((0, 1), 3), "not those of fragment|nor|must"),
        (lambda fragments, _: fragments.__setitem__((2, 0), -1), "it must be"),
        (lambda fragments, _: fragments.__setitem__((3, 1), 0), "is fragment 0 of group 0, and so"),
        (lambda fragments, _: fragments.__setitem__((slice(2, 4), 1), [1, 0]), "not those of"),
        (lambda _, positions: positions.__setitem__((0, 0), 0.3), "not those of fragment 0"),
    ],
)
def test_wrong_fragments_are_refused(tmp_path: Path, change, message: str) -> None:
    a, b = Atoms("C2", [[0, 0, 0], [0, 0, 1.4]]), Atoms("OH", [[3, 0, 0], [3, 0, 0.9]])
    structures = Structures.from_atoms(
        [a + b, a + b, a, b], fragments=[(0, -1), (0, -1), (0, 0), (0, 1)]
    )
    write_dataset(tmp_path / "good.h5", structures)
    change(structures.fragments, structures.positions)
    if structures.fragments[0, 1] == 3:
        # A complex as a fragment is one fragment too many.
        structures.fragments[0, 1] = 2
        message = "not those of fragment 2"
    with pytest.raises(ValueError, match=message):
        write_dataset(tmp_path / "bad.h5", structures)
    assert not (tmp_path / "bad.h5").exists()


def test_a_group_belongs_to_one_part_and_trains_on_no_held_out_molecule() -> None:
    structures, _ = complexes(300)
    for split in ("molecule", "structure"):
        parts = parts_of(structures, split)
        groups = structures.fragments[:, 0]
        counts = Counter()
        for group in range(300):
            parts_of_group = {parts[i] for i in np.flatnonzero(groups == group)}
            assert len(parts_of_group) == 1
            counts[parts_of_group.pop()] += 1
        # Two molecules are held out nearly twice as often as one structure.
        low, high = (210, 245) if split == "molecule" else (245, 275)
        assert low < counts["train"] < high
    for part, names in zip(parts_of(structures), structures.molecules, strict=True):
        if part == "train":
            assert split_of(names) == "train"


def test_interaction_energies_are_those_of_complexes_minus_fragments(samples: list) -> None:
    unit = group_of(samples, samples[0].group or samples[1].group or samples[2].group)
    coefficients = interaction_coefficients(unit)
    energies = np.array([sample.energy for sample in unit])
    sum_of_fragments = sum(sample.energy for sample in unit if sample.fragment >= 0)
    expected = [sample.energy - sum_of_fragments for sample in unit if sample.fragment < 0]
    np.testing.assert_allclose(coefficients @ energies, expected)


def test_a_complex_that_lacks_a_fragment_has_no_interaction_energy(samples: list) -> None:
    group = next(sample.group for sample in samples if sample.group)
    unit = [sample for sample in group_of(samples, group) if sample.fragment != 1]
    assert interaction_coefficients(unit) is None
    assert interaction_coefficients([s for s in samples if s.group is None]) is None


def test_batches_hold_whole_groups_and_every_sample_once(samples: list) -> None:
    batches = list(shuffled(samples, 8, np.random.default_rng(3)))
    assert sorted(id(sample) for batch in batches for sample in batch) == sorted(map(id, samples))
    for batch in batches:
        assert 5 <= len(batch) <= 11 or batch is batches[-1] or len(batch) <= 8
        sizes = Counter(sample.group for sample in batch if sample.group)
        assert set(sizes.values()) <= {4}
    assert len(batches) <= -(-len(samples) // 8)


def test_batches_without_groups_have_the_size_of_the_settings(samples: list) -> None:
    without_groups = [dataclasses.replace(sample, group=None) for sample in samples]
    generator = np.random.default_rng(3)
    order = generator.permutation(len(without_groups))
    expected = sorted(order[:192], key=lambda i: without_groups[i].neighbors.shape[1])
    first_batch = [without_groups[i] for i in expected[:8]]
    batches = list(shuffled(without_groups, 8, np.random.default_rng(3)))
    assert any([id(s) for s in batch] == [id(s) for s in first_batch] for batch in batches)
    assert [len(batch) for batch in batches].count(8) == len(without_groups) // 8


def test_each_copy_of_a_group_is_its_own_unit(samples: list) -> None:
    doubled = [copy for sample in samples for copy in (sample, sample)]
    sizes = Counter(len(unit) for unit in units_of(doubled))
    assert sizes == {4: 2 * N_GROUPS, 1: 80}
    for unit in units_of(doubled):
        assert len({id(doubled[i]) for i in unit}) == len(unit)


def test_the_loss_counts_every_complex_equally(samples: list) -> None:
    groups = sorted({sample.group for sample in samples if sample.group})[:2]
    units = [group_of(samples, group) for group in groups]
    error = 0.37

    def value(chosen: list, settings: TrainingSettings) -> float:
        batch = collate(chosen, CUTOFF, CPU)
        errors = torch.tensor([error if s.fragment < 0 and s.group else 0.0 for s in chosen])
        predictions = Predictions(
            torch.zeros(len(batch.structures)), batch.energies + errors, batch.forces, None
        )
        return float(loss(predictions, batch, settings, energy_weight=0.0))

    term = np.sqrt(1 + (error / 0.1) ** 2) - 1
    assert value(units[0], INTERACTIONS) == pytest.approx(2.0 * 2 * term / 4, rel=1e-5)
    assert value(units[0] + units[1], INTERACTIONS) == pytest.approx(2.0 * 4 * term / 8, rel=1e-5)
    assert value(units[0], dataclasses.replace(INTERACTIONS, interaction_weight=0.0)) == 0.0
    # Structures without a group have no interaction energy.
    alone = [sample for sample in samples if sample.group is None][:4]
    assert value(alone, INTERACTIONS) == 0.0


def test_a_scan_is_divided_into_groups_around_the_full_turn() -> None:
    structures, _ = torsion_scans()
    groups = conformer_groups(structures.sources, structures.molecules)
    assert groups == [0, 1, 0, 1, 0, 1, 2, 3, 2, 3, 2, 4, -1]
    # Another molecule between them: two scans.
    assert conformer_groups(["torsion"] * 3, ["a", "b", "a"]) == [0, 1, 2]


def test_conformers_stay_together_and_are_compared_with_their_mean(scans: list) -> None:
    assert sorted(len(unit) for unit in units_of(scans)) == [1, 1, 2, 3, 3, 3]
    for batch in shuffled(scans, 4, np.random.default_rng(0)):
        counts = Counter(sample.conformers for sample in batch if sample.conformers)
        expected_counts = Counter(sample.conformers for sample in scans if sample.conformers)
        assert all(counts[name] == expected_counts[name] for name in counts)
    coefficients = conformer_coefficients(scans)
    assert coefficients is not None
    energies = np.array([sample.energy for sample in scans])
    assert coefficients.shape == (11, 13)
    relative = coefficients @ energies
    assert relative[:3] == pytest.approx(energies[:6:2] - energies[:6:2].mean())
    assert conformer_coefficients(scans[11:]) is None


def test_the_loss_counts_relative_energies_of_conformers(scans: list) -> None:
    settings = TrainingSettings(conformer_scale=0.1, conformer_weight=3.0)
    batch = collate(scans, CUTOFF, CPU)

    def value(errors: torch.Tensor, chosen: TrainingSettings = settings) -> float:
        predictions = Predictions(
            torch.zeros(len(batch.structures)), batch.energies + errors, batch.forces, None
        )
        return float(loss(predictions, batch, chosen, energy_weight=0.0))

    conformer_errors = torch.zeros(13, dtype=torch.float64)
    conformer_errors[0] = 0.3
    terms = [np.sqrt(1 + (error / 0.1) ** 2) - 1 for error in (0.2, 0.1, 0.1)]
    assert value(conformer_errors) == pytest.approx(3.0 * sum(terms) / 13, rel=1e-5)
    # An error that all conformers of a molecule share does not change their relative energies.
    assert value(torch.full((13,), 0.3, dtype=torch.float64)) == pytest.approx(0.0, abs=1e-6)
    assert value(conformer_errors, dataclasses.replace(settings, conformer_weight=0.0)) == 0.0


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("term", ["interaction", "conformer"])
def test_both_gradients_hold_the_differences(
    network: PaiNN, samples: list, scans: list, term: str
) -> None:
    group = next(sample.group for sample in samples if sample.group)
    single = next(sample for sample in samples if sample.group is None)
    chosen = [*group_of(samples, group), single]
    if term == "conformer":
        chosen = [*scans[:6], single]
    batch, pair_batch = collate(chosen, CUTOFF, CPU), PairCollator(CUTOFF)(chosen)
    compiled = CompiledNetwork(network)
    weights = [p for p in network.parameters() if p.requires_grad]
    values = []

    def gradient(settings: TrainingSettings, by_displacement: bool) -> torch.Tensor:
        network.zero_grad(set_to_none=True)
        if by_displacement:
            values.append(
                backward_by_displacement(compiled, pair_batch, settings, energy_weight=0.0)
            )
        else:
            value = loss(
                predict(network, batch, create_graph=True), batch, settings, energy_weight=0.0
            )
            value.backward()
            values.append(value.item())
        return torch.cat(
            [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in weights]
        )

    settings = dataclasses.replace(INTERACTIONS, conformer_scale=0.1)
    without_term = dataclasses.replace(settings, **{f"{term}_weight": 0.0})
    exact = gradient(settings, False) - gradient(without_term, False)
    displaced = gradient(settings, True) - gradient(without_term, True)
    assert exact.norm() > 1e-3
    assert values[0] > values[1]
    assert values[2:] == pytest.approx(values[:2], rel=1e-5)
    # The force term is the same in both gradients, so that it cancels in their difference.
    assert (displaced - exact).norm() < 1e-2 * exact.norm()


def test_errors_of_interactions_are_reported(network: PaiNN, samples: list) -> None:
    errors = evaluate(network, samples, CUTOFF, device=CPU)
    assert errors["dimer"]["complexes"] == errors["all"]["complexes"] == 2 * N_GROUPS
    assert "interaction_mae_kcal_mol" not in errors["md"]
    batch = collate(samples, CUTOFF, CPU)
    predicted = predict(network, batch).energies.detach()
    assert batch.interactions is not None
    expected = (batch.interactions @ (predicted - batch.energies)).abs().mean() / EV_PER_KCAL_MOL
    assert errors["dimer"]["interaction_mae_kcal_mol"] == pytest.approx(float(expected), rel=1e-6)


def test_a_random_selection_of_samples_keeps_groups_whole(path: Path) -> None:
    data = TrainingData([path], TrainingSettings(split="molecule"), CUTOFF)
    chosen = data.chosen("train", 50)
    assert 40 < len(chosen) <= 50
    sizes = Counter(sample.group for sample in chosen if sample.group)
    assert sizes
    assert set(sizes.values()) == {4}


def test_a_subset_includes_the_fragments_of_complexes(path: Path, tmp_path: Path) -> None:
    output = tmp_path / "some.h5"
    command = ["subset", str(path), "-o", str(output), "--part", "train", "--per-source", "5"]
    assert main(command) == 0
    with Dataset(output) as dataset:
        samples = read_samples(dataset, range(len(dataset)), CUTOFF)
    counts = Counter(sample.source for sample in samples)
    assert counts["dimer"] == counts["md"] == 5
    assert counts["fragment"] == 2 * len({s.group for s in samples if s.source == "dimer"})
    coefficients = interaction_coefficients(samples)
    assert coefficients is not None
    assert len(coefficients) == 5
