"""The Dockerfile: its properties, and its steps carried out in a new environment."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILE = ROOT / "export" / "docker" / "Dockerfile"
#: Commands that change the system, which are run only in a container.
SYSTEM = ("apt-get ", "useradd ")


@dataclass
class Stage:
    """One stage of the file."""

    image: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)


def stages() -> list[Stage]:
    stages_read: list[Stage] = []
    for line in FILE.read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        instruction, _, rest = line.partition(" ")
        if instruction == "FROM":
            image, _, name = rest.partition(" AS ")
            stages_read.append(Stage(image, name))
        else:
            stages_read[-1].steps.append((instruction, rest))
    return stages_read


def test_the_image_is_slim_without_torch_and_root() -> None:
    build, final = stages()
    assert final.image.endswith("-slim")
    assert "g++" not in str(final.steps)
    assert "torch" not in str(final.steps)
    instructions = [instruction for instruction, _ in final.steps]
    assert dict(final.steps)["USER"] not in ("root", "0")
    assert "RUN" not in instructions[instructions.index("USER") :]
    assert dict(final.steps)["ENTRYPOINT"] == '["ase-student"]'
    assert build.name == "build"


def test_copied_files_exist_and_are_not_ignored() -> None:
    sent = (FILE.with_name("Dockerfile.dockerignore")).read_text(encoding="utf-8").splitlines()
    for stage in stages():
        for instruction, rest in stage.steps:
            if instruction == "COPY" and not rest.startswith("--from"):
                for name in rest.split()[:-1]:
                    assert (ROOT / name).exists()
                    assert f"!{name}" in sent


def run_stage(stage: Stage, folder: Path, earlier_folders: dict[str, Path], python: Path) -> Path:
    """Carry out a stage's steps in a folder that stands for its WORKDIR."""
    work, workdir = folder / "work", ""
    work.mkdir(parents=True)
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    for instruction, rest in stage.steps:
        if instruction == "USER":
            break
        if instruction == "WORKDIR":
            workdir = rest
        elif instruction == "COPY":
            *names, target = rest.split()
            root = ROOT
            if names[0].startswith("--from="):
                root = earlier_folders[names.pop(0).removeprefix("--from=")]
                names = [name.removeprefix("/source/") for name in names]
            for name in names:
                destination = work / (Path(name).name if target == "./" else target)
                if (root / name).is_dir():
                    ignored = shutil.ignore_patterns("__pycache__", "_library*")
                    shutil.copytree(root / name, destination, ignore=ignored)
                else:
                    shutil.copy(root / name, destination)
        elif instruction == "RUN" and not rest.startswith(SYSTEM):
            environment = {**os.environ, "PATH": path}
            environment.pop("PYTHONPATH", None)
            process = subprocess.run(
                rest, shell=True, cwd=work, env=environment, capture_output=True, text=True,
                check=False,
            )  # fmt: skip
            assert process.returncode == 0, f"{rest}\n{process.stdout}{process.stderr}"
    assert workdir
    return work


@pytest.mark.skipif(
    os.environ.get("ASE_STUDENT_SLOW") != "1",
    reason="installs from a package index and compiles: set ASE_STUDENT_SLOW=1",
)
def test_the_steps_work_in_a_new_environment(tmp_path) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    folders: dict[str, Path] = {}
    for stage in stages():
        folders[stage.name] = run_stage(stage, tmp_path / (stage.name or "final"), folders, python)
    environment = {**os.environ, "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}
    environment.pop("PYTHONPATH", None)

    def command(*words: str, code: int = 0) -> str:
        process = subprocess.run(
            ["ase-student", *words], cwd=tmp_path, env=environment, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert process.returncode == code, process.stdout + process.stderr
        return process.stdout + process.stderr

    assert re.search(r"tiny +runs in native on cpu", command("doctor"))
    command("demo", "--picoseconds", "0.05", "-o", "demo")
    assert list((tmp_path / "demo").glob("*.png"))
    structures = str(ROOT / "validation" / "reference" / "drugs-so3lr.h5")
    command("validate", structures, "--limit", "5", "--no-physics", "-o", "report")
    assert (tmp_path / "report" / "report.html").is_file()
    # Commands that need torch or a teacher name what to install.
    assert "pip install" in command("export", "tiny", "-o", "exported", code=2)
    assert "pip install" in command(
        "export", "tiny", "-o", "exported", "--quantize", "float16", code=2
    )
    assert "pip install" in command("distill", "train", structures, "-o", "run", code=2)
