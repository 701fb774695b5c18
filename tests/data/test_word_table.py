"""The table of visible words: long and nested hold the same, in pieces of any size."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.samples import write_shards
from ttd.data import tables
from ttd.data.sources import PairSource
from ttd.data.tables import write_table
from ttd.data.word_table import Token, Tokens, chosen_words, some_pairs, token_table
from ttd.errors import InputError
from ttd.registry import TABLE_FORMS

CAPTIONS: Tokens = [
    [Token("A", 0, 1, 0.25, None, False, True), Token("dog", 2, 5, 0.5, 75.0, True), Token("Dog", 6, 9, 0.5, 75, True)],
    [],
    [Token("...", 0, 3, None, None, False, False, True), Token("cat", selected=True)],
]  # fmt: skip
PAIRS: list[tuple[str, str, Tokens]] = [("a/0.tar", "x", CAPTIONS), ("a/0.tar", "y", None), ("a/1.tar", "y", [[]])]


def read(path: Path) -> list[tuple[object, ...]]:
    return [tuple(row.values()) for batch in chosen_words(path) for row in batch.to_pylist()]


@pytest.mark.parametrize("form", TABLE_FORMS)
def test_the_selected_words_are_read_from_either_form(tmp_path: Path, form: str) -> None:
    write_table(token_table(PAIRS, form), tmp_path / "t.parquet", {})
    wanted = [("a/0.tar", "x", [["dog"], [], ["cat"]]), ("a/0.tar", "y", None), ("a/1.tar", "y", [[]])]
    assert read(tmp_path / "t.parquet") == wanted
    back = some_pairs(tmp_path / "t.parquet", 10)
    assert back == [(shard, key, tokens) for shard, key, tokens in _without_rows_of_no_token(PAIRS, form)]


def _without_rows_of_no_token(pairs: list[tuple[str, str, Tokens]], form: str) -> list[tuple[str, str, Tokens]]:
    """In the long form a caption without tokens is a row without a word."""
    if form == "nested":
        return pairs
    return [(s, k, None if c is None else [list(tokens) or [Token()] for tokens in c]) for s, k, c in pairs]


words = st.tuples(st.sampled_from(["a", "A", "dog", "é"]), st.booleans()).map(
    lambda drawn: Token(drawn[0], selected=drawn[1])
)
tokens = st.none() | st.lists(st.lists(words, max_size=4), min_size=1, max_size=3)


@settings(max_examples=60, deadline=None)
@given(st.lists(tokens, min_size=1, max_size=12), st.integers(1, 7))
def test_pieces_of_any_size_give_the_same(
    tmp_path_factory: pytest.TempPathFactory, found: list[Tokens], rows: int
) -> None:
    """Against the plain rule, pair by pair; pairs lie across the pieces in which a file is read."""
    path = tmp_path_factory.mktemp("t") / "t.parquet"
    pairs = [("s.tar", str(number), captions) for number, captions in enumerate(found)]
    table = token_table(pairs)
    pq.write_table(table, path)
    with patch.object(tables, "ROWS_AT_ONCE", rows):
        assert read(path) == [(shard, key, _plain(captions)) for shard, key, captions in pairs]


def _plain(captions: Tokens) -> list[list[str]] | None:
    if captions is None:
        return None
    chosen = []
    for several in captions:
        first: dict[str, str] = {}
        for token in several:
            if token.selected and token.word:
                first.setdefault(token.word.lower(), token.word)
        chosen.append(list(first.values()))
    return chosen


def test_training_reads_a_table_written_by_hand(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "cc", [2])
    for form in TABLE_FORMS:
        pairs = [("cc/00000.tar", f"{n:09d}", [[Token("image", selected=True), Token("red")]]) for n in range(2)]
        pq.write_table(token_table(pairs, form), tmp_path / f"{form}.parquet")
        assert PairSource(shards, tags=tmp_path / f"{form}.parquet")[1].tags == (("image",),)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"caption": pa.array([0, 2, 1], pa.int32())}, r"captions of pair 'x' do not follow each other"),
        ({"caption": pa.array([1, 1, 1], pa.int32())}, r"captions of pair 'x' do not follow each other"),
        ({"caption": pa.array([None, 0, 0], pa.int32())}, r"captions of pair 'x' do not follow each other"),
        ({"selected": pa.array([1, 0, 1])}, r'column "selected" holds int64 instead of bool'),
        ({"selected": pa.array([True, None, True])}, r'column "selected" has no value in row 2'),
        ({"score": pa.array([0.5, float("nan"), 0.1], pa.float32())}, r'column "score" holds no finite number'),
        ({"word": pa.array([1, 2, 3])}, r'column "word" holds int64 instead of string'),
    ],
)
def test_wrong_tables_are_refused(tmp_path: Path, changes: dict[str, pa.Array], said: str) -> None:
    table = token_table([("a.tar", "x", [[Token("dog"), Token("cat"), Token("sky")]])])
    for name, column in changes.items():
        table = table.set_column(table.column_names.index(name), name, column)
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(InputError, match=said):
        read(tmp_path / "t.parquet")


def test_a_sample_is_spread_over_files_and_rows(tmp_path: Path) -> None:
    for number in range(4):
        pairs = [(f"{number}.tar", str(key), [[Token("dog")]]) for key in range(10)]
        write_table(token_table(pairs), tmp_path / f"{number}.tar.parquet", {})
    assert [(s, k) for s, k, _ in some_pairs(tmp_path, 2)] == [("0.tar", "0"), ("2.tar", "0")]
    assert [(s, k) for s, k, _ in some_pairs(tmp_path, 8)] == [(f"{n}.tar", k) for n in range(4) for k in ("0", "5")]
    assert len(some_pairs(tmp_path, 1000)) == 40
