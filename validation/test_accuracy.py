"""Errors of students against their teacher, on molecules that were not used for training."""

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ase_student.validation.accuracy.metrics import VARIANCE_TARGET, Pass

THRESHOLDS = tomllib.loads((Path(__file__).parent / "thresholds.toml").read_text(encoding="utf-8"))


SOURCES = {
    "nci-so3lr-test": ("md", "displaced", "cluster", "contact", "all"),
    "teacher-md-so3lr": ("md", "cluster", "all"),
    "drugs-so3lr": ("all",),
}
PAIRS = [(reference, source) for reference, sources in SOURCES.items() for source in sources]


@pytest.mark.parametrize(("structures", "source"), PAIRS, indirect=["structures"])
def test_errors_are_within_the_thresholds(
    request: pytest.FixtureRequest, model: str, structures: Path, source: str
) -> None:
    if model not in THRESHOLDS or request.config.getoption("--structures") is not None:
        pytest.skip("thresholds are for bundled students on the reference data")
    accuracy = request.getfixturevalue("accuracy")
    results: Pass = request.getfixturevalue("results")
    thresholds = THRESHOLDS[model][structures.stem][source]
    forces = accuracy["forces"] if source == "all" else accuracy["forces"]["by_source"][source]
    rmse, r2 = forces["rmse"]["value"], forces["r2"]["value"]
    energy = 1000.0 * energy_mae(results, source)
    print(
        f"{model} {structures.stem} {source}: {rmse:.4f} eV/Å, R² {r2:.5f}, {energy:.2f} meV/atom"
    )
    assert rmse <= thresholds["force_rmse"]
    assert r2 >= thresholds["force_r2"]
    assert energy <= thresholds["energy_mae"]


def energy_mae(results: Pass, source: str) -> float:
    """Return the mean absolute error of the energy of a source, eV/atom."""
    energies, sources = results.column("energies"), results.column("sources")
    errors = np.abs(energies[:, 1] - energies[:, 0]) / results.column("sizes")
    return float(errors[(sources == source) | (source == "all")].mean())


def test_nearly_all_of_the_variance_of_forces_is_explained(accuracy: dict[str, Any]) -> None:
    if accuracy["forces"] is None:
        pytest.skip("the structures have no forces")
    assert accuracy["forces"]["r2"]["value"] >= VARIANCE_TARGET


def test_errors_are_below_the_given_limits(
    request: pytest.FixtureRequest, accuracy: dict[str, Any]
) -> None:
    force_rmse = request.config.getoption("--force-rmse")
    largest_energy = request.config.getoption("--energy-mae")
    if force_rmse is None and largest_energy is None:
        pytest.skip("neither --force-rmse nor --energy-mae was given")
    if force_rmse is not None:
        assert accuracy["forces"]["rmse"]["value"] <= force_rmse
    if largest_energy is not None:
        assert 1000.0 * accuracy["energy"]["raw"]["mae_per_atom"]["value"] <= largest_energy
