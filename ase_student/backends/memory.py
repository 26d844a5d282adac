"""Estimate the memory that an exported graph needs for a structure, before it runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ase.calculators.calculator import InputError

#: Bytes in float32 for each pair and channel of messages, and for each atom and feature. ONNX
#: Runtime keeps whole tensors over pairs. The growth of peak memory was measured with 3,000 atoms
#: and 10 and 40 neighbors: 2.5, 3.6 and 8.7 kB per pair for ultra-tiny, tiny and original, where
#: the estimate is 2.2, 3.8 and 8.7 kB.
BYTES_PER_PAIR, BYTES_PER_ATOM = 68, 330
#: Atoms times neighbors; smaller structures are not checked.
SMALLEST_CHECKED = 1_000_000


def needed_bytes(info: Mapping[str, Any], n_atoms: int, n_neighbors: int) -> int:
    """Return an estimate of the bytes a graph needs for a structure; 0 if its sizes are unknown.

    Parameters
    ----------
    info : mapping
        Metadata of the file, with ``architecture`` and ``dtype``.
    n_atoms, n_neighbors : int
        Shape of the neighbor matrix of the structure.
    """
    architecture = info.get("architecture")
    if not isinstance(architecture, Mapping) or "features" not in architecture:
        return 0
    features = int(architecture["features"])
    channels = int(architecture.get("message_channels") or features)
    channels += int(architecture.get("tensor_channels") or 0)
    per_atom = BYTES_PER_PAIR * channels * n_neighbors + BYTES_PER_ATOM * features
    return n_atoms * per_atom * (2 if info.get("dtype") == "float64" else 1)


def available_bytes(root: Path = Path("/")) -> int | None:
    """Return the free bytes of memory of the system or of this container; None if unknown."""
    limits = []
    try:
        for line in (root / "proc/meminfo").read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                limits.append(int(line.split()[1]) * 1024)
    except (OSError, ValueError):
        return None
    try:
        group = root / "sys/fs/cgroup"
        limit = int((group / "memory.max").read_text("ascii"))
        limits.append(max(0, limit - int((group / "memory.current").read_text("ascii"))))
    except (OSError, ValueError):
        pass  # no container, or a container without a limit
    return min(limits) if limits else None


def check_memory(info: Mapping[str, Any], n_atoms: int, n_neighbors: int) -> None:
    """Check that a structure needs no more memory than is free.

    Raises
    ------
    InputError
        If it needs more; the message names the memory that is needed and that is free.
    """
    if n_atoms * n_neighbors < SMALLEST_CHECKED:
        return
    needed, available = needed_bytes(info, n_atoms, n_neighbors), available_bytes()
    if available is not None and needed > available:
        raise InputError(
            f"{n_atoms:,} atoms with up to {n_neighbors} neighbors need about "
            f"{needed / 1e9:.1f} GB of memory with this backend, and {available / 1e9:.1f} GB are "
            "free; use backend='native', which needs a tenth of that, or a smaller structure."
        )
