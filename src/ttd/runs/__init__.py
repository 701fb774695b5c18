"""Runs over many items that can be killed and started again: the engine, one lock per rank, the records."""

from ttd.runs.engine import (
    ALONE,
    Executor,
    FileToMake,
    MadeFiles,
    Ranks,
    Skipped,
    commit,
    differences,
    each_item,
    make_files,
    read_ahead,
    versions,
)

__all__ = [
    "ALONE",
    "Executor",
    "FileToMake",
    "MadeFiles",
    "Ranks",
    "Skipped",
    "commit",
    "differences",
    "each_item",
    "make_files",
    "read_ahead",
    "versions",
]
