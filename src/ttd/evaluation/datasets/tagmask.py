"""A TagMask set: images with a caption, the words of it that are true, and the mask of all of them.

The documented layout (`ttd scenes write --format tagmask`, `ttd data tagmask-from-coco`):

    images/ID.jpg    masks/ID.png (union)    masks/ID/WORD.png (each word, optional)
    tags.jsonl       {"id", "caption", "words", "true"}, optional "present", "nouns"
    vocabulary.txt   optional: one noun per line whose presence is known for every image

`present` lists the vocabulary's words that are in the image, named by the caption or not; with it the
controls over the whole vocabulary can be measured. `nouns` lists the caption's words that name a thing whose
presence is known, true or not; without it these are the vocabulary's words.

The authors' own folders `image/`, `json_refined/`, `mask_using_HQ-SAM/` are read as well. The content of their
JSON files is not published, so it is guessed: a caption, and the true words as a list or as {word: true/false}.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np

from ttd.data.listing import is_image_file
from ttd.data.rows import jsonl_rows
from ttd.errors import InputError
from ttd.evaluation.benchmark import Sample
from ttd.evaluation.datasets.classes import read_lines
from ttd.evaluation.datasets.labels import read_mask
from ttd.files.documents import read_json
from ttd.files.safe_paths import ID_BYTES, check_path, name_fault, word_file
from ttd.files.schema import each, either, fields, integer, text
from ttd.text.words import split_words

AUTHORS = ("image", "json_refined", "mask_using_HQ-SAM")
_ROW = fields(
    {"id": either(text, integer), "caption": text, "true": each(text)},
    {"words": each(text), "present": each(text), "nouns": each(text)},
)
_CAPTION_KEYS = ("caption", "text", "sentence", "title")
_TRUE_KEYS = ("true", "tags", "tag", "true_words", "gt", "gt_tags", "positive", "labels", "nouns", "objects")


@dataclass(frozen=True)
class TagMaskRow:
    """One captioned image.

    Attributes:
        sample: id, image and mask files (none where only the words are known).
        caption: as written.
        words: every token of the caption in order, lower case.
        true: those that the image shows.
        present: the vocabulary's words in the image; None where that is not known.
        nouns: the caption's words that name a thing whose presence is known.
    """

    sample: Sample
    caption: str
    words: tuple[str, ...]
    true: frozenset[str]
    present: frozenset[str] | None = None
    nouns: frozenset[str] = frozenset()

    def mask(self) -> np.ndarray:
        """The union of the true words' masks, bool [H,W]; raises `InputError` where a file is unusable."""
        masks = [read_mask(path) for path in self.sample.truth]
        if any(mask.shape != masks[0].shape for mask in masks):
            raise InputError(f"the masks of {self.sample.id} have different sizes: make them again")
        return np.asarray(np.any(masks, axis=0))


@dataclass(frozen=True)
class TagMaskSet:
    """All rows of a set, and the nouns whose presence is known everywhere (none where it has no prediction)."""

    root: Path
    rows: Sequence[TagMaskRow]
    vocabulary: tuple[str, ...]


def read_tagmask(root: Path) -> TagMaskSet:
    """Reads either layout.

    Raises:
        InputError: neither is there, or a row lacks what it needs.
    """
    if (root / "tags.jsonl").is_file():
        rows = _documented(root)
    elif (home := _authors_home(root)) is not None:
        root, rows = home, _authors(home)
    else:
        raise InputError(
            f"{root} is not a TagMask set: it needs tags.jsonl with images/ and masks/, or the authors' "
            f"{', '.join(AUTHORS)}"
        )
    if not rows:
        raise InputError(f"{root} lists no image: check that the set is complete")
    return TagMaskSet(root, rows, _vocabulary(root))


def word_mask(root: Path, identifier: str, word: str) -> Path:
    """The file of a word's mask: named by `word_file`, or by the word as it is where such a file is there."""
    folder = root / "masks" / identifier
    ours = folder / f"{word_file(word)}.png"
    if name_fault(f"{word}.png"):
        return ours
    plain = folder / f"{word}.png"
    return ours if ours.is_file() or not plain.is_file() else plain


