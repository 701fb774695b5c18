"""Runs over many items that can be killed and started again: the engine, one lock per rank, the records."""

from ttd.runs.engine import (
    ALONE,
    Executor,
    FileToMake,
    MadeFiles,
    Prepared,
    Ranks,
    Skipped,
    command,
    command_line,
    commit,
    differences,
    each_item,
    make_files,
    read_ahead,
    versions,
    without_secrets,
)

__all__ = [
    "ALONE",
    "Executor",
    "FileToMake",
    "MadeFiles",
    "Prepared",
    "Ranks",
    "Skipped",
    "command",
    "command_line",
    "commit",
    "differences",
    "each_item",
    "make_files",
    "read_ahead",
    "versions",
    "without_secrets",
]
