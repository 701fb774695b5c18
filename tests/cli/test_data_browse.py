"""`ttd data browse`: one page, without a request to anywhere, of what `ttd data tag` wrote."""

from __future__ import annotations

import re
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import pytest

import ttd
from tests.cli.conftest import invoke, one_sentence
from tests.data.colour_model import ColourModelEncoder
from tests.data.samples import image, json_bytes, write_tar
from ttd.data.tables import write_table
from ttd.data.word_table import Token, token_table
from ttd.model import TTD

MARK = "<script>alert(1)</script> &amp; red"
SAMPLES = {
    "one": {"png": image(0), "txt": b"a red zebra , blue"},
    "two": {"png": image(1), "json": json_bytes({"captions": ["green", MARK]})},
    "broken": {"png": b"no", "txt": b"red"},
}


run = partial(invoke, "data")


@pytest.fixture
def tags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(ttd.__dict__, "load", lambda *args, **options: TTD(ColourModelEncoder()))
    write_tar(tmp_path / "cc/0.tar", SAMPLES)
    done = run("tag", tmp_path / "cc", "--model", "x", "--max-bad-samples", 1, "--out", tmp_path / "tags")
    assert done.exit_code == 1, done.output
    return tmp_path / "tags"


class Page(HTMLParser):
    """The marked words, in order, and all addresses."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.words: list[tuple[str, str]] = []
        self.addresses: list[str] = []
        self.maps: list[str] = []
        self.tags: set[str] = set()
        self._open = ""
        self.feed(path.read_text("utf-8").partition("<section>")[2])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        self._open = tag if tag == "figcaption" else dict(attrs).get("class") or "" if tag == "span" else ""

    def handle_data(self, data: str) -> None:
        if self._open.startswith("w"):
            self.words.append((data, self._open[2:]))
        elif self._open == "figcaption":
            self.maps.append(data)
        self._open = ""


def test_words_are_coloured_and_visible_ones_have_maps(tags: Path, tmp_path: Path) -> None:
    done = run("browse", tags, "--out", tmp_path / "page.html")
    assert done.exit_code == 0, done.output
    page = Page(tmp_path / "page.html")
    assert ("red", "on") in page.words
    assert ("zebra", "") in page.words
    assert [kind for word, kind in page.words if word in ("a", ",")] == ["low", "low"]
    assert all(address.startswith("data:image/jpeg;base64,") for address in page.addresses)
    visible = {word for word, kind in page.words if kind == "on"}
    assert {"red", "green"} <= set(page.maps) <= visible
    assert len(page.addresses) == 2 + len(page.maps)
    assert page.tags <= {"section", "h2", "p", "span", "div", "figure", "img", "figcaption", "body", "html"}


def test_captions_stay_text(tags: Path, tmp_path: Path) -> None:
    run("browse", tags, "--no-maps", "--out", tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text("utf-8")
    assert "<script" not in text
    shown = re.sub(r"<[^>]+>", "", text)
    assert "alert" in shown
    assert len(Page(tmp_path / "page.html").addresses) == 2


def test_a_table_alone_needs_its_sources(tmp_path: Path, tags: Path) -> None:
    pairs = [("cc/0.tar", "one", [[Token("red", 2, 5, selected=True)]]), ("cc/0.tar", "gone", [[Token("x")]])]
    write_table(token_table(pairs), tmp_path / "alone/t.parquet", {})
    table, out = tmp_path / "alone/t.parquet", tmp_path / "page.html"
    assert "does not say where its pairs are" in one_sentence(run("browse", table, "--out", out))
    done = run("browse", table, tmp_path / "cc", "--out", out)
    assert done.exit_code == 1
    assert "1 more are missing or damaged" in done.stderr
    assert Page(out).words == [("red", "on")]
    assert "none of the pairs" in one_sentence(run("browse", table, write_tar(tmp_path / "dd/0.tar", SAMPLES)))
    assert "has no Parquet files" in one_sentence(run("browse", tmp_path / "cc", tmp_path / "cc"))
    assert "does not exist" in one_sentence(run("browse", tmp_path / "no.parquet", tmp_path / "cc"))
    (tags / "tags.json").write_text('{"model": 3, "settings": {}}')
    assert "tags.json" in one_sentence(run("browse", tags))
