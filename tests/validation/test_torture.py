"""The short form of the trials of docs/reliability.md."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("h5py")

from torture import damage, report
from torture.trials import Block, Trial, generator, merged

ROOT = Path(__file__).parents[2]


def torture(*arguments):
    command = [sys.executable, str(ROOT / "validation" / "torture"), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_the_short_form_finds_no_failure(tmp_path, engine):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    output = tmp_path / "out.json"
    result = torture("--short", "-o", output, "--page", page)
    assert result.returncode == 0, result.stderr
    trials = json.loads(output.read_text())["trials"]
    assert {"damage data.h5", "kill label", "threads native", "fork onnx", "nve tiny"} <= set(
        trials
    )
    for name, trial in trials.items():
        assert trial["blocks"] == trial["of"] > 0
        assert sum(trial["figures"].get(key, 0) for key in ("wrong", "different", "hung")) == 0, (
            name
        )
    text = page.read_text()
    assert text.startswith(f"before\n{report.BEGIN}\nThe short form, seed 0, ")
    assert "| checkpoints, one fault each | 10 files, " in text
    assert text.endswith(f"{report.END}\nafter\n")
    # Finished trials are not repeated, and results of other settings are refused.
    content = output.read_bytes()
    assert torture("--short", "-o", output).returncode == 0
    assert output.read_bytes() == content
    result = torture("--short", "--seed", "1", "-o", output)
    assert result.returncode == 2
    assert "holds results with other seed" in result.stderr


def test_a_failure_is_counted_and_reported(tmp_path, monkeypatch):
    """A reader that ignores damage is counted as wrong."""
    make, _, change = damage.KINDS["data.xyz"]

    def careless(path):
        return [np.frombuffer(path.read_bytes()[:64].ljust(64), np.uint8), np.zeros(())]

    monkeypatch.setitem(damage.KINDS, "data.xyz", (make, careless, change))
    block = Block(0, np.random.default_rng(0), tmp_path)
    figures = damage.run("data.xyz", block)
    assert figures["wrong"] > 0
    trial = Trial("damage data.xyz", "files", damage.run, 1, 1, ("wrong",))
    results = {"trials": {trial.name: {"figures": figures}}}
    assert report.failures(results, [trial]) == [f"damage data.xyz: wrong = {figures['wrong']}"]


@pytest.mark.parametrize(("rate", "is_wrong"), [(0.0, False), (0.008, False), (0.03, True)])
def test_drift_is_a_failure(rate, is_wrong):
    """Drift of 21 atoms over 100 ps, in meV/atom/ps, in addition to the usual fluctuations."""
    records = np.arange(2000)
    noise = 1e-4 * np.random.default_rng(0).standard_normal(len(records))
    energies = 21 * (1e-3 * rate * 0.05 * records + noise) - 3000.0
    state = {"energies": energies.tolist(), "kinetic": [1.0] * len(records)}
    trial = Trial("nve tiny", "steps", lambda block: {}, 20, 1, ("lost",))
    results = {"trials": {trial.name: {"figures": {"lost": 0}, "state": state}}}
    expected = ["nve tiny: the energy drifts"] if is_wrong else []
    assert report.failures(results, [trial]) == expected


def test_figures_of_blocks_and_their_random_numbers():
    assert merged({}, {"files": np.int64(2), "largest_x": 1.0}) == {"files": 2, "largest_x": 1.0}
    assert type(merged({}, {"files": np.int64(2)})["files"]) is int
    drawn = {float(generator(0, name, block).random()) for name in "ab" for block in (0, 1)}
    assert len(drawn) == 4
    assert generator(3, "a", 1).random() == generator(3, "a", 1).random()


def test_pages_without_marks_are_refused(tmp_path):
    (tmp_path / "page.md").write_text("nothing")
    with pytest.raises(ValueError, match="must hold the lines"):
        report.write_table(tmp_path / "page.md", "new")
