"""The structures, calculators and measurements of the benchmarks are correct."""

import numpy as np
import pytest
from timing import memory
from timing.dynamics import (
    TimedCalculator,
    ZeroCalculator,
    dynamics,
    nanoseconds_per_day,
    split,
)
from timing.energies import open_energies
from timing.peers import PEERS, open_peer
from timing.structures import SIZES, anisole, condensed, molecular, moved, waters

from ase_student import StudentCalculator
from ase_student.neighbors import neighbor_matrix
from ase_student.testing import TOLERANCES, structure

SMALL = [size for size in SIZES if size <= 1000]


def distances(atoms, cutoff=5.0):
    """Return the distances of each atom to neighbors within the cutoff; padding is infinite."""
    matrix = neighbor_matrix(atoms.positions, atoms.cell.array, atoms.pbc, cutoff)
    offsets = matrix.offsets(atoms.cell.array)
    lengths = np.linalg.norm(
        atoms.positions[matrix.neighbors] + offsets - atoms.positions[:, None], axis=2
    )
    return np.where(lengths < cutoff, lengths, np.inf)


@pytest.mark.parametrize("make", [molecular, condensed])
@pytest.mark.parametrize("n_atoms", SMALL)
def test_structures_have_the_given_size_and_no_clash(make, n_atoms):
    atoms = make(n_atoms)
    assert len(atoms) == n_atoms
    assert set(atoms.numbers) <= {1, 6, 7, 8}
    assert distances(atoms).min() > 0.85


def test_a_liquid_has_many_neighbors_and_molecules_have_few():
    liquid, molecules = (np.isfinite(distances(make(1000))) for make in (condensed, molecular))
    assert 45 < liquid.sum(axis=1).mean() < 60
    assert 12 < molecules.sum(axis=1).mean() < 18


def test_molecules_do_not_interact():
    atoms = molecular(100)
    matrix = neighbor_matrix(atoms.positions, atoms.cell.array, atoms.pbc, 5.0)
    ends = np.cumsum([21, 21, 21, 21, 16])
    molecule = np.searchsorted(ends, np.arange(100), side="right")
    assert (molecule[matrix.neighbors] == molecule[:, None]).all()


def test_anisole_has_sixteen_atoms():
    assert anisole().get_chemical_formula() == "C7H8O"


def test_water_has_the_density_of_the_liquid():
    atoms = waters(64)
    assert atoms.get_chemical_formula() == "H128O64"
    grams_per_cubic_centimeter = atoms.get_masses().sum() * 1.66054 / atoms.get_volume()
    assert grams_per_cubic_centimeter == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(
    "call", [lambda: molecular(50), lambda: condensed(5), lambda: condensed(2)]
)
def test_impossible_sizes_are_refused(call):
    with pytest.raises(ValueError, match="n_atoms must be"):
        call()


def test_every_atom_moves():
    atoms = structure("aspirin")
    shift = np.abs(moved(atoms, np.random.default_rng(0)).positions - atoms.positions)
    assert (shift.max(axis=1) > 0.0).all()
    assert shift.max() < 1e-3


@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_energies_without_forces_are_those_of_the_calculator(calculators, backend):
    if backend == "torch":
        pytest.importorskip("torch")
    atoms = structure("triclinic")
    matrix = neighbor_matrix(atoms.positions, atoms.cell.array, atoms.pbc, 5.0)
    arrays = (
        atoms.numbers.astype(np.int64),
        atoms.positions,
        matrix.neighbors,
        matrix.offsets(atoms.cell.array),
    )
    energies = open_energies("tiny", backend, "cpu", 1)(*arrays)
    calculator = calculators(backend)
    calculator.calculate(atoms)
    assert energies == pytest.approx(
        calculator.results["energies"], abs=TOLERANCES.backend_energy_per_atom
    )


def test_torchscript_without_forces_is_refused():
    with pytest.raises(ValueError, match="cannot skip forces"):
        open_energies("tiny", "torchscript", "cpu", 1)


PARTS_OF_THE_ENGINE = {("native", "neighbors")}


@pytest.mark.parametrize("backend", ["native", "onnx"])
def test_times_of_parts_add_up_and_results_do_not_change(request, backend):
    if backend == "native":
        request.getfixturevalue("engine")
    timed = TimedCalculator("tiny", backend=backend, device="cpu", threads=1, guard="off")
    plain = StudentCalculator("tiny", backend=backend, device="cpu", threads=1, guard="off")
    loops = [dynamics(structure("aspirin"), calculator) for calculator in (timed, plain)]
    for loop in loops:
        loop.run(5)
    assert np.array_equal(loops[0].atoms.positions, loops[1].atoms.positions)
    assert not np.array_equal(loops[0].atoms.positions, structure("aspirin").positions)
    parts = split(timed.watch, 1.0, 5)
    assert sum(parts.values()) == pytest.approx(200.0)
    # The engine's neighbor list is a part of its step.
    assert all(
        percentage > 0.0
        for name, percentage in parts.items()
        if (backend, name) not in PARTS_OF_THE_ENGINE
    )
    spent = timed.watch.seconds
    assert spent["neighbors"] + spent["backend"] < spent["calculator"] < 1.0


def test_dynamics_with_zero_forces_moves_atoms():
    loop = dynamics(structure("aspirin"), ZeroCalculator())
    loop.run(2)
    assert loop.atoms.get_potential_energy() == 0.0
    assert not np.array_equal(loop.atoms.positions, structure("aspirin").positions)


def test_a_millisecond_per_step_is_43_nanoseconds_a_day():
    assert nanoseconds_per_day(1e-3) == pytest.approx(43.2)


def test_operations_grow_with_atoms_and_are_at_least_those_of_the_dense_layers():
    pytest.importorskip("torch")
    from timing.roofline import count_operations

    from ase_student.checkpoint import load_student

    one_molecule, four_molecules = (
        count_operations("tiny", atoms) for atoms in (structure("aspirin"), molecular(100)[:84])
    )
    assert four_molecules == 4 * one_molecule
    # Forward and backward passes: a multiplication and an addition for nearly every weight.
    assert one_molecule > 2 * 21 * load_student("tiny").n_parameters


def test_the_rate_of_matrix_products_is_plausible():
    pytest.importorskip("torch")
    from timing.roofline import multiplication_rate

    assert 1e8 < multiplication_rate("cpu", 1) < 1e14


def test_a_larger_structure_has_a_higher_peak():
    peaks = memory.peak_mb("tiny", "onnx", 1, "condensed", 1000)
    assert 20.0 < peaks["peak_mb_before"] < peaks["peak_mb"] - 100.0


def test_a_failed_process_gives_its_reason():
    with pytest.raises(RuntimeError, match="n_atoms must be 10"):
        memory.peak_mb("tiny", "onnx", 1, "molecular", 50)


def test_unknown_peers_are_refused():
    with pytest.raises(ValueError, match="available: 'SchNetPack"):
        open_peer("nothing", "cpu", 1)


def test_a_missing_peer_names_its_installation(monkeypatch):
    pytest.importorskip("torch")

    def missing(device):
        raise ModuleNotFoundError("no module")

    monkeypatch.setitem(PEERS, "SO3LR", ("so3krates-torch", missing))
    with pytest.raises(ImportError, match="pip install so3krates-torch"):
        open_peer("SO3LR", "cpu", 1)
