from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from tests.data.samples import caption, image, number_of
from ttd.data.bad_samples import BROKEN_IMAGE, EMPTY_CAPTION, ENCODING, MISSING_CAPTION, BadSample
from ttd.data.items import open_items
from ttd.data.sources import PairSource
from ttd.errors import InputError


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five images, two of which are pairs."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for number, name in enumerate(("a.png", "b.png", "c.png", "d.png", "sub/e.PNG")):
        (folder / name).write_bytes(image(number))
        (folder / name).with_suffix(".txt").write_text(f" {caption(number)}\n", "utf-8")
    (folder / "b.txt").unlink()
    (folder / "c.txt").write_bytes(b"K\xe4tzchen")
    (folder / "d.txt").write_text(" \n")
    return folder


def test_images_with_their_captions_beside_them(photos: Path) -> None:
    source = pickle.loads(pickle.dumps(PairSource(photos)))
    assert source.locate(4) == (f"{photos.parent.name}/photos", "sub/e.PNG")
    for index, number in ((0, 0), (4, 4)):
        pair = source[index]
        assert (number_of(pair.image), pair.captions) == (number, (caption(number),))
    for index, reason in ((1, MISSING_CAPTION), (2, ENCODING), (3, EMPTY_CAPTION)):
        with pytest.raises(BadSample) as found:
            source[index]
        assert (found.value.reason, found.value.key) == (reason, f"{'abcd'[index]}.png")
    (photos / "a.png").write_bytes(b"GIF89a")
    with pytest.raises(BadSample) as found:
        source[0]
    assert found.value.reason == BROKEN_IMAGE
    with pytest.raises(InputError, match="has no words"):
        PairSource(photos, tags="inside")[4]


def test_other_images_and_captions_are_other_data(photos: Path) -> None:
    before = PairSource(photos).fingerprint()
    assert PairSource(photos).fingerprint() == before
    (photos / "a.txt").write_text("a much longer caption than it was", "utf-8")
    assert PairSource(photos).fingerprint() != before


def test_one_image_is_a_pair_with_the_caption_beside_it(photos: Path) -> None:
    source = PairSource([photos / "a.png", photos / "sub" / "e.PNG"])
    assert [(pair.shard, pair.key, pair.captions) for pair in (source[0], source[1])] == [
        ("photos/a.png", "a.png", (caption(0),)),
        ("sub/e.PNG", "e.PNG", (caption(4),)),
    ]


def test_a_folder_says_what_it_leaves_out(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    PairSource(photos)
    assert caplog.messages == []
    (photos / "a.png").unlink()
    PairSource(photos)
    assert caplog.messages == [f"{photos}: left out 1 file without an image's ending (.txt)."], "a.txt has no image"
    (photos / "none").mkdir()
    with pytest.raises(InputError, match="no images"):
        PairSource(photos / "none")


@pytest.mark.parametrize("name", ["a" * 246 + ".png", "\u72d7" * 83 + ".png", "a" * 252 + ".im", "\u72d7" * 84 + ".im"])
def test_names_as_long_as_a_file_system_allows(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(image(0))
    (tmp_path / "b.png").write_bytes(image(1))
    (tmp_path / "b.txt").write_text("a dog")
    source = PairSource(tmp_path)
    (other,) = (i for i in range(2) if source.locate(i)[1] != "b.png")
    assert source[1 - other].captions == ("a dog",)
    with pytest.raises(BadSample, match="missing caption"):
        source[other]


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        ("caf\u00e9 by the sea".encode("utf-16"), ("caf\u00e9 by the sea",)),
        ("\ufeffa dog".encode("utf-16-be"), ("a dog",)),
        ("caf\u00e9".encode("utf-32"), ("caf\u00e9",)),
        (b"\xef\xbb\xbfa dog\r\n", ("a dog",)),
        ("caf\u00e9".encode("latin-1"), ENCODING),
        ("a dog".encode("utf-16-le"), ENCODING),
        (b"\xff\xfea", ENCODING),
        ("\u72d7".encode("gbk"), ENCODING),
        (b"\xff\xfe", EMPTY_CAPTION),
    ],
)
def test_captions_are_utf_8_or_what_their_mark_says(tmp_path: Path, data: bytes, wanted: object) -> None:
    (tmp_path / "a.png").write_bytes(image(0))
    (tmp_path / "a.txt").write_bytes(data)
    (item,) = open_items(str(tmp_path))
    if isinstance(wanted, tuple):
        assert item.captions == PairSource(tmp_path)[0].captions == wanted
        return
    with pytest.raises(BadSample) as found:
        PairSource(tmp_path)[0]
    assert found.value.reason == wanted
    if wanted == ENCODING:
        with pytest.raises(BadSample):
            _ = item.captions
