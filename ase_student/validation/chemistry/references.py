"""Results of the teacher and of GFN2-xTB, which are stored in the package.

``python -m ase_student.validation.chemistry references`` measures them again.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from ase_student.files import replaced_when_complete
from ase_student.validation.chemistry.experiment import Experiment, Measured

FILE = "references.json"


@dataclass(frozen=True)
class Reference:
    """A potential whose results are known.

    Attributes
    ----------
    name : str
        Name of the teacher.
    settings : dict
        Versions and settings that determined its results.
    measured : dict of str to Measured
        By experiment.
    """

    name: str
    settings: dict[str, Any]
    measured: dict[str, Measured]


@cache
def _document() -> dict[str, Any]:
    file = files(__package__) / "data" / FILE
    if not file.is_file():
        return {"potentials": {}}
    document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8-sig"))
    return document


def known_references(experiments: tuple[Experiment, ...]) -> dict[str, Reference]:
    """Return the potentials whose results are stored, by name.

    Results of another version of an experiment are left out.
    """
    return {
        name: Reference(
            name,
            entry["settings"],
            {
                experiment.name: entry["experiments"][experiment.name]["measured"]
                for experiment in experiments
                if entry["experiments"].get(experiment.name, {}).get("version")
                == experiment.version
            },
        )
        for name, entry in _document()["potentials"].items()
    }


def write_references(
    path: Path,
    name: str,
    settings: dict[str, Any],
    *,
    measured: dict[str, Measured],
    experiments: tuple[Experiment, ...],
) -> None:
    """Write the results of a potential into a file of references, which may hold others.

    Raises
    ------
    ValueError
        If the file holds results of the same potential with other settings, for experiments that
        are not measured again.
    """
    check_nothing_is_lost(path, name, settings, experiments=measured)
    document = _read(path)
    entry = document["potentials"].setdefault(name, {"experiments": {}})
    if entry.get("settings") != settings:
        entry.update(settings=settings, experiments={})
    versions = {experiment.name: experiment.version for experiment in experiments}
    for key, values in measured.items():
        entry["experiments"][key] = {"version": versions[key], "measured": values}
    with replaced_when_complete(path) as temporary:
        temporary.write_text(_compact(document), encoding="utf-8")


def check_nothing_is_lost(
    path: Path, name: str, settings: dict[str, Any], *, experiments: Collection[str]
) -> None:
    """Check that all results with other settings in a file will be measured again.

    Raises
    ------
    ValueError
        Otherwise: a file holds each potential with one set of settings only.
    """
    entry = _read(path)["potentials"].get(name)
    if entry is None or entry["settings"] == settings:
        return
    lost = sorted(set(entry["experiments"]) - set(experiments))
    if lost:
        raise ValueError(
            f"{path} holds results of {name} with other settings or versions of packages: "
            f"measure {', '.join(lost)} as well."
        )


def _read(path: Path) -> dict[str, Any]:
    """Return the content of a file of references; without entries if there is no file."""
    if not path.is_file():
        return {"format_version": 1, "potentials": {}}
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8-sig"))
    return document


def _compact(document: dict[str, Any]) -> str:
    """Return JSON with one line for each entry of an experiment, so that diffs are readable."""
    lines = ["{", f' "format_version": {document["format_version"]},', ' "potentials": {']
    entries = []
    for name, entry in sorted(document["potentials"].items()):
        settings = json.dumps(entry["settings"], ensure_ascii=False, sort_keys=True)
        experiments = ",\n".join(
            f"    {json.dumps(key)}: {_experiment_text(experiment)}"
            for key, experiment in sorted(entry["experiments"].items())
        )
        entries.append(
            f'  {json.dumps(name)}: {{\n   "settings": {settings},\n'
            f'   "experiments": {{\n{experiments}\n   }}\n  }}'
        )
    return "\n".join([*lines, ",\n".join(entries), " }", "}"]) + "\n"


def _experiment_text(experiment: dict[str, Any]) -> str:
    groups = ",\n".join(
        f"      {json.dumps(key, ensure_ascii=False)}: {_rows(value)}"
        for key, value in experiment["measured"].items()
    )
    head = f'{{\n     "version": {experiment["version"]},\n     "measured": {{\n'
    return f"{head}{groups}\n     }}\n    }}"


def _rows(value: Any) -> str:
    if not isinstance(value, dict) or not value:
        return json.dumps(value, ensure_ascii=False)
    rows = ",\n".join(
        f"       {json.dumps(key, ensure_ascii=False)}: {json.dumps(row, ensure_ascii=False)}"
        for key, row in value.items()
    )
    return f"{{\n{rows}\n      }}"
