"""Where a model computes."""

from __future__ import annotations

import torch

from ttd.errors import InputError


def find_device(device: str | torch.device | None = None) -> torch.device:
    """A device by name; None or "" is CUDA where there is one, else the CPU.

    Raises:
        InputError: there is no such device.
    """
    if not device:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise InputError(f'unknown device "{device}": use cpu, cuda, or cuda:0') from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise InputError(f"there is no device {chosen} here: use cpu, or under torchrun fewer processes")
    return chosen
