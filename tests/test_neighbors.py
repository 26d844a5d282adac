import itertools
import subprocess
import sys

import numpy as np
import pytest
from ase.geometry import complete_cell
from ase.neighborlist import primitive_neighbor_list
from hypothesis import given, settings
from hypothesis import strategies as st

from ase_student import neighbors as module
from ase_student.neighbors import NeighborList, concatenate, neighbor_matrix
from ase_student.testing import STRUCTURES, TOLERANCES, structure

CUTOFF = 5.0
ALL_PBC = list(itertools.product([False, True], repeat=3))
WALKS = [
    "crystal",
    "small_triclinic",
    "wire",
    "triclinic",
    "aspirin",
    "slab",
    "slab_zero_vector",
    "outside",
]


def sort_pairs(first, second, shifts, vectors, cutoff):
    """Return pairs as sorted integers (i, j, shift) and their vectors.

    Pairs at the cutoff to within rounding are left out: they may be listed or not.
    """
    keys = np.column_stack([first, second, shifts]).astype(int).reshape(-1, 5)
    keep = np.linalg.norm(vectors, axis=1) < cutoff - 1e-9
    keys, vectors = keys[keep], vectors[keep]
    order = np.lexsort(keys.T[::-1])
    return keys[order], vectors[order]


def matrix_pairs(neighbors, offsets, positions, cell, pbc, cutoff):
    """Return the pairs of a matrix, with shifts computed from the offsets."""
    n_atoms, n_neighbors = neighbors.shape
    vectors = (positions[neighbors] + offsets - positions[:, None]).reshape(-1, 3)
    inverse = np.linalg.pinv(np.where(np.reshape(pbc, (3, 1)), cell, 0.0))
    shifts = np.round(offsets.reshape(-1, 3) @ inverse)
    first = np.repeat(np.arange(n_atoms), n_neighbors)
    return sort_pairs(first, neighbors.ravel(), shifts, vectors, cutoff)


def ase_pairs(positions, cell, pbc, cutoff):
    # ASE needs independent vectors along open axes too, and much memory if they are short.
    is_periodic = np.reshape(pbc, (3, 1))
    cell = complete_cell(np.where(is_periodic, cell, 0.0)) * np.where(is_periodic, 1.0, 50.0)
    pairs = primitive_neighbor_list("ijSD", pbc, cell, positions, cutoff)
    return sort_pairs(*pairs, cutoff)


def assert_same_pairs(pairs, expected):
    np.testing.assert_array_equal(pairs[0], expected[0])
    np.testing.assert_allclose(pairs[1], expected[1], rtol=0, atol=TOLERANCES.pair_vectors)


def assert_agrees_with_ase(positions, cell, pbc, cutoff):
    matrix = neighbor_matrix(positions, cell, pbc, cutoff)
    pairs = matrix_pairs(matrix.neighbors, matrix.offsets(cell), positions, cell, pbc, cutoff)
    assert_same_pairs(pairs, ase_pairs(positions, cell, pbc, cutoff))


@pytest.mark.parametrize("name", STRUCTURES)
def test_structures_agree_with_ase(name):
    atoms = structure(name)
    assert_agrees_with_ase(atoms.positions, atoms.cell.array, atoms.pbc, CUTOFF)


@pytest.mark.parametrize("pbc", ALL_PBC)
@pytest.mark.parametrize("open_vectors", ["given", "zero", "skewed"])
@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_every_mix_of_periodic_axes_agrees_with_ase(pbc, open_vectors, scale):
    rng = np.random.default_rng(0)
    # The first vector is not along x, nor the third along z.
    cell = scale * np.array([[0.4, 9.0, 1.0], [-1.5, 2.0, 8.0], [10.0, 0.5, -3.0]])
    n_atoms = 4 if scale < 1.0 else 60
    # From one cell below to one cell above the cell.
    positions = rng.uniform(-1.0, 2.0, size=(n_atoms, 3)) @ cell
    is_open = ~np.array(pbc)
    if open_vectors == "zero":
        cell[is_open] = 0.0
    elif open_vectors == "skewed":
        cell[is_open] = [1.0, 2.0, 3.0]
    assert_agrees_with_ase(positions, cell, pbc, CUTOFF)


coordinates = st.floats(-12.0, 12.0).map(lambda x: round(x, 2))


