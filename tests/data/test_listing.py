from __future__ import annotations

from pathlib import Path

import pytest

from ttd.data.listing import (
    ImageListing,
    expand_braces,
    list_images,
    named_files,
    names_one_image,
    plain_path,
)
from ttd.data.shard import shard_name
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
    for name in (
        "a/00.tar",
        "a/01.tar",
        "a/02.tar",
        "a/.hidden.tar",
        "b/pairs.csv",
        "b/photo.jpg",
        "b/film.mov",
        "c.tar.gz",
    ):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    Path("b/pairs.csv").write_text("image,caption\n")
    Path("empty").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("sources", "names"),
    [
        ("a/00.tar", ["a/00.tar"]),
        ("a", ["a/00.tar", "a/01.tar", "a/02.tar"]),
        ("a/{01..02}.tar", ["a/01.tar", "a/02.tar"]),
        ("a/0[02].tar", ["a/00.tar", "a/02.tar"]),
        (["b", "a/00.tar", "b/photo.jpg"], ["b/pairs.csv", "a/00.tar", "b/photo.jpg"]),
        ("{b,a}", ["b/pairs.csv", "a/00.tar", "a/01.tar", "a/02.tar"]),
    ],
)
def test_what_a_user_names(place: Path, sources: str | list[str], names: list[str]) -> None:
    assert [plain_path(path) for path in named_files(sources)] == [place / name for name in names]


