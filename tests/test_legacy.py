import io
import json
import os
import pathlib
import re
import warnings
import zipfile
from itertools import product

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.neighborlist import neighbor_list

torch = pytest.importorskip("torch")

from ase_student import legacy  # noqa: E402
from ase_student.checkpoint import load_student  # noqa: E402
from ase_student.networks import build_network, build_potential  # noqa: E402
from ase_student.testing import TOLERANCES, small_structures, structure  # noqa: E402

REFERENCE = pathlib.Path(__file__).resolve().parents[2] / "shared" / "reference"
SIZES = {(128, 3, 20): 427_292, (64, 2, 12): 77_203, (32, 2, 10): 21_459}
SMALL = (32, 2, 10)
WRAPPERS = ("model_state_dict", "state_dict", None)
PREFIXES = ("", "model.", "module.model.", "model.module.", "_orig_mod.", "module._orig_mod.model.")

# Largest differences allowed, in eV and eV/Å.
REFERENCE_TOLERANCE = {
    torch.float64: TOLERANCES.legacy_energy_float64,
    torch.float32: TOLERANCES.legacy_energy_float32,
}
SCRIPT_TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
ONNX_TOLERANCE = 1e-12


# --- material ----------------------------------------------------------------------------------


def synthetic_tensors(hidden, n_blocks, n_rbf, max_z=100):
    """Return random weights of a size that gives energies and forces of order 1."""
    rng = np.random.default_rng(0)
    shapes = legacy.LegacyArchitecture(hidden, n_blocks, n_rbf, max_z).shapes
    tensors = {}
    for name, shape in shapes.items():
        scale = 0.1 if len(shape) == 1 else shape[1] ** -0.5
        tensors[name] = rng.normal(scale=scale, size=shape).astype(np.float32)
        if name.endswith("mixing_matrix"):
            tensors[name] += np.eye(3, dtype=np.float32)
    tensors["embedding.weight"] *= hidden**0.5
    tensors["rbf.centers"] = np.linspace(0, 5, n_rbf, dtype=np.float32)
    tensors["rbf.widths"] = np.full(n_rbf, 5 / n_rbf, dtype=np.float32)
    return tensors


def write_checkpoint(path, tensors, wrapper="model_state_dict", prefix="", **entries):
    state = {prefix + name: torch.as_tensor(array) for name, array in tensors.items()}
    if wrapper is not None:
        # The configuration belongs to the training: sizes must not be read from it.
        state = {"epoch": 49, wrapper: state, "config": {"batch_size": 16, "hidden_dim": 7}}
    torch.save(state | entries, path)
    return path


def network_inputs(atoms, extra=0):
    """Return the four inputs of a potential, with neighbors also beyond the cutoff."""
    i, j, shifts = neighbor_list("ijS", atoms, legacy.CUTOFF + 0.5)
    counts = np.bincount(i, minlength=len(atoms))
    shape = (len(atoms), max(1, counts.max()) + extra)
    neighbors = np.repeat(np.arange(len(atoms))[:, None], shape[1], axis=1)
    offsets = np.zeros((*shape, 3))
    offsets[..., 0] = 2 * legacy.CUTOFF
    slot = np.arange(len(i)) - np.repeat(np.cumsum(counts) - counts, counts)
    neighbors[i, slot] = j
    offsets[i, slot] = shifts @ atoms.cell.array
    arrays = (atoms.numbers.astype(np.int64), atoms.positions.copy(), neighbors, offsets)
    return tuple(torch.from_numpy(array) for array in arrays)


def structures():
    """Return the common structures and two that are special to these networks."""
    return small_structures() | {
        # Within the skin of the list, but beyond the cutoff.
        "beyond": Atoms("CO", [[0, 0, 0], [0, 0, legacy.CUTOFF + 0.2]]),
        # The vector features of the carbon cancel.
        "methane": molecule("CH4"),
    }


STRUCTURES = structures()


@pytest.fixture(params=STRUCTURES)
def atoms(request):
    return STRUCTURES[request.param]


