"""Hardware and versions of a measurement."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path

from ase_student.provenance import with_python

PACKAGES = ("ase", "numpy", "onnxruntime", "vesin", "torch")
# Vector instructions that influence the time of a network.
_FLAGS = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_tile", "asimd", "sve")


def hardware() -> dict[str, object]:
    """Return the processor, its vector instructions, the usable cores and the system."""
    name = _cpuinfo().get("model name") or platform.processor() or platform.machine()
    return {
        "cpu": name,
        "cpu_flags": list(cpu_flags()),
        "cores": _cores(),
        "system": platform.system(),
    }


def cpu_flags() -> tuple[str, ...]:
    """Return the vector instructions of the processor that influence the time of a network."""
    info = _cpuinfo()
    flags = set(info.get("flags", info.get("Features", "")).split())
    return tuple(flag for flag in _FLAGS if flag in flags)


def installed_environment(folder: Path) -> dict[str, str]:
    """Return the environment of a new process that writes and uses compiled bytecode.

    Installers compile packages. For a package that runs from a clone, or if PYTHONDONTWRITEBYTECODE
    is set, the first process with this environment compiles it, and takes longer than the others.

    Parameters
    ----------
    folder : path
        Folder for the bytecode.
    """
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(folder)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


def gpu(device: str) -> str | None:
    """Return the name of a GPU, or None for other devices."""
    if not device.startswith("cuda"):
        return None
    import torch

    return str(torch.cuda.get_device_name(device))


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Return the versions of Python and of the given packages that are installed."""
    return with_python(packages)


def available_mb() -> float | None:
    """Return the memory in MB that can be used without swapping, None if it is unknown."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 1024
    return None


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpuinfo() -> dict[str, str]:
    """Return the first processor's entries of /proc/cpuinfo; empty on systems other than Linux."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return {}
    lines = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in lines}
