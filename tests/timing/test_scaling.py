"""The model of training on several GPUs, and the tables that scripts write into pages."""

import runpy
from pathlib import Path

import pytest

from ase_student import load_student
from ase_student.files import between_marks

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def scaling():
    return runpy.run_path(str(ROOT / "benchmarks" / "scaling.py"))


def test_efficiency_falls_with_more_gpus_and_shorter_steps(scaling) -> None:
    efficiency = scaling["efficiency"]
    by_gpus = [efficiency(0.02, 300_000, gpus) for gpus in (1, 2, 4, 8)]
    assert by_gpus[0] == 1.0
    assert by_gpus == sorted(by_gpus, reverse=True)
    assert efficiency(0.1, 300_000, 8) > efficiency(0.001, 300_000, 8)
    # Two GPUs: two messages of half the gradient each.
    seconds = 0.02 + 2 * 20e-6 + 300_000 / 100e9
    assert efficiency(0.02, 300_000, 2) == pytest.approx(0.02 / seconds)


def test_sizes_of_gradients_agree_with_the_page(scaling) -> None:
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    sizes = [scaling["gradient_bytes"](name) for name in ("ultra-tiny", "original")]
    assert sizes[0] == 4 * load_student("ultra-tiny").n_parameters
    assert f"{sizes[0] / 1e3:.0f} kB to\n{sizes[1] / 1e6:.1f} MB" in page


@pytest.mark.parametrize(
    ("script", "page"),
    [
        ("benchmarks/scaling.py", "scaling.md"),
        ("benchmarks/smallest_install.py", "edge.md"),
        ("validation/compression.py", "compression.md"),
    ],
)
def test_pages_have_the_marks_for_the_table_of_their_script(script, page) -> None:
    pytest.importorskip("onnx")
    module = runpy.run_path(str(ROOT / script))
    path = module["PAGE"]
    assert path.name == page
    text = path.read_text(encoding="utf-8")
    replaced = between_marks(text, module["BEGIN"], module["END"], new="TABLE", file=page)
    assert "TABLE" in replaced
    assert (
        between_marks(replaced, module["BEGIN"], module["END"], new="TABLE", file=page) == replaced
    )
    with pytest.raises(ValueError, match=r"must hold the lines .* once each"):
        between_marks(
            replaced + module["END"], module["BEGIN"], module["END"], new="TABLE", file=page
        )


def test_a_failed_training_is_reported(scaling, tmp_path) -> None:
    with pytest.raises(ValueError, match="distill train failed: error: no data set"):
        scaling["training_seconds"](tmp_path / "no.h5", "tiny", 1, 16, tmp_path)