@pytest.fixture(scope="module")
def small():
    """Architecture and tensors of a small synthetic network."""
    architecture = legacy.LegacyArchitecture(*SMALL, max_z=100)
    return architecture, synthetic_tensors(*SMALL)


@pytest.fixture(scope="module")
def reference():
    """Architecture, tensors and known energies of a real checkpoint."""
    if not REFERENCE.is_dir():
        pytest.skip("needs the reference folder")
    known_energies = json.loads((REFERENCE / "legacy_tiny.json").read_text())
    return *legacy.read_checkpoint(REFERENCE / "legacy_tiny.pt"), known_energies


def by_autograd(network, inputs):
    """Return energies, forces and summed symmetric virial by differentiating the network."""
    numbers, positions, neighbors, offsets = inputs
    positions = positions.clone().requires_grad_(True)
    strain = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    deform = torch.eye(3, dtype=torch.float64) + (strain + strain.T) / 2
    energies = network(numbers, positions @ deform, neighbors, offsets @ deform)
    gradient, virial = torch.autograd.grad(energies.sum(), [positions, strain])
    return energies.detach(), -gradient, virial


def largest_difference(computed, expected):
    pairs = [map(torch.as_tensor, pair) for pair in zip(computed, expected, strict=True)]
    return max((a.detach() - b.detach()).abs().max().item() for a, b in pairs)


# --- reading -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("prefix", PREFIXES)
def test_reads_every_size_wrapper_and_prefix(tmp_path, size, wrapper, prefix):
    tensors = synthetic_tensors(*size)
    path = write_checkpoint(tmp_path / "best_model.pt", tensors, wrapper, prefix)
    architecture, tensors_read = legacy.read_checkpoint(str(path))
    assert (architecture.hidden, architecture.n_blocks, architecture.n_rbf) == size
    assert architecture.max_z == 100
    assert architecture.cutoff == 5.0
    assert architecture.n_parameters == SIZES[size]
    assert architecture.elements == tuple(range(1, 101))
    assert tensors_read.keys() == tensors.keys()
    for name, array in tensors.items():
        np.testing.assert_array_equal(tensors_read[name], array)


def test_reads_files_of_old_torch_and_other_precisions(tmp_path, small):
    state = {name: torch.from_numpy(array).double() for name, array in small[1].items()}
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert legacy.read_checkpoint(tmp_path / "old.pt")[1]["rbf.widths"].dtype == np.float64
    torch.save({name: t.bfloat16() for name, t in state.items()}, tmp_path / "half.pt")
    assert legacy.read_checkpoint(tmp_path / "half.pt")[1]["rbf.widths"].dtype == np.float32


def test_loads_as_a_student_with_a_warning(tmp_path, small):
    path = write_checkpoint(tmp_path / "best_model.pt", small[1])
    with pytest.warns(UserWarning, match=r"'best_model\.pt' is a first-generation") as caught:
        student = load_student(path)
    assert caught[0].filename == __file__
    assert student.architecture == small[0]
    assert student.elements == tuple(range(1, 101))
    assert student.cutoff == 5.0
    assert set(student.reference_energies.values()) == {0.0}
    inputs = network_inputs(STRUCTURES["aspirin"])
    energies = build_potential(student, torch.float64)(*inputs)[0]
    assert largest_difference([energies], [build_network(student, torch.float64)(*inputs)]) <= 1e-10


def test_strips_prefixes_from_the_front_only():
    assert legacy._strip_prefixes("model.model.module.rbf.centers") == "rbf.centers"
    for key in ("energy_head.model.weight", "supermodel.weight", "model_rbf.centers"):
        assert legacy._strip_prefixes("module." + key) == key


def missing(tensors):
    del tensors["interactions.1.update.mixing_matrix"]
    return r"'interactions.1.update.mixing_matrix' is missing; expected shape \(3, 3\)"


def no_embedding(tensors):
    del tensors["embedding.weight"]
    return "'embedding.weight' is missing"


