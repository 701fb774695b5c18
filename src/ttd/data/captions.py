"""Bytes and JSON records -> the captions of a pair, or the reason why there are none."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ttd.data.bad_samples import BROKEN_JSON, EMPTY_CAPTION, ENCODING, MISSING_CAPTION
from ttd.data.rows import decoded
from ttd.files.documents import parse_json
from ttd.files.schema import Misfit

CAPTION_NAMES = ("captions", "caption", "text", "title")


class NoCaption(Exception):
    """The reason (one of `ttd.data.bad_samples.REASONS`) why a text gives no caption."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


def from_text(data: bytes) -> tuple[str, ...]:
    """The one caption of a `.txt` file: all of it, blanks around it removed; UTF-8 or what its mark says."""
    return usable([_decoded(data)])


def from_json(data: bytes, names: Iterable[str] = CAPTION_NAMES) -> tuple[str, ...]:
    """The captions of a `.json` member: the first of `names` that it has, a text or a list of texts."""
    try:
        record = parse_json(_decoded(data), nan=True)
    except Misfit as error:
        raise NoCaption(BROKEN_JSON, str(error)[:100]) from None
    if not isinstance(record, dict):
        raise NoCaption(BROKEN_JSON, "not an object")
    return from_record(record, names)


def from_record(record: dict[str, Any], names: Iterable[str] = CAPTION_NAMES) -> tuple[str, ...]:
    """As `from_json`, of a parsed record."""
    found = next((record[name] for name in names if record.get(name) is not None), None)
    if found is None:
        raise NoCaption(MISSING_CAPTION)
    texts = texts_of(found)
    if texts is None:
        raise NoCaption(BROKEN_JSON, "a caption is no text")
    return usable(texts)


def texts_of(value: Any) -> list[str] | None:
    """A text, or a list of texts, as a list; None where it is anything else."""
    texts = value if isinstance(value, list) else [value]
    return texts if all(isinstance(text, str) for text in texts) else None


def _decoded(data: bytes) -> str:
    try:
        return decoded(data)
    except UnicodeDecodeError as error:
        raise NoCaption(ENCODING, f"byte {error.start} is no {error.encoding.upper()}") from None
    except UnicodeError as error:
        raise NoCaption(ENCODING, str(error)) from None


def usable(texts: Iterable[str]) -> tuple[str, ...]:
    """The texts that are not blank, stripped."""
    kept = tuple(text.strip() for text in texts if text.strip())
    if not kept:
        raise NoCaption(EMPTY_CAPTION)
    if any("\0" in text for text in kept):
        raise NoCaption(ENCODING, "it holds NUL: UTF-16 that was read as UTF-8?")
    if any(0xD800 <= ord(char) <= 0xDFFF for text in kept for char in text):
        raise NoCaption(ENCODING, "half a surrogate pair")
    return kept
