"""Calls without gradients that turn every kind of memory error into one sentence."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

from ttd.errors import OutOfMemory

P = ParamSpec("P")
R = TypeVar("R")

# On the CPU torch raises a bare RuntimeError with one of these.
_SIGNS = ("can't allocate memory", "not enough memory", "out of memory")


def inference(method: Callable[P, R]) -> Callable[P, R]:
    """Run a method in `torch.inference_mode`; `OutOfMemory` says what to lower."""

    @functools.wraps(method)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with torch.inference_mode():
                return method(*args, **kwargs)
        except (MemoryError, torch.OutOfMemoryError) as error:
            raise OutOfMemory(_SENTENCE) from error
        except RuntimeError as error:
            if any(sign in str(error).lower() for sign in _SIGNS):
                raise OutOfMemory(_SENTENCE) from error
            raise

    return wrapped


_SENTENCE = (
    "not enough memory: lower size, scales, batch_size or the number of texts, shrink the picture, "
    "or load the model with dtype='bfloat16'"
)
