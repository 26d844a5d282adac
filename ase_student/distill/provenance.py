"""What a data file says about how it was made."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any


def metadata(command: str, *packages: str) -> dict[str, Any]:
    """Return command, date and package versions, to go into a file's metadata.

    Parameters
    ----------
    command : str
        Left out if empty.
    *packages : str
        Distributions to name besides ase-student, ase and numpy; those not installed are left out.
    """
    versions = {}
    for package in ("ase-student", "ase", "numpy", *packages):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        **({"command": command} if command else {}),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions,
    }
