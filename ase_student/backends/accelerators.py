"""Whether torch would run on a GPU, as far as can be told without importing it."""

import importlib.util
import os
from pathlib import Path


def torch_takes_gpu(device: str) -> bool:
    """Say whether torch, where it is installed, would run a student for a device on a GPU."""
    return has_torch() and (device.startswith("cuda") or (device == "auto" and _torch_has_cuda()))


def has_torch() -> bool:
    """Return whether torch is installed."""
    return importlib.util.find_spec("torch") is not None


def _torch_has_cuda() -> bool:
    """Say whether torch can use a GPU; it is imported only where there is a driver for one."""
    if not _has_nvidia_driver():
        return False
    import torch

    return torch.cuda.is_available()


def _has_nvidia_driver() -> bool:
    return any(Path(name).exists() for name in ("/dev/nvidiactl", "/dev/dxg")) or (
        os.name == "nt" and Path(os.environ.get("SYSTEMROOT", ""), "System32/nvcuda.dll").exists()
    )
