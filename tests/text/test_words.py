"""None"""

from __future__ import annotations

import html
import json
from functools import cache
from itertools import pairwise
from pathlib import Path

import ftfy
import pytest
import regex
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from tests.growth import LINEAR, growth
from tests.tiny_models import tiny_clip
from ttd.encoders.clip import CLIPEncoder
from ttd.encoders.loading.tokenizers import CLIP_TOKENIZER, clip_tokenizer
from ttd.errors import InputError
from ttd.text.words import (
    STOP_WORDS,
    clean,
    distinct,
    is_stop_word,
    is_unspaced,
    printable,
    split_words,
    templates,
    unescaped,
)


def texts(caption: str, **options: bool) -> list[str]:
    return [word.text for word in split_words(caption, **options)]


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a spider 's web .", "a spider 's web ."),
        ("A dog's ball, on grass!", "A dog 's ball , on grass !"),
        ("the dogs' bowl", "the dogs ' bowl"),
        ("don't, can't; it’s", "do n't , ca n't ; it ’s"),
        ("'sailor' (2) \"hi\"", "' sailor ' ( 2 ) \" hi \""),
        ("mother-in-law's state-of-the-art o'clock", "mother-in-law 's state-of-the-art o'clock"),
        ("3.5 1,000 10:30 50% $5 r&b", "3.5 1,000 10:30 50 % $ 5 r&b"),
        ("u.s. on St. Louis. End", "u.s. on St. Louis . End"),
        ("grass.The end", "grass . The end"),
        ("black/white #dog wait... what?!", "black / white # dog wait ... what ?!"),
        ("café “Über” — naïve…", "café “ Über ” — naïve …"),
        ("हिन्दी में लिखा", "हिन्दी में लिखा"),
        ("a 👨‍👩‍👧 🐶🐱 ❤️ 1️⃣ 🇩🇪🇫🇷", "a 👨‍👩‍👧 🐶 🐱 ❤️ 1️⃣ 🇩🇪 🇫🇷"),
        ("tab\tnew\nline\u00a0space\u200b", "tab new line space"),
        ("", ""),
    ],
)
def test_free_text_is_tokenised(caption: str, expected: str) -> None:
    assert texts(caption) == expected.split(" ") * bool(expected)


CHARACTERS = st.sampled_from(list("ab nNtTsS'’.,-!?&@/:#$%()0129 \t\"“…👨🐶\u200d\ufe0fé_ü\u0301"))


@given(st.text(CHARACTERS, max_size=40))
@example("0'N'T a-n't b‐n’t I'd've n'tn't")
def test_tokenising_twice_changes_nothing(caption: str) -> None:
    once = texts(caption)
    assert texts(" ".join(once)) == once


@given(st.text(max_size=60))
def test_words_are_pieces_of_the_caption_in_order(caption: str) -> None:
    words = split_words(caption)
    assert [word.index for word in words] == list(range(len(words)))
    last = 0
    for word in words:
        assert last <= word.start < word.end
        assert caption[word.start : word.end] == word.text
        last = word.end


@given(st.text(max_size=60))
def test_only_white_space_and_controls_are_lost(caption: str) -> None:
    kept = "".join(texts(caption))
    lost = set(caption) - set(kept)
    assert all(not char.isalnum() for char in lost)


def test_tokenised_captions_are_split_at_white_space_only() -> None:
    assert texts("pre- and a,b  .", tokenised=True) == ["pre-", "and", "a,b", "."]


def test_stop_words_and_punctuation_are_left_out_but_keep_their_positions() -> None:
    words = split_words("A dog 's ball, on the 🐶 !", stop_words=True)
    assert [(word.text, word.index) for word in words] == [("dog", 1), ("ball", 3), ("🐶", 7)]


@pytest.mark.parametrize("token", [",", "...", "The", "n’t", "'s", "-", "“"])
def test_stop_words(token: str) -> None:
    assert is_stop_word(token)


@pytest.mark.parametrize("token", ["dog", "2", "🐶", "été", "犬", "🇩🇪", "१"])
def test_words_that_count(token: str) -> None:
    assert not is_stop_word(token)


