import json
import shutil
import warnings
import zipfile

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ase_student import StudentCalculator  # noqa: E402
from ase_student.backends import open_exported  # noqa: E402
from ase_student.backends.metadata import METADATA_KEY, encode  # noqa: E402
from ase_student.backends.program_check import check_program, seal_program  # noqa: E402
from ase_student.backends.torchscript import save_torchscript  # noqa: E402
from ase_student.checkpoint import load_student, student_folder  # noqa: E402
from ase_student.export.verification import verify_file  # noqa: E402
from ase_student.testing import structure  # noqa: E402


@pytest.fixture(scope="module")
def metadata():
    return open_exported(student_folder("ultra-tiny") / "ultra-tiny.onnx", "cpu").info.metadata


@pytest.fixture(scope="module")
def exported(tmp_path_factory, metadata):
    path = tmp_path_factory.mktemp("exported") / "ultra-tiny.pt"
    references = {"references": metadata["references"]}
    save_torchscript(load_student("ultra-tiny"), "ultra-tiny", path, metadata=references)
    return path


class Loops(torch.nn.Module):
    """A module that computes a student in a loop."""

    def __init__(self, inner: torch.nn.Module):
        super().__init__()
        self.inner = inner

    def forward(
        self,
        numbers: torch.Tensor,
        positions: torch.Tensor,
        neighbors: torch.Tensor,
        offsets: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        for _ in range(2):
            positions = positions + 0.0
        return self.inner(numbers, positions, neighbors, offsets)


def write(path, exported, metadata):
    """Write a program that gives the results of the student and has a loop."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inner = torch.jit.load(str(exported))
        program = torch.jit.script(Loops(inner))
        torch.jit.save(program, str(path), _extra_files={METADATA_KEY: encode(metadata)})


def refusal(path, **arguments):
    with pytest.raises(ValueError, match="^'[^\n]*[.]$") as caught:
        StudentCalculator(path, device="cpu", **arguments)
    return str(caught.value)


def test_exported_programs_are_opened(exported):
    calc = StudentCalculator(exported, device="cpu")
    assert calc.backend == "torchscript"
    check_program(exported)


def test_an_unsigned_program_needs_trust(tmp_path, exported, metadata):
    path = tmp_path / "program.pt"
    write(path, exported, metadata)
    assert "that no export of this package has signed; a program can do anything" in refusal(path)
    with pytest.raises(ValueError, match="has signed"):
        verify_file(path)
    calc = StudentCalculator(path, device="cpu", trust=True)
    atoms = structure("aspirin")
    atoms.calc = calc
    expected = StudentCalculator(exported, device="cpu").calculate_many([atoms])[0]
    np.testing.assert_allclose(atoms.get_forces(), expected["forces"], atol=1e-6)
    verify_file(path, trust=True).raise_if_wrong()


def test_a_seal_alone_is_not_enough(tmp_path, exported, metadata):
    path = tmp_path / "program.pt"
    write(path, exported, metadata)
    seal_program(path, "program")
    message = refusal(path)
    assert "has a part of the kind 'For', which no student does; pass trust=True" in message


@pytest.mark.parametrize("name", ["weights.safetensors", "student.onnx", "student.pth", "student"])
def test_a_program_is_opened_only_from_a_file_named_pt(tmp_path, exported, name):
    path = tmp_path / name
    shutil.copy(exported, path)
    message = refusal(path)
    if not name.endswith(".onnx"):
        assert "only from a file whose name ends in '.pt'" in message
    if not name.endswith(".onnx"):
        assert "ends in '.pt'" in refusal(path, trust=True)


def test_changes_after_the_export_are_detected(tmp_path, exported):
    path = tmp_path / "changed.pt"
    with zipfile.ZipFile(exported) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith(METADATA_KEY):
                content = encode({**json.loads(content), "name": "other"}).encode()
            new.writestr(name, content)
    assert "was damaged or changed after its export" in refusal(path)


@pytest.mark.parametrize(
    "code",
    ["def forward(self):\n  ops.aten.save(self)\n", "x = torch.load\nx(1)\n", "import os\n",
     "class A(Module):\n  def __setstate__(self):\n    return self\n", "(" * 5000, "a\0b",
     "def forward(self):\n  return torch.ones([1000000000000])\n", "if 1:\n  pass\n"],
)  # fmt: skip
def test_code_that_no_student_has_is_refused(tmp_path, exported, code):
    path = tmp_path / "program.pt"
    with zipfile.ZipFile(exported) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, code if name.endswith(".py") else old.read(name))
    seal_program(path, "program")
    with pytest.raises(ValueError, match="which no student does"):
        check_program(path)
