"""The nouns that NLTK or spaCy finds in a caption."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from ttd.errors import InputError, MissingExtra, missing_extra
from ttd.taggers import NOUN_TAGGERS, Caption, Chosen, TextTagger

SPACY_MODEL = "en_core_web_sm"


def open_nouns(name: str, spacy_model: str | None = None) -> TextTagger:
    """The noun tagger with that name.

    Args:
        name: "nltk" (its own part-of-speech tagger, tags NN*) or "spacy" (NOUN and PROPN).
        spacy_model: name or folder of spaCy's model; None: its small English one.

    Raises:
        MissingExtra: the package, or its English data, is not installed.
        InputError: an unknown name.
    """
    if name == "nltk":
        return NltkNouns()
    if name == "spacy":
        return SpacyNouns(spacy_model or SPACY_MODEL)
    raise InputError(f"unknown tagger {name!r}: choose from {', '.join(NOUN_TAGGERS)}")


class NltkNouns(TextTagger):
    """See `open_nouns`."""

    name = "nltk nouns"

    def __init__(self) -> None:
        self._nltk = _package("nltk", "NLTK")
        self.settings = {"tagger": "nltk", "version": self._nltk.__version__}
        try:
            self._nltk.pos_tag(["a", "dog"])
        except LookupError:
            raise MissingExtra(
                "NLTK has no data for its tagger: run `python -m nltk.downloader averaged_perceptron_tagger_eng`"
            ) from None

    def choose(self, captions: Sequence[Caption]) -> list[Chosen | None]:
        """See `TextTagger`."""
        tagged = self._nltk.pos_tag_sents([list(caption.words) for caption in captions])
        return [Chosen(tuple(tag.startswith("NN") for _, tag in one)) for one in tagged]


class SpacyNouns(TextTagger):
    """See `open_nouns`.

    Args:
        model: name or folder of a spaCy pipeline with a tagger.
    """

    def __init__(self, model: str = SPACY_MODEL) -> None:
        self._spacy = _package("spacy", "spaCy")
        try:
            self._pipeline = self._spacy.load(model, exclude=["parser", "ner", "lemmatizer"])
        except (OSError, ValueError):
            other = "" if model == SPACY_MODEL else "name one that is installed, or leave it out and "
            raise MissingExtra(
                f"spaCy has no model {model!r}: {other}run `python -m spacy download {SPACY_MODEL}`"
            ) from None
        meta = self._pipeline.meta
        self.name = f"spacy {model} nouns"
        self.settings = {"tagger": "spacy", "model": f"{meta['lang']}_{meta['name']}", "version": meta["version"]}

    def choose(self, captions: Sequence[Caption]) -> list[Chosen | None]:
        """See `TextTagger`."""
        # The caption's own split is kept: spaCy's tokens would not match its words.
        split = [self._spacy.tokens.Doc(self._pipeline.vocab, words=list(caption.words)) for caption in captions]
        return [
            Chosen(tuple(token.pos_ in ("NOUN", "PROPN") for token in document))
            for document in self._pipeline.pipe(split)
        ]


def _package(name: str, title: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise missing_extra("nouns", f"{title} is not installed") from None