def no_blocks(tensors):
    for name in [name for name in tensors if name.startswith("interactions.")]:
        del tensors[name]
    return "expected at least one interaction block"


def gap_in_blocks(tensors):
    for name in [name for name in tensors if name.startswith("interactions.1.")]:
        tensors[name.replace(".1.", ".7.", 1)] = tensors.pop(name)
    return r"'interactions\.7\.[a-z_.0]+' is unknown"


def extra(tensors):
    tensors["energy_head.model.weight"] = np.zeros((3, 3), np.float32)
    return "'energy_head.model.weight' is unknown"


def duplicate(tensors):
    tensors["module.rbf.widths"] = tensors["rbf.widths"]
    return "'rbf.widths' is there twice, once as 'module.rbf.widths'"


def misshapen(tensors):
    tensors["energy_head.2.bias"] = np.zeros(9, np.float32)
    return r"'energy_head.2.bias' has shape \(9,\); expected \(8,\)"


def misshapen_embedding(tensors):
    tensors["embedding.weight"] = np.zeros((0, 32), np.float32)
    return r"'embedding.weight' has shape \(0, 32\)"


def not_a_number(tensors):
    tensors["rbf.centers"][3] = np.nan
    return "'rbf.centers' holds NaN or infinite"


def infinite(tensors):
    tensors["embedding.weight"][99, 0] = np.inf
    return "'embedding.weight' holds NaN or infinite"


def zero_width(tensors):
    tensors["rbf.widths"][0] = 0
    return "'rbf.widths' holds values <= 0"


def integers(tensors):
    tensors["energy_head.0.bias"] = np.zeros(16, np.int64)
    return "'energy_head.0.bias' should be a tensor of floats, not of torch.int64"


WRONG = [missing, no_embedding, no_blocks, gap_in_blocks, extra, duplicate]
WRONG += [misshapen, misshapen_embedding, not_a_number, infinite, zero_width, integers]


