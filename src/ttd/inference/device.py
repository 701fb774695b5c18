"""The device of a model, and errors when its memory is too small."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

from ttd.errors import InputError, OutOfMemory, is_out_of_memory
from ttd.registry import DEVICES


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
        raise InputError(_unknown(device)) from error
    there = dict(zip(DEVICES, (1, torch.cuda.device_count(), int(_has_mps())), strict=True))
    if chosen.type not in there:
        raise InputError(_unknown(device))
    if (chosen.index or 0) >= there[chosen.type]:
        fewer = ", or under torchrun fewer processes" if chosen.type == "cuda" else ""
        raise InputError(f"there is no device {chosen} here: use cpu{fewer}")
    return chosen


def _unknown(device: object) -> str:
    return f'unknown device "{device}": use {", ".join(DEVICES)} or cuda:1'


def _has_mps() -> bool:
    return torch.backends.mps.is_available()


P = ParamSpec("P")
R = TypeVar("R")


def inference(method: Callable[P, R]) -> Callable[P, R]:
    """Run a method in `torch.inference_mode`; `OutOfMemory` says what to lower."""

    @functools.wraps(method)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with torch.inference_mode():
                return method(*args, **kwargs)
        except (MemoryError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise OutOfMemory(_SENTENCE) from error
            raise

    return wrapped


_SENTENCE = (
    "not enough memory: lower size, scales, batch_size or the number of texts, shrink the image, "
    "or load the model with dtype='bfloat16'"
)
