"""The caller of this package, to which a warning should point."""

from __future__ import annotations

import sys
from types import FrameType


def stacklevel() -> int:
    """Return the stack level of the first caller outside of this package and ASE."""
    frame: FrameType | None = sys._getframe(1)
    level = 1
    while frame is not None and _is_inner(frame.f_globals.get("__name__", "")):
        frame, level = frame.f_back, level + 1
    return level


def _is_inner(module: str) -> bool:
    return module.partition(".")[0] in ("ase", "ase_student")