@pytest.mark.parametrize("damage", WRONG)
def test_refuses_wrong_tensors_by_name(tmp_path, damage):
    tensors = synthetic_tensors(*SMALL)
    message = damage(tensors)
    path = write_checkpoint(tmp_path / "bad.pt", tensors)
    with pytest.raises(ValueError, match=message) as caught:
        legacy.read_checkpoint(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


class RunsCode:
    def __reduce__(self):
        return os.mkdir, (os.environ["LEGACY_TEST_FOLDER"],)


def test_refuses_pickled_code_without_running_it(tmp_path, small, monkeypatch):
    monkeypatch.setenv("LEGACY_TEST_FOLDER", str(tmp_path / "made by the pickle"))
    path = write_checkpoint(tmp_path / "evil.pt", small[1], extra=RunsCode())
    with pytest.raises(ValueError, match=r"needs pickle to build '\w+\.mkdir'"):
        legacy.read_checkpoint(path)
    assert not (tmp_path / "made by the pickle").exists()


def test_refuses_objects_in_the_configuration(tmp_path, small):
    path = write_checkpoint(tmp_path / "path.pt", small[1], config=pathlib.PurePosixPath("data"))
    with pytest.raises(ValueError, match=r"needs pickle to build 'pathlib\.[.\w]*PurePosixPath'"):
        legacy.read_checkpoint(path)


def foreign_files(folder, small):
    """Write files that are no checkpoints; return the message each of them must get."""
    valid = write_checkpoint(folder / "valid.pt", small[1]).read_bytes()
    (folder / "empty.pt").write_bytes(b"")
    (folder / "text.pt").write_text("embedding.weight 1 2 3\n")
    (folder / "zeros.pt").write_bytes(bytes(1000))
    (folder / "truncated.pt").write_bytes(valid[: len(valid) // 2])
    with zipfile.ZipFile(folder / "archive.pt", "w") as archive:
        archive.writestr("notes/readme.txt", "no weights here")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Identity()), folder / "script.pt")
    torch.save([1, 2], folder / "list.pt")
    torch.save({}, folder / "nothing.pt")
    torch.save({"weight": 3}, folder / "numbers.pt")
    (folder / "folder.pt").mkdir()
    kinds = dict.fromkeys(["empty", "text", "zeros", "truncated", "archive"], "not a PyTorch")
    kinds |= {"script": "is a TorchScript file", "folder": "is not a file"}
    return kinds | {"list": "no state dict", "nothing": "no state dict", "numbers": "not int"}


def test_refuses_files_of_other_kinds_in_one_sentence(tmp_path, small):
    for name, message in foreign_files(tmp_path, small).items():
        path = tmp_path / f"{name}.pt"
        with pytest.raises(ValueError, match=message) as caught:
            legacy.read_checkpoint(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match=r"absent\.pt"):
        legacy.read_checkpoint(tmp_path / "absent.pt")


@pytest.mark.parametrize("size", [16, 512])
def test_zeroed_blocks_are_detected(tmp_path, small, size):
    content = write_checkpoint(tmp_path / "whole.pt", small[1]).read_bytes()
    expected = legacy.read_checkpoint(tmp_path / "whole.pt")[1]
    path = tmp_path / "damaged.pt"
    n_refused = 0
    for start in np.random.default_rng(size).integers(len(content) - size, size=60):
        damaged = bytearray(content)
        damaged[start : start + size] = bytes(size)
        path.write_bytes(damaged)
        try:
            _, tensors = legacy.read_checkpoint(path)
        except ValueError:
            n_refused += 1
        else:
            # Only bytes between the parts of the file may change without an error.
            for name, tensor in expected.items():
                np.testing.assert_array_equal(tensors[name], tensor)
    assert n_refused > 30


def test_refuses_archives_that_unpack_to_more_than_any_student(tmp_path, small):
    path = tmp_path / "packed.pt"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("archive/data/0", "w") as member,
    ):
        for _ in range(600):
            member.write(bytes(2**20))
    assert path.stat().st_size < 2**20
    with pytest.raises(ValueError, match=r"packed\.pt' unpacks to 629 MB; allowed are 537 MB"):
        legacy.read_checkpoint(path)


# --- the function ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", REFERENCE_TOLERANCE)
@pytest.mark.parametrize("build", [legacy.build_network, legacy.build_potential])
def test_reproduces_the_original_energies(reference, build, dtype):
    architecture, tensors, known_energies = reference
    assert architecture.n_parameters == 77_203
    module = build(architecture, tensors, dtype)
    for entry in known_energies.values():
        output = module(*network_inputs(Atoms(entry["numbers"], entry["positions"])))
        energies = output[0] if isinstance(output, tuple) else output
        total = energies.detach().double().sum().item()
        assert abs(total - entry["energy"]) <= REFERENCE_TOLERANCE[dtype]


def assert_equals_autograd(network, atoms):
    inputs = network_inputs(atoms)
    energies, forces, virials = legacy.LegacyPotential(network)(*inputs)
    expected_energies, expected_forces, expected_virial = by_autograd(network, inputs)
    assert largest_difference([energies], [expected_energies]) <= TOLERANCES.legacy_energy_float64
    assert largest_difference([forces], [expected_forces]) <= TOLERANCES.autograd_forces
    assert largest_difference([virials.sum(0)], [expected_virial]) <= TOLERANCES.autograd_virial


@pytest.mark.parametrize("size", SIZES)
def test_forces_by_hand_equal_autograd(size, atoms):
    architecture = legacy.LegacyArchitecture(*size, max_z=100)
    network = legacy.build_network(architecture, synthetic_tensors(*size), torch.float64)
    assert_equals_autograd(network, atoms)


def test_forces_by_hand_equal_autograd_for_real_weights(reference, atoms):
    assert_equals_autograd(legacy.build_network(*reference[:2], torch.float64), atoms)


