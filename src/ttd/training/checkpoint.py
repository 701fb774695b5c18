"""A run's record (`run.json`), by which the same command resumes, and checkpoints that survive.

They are written beside, forced onto the disk, then renamed; the last k are kept. A run that is killed at any moment
finds either the old set of checkpoints or the new one, never a part.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import re
from pathlib import Path
from typing import Any

import torch

from ttd.encoders.identity import OUTDATED, is_outdated
from ttd.errors import InputError, TTDError
from ttd.files import DISK_FULL, write_file
from ttd.files.documents import read_json
from ttd.files.schema import any_text, count, each, fields, integer, mapping, optional, text
from ttd.runs import differences, versions
from ttd.training.config import Config

RECORD = "run.json"
_DATA = fields({}, {"sources": each(any_text), "keep": any_text})
_CONFIG = fields({}, {"model": fields({}, {"name": any_text}), "data": _DATA})
_RECORD = fields(
    {"config": _CONFIG},
    {
        "base": text,
        "data": text,
        "method": optional(text),
        "pairs": count,
        "steps": count,
        "world": count,
        "seed": integer,
        "command": any_text,
        "versions": mapping(text),
    },
)
# What may change between two starts of one run, because it does not change the result.
_FREE = {
    "model": {"method"},  # the block that it names is compared
    "data": {"workers", "max_bad_samples"},
    "run": {
        "device",
        "checkpoint_every",
        "keep_checkpoints",
        "log_every",
        "watch_every",
        "watch_samples",
        "tensorboard",
        "gradient_checkpointing",
        "compile",
    },
}


def settle_record(folder: Path, config: Config, facts: dict[str, Any], *, write: bool) -> None:
    """Write `run.json`, or make sure that the one that is there is of the same run.

    Args:
        folder: of the run.
        config: resolved.
        facts: "base", "data" (fingerprints), "method" (the last block that is trained, None where there is one form
            only), "pairs", "command" and what else is worth knowing.
        write: whether this process writes.

    Raises:
        InputError: the folder holds a run with other settings, another base, another last block or other data.
    """
    before = read_record(folder)
    if before is not None:
        _compare(folder, before, config, facts)
    if write:
        record = {
            **facts,
            "seed": config.run.seed,
            "versions": versions(),
            "config": config.to_dict(),
        }
        write_file(folder / RECORD, json.dumps(record, indent=1) + "\n")


def read_record(folder: Path) -> dict[str, Any] | None:
    """The content of `run.json`, None where there is none."""
    path = folder / RECORD
    if not path.is_file():
        return None
    remedy = "choose another folder where it is not a training run's; else restore it, or remove it to start again"
    record: dict[str, Any] = read_json(path, _RECORD, remedy=remedy)
    return record


def _compare(folder: Path, before: dict[str, Any], config: Config, facts: dict[str, Any]) -> None:
    if is_outdated(before.get("base")):
        raise InputError(f"{folder} holds a run that cannot go on: {OUTDATED}; choose another folder")
    # Records of earlier versions say what was asked for, which may be nothing.
    block = before.get("method", before["config"].get("model", {}).get("method") or facts["method"])
    free = {section: set(names) for section, names in _FREE.items()}
    if config.optimiser.schedule == "constant":
        free["optimiser"] = {"epochs", "steps"}  # a constant rate may simply go on for longer
    then = {"base": before.get("base"), "pairs": before.get("data"), "last block": block}
    now = {"base": facts["base"], "pairs": facts["data"], "last block": facts["method"]}
    other = differences({**then, **_bound(before["config"], free)}, {**now, **_bound(config.to_dict(), free)})
    if other:
        raise InputError(f"{folder} holds another run ({other}): choose another folder, or the same settings")


def _bound(config: dict[str, Any], free: dict[str, set[str]]) -> dict[str, Any]:
    """The sections of a config without what is free."""
    return {
        section: {name: value for name, value in values.items() if name not in free.get(section, ())}
        for section, values in config.items()
        if isinstance(values, dict)
    }


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
        write_file(path, hashlib.sha256(buffer.getbuffer()).digest() + buffer.getbuffer())
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
        except Exception as error:  # what is not a checkpoint fails in every way there is
            raise InputError(f"{path} is not a checkpoint ({type(error).__name__}): remove it") from error
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            raise InputError(f"{path} was written by another version of ttd: continue with that, or start again")
        return dict(state)
    if found:
        raise InputError(f"every checkpoint in {folder} is damaged: remove the folder to start again")
    return None


def _numbered(folder: Path) -> list[Path]:
    """The checkpoints by step, the oldest first."""
    found = [(int(match[1]), path) for path in folder.glob("*.ckpt") if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def _full(folder: Path) -> str:
    last = _numbered(folder)
    kept = f"the checkpoint {last[-1].name} is whole" if last else "no checkpoint was written yet"
    return f"the disk of {folder} is full; {kept}: free some space and run the same command again"
