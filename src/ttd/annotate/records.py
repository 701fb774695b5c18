"""The decision about one item, as one JSON text that contains its masks."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from ttd.annotate.masks import Mask, Prompts
from ttd.errors import InputError
from ttd.files.documents import parse_json
from ttd.files.safe_paths import check_name

ACCEPTED, SKIPPED = "accepted", "skipped"
KEPT, REJECTED = "kept", "rejected"
_FORMAT = 1


@dataclass(frozen=True)
class Record:
    """The decision about one item.

    Attributes:
        id: of the item.
        version: 1 for the first decision, one more with every change.
        status: "accepted" or "skipped".
        verdict: of the second pass over accepted items: "kept", "rejected", or None before it.
        shard, key, caption_index: where image and caption come from.
        caption: as it was annotated.
        words: every token in order, lower case.
        true: those that the image shows, distinct, in the caption's order.
        proposed: those that the scores had selected.
        size: (H, W) of the image.
        masks: a mask bool [H,W] for every true word that has pixels.
        prompts: of each true word.
        mask_source: what proposed the masks: "sam-hq" or "own map".
        image: file name of the image in the set.
        time: when, ISO 8601 in UTC.
    """

    id: str
    version: int
    status: str
    shard: str
    key: str
    caption_index: int
    caption: str
    words: tuple[str, ...]
    true: tuple[str, ...] = ()
    proposed: tuple[str, ...] = ()
    size: tuple[int, int] = (0, 0)
    masks: Mapping[str, Mask] = field(default_factory=dict)
    prompts: Mapping[str, Prompts] = field(default_factory=dict)
    mask_source: str = ""
    image: str = ""
    time: str = ""
    verdict: str | None = None

    @property
    def finished(self) -> bool:
        """Whether it belongs to the set: accepted and not rejected."""
        return self.status == ACCEPTED and self.verdict != REJECTED

    def to_dict(self) -> dict[str, Any]:
        """All fields; masks as PNG in base64."""
        return {
            "format": _FORMAT,
            **{name: getattr(self, name) for name in _PLAIN},
            "masks": {word: _packed(mask) for word, mask in self.masks.items()},
            "prompts": {word: prompts.to_dict() for word, prompts in self.prompts.items()},
        }

    def to_json(self) -> str:
        """All fields as a text, see `to_dict`."""
        return json.dumps(self.to_dict(), ensure_ascii=True)

    @classmethod
    def from_json(cls, text: str | bytes, where: object) -> Record:
        """The reverse of `to_json`; raises `InputError` that names `where` for a damaged text or another version."""
        try:
            content = parse_json(text)
            if content["format"] != _FORMAT:
                raise InputError(f"{where} was written by another version of this package: use that version")
            size = (int(content["size"][0]), int(content["size"][1]))
            masks = {str(word): _unpacked(packed, size) for word, packed in content["masks"].items()}
            prompts = {str(word): Prompts.from_dict(one) for word, one in content["prompts"].items()}
            plain = {name: _checked(name, content[name]) for name in _PLAIN}
        except InputError:
            raise
        # A damaged PNG makes Pillow raise anything.
        except Exception as error:
            raise InputError(
                f"{where} is damaged ({type(error).__name__}): restore it, or remove it and annotate the item again"
            ) from None
        record = cls(**plain | {"masks": masks, "prompts": prompts, "size": size})
        if record.status not in (ACCEPTED, SKIPPED) or not set(record.masks) <= set(record.true) <= set(record.words):
            raise InputError(f"{where} has values that contradict each other: remove it and annotate the item again")
        check_name(record.id, where)
        if record.image and check_name(record.image, where, "image").rpartition(".")[0] != record.id:
            raise InputError(f"{where}: the image {record.image!r} is not named after the item's id: correct it")
        return record


_TEXTS = ("id", "status", "shard", "key", "caption", "mask_source", "image", "time")
_LISTS = ("words", "true", "proposed")
_PLAIN = (*_TEXTS, *_LISTS, "version", "caption_index", "size", "verdict")


def _checked(name: str, value: Any) -> Any:
    if name in _TEXTS and isinstance(value, str):
        return value
    if name in _LISTS and isinstance(value, list) and all(isinstance(word, str) for word in value):
        return tuple(value)
    if name in ("version", "caption_index") and isinstance(value, int):
        return value
    if name == "size" or (name == "verdict" and value in (None, KEPT, REJECTED)):
        return value
    raise ValueError(name)


def mask_png(mask: Mask) -> bytes:
    """A mask as a one-bit PNG."""
    stream = io.BytesIO()
    Image.fromarray(mask).save(stream, format="PNG", optimize=True)
    return stream.getvalue()


def _packed(mask: Mask) -> str:
    return base64.b64encode(mask_png(mask)).decode("ascii")


def _unpacked(packed: str, size: tuple[int, int]) -> Mask:
    image = Image.open(io.BytesIO(base64.b64decode(packed, validate=True)), formats=("PNG",))
    if image.mode != "1" or image.size != size[::-1]:
        raise ValueError("size")
    return np.array(image)
