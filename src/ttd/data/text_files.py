"""The encoding of text files: UTF-8, or what the byte order mark at their beginning says."""

from __future__ import annotations

import codecs

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def encoding_of(beginning: bytes) -> str:
    """The name of the codec for a text that begins so; it leaves the mark out."""
    return next((name for mark, name in _MARKS if beginning.startswith(mark)), "utf-8")


def decoded(data: bytes) -> str:
    """A whole text file's text.

    Raises:
        UnicodeError: it is in no encoding that is known, UTF-16 without a mark included.
    """
    text = data.decode(encoding_of(data))
    if text.count("\0") * 4 > len(text):  # every other byte of UTF-16
        raise UnicodeError(f"character {text.index(chr(0))} is NUL: UTF-16 without a byte order mark?")
    return text
