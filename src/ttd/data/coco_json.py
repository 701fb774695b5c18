"""COCO's annotation files: one JSON object with images, annotations and categories."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ttd.errors import InputError


def read_coco_json(path: Path, keys: Sequence[str], advice: str = "give the official annotations") -> dict[str, Any]:
    """A file's object, which has `keys`; `advice` ends what is said of a file that has not.

    Raises:
        InputError: it does not exist, or is no such file.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist: get COCO's annotations and name their file")
    try:
        content = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError):
        raise InputError(f"{path} is not JSON, and so not a COCO file: {advice}") from None
    if not isinstance(content, dict) or any(key not in content for key in keys):
        raise InputError(f"{path} is not a COCO file with {', '.join(keys)}: {advice}")
    return content
