"""Several images at once: the gallery, its table, and what a browser may name."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

import ttd
from tests.tolerance import MINI, assert_close
from ttd.app.answers import Question
from ttd.app.gallery import MOST_IMAGES, Sent, gallery, sent_images
from ttd.app.models import ModelPool
from ttd.errors import InputError
from ttd.scenes import Scene


def test_each_image_has_its_card_and_its_rows(pool: ModelPool, image: str, scene: Scene, tmp_path: Path) -> None:
    broken = tmp_path / "upload" / "broken.png"
    broken.parent.mkdir()
    broken.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 64)
    images = [
        Sent("one.png", Path(image), scene.caption),
        Sent("<b>broken</b>.png", broken, "a dog"),
        Sent("=two.png", Path(image), "a lion"),
    ]
    steps = list(gallery(pool, images, Question(None, tags="never used")))
    assert [table == "" for _, table in steps] == [True, True, False]
    html, table = steps[-1]
    assert html.count("<img") == 2
    assert "3 of 3 images" in html
    assert "&lt;b&gt;broken&lt;/b&gt;.png" in html
    assert "<b>broken" not in html
    assert str(tmp_path) not in html + table
    rows = list(csv.DictReader(table.splitlines()))
    tagging = ttd.load("mini").tag(image, scene.caption)
    mine = [row for row in rows if row["image"] == "one.png"]
    assert [row["word"] for row in mine] == [word.text for word in tagging.distinct()]
    assert [row["word"] for row in mine if row["selected"] == "1"] == tagging.selected
    assert_close([float(row["score"]) for row in mine], [word.score for word in tagging.distinct()], MINI)
    assert rows[-1]["image"] == "'=two.png"


def test_captions_are_one_for_all_or_one_for_each(tmp_path: Path) -> None:
    files = [{"name": f"{name}.png", "path": str(tmp_path / f"{name}.png")} for name in "ab"]
    one = sent_images({"files": files, "captions": " a dog \n\n"}, tmp_path)
    assert [image.caption for image in one] == ["a dog", "a dog"]
    both = sent_images({"files": files, "captions": "a dog\na cat"}, tmp_path)
    assert [(image.name, image.caption) for image in both] == [("a.png", "a dog"), ("b.png", "a cat")]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (None, "Choose 1 to"),
        ({"files": [], "captions": "a"}, "Choose 1 to"),
        ({"files": [{"name": "a", "path": "{folder}/a"}] * (MOST_IMAGES + 1), "captions": "a"}, "Choose 1 to"),
        ({"files": [{"name": "a", "path": "{folder}/a"}], "captions": "a\nb"}, "1 images and 2 captions"),
        ({"files": [{"name": "a", "path": "{folder}/a"}], "captions": " "}, "1 images and 0 captions"),
        ({"files": [{"name": "a", "path": "/etc/passwd"}], "captions": "a"}, "not uploaded"),
        ({"files": [{"name": "a", "path": "{folder}/../secret"}], "captions": "a"}, "not uploaded"),
        ({"files": [{"name": "a", "path": "{folder}/link"}], "captions": "a"}, "not uploaded"),
        ({"files": [{"name": "a", "path": "a.png"}], "captions": "a"}, "not uploaded"),
        ({"files": [{"name": "a"}], "captions": "a"}, "not uploaded"),
        ({"files": ["a"], "captions": "a"}, "not uploaded"),
    ],
)
def test_only_what_was_sent_here_is_opened(tmp_path: Path, given: Any, sentence: str) -> None:
    folder = tmp_path / "uploads"
    folder.mkdir()
    (tmp_path / "secret").write_text("x")
    (folder / "link").symlink_to(tmp_path / "secret")
    for file in given["files"] if given else ():
        if isinstance(file, dict) and "path" in file:
            file["path"] = file["path"].replace("{folder}", str(folder))
    with pytest.raises(InputError, match=sentence):
        sent_images(given, folder)
