"""Which items are shown, how words and pixels are marked, and the page that shows them."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.evaluation.conftest import Eval
from tests.evaluation.layouts import write
from tests.evaluation.oracle import Oracle
from tests.evaluation.tasks.test_tagmask import TITLES, write_set
from ttd.errors import InputError
from ttd.evaluation.report.finished_run import read_run
from ttd.evaluation.report.formats import write_report
from ttd.evaluation.report.gallery import FoundItem, ImageSource, ItemView, Section, sections, write_images
from ttd.evaluation.report.panels import (
    BLUE,
    ORANGE,
    PINK,
    SIDE,
    Panel,
    best_median_worst,
    class_panel,
    marked,
    most_changed,
    outcome_panel,
)
from ttd.evaluation.report.tables import titles as titles_of

VALUES = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.floats(0, 1) | st.just(math.nan), max_size=20)


@given(VALUES, st.integers(1, 4))
def test_no_item_twice_and_in_order(values: dict[str, float], count: int) -> None:
    chosen = best_median_worst(values, count)
    every = [name for ids in chosen.values() for name in ids]
    known = {name: value for name, value in values.items() if not math.isnan(value)}
    assert len(set(every)) == len(every) <= 3 * count
    assert set(every) <= set(known)
    assert len(every) >= min(len(known), 2)
    if "worst" in chosen:
        assert max(known.values()) == known[chosen["best"][0]]
        assert min(known.values()) == known[chosen["worst"][0]]
        assert min(known[n] for n in chosen["best"]) >= max(known[n] for n in chosen["worst"])
    if "median" in chosen:
        ranks = sorted(known.values())
        assert ranks[len(ranks) // 3 - 1] <= known[chosen["median"][0]] <= ranks[-(len(ranks) // 3)]


def test_choice_by_hand() -> None:
    values = {f"i{n}": n / 10 for n in range(9)}
    assert best_median_worst(values, 1) == {"best": ["i8"], "median": ["i4"], "worst": ["i0"]}
    assert best_median_worst(values, 2)["median"] == ["i4", "i3"]
    assert best_median_worst({"b": 1.0, "a": 1.0, "c": math.nan}, 3) == {"best": ["a"], "worst": ["b"]}
    after = {**values, "i0": 0.5, "i8": 0.2, "new": 1.0}
    assert most_changed(values, after, 2) == {"gained most": ["i0"], "lost most": ["i8"]}


def test_marks_of_words() -> None:
    words = marked("t", ["a", "b", "c", "d"], [True, True, False, False], [True, False, True, False])
    assert [mark for _, mark in words.words] == ["right", "wrong", "missed", ""]


def test_pixels_right_wrong_and_missed() -> None:
    photo = Image.new("RGB", (40, 40), (128, 128, 128))
    found, truth = np.zeros((40, 40), bool), np.zeros((40, 40), bool)
    found[:20], truth[:, :20] = True, True
    pixels = np.asarray(outcome_panel("t", photo, found, truth).image).astype(int)
    assert pixels.shape == (SIDE, SIDE, 3)
    half = SIDE // 2
    parts = {"right": pixels[:half, :half], "wrong": pixels[:half, half:], "missed": pixels[half:, :half]}
    white = {name: (part == 255).all(-1).mean() for name, part in parts.items()}
    assert white["right"] == 0  # each outcome has a pattern of its own, beside its colour
    assert 0.15 < white["wrong"] < 0.25 < white["missed"] < 0.4
    for name, colour in (("right", BLUE), ("wrong", ORANGE), ("missed", PINK)):
        part = parts[name].reshape(-1, 3)
        plain = part[(part != 255).any(-1)]
        np.testing.assert_allclose(plain, np.tile(0.4 * 128 + 0.6 * np.array(colour), (len(plain), 1)), atol=1)
    assert (pixels[half:, half:] == 77).all()  # the photo, darker


@pytest.mark.parametrize("background", [True, False])
def test_classes_carry_their_names_and_what_says_nothing_stays_the_photo(background: bool) -> None:
    photo = Image.new("RGB", (30, 30), (200, 10, 10))
    titles = ["background", "dog", "cat"] if background else ["sky", "dog", "cat"]
    labels = np.full((30, 30), 3, np.int64)
    labels[:10], labels[20:, :10], labels[20:, 20:] = 1, 0, 255
    panel = class_panel("t", photo, labels, titles, background=background)
    assert [name for name, _ in panel.legend] == (["dog"] if background else ["dog", "sky"])
    pixels = np.asarray(panel.image)
    third = SIDE // 3
    assert (pixels[third + 5 : 2 * third - 5] == (200, 10, 10)).all()
    last = pixels[2 * third + 5 :, 2 * third + 5 :]
    assert {tuple(p) for p in last.reshape(-1, 3)} == {(255, 255, 255), (200, 10, 10)}
    assert len(np.unique(pixels[5 : third - 5].reshape(-1, 3), axis=0)) > 2  # the colour, and a name on it


class Requests(HTMLParser):
    """Every address in a page, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "iframe", "b onload")
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_one_file_and_text_is_escaped(tmp_path: Path) -> None:
    evil = "<script>alert('x')</script>\x00\ud800"
    panel = Panel(evil, Image.new("RGB", (20, 10), (1, 2, 3)), ((evil, (1, 2, 3)),))
    words = marked(evil, [evil, "dog"], [True, False], [False, True])
    view = ItemView(evil, (panel,), [FoundItem(evil, {"IoU": math.nan, "F1": 0.5}, (panel,), (words, words))])
    write_images(tmp_path / "p.html", evil, evil, [Section("best by IoU", (view,))])
    page = Requests()
    page.feed((tmp_path / "p.html").read_text("utf-8"))
    assert page.text.count("<script>") >= 8
    assert "IoU –, F1 0.50" in page.text
    assert "✗" in page.text
    assert "○" in page.text
    assert len(page.addresses) == 2
    for address in page.addresses:
        head, _, content = address.partition(",")
        assert head == "data:image/jpeg;base64"
        assert Image.open(io.BytesIO(base64.b64decode(content))).size == (20, 10)


