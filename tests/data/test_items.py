"""Images, folders, lists, captions files and shards -> items."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.data.samples import caption, image, number_of, write_shards, write_tar
from ttd.data.bad_samples import BadSample
from ttd.data.items import known_captions, one_item, open_items
from ttd.errors import InputError


def listed(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images 0 to 3 with captions beside them."""
    place = tmp_path / "photos"
    (place / "sub").mkdir(parents=True)
    for number, name in enumerate(("a.png", "b.png", "c.JPE", "sub/d.png")):
        (place / name).write_bytes(image(number))
        (place / name).with_suffix(".txt").write_text(f" {caption(number)}\n")
    return place


def test_a_folder_is_read_in_order_with_its_captions(folder: Path) -> None:
    (folder / "c.txt").unlink()
    (folder / "b.txt").write_text(" \n")
    items = open_items(str(folder), "for the others", ("dog",))
    assert [item.id for item in items] == ["a.png", "b.png", "c.JPE", "sub/d.png"]
    assert [item.caption for item in items] == [caption(0), "for the others", "for the others", caption(3)]
    assert items[3].image == folder / "sub" / "d.png"
    assert [number_of(item.read()) for item in items] == [0, 1, 2, 3]
    assert {item.tags for item in items} == {("dog",)}


def test_paths_are_as_they_were_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    assert str(open_items("photos")[0].image) == "photos/a.png"
    assert str(open_items("../" + folder.parent.name + "/photos")[0].image) == f"../{folder.parent.name}/photos/a.png"


def test_results_inside_the_folder_are_not_read_again(folder: Path) -> None:
    (folder / "out" / "images").mkdir(parents=True)
    (folder / "out" / "images" / "a.png").write_bytes(image(0))
    assert len(open_items(str(folder), without=str(folder / "out"))) == 4
    assert len(open_items(str(folder), without=str(folder))) == 5
    record = {"id": "a.png", "image": "a.png", "caption": "x"}
    (folder / "words.jsonl").write_text(json.dumps(record))
    assert len(open_items(str(folder), without=str(folder / "words.jsonl"))) == 5


def test_a_caption_in_another_encoding_is_a_fault_of_its_item(folder: Path) -> None:
    (folder / "a.txt").write_bytes("Kätzchen".encode("latin-1"))
    first, *others = open_items(str(folder), "for the others")
    with pytest.raises(BadSample, match="wrong encoding"):
        _ = first.caption
    assert list(known_captions([first, *others])) == [caption(n) for n in (1, 2, 3)]


def test_one_image(folder: Path) -> None:
    item = one_item(folder / "b.png", None, ("dog",))
    assert (item.id, item.image, item.caption, item.tags) == ("b.png", folder / "b.png", caption(1), ("dog",))
    assert number_of(item.read()) == 1
    assert one_item(folder / "b.png", "as typed", ()).caption == "as typed"
    with pytest.raises(InputError, match="does not exist"):
        one_item(folder / "nothing.png", "x", ()).read()


def test_json_lines(tmp_path: Path) -> None:
    path = listed(
        tmp_path / "list.jsonl",
        '\ufeff{"image": "a.png", "caption": "a dog"}\n\n'
        '{"id": 7, "image": "/x/b.png", "tags": ["dog", " traffic light "]}\n'
        '{"image": "c.png", "tags": "dog; sky", "caption": null}\n',
    )
    first, second, third = open_items(str(path))
    assert (first.id, first.image, first.caption, first.tags) == ("a.png", tmp_path / "a.png", "a dog", ())
    assert (second.id, second.image, second.tags) == ("7", Path("/x/b.png"), ("dog", "traffic light"))
    assert (third.caption, third.tags) == (None, ("dog", "sky"))


@pytest.mark.parametrize(("name", "apart"), [("list.CSV", ","), ("list.tsv", "\t")])
def test_csv_and_tsv(tmp_path: Path, name: str, apart: str) -> None:
    text = 'Image|caption|tags\na.png|"a dog, a ""cat"""|\nb.png||dog;sky\n'
    first, second = open_items(str(listed(tmp_path / name, text.replace("|", apart))), "for all", ("red",))
    assert (first.caption, first.tags) == ('a dog, a "cat"', ("red",))
    assert (second.caption, second.tags) == ("for all", ("dog", "sky"))