def test_stop_words_are_lower_case_tokens() -> None:
    assert all(word == word.lower() for word in STOP_WORDS)
    assert {"the", "on", "'s", "n't"} <= STOP_WORDS


def test_distinct_ignores_case_and_keeps_every_place() -> None:
    assert distinct(["Dog", "cat", "dog", "CAT", "Dog"]) == (["dog", "cat"], [0, 1, 0, 1, 0])


@pytest.mark.parametrize("piece", ["dog's ", "a", "a.", "'", "a-", "n't", "🐶\u200d", "mr."])
def test_long_captions_take_linear_time(piece: str) -> None:
    assert growth(lambda count: split_words(piece * count), 2000) < LINEAR


TEXTS = [
    "Tom &amp; Jerry",
    "Tom &amp;amp; Jerry",
    "the cat&#39;s toy",
    "the cat&amp;#39;s toy",
    "&lt;b&gt;bold&lt;/b&gt; dog",
    "caf\u00c3\u00a9 terrace",  # UTF-8 read as Latin-1
    "caf\u00e9 and cafe\u0301",
    "\u201ccurly\u201d \u2018quotes\u2019 \u2013 dash",
    "AT&T, R&B, fish&chips, black&nothing",
    "&copy; 2020 &nbsp;&hearts; &quot;x&quot;",
    "a\u00a0no-break\u2003space\tand\nline",
    "\ufb01sh \uff26ull width",
    "\x1b[36mcolour\x1b[0m",
    "\u8349\u5730\u4e0a\u7684\u72d7",
    "100% &euro;5 &#x1F600; \U0001f600",
    "It's they'll WE'VE don't",
    "",
]


@cache
def pieces() -> tuple[dict[str, int], dict[tuple[str, str], int], dict[int, str]]:
    """Vocabulary, ranks of merges, and the letter that stands for each byte."""
    folder = Path(CLIP_TOKENIZER)
    vocabulary: dict[str, int] = json.loads((folder / "vocab.json").read_text("utf-8"))
    lines = [line.split() for line in (folder / "merges.txt").read_text("utf-8").split("\n")]
    merges = [(line[0], line[1]) for line in lines if len(line) == 2 and not line[0].startswith("#version")]
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in shown}
    letters |= {byte: chr(256 + n) for n, byte in enumerate(b for b in range(256) if b not in shown)}
    return vocabulary, {pair: n for n, pair in enumerate(merges)}, letters


def openai_ids(text: str) -> list[int]:
    """Ids by byte-pair encoding of the cleaned text."""
    vocabulary, ranks, letters = pieces()
    text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    text = regex.sub(r"\s+", " ", text).strip().lower()
    ids = [vocabulary["<|startoftext|>"]]
    pattern = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    for token in regex.findall(pattern, text, regex.IGNORECASE):
        parts = [letters[byte] for byte in token.encode("utf-8")]
        parts[-1] += "</w>"
        while len(parts) > 1:
            pairs = list(pairwise(parts))
            best = min(pairs, key=lambda pair: ranks.get(pair, 1 << 30))
            if best not in ranks:
                break
            merged: list[str] = []
            for part in parts:
                joins = merged and (merged[-1], part) == best
                merged[-1:] = [merged[-1] + part] if joins else [*merged[-1:], part]
            parts = merged
        ids += [vocabulary[part] for part in parts]
    return [*ids, vocabulary["<|endoftext|>"]]


@pytest.fixture(scope="module")
def encoder() -> CLIPEncoder:
    made = tiny_clip()
    made.tokenizer = clip_tokenizer()
    return made


@pytest.mark.parametrize("text", TEXTS)
def test_token_ids_are_openai_s(text: str, encoder: CLIPEncoder) -> None:
    ids, _ = encoder.tokenize([text, "a" * 3])
    wanted = openai_ids(text)[: encoder.max_tokens]
    assert ids[0, : len(wanted)].tolist()[:-1] == wanted[:-1]
    assert not torch.count_nonzero(ids[0, len(wanted) :])


