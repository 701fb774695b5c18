"""Parquet beside the shards: scores and keep-lists (shard, key, score), words chosen beforehand (tags)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ttd.data.bad_samples import NO_ANSWER, BadSample
from ttd.data.rows import jsonl_rows
from ttd.data.shard import Shard
from ttd.errors import InputError
from ttd.files import whole_file

SCORES = pa.schema([("shard", pa.string()), ("key", pa.string()), ("score", pa.float32())])
WORDS = pa.schema([("shard", pa.string()), ("key", pa.string()), ("tags", pa.list_(pa.list_(pa.string())))])


def write_table(table: pa.Table, path: Path, about: dict[str, Any]) -> None:
    """Write Parquet whole or not at all; `about` goes into its metadata."""
    table = table.replace_schema_metadata({"ttd": json.dumps(about)})
    with whole_file(path) as part:
        pq.write_table(table, part, compression="zstd")


def read_about(path: Path) -> dict[str, Any] | None:
    """What `write_table` put into the metadata; None where there is no such file, or a damaged one."""
    try:
        about = json.loads(pq.read_schema(path).metadata[b"ttd"])
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        return None
    return about if isinstance(about, dict) else None


def column_names(path: Path) -> list[str]:
    """The columns of a Parquet file; `InputError` as `batches`."""
    try:
        return list(pq.read_schema(path).names)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: check the path") from None
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} cannot be read as Parquet ({str(error)[:100]}): make it again") from None


def batches(path: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """A Parquet file piece by piece.

    Raises:
        InputError: it does not exist, is damaged, or lacks a column.
    """
    try:
        with pq.ParquetFile(path) as file:
            missing = [name for name in columns if name not in file.schema_arrow.names]
            if missing:
                raise InputError(f'{path} has no column "{missing[0]}": it needs {", ".join(columns)}')
            yield from file.iter_batches(batch_size=1 << 16, columns=list(columns))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: check the path") from None
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} cannot be read as Parquet ({str(error)[:100]}): make it again") from None


def kept_rows(path: Path, shards: Sequence[Shard]) -> NDArray[np.int64]:
    """Numbers, ascending, of the pairs that a keep-list names.

    Raises:
        InputError: the list cannot be read, or names none of the pairs.
    """
    numbers = [rows for rows, _ in _numbered(path, shards, ("shard", "key"))]
    kept: NDArray[np.int64] = np.unique(np.concatenate(numbers)) if numbers else np.zeros(0, np.int64)
    kept = kept[kept >= 0]
    if not len(kept):
        raise InputError(f"{path} names none of the pairs: it was made for other shards")
    return kept


class ChosenWords:
    """Words chosen beforehand, for all pairs of a source: in Arrow's memory, shared by forked workers.

    Args:
        path: Parquet (shard, key, tags), JSONL with the same fields, or a folder of such Parquet files;
            `tags` lists the words of every caption, null stands for no answer of the tagger.
        shards: of the source.
        kept: as `kept_rows`, None for all pairs.
    """

    def __init__(self, path: Path, shards: Sequence[Shard], kept: NDArray[np.int64] | None) -> None:
        self.path = path
        total = sum(len(shard) for shard in shards)
        wanted = np.arange(total) if kept is None else kept
        rows = np.full(total, -1, np.int64)  # by pair: its row in the table
        pieces: list[pa.Array] = []
        filled = 0
        for numbers, batch in self._sources(shards):
            chosen = (numbers >= 0) & np.isin(numbers, wanted)
            pieces.append(batch.column("tags").cast(WORDS.field("tags").type).filter(pa.array(chosen)))
            rows[numbers[chosen]] = filled + np.arange(chosen.sum())
            filled += int(chosen.sum())
        if not filled:
            raise InputError(f"{path} has tags for none of the pairs: it was made for other shards")
        self._rows = rows[wanted]
        self._tags = pa.chunked_array(pieces, WORDS.field("tags").type)

    def of(self, index: int, shard: str, key: str, captions: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
        """The words of a pair's captions.

        Raises:
            BadSample: the tagger had no answer for it.
            InputError: there is nothing about this pair.
        """
        row = int(self._rows[index])
        if row < 0:
            raise InputError(f"{self.path} has no tags for pair {key!r}: run ttd data tag on all shards")
        tags = self._tags[row].as_py()
        if tags is None:
            raise BadSample(NO_ANSWER, shard, key)
        if len(tags) != len(captions):
            raise InputError(
                f"{self.path} has tags for {len(tags)} captions of pair {key!r}, which has {len(captions)}: "
                "it was made for other data"
            )
        return tuple(tuple(words) for words in tags)

    def _sources(self, shards: Sequence[Shard]) -> Iterator[tuple[NDArray[np.int64], pa.RecordBatch]]:
        if self.path.suffix.lower() == ".jsonl":
            table = _json_lines(self.path)
            yield from _number(table.to_batches(), shards)
            return
        files = sorted(self.path.rglob("*.parquet")) if self.path.is_dir() else [self.path]
        if not files:
            raise InputError(f"{self.path} has no Parquet files: give the folder that ttd data tag wrote")
        for file in files:
            yield from _numbered(file, shards, ("shard", "key", "tags"))


def _json_lines(path: Path) -> pa.Table:
    shards, keys, tags, number = [], [], [], 0
    try:
        for line, record in jsonl_rows(path):
            number = line
            words = record["tags"]
            nested = words if words is None or (words and isinstance(words[0], list)) else [words]
            shards.append(record["shard"])
            keys.append(record["key"])
            tags.append(nested)
        return pa.table([shards, keys, tags], schema=WORDS)
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise InputError(
            f'{path}, line {number}: each line needs "shard", "key" and "tags", a list of words or one such '
            f"list for each caption ({type(error).__name__}: {str(error)[:80]})"
        ) from None


def _numbered(
    path: Path, shards: Sequence[Shard], columns: Sequence[str]
) -> Iterator[tuple[NDArray[np.int64], pa.RecordBatch]]:
    yield from _number(batches(path, columns), shards)


def _number(
    pieces: Iterator[pa.RecordBatch] | list[pa.RecordBatch], shards: Sequence[Shard]
) -> Iterator[tuple[NDArray[np.int64], pa.RecordBatch]]:
    """Each piece with its pairs' numbers in the source, -1 for what the source does not have."""
    starts = dict(zip((s.name for s in shards), np.cumsum([0, *map(len, shards)]), strict=False))
    by_name = {shard.name: shard for shard in shards}
    held: tuple[str, pa.Array] | None = None
    for batch in pieces:
        names, keys = batch.column("shard"), batch.column("key")
        numbers = np.full(len(batch), -1, np.int64)
        for name in pc.unique(names).to_pylist():
            if name not in by_name:
                continue
            if held is None or held[0] != name:
                held = (name, by_name[name].keys())
            mine = pc.equal(names, name).to_numpy(zero_copy_only=False)
            rows = pc.index_in(keys.filter(pa.array(mine)), value_set=held[1])
            rows = pc.fill_null(rows, -1).to_numpy(zero_copy_only=False).astype(np.int64)
            numbers[mine] = np.where(rows < 0, -1, rows + starts[name])
        yield numbers, batch
