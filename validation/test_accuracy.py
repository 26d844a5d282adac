"""The bundled students against their teacher, on molecules that training never saw."""

from pathlib import Path

import numpy as np
import pytest

from ase_student import StudentCalculator
from ase_student.dataset import Dataset
from ase_student.student import available_students

REFERENCE = Path(__file__).parent / "reference" / "nci-so3lr-test.h5"

# Force RMSE (eV/Å), force R², and mean absolute energy error (eV/atom): at most, at least, at most.
THRESHOLDS = {
    "tiny": {
        "md": (0.14, 0.992, 0.0050),
        "displaced": (0.19, 0.997, 0.0040),
        "cluster": (0.135, 0.991, 0.0035),
        "contact": (0.26, 0.967, 0.0050),
        "all": (0.19, 0.991, 0.0045),
    }
}


@pytest.fixture(scope="module", params=available_students())
def errors(request: pytest.FixtureRequest) -> dict[str, tuple[str, float, float, float]]:
    """Return student, force RMSE, force R² and energy error by source."""
    with Dataset(REFERENCE) as dataset:
        structures, labels = dataset.read_structures(), dataset.read_labels()
    assert structures.sources is not None
    atoms = [structures.atoms(index) for index in labels.structure_indices]
    results = StudentCalculator(request.param).calculate_many(atoms)
    sources = np.array([structures.sources[index] for index in labels.structure_indices])
    found = {}
    for source in (*np.unique(sources), "all"):
        rows = np.flatnonzero((sources == source) | (source == "all"))
        truth = np.concatenate([labels.forces[slice(*labels.splits[i : i + 2])] for i in rows])
        forces = np.concatenate([results[i]["forces"] for i in rows])
        mean_square = ((forces - truth) ** 2).mean()
        deviations = [abs(results[i]["energy"] - labels.energies[i]) / len(atoms[i]) for i in rows]
        r2 = 1.0 - mean_square / truth.var(dtype=np.float64)
        found[str(source)] = (
            str(request.param),
            float(np.sqrt(mean_square)),
            float(r2),
            float(np.mean(deviations)),
        )
    return found


@pytest.mark.parametrize("source", ["md", "displaced", "cluster", "contact", "all"])
def test_errors_are_within_the_promised(
    errors: dict[str, tuple[str, float, float, float]], source: str
) -> None:
    student, rmse, r2, energy = errors[source]
    largest_rmse, smallest_r2, largest_energy = THRESHOLDS[student][source]
    print(f"{student} {source}: {rmse:.4f} eV/Å, R² {r2:.5f}, {1000 * energy:.2f} meV/atom")
    assert rmse <= largest_rmse
    assert r2 >= smallest_r2
    assert energy <= largest_energy
