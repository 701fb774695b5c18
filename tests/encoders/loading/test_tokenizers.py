from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ttd.encoders.loading.tokenizers import clip_tokenizer, tokenize


def test_known_sentence() -> None:
    ids, cut = tokenize(clip_tokenizer(), ["a photo of a cat, spider's web"], 77)
    assert ids.tolist() == [[49406, 320, 1125, 539, 320, 2368, 267, 7622, 568, 4601, 49407]]
    assert cut == [False]


def test_long_captions_keep_the_end_token() -> None:
    ids, cut = tokenize(clip_tokenizer(), ["dog " * 100, "dog " * 75, "dog"], 77)
    assert cut == [True, False, False]
    assert ids.shape == (3, 77)
    assert ids[0, -1] == ids[1, -1] == 49407
    assert ids[2].tolist() == [49406, 1929, 49407] + [0] * 74


def test_no_texts() -> None:
    ids, cut = tokenize(clip_tokenizer(), [], 77)
    assert (ids.shape[0], cut) == (0, [])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=40), min_size=1, max_size=3), st.integers(2, 12))
def test_every_row_starts_and_ends_as_it_should(texts: list[str], longest: int) -> None:
    ids, cut = tokenize(clip_tokenizer(), texts, longest)
    assert ids.shape[1] <= longest
    for row, was_cut in zip(ids.tolist(), cut, strict=True):
        assert row[0] == 49406
        assert 49407 in row
        assert not was_cut or row[-1] == 49407


class _WithoutEnd:
    """A tokenizer that marks no end and pads on the left."""

    eos_token_id, pad_token_id, padding_side = 1, 9, "left"

    def __call__(self, texts: list[str], **_: object) -> dict[str, list[list[int]]]:
        return {"input_ids": [[ord(c) for c in text] for text in texts]}


def test_padding_follows_the_tokenizer_and_no_end_token_is_invented() -> None:
    ids, cut = tokenize(_WithoutEnd(), ["ab", "abcde"], 4, pad_to=4)
    assert ids.tolist() == [[9, 9, 97, 98], [97, 98, 99, 100]]
    assert cut == [False, True]
