"""Choose torch devices and threads."""

import torch


def torch_device(device: str) -> torch.device:
    """Return the torch device of a name.

    Raises
    ------
    ValueError
        If the name is unknown, or there is no such device on this machine.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, index = device.partition(":")
    if device != "cpu" and (kind != "cuda" or (index and not index.isdigit())):
        raise ValueError(f"unknown device '{device}'; available: 'auto', 'cpu', 'cuda', 'cuda:N'.")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device '{device}' was asked for, but torch sees {torch.cuda.device_count()} "
            "CUDA devices; use device='cpu'."
        )
    return torch.device(device)


def set_threads(threads: int | None) -> None:
    """Set the number of CPU threads of torch, which all its models in the process share."""
    if threads is not None:
        torch.set_num_threads(threads)
