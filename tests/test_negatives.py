"""Words that are not in an image's captions: the rule against counting, what is negatives, and tagging with it."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ttd
from tests.colour_encoder import COLOURS, ColourEncoder
from ttd import TTD, InputError
from ttd.evaluation.datasets.classes import read_classes
from ttd.evaluation.datasets.tagmask_from_coco import WordList
from ttd.inference.views import encode_views
from ttd.negatives import MOST, NegativeWords, akin, caption_words, listed_words, read_words
from ttd.scenes.nouns import BACKGROUNDS, NOUNS
from ttd.scoring import percentiles, select_above_negatives
from ttd.selection import Selection, select_tags
from ttd.text.words import is_stop_word

# ------------------------------------------------------------------ the rule


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**31), st.floats(0, 100), st.integers(1, 7))
def test_a_word_counts_that_beats_enough(seed: int, percentile: float, number: int) -> None:
    draw = np.random.default_rng(seed)
    scores = draw.integers(0, 5, (2, 4)).astype(np.float32)  # few values, so that equal ones come up
    null = draw.integers(0, 5, (2, number)).astype(np.float32)
    valid, there = draw.random((2, 4)) < 0.8, draw.random((2, number)) < 0.7
    there[:, 0] = True
    scores[~valid], null[~there] = np.nan, np.inf  # padding may hold anything
    masks = torch.tensor(valid), torch.tensor(there)
    chosen = select_above_negatives(torch.tensor(scores), torch.tensor(null), percentile, *masks)
    beaten = percentiles(torch.tensor(scores), torch.tensor(null), *masks)
    for i, t in np.ndindex(2, 4):
        rest = null[i][there[i]]
        # As the float32 division gives it: a third of the words is not exact.
        expected = np.float32(100 * sum(scores[i, t] > other for other in rest)) / np.float32(len(rest))
        assert beaten[i, t].item() == (expected if valid[i, t] else 0.0)
        assert chosen[i, t].item() == bool(valid[i, t] and expected >= np.float32(percentile))


def test_one_image_needs_no_batch_axis() -> None:
    scores, null = torch.tensor([0.3, 0.1]), torch.tensor([0.0, 0.2, 0.1])
    assert select_above_negatives(scores, null, 50).tolist() == [True, False]


@pytest.mark.parametrize(
    ("scores", "null", "percentile", "message"),
    [
        ([[0.1, 0.2]], [[]], 50, "no negative words"),
        ([[0.1, np.nan]], [[0.1]], 50, "NaN"),
        ([[0.1, 0.2]], [[np.inf]], 50, "NaN or infinite"),
        ([[0.1]], [[0.1]], 101, r"0\.\.100"),
        ([[0.1]], [[0.1]], float("nan"), r"0\.\.100"),
    ],
)
def test_damage_is_named(scores: list[list[float]], null: list[list[float]], percentile: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        select_above_negatives(torch.tensor(scores), torch.tensor(null), percentile)


def test_a_image_whose_negative_words_are_all_left_out() -> None:
    nothing = torch.zeros(1, 3, dtype=torch.bool)
    with pytest.raises(InputError, match="no negative words"):
        select_above_negatives(torch.zeros(1, 2), torch.zeros(1, 3), 50, None, nothing)
    with pytest.raises(InputError, match="select_above_negatives"):
        select_tags([0.1], "negatives")


# ------------------------------------------------------------------ what is negatives


@pytest.mark.parametrize(
    ("word", "other", "alike"),
    [
        ("dog", "dog", True),
        ("dogs", "dog", True),
        ("men", "man", True),
        ("women", "woman", True),
        ("sunflower", "flower", True),
        ("flower", "sunflowers", True),
        ("light", "traffic light", True),
        ("traffic lights", "light", True),
        ("well-worn shoes", "shoe", True),
        ("dog", "cat", False),
        ("a", "cat", False),
        ("on", "onion", False),
        ("the", "theatre", False),
        ("ox", "fox", False),  # parts of two letters stand in too many words
        ("top of the hill", "the", False),
    ],
)
def test_akin(word: str, other: str, alike: bool) -> None:
    assert akin(word, other) is alike
    assert akin(other, word) is alike


def test_own_words_are_not_negatives() -> None:
    pool = NegativeWords(["Dog", "dog", "cats", "tree", "fire truck"])
    assert pool.texts == ["dog", "cats", "tree", "fire truck"]
    assert pool.others(["DOGS", "on"]) == [False, True, True, True]
    assert pool.others(["cat", "trucks"]) == [True, False, True, False]
    assert pool.others([]) == [True] * 4


def test_of_very_many_words_the_same_are_drawn() -> None:
    words = [f"word{i}" for i in range(3 * MOST)]
    pool = NegativeWords(words)
    random.Random(1).shuffle(words)
    assert len(pool) == MOST == len(set(pool.texts))
    assert NegativeWords(words).texts == pool.texts


def test_words_of_captions() -> None:
    captions = ["A dog on the grass.", "the Dog 's tail", ""]
    assert caption_words(captions) == ["dog", "grass", "tail"]
    assert caption_words(captions, stop_words=False)[:4] == ["a", "dog", "on", "the"]


def test_the_shipped_list_comes_from_our_own_lists() -> None:
    listed = listed_words()
    assert 300 < len(listed) <= MOST
    assert listed == sorted(set(listed))
    assert all(word.isalpha() and word == word.lower() and not is_stop_word(word) for word in listed)
    names = [path.stem for path in (Path(ttd.__file__).parent / "assets/classes").glob("*.txt")]
    ours = {name for list_ in names for synonyms in read_classes(list_).names for name in synonyms}
    ours |= {*NOUNS, *BACKGROUNDS, *(name[0] for name in WordList.read().names)}
    assert set(listed) <= ours
    assert set(NOUNS) - set(listed) == set()  # mini is compared with all of its nouns
    assert listed_words(frozenset({"dog", "photo", "cat"})) == ["cat", "dog"]


@pytest.mark.parametrize(("content", "message"), [(b"", "no word"), (b"# dog\n\n", "no word"), (b"\xff\xfe", "UTF-8")])
def test_files_of_words(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "words.txt"
    path.write_text("# mine\ndog\n\n hot dog \n")
    assert read_words(path) == ["dog", "hot dog"]
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_words(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_words(tmp_path)


@pytest.mark.parametrize("words", [[], ["dog", " "]])
def test_no_words(words: list[str]) -> None:
    with pytest.raises(InputError, match="at least one"):
        NegativeWords(words)


# ------------------------------------------------------------------ tagging

RED = np.zeros((32, 32, 3), np.uint8)
RED[..., 0] = 255
OTHERS = ["blue sky", "green field", "fog"]


@pytest.fixture
def model() -> TTD:
    return TTD(ColourEncoder())


def test_words_are_compared_with_others(model: TTD) -> None:
    tagging = model.tag(
        RED, "a red barn, green door", selection=Selection(rule="negatives", percentile=50.0, negatives=OTHERS)
    )
    assert tagging.selected == ["red", "barn", "door"]  # unknown words look grey, greyer than blue is red
    by_name = {word.text: word.percentile for word in tagging.words}
    assert by_name["red"] == 100.0
    assert by_name["green"] == 0.0
    assert (tagging.selection, tagging.percentile, tagging.negatives) == (
        "negatives",
        50,
        2,
    )  # "green field" is its own
    record = json.loads(json.dumps(tagging.to_dict()))
    assert record["words"][0]["percentile"] == 100.0
    assert record["negatives"] == 2
    assert "percentile 100" in str(tagging)
    assert "percentile" not in model.tag(RED, "a red barn").to_dict()["words"][0]


@pytest.mark.parametrize("percentile", [0, 30, 50, 90, 100])
def test_the_cut_says_what_the_selection_did(model: TTD, percentile: float) -> None:
    for caption in ("red", "red blue door", "green green"):
        tagging = model.tag(
            RED, caption, selection=Selection(rule="negatives", percentile=percentile, negatives=["sea", *COLOURS])
        )
        for word in tagging.words:
            assert word.selected == (tagging.threshold is None or word.score > tagging.threshold)


def test_tags_and_images_without_a_caption(model: TTD) -> None:
    tagging = model.tag(
        RED, None, tags=["red", "blue sky"], selection=Selection(rule="negatives", negatives=["green", "sky"])
    )
    assert tagging.selected == ["red"]
    assert tagging.negatives == 1  # "sky" is a part of a tag
    tagging = model.tag(
        RED, "green fog", tags=["red"], selection=Selection(rule="negatives", negatives=["green", "blue"])
    )
    assert tagging.negatives == 1  # what the caption says is not negatives though only the tags are scored


def test_one_word_may_be_selected_or_not(model: TTD) -> None:
    assert model.tag(RED, "red", selection=Selection(rule="negatives", negatives=["blue"])).selected == ["red"]
    assert model.tag(RED, "blue", selection=Selection(rule="negatives", negatives=["fog"])).selected == []


def test_a_batch_gives_what_single_images_do_and_encodes_each_word_once(model: TTD) -> None:
    captions = ["a red barn", "green hills and a blue lake", "blue", "barns"]
    negatives = caption_words(captions)
    selection = Selection(rule="negatives", percentile=50, negatives=negatives)
    images = [RED, RED[:, :, [1, 0, 2]], RED[:24], RED]
    many = list(model.tag_many(images, captions, batch_size=2, selection=selection))
    assert len(model.encoder.texts_seen) == len(set(model.encoder.texts_seen))  # type: ignore[arg-type]
    assert model.encoder.images_seen == len(images)
    for image, caption, tagging in zip(images, captions, many, strict=True):
        alone = model.tag(image, caption, selection=selection)
        assert alone.selected == tagging.selected
        assert [w.percentile for w in alone.words] == [w.percentile for w in tagging.words]
        assert alone.negatives == tagging.negatives < len(negatives)


def test_the_tensors_under_it(model: TTD) -> None:
    encoder = model.encoder
    views = tuple(encode_views(encoder, [torch.rand(2, 3, 16, 24)], model.encode(RED).options))
    text, null = encoder.encode_text(["red", "green"]), encoder.encode_text(["blue", "fog"])
    scores, selected = model.score_words(
        views, text, negatives=null, selection=Selection(rule="negatives", percentile=90.0)
    )
    others, _ = model.score_words(views, null)
    assert torch.equal(selected, select_above_negatives(scores, others, 90))
    with pytest.raises(InputError, match="embeddings"):
        model.score_words(views, text, selection="negatives")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"percentile": 101}, r"0\.\.100"),
        ({"negatives": []}, "at least one"),
        ({"negatives": "dog"}, "list of words"),
        ({"negatives": ["reds", "infrared"]}, "caption's own"),
        ({"score": "s_image"}, "is for s_pixel, not for s_image"),
        ({"rule": "gap", "negatives": ["dog"]}, 'for the rule "negatives"'),
    ],
)
def test_wrong_use(model: TTD, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        model.tag(RED, "a red barn", selection=Selection(**{"rule": "negatives", **options}))


def test_nan_is_an_error(model: TTD, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = torch.full((1, 4), torch.nan)
    monkeypatch.setattr(model.encoder, "encode_text", lambda texts, templates=(): broken.expand(len(texts), -1))
    with pytest.raises(InputError, match="NaN"):
        model.tag(RED, "a red barn", selection=Selection(rule="negatives", negatives=["sea"]))


def test_a_closed_vocabulary(model: TTD, caplog: pytest.LogCaptureFixture) -> None:
    model.encoder.vocabulary = frozenset({"red", "dog", "cat", "photo"})
    assert model.tag(RED, "a red dog", selection="negatives").negatives == 1  # of the list it knows cat besides
    assert not caplog.records
    model.tag(RED, "a red dog", selection=Selection(rule="negatives", negatives=["cat", "zeppelin"]))
    assert "1 of the 2 negative words are outside this model's vocabulary, such as zeppelin" in caplog.text