@st.composite
def periodic_structures(draw):
    """Draw positions, cell, pbc and cutoff; cells may be flat along open axes."""
    pbc = np.array(draw(st.tuples(st.booleans(), st.booleans(), st.booleans())))
    lengths = draw(st.lists(st.floats(2.0, 12.0), min_size=3, max_size=3))
    slants = draw(st.lists(st.floats(-1.5, 1.5), min_size=3, max_size=3))
    order = draw(st.permutations(range(3)))
    a, b, c = lengths
    cell = np.array([[a, 0.0, 0.0], [slants[0] * b, b, 0.0], [slants[1] * c, slants[2] * c, c]])[
        order
    ][:, draw(st.permutations(range(3)))]
    if draw(st.booleans()):
        cell[~pbc] = 0.0
    n_atoms = draw(st.integers(1, 6))
    sites = st.lists(
        st.tuples(coordinates, coordinates, coordinates), min_size=n_atoms, max_size=n_atoms
    )
    # Keep rounded coordinates from falling on each other, or on each other's images.
    nudges = np.random.default_rng(draw(st.integers(0, 99))).uniform(0.001, 0.009, (n_atoms, 3))
    return np.array(draw(sites)) + nudges, cell, pbc, draw(st.floats(1.0, 6.0))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(periodic_structures())
def test_any_structure_agrees_with_ase(drawn):
    positions, cell, pbc, cutoff = drawn
    assert_agrees_with_ase(positions, cell, pbc, cutoff)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(periodic_structures(), st.sampled_from([1.0, 2.0, 4.0]), st.integers(0, 7))
def test_any_structure_without_its_empty_space_agrees_with_ase(drawn, stretch, corner):
    positions, cell, pbc, cutoff = drawn
    # Gaps of any width, at faces of the cell and inside.
    positions = np.where(positions > 0.0, positions * stretch, positions)
    positions += 0.3 * corner
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MOST_BINS_PER_ATOM", 0.0)
        patch.setattr(module, "LARGEST_ALL_PAIRS", 0)
        assert_agrees_with_ase(positions, cell, pbc, cutoff)


@pytest.mark.parametrize("name", STRUCTURES)
def test_shapes_types_and_padding(name):
    atoms = structure(name)
    matrix = neighbor_matrix(atoms.positions, atoms.cell, atoms.pbc, CUTOFF)
    offsets = matrix.offsets(atoms.cell)
    n_atoms, n_neighbors = matrix.neighbors.shape
    assert n_atoms == len(atoms)
    assert n_neighbors >= 1
    assert matrix.neighbors.dtype == np.int64
    assert offsets.shape == (n_atoms, n_neighbors, 3)
    assert offsets.dtype == np.float64
    own = np.broadcast_to(np.arange(n_atoms)[:, None], matrix.neighbors.shape)
    assert (matrix.neighbors[matrix.is_padding] == own[matrix.is_padding]).all()
    assert (offsets[matrix.is_padding] == [2 * CUTOFF, 0.0, 0.0]).all()
    # Padding comes last, and at least one row has no padding.
    assert (np.sort(matrix.is_padding, axis=1) == matrix.is_padding).all()
    assert n_neighbors == 1 or not matrix.is_padding.all(axis=0).any()


@pytest.mark.parametrize("name", STRUCTURES)
def test_every_pair_is_listed_in_both_directions(name):
    atoms = structure(name)
    matrix = neighbor_matrix(atoms.positions, atoms.cell, atoms.pbc, CUTOFF)
    first, column = np.nonzero(~matrix.is_padding)
    second, shifts = matrix.neighbors[first, column], matrix.shifts[first, column]
    forward = np.column_stack([first, second, shifts])
    backward = np.column_stack([second, first, -shifts])
    assert (forward[np.lexsort(forward.T)] == backward[np.lexsort(backward.T)]).all()


@pytest.mark.parametrize("name", ["aspirin", "outside", "thousand_atoms"])
def test_neighbors_have_a_fixed_order(name):
    atoms = structure(name)
    matrix = neighbor_matrix(atoms.positions, atoms.cell, atoms.pbc, CUTOFF)
    repeated = neighbor_matrix(atoms.positions, atoms.cell, atoms.pbc, CUTOFF)
    np.testing.assert_array_equal(matrix.neighbors, repeated.neighbors)
    np.testing.assert_array_equal(matrix.shifts, repeated.shifts)
    steps = np.diff(np.where(matrix.is_padding, len(atoms), matrix.neighbors), axis=1)
    assert (steps >= 0).all()


