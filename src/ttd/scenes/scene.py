"""Scene number i of a split, the same on every machine, with its full ground truth; and its caption as alt text
writes them, a random part of what is there, filler, and at times something that is not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

import numpy as np

from ttd.errors import InputError
from ttd.scenes.drawing import ANGLE_STEP, MAX_ANGLE, METHODS, SIDE, Draws, draw_sprite, paste, textures
from ttd.scenes.nouns import BACKGROUNDS, NOUNS, STYLES

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


SPLITS = ("train", "validation", "test")
SMALLEST, LARGEST = 28, 80
_CAPTION_STREAM = 1000
_PLACEMENTS = 12


@dataclass(frozen=True)
class Scene:
    """One scene and what is true of it.

    `image` uint8 [H, W, 3]; `label_map` uint16 [H, W] indexes `labels`: 0 is the background's region (labels[0]
    is its name), k the k-th object; `caption` with the words of it that are `true_words` (things named and
    there) and `absent_words` (things named and not there).
    """

    index: int
    image: np.ndarray = field(repr=False)
    label_map: np.ndarray = field(repr=False)
    labels: tuple[str, ...]
    caption: str
    true_words: frozenset[str]
    absent_words: frozenset[str]

    @property
    def background(self) -> str:
        """Name of the background."""
        return self.labels[0]

    @property
    def nouns(self) -> tuple[str, ...]:
        """The objects, in the order in which they were painted."""
        return self.labels[1:]

    def mask(self, word: str) -> np.ndarray:
        """Where a noun or the background is, bool [H, W]; all False for a word that is not there."""
        if word not in self.labels:
            return np.zeros(self.label_map.shape, bool)
        return np.asarray(self.label_map == self.labels.index(word))

    @property
    def word_masks(self) -> dict[str, np.ndarray]:
        """Mask of every true word of the caption, bool [H, W] each."""
        return {word: self.mask(word) for word in self.labels if word in self.true_words}

    @property
    def union_mask(self) -> np.ndarray:
        """What the caption truly describes, bool [H, W]."""
        wanted = [k for k, word in enumerate(self.labels) if word in self.true_words]
        return np.isin(self.label_map, wanted)


class Scenes:
    """Scenes by number: `Scenes("test")[12]`.

    `split`: train, validation or test; `seed`: another world of the same kind; `size`: side in pixels;
    `objects`: fewest and most objects; `nouns`, `styles`: what may be drawn (hold some out to test what was
    never seen). Raises `InputError` for names that the atlas does not have.
    """

    def __init__(
        self,
        split: str = "train",
        seed: int = 0,
        *,
        size: int = 128,
        objects: tuple[int, int] = (1, 4),
        nouns: tuple[str, ...] = NOUNS,
        styles: tuple[str, ...] = STYLES,
    ) -> None:
        if split not in SPLITS:
            raise InputError(f"There is no split {split!r}: use one of {', '.join(SPLITS)}.")
        for kind, names, known in (("noun", nouns, NOUNS), ("style", styles, STYLES)):
            unknown = sorted(set(names) - set(known))
            if unknown or not names:
                raise InputError(
                    f"Scenes need at least one known {kind}; unknown: {', '.join(unknown) or 'none given'}."
                )
        if not 1 <= objects[0] <= objects[1] <= len(nouns):
            raise InputError(f"The number of objects {objects} must be 1 or more and at most the {len(nouns)} nouns.")
        if not SMALLEST + 4 <= size <= SIDE:
            raise InputError(f"The side of a scene is {SMALLEST + 4} to {SIDE} pixels, not {size}.")
        self.split, self.seed, self.size, self.objects, self.nouns, self.styles = (
            split,
            seed,
            size,
            objects,
            nouns,
            styles,
        )
        self._key = seed * len(SPLITS) + SPLITS.index(split)

    def __getitem__(self, index: int) -> Scene:
        """Scene number `index` (0 or more)."""
        image, label_map, labels = self.paint(index)
        caption = self.caption(index, labels)
        return Scene(index, image, label_map, labels, caption.text, frozenset(caption.true), frozenset(caption.absent))

    def caption(self, index: int, labels: tuple[str, ...], epoch: int = 0) -> SceneCaption:
        """A caption of scene `index` whose content is `labels`; every epoch words it anew."""
        draws = Draws(self._key, _CAPTION_STREAM + epoch, index)
        return draw_caption(draws, labels[0], labels[1:], self.nouns)

    def paint(self, index: int) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
        """Image uint8 [H, W, 3], label map uint16 [H, W] and labels of scene `index`, without a caption."""
        draws = Draws(self._key, self.size, index)
        kind = draws.below(len(BACKGROUNDS))
        image = self._background(draws, kind)
        label_map = np.zeros(image.shape[:2], np.uint16)
        labels = [BACKGROUNDS[kind]]
        taken: list[tuple[int, int, int]] = []
        for noun in draws.sample(self.nouns, draws.between(*self.objects)):
            size = draws.between(SMALLEST, min(LARGEST, self.size - 4))
            centre = self._place(draws, size, taken)
            style = STYLES.index(draws.pick(self.styles))
            angle = ANGLE_STEP * draws.between(-MAX_ANGLE // ANGLE_STEP, MAX_ANGLE // ANGLE_STEP)
            mirror = draws.chance(50)
            if centre is None:
                continue
            taken.append((*centre, size))
            labels.append(noun)
            drawn = draw_sprite(NOUNS.index(noun), style, size, angle, mirror)
            paste(image, label_map, drawn, centre, len(labels) - 1)
        return image, label_map, tuple(labels)

    def _background(self, draws: Draws, kind: int) -> np.ndarray:
        texture = textures()[kind, draws.below(METHODS)]
        top, left = draws.below(SIDE), draws.below(SIDE)
        rows = (top + np.arange(self.size)) % SIDE
        columns = (left + np.arange(self.size)) % SIDE
        light = draws.between(205, 306)  # of 256: darker or brighter by up to a fifth
        window = texture[rows[:, None], columns].astype(np.uint32)
        return np.asarray(np.minimum(window * light // 256, 255), np.uint8)

    def _place(self, draws: Draws, size: int, taken: list[tuple[int, int, int]]) -> tuple[int, int] | None:
        """A centre where the object's box covers little of the others; None where no room was found."""
        half = size // 2
        for _ in range(_PLACEMENTS):
            y, x = draws.between(half, self.size - half), draws.between(half, self.size - half)
            if all(_overlap(y, x, size, *other) * 8 <= min(size, other[2]) ** 2 for other in taken):
                return y, x
        return None


def _overlap(y: int, x: int, size: int, other_y: int, other_x: int, other_size: int) -> int:
    reach = (size + other_size) // 2
    limit = min(size, other_size)
    return max(0, min(limit, reach - abs(y - other_y))) * max(0, min(limit, reach - abs(x - other_x)))


MOST_DESCRIBED = 0.8  # share of the image that the caption describes


def example_scenes(seed: int) -> Iterator[Scene]:
    """Held-out scenes on which good and bad models differ, without end: what the demo and the page show.

    The caption names two things that are there and one that is not, and leaves part of the image
    undescribed: neither selecting every noun nor marking the whole image is right.
    """
    scenes = Scenes("test", seed)
    for index in count():
        scene = scenes[index]
        if len(scene.true_words) >= 2 and scene.absent_words and scene.union_mask.mean() <= MOST_DESCRIBED:
            yield scene
