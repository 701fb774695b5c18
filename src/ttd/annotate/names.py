"""File names for ids and words: safe on every file system, and different for different texts."""

from __future__ import annotations

import hashlib
import re

_MOST_BYTES = 120
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?")


def item_id(shard: str, key: str, caption: int | None = None) -> str:
    """The id of a pair: the readable part of its key, and a digest of shard, key and number of the caption.

    It depends on nothing else, so it stays the same when data are added, and for another annotator of the same data.
    """
    place = f"{shard}\0{key}" if caption is None else f"{shard}\0{key}\0{caption}"
    digest = hashlib.sha256(place.encode("utf-8", "surrogatepass")).hexdigest()[:10]
    last = re.split(r"[/\\]", key)[-1]
    stem = last.rsplit(".", 1)[0] or last
    readable = re.sub(r"[^A-Za-z0-9]+", "-", stem).strip("-")[:60]
    return f"{readable or 'item'}-{digest}"


def word_file(word: str) -> str:
    """The name, without its ending, of the file of a word's mask.

    Letters and digits of any script, "-", "_" and "'" stay; everything else becomes %XX as in a web address. A name
    that is too long for a file system ends in a digest.
    """
    text = word.lower()
    name = "".join(char if char.isalnum() or char in "-_'" else _percent(char) for char in text)
    if _RESERVED.fullmatch(name):  # Windows knows these as devices
        name = _percent(name[0]) + name[1:]
    if len(name.encode("utf-8", "surrogatepass")) <= _MOST_BYTES:
        return name
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:10]
    return f"{name[:20]}-{digest}"


def _percent(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogatepass"))
