"""Physics of students: symmetries, derivatives, cutoff, short distances, dynamics."""

from typing import Any

import numpy as np
import pytest

from ase_student.validation.accuracy.metrics import Pass
from ase_student.validation.models import ModelSpec
from ase_student.validation.physics.checks import Check
from ase_student.validation.physics.runner import Lengths, molecules_of, run_checks, subject_of

# Checks that are known to fail; remove an entry when its check passes. Below 0.72 times the sum of
# covalent radii, curves of the teacher itself have wells for phosphorus and sulfur, see
# docs/experiments.md.
KNOWN_FAILURES = {name: {"holes in dimer curves"} for name in ("original", "tiny", "ultra-tiny")}
LENGTHS = Lengths(nve=0.25, nvt=0.25)


@pytest.fixture(scope="module")
def checks(spec: ModelSpec, results: Pass, frames: Any) -> list[Check]:
    indices = results.column("indices").tolist()
    elements = tuple(np.flatnonzero(results.column("counts").any(axis=0)).tolist())
    subject = subject_of(spec, molecules_of(frames, indices, seed=0), elements)
    return run_checks(spec, subject, LENGTHS)


def test_physics_holds(checks: list[Check], model: str) -> None:
    for check in checks:
        print(check.passed, check.name, check.value, check.limit, check.unit, check.detail)
    failed = {check.name: check.detail for check in checks if check.passed is False}
    assert set(failed) == KNOWN_FAILURES.get(model, set()), failed
    assert sum(check.passed is True for check in checks) >= 5
