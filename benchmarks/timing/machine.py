"""What a time was measured on and with."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path

from ase_student.provenance import with_python

PACKAGES = ("ase", "numpy", "onnxruntime", "vesin", "torch")
# Vector instructions that change what a network costs.
_FLAGS = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_tile", "asimd", "sve")


def hardware() -> dict[str, object]:
    """Return the processor, the vector instructions it has, and how many cores can be used."""
    name = _cpuinfo().get("model name") or platform.processor() or platform.machine()
    return {
        "cpu": name,
        "cpu_flags": list(cpu_flags()),
        "cores": _cores(),
        "system": platform.system(),
    }


def cpu_flags() -> tuple[str, ...]:
    """Return the vector instructions of the processor, of those that matter to a network."""
    info = _cpuinfo()
    flags = set(info.get("flags", info.get("Features", "")).split())
    return tuple(flag for flag in _FLAGS if flag in flags)


def installed_environment(folder: Path) -> dict[str, str]:
    """Return the environment of a new process in which packages are compiled to bytecode.

    Installers do that. Here the first process does it, for packages that run from a clone or where
    PYTHONDONTWRITEBYTECODE is set; its time is not that of the others.

    Parameters
    ----------
    folder : path
        For the bytecode.
    """
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(folder)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


def gpu(device: str) -> str | None:
    """Return the name of a GPU, None for other devices."""
    if not device.startswith("cuda"):
        return None
    import torch

    return str(torch.cuda.get_device_name(device))


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Return the versions of Python and of those packages that are installed."""
    return with_python(packages)


def available_mb() -> float | None:
    """Return how much memory can be used without swapping, None where the system does not tell."""
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
    """Return the first processor's entries of Linux's list, nothing on other systems."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return {}
    lines = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in lines}