@pytest.mark.parametrize(
    "sources",
    ["..", "../00.tar", "../{00..02}.tar", "../0*.tar", "../../a/0?.tar", "./../00.tar", "sub/../../0*.tar",
     "../../b/../a"],
)  # fmt: skip
def test_a_shard_is_called_by_its_real_folder(place: Path, sources: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named through "..", shards once were "../00.tar", and tables of them lay outside of their folder."""
    (place / "a" / "inner" / "sub").mkdir(parents=True)
    monkeypatch.chdir(place / "a" / "inner")
    found = [plain_path(path) for path in named_files(sources)]
    names = ["00.tar"] if sources.endswith("/00.tar") else ["00.tar", "01.tar", "02.tar"]
    assert found == [place / "a" / name for name in names]
    assert [shard_name(path) for path in found] == [f"a/{name}" for name in names]


def test_parents_are_those_that_the_disk_has(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a link ".." is the parent of what it leads to; a folder that is a link itself keeps its name."""
    (place / "a" / "inner").mkdir()
    (place / "way").symlink_to(place / "a" / "inner")
    (place / "data").symlink_to(place / "a")
    assert plain_path(*named_files("way/../00.tar")) == place / "a/00.tar"
    monkeypatch.chdir(place / "b")
    assert plain_path(*named_files("../data/00.tar")) == place / "data/00.tar"
    with pytest.raises(InputError, match="named twice"):
        named_files([place / "a" / "00.tar", "../a/00.tar"])


def touched(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_the_images_of_a_folder_and_what_is_left_out(place: Path) -> None:
    photos = touched(
        place / "photos", "b.JPG", "b.txt", "more/a.png", "more/c.WebP", "x.jfif", "film.mov", "notes.txt", "README",
        ".hidden.png", ".git/a.png", ".DS_Store",
    )  # fmt: skip
    listing = list_images(photos)
    assert [path.relative_to(photos).as_posix() for path in listing.files] == [
        "b.JPG", "more/a.png", "more/c.WebP", "x.jfif",
    ]  # fmt: skip
    assert dict(listing.other) == {".mov": 1, ".txt": 1, "": 1}
    assert listing.hidden == 2
    assert listing.left_out.startswith("3 files without an image's ending (")
    assert listing.left_out.endswith("), 2 hidden")
    assert list_images(photos / "more") == ImageListing(tuple(photos / "more" / name for name in ("a.png", "c.WebP")))
    assert list_images(photos / "more").left_out == ""


def test_every_format_and_no_copies_of_other_programs(place: Path) -> None:
    """What phones, browsers, network drives and notebooks leave in a folder."""
    photos = touched(
        place / "photos", "a.jpg", "b.jfif", "c.jpe", "d.jpg_large", "e.mpo", "f.JP2", "g.j2k", "h.ico", "i.tga",
        "j.apng", "k.dib", "l.pnm", "m.avif", "n.GIF", "noext", ".ipynb_checkpoints/a-checkpoint.jpg",
        ".Trash-1000/old.jpg", "@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg", "__MACOSX/._a.jpg", "._a.jpg", "b.svg",
    )  # fmt: skip
    listing = list_images(photos)
    assert {path.name for path in listing.files} == {
        "a.jpg", "b.jfif", "c.jpe", "e.mpo", "f.JP2", "g.j2k", "h.ico", "i.tga", "j.apng", "k.dib", "l.pnm", "n.GIF",
    } | ({"m.avif"} & {path.name for path in listing.files})  # fmt: skip
    assert {ending: count for ending, count in listing.other if ending != ".avif"} == {
        ".jpg_large": 1, "": 1, ".svg": 1,
    }  # fmt: skip
    assert listing.hidden == 5
    assert named_files("photos/*.jpg") == [Path("photos/a.jpg")]
    assert named_files("photos/._*.jpg") == [Path("photos/._a.jpg")]


def test_heic_without_its_decoder_is_named(place: Path) -> None:
    listing = ImageListing((), ((".heic", 2), (".mov", 1)))
    assert listing.left_out == "3 files without an image's ending (.heic, .mov; for .heic install pillow-heif)"


def test_links_lead_to_each_folder_once(place: Path) -> None:
    photos = touched(place / "photos", "deep/a.png")
    touched(place / "elsewhere", "b.png")
    (photos / "around").symlink_to(photos)
    (photos / "again").symlink_to(photos / "deep")
    (photos / "elsewhere").symlink_to(place / "elsewhere")
    (photos / "self").symlink_to(photos / "self")
    listing = list_images(photos)
    assert listing.files == (photos / "deep" / "a.png", photos / "elsewhere" / "b.png")
    assert listing.again == 2
    assert "2 links to folders that are listed already" in listing.left_out


def test_results_of_an_earlier_run_are_not_listed(place: Path) -> None:
    photos = touched(place / "photos", "a.png", "out/images/a.png", "out/results.jsonl")
    assert list_images(photos, photos / "out") == ImageListing((photos / "a.png",))
    assert len(list_images(photos, photos).files) == 2


def test_what_a_folder_stands_for(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    photos = touched(place / "photos", "a.png")
    assert named_files("photos") == [Path("photos")]
    touched(photos, "camera.json", "empty.csv")
    (photos / "sizes.csv").write_text("width,height\n1,2\n")
    (photos / "results.jsonl").write_text('{"id": "a.png", "image": "photos/a.png", "model": "mini"}\n')
    assert named_files("photos") == [Path("photos")], "none of them lists images"
    (photos / "list.tsv").write_text("File_Name\tcaption\na.png\tx\n")
    assert named_files("photos") == [Path("photos/list.tsv")]
    assert named_files("photos", photos / "list.tsv") == [Path("photos")]
    (photos / "captions.json").write_text('{"info": {}, "images": [], "annotations": []}')
    with pytest.raises(InputError, match="2 captions files"):
        named_files("photos")
    touched(photos, "0.TAR")
    assert caplog.messages == []
    assert named_files("photos") == [Path("photos/0.TAR")]
    assert caplog.messages == ["photos: left out 1 image, because the folder holds .tar shards."]


def test_one_image_or_many(place: Path) -> None:
    touched(place, "[1].jpg", "noending")
    for name in ("b/photo.jpg", "missing.png", "[1].jpg", "noending", "x" * 5000):
        assert names_one_image(name), name
    for name in (
        "b",
        "a/00.tar",
        "missing.jsonl",
        "x.CSV",
        "c.json",
        "b/*.jpg",
        "{0..2}.png",
        "c.tar.gz",
        "s3://a.png",
    ):
        assert not names_one_image(name), name


def test_absolute_wildcards(place: Path) -> None:
    assert named_files(str(place / "*" / "01.tar")) == [place / "a/01.tar"]


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ([], "no data"),
        ("a/{01..05}.tar", r"3 of the 5 .* first a/03\.tar"),
        ("nowhere", "does not exist"),
        ("*.nothing", "does not exist"),
        (["a", "a/01.tar"], "named twice"),
        ("c.tar.gz", "unpack"),
        ("b/film.mov", "neither an image"),
        ("ftp://bucket/a.tar", "no way to read ftp://"),
        ("pipe:cat a.tar", "no random access"),
    ],
)
def test_what_cannot_be_meant(place: Path, sources: str | list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        named_files(sources)
