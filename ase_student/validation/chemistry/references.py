"""What the teacher and GFN2-xTB measured: kept in the package, made again by a command."""

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
        As of a teacher.
    settings : dict
        Versions and settings that decided its results.
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
    """Return the potentials whose results are kept, by name.

    Results of another version of an experiment are left out.
    """
    return {
        name: Reference(
            name,
            entry["settings"],
            {
                one.name: entry["experiments"][one.name]["measured"]
                for one in experiments
                if entry["experiments"].get(one.name, {}).get("version") == one.version
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
    """Put the results of a potential into a file of references, which may hold others.

    Raises
    ------
    ValueError
        If results of other experiments with other settings are kept of it.
    """
    check_nothing_is_lost(path, name, settings, experiments=measured)
    document = _read(path)
    entry = document["potentials"].setdefault(name, {"experiments": {}})
    if entry.get("settings") != settings:
        entry.update(settings=settings, experiments={})
    versions = {one.name: one.version for one in experiments}
    for key, values in measured.items():
        entry["experiments"][key] = {"version": versions[key], "measured": values}
    with replaced_when_complete(path) as temporary:
        temporary.write_text(_compact(document), encoding="utf-8")


def check_nothing_is_lost(
    path: Path, name: str, settings: dict[str, Any], *, experiments: Collection[str]
) -> None:
    """Check that a file keeps no result with other settings but those to be measured again.

    Raises
    ------
    ValueError
        Otherwise: one file holds one potential with one set of settings.
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
    """Return a file of references, or one without any."""
    if not path.is_file():
        return {"format_version": 1, "potentials": {}}
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8-sig"))
    return document


def _compact(document: dict[str, Any]) -> str:
    """Return JSON with one line for each entry of an experiment, so that changes can be read."""
    lines = ["{", f' "format_version": {document["format_version"]},', ' "potentials": {']
    entries = []
    for name, entry in sorted(document["potentials"].items()):
        settings = json.dumps(entry["settings"], ensure_ascii=False, sort_keys=True)
        experiments = ",\n".join(
            f"    {json.dumps(key)}: {_one(experiment)}"
            for key, experiment in sorted(entry["experiments"].items())
        )
        entries.append(
            f'  {json.dumps(name)}: {{\n   "settings": {settings},\n'
            f'   "experiments": {{\n{experiments}\n   }}\n  }}'
        )
    return "\n".join([*lines, ",\n".join(entries), " }", "}"]) + "\n"


def _one(experiment: dict[str, Any]) -> str:
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
        f"       {json.dumps(key, ensure_ascii=False)}: {json.dumps(one, ensure_ascii=False)}"
        for key, one in value.items()
    )
    return f"{{\n{rows}\n      }}"