@pytest.mark.parametrize("name", ["atom", "far_pair", "aspirin", "slab"])
def test_both_searches_give_the_same_matrix(name, monkeypatch):
    atoms = structure(name)
    tabulated = neighbor_matrix(atoms.positions, np.zeros((3, 3)), [False] * 3, CUTOFF)
    monkeypatch.setattr(module, "LARGEST_ALL_PAIRS", 0)
    searched = neighbor_matrix(atoms.positions, np.zeros((3, 3)), [False] * 3, CUTOFF)
    np.testing.assert_array_equal(tabulated.neighbors, searched.neighbors)
    np.testing.assert_array_equal(tabulated.is_padding, searched.is_padding)
    assert not searched.shifts.any()


@pytest.mark.parametrize(
    ("far", "cell"),
    [
        ([1e6, 0.0, 0.0], None),
        ([4000.0, 4000.0, 0.0], None),
        ([-9e7, 9e7, 9e7], None),
        ([4000.0, 4000.0, 0.0], [9000.0, 9000.0, 6.0]),
        ([0.0, 0.0, 4e5], [6.0, 5.0, 1e6]),
    ],
)
def test_atoms_may_be_very_far_apart(far, cell, monkeypatch):
    # vesin divides by zero and kills the process for some of these if called naively.
    monkeypatch.setattr(module, "LARGEST_ALL_PAIRS", 0)
    pbc = [cell is not None] * 3
    cell = np.diag(np.zeros(3) if cell is None else cell)
    matrix = neighbor_matrix([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], far], cell, pbc, 3.0)
    assert matrix.neighbors[:2, 0].tolist() == [1, 0]
    assert (~matrix.is_padding).sum() == 2


@pytest.mark.parametrize(
    ("far", "cell", "pbc"),
    [
        ([4e5, 3e5, 2e5], np.diag([1e6, 1e6, 1e6]), True),
        ([4e5, 3e5, 2e5], [[1e6, 0, 0], [3e5, 9e5, 0], [2e5, -4e5, 8e5]], True),
        ([9e7, 9e7, -9e7], np.diag([20.0, 0.0, 0.0]), [True, False, False]),
        ([0.0, 9e7, 9e7], np.diag([0.7, 0.0, 0.0]), [True, False, False]),
        ([0.0, 0.0, 8e6], np.diag([6.0, 6.0, 9e6]), True),
    ],
)
def test_empty_space_needs_no_memory(far, cell, pbc):
    cell, pbc = np.array(cell, dtype=float), np.broadcast_to(pbc, 3)
    wrapped = [1.0, 0.0, 0.0] - 3.0 * cell[2] * pbc[2]
    matrix = neighbor_matrix([[0.0, 0.0, 0.0], wrapped, far], cell, pbc, 3.0)
    vectors = matrix.offsets(cell)
    positions = np.array([[0.0, 0.0, 0.0], wrapped, far])
    vectors += positions[matrix.neighbors] - positions[:, None]
    distances = np.linalg.norm(vectors, axis=2)[~matrix.is_padding]
    # Only the pair and, in cells smaller than the cutoff, images along one axis.
    multiples = np.arange(-5, 6) * cell[0, 0]
    expected = [
        *np.abs(multiples - 1.0),
        *np.abs(multiples + 1.0),
        *3 * [*np.abs(multiples[multiples != 0])],
    ]
    expected = np.sort([d for d in expected if d < 3.0])
    np.testing.assert_allclose(np.sort(distances), expected, atol=1e-7)


def test_skin_adds_pairs_and_keeps_the_padding():
    positions = [[0.0, 0.0, 0.0], [5.3, 0.0, 0.0], [20.0, 0.0, 0.0]]
    matrix = neighbor_matrix(positions, np.zeros((3, 3)), [False] * 3, CUTOFF, skin=0.5)
    assert matrix.is_padding.ravel().tolist() == [False, False, True]
    assert matrix.offsets(np.zeros((3, 3)))[2, 0].tolist() == [2 * CUTOFF, 0.0, 0.0]


