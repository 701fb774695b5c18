"""`ttd tag` on one image."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.conftest import Run
from tests.cli.fake_model import FakeModel


def test_the_table_is_sorted_with_the_gap_and_the_selection(run: Run, photo: Path) -> None:
    result = run("tag", photo, "a queue on the sky")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["word", "s_pixel"]
    assert lines[1].startswith("* queue")
    assert " 0.8000  ███" in lines[1]
    assert lines[2] == "  ---- largest gap: 0.8000 ----"
    assert lines[3].split() == ["sky", "0.0000"]
    assert lines[4] == "selected: queue"
    assert len(lines) == 5
    assert result.stderr == ""


def test_a_short_word_does_not_cut_the_head(run: Run, photo: Path) -> None:
    assert run("tag", photo, "ox").stdout.splitlines()[0] == "  word  s_pixel"


def test_the_json_record(run: Run, photo: Path) -> None:
    result = run("tag", photo, "a queue on the sky", "--json")
    record = json.loads(result.stdout)
    assert list(record) == [
        "image", "model", "caption", "selected", "words",
        "score", "selection", "threshold", "truncated", "unknown", "notice", "files",
    ]  # fmt: skip
    assert record["image"] == str(photo)
    assert record["model"] == "mini"
    assert record["selected"] == ["queue"]
    assert record["files"] == []
    assert record["words"][1] == {
        "text": "sky", "index": 4, "start": 15, "end": 18, "score": 0.0, "selected": False,
    }  # fmt: skip


def test_json_alone_draws_nothing(run: Run, photo: Path, model: FakeModel, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    run("tag", photo, "a queue", "--json")
    assert [name for name, *_ in model.calls] == ["tag_many"]
    assert sorted(tmp_path.rglob("*")) == before


def test_options_reach_the_model_and_only_those_given(run: Run, photo: Path, model: FakeModel) -> None:
    run("tag", photo, "a queue")
    run("tag", photo, "a queue", "--score", "s_seg", "--no-stop-words", "--protocol", "tcl", "--size", 64)
    assert model.calls[0][2] == {"score": "s_pixel"}
    assert model.calls[1][2] == {"score": "s_seg", "rule": "threshold", "stop_words": False, "flip": True, "size": 64}


def test_ones_own_tags(run: Run, photo: Path) -> None:
    result = run("tag", photo, "--tags", "sky", "traffic light", "queue", "--json")
    record = json.loads(result.stdout)
    assert record["caption"] is None
    assert [word["text"] for word in record["words"]] == ["sky", "traffic light", "queue"]


def test_words_outside_the_models_world_are_named_on_stderr(run: Run, photo: Path) -> None:
    result = run("tag", photo, "queue xylophone", "--json")
    assert result.stderr == "outside this model's world (scores mean little): xylophone\n"
    json.loads(result.stdout)


def test_an_image_unlike_those_that_the_model_learned_from_is_said(
    run: Run, photo: Path, folder: Path, model: FakeModel
) -> None:
    model.notice_of_all = "This model learned from drawings only."
    for command in (("tag", photo, "a queue"), ("segment", photo, "--tags", "queue"), ("mask", photo, "a queue")):
        result = run(*command, "--json")
        assert result.stderr.startswith("This model learned from drawings only.\n")
        assert json.loads(result.stdout)["notice"] == model.notice_of_all
    many = run("tag", folder, "--json")
    assert all(json.loads(line)["notice"] == model.notice_of_all for line in many.stdout.splitlines())
    assert "4 of 4 images: This model learned from drawings only." in many.stderr
    model.notice_of_all = None
    assert json.loads(run("tag", photo, "a queue", "--json").stdout)["notice"] is None


def test_emoji_wide_letters_and_control_characters(run: Run, photo: Path) -> None:
    result = run("tag", photo, "queue 😀 日本語 \x1b[31mred\x07")
    assert result.exit_code == 0
    assert "\x1b" not in result.stdout
    assert "\x07" not in result.stdout
    assert "😀" in result.stdout
    assert json.loads(run("tag", photo, "queue 😀", "--json").stdout)["words"][1]["text"] == "😀"


def test_an_argument_that_is_no_utf8(run: Run, photo: Path) -> None:
    result = run("tag", photo, "queue caf\udce9", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["caption"] == "queue caf\ufffd"


def test_ten_thousand_words(run: Run, photo: Path, tmp_path: Path) -> None:
    caption = " ".join(f"word{'a' * (i % 7)}{i}" for i in range(10_000))
    result = run("tag", photo, caption, "--out", tmp_path / "many.png")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) < 60
    assert "more (all with --json)" in result.stdout
    assert Image.open(tmp_path / "many.png").height < 5000


@pytest.mark.parametrize("kind", ["1x1", "CMYK", "animated", "palette", "wide"])
def test_unusual_images(run: Run, tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("image.gif" if kind == "animated" else "image.tif" if kind == "CMYK" else "image.png")
    if kind == "animated":
        frames = [Image.new("P", (9, 7), color) for color in (1, 2, 3)]
        frames[0].save(path, save_all=True, append_images=frames[1:])
    else:
        mode = {"CMYK": "CMYK", "palette": "P"}.get(kind, "RGB")
        Image.new(mode, {"1x1": (1, 1), "wide": (2000, 1)}.get(kind, (9, 7))).save(path)
    result = run("tag", path, "a queue in the sky", "--out", tmp_path / "out")
    assert result.exit_code == 0
    assert len(list((tmp_path / "out").glob("*.png"))) == 3


def test_images_in_a_file_and_in_a_folder(run: Run, photo: Path, tmp_path: Path) -> None:
    result = run("tag", photo, "a queue in the sky", "--out", tmp_path / "new" / "drawn.png")
    assert f"wrote {tmp_path / 'new' / 'drawn.png'}" in result.stdout
    record = json.loads(run("tag", photo, "a queue in the sky", "--out", tmp_path / "dir", "--json").stdout)
    assert [Path(path).name for path in record["files"]] == [
        "photo.png", "photo-scores.png", "photo-words.png",
    ]  # fmt: skip
    for path in record["files"]:
        assert Image.open(path).width > 300


def test_a_caption_without_spaces_is_one_word_which_is_said(run: Run, photo: Path) -> None:
    result = run("tag", photo, "\u8349\u5730\u4e0a\u7684\u72d7")
    assert result.exit_code == 0
    assert "words that are written without spaces count as one: name words with --tags" in result.stderr
    assert "without spaces" not in run("tag", photo, "a queue \u72d7").stderr


def test_entities_are_no_words(run: Run, photo: Path) -> None:
    result = run("tag", photo, "queue &amp;amp; sky&#39;s", "--json")
    assert [word["text"] for word in json.loads(result.stdout)["words"]] == ["queue", "sky"]
