"""Whether torch would run on a GPU, determined without importing torch where possible."""

import importlib.util
import os
from pathlib import Path


def torch_takes_gpu(device: str) -> bool:
    """Return whether torch is installed and would run a student on a GPU for a device name."""
    return has_torch() and (device.startswith("cuda") or (device == "auto" and _torch_has_cuda()))


def has_torch() -> bool:
    """Return whether torch is installed."""
    return importlib.util.find_spec("torch") is not None


def _torch_has_cuda() -> bool:
    """Return whether torch can use a GPU; torch is imported only if there is a driver for one."""
    if not _has_nvidia_driver():
        return False
    import torch

    return torch.cuda.is_available()


def _has_nvidia_driver() -> bool:
    return any(Path(name).exists() for name in ("/dev/nvidiactl", "/dev/dxg")) or (
        os.name == "nt" and Path(os.environ.get("SYSTEMROOT", ""), "System32/nvcuda.dll").exists()
    )