def test_lines_with_ids_are_items_of_their_own(folder: Path) -> None:
    path = listed(folder / "list.csv", "id,image,caption\n1,a.png,one\n2,a.png,two\n,b.png,three\n")
    assert [(item.id, item.caption) for item in open_items(str(path))] == [
        ("1", "one"),
        ("2", "two"),
        ("b.png", "three"),
    ]


def coco(folder: Path) -> Path:
    content = {
        "images": [{"id": 5, "file_name": "a.png"}, {"id": 3, "file_name": "sub/d.png"}],
        "annotations": [
            {"image_id": 3, "caption": "three"},
            {"image_id": 5, "caption": "five"},
            {"image_id": 5, "caption": "also five"},
        ],
    }
    (folder.parent / "annotations").mkdir(exist_ok=True)
    return listed(folder.parent / "annotations" / "captions.json", json.dumps(content))


def test_coco_captions_with_their_folder(folder: Path) -> None:
    items = open_items(str(coco(folder)), images=str(folder))
    assert [(item.id, item.captions) for item in items] == [("a.png", ("five", "also five")), ("sub/d.png", ("three",))]
    assert [number_of(item.read()) for item in items] == [0, 3]
    every = open_items(str(coco(folder)), images=str(folder), every_caption=True)
    assert [(item.id, item.caption) for item in every] == [
        ("a.png", "five"), ("a.png#2", "also five"), ("sub/d.png", "three"),
    ]  # fmt: skip
    with pytest.raises(InputError, match="is not a folder"):
        open_items(str(coco(folder)), images=str(folder / "nowhere"))


def test_shards(tmp_path: Path) -> None:
    write_shards(tmp_path / "cc", (2, 1))
    wanted = [("cc/00000.tar/000000000", 0), ("cc/00000.tar/000000001", 1), ("cc/00001.tar/000000002", 2)]
    for source in (tmp_path / "cc", tmp_path / "cc" / "{00000..00001}.tar", tmp_path / "cc" / "*.tar"):
        items = open_items(str(source), "for all")
        assert [(item.id, number_of(item.read())) for item in items] == wanted
        assert [item.caption for item in items] == [caption(n) for n in range(3)]
    assert [item.id for item in open_items(str(tmp_path / "cc" / "00001.tar"))] == [wanted[2][0]]
    assert items[0].image == tmp_path / "cc" / "00000.tar" / "000000000"


def test_several_sources_have_ids_that_differ(folder: Path, tmp_path: Path) -> None:
    write_tar(tmp_path / "cc" / "0.tar", {"a": {"png": image(9), "txt": b"nine"}})
    source = str(tmp_path) + "/{cc/0.tar,photos,photos/a.png}"
    ids = [item.id for item in open_items(source)]
    assert ids == [
        "cc/0.tar/a",
        *(f"{tmp_path.name}/photos/{n}" for n in ("a.png", "b.png", "c.JPE", "sub/d.png")),
        "photos/a.png",
    ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"image": "a.png"}\n{"image": \n', "line 2 is not (JSON|an object)"),
        ("a.jsonl", '{"caption": "x"}\n', "line 1 names no image"),
        ("a.jsonl", '{"image": "a.png", "id": 1}\n{"image": "b.png", "id": 1}\n', "twice"),
        ("a.jsonl", '{"image": "a.png", "tags": "x"}\n{"image": "a.png", "tags": "y"}\n', "twice"),
        ("a.jsonl", "", "no image"),
        ("a.csv", "name,caption\na.png,x\n", "names no image"),
    ],
)
def test_lists_that_are_wrong_say_where(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_items(str(listed(tmp_path / name, text)))


def test_a_wrong_line_costs_only_its_item(tmp_path: Path) -> None:
    text = '{"image": "a.png", "caption": 5}\n{"image": "b.png", "tags": [5]}\n{"image": "c.png", "caption": "x"}\n'
    first, second, third = open_items(str(listed(tmp_path / "a.jsonl", text)))
    with pytest.raises(BadSample, match="caption is not a text"):
        _ = first.caption
    with pytest.raises(BadSample, match="not a list of texts"):
        _ = second.tags
    assert third.caption == "x"