def test_an_evaluation_writes_images_and_a_report_joins_runs(tmp_path: Path, evaluate: Eval) -> None:
    write_set(tmp_path / "data", count=4)
    out = {name: tmp_path / name for name in ("before", "after")}
    for name, titles in (("before", [*TITLES[1:], "grass"]), ("after", TITLES)):
        more = ["--protocol", "default", "--images", "1", "--no-shuffled", "--out", str(out[name])]
        more += ["--score", "s_pixel", "--score", "s_image"]
        assert evaluate(Oracle(titles), "tagmask", tmp_path / "data", *more).exit_code == 0
    page = (out["after"] / "images.html").read_text("utf-8")
    heads = ["best by IoU", "median by IoU", "worst by IoU", "best by F1", "median by F1", "worst by F1"]
    assert re.findall("<h2>(.*?)</h2>", page) == heads
    assert page.count("<section class=item>") == 6
    assert page.count("IoU 1.00, F1 1.00") == 6
    assert page.count("class='w wrong'") == 1  # in the key alone: the oracle makes no mistake
    assert "http" not in page

    runs = [read_run(folder) for folder in out.values()]
    sources = [
        ImageSource(title, run.folder, run.benchmark(), lambda run=run: (model(run.folder.name), run.benchmark()))
        for title, run in zip(titles_of(runs), runs, strict=True)
    ]
    parts = sections(sources, 1)
    assert "gained most in IoU" in [part.title for part in parts]
    for part in parts:
        for view in part.items:
            assert [item.run for item in view.found] == ["oracle, before", "oracle, after"]
            assert [panel.title for panel in view.given] == ["image", "truth"]
            assert all(np.isfinite(item.quality["IoU"]) for item in view.found)
            assert view.found[1].quality["IoU"] == 1.0
    markdown, html = write_report(runs, tmp_path, {"tagmask": "images-tagmask.html"})
    assert "![Every threshold: oracle, after](after/sweep.png)" in markdown.read_text()
    assert html.read_text().count("data:image/png;base64") == 2
    assert "href='images-tagmask.html'" in html.read_text()


def model(name: str):  # type: ignore[no-untyped-def]
    from ttd.model import TTD

    return TTD(Oracle([*TITLES[1:], "grass"] if name == "before" else TITLES))


def test_classes_of_a_run_beside_each_other_and_refined_images(tmp_path: Path, evaluate: Eval) -> None:
    _, _, titles = write(tmp_path / "data", "voc20", count=4)
    for name, more in (("plain", ["--protocol", "default"]), ("pamr", ["--protocol", "default", "--refine", "pamr"])):
        arguments = [*more, "--images", "1", "--out", str(tmp_path / name)]
        assert evaluate(Oracle(titles), "voc20", tmp_path / "data", *arguments).exit_code == 0
    assert "refined (pamr)" in (tmp_path / "pamr" / "images.html").read_text("utf-8")
    assert "refined" not in (tmp_path / "plain" / "images.html").read_text("utf-8")
    markdown, html = write_report([read_run(tmp_path / "plain"), read_run(tmp_path / "pamr")], tmp_path)
    assert "## IoU of each class" in markdown.read_text()
    assert re.search(r"\| (aeroplane|dog|bird|person|sofa|cat|boat|train) \| 100\.0 \| [\d.]+ \|", markdown.read_text())
    assert "<details><summary>IoU of each class" in html.read_text()


def test_a_run_whose_data_changed_is_not_shown(tmp_path: Path, evaluate: Eval) -> None:
    write_set(tmp_path / "data", count=3)
    assert evaluate(Oracle(TITLES), "tagmask", tmp_path / "data", "--protocol", "default").exit_code == 0
    path = tmp_path / "out" / "results.json"
    content = json.loads(path.read_text())
    content["choices"]["taggers"] = ["a tagger that is not installed here"]
    path.write_text(json.dumps(content))
    run = read_run(tmp_path / "out")
    assert run.benchmark().fingerprint() == run.data
    with pytest.raises(InputError, match="is not the model any more"):
        read_run_with(tmp_path / "out", "model", "fingerprint", "2:0").reopen()
    with pytest.raises(InputError, match="earlier version of ttd"):
        read_run_with(tmp_path / "out", "model", "fingerprint", "0").reopen()
    write_set(tmp_path / "data", count=4)
    with pytest.raises(InputError, match="has changed since"):
        run.benchmark()


def read_run_with(folder: Path, part: str, name: str, value: str):  # type: ignore[no-untyped-def]
    path = folder / "results.json"
    content = json.loads(path.read_text())
    content["settings"][part][name] = value
    path.write_text(json.dumps(content))
    return read_run(folder)
