"""Bytes and JSON records -> the captions of a pair, or the reason why there are none."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from ttd.data.bad_samples import BROKEN_JSON, EMPTY_CAPTION, ENCODING, MISSING_CAPTION

CAPTION_NAMES = ("captions", "caption", "text", "title")


class NoCaption(Exception):
    """The reason (one of `ttd.data.bad_samples.REASONS`) why a text gives no caption."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


def from_text(data: bytes) -> tuple[str, ...]:
    """The one caption of a `.txt` member: all of it, UTF-8, blanks around it removed."""
    try:
        return usable([data.decode("utf-8-sig")])
    except UnicodeDecodeError as error:
        raise NoCaption(ENCODING, f"byte {error.start} is no UTF-8") from None


def from_json(data: bytes, names: Iterable[str] = CAPTION_NAMES) -> tuple[str, ...]:
    """The captions of a `.json` member: the first of `names` that it has, a text or a list of texts."""
    try:
        record = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise NoCaption(ENCODING, f"byte {error.start} is no UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise NoCaption(BROKEN_JSON, str(error)[:100]) from None
    if not isinstance(record, dict):
        raise NoCaption(BROKEN_JSON, "not an object")
    return from_record(record, names)


def from_record(record: dict[str, Any], names: Iterable[str] = CAPTION_NAMES) -> tuple[str, ...]:
    """As `from_json`, of a parsed record."""
    found = next((record[name] for name in names if record.get(name) is not None), None)
    if found is None:
        raise NoCaption(MISSING_CAPTION)
    texts = found if isinstance(found, list) else [found]
    if not all(isinstance(text, str) for text in texts):
        raise NoCaption(BROKEN_JSON, "a caption is no text")
    return usable(texts)


def usable(texts: Iterable[str]) -> tuple[str, ...]:
    """The texts that are not blank, stripped."""
    kept = tuple(text.strip() for text in texts if text.strip())
    if not kept:
        raise NoCaption(EMPTY_CAPTION)
    if any(0xD800 <= ord(char) <= 0xDFFF for text in kept for char in text):
        raise NoCaption(ENCODING, "half a surrogate pair")
    return kept
