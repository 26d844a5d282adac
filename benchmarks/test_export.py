"""Time of an export, including its checks, and size of its files."""

from pathlib import Path
from typing import Any

import pytest
from measuring import describe_others

from ase_student.checkpoint import load_student
from ase_student.export import FORMATS, export_student


@pytest.mark.parametrize("file_format", FORMATS)
def test_export(
    benchmark: Any, student: str, threads: int, tmp_path: Path, file_format: str
) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    benchmark.group = f"export to {file_format}"
    summary = benchmark.pedantic(
        export_student, args=(student, tmp_path, [file_format]), rounds=2, warmup_rounds=1
    )
    (entry,) = summary["files"].values()
    describe_others(
        benchmark,
        "export",
        threads,
        student=student,
        backend=file_format,
        bytes=entry["bytes"],
        parameters=load_student(student).n_parameters,
    )
