"""Errors for structures that are too large for the memory."""

import numpy as np
import pytest
from ase.calculators.calculator import InputError
from onnxruntime.capi import onnxruntime_pybind11_state as errors

from ase_student import StudentCalculator
from ase_student.backends import memory
from ase_student.testing import structure

#: Measured growth of the peak of memory, bytes per atom with 10 and 40 neighbors.
MEASURED = {
    "ultra-tiny": (32_100, 107_800),
    "tiny": (40_800, 148_400),
    "original": (128_900, 389_700),
}


@pytest.mark.parametrize("name", MEASURED)
def test_the_estimate_is_near_the_measured_memory(name):
    info = StudentCalculator(name, "onnx", "cpu").info.metadata
    for n_neighbors, measured in zip((10, 40), MEASURED[name], strict=True):
        estimate = memory.needed_bytes(info, 1, n_neighbors)
        assert 0.8 * measured < estimate < 1.5 * measured
    assert memory.needed_bytes({**info, "dtype": "float64"}, 3, 10) == 6 * memory.needed_bytes(
        info, 1, 10
    )
    assert memory.needed_bytes({}, 10**9, 10) == 0


def test_too_large_structures_are_refused_before_the_computation(monkeypatch):
    calc = StudentCalculator("tiny", "onnx", "cpu", guard="off")
    atoms = structure("triclinic")
    atoms.calc = calc
    expected = atoms.get_potential_energy()
    monkeypatch.setattr(memory, "SMALLEST_CHECKED", 0)
    atoms.positions += 1e-9
    assert atoms.get_potential_energy() == pytest.approx(expected, abs=1e-5)
    monkeypatch.setattr(memory, "available_bytes", lambda: 1000)
    atoms.positions += 1e-9
    with pytest.raises(
        InputError, match=r"^10 atoms with up to \d+ neighbors need about .* backend='native'"
    ):
        atoms.get_forces()
    assert calc.results == {}
    monkeypatch.setattr(memory, "available_bytes", lambda: None)
    assert atoms.get_potential_energy() == pytest.approx(expected, abs=1e-5)


def test_errors_of_the_runtime_become_one_sentence(monkeypatch):
    calc = StudentCalculator("tiny", "onnx", "cpu", guard="off")

    class Full:
        def run(self, *_):
            raise errors.RuntimeException("bfc_arena.cc:376\n void* Extend\n" + 50 * "Failed ")

    monkeypatch.setattr(calc._backend, "_session", Full())
    with pytest.raises(InputError, match="21 atoms, most likely for want of memory") as caught:
        calc.get_potential_energy(structure("aspirin"))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_available_memory_respects_the_limit_of_the_group(tmp_path):
    assert memory.available_bytes(tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    5 kB\n")
    assert memory.available_bytes(tmp_path) == 5 * 1024
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.current").write_text("1000\n")
    for limit, expected in (("max", 5 * 1024), ("3000", 2000), ("10", 0)):
        (group / "memory.max").write_text(f"{limit}\n")
        assert memory.available_bytes(tmp_path) == expected


def test_available_memory_of_this_system_is_positive_or_unknown():
    available = memory.available_bytes()
    assert available is None or available > np.int64(0)
