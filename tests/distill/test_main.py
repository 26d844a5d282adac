"""The command line that all steps of distillation share."""

import subprocess
import sys

import pytest

pytest.importorskip("h5py")
pytest.importorskip("rdkit")

from filelock import FileLock

from ase_student.distill.__main__ import STEPS, main


def test_every_step_has_help(capsys):
    for step in STEPS:
        with pytest.raises(SystemExit, match="0"):
            main([step, "--help"])
        assert f"python -m ase_student.distill {step}" in capsys.readouterr().out


def test_a_missing_extra_is_named_with_its_installation():
    script = (
        "import sys; sys.modules['tqdm'] = None\n"
        "from ase_student.distill.__main__ import main\n"
        "sys.exit(main(['structures', '-o', 'structures.h5']))"
    )
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr == ('error: distillation needs tqdm: pip install "ase-student[distill]"\n')


def test_outputs_in_missing_folders_are_refused_at_once(tmp_path, capsys):
    output = tmp_path / "nowhere" / "structures.h5"
    assert main(["structures", "-o", str(output)]) == 2
    assert "no folder" in capsys.readouterr().err


def test_two_processes_never_write_one_file(tmp_path, capsys):
    output = tmp_path / "structures.h5"
    command = ["diatomics", "-o", str(output), "--distances=2", "--elements", "H", "O"]
    with FileLock(tmp_path / ".structures.h5.lock"):
        assert main(command) == 2
    assert f"another process is writing '{output}'" in capsys.readouterr().err
    assert not output.exists()
    assert main(command) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["structures.h5"]
