"""Checkpoints that survive: written beside, forced onto the disk, then renamed; the last k are kept.

A run that is killed at any moment finds either the old set of checkpoints or the new one, never a part.
"""

from __future__ import annotations

import hashlib
import io
import logging
import re
from pathlib import Path
from typing import Any

import torch

from ttd.errors import InputError, TTDError
from ttd.files import DISK_FULL, whole_file

log = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"  # the folder of a run
FORMAT = 1
_NAME = re.compile(r"step-(\d{8,})\.ckpt")
_DIGEST = 32  # bytes of SHA-256 before the content, so that a damaged file is known as such


class DiskFull(TTDError):
    """A checkpoint did not fit on the disk; those before it are untouched."""


def save(folder: Path, step: int, state: dict[str, Any], keep: int) -> Path:
    """Write the checkpoint of a step and remove all but the last `keep`.

    Args:
        folder: made where it is missing.
        step: optimiser steps done.
        state: tensors, numbers, text, and containers of them.
        keep: at least 1.

    Raises:
        DiskFull: says which step the run can continue from.
    """
    # In memory first: torch.save into a file hides a full disk behind an error of its own.
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "step": step, **state}, buffer)
    path = folder / f"step-{step:08d}.ckpt"
    try:
        with whole_file(path) as part:
            part.write_bytes(hashlib.sha256(buffer.getbuffer()).digest() + buffer.getbuffer())
    except OSError as error:
        if error.errno in DISK_FULL:
            raise DiskFull(_full(folder)) from error
        raise
    for old in _numbered(folder)[:-keep]:
        old.unlink()
    return path


def load_last(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint that can be read, None where there is none.

    Raises:
        InputError: there are checkpoints, but all are damaged.
    """
    found = _numbered(folder)
    for path in reversed(found):
        digest, content = (read := path.read_bytes())[:_DIGEST], read[_DIGEST:]
        if hashlib.sha256(content).digest() != digest:
            log.warning("%s is damaged: trying the one before it", path)
            continue
        try:
            state: Any = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except Exception as error:  # what is no checkpoint fails in every way there is
            raise InputError(f"{path} is not a checkpoint ({type(error).__name__}): remove it") from error
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            raise InputError(f"{path} was written by another version of ttd: continue with that, or start anew")
        return dict(state)
    if found:
        raise InputError(f"every checkpoint in {folder} is damaged: remove the folder to start anew")
    return None


def _numbered(folder: Path) -> list[Path]:
    """The checkpoints by step, the oldest first."""
    found = [(int(match[1]), path) for path in folder.glob("*.ckpt") if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def _full(folder: Path) -> str:
    last = _numbered(folder)
    kept = f"the checkpoint {last[-1].name} is whole" if last else "no checkpoint was written yet"
    return f"the disk of {folder} is full; {kept}: free some space and run the same command again"
