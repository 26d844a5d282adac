"""Versions of packages, as files and measurements record them."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of those distributions that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def with_python(packages: Iterable[str]) -> dict[str, str]:
    """Return the version of Python and those of the distributions that are installed."""
    return {"python": platform.python_version(), **installed_versions(packages)}
