"""Where a model computes."""

from __future__ import annotations

import torch

from ttd.errors import InputError

_NAMES = "use cpu, cuda, cuda:1 or mps"


def find_device(device: str | torch.device | None = None) -> torch.device:
    """A device by name; None or "" is CUDA where there is one, else MPS (Apple's), else the CPU.

    Raises:
        InputError: there is no such device.
    """
    if not device:
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if _has_mps() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise InputError(f'unknown device "{device}": {_NAMES}') from error
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(_has_mps())}
    if chosen.type not in there:
        raise InputError(f'unknown device "{device}": {_NAMES}')
    if (chosen.index or 0) >= there[chosen.type]:
        fewer = ", or under torchrun fewer processes" if chosen.type == "cuda" else ""
        raise InputError(f"there is no device {chosen} here: use cpu{fewer}")
    return chosen


def _has_mps() -> bool:
    return torch.backends.mps.is_available()