def _vocabulary(root: Path) -> tuple[str, ...]:
    """The distinct words of `vocabulary.txt`, none where there is no such file."""
    path = root / "vocabulary.txt"
    lines = read_lines(path, "write one word per line") if path.is_file() else []
    return tuple(dict.fromkeys(line.strip().lower() for line in lines if line.strip()))


def _documented(root: Path) -> list[TagMaskRow]:
    rows: list[TagMaskRow] = []
    images = _by_stem(root / "images")
    vocabulary = frozenset(_vocabulary(root))
    for number, content in jsonl_rows(root / "tags.jsonl", schema=_ROW, remedy="write it again"):
        where = f"line {number} of {root / 'tags.jsonl'}"
        name, caption, true = str(content["id"]), content["caption"], _lower(content["true"])
        words = _lower(content["words"]) if "words" in content else _split(caption)
        present = frozenset(_lower(content["present"])) if "present" in content else None
        nouns = frozenset(_lower(content["nouns"]) if "nouns" in content else vocabulary & set(words))
        if stray := sorted(set(true) - set(words)):
            raise InputError(f"{where}: the true word {stray[0]!r} is not among the caption's words")
        check_path(name, where, "id", most=ID_BYTES)
        mask = root / "masks" / f"{name}.png"
        image = images.get(name, root / "images" / f"{name}.jpg")
        sample = Sample(name, image, (mask,) if mask.is_file() else ())
        rows.append(TagMaskRow(sample, caption, words, frozenset(true), present, nouns))
    if len({row.sample.id for row in rows}) < len(rows):
        raise InputError(f"{root / 'tags.jsonl'} has the same id twice: every row needs its own")
    return rows


def _authors_home(root: Path) -> Path | None:
    """The folder of the authors' three: `root`, or `cc3m_for_evaluation` in it."""
    for home in (root, root / "cc3m_for_evaluation"):
        if all((home / name).is_dir() for name in AUTHORS[:2]):
            return home
    return None


def _authors(home: Path) -> list[TagMaskRow]:
    images, masks = _by_stem(home / AUTHORS[0]), home / AUTHORS[2]
    rows = []
    for path in sorted((home / AUTHORS[1]).glob("[!.]*.json")):
        content = read_json(path, remedy="download it again", nan=True)
        caption, true = _guess(content, path)
        words = _split(caption)
        name = path.stem
        image = images.get(name, home / AUTHORS[0] / f"{name}.jpg")
        sample = Sample(name, image, _mask_files(masks, name))
        rows.append(TagMaskRow(sample, caption, words, frozenset(true) & frozenset(words)))
    return rows


def _guess(content: Any, path: Path) -> tuple[str, tuple[str, ...]]:
    """Caption and true words of one file of the authors, whose keys are not published."""
    if isinstance(content, dict):
        caption = next((content[key] for key in _CAPTION_KEYS if isinstance(content.get(key), str)), None)
        found = next((content[key] for key in _TRUE_KEYS if isinstance(content.get(key), (list, dict))), None)
        if isinstance(found, dict):
            found = [word for word, there in found.items() if there]
        if caption is not None and found is not None and all(isinstance(word, str) for word in found):
            # A tag of several words counts as each of them.
            return caption, tuple(word for tag in found for word in tag.lower().split())
    raise InputError(
        f"{path} has a form that is not known: expected an object with a caption ({', '.join(_CAPTION_KEYS)}) and "
        f"true words ({', '.join(_TRUE_KEYS[:4])} ...); convert the set to the documented layout (docs/benchmarks.md)"
    )


def _mask_files(folder: Path, name: str) -> tuple[Path, ...]:
    """`ID.png`, or all of `ID/*.png`, or all of `ID_*.png`."""
    if (one := folder / f"{name}.png").is_file():
        return (one,)
    return tuple(sorted((folder / name).glob("[!.]*.png"))) or tuple(sorted(folder.glob(f"{escape(name)}_*.png")))


def _by_stem(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise InputError(f"{folder} does not exist: the set's images are missing")
    files = (path for path in sorted(folder.iterdir()) if not path.name.startswith("."))
    return {path.stem: path for path in files if is_image_file(path)}


def _lower(words: list[str]) -> tuple[str, ...]:
    return tuple(word.lower() for word in words)


def _split(caption: str) -> tuple[str, ...]:
    return tuple(word.text.lower() for word in split_words(caption))
