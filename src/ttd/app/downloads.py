"""What a visitor takes away, as the bytes of one file."""

from __future__ import annotations

import io
import json
from collections.abc import Callable

from PIL import Image

from ttd._version import __version__
from ttd.app.answers import Download
from ttd.errors import InputError
from ttd.pictures import label_overlay, label_png


def label_file(found: Download, opacity: float) -> tuple[str, bytes]:
    """The label map at the picture's own size: the pixel's value is its label, named in the JSON."""
    if found.segmentation is None:
        raise InputError("There is nothing to download: no word was chosen, so write the tags to segment by.")
    behind = found.segmentation.background is not None
    return "ttd-labels.png", _png(label_png(found.segmentation.label_map, background=behind))


def overlay_file(found: Download, opacity: float) -> tuple[str, bytes]:
    """The picture with the classes over it at `opacity` (0..1), and their legend."""
    segmentation = found.segmentation
    if segmentation is None:
        raise InputError("There is nothing to download: no word was chosen, so write the tags to segment by.")
    behind = segmentation.background is not None
    drawn = label_overlay(
        found.picture, segmentation.label_map, segmentation.names, background=behind, opacity=opacity, enlarge=True
    )
    return "ttd-overlay.png", _png(drawn)


def record_file(found: Download, opacity: float) -> tuple[str, bytes]:
    """Words, scores, classes and their shares, and the settings they come from."""
    written = json.dumps({"ttd": __version__, **found.record}, indent=1, ensure_ascii=False)
    return "ttd.json", (written + "\n").encode("utf-8", "replace")


FILES: dict[str, Callable[[Download, float], tuple[str, bytes]]] = {
    "Label PNG": label_file,
    "Overlay": overlay_file,
    "JSON": record_file,
}


def _png(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.save(data, "PNG")
    return data.getvalue()
