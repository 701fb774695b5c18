"""Parquet next to the shards: written whole, read with checks; scores and keep-lists (shard, key, score)."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ttd.data.shard import Shard
from ttd.errors import InputError
from ttd.files import whole_file
from ttd.files.documents import parse_json, refused
from ttd.files.schema import Misfit, Schema, brief

PAIR = [pa.field("shard", pa.string(), nullable=False), pa.field("key", pa.string(), nullable=False)]
PAIRS = pa.schema(PAIR)
SCORES = pa.schema([*PAIR, pa.field("score", pa.float32(), nullable=False)])
# What Arrow raises for a damaged file: errors of its own, and some of Python's.
_DAMAGE = (pa.ArrowException, OSError, ArithmeticError, LookupError, TypeError, ValueError)
ROWS_AT_ONCE = 1 << 16  # that are read
_STRINGS = {pa.string(), pa.large_string()}


def write_table(table: pa.Table, path: Path, about: dict[str, Any]) -> None:
    """Write Parquet whole or not at all; `about` goes into its metadata."""
    table = table.replace_schema_metadata(metadata(about))
    with whole_file(path) as part:
        pq.write_table(table, part, compression="zstd", write_page_checksum=True)


def metadata(about: dict[str, Any]) -> dict[str, str]:
    """For a Parquet file's schema: what the table was made of, with a checksum, for pages alone have one."""
    content = json.dumps(about)
    return {"ttd": content, "ttd_crc32": str(zlib.crc32(content.encode()))}


def read_about(path: Path, schema: Schema) -> dict[str, Any] | None:
    """What `write_table` put into the metadata; None where there is no such file, or a damaged one."""
    try:
        found = pq.read_schema(path).metadata
        content = found[b"ttd"]
        if found[b"ttd_crc32"] != str(zlib.crc32(content)).encode():
            return None
        about: dict[str, Any] = parse_json(content, schema)
    except _DAMAGE:
        return None
    return about


def column_names(path: Path) -> list[str]:
    """The columns of a Parquet file; `InputError` as `read_table`."""
    try:
        return list(pq.read_schema(path).names)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: check the path") from None
    except _DAMAGE as error:
        raise InputError(f"{path} cannot be read as Parquet ({brief(str(error))}): make it again") from None


def read_table(path: Path, columns: pa.Schema | Sequence[str]) -> Iterator[pa.RecordBatch]:
    """A Parquet file piece by piece: some columns, in their order.

    Args:
        path: the file.
        columns: with the types that they must have; names alone: as they are.

    Raises:
        InputError: it does not exist, is damaged, lacks a column, or a column holds something else: another type, null
            where the schema allows none or inside of a list, a number that is not finite.
    """
    names = columns.names if isinstance(columns, pa.Schema) else list(columns)
    start = 0
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            there = file.schema_arrow.names
            if missing := [name for name in names if name not in there]:
                raise InputError(f'{path} has no column "{missing[0]}": it needs {", ".join(names)}')
            if twice := [name for name in names if there.count(name) > 1]:
                raise InputError(f'{path} has the column "{twice[0]}" twice: make it again')
            for batch in file.iter_batches(batch_size=ROWS_AT_ONCE, columns=names):
                batch.validate(full=True)
                yield _checked(batch, columns, start, path) if isinstance(columns, pa.Schema) else batch
                start += len(batch)
            # Of a damaged table of contents, which no checksum covers, whole pieces would be left out without a word.
            about = file.metadata
            if not start == about.num_rows == sum(about.row_group(n).num_rows for n in range(about.num_row_groups)):
                raise InputError(f"{path} has another number of rows than it says: make it again")
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: check the path") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder: give the Parquet file in it") from None
    except _DAMAGE as error:
        raise InputError(f"{path} cannot be read as Parquet ({brief(str(error))}): make it again") from None


def _checked(batch: pa.RecordBatch, schema: pa.Schema, start: int, path: Path) -> pa.RecordBatch:
    columns = []
    for field in schema:
        with refused(f'{path}, column "{field.name}"', "make it again"):
            columns.append(_column(batch.column(field.name), field, start))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _column(values: pa.Array, field: pa.Field, start: int) -> pa.Array:
    """The values in the field's type; raises `Misfit` where they are something else. `start` counts earlier rows."""
    if not _alike(values.type, field.type):
        raise Misfit(f"holds {values.type} instead of {field.type}")
    values = values.cast(field.type)
    if values.null_count and not field.nullable:
        row = pc.index(values.is_null(), True).as_py()
        raise Misfit(f"has no value in row {start + row + 1}")
    if pa.types.is_floating(field.type):
        row = pc.index(pc.is_finite(values), False).as_py()  # null does not count as infinite
        if row >= 0:
            raise Misfit(f"holds no finite number in row {start + row + 1}")
    inner = values
    while pa.types.is_list(inner.type):
        inner = inner.flatten()
        if inner.null_count:
            raise Misfit("has a list with null in it")
    return values


def _alike(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether values of a type can be used as another without loss."""
    if pa.types.is_dictionary(found):
        found = found.value_type
    if pa.types.is_null(found):  # nothing but null, as lists that are all empty have it
        return True
    if pa.types.is_list(wanted):
        is_list = pa.types.is_list(found) or pa.types.is_large_list(found)
        return is_list and _alike(found.value_type, wanted.value_type)
    if pa.types.is_struct(wanted):
        same = pa.types.is_struct(found) and [field.name for field in found] == [field.name for field in wanted]
        return same and all(_alike(a.type, b.type) for a, b in zip(found, wanted, strict=True))
    if wanted in _STRINGS:
        return found in _STRINGS
    for is_kind in (pa.types.is_integer, pa.types.is_boolean):
        if is_kind(wanted):
            return bool(is_kind(found))
    return bool(pa.types.is_floating(found))


def kept_rows(path: Path, shards: Sequence[Shard]) -> NDArray[np.int64]:
    """Numbers, ascending, of the pairs that a keep-list names.

    Raises:
        InputError: the list cannot be read, or names none of the pairs.
    """
    numbers = [rows for rows, _ in numbered(read_table(path, PAIRS), shards)]
    kept: NDArray[np.int64] = np.concatenate([np.zeros(0, np.int64), *numbers])
    kept = kept[kept >= 0]
    kept.sort()  # in place; np.unique takes seven times the memory of what it is given
    kept = kept[np.diff(kept, prepend=-1) > 0]
    if not len(kept):
        raise InputError(f"{path} names none of the pairs: it was made for other shards")
    return kept


def numbered(
    pieces: Iterable[pa.RecordBatch], shards: Sequence[Shard]
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
