from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from tests.data.colour_model import ColourModelEncoder
from tests.data.samples import image, json_bytes, write_tar
from ttd.data.bad_samples import NO_ANSWER, BadSample
from ttd.data.shard_jobs import ShardNotes, run_shards
from ttd.data.sources import PairSource
from ttd.data.tables import write_table
from ttd.data.tag_table import ModelChooser, TagTableJob, TextChooser, some_captions
from ttd.data.word_table import chosen_words
from ttd.inference.options import Options
from ttd.model import TTD
from ttd.registry import TABLE_FORMS
from ttd.selection import Selection
from ttd.taggers import Caption, Chosen, TextTagger

SAMPLES = {
    "one": {"png": image(0), "txt": b"red and blue"},
    "five": {"png": image(1), "json": json_bytes({"captions": ["a green red", "blue or green", "of the"]})},
    "broken": {"png": b"no", "txt": b"red"},
    "stop": {"png": image(2), "txt": b"on the"},
    "large": {"png": image(2, side=40), "txt": b"blue red"},
}


@pytest.fixture
def source(tmp_path: Path) -> PairSource:
    return PairSource(write_tar(tmp_path / "cc/x.tar", SAMPLES))


def selected(table: pa.Table) -> dict[str, list[list[str]] | None]:
    """By key, the selected words of every caption, as a reader takes them from the file."""
    with tempfile.TemporaryDirectory() as folder:
        write_table(table, Path(folder) / "t.parquet", {})
        rows = [row for batch in chosen_words(Path(folder) / "t.parquet") for row in batch.to_pylist()]
    return {row["key"]: row["tags"] for row in rows}


@pytest.mark.parametrize("form", TABLE_FORMS)
@pytest.mark.parametrize("batch", [1, 16])
def test_the_words_that_the_model_selects(source: PairSource, batch: int, form: str) -> None:
    damaged: list[BadSample] = []
    job = TagTableJob(ModelChooser(TTD(ColourModelEncoder()), options=Options()), form=form, batch=batch)
    table = job.table(source, range(len(source)), ShardNotes(damaged.append))
    assert selected(table) == {
        "one": [["red"]],
        "five": [["green"], ["green"], []],
        "stop": [[]],
        "large": [["blue"]],
    }
    assert [d.key for d in damaged] == ["broken"]


def test_they_equal_those_of_tag_for_each_pair(source: PairSource) -> None:
    model = TTD(ColourModelEncoder())
    table = TagTableJob(ModelChooser(model)).table(source, range(len(source)), ShardNotes(lambda damage: None))
    for key, tags in selected(table).items():
        pair = source[list(SAMPLES).index(key)]
        assert tags == [model.tag(pair.image, c, options=Options(stop_words=False)).selected for c in pair.captions]


def test_every_token_is_there_with_what_it_is(tmp_path: Path) -> None:
    model = TTD(ColourModelEncoder())
    model.encoder.vocabulary = frozenset({"red", "blue"})
    caption = "The red kite , red!"
    source = PairSource(write_tar(tmp_path / "cc/x.tar", {"one": {"png": image(0), "txt": caption.encode()}}))
    job = TagTableJob(ModelChooser(model, options=Options(stop_words=False)))
    notes = ShardNotes(lambda damage: None)
    rows = job.table(source, range(1), notes).to_pylist()
    tagging = model.tag(source[0].image, caption, options=Options(stop_words=False))
    assert [row["word"] for row in rows] == ["The", "red", "kite", ",", "red", "!"]
    assert all(caption[row["start"] : row["end"]] == row["word"] for row in rows)
    assert [row["score"] for row in rows] == pytest.approx([word.score for word in tagging.words])
    assert [row["selected"] for row in rows] == [word.selected for word in tagging.words]
    marked = {kind: [row["word"] for row in rows if row[kind]] for kind in ("is_stop", "is_punct", "is_unknown")}
    assert marked == {"is_stop": ["The"], "is_punct": [",", "!"], "is_unknown": ["kite"]}
    assert notes.unknown == {"kite": 1}