def test_forces_by_hand_equal_autograd_in_a_large_box():
    architecture = legacy.LegacyArchitecture(8, 2, 6, max_z=17)
    tensors = synthetic_tensors(8, 2, 6, max_z=17)
    network = legacy.build_network(architecture, tensors, torch.float64)
    assert_equals_autograd(network, structure("thousand_atoms"))


@pytest.mark.parametrize("name", ["small_triclinic", "wire", "eight_elements"])
def test_forces_and_virial_are_derivatives_of_the_energy(small, name):
    numbers, positions, neighbors, offsets = network_inputs(STRUCTURES[name])
    potential = legacy.build_potential(*small, torch.float64)
    _, forces, virials = potential(numbers, positions, neighbors, offsets)
    volume = STRUCTURES[name].cell.volume or 1000.0
    step = 1e-5

    def slope(moved):
        totals = [potential(numbers, p, neighbors, o)[0].sum() for p, o in map(moved, (1, -1))]
        return (totals[0] - totals[1]) / (2 * step)

    for axis in range(3):
        shift = torch.zeros_like(positions)
        shift[1, axis] = step
        force = -slope(lambda sign, displacement=shift: (positions + sign * displacement, offsets))
        assert abs(force - forces[1, axis]) <= TOLERANCES.finite_difference_forces
    for a, b in product(range(3), repeat=2):
        strain = torch.zeros(3, 3, dtype=torch.float64)
        strain[a, b] += step / 2
        strain[b, a] += step / 2
        virial = slope(
            lambda sign, strain_step=strain: (
                positions + sign * positions @ strain_step,
                offsets + sign * offsets @ strain_step,
            )
        )
        difference = abs(virial - virials.sum(0)[a, b]) / volume
        assert difference <= TOLERANCES.finite_difference_stress


def test_an_isolated_atom_has_no_force(small):
    for name in ("atom", "far_pair", "beyond", "crystal"):
        _, forces, virials = legacy.build_potential(*small)(*network_inputs(STRUCTURES[name]))
        assert torch.isfinite(virials).all()
        assert forces.abs().max() <= 1e-5


def test_symmetric_molecules_have_reproducible_forces(reference):
    # Where vector features cancel, the direction of the rounding errors must not become a force.
    inputs = network_inputs(STRUCTURES["methane"])
    single = legacy.build_potential(*reference[:2], torch.float32)(*inputs)
    double = legacy.build_potential(*reference[:2], torch.float64)(*inputs)
    assert largest_difference(single, double) <= 1e-5


def test_padding_and_other_structures_change_nothing(small):
    potential = legacy.build_potential(*small, torch.float64)
    first, second = STRUCTURES["water_dimer"], STRUCTURES["slab"]
    alone = potential(*network_inputs(first))
    n_neighbors = network_inputs(second)[2].shape[1]
    padded = network_inputs(first, extra=n_neighbors - network_inputs(first)[2].shape[1])
    assert largest_difference(potential(*padded), alone) <= 1e-12
    other_inputs = network_inputs(second)
    other_inputs[2].add_(len(first))
    together = potential(*(torch.cat(parts) for parts in zip(padded, other_inputs, strict=True)))
    assert largest_difference([part[: len(first)] for part in together], alone) <= 1e-12


# --- exported ----------------------------------------------------------------------------------


def scripted(potential):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated as a whole
        buffer = io.BytesIO()
        torch.jit.save(torch.jit.script(potential), buffer)
        buffer.seek(0)
        return torch.jit.load(buffer)


@pytest.mark.parametrize("dtype", SCRIPT_TOLERANCE)
def test_torchscript_gives_the_same_at_any_size(dtype):
    architecture = legacy.LegacyArchitecture(64, 3, 12, max_z=100)
    tensors = synthetic_tensors(64, 3, 12)
    potential = legacy.build_potential(architecture, tensors, dtype)
    script = scripted(potential)
    for name in ("aspirin", "slab", "atom", "small_triclinic", "methane", "aspirin"):
        inputs = network_inputs(STRUCTURES[name])
        expected = potential(*inputs)
        outputs = script(*inputs)
        assert [part.dtype for part in outputs] == [torch.float64, dtype, dtype]
        assert largest_difference(outputs, expected) <= SCRIPT_TOLERANCE[dtype]


