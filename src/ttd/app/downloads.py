"""Answers as files: label map, overlay, JSON, COCO's run lengths, and the overlay as SVG or PDF for a paper."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from ttd import __version__
from ttd.app.answers import PageDownload
from ttd.errors import InputError
from ttd.results import Segmentation
from ttd.viz.figures import labelled_figure
from ttd.viz.overlays import label_overlay, label_png


@dataclass(frozen=True)
class Download:
    """A kind of file.

    Attributes:
        name: of the file.
        media_type: as a browser knows it.
        content: makes it from an answer and the opacity of the colours, 0..1.
    """

    name: str
    media_type: str
    content: Callable[[PageDownload, float], bytes]


def _segmentation(found: PageDownload) -> Segmentation:
    if found.segmentation is None:
        raise InputError("There is nothing to download: no word was chosen, so write the tags to segment by.")
    return found.segmentation


def _labels(found: PageDownload, opacity: float) -> bytes:
    """The label map at the image's own size: the pixel's value is its label, named in the JSON."""
    labels = _segmentation(found)
    return _png(label_png(labels.label_map, background=labels.background is not None))


def _overlay(found: PageDownload, opacity: float) -> bytes:
    """The image with the classes over it, and their legend."""
    labels = _segmentation(found)
    background = labels.background is not None
    drawn = label_overlay(
        found.image, labels.label_map, labels.names, background=background, opacity=opacity, enlarge=True
    )
    return _png(drawn)


def _record(found: PageDownload, opacity: float) -> bytes:
    """Words, scores, classes, the fraction of pixels of each, and the settings."""
    return _json({"ttd": __version__, **found.record})


def _coco(found: PageDownload, opacity: float) -> bytes:
    """A data set of one image in COCO's layout, its masks as run lengths."""
    labels = _segmentation(found)
    height, width = labels.label_map.shape
    annotations = labels.to_coco(1)
    categories = {one["category_id"]: one.pop("category") for one in annotations}
    rows = [{"id": number, "iscrowd": 0, **one} for number, one in enumerate(annotations, 1)]
    return _json(
        {
            "info": {"description": f"ttd {__version__}", "settings": found.record["settings"]},
            "images": [{"id": 1, "file_name": found.name, "height": height, "width": width}],
            "annotations": rows,
            "categories": [{"id": number, "name": name} for number, name in categories.items()],
        }
    )


def _figure(kind: str) -> Callable[[PageDownload, float], bytes]:
    def drawn(found: PageDownload, opacity: float) -> bytes:
        labels = _segmentation(found)
        background = labels.background is not None
        return labelled_figure(
            found.image, labels.label_map, labels.names, background=background, opacity=opacity, kind=kind
        )

    return drawn


DOWNLOADS: Mapping[str, Download] = {
    "Label PNG": Download("ttd-labels.png", "image/png", _labels),
    "Overlay": Download("ttd-overlay.png", "image/png", _overlay),
    "JSON": Download("ttd.json", "application/json", _record),
    "COCO JSON": Download("ttd-coco.json", "application/json", _coco),
    "SVG": Download("ttd.svg", "image/svg+xml", _figure("svg")),
    "PDF": Download("ttd.pdf", "application/pdf", _figure("pdf")),
}


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "replace")


def _png(image: Image.Image) -> bytes:
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()
