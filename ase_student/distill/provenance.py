"""What a data file says about how it was made."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ase_student.versions import installed_versions


def metadata(command: str, *packages: str) -> dict[str, Any]:
    """Return command, date and package versions, to go into a file's metadata.

    Parameters
    ----------
    command : str
        Left out if empty.
    *packages : str
        Distributions to name besides ase-student, ase and numpy; those not installed are left out.
    """
    return {
        **({"command": command} if command else {}),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": installed_versions(("ase-student", "ase", "numpy", *packages)),
    }
