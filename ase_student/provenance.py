"""Versions of packages, and metadata on the origin of a file."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

try:
    __version__ = version("ase-student")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0+unknown"


def metadata(command: str, *packages: str) -> dict[str, Any]:
    """Return command, date and package versions for a file's metadata.

    Parameters
    ----------
    command : str
        Command line; left out if empty.
    *packages : str
        Distributions in addition to ase-student, ase and numpy; those not installed are left out.
    """
    return {
        **({"command": command} if command else {}),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": installed_versions(("ase-student", "ase", "numpy", *packages)),
    }


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of those distributions that are installed."""
    versions = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def with_python(packages: Iterable[str]) -> dict[str, str]:
    """Return the version of Python and those of the distributions that are installed."""
    return {"python": platform.python_version(), **installed_versions(packages)}
