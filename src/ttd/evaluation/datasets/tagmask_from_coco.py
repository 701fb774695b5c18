"""A TagMask set from COCO's captions and masks.

A caption's word is true where it names a category (see `coco_words`) that the image has pixels of. What this
cannot know: words outside the list ("kitchen", "smiling") count as not true although they may be visible;
a category whose objects were not annotated counts as absent; of "a man and a woman" both are true where any
person is; and colours, numbers and deeds are never true.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from ttd.errors import InputError
from ttd.evaluation.datasets.classes import read_lines
from ttd.evaluation.datasets.coco import CocoMasks, captions_by_image
from ttd.files import whole_file, write_file
from ttd.files.safe_paths import inside, word_file
from ttd.text.words import singulars, split_words

OTHER = "!"  # compounds that name no category


class WordList:
    """Names of categories, and how they are found in a caption.

    Attributes:
        names: a name of one or several words -> the categories that it may mean (none: something else).
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self.names: dict[tuple[str, ...], frozenset[str]] = {}
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.startswith("#"):
                continue
            category, colon, rest = line.partition(":")
            if not colon:
                raise InputError(f"line {number} of the word list has no colon: write category: name, name")
            for name in rest.split(","):
                if words := tuple(name.lower().split()):
                    meant = frozenset() if category.strip() == OTHER else frozenset({category.strip()})
                    self.names[words] = self.names.get(words, frozenset()) | meant
        self._longest = max((len(words) for words in self.names), default=0)

    @classmethod
    def read(cls, path: Path | None = None) -> WordList:
        """The list of a file, or the package's own for COCO."""
        if path is None:
            return cls(files("ttd").joinpath("assets/coco_words.txt").read_text("utf-8").splitlines())
        return cls(read_lines(path, "give a word list (lines of category: name, name)"))

    @property
    def vocabulary(self) -> dict[str, frozenset[str]]:
        """For each category that a single word names first: that word -> all categories it may mean.

        Synonyms are left out, for whether a person is a man is not known.
        """
        first: dict[str, str] = {}
        for words, categories in self.names.items():
            for category in categories:
                first.setdefault(category, " ".join(words))
        return {name: self.names[(name,)] for name in dict.fromkeys(first.values()) if (name,) in self.names}

    def find(self, words: Sequence[str]) -> list[frozenset[str]]:
        """For each word of a caption (lower case, in order) the categories that it names, alone or as a part.

        The longest name counts: the dog of a hot dog names nothing else.
        """
        forms = [singulars(word) for word in words]
        found: list[frozenset[str]] = [frozenset()] * len(words)
        at = 0
        while at < len(words):
            for length in range(min(self._longest, len(words) - at), 0, -1):
                meant = self._meant(words[at : at + length], forms[at + length - 1])
                if meant is not None:
                    found[at : at + length] = [meant] * length
                    at += length
                    break
            else:
                at += 1
        return found

    def _meant(self, words: Sequence[str], last_forms: Sequence[str]) -> frozenset[str] | None:
        """The categories of a name whose last word may be a plural."""
        for last in last_forms:
            if (name := (*words[:-1], last)) in self.names:
                return self.names[name]
        return None


@dataclass(frozen=True)
class CocoTagMask:
    """COCO's files, and how captions are chosen.

    Attributes:
        captions: `captions_*.json`.
        masks: instances (80 things), or better the panoptic set (things and stuff).
        images: the folder of the images.
        words: the word list.
        every_caption: all captions of an image that name something, not only the first.
    """

    captions: Path
    masks: CocoMasks
    images: Path
    words: WordList
    every_caption: bool = False


@dataclass(frozen=True)
class Written:
    """What became of the captions.

    Attributes:
        rows: captions written.
        unmatched: captions left out because no word names anything that the image shows.
        skipped: images that could not be used, with the reason.
    """

    rows: int
    unmatched: int
    skipped: list[tuple[str, str]]


def write_coco_tagmask(source: CocoTagMask, out: Path, limit: int | None = None) -> Written:
    """Writes the documented layout (see `tagmask_set`): `tags.jsonl` last, so a part is never taken for a set.

    Args:
        source: COCO.
        out: the new set's folder; images are linked where the disk allows it, else copied.
        limit: at most this many images.
    """
    known = source.masks.categories
    vocabulary = {word: meant & known for word, meant in source.words.vocabulary.items() if meant & known}
    captions = captions_by_image(source.captions)
    numbers = [number for number in captions if number in source.masks.images][:limit]
    lines: list[str] = []
    unmatched, skipped = 0, []
    for number in tqdm(numbers, desc="images", disable=None):
        image = source.images / source.masks.images[number]
        try:
            if not image.is_file():
                raise InputError(f"{image} does not exist: get COCO's images or check their folder")
            truth = source.masks.masks(number)
        except InputError as error:
            skipped.append((str(number), str(error)))
            continue
        rows = list(_rows(source, captions[number], truth))
        unmatched += len(captions[number]) - len(rows)
        present = [word for word, meant in vocabulary.items() if meant & truth.keys()]
        for key, caption, words, nouns, found in rows if source.every_caption else rows[:1]:
            identifier = f"{number:012d}-{key}"
            _link(image, inside(out, "images", f"{identifier}{image.suffix}"))
            _write_masks(inside(out, "masks"), identifier, found)
            row = {"id": identifier, "caption": caption, "words": words, "true": list(found)}
            lines.append(json.dumps({**row, "nouns": nouns, "present": present}))
    if not lines:
        reason = f" (the first skipped: {skipped[0][0]}: {skipped[0][1]})" if skipped else ""
        raise InputError(
            f"no caption of {source.captions} names anything that its image shows: check the files{reason}"
        )
    write_file(out / "vocabulary.txt", "\n".join(vocabulary) + "\n")
    write_file(out / "tags.jsonl", "\n".join(lines) + "\n")
    return Written(len(lines), unmatched, skipped)


def _rows(
    source: CocoTagMask, captions: Sequence[tuple[int, str]], truth: Mapping[str, np.ndarray]
) -> Iterator[tuple[int, str, list[str], list[str], dict[str, np.ndarray]]]:
    """Captions with a true word: id, caption, words, those that name a category, the mask of every true word."""
    for key, caption in captions:
        words = [word.text.lower() for word in split_words(caption)]
        found: dict[str, np.ndarray] = {}
        nouns: dict[str, None] = {}
        for word, meant in zip(words, source.words.find(words), strict=True):
            if meant & source.masks.categories:
                nouns[word] = None
            for category in sorted(meant & truth.keys()):
                found[word] = found[word] | truth[category] if word in found else truth[category]
        if found:
            yield key, caption, words, list(nouns), found


def _write_masks(folder: Path, name: str, found: Mapping[str, np.ndarray]) -> None:
    write_file(inside(folder, f"{name}.png"), _png(np.any(list(found.values()), axis=0)))
    for word, mask in found.items():
        write_file(inside(folder, name, f"{word_file(word)}.png"), _png(mask))


def _png(mask: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(mask).save(stream, format="PNG", optimize=True)
    return stream.getvalue()


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        with whole_file(target) as part:
            shutil.copyfile(source, part)
