"""Captions as alt text writes them: a random part of what is there, filler, and at times something that is not."""

from __future__ import annotations

from dataclasses import dataclass

from ttd.scenes.nouns import BACKGROUNDS, NOUNS
from ttd.scenes.rng import Draws

ABSENT_PERCENT = 25
BACKGROUND_PERCENT = 40

_ARTICLES = ("", "", "a", "the", "one", "cute", "my", "old", "beautiful")
_JOINTS = ("and", "with", ",", "next to", "near", "&", "beside")
_PLACES = ("on", "on the", "in the", "against", "with a background of", "in front of")
_OPENINGS = (
    "stock photo of",
    "a photo of",
    "picture of",
    "image :",
    "vintage postcard ,",
    "free clip art of",
    "illustration of",
    "anna 's picture of",
    "close up of",
    "a drawing showing",
)
_CLOSINGS = (
    "stock photo",
    "royalty free image",
    "hd wallpaper",
    "for sale",
    "free download",
    "by maria",
    "by john smith",
    "no 27",
    "isolated",
    "in summer",
    "vector design",
    "collection",
)
_FIRST_YEAR, _LAST_YEAR = 1998, 2024

FILLER: frozenset[str] = frozenset(
    word for text in (*_ARTICLES, *_JOINTS, *_PLACES, *_OPENINGS, *_CLOSINGS) for word in text.split()
) | frozenset(str(year) for year in range(_FIRST_YEAR, _LAST_YEAR + 1))
"""Every word of a caption that names nothing in the image."""


@dataclass(frozen=True)
class SceneCaption:
    """A caption and what it names.

    `true` are the things named that are in the scene (nouns, and the background's name where it is named),
    `absent` those named that are not.
    """

    text: str
    true: tuple[str, ...]
    absent: tuple[str, ...]


def draw_caption(
    draws: Draws, background: str, nouns: tuple[str, ...], vocabulary: tuple[str, ...] = NOUNS
) -> SceneCaption:
    """Words a scene; `vocabulary` is what a thing that is not there is drawn from."""
    named = draws.sample(nouns, draws.between(1, len(nouns)))
    things = list(named)
    true, absent = list(named), []
    with_background = draws.chance(BACKGROUND_PERCENT)
    named_background = background
    if draws.chance(ABSENT_PERCENT):
        if not with_background and draws.chance(15):
            with_background, named_background = True, draws.pick([b for b in BACKGROUNDS if b != background])
            absent.append(named_background)
        else:
            others = draws.sample(vocabulary, min(len(vocabulary), len(nouns) + 1))
            absent_noun = next((other for other in others if other not in nouns), None)
            if absent_noun is not None:
                things.insert(draws.below(len(things) + 1), absent_noun)
                absent.append(absent_noun)
    if with_background and named_background == background:
        true.append(background)
    text = _word(draws, things, named_background if with_background else None)
    return SceneCaption(text, tuple(true), tuple(absent))


def _word(draws: Draws, things: list[str], background: str | None) -> str:
    parts = []
    for i, thing in enumerate(things):
        if i:
            parts.append(draws.pick(_JOINTS))
        parts.append(f"{draws.pick(_ARTICLES)} {thing}")
    if background is not None:
        if draws.chance(70):
            parts.append(f"{draws.pick(_PLACES)} {background}")
        else:
            parts.insert(0, f"{background} ,")
    if draws.chance(50):
        parts.insert(0, draws.pick(_OPENINGS))
    if draws.chance(40):
        parts.append(draws.pick(_CLOSINGS))
    if draws.chance(20):
        parts.append(str(draws.between(_FIRST_YEAR, _LAST_YEAR)))
    return " ".join(" ".join(parts).split())
