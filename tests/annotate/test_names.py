"""File names: safe everywhere, different for different texts."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttd.annotate.export import item_id, word_file

TEXTS = st.text(max_size=300)


@given(TEXTS, TEXTS)
def test_ids_are_safe_and_stable(shard: str, key: str) -> None:
    name = item_id(shard, key)
    assert name == item_id(shard, key)
    assert name.isascii()
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-")
    assert 11 <= len(name) <= 80
    assert Path(f"{name}.png").stem == name


def test_ids_differ_by_shard_key_and_caption() -> None:
    ids = [item_id("a/1.tar", "x.jpg"), item_id("a/2.tar", "x.jpg"), item_id("a/1.tar", "y/x.jpg")]
    ids += [item_id("a/1.tar", "x.jpg", 0), item_id("a/1.tar", "x.jpg", 1)]
    assert len(set(ids)) == 5
    assert all(name.startswith("x-") for name in ids)
    assert item_id("a", "val2017/000000397133.jpg").startswith("000000397133-")


@given(TEXTS)
def test_words_become_one_safe_path_part(word: str) -> None:
    name = word_file(word)
    assert not set(name) & set('/\\:*?"<>|. \0')
    assert len(name.encode("utf-8", "surrogatepass")) <= 120


@given(TEXTS, TEXTS)
def test_different_words_have_different_files(one: str, other: str) -> None:
    assert (word_file(one) == word_file(other)) == (one.lower() == other.lower())


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("dog", "dog"), ("o'clock", "o'clock"), ("Mother-In-Law", "mother-in-law"), ("café", "café"), ("犬", "犬"),
        ("1/2", "1%2F2"),
        ("..", "%2E%2E"), ("u.s.", "u%2Es%2E"), ("con", "%63on"), ("nul", "%6Eul"), ("console", "console"),
        ("🐶", "%F0%9F%90%B6"),
    ],
)  # fmt: skip
def test_names_are_readable(word: str, name: str) -> None:
    assert word_file(word) == name
