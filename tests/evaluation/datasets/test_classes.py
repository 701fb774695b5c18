"""Class lists in both forms that people have: synonyms after semicolons, or after commas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ttd.errors import InputError
from ttd.evaluation.datasets.classes import own_classes, read_classes, read_numbers
from ttd.results import Segmentation


def read(tmp_path: Path, text: str) -> tuple[tuple[str, ...], ...]:
    (tmp_path / "c.txt").write_text(text)
    return read_classes(tmp_path / "c.txt").names


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("cat; kitty\ndog\n", (("cat", "kitty"), ("dog",))),
        ("cat, kitty\ndog\n", (("cat", "kitty"), ("dog",))),
        ("cat,kitty,\ndog,hound, puppy\n", (("cat", "kitty"), ("dog", "hound", "puppy"))),
        ("cat; a cat, lying\ndog\n", (("cat", "a cat, lying"), ("dog",))),  # with semicolons a comma is a name's own
        ("# a, b; c\ncat, kitty\ndog\n", (("cat", "kitty"), ("dog",))),
    ],
)
def test_both_forms(tmp_path: Path, text: str, names: tuple[tuple[str, ...], ...]) -> None:
    assert read(tmp_path, text) == names


def test_a_class_twice_is_found_in_both_forms(tmp_path: Path) -> None:
    for text in ("cat; kitty\ncat\n", "cat, kitty\ncat, tom\n", "Cat\ndog\ncat\n"):
        with pytest.raises(InputError, match="'cat' twice"):
            read(tmp_path, text)


def test_a_line_without_a_name_is_shown_and_an_empty_one_is_none(tmp_path: Path) -> None:
    assert read(tmp_path, "\n\ncat\n  \ndog\n\n") == (("cat",), ("dog",))
    with pytest.raises(InputError, match="has ';  ;' for a class"):
        read(tmp_path, "cat\n;  ;\ndog\n")


def test_synonyms_of_the_background_are_asked_for_and_are_background(tmp_path: Path) -> None:
    (tmp_path / "c.txt").write_text("background; sky; wall\ncat; kitty\ndog\n")
    classes = read_classes(tmp_path / "c.txt")
    assert classes.texts() == ["cat", "dog"]
    assert classes.texts(synonyms=True) == ["sky", "wall", "cat", "kitty", "dog"]
    asked = classes.asked(synonyms=True)
    assert asked == [(("sky", "wall"), 0), (("cat", "kitty"), 1), (("dog",), 2)]
    maps = np.arange(4).reshape(1, 4)
    found = Segmentation(maps.astype(np.uint16), ("background", "sky", "cat", "dog"), background=0.5)
    assert classes.labels(found, synonyms=True).tolist() == [[0, 0, 1, 2]]
    assert classes.background_words == ("sky", "wall")
    # Where the question itself names these words, they are not asked for as a class.
    assert classes.asked(synonyms=True, words=False) == asked[1:]
    by_words = Segmentation(maps[:, :3].astype(np.uint16), ("background", "cat", "dog"), background=0.0)
    assert classes.labels(by_words, synonyms=True, words=False).tolist() == [[0, 1, 2]]


def test_the_lists_of_the_field_name_the_background_by_what_it_is_made_of(tmp_path: Path) -> None:
    own = read_classes("voc")
    lines = ["sky, wall, tree, wood", *own.titles[1:-1], "tvmonitor, television screen"]
    (tmp_path / "cls_voc21.txt").write_text("\n".join(lines) + "\n")
    classes = own_classes("voc", tmp_path / "cls_voc21.txt")
    assert classes.background
    assert classes.names[0] == ("background", "sky", "wall", "tree", "wood")
    assert classes.texts(synonyms=True)[:4] == ["sky", "wall", "tree", "wood"]
    assert classes.texts()[-1] == "tvmonitor"
    (tmp_path / "short.txt").write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(InputError, match="lists 20 classes, voc has 21"):
        own_classes("voc", tmp_path / "short.txt")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_lists_are_utf_8_or_what_their_mark_says(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "c.txt").write_bytes("caf\u00e9; bar\r\ndog\r\n".encode(encoding))
    assert read_classes(tmp_path / "c.txt").names == (("caf\u00e9", "bar"), ("dog",))
    (tmp_path / "n.txt").write_bytes("1: caf\u00e9\r\n2: dog\r\n".encode(encoding))
    assert read_numbers(tmp_path / "n.txt") == {1: "caf\u00e9", 2: "dog"}


@pytest.mark.parametrize("data", ["caf\u00e9".encode("latin-1"), "dog".encode("utf-16-le")])
def test_lists_in_another_encoding_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "c.txt").write_bytes(data)
    with pytest.raises(InputError, match="UTF-8"):
        read_classes(tmp_path / "c.txt")
