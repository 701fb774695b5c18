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
    """A caption and what it claims.

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
    claims = list(named)
    true, absent = list(named), []
    place = draws.chance(BACKGROUND_PERCENT)
    where = background
    if draws.chance(ABSENT_PERCENT):
        if not place and draws.chance(15):
            place, where = True, draws.pick([b for b in BACKGROUNDS if b != background])
            absent.append(where)
        else:
            others = draws.sample(vocabulary, min(len(vocabulary), len(nouns) + 1))
            lie = next((other for other in others if other not in nouns), None)
            if lie is not None:
                claims.insert(draws.below(len(claims) + 1), lie)
                absent.append(lie)
    if place and where == background:
        true.append(background)
    text = _word(draws, claims, where if place else None)
    return SceneCaption(text, tuple(true), tuple(absent))


def _word(draws: Draws, things: list[str], place: str | None) -> str:
    parts = []
    for i, thing in enumerate(things):
        if i:
            parts.append(draws.pick(_JOINTS))
        parts.append(f"{draws.pick(_ARTICLES)} {thing}")
    if place is not None:
        if draws.chance(70):
            parts.append(f"{draws.pick(_PLACES)} {place}")
        else:
            parts.insert(0, f"{place} ,")
    if draws.chance(50):
        parts.insert(0, draws.pick(_OPENINGS))
    if draws.chance(40):
        parts.append(draws.pick(_CLOSINGS))
    if draws.chance(20):
        parts.append(str(draws.between(_FIRST_YEAR, _LAST_YEAR)))
    return " ".join(" ".join(parts).split())
