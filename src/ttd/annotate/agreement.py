"""How far two annotators agree: about the words, and about where they are.

Words: every distinct word of a caption is one decision, true or not. Reported are the fraction of equal decisions,
Cohen's kappa (1: full agreement; 0: no more than two people reach who choose at random, each with their own rate of
"true"), and F1 over "true", which is the same whichever annotator is the reference. Masks: the mean IoU over captions
where both drew a mask, and over words that both chose and drew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ttd.errors import InputError
from ttd.evaluation.datasets.labels import read_mask
from ttd.evaluation.datasets.tagmask import TagMaskRow, read_tagmask, word_mask
from ttd.evaluation.metrics import mask_counts
from ttd.text.words import is_stop_word


@dataclass(frozen=True)
class Disagreement:
    """One caption on which two annotators differ.

    Attributes:
        id, caption: of the item.
        only_first, only_second: words that only one annotator chose.
        iou: of the caption's masks; None where not both have one.
        different_masks: words whose own masks have an IoU below one half.
    """

    id: str
    caption: str
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    iou: float | None
    different_masks: tuple[str, ...]


@dataclass(frozen=True)
class Agreement:
    """Figures over the captions that both annotated; None where there is nothing to count.

    Attributes:
        captions: annotated by both; `only_first`, `only_second`: by one of them alone.
        words: decisions; `equal`: the fraction that is equal; `kappa`, `f1`: see the module.
        masks: captions where both have a mask; `caption_iou`: their mean IoU; `one_mask`: captions where one has.
        word_masks, word_iou: the same over words.
        disagreements: captions with another word or an IoU below one half, the worst first.
        skipped: captions that could not be compared: id and reason.
    """

    captions: int
    only_first: int
    only_second: int
    words: int
    equal: float | None
    kappa: float | None
    f1: float | None
    masks: int
    caption_iou: float | None
    one_mask: int
    word_masks: int
    word_iou: float | None
    disagreements: tuple[Disagreement, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


@dataclass
class _Pooled:
    """Decisions and IoUs of the captions compared so far."""

    first: list[bool] = field(default_factory=list)
    second: list[bool] = field(default_factory=list)
    ious: list[float] = field(default_factory=list)
    word_ious: list[float] = field(default_factory=list)
    one_mask: int = 0


def agreement(first: str | Path, second: str | Path, *, stop_words: bool = False) -> Agreement:
    """Compares two TagMask sets: items of the same id, else those of the same image and caption.

    An id comes from the names of the data's folder and files, which may differ between two people.

    Args:
        first, second: their folders.
        stop_words: count stop words and punctuation, too.

    Raises:
        InputError: a folder is not a TagMask set, or they have no caption in common.
    """
    folders = (Path(first), Path(second))
    rows = [{row.sample.id: row for row in read_tagmask(folder).rows} for folder in folders]
    common = _matched(rows[0], rows[1])
    if not common:
        raise InputError(f"{first} and {second} have no item in common: both must come from the same data")
    pooled, found, skipped = _Pooled(), [], []
    for identifier, other in common.items():
        pair = (rows[0][identifier], rows[1][other])
        try:
            one = _compare(pair, folders, pooled, stop_words)
        except InputError as error:
            skipped.append((identifier, str(error)))
            continue
        if one.only_first or one.only_second or one.different_masks or (one.iou is not None and one.iou < 0.5):
            found.append(one)
    found.sort(key=lambda one: (-len(one.only_first) - len(one.only_second), 1.0 if one.iou is None else one.iou))
    equal, kappa, f1 = word_agreement(pooled.first, pooled.second)
    return Agreement(
        captions=len(common) - len(skipped),
        only_first=len(rows[0]) - len(common),
        only_second=len(rows[1]) - len(common),
        words=len(pooled.first),
        equal=equal,
        kappa=kappa,
        f1=f1,
        masks=len(pooled.ious),
        caption_iou=_mean(pooled.ious),
        one_mask=pooled.one_mask,
        word_masks=len(pooled.word_ious),
        word_iou=_mean(pooled.word_ious),
        disagreements=tuple(found),
        skipped=tuple(skipped),
    )


def _matched(first: Mapping[str, TagMaskRow], second: Mapping[str, TagMaskRow]) -> dict[str, str]:
    """Ids of the first set with those of the second for the same item."""
    same = {identifier: identifier for identifier in first if identifier in second}
    left = {_content(row): identifier for identifier, row in second.items() if identifier not in same}
    for identifier, row in first.items():
        if left and identifier not in same and (other := left.pop(_content(row), None)) is not None:
            same[identifier] = other
    return {identifier: same[identifier] for identifier in first if identifier in same}


def _content(row: TagMaskRow) -> tuple[str, str]:
    """The image, by its bytes or where it is missing by its id, and the caption."""
    image = row.sample.image
    return hashlib.sha256(image.read_bytes()).hexdigest() if image.is_file() else row.sample.id, row.caption


def word_agreement(first: Sequence[bool], second: Sequence[bool]) -> tuple[float | None, float | None, float | None]:
    """Fraction of equal decisions, Cohen's kappa, F1 over True; None where they are not defined.

    Kappa is not defined where all decisions of both are the same; F1 where none of them is True.
    """
    a, b = np.asarray(first, bool), np.asarray(second, bool)
    if not len(a):
        return None, None, None
    equal = float((a == b).mean())
    chance = float(a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean()))
    kappa = None if chance == 1 else (equal - chance) / (1 - chance)
    positive = int(a.sum() + b.sum())
    return equal, kappa, 2 * int((a & b).sum()) / positive if positive else None


def _compare(
    pair: tuple[TagMaskRow, TagMaskRow], folders: tuple[Path, Path], pooled: _Pooled, stop_words: bool
) -> Disagreement:
    """Adds one caption to `pooled`; nothing of it where the captions or mask sizes differ (`InputError`)."""
    a, b = pair
    if a.words != b.words:
        raise InputError("the two captions differ")
    iou = _caption_iou(a, b)
    per_word = list(_word_ious(a, b, folders))
    words = [word for word in dict.fromkeys(a.words) if stop_words or not is_stop_word(word)]
    pooled.first += [word in a.true for word in words]
    pooled.second += [word in b.true for word in words]
    pooled.ious += [] if iou is None else [iou]
    pooled.one_mask += bool(a.sample.truth) != bool(b.sample.truth)
    pooled.word_ious += [overlap for _, overlap in per_word]
    return Disagreement(
        a.sample.id,
        a.caption,
        tuple(word for word in words if word in a.true and word not in b.true),
        tuple(word for word in words if word in b.true and word not in a.true),
        iou,
        tuple(word for word, overlap in per_word if overlap < 0.5),
    )


def _caption_iou(a: TagMaskRow, b: TagMaskRow) -> float | None:
    if not a.sample.truth or not b.sample.truth:
        return None
    return _iou(a.mask(), b.mask())


def _word_ious(a: TagMaskRow, b: TagMaskRow, folders: tuple[Path, Path]) -> Iterator[tuple[str, float]]:
    """Words that both chose and drew, with the IoU of their masks."""
    for word in dict.fromkeys(a.words):
        files = [word_mask(folder, row.sample.id, word) for folder, row in zip(folders, (a, b), strict=True)]
        if word in a.true and word in b.true and all(file.is_file() for file in files):
            yield word, _iou(read_mask(files[0]), read_mask(files[1]))


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    if a.shape != b.shape:
        raise InputError("the two masks have different sizes")
    return mask_counts(a, b).overlap.iou


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
