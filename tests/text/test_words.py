import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.growth import LINEAR, growth
from ttd.text.words import STOP_WORDS, distinct, is_stop_word, split_words


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
