"""`run.json`: what a run was made of, and whether the same command goes on with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ttd.encoders.identity import OUTDATED, is_outdated
from ttd.errors import InputError
from ttd.files import whole_file
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
    "model": {"method"},  # the block that it stands for is compared
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
        with whole_file(folder / RECORD) as part:
            part.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def read_record(folder: Path) -> dict[str, Any] | None:
    """The content of `run.json`, None where there is none."""
    path = folder / RECORD
    if not path.is_file():
        return None
    remedy = "choose another folder where it is not a training run's; else restore it, or remove it to start anew"
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
