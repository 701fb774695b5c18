"""Taggers of the text beside the model's scores in `ttd eval tagmask`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.evaluation.conftest import Eval
from tests.evaluation.oracle import Oracle
from tests.evaluation.tasks.test_tagmask import TITLES, write_set
from tests.extras import needs
from tests.taggers.stub_server import Stub
from ttd.errors import InputError
from ttd.taggers import open_tagger

MEASURES = ("precision", "recall", "F1", "accuracy")


class StandInNltk:
    """Calls every class's name a noun."""

    __version__ = "0"

    def pos_tag(self, words: list[str]) -> list[tuple[str, str]]:
        return [(word, "NNS" if word in TITLES else "JJ") for word in words]

    def pos_tag_sents(self, sentences: list[list[str]]) -> list[list[tuple[str, str]]]:
        return [self.pos_tag(words) for words in sentences]


def test_nltk_nouns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, evaluate: Eval) -> None:
    monkeypatch.setitem(sys.modules, "nltk", StandInNltk())
    write_set(tmp_path / "data")
    done = evaluate(Oracle(TITLES), "tagmask", tmp_path / "data", "--protocol", "default", "--tagger", "nltk", "--json")
    assert done.exit_code == 0, done.output
    numbers = json.loads(done.stdout)["numbers"]
    for measure in ("precision", "recall", "F1", "absent selected"):
        assert numbers[f"nltk nouns: {measure}"] == numbers[f"every noun: {measure}"]
    assert numbers["nltk nouns: mAP"] is None


def test_a_language_model_counted_by_hand(tmp_path: Path, evaluate: Eval) -> None:
    needs("llm", "openai")
    data = tmp_path / "data"
    write_set(data)
    rows = [json.loads(line) for line in (data / "tags.jsonl").read_text().splitlines()]
    silent = rows[0]["caption"]

    def reply(caption: str, attempt: int) -> str:
        # Every word of two letters and more, and one that no caption has; once something that is not a list at all.
        if caption == silent:
            return "I would rather not say anything about this one today, sorry"
        return str([*(word for word in caption.split() if len(word) > 1), "xyz"])

    def expected(others: bool) -> dict[str, float]:
        hit = wrong = missed = left = 0
        for row in rows:
            for word in row["words"]:
                chosen, true = len(word) > 1 and row["caption"] != silent, word in row["true"]
                hit, wrong = hit + (chosen and true), wrong + (chosen and not true)
                missed, left = missed + (true and not chosen), left + (not chosen and not true)
            wrong += others and row["caption"] != silent
        precision, recall = hit / (hit + wrong), hit / (hit + missed)
        accuracy = (hit + left) / (hit + wrong + missed + left)
        f1 = 2 * precision * recall / (precision + recall)
        return dict(zip(MEASURES, (precision, recall, f1, accuracy), strict=True))

    with Stub(reply) as stub:
        for others in (True, False):
            llm = ["--tagger", "llm", "--llm-url", stub.url, "--llm-model", "qwen", "--llm-cache", tmp_path / "cache"]
            more = [] if others else ["--llm-ignore-others"]
            out = tmp_path / f"out-{others}"
            command = ["--protocol", "default", "--part", "tags", *llm, *more, "--out", out, "--json"]
            done = evaluate(Oracle(TITLES), "tagmask", data, *command)
            assert done.exit_code == 0, done.output
            told = json.loads(done.stdout)
            found = {measure: told["numbers"][f"llm qwen: {measure}"] for measure in MEASURES}
            assert found == pytest.approx(expected(others))
            assert "llm qwen gave no readable answer to 1 captions: nothing selected." in told["notes"]
        assert sorted(stub.asked) == sorted(row["caption"] for row in rows)
    again = evaluate(Oracle(TITLES), "tagmask", data, *command)  # the server is gone, but all is measured
    assert json.loads(again.stdout)["numbers"] == told["numbers"]


def test_mistakes_with_taggers_are_said_in_a_sentence(tmp_path: Path, evaluate: Eval) -> None:
    needs("llm", "openai")
    write_set(tmp_path / "data")
    with Stub() as stub:
        url = stub.url
    llm = ("--tagger", "llm", "--llm-cache", tmp_path / "cache")
    for options, message in (
        (llm, "needs --llm-url"),
        ((*llm, "--llm-url", url), "and --llm-model"),
        ((*llm, "--llm-url", url, "--llm-model", "m"), "gives no answer (no connection"),
        ((*llm, "--llm-url", "here", "--llm-model", "m"), "not an address"),
        ((*llm, "--llm-url", url, "--llm-model", "m", "--llm-request", "[1]"), "not a JSON object"),
        (("--tagger", "nltk", "--llm-url", url), "--llm-url needs --tagger llm"),
        (("--spacy-model", "m"), "--spacy-model needs --tagger spacy"),
        (("--tagger", "brill"), "brill"),
    ):
        done = evaluate(Oracle(TITLES), "tagmask", tmp_path / "data", "--protocol", "default", *options)
        assert done.exit_code == 2, options
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr
    with pytest.raises(InputError, match="unknown tagger"):
        open_tagger("brill")
