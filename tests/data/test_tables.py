"""Parquet files: what their columns hold is checked before any of it is used."""

from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.samples import write_shards
from ttd.data.sources import PairSource
from ttd.data.tables import PAIRS, SCORES, read_about, read_table, write_table
from ttd.data.word_table import TAGS
from ttd.errors import InputError
from ttd.files.schema import anything

PAIR = {"shard": ["cc/00000.tar"] * 2, "key": ["000000000", "000000001"]}


def read(path: Path, schema: pa.Schema) -> list[dict[str, object]]:
    return [row for batch in read_table(path, schema) for row in batch.to_pylist()]


@pytest.mark.parametrize(
    "column",
    [pa.array(PAIR["key"]), pa.array(PAIR["key"], pa.large_string()), pa.array(PAIR["key"]).dictionary_encode()],
)
def test_texts_are_read_in_every_form_in_which_programs_write_them(tmp_path: Path, column: pa.Array) -> None:
    pq.write_table(pa.table({"more": [1, 2], "key": column, "shard": PAIR["shard"]}), tmp_path / "keep.parquet")
    assert [row["key"] for row in read(tmp_path / "keep.parquet", PAIRS)] == PAIR["key"]


@pytest.mark.parametrize(
    ("schema", "columns", "said"),
    [
        (PAIRS, {"key": ["a", None]}, r'column "key" has no value in row 2'),
        (PAIRS, {"key": [["a"], ["b"]]}, r'column "key" holds list<'),
        (PAIRS, {"key": [1, 2]}, r'column "key" holds int64 instead of string'),
        (PAIRS, {"shard": [b"a", b"b"]}, r'column "shard" holds binary instead of string'),
        (PAIRS, {"key": pa.nulls(2)}, r'column "key" has no value in row 1'),
        (SCORES, {"score": [0.5, float("nan")]}, r'column "score" holds no finite number in row 2'),
        (SCORES, {"score": [float("inf"), 0.0]}, r'column "score" holds no finite number in row 1'),
        (SCORES, {"score": ["0.5", "0.1"]}, r'column "score" holds string instead of float'),
        (SCORES, {"score": [None, 0.1]}, r'column "score" has no value in row 1'),
        (TAGS, {"tags": [[["a"]], [["a", None]]]}, r'column "tags" has a list with null in it'),
        (TAGS, {"tags": [[["a"]], [None]]}, r'column "tags" has a list with null in it'),
        (TAGS, {"tags": [["a"], ["b"]]}, r'column "tags" holds list<'),
        (TAGS, {"tags": [[[1]], [[2]]]}, r'column "tags" holds list<'),
        (TAGS, {}, r'has no column "tags": it needs shard, key, tags'),
    ],
)
def test_wrong_values_in_the_right_columns_are_refused(
    tmp_path: Path, schema: pa.Schema, columns: dict[str, object], said: str
) -> None:
    pq.write_table(pa.table({**PAIR, **columns}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match=said):
        read(tmp_path / "t.parquet", schema)


def test_words_may_be_missing_for_a_pair_and_be_none_for_a_caption(tmp_path: Path) -> None:
    for tags in ([None, [["a"], []]], [[[]], [[]]], [None, None]):
        pq.write_table(pa.table({**PAIR, "tags": tags}), tmp_path / "t.parquet")
        assert [row["tags"] for row in read(tmp_path / "t.parquet", TAGS)] == tags


def test_null_words_end_before_training_begins(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "cc", [2])
    pq.write_table(pa.table({**PAIR, "tags": [[["a"]], [["b", None]]]}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match="null"):
        PairSource(shards, tags=tmp_path / "t.parquet")


def test_no_bit_of_our_own_table_changes_what_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    table = pa.table({**PAIR, "tags": [[["red", "dog"]], None]}, schema=TAGS)
    write_table(table, path, {"settings": {"a": 1}})
    content = path.read_bytes()
    right, about = read(path, TAGS), read_about(path, anything)
    for bit in range(0, 8 * len(content), 5):
        broken = bytearray(content)
        broken[bit // 8] ^= 1 << bit % 8
        path.write_bytes(broken)
        assert read_about(path, anything) in (about, None)
        with suppress(InputError):
            assert read(path, TAGS) == right, bit