# In float64, where a constant stored in single precision or optimized away would show.
def test_onnx_gives_the_same_at_other_sizes_than_the_traced(small):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    potential = legacy.build_potential(*small, torch.float64)
    names = ("numbers", "positions", "neighbors", "offsets")
    n, k = torch.export.Dim("n_atoms"), torch.export.Dim("n_neighbors")
    shapes = ({0: n}, {0: n}, {0: n, 1: k}, {0: n, 1: k})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        traced = network_inputs(STRUCTURES["water_dimer"])
        program = torch.export.export(potential, traced, dynamic_shapes=shapes)
        model = torch.onnx.export(
            program, dynamo=True, external_data=False, input_names=names, verbose=False
        ).model_proto
    kinds = {node.op_type for node in model.graph.node}
    assert not {kind for kind in kinds if kind.startswith("Scatter")}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    for atoms in STRUCTURES.values():
        inputs = network_inputs(atoms)
        feed = {name: t.numpy() for name, t in zip(names, inputs, strict=True)}
        outputs = session.run(None, feed)
        assert outputs[0].dtype == np.float64
        assert largest_difference(outputs, potential(*inputs)) <= ONNX_TOLERANCE


# --- the figures of the warning -------------------------------------------------------------------


def total_energy(network, numbers, positions):
    with torch.no_grad():
        return network(*network_inputs(Atoms(numbers, positions))).sum().item()


def rotation_changes(network, molecules):
    """Yield the largest change of each molecule's energy over twenty random rotations."""
    rng = np.random.default_rng(0)
    for numbers, positions in molecules:
        rotations = np.linalg.qr(rng.normal(size=(20, 3, 3)))[0]
        rotated_energies = [total_energy(network, numbers, positions @ r) for r in rotations]
        yield max(abs(e - total_energy(network, numbers, positions)) for e in rotated_energies)


def cutoff_jumps(network):
    """Yield the steps of the energy when pairs of atoms of two waters cross the cutoff."""
    water = molecule("H2O")
    numbers = np.tile(water.numbers, 2)
    for i, j in product(range(3), repeat=2):
        y, z = (water.positions[j] - water.positions[i])[1:]
        apart = np.sqrt(legacy.CUTOFF**2 - y**2 - z**2)
        energies = [
            total_energy(network, numbers, np.vstack([water.positions, water.positions + shift]))
            for shift in ([apart - 1e-7, 0, 0], [apart + 1e-7, 0, 0])
        ]
        yield abs(energies[1] - energies[0])


def test_rotation_and_cutoff_figures_of_the_warning(reference):
    architecture, tensors, known_energies = reference
    network = legacy.build_network(architecture, tensors, torch.float64)
    molecules = [
        (entry["numbers"], np.array(entry["positions"])) for entry in known_energies.values()
    ]
    assert 0.09 < max(rotation_changes(network, molecules)) < 0.14
    assert max(cutoff_jumps(network)) == pytest.approx(0.198, abs=0.002)


def test_synthetic_networks_have_the_documented_defects(small):
    network = legacy.build_network(*small, torch.float64)
    aspirin = STRUCTURES["aspirin"]
    assert max(rotation_changes(network, [(aspirin.numbers, aspirin.positions)])) > 1e-3
    assert max(cutoff_jumps(network)) > 1e-3


def test_warning_has_the_figures_and_points_at_the_line_of_the_user():
    with pytest.warns(UserWarning, match="'best_model.pt' is a first-generation") as caught:
        legacy.warn_first_generation("best_model.pt")
    assert caught[0].filename == __file__
    text = str(caught[0].message)
    for figure in ("0.13 eV", "0.47 eV", "5 Å", "0.025, 0.20 and 0.45 eV"):
        assert re.search(re.escape(figure), text)
