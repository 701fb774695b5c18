"""COCO's annotation files: one JSON object with images, annotations and categories."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ttd.errors import InputError
from ttd.files.documents import read_json
from ttd.files.schema import any_text, each, either, fields, integer, text, within

_MOST_BYTES = 1 << 33
_NUMBER = either(integer, text)
_SIDE = within(1, 1 << 16, integer)
_ENTRIES = {
    "images": fields({}, {"id": _NUMBER, "file_name": any_text, "height": _SIDE, "width": _SIDE}),
    "annotations": fields({}, {"id": _NUMBER, "image_id": _NUMBER, "category_id": _NUMBER}),
    "categories": fields({}, {"id": _NUMBER, "name": text}),
}


def read_coco_json(path: Path, keys: Sequence[str], advice: str = "give COCO's official annotations") -> dict[str, Any]:
    """A file's object, which has `keys`, lists of objects; `advice` ends what is said of a file that has not.

    Raises:
        InputError: it does not exist, or is no such file.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist: get COCO's annotations and name their file")
    schema = fields({key: each(_ENTRIES[key]) for key in keys})
    content: dict[str, Any] = read_json(path, schema, remedy=advice, most=_MOST_BYTES, nan=True)
    return content