PAIR = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
CUBE = 4.0 * np.eye(3)
FLAT = np.array([[4.0, 0.0, 0.0], [0.0, 4.0, 0.0], [4.0, 4.0, 0.0]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((0, 3)), CUBE, True, 5.0), "no atoms"),
        ((PAIR[:, :2], CUBE, True, 5.0), r"shape \(2, 2\)"),
        ((PAIR, np.eye(2), True, 5.0), r"shape \(2, 2\)"),
        ((PAIR * [[1], [np.nan]], CUBE, True, 5.0), "atom 1 are not"),
        ((PAIR + np.inf, CUBE, False, 5.0), "atoms 0, 1 are not"),
        ((np.full((40, 3), np.nan), CUBE, False, 5.0), "atoms 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, … are"),
        ((PAIR * 1e12, CUBE, True, 5.0), "atom 1 are not"),
        ((PAIR, CUBE + 1e12 * np.eye(3, 3, 1), True, 5.0), r"component of 1\.0e\+12 Å"),
        ((PAIR, CUBE * np.nan, False, 5.0), "NaN or infinite"),
        ((PAIR, np.diag([4.0, 4.0, 0.0]), True, 5.0), "axis 2 is periodic"),
        ((PAIR, FLAT, True, 5.0), "linearly dependent"),
        ((PAIR, FLAT + 1e-9 * np.eye(3), True, 5.0), "linearly dependent"),
        ((PAIR, [[4, 0, 0], [8, 0, 0], [0, 0, 4]], [True, True, False], 5.0), "dependent"),
        ((PAIR, CUBE, True, 0.0), "cutoff is 0.0 Å"),
        ((PAIR, CUBE, True, np.nan), "cutoff is nan Å"),
        ((PAIR, CUBE, True, 5.0, -0.1), "skin is -0.1 Å"),
        ((PAIR * 1e-8, CUBE, False, 5.0), "atoms 0 and 1 are on one spot"),
        ((PAIR * 4.0, CUBE, True, 5.0), "atoms 0 and 1 are on one spot"),
    ],
)
def test_bad_input_is_refused(arguments, message):
    positions, cell, pbc, *rest = arguments
    pbc = np.broadcast_to(pbc, 3)
    with pytest.raises(ValueError, match=message):
        neighbor_matrix(positions, cell, pbc, *rest)


def test_vesin_is_imported_when_needed():
    code = (
        "import sys, numpy as np; from ase_student.neighbors import neighbor_matrix; "
        "neighbor_matrix(np.eye(3), np.eye(3), [False] * 3, 5.0); "
        "assert 'vesin' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_concatenated_structures_keep_their_neighbors():
    all_atoms = [structure(name) for name in ("aspirin", "atom", "triclinic", "slab")]
    parts = []
    for atoms in all_atoms:
        matrix = neighbor_matrix(atoms.positions, atoms.cell, atoms.pbc, CUTOFF)
        parts.append((matrix.neighbors, matrix.offsets(atoms.cell)))
    neighbors, offsets = concatenate(parts, CUTOFF)
    assert neighbors.shape == (sum(map(len, all_atoms)), max(n.shape[1] for n, _ in parts))
    assert neighbors.dtype == np.int64
    start = 0
    for own_neighbors, own_offsets in parts:
        n_atoms, used = own_neighbors.shape
        rows = slice(start, start + n_atoms)
        np.testing.assert_array_equal(neighbors[rows, :used], own_neighbors + start)
        np.testing.assert_array_equal(offsets[rows, :used], own_offsets)
        own = np.arange(start, start + n_atoms)[:, None]
        assert (neighbors[rows, used:] == own).all()
        assert (offsets[rows, used:] == [2 * CUTOFF, 0.0, 0.0]).all()
        start += n_atoms


def test_an_empty_list_cannot_be_concatenated():
    with pytest.raises(ValueError, match="at least one"):
        concatenate([], CUTOFF)


def assert_list_is_complete(neighbor_list, atoms):
    geometry = (atoms.positions, atoms.cell.array, atoms.pbc)
    neighbors, offsets = neighbor_list.update(*geometry, atoms.numbers)
    cutoff = neighbor_list.cutoff
    fresh = neighbor_matrix(*geometry, cutoff)
    expected = matrix_pairs(fresh.neighbors, fresh.offsets(geometry[1]), *geometry, cutoff)
    assert_same_pairs(matrix_pairs(neighbors, offsets, *geometry, cutoff), expected)


@pytest.mark.parametrize("name", WALKS)
@pytest.mark.parametrize("scale_atoms", [True, False])
def test_random_walk_gives_the_pairs_of_a_fresh_list(name, scale_atoms):
    rng = np.random.default_rng(5)
    atoms = structure(name)
    neighbor_list = NeighborList(CUTOFF, skin=0.6)
    for step in range(60):
        strain = np.eye(3) + rng.normal(scale=0.002 if step % 7 else 0.03, size=(3, 3))
        atoms.set_cell(atoms.cell.array @ strain, scale_atoms=scale_atoms and atoms.cell.rank == 3)
        atoms.positions += rng.normal(scale=0.02, size=atoms.positions.shape)
        if step % 11 == 5:
            atoms.wrap()
        if step % 13 == 7:
            atoms.positions[rng.integers(len(atoms))] += rng.normal(scale=2.0, size=3)
        if step % 17 == 9:
            atoms.positions += rng.normal(scale=5.0, size=3)
        assert_list_is_complete(neighbor_list, atoms)
    assert neighbor_list.n_updates == 60
    # The walk must test both reused and rebuilt lists.
    assert 2 <= neighbor_list.n_rebuilds <= 45


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    periodic_structures(),
    st.floats(0.0, 1.5),
    st.floats(0.0, 0.15),
    st.floats(0.0, 0.6),
    st.integers(0, 2**32 - 1),
)
def test_any_motion_gives_the_pairs_of_a_fresh_list(drawn, skin, strain, step, seed):
    positions, cell, pbc, cutoff = drawn
    rng = np.random.default_rng(seed)
    neighbor_list = NeighborList(cutoff, skin)
    numbers = np.ones(len(positions), dtype=int)
    neighbor_list.update(positions, cell, pbc, numbers)
    deformation = np.eye(3) + rng.uniform(-strain, strain, size=(3, 3))
    cell = cell @ deformation
    positions = positions @ deformation + rng.uniform(-step, step, size=positions.shape)
    neighbors, offsets = neighbor_list.update(positions, cell, pbc, numbers)
    pairs = matrix_pairs(neighbors, offsets, positions, cell, pbc, cutoff)
    assert_same_pairs(pairs, ase_pairs(positions, cell, pbc, cutoff))


