"""The commands on images read whatever holds images with captions: shards, captions files, wildcards, folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run, one_sentence
from tests.cli.fake_model import FakeModel
from tests.data.samples import write_tar

COMMANDS = {"tag": (), "mask": (), "segment": ("--tags", "queue", "sky"), "heatmap": ("queue", "sky")}


@pytest.fixture
def shards(tmp_path: Path, photo: Path) -> Path:
    """Two tars with three samples, of which one is broken and one lacks a caption."""
    good = {"png": photo.read_bytes(), "txt": b"a queue sky"}
    write_tar(tmp_path / "cc" / "0.tar", {"a": good, "b": {**good, "png": b"no image"}})
    write_tar(tmp_path / "cc" / "1.tar", {"c": {"png": good["png"]}})
    return tmp_path / "cc"


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("source", ["", "{0..1}.tar", "*.tar"])
def test_shards(run: Run, shards: Path, command: str, source: str) -> None:
    result = run(command, str(shards / source), *COMMANDS[command], "--json")
    done = ["cc/0.tar/a", "cc/1.tar/c"] if command in ("segment", "heatmap") else ["cc/0.tar/a"]
    assert result.exit_code == 1
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert [record["id"] for record in records] == done
    assert records[0]["image"] == str(shards / "0.tar" / "a")
    skipped = result.stderr.splitlines()
    assert skipped[0] == f"Skipped {3 - len(done)}:"
    assert "  cc/0.tar/b: " in skipped[1]
    assert "broken image" in skipped[1]
    if len(done) == 1:
        assert "There is no caption for cc/1.tar/c" in skipped[2]


def test_drawn_files_lie_in_folders_named_like_the_shards(run: Run, shards: Path, tmp_path: Path) -> None:
    run("mask", shards / "0.tar", "--out", tmp_path / "out")
    assert (tmp_path / "out" / "images" / "cc" / "0.tar" / "a.png").is_file()


def coco(folder: Path, photo: Path) -> tuple[Path, Path]:
    """A captions file and the folder of its two images, of which the second has two captions."""
    (folder / "val").mkdir()
    names = ["1.png", "2.png"]
    for name in names:
        (folder / "val" / name).write_bytes(photo.read_bytes())
    content = {
        "images": [{"id": number, "file_name": name} for number, name in enumerate(names)],
        "annotations": [
            {"image_id": number, "caption": text} for number, text in ((0, "a queue"), (1, "a sky"), (1, "a queue sky"))
        ],
    }
    (folder / "captions.json").write_text(json.dumps(content))
    return folder / "captions.json", folder / "val"


@pytest.mark.parametrize("command", ["tag", "mask"])
def test_captions_files_with_several_captions(run: Run, tmp_path: Path, photo: Path, command: str) -> None:
    captions, images = coco(tmp_path, photo)
    result = run(command, captions, "--images", images, "--json")
    assert result.exit_code == 0
    assert [json.loads(line)["caption"] for line in result.stdout.splitlines()] == ["a queue", "a sky"]
    assert result.stderr == (
        "1 image has several captions, of which the first was taken: --every-caption takes each.\n"
    )
    result = run(command, captions, "--images", images, "--json", "--every-caption")
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(record["id"], record["caption"]) for record in records] == [
        ("1.png", "a queue"), ("2.png", "a sky"), ("2.png#2", "a queue sky"),
    ]  # fmt: skip
    assert (result.exit_code, result.stderr) == (0, "")


@pytest.mark.parametrize("name", ["list.csv", "list.tsv", "list.jsonl"])
def test_lists(run: Run, tmp_path: Path, photo: Path, name: str) -> None:
    apart = "\t" if name == "list.tsv" else ","
    rows = [("image", "text"), (photo.name, "a queue"), ("gone.png", "a sky")]
    text = "\n".join(apart.join(row) for row in rows)
    if name == "list.jsonl":
        text = "\n".join(json.dumps({"file_name": image, "text": caption}) for image, caption in rows[1:])
    (tmp_path / name).write_text(text + "\n")
    result = run("tag", tmp_path / name, "--json")
    assert result.exit_code == 1
    assert [json.loads(line)["id"] for line in result.stdout.splitlines()] == [photo.name]
    assert "  gone.png: " in result.stderr


def test_what_a_folder_leaves_out_is_said_in_one_line(run: Run, folder: Path, model: FakeModel) -> None:
    (folder / "film.mov").touch()
    (folder / "broken.jpg").unlink()
    (folder / "around").symlink_to(folder)
    result = run("tag", folder, "--json")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 4
    (line,) = result.stderr.splitlines()
    assert "left out 2 files without an image's ending (.mov, .txt), 1 link" in line


def test_a_caption_beside_one_image_counts_unless_one_is_typed(run: Run, folder: Path) -> None:
    assert json.loads(run("tag", folder / "a.png", "--json").stdout)["caption"] == "a a queue sky"
    assert json.loads(run("tag", folder / "a.png", "a sky", "--json").stdout)["caption"] == "a sky"


@pytest.mark.parametrize(
    ("source", "options", "sentence"),
    [
        ("missing.jsonl", (), "does not exist"),
        ("{0..3}.tar", (), "4 of the 4 files"),
        ("c.tar.gz", (), "unpack it"),
        ("ftp://example.org/a.tar", (), "no way to read ftp://"),
        ("photo.png", ("--images", "x"), "leave it out"),
        ("empty", (), "no images"),
    ],
)
def test_wrong_sources_are_one_sentence(
    run: Run, tmp_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch, source: str, options: tuple[str, ...],
    sentence: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "c.tar.gz").touch()
    assert sentence in one_sentence(run("tag", source, "--caption", "a queue", *options))
