"""A model without weights, so that tests of the command line are fast; as a module it is `ttd` with that model.

A word's score is the share of its letters that are vowels; everything is where the image is dark.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tests.colour_encoder import ColourEncoder
from ttd.errors import InputError
from ttd.inference.options import Options
from ttd.results import Segmentation, TaggedWord, Tagging
from ttd.selection import Selection
from ttd.text.words import split_words


def given(options: Options | None, selection: Selection | None = None) -> dict[str, Any]:
    """What differs from the defaults."""
    pairs = [(value, type(value)()) for value in (options, selection) if value is not None]
    found = {name: now for value, usual in pairs for name, now in asdict(value).items() if now != getattr(usual, name)}
    return {**found, "score": selection.score} if selection else found


class FakeModel:
    """The methods of `TTD` that the command line calls, with a record of the calls."""

    def __init__(self) -> None:
        self.encoder = ColourEncoder()
        self.calls: list[tuple[str, int, dict[str, Any]]] = []
        self.kill_after: int | None = None
        self.signal_after: tuple[int, int] | None = None
        self.seen = 0
        self.notice_of_all: str | None = None

    def forget_texts(self) -> None:
        """It remembers none."""

    def encode(self, image: Image.Image, options: Options | None = None) -> Image.Image:
        self.calls.append(("encode", 1, given(options)))
        return image

    def tag(
        self,
        image: Image.Image,
        caption: str | None,
        *,
        tags: Sequence[str] | None = None,
        selection: Selection | None = None,
        options: Options | None = None,
    ) -> Tagging:
        self.calls.append(("tag", 1, given(options, selection)))
        return self._tagging(caption, tags, given(options, selection))

    def tag_many(
        self,
        images: Sequence[Image.Image],
        captions: Sequence[str],
        *,
        selection: Selection | None = None,
        options: Options | None = None,
    ) -> list[Tagging]:
        asked = given(options, selection)
        self.calls.append(("tag_many", len(images), asked))
        taggings = [self._tagging(caption, None, asked) for caption in captions]
        self.seen += len(images)
        if self.kill_after is not None and self.seen > self.kill_after:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.signal_after and self.seen > self.signal_after[0]:
            signal.raise_signal(self.signal_after[1])
        return taggings

    def _tagging(self, caption: str | None, tags: Sequence[str] | None, options: dict[str, Any]) -> Tagging:
        if tags:
            spans = [(text, index, None, None) for index, text in enumerate(tags)]
        else:
            stop = options.get("stop_words", True)
            found = split_words(caption or "", stop is not False)
            spans = [(word.text, word.index, word.start, word.end) for word in found]
        if not spans:
            raise InputError("no words are left: give a caption with more than stop words")
        if any(text == "explode" for text, *_ in spans):
            raise InputError("this word cannot be scored")
        scores = {text: sum(c in "aeiou" for c in text) / len(text) for text, *_ in spans}
        best = max(scores.values())
        words = tuple(TaggedWord(*span, scores[span[0]], scores[span[0]] == best) for span in spans)
        unknown = tuple(text for text in scores if text.startswith("x"))
        return Tagging(caption, words, options.get("score", "s_pixel"), unknown=unknown)

    def heatmaps(
        self, image: Image.Image, texts: Sequence[str], options: Options | None = None
    ) -> npt.NDArray[np.float32]:
        self.calls.append(("heatmaps", 1, given(options)))
        dark = 1 - np.asarray(image.convert("L"), np.float32) / 255
        return np.stack([dark] * len(texts))

    def similarity(self, image: Image.Image, texts: Sequence[str]) -> Any:
        import torch

        return torch.rand(len(texts), 4, 6)

    def encode_text(self, texts: Sequence[str]) -> Sequence[str]:
        return texts

    def notice(self, image: Image.Image) -> str | None:
        return self.notice_of_all

    def unknown_words(self, texts: Sequence[str]) -> tuple[str, ...]:
        return tuple(word for text in texts for word in text.split() if word.startswith("x"))

    def caption_mask(
        self, image: Image.Image, caption: str, threshold: float | None = None, options: Options | None = None
    ) -> npt.NDArray[np.bool_]:
        self.calls.append(("caption_mask", 1, given(options)))
        return np.asarray(self.heatmaps(image, [caption])[0] >= (0.5 if threshold is None else threshold))

    def segment(self, image: Image.Image, tags: Sequence[str], options: Options | None = None) -> Segmentation:
        self.calls.append(("segment", 1, given(options)))
        labels = self.heatmaps(image, tags)[0] > 0.5
        return Segmentation(labels.astype(np.uint16), ("background", *tags), 0.5)


def main() -> None:
    """`python -m tests.cli.fake_model KILL_AFTER SIGNAL_AFTER ARGUMENTS...`; 0 stands for never."""
    from ttd.cli.options.model import Settings

    model = FakeModel()
    kill, interrupt, number = (int(value) for value in sys.argv[1:4])
    model.kill_after = kill or None
    model.signal_after = (interrupt, number) if interrupt else None
    Settings.load = lambda self: model  # type: ignore[method-assign, assignment, return-value]
    sys.argv[1:] = sys.argv[4:]
    from ttd.cli import main as run

    run()


if __name__ == "__main__":
    main()
