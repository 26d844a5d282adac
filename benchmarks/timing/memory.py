"""Peak memory of an evaluation, measured in a process of its own."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ase_student import StudentCalculator
from ase_student.testing import structure
from timing.structures import condensed, molecular

PHASES = {"molecular": molecular, "condensed": condensed}


def peak_mb(student: str, backend: str, threads: int, phase: str, n_atoms: int) -> dict[str, float]:
    """Return the peak memory of a new process that evaluates one structure on the CPU.

    Parameters
    ----------
    student, backend : str
    threads : int
    phase : str
        'molecular' or 'condensed'.
    n_atoms : int

    Returns
    -------
    dict
        ``peak_mb`` of the whole process, and ``peak_mb_before`` after one small molecule.
    """
    words = [student, backend, str(threads), phase, str(n_atoms)]
    command = [sys.executable, "-m", "timing.memory", *words]
    paths = [str(Path(__file__).parents[1]), *filter(None, sys.path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    process = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if process.returncode:
        raise RuntimeError(
            f"the process that measures memory failed with exit code {process.returncode}: "
            f"{process.stderr.strip()}"
        )
    peaks: dict[str, float] = json.loads(process.stdout)
    return peaks


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate a structure and print the peak memory of this process as JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("student")
    parser.add_argument("backend")
    parser.add_argument("threads", type=int)
    parser.add_argument("phase", choices=PHASES)
    parser.add_argument("atoms", type=int)
    arguments = parser.parse_args(argv)
    calculator = StudentCalculator(
        arguments.student,
        backend=arguments.backend,
        device="cpu",
        threads=arguments.threads,
        guard="off",
    )
    calculator.get_potential_energy(structure("aspirin"))
    before = _peak_mb()
    calculator.get_potential_energy(PHASES[arguments.phase](arguments.atoms))
    print(json.dumps({"peak_mb_before": round(before, 1), "peak_mb": round(_peak_mb(), 1)}))
    return 0


def _peak_mb() -> float:
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        # macOS gives bytes; Windows does not have this module.
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    # Linux's getrusage would include the memory of the parent process before exec.
    return next(int(line.split()[1]) / 1024.0 for line in lines if line.startswith("VmHWM:"))


if __name__ == "__main__":
    sys.exit(main())
