"""The text side of a model: strings checked, embedded once, remembered; what is truncated or unknown is named."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from ttd.encoders.base import Encoder
from ttd.errors import InputError
from ttd.text.disk import TextCache
from ttd.text.words import split_words

_log = logging.getLogger(__name__)

# Embeddings kept for the next question: 20 MB at 512 channels.
_KEPT = 10_000


class Texts:
    """Text embeddings of one encoder, whose weights must not change meanwhile.

    Texts that share a batch change each other's last digits (1e-7), so a text's embedding depends on what else was
    asked for when it was first met; see `RepeatableTexts`.

    Args:
        encoder: of the texts.
        cache: where embeddings are kept on disk, None for nowhere.
    """

    def __init__(self, encoder: Encoder, cache: TextCache | None = None) -> None:
        self._encoder, self.cache = encoder, cache
        self._known: OrderedDict[tuple[str, tuple[str, ...]], Tensor] = OrderedDict()

    def encode(self, texts: Sequence[str], templates: tuple[str, ...]) -> Tensor:
        """Embeddings `[N,C]`, L2-normalised; each distinct text is encoded once, the last 10,000 are kept.

        Raises:
            InputError: an empty text, or one that is not valid Unicode.
        """
        check_texts(texts)
        missing = list(dict.fromkeys(text for text in texts if (text, templates) not in self._known))
        rows = {text: self._known[text, templates] for text in texts if (text, templates) in self._known}
        if missing:
            encoded = self._encode([(text,) for text in missing], templates)
            rows.update((text, row[0].clone()) for text, row in zip(missing, encoded, strict=True))
        for text, row in rows.items():
            self._known[text, templates] = row
            self._known.move_to_end((text, templates))
        while len(self._known) > _KEPT:
            self._known.popitem(last=False)
        return torch.stack([rows[text] for text in texts])

    def _encode(self, questions: Sequence[tuple[str, ...]], templates: tuple[str, ...]) -> list[Tensor]:
        """Embeddings `[N,C]` of questions of N texts, those that are not kept on disk all in one batch.

        What stands in one template alone is encoded sooner than a file is searched.
        """
        cache = self.cache if len(templates) > 1 else None
        found = {} if cache is None else cache.read(questions, templates)
        missing = [question for question in questions if question not in found]
        if missing:
            rows = self._encoder.encode_text([text for question in missing for text in question], templates)
            made = dict(zip(missing, torch.split(rows, [len(question) for question in missing]), strict=True))
            if cache is not None:
                cache.write(made, templates)
            found |= made
        return [found[question] for question in questions]

    def forget(self) -> None:
        """Encode every text anew: what comes then depends, to the last digit, on nothing that was asked before."""
        self._known.clear()

    def check(self, texts: Sequence[str], templates: tuple[str, ...]) -> tuple[str, ...]:
        """Refuse unusable texts; those that will be truncated are logged and returned."""
        check_texts(texts)
        truncated = self.truncated(texts, templates)
        for text in truncated:
            _log.warning(
                "%r is longer than the %d tokens that the model takes: only its beginning counts",
                shortened(text),
                self._encoder.max_tokens,
            )
        return truncated

    def truncated(self, texts: Sequence[str], templates: tuple[str, ...]) -> tuple[str, ...]:
        """Those texts of which, with their longest template, only the beginning fits into the text tower."""
        longest = max(templates, key=len)
        filled = {text: longest.replace("{}", text) for text in texts}
        flags = self._encoder.truncated_texts(list(filled.values()))
        return tuple(text for text, flag in zip(filled, flags, strict=True) if flag)

    def unknown(self, texts: Iterable[str]) -> tuple[str, ...]:
        """Distinct words (lower case) outside the encoder's closed vocabulary; none where it is open."""
        vocabulary = self._encoder.vocabulary
        if vocabulary is None:
            return ()
        words = (word.text.lower() for text in texts for word in split_words(text, stop_words=True))
        return tuple(dict.fromkeys(word for word in words if word not in vocabulary))


class RepeatableTexts(Texts):
    """Text embeddings that depend on the question alone, whatever was asked before.

    The distinct texts of a question are one batch, always the same, and are remembered together: a word that stands in
    several questions is encoded in each.
    """

    def __init__(self, encoder: Encoder, cache: TextCache | None = None) -> None:
        super().__init__(encoder, cache)
        self._questions: OrderedDict[tuple[tuple[str, ...], tuple[str, ...]], Tensor] = OrderedDict()

    def encode(self, texts: Sequence[str], templates: tuple[str, ...]) -> Tensor:
        """As `Texts.encode`; the last questions are kept, of 10,000 texts in all."""
        check_texts(texts)
        distinct = tuple(dict.fromkeys(texts))
        question = distinct, templates
        if question not in self._questions:
            (self._questions[question],) = self._encode([distinct], templates)
        self._questions.move_to_end(question)
        while len(self._questions) > 1 and sum(map(len, self._questions.values())) > _KEPT:
            self._questions.popitem(last=False)
        row = {text: number for number, text in enumerate(distinct)}
        return self._questions[question][[row[text] for text in texts]]


def check_texts(texts: Sequence[str]) -> None:
    """Refuse what is not a list of at least one non-empty, valid string.

    Raises:
        InputError: says which.
    """
    if isinstance(texts, str):
        raise InputError(f"texts must be a list of strings: write [{shortened(texts)!r}]")
    if not texts:
        raise InputError("there is no text to look for: give at least one")
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise InputError("a text is empty: write what to look for")
        if any(0xD800 <= ord(char) <= 0xDFFF for char in text):
            raise InputError(f"the text {shortened(text)!r} is not valid Unicode: write it again as UTF-8")


def shortened(text: str, limit: int = 60) -> str:
    """A text for a message, its end left out where it is long."""
    return text if len(text) <= limit else text[: limit - 3] + "..."