def test_negative_words_decide(source: PairSource) -> None:
    model = TTD(ColourModelEncoder())
    found = {}
    for share in (0.0, 100.0):
        rule = Selection(rule="negatives", percentile=share, negatives=["green", "zebra"])
        chooser = ModelChooser(model, selection=rule, options=Options())
        table = TagTableJob(chooser).table(source, range(1), ShardNotes(lambda damage: None))
        tagging = model.tag(source[0].image, "red and blue", selection=rule)
        found[share] = list(selected(table).values())
        assert found[share] == [[tagging.selected]]
        ranks = dict(zip(table["word"].to_pylist(), table["percentile"].to_pylist(), strict=True))
        assert ranks == {"and": None, **{word.text: word.percentile for word in tagging.words}}
        assert chooser.settings["percentile"] == share
        assert len(chooser.settings["negatives"]) == 16
    assert found == {0.0: [[["red", "blue"]]], 100.0: [[["red"]]]}


def test_some_captions_are_spread_evenly(source: PairSource, tmp_path: Path) -> None:
    every = ["red and blue", "a green red", "blue or green", "of the", "red", "on the", "blue red"]
    assert list(some_captions(source)) == every
    assert list(some_captions(source, most=2)) == ["red and blue", "on the"]
    assert list(some_captions(source, most=1)) == ["red and blue"]
    write_tar(tmp_path / "bad/x.tar", {"a": {"png": image(0), "txt": b" "}, "b": {"png": image(0), "txt": b"blue"}})
    assert list(some_captions(PairSource(tmp_path / "bad"))) == ["blue"]


def test_training_reads_them_beside_the_pairs(source: PairSource, tmp_path: Path) -> None:
    job = TagTableJob(ModelChooser(TTD(ColourModelEncoder()), options=Options()))
    run_shards(job, source, tmp_path / "tags", limit=1)
    pair = PairSource(source.shards[0].path, tags=tmp_path / "tags")[1]
    assert pair.tags == (("green",), ("green",), ())
    assert len(pair.captions) == 3


class FirstWord(TextTagger):
    """Chooses the first word and one that is nowhere; has no answer where that is "blue"."""

    name = "first"

    def __init__(self) -> None:
        self.settings = {"tagger": "first"}
        self.asked: list[list[str]] = []

    def choose(self, captions: Sequence[Caption]) -> list[Chosen | None]:
        self.asked.append([caption.text for caption in captions])
        chosen = [Chosen((True, *[False] * (len(c.words) - 1)), ("xyz",)) for c in captions]
        return [None if c.words[0] == "blue" else one for c, one in zip(captions, chosen, strict=True)]


@pytest.mark.parametrize("look", [False, True])
def test_a_tagger_of_the_text_chooses_too(source: PairSource, look: bool) -> None:
    damaged: list[BadSample] = []
    tagger = FirstWord()
    table = TagTableJob(TextChooser(tagger, stop_words=True, look=look), batch=3).table(
        source, range(5), ShardNotes(damaged.append)
    )
    assert selected(table) == {
        "one": [["red", "xyz"]],
        "five": None,  # no answer for one of its captions
        **({} if look else {"broken": [["red", "xyz"]]}),
        "stop": [["xyz"]],
        "large": None,
    }
    unread = ["broken"] if look else []
    assert sorted(d.key for d in damaged if d.reason == NO_ANSWER) == ["five", "large"]
    assert [d.key for d in damaged if d.reason != NO_ANSWER] == unread
    assert [len(texts) for texts in tagger.asked] == ([4, 2] if look else [5, 2])


def test_pairs_without_an_answer_are_damaged_for_training(source: PairSource, tmp_path: Path) -> None:
    run_shards(TagTableJob(TextChooser(FirstWord())), source, tmp_path / "tags", limit=1)
    read = PairSource(source.shards[0].path, tags=tmp_path / "tags")
    assert read[0].tags == (("red", "xyz"),)
    with pytest.raises(BadSample, match="no answer of the tagger"):
        read[1]
    lines = [{"shard": "cc/x.tar", "key": "one", "tags": None}, {"shard": "cc/x.tar", "key": "five", "tags": ["a"]}]
    (tmp_path / "tags.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(BadSample, match="no answer of the tagger"):
        PairSource(source.shards[0].path, tags=tmp_path / "tags.jsonl")[0]


def test_progress_is_told_within_a_shard(source: PairSource, tmp_path: Path) -> None:
    told: list[int] = []
    run_shards(TagTableJob(TextChooser(FirstWord()), batch=2), source, tmp_path / "tags", limit=1, progress=told.append)
    assert told == [2, 2, 1, 0]
