"""The Dockerfile: what it promises, and its steps, read from the file, in a fresh environment."""

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
#: Of the system, which only a container has to itself.
SYSTEM = ("apt-get ", "useradd ")


@dataclass
class Stage:
    """One stage of the file."""

    image: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)


def stages() -> list[Stage]:
    found: list[Stage] = []
    for line in FILE.read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        instruction, _, rest = line.partition(" ")
        if instruction == "FROM":
            image, _, name = rest.partition(" AS ")
            found.append(Stage(image, name))
        else:
            found[-1].steps.append((instruction, rest))
    return found


def test_it_is_slim_without_torch_and_not_root() -> None:
    build, final = stages()
    assert final.image.endswith("-slim")
    assert "g++" not in str(final.steps)
    assert "torch" not in str(final.steps)
    instructions = [instruction for instruction, _ in final.steps]
    assert dict(final.steps)["USER"] not in ("root", "0")
    assert "RUN" not in instructions[instructions.index("USER") :]
    assert dict(final.steps)["ENTRYPOINT"] == '["ase-student"]'
    assert build.name == "build"


def test_what_is_copied_is_there_and_is_sent() -> None:
    sent = (FILE.with_name("Dockerfile.dockerignore")).read_text(encoding="utf-8").splitlines()
    for stage in stages():
        for instruction, rest in stage.steps:
            if instruction == "COPY" and not rest.startswith("--from"):
                for name in rest.split()[:-1]:
                    assert (ROOT / name).exists()
                    assert f"!{name}" in sent


def run_stage(stage: Stage, folder: Path, before: dict[str, Path], python: Path) -> Path:
    """Carry out a stage's steps in a folder that stands for its WORKDIR."""
    here, workdir = folder / "work", ""
    here.mkdir(parents=True)
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
                root = before[names.pop(0).removeprefix("--from=")]
                names = [name.removeprefix("/source/") for name in names]
            for name in names:
                goal = here / (Path(name).name if target == "./" else target)
                if (root / name).is_dir():
                    ignored = shutil.ignore_patterns("__pycache__", "_library*")
                    shutil.copytree(root / name, goal, ignore=ignored)
                else:
                    shutil.copy(root / name, goal)
        elif instruction == "RUN" and not rest.startswith(SYSTEM):
            environment = {**os.environ, "PATH": path}
            environment.pop("PYTHONPATH", None)
            done = subprocess.run(
                rest, shell=True, cwd=here, env=environment, capture_output=True, text=True,
                check=False,
            )  # fmt: skip
            assert done.returncode == 0, f"{rest}\n{done.stdout}{done.stderr}"
    assert workdir
    return here


@pytest.mark.skipif(
    os.environ.get("ASE_STUDENT_SLOW") != "1",
    reason="installs from a package index and compiles: set ASE_STUDENT_SLOW=1",
)
def test_its_steps_work_in_a_fresh_environment(tmp_path) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    before: dict[str, Path] = {}
    for stage in stages():
        before[stage.name] = run_stage(stage, tmp_path / (stage.name or "final"), before, python)
    environment = {**os.environ, "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}
    environment.pop("PYTHONPATH", None)

    def command(*words: str, code: int = 0) -> str:
        done = subprocess.run(
            ["ase-student", *words], cwd=tmp_path, env=environment, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    assert re.search(r"tiny +runs in native on cpu", command("doctor"))
    command("demo", "--picoseconds", "0.05", "-o", "demo")
    assert list((tmp_path / "demo").glob("*.png"))
    structures = str(ROOT / "validation" / "reference" / "drugs-so3lr.h5")
    command("validate", structures, "--limit", "5", "--no-physics", "-o", "report")
    assert (tmp_path / "report" / "report.html").is_file()
    # What needs torch or a teacher says what to install.
    assert "pip install" in command("export", "tiny", "-o", "exported", code=2)
    assert "pip install" in command(
        "export", "tiny", "-o", "exported", "--quantize", "float16", code=2
    )
    assert "pip install" in command("distill", "train", structures, "-o", "run", code=2)
