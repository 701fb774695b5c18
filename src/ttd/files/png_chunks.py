"""The chunks of a PNG file: damaged metadata must not prevent reading the pixels.

Pillow refuses a file whose texts or colour profile are larger than 1 MB, or whose texts have a wrong checksum, though
the pixels are whole.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Besides the critical ones (upper case): transparency decides pixels, EXIF the orientation, sBIT the range.
_KEPT = frozenset({b"tRNS", b"eXIf", b"sBIT"})


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """The kind, the content and the whole of each chunk, as far as they are complete."""
    at = len(SIGNATURE)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        end = at + 12 + length
        if end > len(data):
            return
        yield data[at + 4 : at + 8], data[at + 8 : end - 4], data[at:end]
        at = end


def pixels_alone(data: bytes) -> bytes:
    """A PNG file without texts, profiles and whatever else decides no pixel; EXIF with a wrong checksum goes too."""
    kept = [SIGNATURE]
    for kind, content, whole in chunks(data):
        critical = kind[:1].isupper()
        right = struct.pack(">I", zlib.crc32(kind + content)) == whole[-4:]
        if critical or (kind in _KEPT and (right or kind == b"tRNS")):
            kept.append(whole)
    return b"".join(kept)


def significant_bits(data: bytes) -> tuple[int, ...]:
    """What sBIT says: how many bits of each channel count; none where the file does not say so.

    Args:
        data: the beginning of a PNG file, up to its pixels.
    """
    for kind, content, _ in chunks(data):
        if kind == b"sBIT":
            return tuple(content)
        if kind in (b"IDAT", b"PLTE"):
            break
    return ()