def moved_pair(*updates):
    """Return a list (cutoff 5 Å, skin 0.5 Å) updated with two atoms at each of these distances."""
    neighbor_list = NeighborList(CUTOFF, skin=0.5)
    for distance in updates:
        positions = np.array([[-distance / 2, 0.0, 0.0], [distance / 2, 0.0, 0.0]])
        neighbors, _ = neighbor_list.update(positions, np.zeros((3, 3)), [False] * 3, [1, 1])
    return neighbor_list, neighbors


def test_list_is_reused_until_the_skin_is_used_up():
    neighbor_list, neighbors = moved_pair(5.501, 5.002)
    assert neighbor_list.n_rebuilds == 1
    assert neighbors.tolist() == [[0], [1]]
    neighbor_list, neighbors = moved_pair(5.501, 4.999)
    assert neighbor_list.n_rebuilds == 2
    assert neighbors.tolist() == [[1], [0]]


def test_crystal_is_reused_until_the_skin_is_used_up_by_strain():
    neighbor_list = NeighborList(CUTOFF, skin=0.5)
    rebuilds = []
    for length in (5.501, 5.002, 4.999):
        cell = np.diag([length, 9.0, 9.0])
        neighbors, _ = neighbor_list.update([[1.0, 2.0, 3.0]], cell, [True] * 3, [1])
        rebuilds.append(neighbor_list.n_rebuilds)
    assert rebuilds == [1, 1, 2]
    assert neighbors.tolist() == [[0, 0]]


def updated(name="triclinic", skin=0.5):
    atoms = structure(name)
    neighbor_list = NeighborList(CUTOFF, skin)
    neighbor_list.update(atoms.positions, atoms.cell, atoms.pbc, atoms.numbers)
    return neighbor_list, atoms


def translate(atoms):
    atoms.positions += [30.0, -20.0, 10.0]


def move_a_little(atoms):
    atoms.positions[0] += 0.2


def strain_a_little(atoms):
    atoms.set_cell(atoms.cell.array * 1.01, scale_atoms=True)


def strain_around_the_center(atoms):
    center = atoms.positions.mean(axis=0)
    strain_a_little(atoms)
    atoms.positions += center - atoms.positions.mean(axis=0)


@pytest.mark.parametrize(
    "change", [translate, move_a_little, strain_a_little, strain_around_the_center]
)
def test_list_is_reused_after(change):
    neighbor_list, atoms = updated()
    change(atoms)
    assert_list_is_complete(neighbor_list, atoms)
    assert neighbor_list.n_rebuilds == 1


