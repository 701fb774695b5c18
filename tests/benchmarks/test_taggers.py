"""Taggers of the text: through stand-ins for NLTK and spaCy, and the real ones where they are installed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.benchmarks.conftest import Eval
from tests.benchmarks.oracle import Oracle
from tests.benchmarks.test_tagmask import TITLES, write_set
from ttd.benchmarks.taggers import open_tagger
from ttd.errors import InputError, MissingExtra

CAPTION = ["a", "small", "dog", "runs", "on", "the", "grass", "."]


def test_nltk_nouns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, evaluate: Eval) -> None:
    tags = dict.fromkeys(TITLES, "NNS") | {"nice": "JJ"}
    nltk = SimpleNamespace(pos_tag=lambda words: [(word, tags.get(word, "DT")) for word in words])
    monkeypatch.setitem(sys.modules, "nltk", nltk)
    assert open_tagger("nltk")(["the", "nice", "dog"]) == [False, False, True]
    write_set(tmp_path / "data")
    done = evaluate(Oracle(TITLES), "tagmask", tmp_path / "data", "--preset", "default", "--tagger", "nltk", "--json")
    assert done.exit_code == 0, done.output
    numbers = json.loads(done.stdout)["numbers"]
    for measure in ("precision", "recall", "F1", "absent selected"):
        assert numbers[f"nltk nouns: {measure}"] == numbers[f"every noun: {measure}"]
    assert numbers["nltk nouns: mAP"] is None


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nltk", None)
    with pytest.raises(MissingExtra, match="pip install nltk"):
        open_tagger("nltk")

    def no_data(words: Any) -> Any:
        raise LookupError

    monkeypatch.setitem(sys.modules, "nltk", SimpleNamespace(pos_tag=no_data))
    with pytest.raises(InputError, match="downloader"):
        open_tagger("nltk")
    with pytest.raises(InputError, match="unknown tagger"):
        open_tagger("brill")


def test_the_real_spacy() -> None:
    pytest.importorskip("spacy")
    try:
        tagger = open_tagger("spacy")
    except InputError:
        pytest.skip("spaCy's English model is not installed")
    assert [word for word, noun in zip(CAPTION, tagger(CAPTION), strict=True) if noun] == ["dog", "grass"]


def test_the_real_nltk() -> None:
    pytest.importorskip("nltk")
    try:
        tagger = open_tagger("nltk")
    except InputError:
        pytest.skip("NLTK's data is not installed")
    assert [word for word, noun in zip(CAPTION, tagger(CAPTION), strict=True) if noun] == ["dog", "grass"]
