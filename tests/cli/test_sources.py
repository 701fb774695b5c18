"""Folders and list files -> items."""

from __future__ import annotations

from pathlib import Path

import pytest

from ttd.cli.sources import is_many, read_items
from ttd.errors import InputError


def listed(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


def test_a_folder_is_read_in_order_with_its_captions(folder: Path) -> None:
    items = read_items(str(folder), "for the others", ())
    assert [item.id for item in items] == ["a.png", "b.png", "broken.jpg", "c.png", "sub/d.png"]
    assert items[0].caption == "a a queue sky"
    assert items[4].image == folder / "sub" / "d.png"
    (folder / "c.txt").unlink()
    (folder / "b.txt").write_text(" \n")
    items = read_items(str(folder), "for the others", ())
    assert [items[i].caption for i in (1, 3)] == ["for the others"] * 2


def test_results_inside_the_folder_are_not_read_again(folder: Path) -> None:
    (folder / "out" / "images").mkdir(parents=True)
    (folder / "out" / "images" / "a.png").write_bytes((folder / "a.png").read_bytes())
    assert len(read_items(str(folder), "x", (), str(folder / "out"))) == 5
    assert len(read_items(str(folder), "x", (), str(folder))) == 6


def test_json_lines(tmp_path: Path) -> None:
    path = listed(
        tmp_path / "list.jsonl",
        '\ufeff{"image": "a.png", "caption": "a dog"}\n\n'
        '{"id": 7, "image": "/x/b.png", "tags": ["dog", " traffic light "]}\n'
        '{"image": "c.png", "tags": "dog; sky", "caption": null}\n',
    )
    first, second, third = read_items(str(path), None, ())
    assert (first.id, first.image, first.caption, first.tags) == ("a.png", tmp_path / "a.png", "a dog", ())
    assert (second.id, second.image, second.tags) == ("7", Path("/x/b.png"), ("dog", "traffic light"))
    assert (third.caption, third.tags) == (None, ("dog", "sky"))


def test_csv(tmp_path: Path) -> None:
    path = listed(tmp_path / "list.CSV", 'image,caption,tags\na.png,"a dog, a ""cat""",\nb.png,,dog;sky\n')
    first, second = read_items(str(path), "for all", ("red",))
    assert (first.caption, first.tags) == ('a dog, a "cat"', ("red",))
    assert (second.caption, second.tags) == ("for all", ("dog", "sky"))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"image": "a.png"}\n{"image": \n', "line 2 is not a JSON object"),
        ("a.jsonl", "[1]\n", "line 1 is not a JSON object"),
        ("a.jsonl", '{"caption": "x"}\n', 'line 1: there is no "image"'),
        ("a.jsonl", '{"image": "a.png", "caption": 5}\n', "line 1"),
        ("a.jsonl", '{"image": "a.png", "tags": [5]}\n', "line 1"),
        ("a.jsonl", '{"image": "a.png"}\n{"image": "a.png"}\n', "twice"),
        ("a.jsonl", "", "no image"),
        ("a.csv", "name,caption\na.png,x\n", 'no "image"'),
        ("a.csv", "image\n" + "x" * 200_000 + "\n", "cannot be read as CSV"),
    ],
)
def test_lists_that_are_wrong_say_where(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_items(str(listed(tmp_path / name, text)), None, ())


def test_what_counts_as_many(tmp_path: Path, photo: Path) -> None:
    assert is_many(str(tmp_path))
    assert is_many("missing.jsonl")
    assert is_many("x.CSV")
    assert not is_many(str(photo))
    with pytest.raises(InputError, match="no list file"):
        read_items("missing.jsonl", None, ())
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InputError, match="no image"):
        read_items(str(tmp_path / "nothing"), None, ())
