"""Measure three ways to install the package: size on disk, memory, time to the first energy.

``python benchmarks/smallest_install.py`` builds a wheel with the engine, installs it into fresh
environments and writes the table of ``docs/edge.md``. It needs a package index and a C++ compiler.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill

from ase_student import cli
from ase_student.files import between_marks, replaced_when_complete
from ase_student.provenance import with_python

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "edge.md"
BEGIN = "<!-- smallest install: begin; written by python benchmarks/smallest_install.py -->"
END = "<!-- smallest install: end -->"
REPEATS = 5
MEASURE = """
import resource, sys, time
start = time.perf_counter()
{code}
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(energy, seconds, peak * (1 if sys.platform == "darwin" else 1024) / 1e6)
"""
ENGINE = """
import runpy
example = runpy.run_path({example!r})
numbers, positions = example["read_xyz"]({structure!r})
import ase_student
from pathlib import Path
weights = Path(ase_student.__file__).parent / "students" / "tiny" / "weights.safetensors"
energy, forces = example["evaluate"](weights, numbers, positions)
"""
CALCULATOR = """
from ase.io import read
from ase_student import StudentCalculator
atoms = read({structure!r})
atoms.calc = StudentCalculator("tiny", backend={backend!r}, threads=1)
energy, forces = atoms.get_potential_energy(), atoms.get_forces()
"""


@dataclass(frozen=True)
class Install:
    """A way to install the package.

    Attributes
    ----------
    name : str
    packages : tuple of str
        Packages for pip in addition to the wheel.
    has_dependencies : bool
        Whether pip installs the dependencies of the wheel.
    code : str
        Code that computes ``energy`` of aspirin.
    """

    name: str
    packages: tuple[str, ...]
    has_dependencies: bool
    code: str


INSTALLS = (
    Install("engine and NumPy: `--no-deps`, `export/numpy_engine.py`", ("numpy",), False, ENGINE),
    Install("`pip install ase-student`, native engine", (), True, CALCULATOR),
    Install("the same, ONNX Runtime", (), True, CALCULATOR),
)


def measured(install: Install, wheel: Path, folder: Path) -> str:
    """Install into a fresh environment, measure, and return a row of the table."""
    environment = folder / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--clear", environment], check=True)
    python = environment / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    before = _megabytes(environment)
    pip += ["--constraint", ROOT / "constraints.txt"]
    options = [] if install.has_dependencies else ["--no-deps"]
    subprocess.run([*pip, *options, wheel], check=True)
    if install.packages:
        subprocess.run([*pip, *install.packages], check=True)
    backend = "onnx" if "ONNX" in install.name else "native"
    code = install.code.format(
        example=str(ROOT / "export" / "numpy_engine.py"),
        structure=str(folder / "aspirin.xyz"),
        backend=backend,
    )
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    environ.pop("PYTHONPATH", None)
    rows = []
    # The first run writes bytecode.
    for _ in range(1 + REPEATS):
        process = subprocess.run(
            [python, "-c", MEASURE.format(code=code)],
            cwd=folder, env=environ, check=True, capture_output=True, text=True,
        )  # fmt: skip
        rows.append([float(word) for word in process.stdout.split()])
    seconds = statistics.median(row[1] for row in rows[1:])
    peak = statistics.median(row[2] for row in rows[1:])
    size = _megabytes(environment) - before
    return f"| {install.name} | {size:.0f} | {peak:.0f} | {seconds:.2f} | {rows[-1][0]:.4f} |"


def _megabytes(folder: Path) -> float:
    """Return the size of a folder's files without bytecode, MB."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return sum(path.lstat().st_size for path in files) / 1e6


def table(wheel: Path | None) -> str:
    """Return the table of all ways to install, and the conditions of the measurement."""
    from ase.io import write

    from ase_student.testing import structure

    sys.path.insert(0, str(ROOT / "benchmarks"))
    from timing.machine import hardware

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder / "aspirin.xyz", structure("aspirin"))
        if wheel is None:
            command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder]
            environ = {**os.environ, "ASE_STUDENT_ENGINE": "1"}
            subprocess.run([*command, ROOT], check=True, env=environ)
            (wheel,) = folder.glob("*.whl")
        lines = [measured(install, wheel, folder) for install in INSTALLS]
        versions = with_python(("numpy", "ase", "onnxruntime"))
        listed = ", ".join(f"{name} {version}" for name, version in versions.items())
        conditions = (
            f"`tiny`, aspirin, one thread, {hardware()['cpu']}, {listed}; a wheel of "
            f"{wheel.stat().st_size / 1e6:.1f} MB; medians of {REPEATS} new processes."
        )
        return "\n".join(
            [
                fill(conditions, 100),
                "",
                "| | on disk without Python, MB | peak memory, MB | time to the first energy, s "
                "| energy, eV |",
                "|---|---|---|---|---|",
                *lines,
            ]
        )


def run(arguments: argparse.Namespace) -> None:
    """Measure and write the table into the page."""
    text = arguments.page.read_text(encoding="utf-8")
    new = table(arguments.wheel)
    text = between_marks(text, BEGIN, END, new=new, file=str(arguments.page))
    with replaced_when_complete(arguments.page) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(new)


def main(argv: list[str] | None = None) -> int:
    """Run the command; return 2 if an argument is invalid."""
    parser = cli.Parser(prog="python benchmarks/smallest_install.py", description=__doc__)
    parser.add_argument("--wheel", type=Path, help="wheel to measure (default: build it)")
    parser.add_argument("--page", type=Path, default=PAGE)
    arguments = parser.parse_args(argv)
    return cli.run(lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
