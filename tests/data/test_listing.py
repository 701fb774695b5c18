from __future__ import annotations

from pathlib import Path

import pytest

from ttd.data.listing import data_files, expand_braces, images_in
from ttd.data.tar_shard import shard_name
from ttd.errors import InputError


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a.tar", ["a.tar"]),
        ("a-{00..02}.tar", ["a-00.tar", "a-01.tar", "a-02.tar"]),
        ("{8..10}", ["8", "9", "10"]),
        ("{08..10}", ["08", "09", "10"]),
        ("{2..0}", ["2", "1", "0"]),
        ("{x,y}/{0..1}", ["x/0", "x/1", "y/0", "y/1"]),
    ],
)
def test_braces_expand_as_in_a_shell(text: str, names: list[str]) -> None:
    assert expand_braces(text) == names


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("a/00.tar", "a/01.tar", "a/02.tar", "a/.hidden.tar", "b/pairs.csv", "b/photo.jpg", "c.tar.gz"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    Path("empty").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("sources", "names"),
    [
        ("a/00.tar", ["a/00.tar"]),
        ("a", ["a/00.tar", "a/01.tar", "a/02.tar"]),
        ("a/{01..02}.tar", ["a/01.tar", "a/02.tar"]),
        ("a/0[02].tar", ["a/00.tar", "a/02.tar"]),
        (["b", "a/00.tar"], ["b/pairs.csv", "a/00.tar"]),
        ("{b,a}", ["b/pairs.csv", "a/00.tar", "a/01.tar", "a/02.tar"]),
    ],
)
def test_what_a_user_names(place: Path, sources: str | list[str], names: list[str]) -> None:
    assert data_files(sources) == [place / name for name in names]


@pytest.mark.parametrize(
    "sources",
    ["..", "../00.tar", "../{00..02}.tar", "../0*.tar", "../../a/0?.tar", "./../00.tar", "sub/../../0*.tar",
     "../../b/../a"],
)  # fmt: skip
def test_a_shard_is_called_by_its_real_folder(place: Path, sources: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named through "..", shards once were "../00.tar", and tables of them lay outside of their folder."""
    (place / "a" / "inner" / "sub").mkdir(parents=True)
    monkeypatch.chdir(place / "a" / "inner")
    found = data_files(sources)
    assert found
    assert all(path.parent == place / "a" and shard_name(path) == f"a/{path.name}" for path in found)


def test_parents_are_those_that_the_disk_has(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a link ".." is the parent of what it leads to; a folder that is a link itself keeps its name."""
    (place / "a" / "inner").mkdir()
    (place / "way").symlink_to(place / "a" / "inner")
    (place / "data").symlink_to(place / "a")
    assert data_files("way/../00.tar") == [place / "a/00.tar"]
    monkeypatch.chdir(place / "b")
    assert data_files("../data/00.tar") == [place / "data/00.tar"]
    with pytest.raises(InputError, match="named twice"):
        data_files([place / "a" / "00.tar", "../a/00.tar"])


def test_a_plain_folder_of_images(place: Path) -> None:
    (place / "photos" / "more").mkdir(parents=True)
    for name in ("photos/b.JPG", "photos/b.txt", "photos/more/a.png", "photos/.hidden.png"):
        (place / name).touch()
    assert data_files("photos") == [place / "photos"]
    assert images_in(place / "photos") == [place / "photos/b.JPG", place / "photos/more/a.png"]
    (place / "photos" / "list.csv").touch()
    assert data_files("photos") == [place / "photos" / "list.csv"]


def test_absolute_wildcards(place: Path) -> None:
    assert data_files(str(place / "*" / "01.tar")) == [place / "a/01.tar"]


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ([], "no data"),
        ("a/{01..05}.tar", r"3 of the 5 .* first a/03\.tar"),
        ("nowhere", "does not exist"),
        ("*.nothing", "does not exist"),
        (["a", "a/01.tar"], "named twice"),
        ("c.tar.gz", "unpack"),
        ("empty", "no images"),
        ("b/photo.jpg", "neither"),
        ("s3://bucket/a.tar", "local"),
        ("pipe:cat a.tar", "local"),
    ],
)
def test_what_cannot_be_meant(place: Path, sources: str | list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        data_files(sources)
