"""Results: frozen records that print well and convert to JSON, images and files of common formats."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ttd.errors import InputError
from ttd.files import write_file

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class TaggedWord:
    """One occurrence of a word in the caption, or one of the caller's own tags.

    Attributes:
        text: as written.
        index: position among all tokens of the caption, or in the caller's list.
        start, end: characters `caption[start:end]`, None for the caller's own tags.
        score: of the distinct word; repeated words share it.
        selected: whether the word counts as a tag of the image.
        percentile: 0..100, how many in a hundred negative words this word exceeds, for the rule "negatives".
    """

    text: str
    index: int
    start: int | None
    end: int | None
    score: float
    selected: bool
    percentile: float | None = None


@dataclass(frozen=True)
class Tagging:
    """The words of a caption, scored against an image.

    Attributes:
        caption: None where the caller gave tags alone.
        words: every occurrence, in caption order (stop words left out where asked).
        score: name of the score, e.g. "s_pixel".
        selection: the rule: "gap", "softmax", "min-max", "calibrated", "threshold" or "negatives".
        threshold: the cut of a selection by threshold, None for the largest gap. For "negatives" the score that a
            selected word exceeds on this image, None where it need not exceed any.
        truncated: texts that were longer than the text tower takes; their beginning was used.
        unknown: words that a model with a closed vocabulary does not know.
        percentile: of the negative words' scores, which a word had to exceed; None for other rules.
        negatives: how many words the caption's were compared with.
    """

    caption: str | None
    words: tuple[TaggedWord, ...]
    score: str = "s_pixel"
    selection: str = "gap"
    threshold: float | None = None
    truncated: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    percentile: float | None = None
    negatives: int = 0

    @property
    def selected(self) -> list[str]:
        """The distinct selected words, in caption order."""
        return [word.text for word in self.distinct() if word.selected]

    def distinct(self) -> list[TaggedWord]:
        """The first occurrence of every distinct word (case aside), in caption order."""
        first: dict[str, TaggedWord] = {}
        for word in self.words:
            first.setdefault(word.text.lower(), word)
        return list(first.values())

    def ranked(self) -> list[TaggedWord]:
        """The distinct words, highest score first."""
        return sorted(self.distinct(), key=lambda word: -word.score)

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, ready for JSON; what concerns negative words only where there are some."""
        compared = self.percentile is not None
        words = [{k: v for k, v in asdict(word).items() if compared or k != "percentile"} for word in self.words]
        return {
            "caption": self.caption,
            "selected": self.selected,
            "words": words,
            "score": self.score,
            "selection": self.selection,
            "threshold": self.threshold,
            "truncated": list(self.truncated),
            "unknown": list(self.unknown),
            **({"percentile": self.percentile, "negatives": self.negatives} if compared else {}),
        }

    def plot(self) -> Image.Image:
        """The words sorted by score, with the largest gap where it selects (the paper's Figure 4a)."""
        from ttd.viz.figures import score_plot

        return score_plot(self.distinct(), name=self.score, gap=self.selection == "gap")

    def save(self, path: str | Path) -> None:
        """Write `to_dict()` as .json, or `plot()` as .png; whole or not at all.

        Raises:
            InputError: another ending.
        """
        _save(path, {".json": self.to_dict, ".png": self.plot})

    def __str__(self) -> str:
        width = max(len(word.text) for word in self.words)
        marks = {True: "*", False: " "}
        ranks = {w: "" if w.percentile is None else f" percentile {w.percentile:3.0f}" for w in self.words}
        return "\n".join(f"{marks[w.selected]} {w.text:<{width}} {w.score:7.4f}{ranks[w]}" for w in self.ranked())


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A label for every pixel.

    Attributes:
        label_map: uint16 `[H,W]` at the image's size, indices into `names`.
        names: "background" first where there is one, then the classes in the caller's order.
        background: the threshold under which a pixel is background, 0 where there is none but words for the background;
            None without background.
        truncated: names that were longer than the text tower takes; their beginning was used.
        unknown: words of the names that a model with a closed vocabulary does not know.
    """

    label_map: NDArray[np.uint16]
    names: tuple[str, ...]
    background: float | None = None
    truncated: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    def shares(self) -> dict[str, float]:
        """The share of the image's pixels that each name got; names that occur twice are added up."""
        counts = np.bincount(self.label_map.ravel(), minlength=len(self.names)) / self.label_map.size
        shares: dict[str, float] = {}
        for name, share in zip(self.names, counts, strict=True):
            shares[name] = shares.get(name, 0.0) + float(share)
        return shares

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, ready for JSON; the label map itself is left out."""
        height, width = self.label_map.shape
        return {
            "height": height,
            "width": width,
            "names": list(self.names),
            "shares": self.shares(),
            "background": self.background,
            "truncated": list(self.truncated),
            "unknown": list(self.unknown),
        }

    def to_coco(self, image_id: int | str = 0) -> list[dict[str, Any]]:
        """COCO annotations, one for each name that has pixels, background left out: see `coco_annotation`.

        `category_id` is the position in `names`.
        """
        first = 0 if self.background is None else 1
        there = [number for number in np.unique(self.label_map).tolist() if number >= first]
        return [
            {
                **coco_annotation(self.label_map == number, image_id),
                "category_id": number,
                "category": self.names[number],
            }
            for number in there
        ]

    def plot(self, image: Image.Image | None = None) -> Image.Image:
        """The classes in colour with a legend, over the image where it is given."""
        from PIL import Image as Pictures

        from ttd.viz.overlays import label_overlay

        height, width = self.label_map.shape
        under = Pictures.new("RGB", (width, height), "white") if image is None else image
        return label_overlay(under, self.label_map, self.names, background=self.background is not None)

    def save(self, path: str | Path) -> None:
        """Write the label map as .png (indexed; pixel values are positions in `names`), or `to_dict()` with `to_coco()`
        under "annotations" as .json; whole or not at all.

        Raises:
            InputError: another ending.
        """
        from ttd.viz.overlays import label_png

        made = {
            ".json": lambda: {**self.to_dict(), "annotations": self.to_coco()},
            ".png": lambda: label_png(self.label_map, background=self.background is not None),
        }
        _save(path, made)

    def __str__(self) -> str:
        width = max(len(name) for name in self.names)
        return "\n".join(f"{name:<{width}} {share:6.1%}" for name, share in self.shares().items())


def coco_annotation(mask: NDArray[np.bool_], image_id: int | str = 0) -> dict[str, Any]:
    """A mask `[H,W]` as in COCO's result files: run lengths, area in pixels, box [left, top, width, height]."""
    from pycocotools import mask as coco

    encoded = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {
        "image_id": image_id,
        "segmentation": {"size": list(encoded["size"]), "counts": encoded["counts"].decode("ascii")},
        "area": int(coco.area(encoded)),
        "bbox": coco.toBbox(encoded).tolist(),
    }


def _save(path: str | Path, made: dict[str, Any]) -> None:
    """Writes what the path's ending asks for: an image, or anything else as JSON."""
    from ttd.viz.overlays import save_png

    path = Path(path)
    ending = path.suffix.lower()
    if ending not in made:
        raise InputError(f"{path}: results are saved as {' or '.join(made)}, by the ending of the name")
    content = made[ending]()
    if ending == ".png":
        save_png(content, path)
        return
    write_file(path, json.dumps(content, indent=1) + "\n")
