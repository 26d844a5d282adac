"""Report what is installed, which backends run here, and whether the bundled students work.

``ase-student doctor`` opens every student, which repeats the check in its file, and measures the
speed of the default student for two seconds.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from importlib.util import find_spec

import numpy as np

from ase_student import cli
from ase_student.backends import BACKENDS
from ase_student.calculator import StudentCalculator
from ase_student.checkpoint import available_students
from ase_student.provenance import with_python
from ase_student.testing import structure

PACKAGES = ("ase-student", "ase", "numpy", "onnxruntime", "vesin", "torch", "onnx", "h5py", "rdkit")
SPEED_SECONDS = 2.0
#: Standard deviation of the displacement between two evaluations, Å: enough for a new computation,
#: too little for a new neighbor list.
DISPLACEMENT = 0.001


def main(argv: Sequence[str] | None = None) -> int:
    """Print the report; return 1 if a bundled student does not work."""
    parser = cli.Parser(prog="ase-student doctor", description=__doc__)
    parser.add_argument("--device", default="auto", help="of StudentCalculator (default: auto)")
    parser.add_argument("--threads", type=int, help="CPU threads of the backends")
    arguments = parser.parse_args(argv)
    return cli.run(lambda: report(arguments.device, arguments.threads))


def report(device: str = "auto", threads: int | None = None) -> int:
    """Print the report and return the exit code.

    Parameters
    ----------
    device : str
    threads : int, optional
        As in :class:`ase_student.StudentCalculator`.

    Returns
    -------
    int
        0 if every bundled student opens and reproduces its reference, else 1.
    """
    cli.say("versions")
    for package, version in with_python(PACKAGES).items():
        cli.say(f"  {package:12s} {version}")
    cli.say("machine")
    for line in _machine():
        cli.say(f"  {line}")
    cli.say("backends, with student 'tiny'")
    for backend in BACKENDS:
        cli.say(f"  {backend:12s} {_try('tiny', backend, device, threads)[1]}")
    cli.say("students, in the backend that 'auto' takes")
    all_work = True
    for name in available_students():
        works, text = _try(name, "auto", device, threads)
        all_work = all_work and works
        cli.say(f"  {name:12s} {text}")
    if all_work:
        cli.say("speed")
        cli.say(f"  {_speed(device, threads)}")
    return 0 if all_work else 1


def _machine() -> Iterator[str]:
    yield f"{os.cpu_count()} logical CPUs, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', '')}"
    if find_spec("torch") is None:
        yield "torch is not installed: backend 'onnx' only, on the CPU or what onnxruntime offers"
        return
    import torch

    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    yield f"torch: {torch.get_num_threads()} threads, GPUs: {', '.join(names) or 'none'}"


def _try(name: str, backend: str, device: str, threads: int | None) -> tuple[bool, str]:
    """Return whether a student evaluates aspirin, and a text on how, or why not."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            calculator = StudentCalculator(
                name, backend=backend, device=device, threads=threads, guard="off"
            )
            atoms = structure("aspirin")
            atoms.calc = calculator
            energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    # Runtimes raise exceptions of many types, and this command reports all of them.
    except Exception as error:
        lines = str(error).splitlines() or [type(error).__name__]
        return False, f"does not run: {lines[0]}"
    if not (np.isfinite(energy) and np.isfinite(forces).all()):
        return False, "does not run: energy or forces of aspirin are not finite"
    return True, f"runs in {calculator.backend} on {calculator.device}"


def _speed(device: str, threads: int | None) -> str:
    """Return evaluations per second of the student 'tiny' on aspirin, with changing positions."""
    atoms = structure("aspirin")
    atoms.calc = StudentCalculator("tiny", device=device, threads=threads, guard="off")
    atoms.get_forces()
    rng = np.random.default_rng(0)
    start, count = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < SPEED_SECONDS:
        atoms.positions += rng.normal(scale=DISPLACEMENT, size=atoms.positions.shape)
        atoms.get_forces()
        count += 1
    return f"tiny, aspirin (21 atoms): {count / elapsed:.0f} energies and forces per second"


if __name__ == "__main__":
    sys.exit(main())
