"""Names and paths from files: what is a name everywhere, what stays in its folder, and what is refused."""

from __future__ import annotations

import ntpath
import posixpath
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ttd.errors import InputError
from ttd.files.safe_paths import (
    check_name,
    check_path,
    file_below,
    file_part,
    inside,
    item_id,
    name_fault,
    path_fault,
    word_file,
)

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


# What a hostile file may say where a path in its folder is expected; the folder `outside` lies beside that folder.
HOSTILE_PATHS = {
    "empty": "",
    "blank": "  ",
    "itself": ".",
    "parent": "..",
    "relative": "../outside/secret.png",
    "hidden": "a/../../outside/secret.png",
    "absolute": "/outside/secret.png",
    "Windows relative": "..\\outside\\secret.png",
    "Windows spaces": ".. \\outside\\secret.png",
    "drive": "C:\\outside\\secret.png",
    "drive relative": "C:secret.png",
    "share": "\\\\host\\outside\\secret.png",
    "NUL": "secret.png\0.jpg",
    "newline": "secret\n.png",
    "long": "x" * 256,
    "long in bytes": "é" * 128,
    "deep": "a/" * 600 + "a",
    "surrogate": "\ud800.png",
}
# What else cannot be a name.
HOSTILE_NAMES = {
    **HOSTILE_PATHS,
    "folder": "a/b",
    "Windows folder": "a\\b",
    "longer than endings allow": "x" * 201,
    "device": "CON",
    "device with ending": "nul.png",
    "numbered device": "lpt1",
    "stream": "a:b",
    "wildcard": "a*",
    "dot first": ".a",
    "dot last": "a.",
    "space last": "a ",
}
GOOD_PATHS = [
    "x.jpg", "val2017/000000397133.jpg", "frankfurt/frankfurt_000000_000294", "./a/b.png", "2007_000033", "a..b",
    "a...", "犬/ñ.png", "with space/and-dash_1.JPG", "actor\\0001_2124494179.jpg", "x" * 255,
    ".hidden/x.png", "100% dog?.png",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_NAMES.values(), ids=HOSTILE_NAMES)
def test_what_cannot_be_a_name_is_said_with_file_and_id(name: str, tmp_path: Path) -> None:
    assert name_fault(name)
    with pytest.raises(InputError, match=r"^tags\.jsonl: the id .* cannot name a file: change it$") as told:
        check_name(name, "tags.jsonl")
    assert len(str(told.value)) < 250
    with pytest.raises(InputError):
        inside(tmp_path, name if name != HOSTILE_NAMES["longer than endings allow"] else "x" * 256)


@pytest.mark.parametrize("value", [None, 7, ["a"], {"a": 1}, True])
def test_what_is_no_text_is_no_name(value: object) -> None:
    with pytest.raises(InputError, match=r"the id .* is not a text"):
        check_name(value, "here")
    with pytest.raises(InputError, match=r"the path .* is not a text"):
        check_path(value, "here")


@pytest.mark.parametrize("text", HOSTILE_PATHS.values(), ids=HOSTILE_PATHS)
def test_what_cannot_be_a_path_is_said_with_file_and_path(text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^list\.txt: the file_name .*: correct it$") as told:
        check_path(text, "list.txt", "file_name")
    assert len(str(told.value)) < 250
    assert file_below(tmp_path / "set", text) is None


@pytest.mark.parametrize("text", GOOD_PATHS)
def test_paths_of_real_data_sets_pass(text: str, tmp_path: Path) -> None:
    assert check_path(text, "here") == text
    assert file_below(tmp_path, text) == tmp_path / text


@given(TEXTS)
@example("0:")
def test_what_passes_stays_inside(text: str) -> None:
    """Judged by the path libraries of both kinds of systems."""
    if path_fault(text) is None:
        for flavour, home in ((posixpath, "/home/set"), (ntpath, "D:\\home\\set")):
            joined = flavour.normpath(flavour.join(home, text))
            assert joined.startswith(home + flavour.sep), joined
    if name_fault(text) is None:
        assert Path(text).parts == (text,)
        assert path_fault(text) is None


def test_a_full_path_counts_where_it_lies_in_the_folder(tmp_path: Path) -> None:
    assert file_below(tmp_path, str(tmp_path / "a" / "x.png")) == tmp_path / "a" / "x.png"
    assert file_below(tmp_path, "a/../x.png") == tmp_path / "x.png"
    assert file_below(tmp_path / "set", str(tmp_path / "settled" / "x.png")) is None
    assert file_below(Path("/"), "/x.png") == Path("/x.png")


def test_inside_follows_no_link_below_the_folder_that_was_named(tmp_path: Path) -> None:
    real, outside = tmp_path / "real", tmp_path / "outside"
    (real / "a").mkdir(parents=True)
    outside.mkdir()
    (tmp_path / "named").symlink_to(real)
    assert inside(tmp_path / "named", "a", "new.png") == tmp_path / "named" / "a" / "new.png"
    for name, target in {"out": outside, "gone": tmp_path / "gone", "loop": real / "loop", "own": real / "a"}.items():
        (real / name).symlink_to(target)
        for names in ((name,), (name, "x.png"), (name, "x", "y.png")):
            with pytest.raises(InputError, match=f"{name} is a symbolic link, and nothing is read, written or removed"):
                inside(real, *names)


@given(TEXTS.filter(bool))
def test_parts_of_paths_look_like_the_text_and_are_names(text: str) -> None:
    part = file_part(text)
    assert part.strip() == "" or name_fault(part) is None
    if name_fault(text) is None and "%" not in text:
        assert part == text


@given(TEXTS.filter(bool), TEXTS.filter(bool))
@example("%2E%2E", "..")
@example("a%2Fb", "a/b")
@example("%63on", "con")
def test_different_texts_have_different_parts(one: str, other: str) -> None:
    assert (file_part(one) == file_part(other)) == (one == other)