def change_a_kind(atoms):
    atoms.numbers[0] = 16


def remove_an_atom(atoms):
    del atoms[-1]


def open_an_axis(atoms):
    atoms.pbc = [True, True, False]


def wrap_an_atom(atoms):
    atoms.positions[3] += atoms.cell[1]


def jump(atoms):
    atoms.positions[2] += 3.0


def strain_much(atoms):
    atoms.set_cell(atoms.cell.array * 0.8, scale_atoms=True)


def exchange_cell_vectors(atoms):
    atoms.cell = atoms.cell.array[[1, 0, 2]]


@pytest.mark.parametrize(
    "change",
    [
        change_a_kind,
        remove_an_atom,
        open_an_axis,
        wrap_an_atom,
        jump,
        strain_much,
        exchange_cell_vectors,
    ],
)
def test_list_is_rebuilt_after(change):
    neighbor_list, atoms = updated()
    change(atoms)
    assert_list_is_complete(neighbor_list, atoms)
    assert neighbor_list.n_rebuilds == 2


def test_without_a_skin_every_update_rebuilds():
    neighbor_list, atoms = updated(skin=0.0)
    for _ in range(3):
        assert_list_is_complete(neighbor_list, atoms)
    assert neighbor_list.n_updates == neighbor_list.n_rebuilds == 4


def test_the_cell_of_a_molecule_has_no_influence():
    neighbor_list, atoms = updated("aspirin")
    atoms.center(vacuum=4.0)
    assert_list_is_complete(neighbor_list, atoms)
    assert neighbor_list.n_rebuilds == 1


def test_arrays_are_the_same_objects_until_they_change():
    neighbor_list, atoms = updated()
    other_arguments = (atoms.pbc, atoms.numbers)
    neighbors, offsets = neighbor_list.update(atoms.positions, atoms.cell, *other_arguments)
    moved = neighbor_list.update(atoms.positions + 0.01, atoms.cell, *other_arguments)
    assert moved[0] is neighbors
    assert moved[1] is offsets
    offsets_before = offsets.copy()
    strained = neighbor_list.update(atoms.positions, atoms.cell * 1.001, *other_arguments)
    assert strained[0] is neighbors
    assert strained[1] is not offsets
    np.testing.assert_array_equal(offsets, offsets_before)
    assert neighbor_list.n_rebuilds == 1


@pytest.mark.parametrize(
    ("positions_factor", "cell_factor", "message"),
    [
        (np.nan, 1.0, "positions must be finite"),
        (0.0, 1.0, "on one spot"),
        (1.0, np.nan, "NaN or infinite"),
        (1e9, 1.0, "positions must be finite and below 1e"),
        (1.0, 1e9, "cell has a periodic axis with a component of"),
        (1e9, 1e9, "positions must be finite and below 1e"),
        (1.0, [[1.0], [1.0], [0.0]], "axis 2 is periodic"),
    ],
)
def test_list_refuses_bad_input_and_stays_usable(positions_factor, cell_factor, message):
    neighbor_list, atoms = updated()
    positions, cell = atoms.positions * positions_factor, atoms.cell.array * cell_factor
    with pytest.raises(ValueError, match=message):
        neighbor_list.update(positions, cell, atoms.pbc, atoms.numbers)
    strain_a_little(atoms)
    assert_list_is_complete(neighbor_list, atoms)
    assert neighbor_list.n_rebuilds == 1


@pytest.mark.parametrize("far", [1e8, 1e15])
@pytest.mark.parametrize("name", ["aspirin", "triclinic"])
def test_a_kept_list_refuses_atoms_moved_too_far(name, far):
    neighbor_list, atoms = updated(name)
    neighbor_list.update(atoms.positions + 1e7, atoms.cell, atoms.pbc, atoms.numbers)
    assert neighbor_list.n_rebuilds == 1
    with pytest.raises(ValueError, match="positions must be finite and below 1e"):
        neighbor_list.update(atoms.positions + far, atoms.cell, atoms.pbc, atoms.numbers)


@pytest.mark.parametrize("arguments", [(0.0, 0.5), (np.inf, 0.5), (5.0, -1.0), (5.0, np.nan)])
def test_list_refuses_bad_distances(arguments):
    with pytest.raises(ValueError, match=r"must be"):
        NeighborList(*arguments)