@given(st.text(st.sampled_from(list("ab &;#39xampltquoe<>'\u00e9\u00c3\u00a9\u201c\ufb01\u8349\x07")), max_size=30))
def test_cleaning_is_openai_s(text: str) -> None:
    wanted = regex.sub(r"\s+", " ", html.unescape(html.unescape(ftfy.fix_text(text))).strip()).strip()
    assert clean(text) == wanted


@given(st.text(st.sampled_from(list("ab &;#39xamplt ")), max_size=30))
def test_unescaping_keeps_the_places(text: str) -> None:
    found, places = unescaped(text)
    assert found == html.unescape(html.unescape(text))
    if places is not None:
        assert len(places) == len(found)
        assert all(0 <= start < end <= len(text) for start, end in places)
        assert places == sorted(places)


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("Tom &amp; Jerry&#39;s dog", ["Tom", "&", "Jerry", "'s", "dog"]),
        ("fish &amp;amp; chips", ["fish", "&", "chips"]),
        ("r&amp;b singer", ["r&b", "singer"]),
        ("a&nbsp;dog", ["a", "dog"]),
        ("&lt;b&gt;dog", ["<", "b", ">", "dog"]),
        ("caf&eacute; by the sea", ["caf\u00e9", "by", "the", "sea"]),
        ("AT&T shop", ["AT&T", "shop"]),
    ],
)
def test_words_are_split_after_unescaping(caption: str, words: list[str]) -> None:
    found = split_words(caption)
    assert [word.text for word in found] == words
    assert all(html.unescape(html.unescape(caption[word.start : word.end])) == word.text for word in found)
    assert [word.text for word in split_words(caption, tokenised=True)] == html.unescape(html.unescape(caption)).split()


@pytest.mark.parametrize(
    ("caption", "is_so"),
    [
        ("\u8349\u5730\u4e0a\u7684\u72d7", True),
        ("a photo of \u8349\u5730\u4e0a\u7684\u72d7", True),
        ("\u829d\u751f\u306e\u4e0a\u306e\u72ac", True),
        ("\u0e2a\u0e38\u0e19\u0e31\u0e02\u0e1a\u0e19\u0e2b\u0e0d\u0e49\u0e32", True),
        ("\u8349\u5730 \u4e0a \u7684 \u72d7", False),
        ("\u30b3\u30fc\u30d2\u30fc and cake", False),
        ("\uc794\ub514 \uc704\uc758 \uac1c", False),
        ("\u0441\u043e\u0431\u0430\u043a\u0430 \u043d\u0430 \u0442\u0440\u0430\u0432\u0435", False),
        ("a dog on the grass", False),
        ("", False),
    ],
)
def test_captions_without_spaces(caption: str, is_so: bool) -> None:
    assert is_unspaced(caption) is is_so


def test_the_named_ones_are_the_published_ones(shared: Path) -> None:
    published = json.loads((shared / "reference" / "templates.json").read_text("utf-8"))
    assert {name: len(lines) for name, lines in published.items()} == {
        "openai80": 80, "maskclip85": 85, "tcl9": 9, "simple": 1, "none": 1,
    }  # fmt: skip
    for name, lines in published.items():
        assert templates(name) == tuple(lines)


def test_every_named_template_has_one_place_for_the_text() -> None:
    for name in ("openai80", "maskclip85", "tcl9", "simple", "none"):
        assert all(template.count("{}") == 1 for template in templates(name))
    assert templates("none") == ("{}",)


def test_ones_own() -> None:
    assert templates("a drawing of {}") == ("a drawing of {}",)
    assert templates(["{}", "the {}."]) == ("{}", "the {}.")


@pytest.mark.parametrize(
    ("which", "message"), [("openai", "choose from openai80"), ([], "at least one"), (["{}", "a dog"], "with {}")]
)
def test_wrong_ones(which: str | list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        templates(which)


def test_no_text_steers_a_terminal() -> None:
    assert printable("a dög\x1b[31m\nof\udc00\u202e") == "a dög [31m of? "
