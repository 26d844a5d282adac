"""The command line that all steps of distillation share."""

import subprocess
import sys

import pytest

pytest.importorskip("h5py")

from ase_student.distill.__main__ import STEPS, main


def test_every_step_has_help(capsys):
    for step in STEPS:
        with pytest.raises(SystemExit, match="0"):
            main([step, "--help"])
        assert f"python -m ase_student.distill {step}" in capsys.readouterr().out


def test_without_the_extra_it_says_what_to_install():
    script = (
        "import sys; sys.modules['tqdm'] = None\n"
        "from ase_student.distill.__main__ import main\n"
        "sys.exit(main(['structures', '-o', 'structures.h5']))"
    )
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr == ('error: distillation needs tqdm: pip install "ase-student[distill]"\n')


def test_files_in_folders_that_do_not_exist_are_refused_at_once(tmp_path, capsys):
    output = tmp_path / "nowhere" / "structures.h5"
    assert main(["structures", "-o", str(output)]) == 2
    assert "no folder" in capsys.readouterr().err
