"""A folder of encoded images, so that another threshold, refinement or class list reuses their features.

What is read back is what was encoded, to the last bit. An image's entry is named by a digest of all that decides
its features: every parameter of the encoder (so also a merged adapter) with its structure, number format, kind of
device and torch's version, how the image is looked at, and the image's pixels. An entry is a folder of one
safetensors file for each view and, written last, `views.json`, which has the places of the views and a checksum
of each file: an entry that is incomplete or damaged is made again.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load, save

from ttd.encoders.base import Encoder
from ttd.encoders.features import ImageFeatures
from ttd.encoders.identity import encoder_key
from ttd.files import write_file
from ttd.files.documents import parse_json
from ttd.files.schema import any_number, count, each, fields, flag, integer, within
from ttd.inference.options import Options
from ttd.inference.views import Axis, View, encode_views, prepare

_TENSORS = ("dense", "pooled")
_EXTRA = "extras."  # before the names of what this encoder keeps besides
_SIZES = ("size", "offset", "padded")

_SIDES = each(within(1, 1 << 53, integer), 2)
_AXIS = fields(
    {"full": count, "starts": each(integer), "start": integer, "length": count, "mirrored": flag}, others=False
)
_VIEWS = each(
    fields(
        {
            "checksum": count,
            "size": _SIDES,
            "offset": each(count, 2),
            "padded": _SIDES,
            "rows": _AXIS,
            "columns": _AXIS,
            "weight": any_number,
        }
    )
)


class FeatureCache:
    """Features of one encoder, whose weights must not change while it is used.

    Args:
        folder: made where it is missing; several encoders and processes may share it. It only grows: a view takes
            4 * channels * cells bytes, so a 448-pixel window of a ViT-B/16 1.6 MB.
        encoder: makes what is not there yet.
    """

    def __init__(self, folder: Path, encoder: Encoder) -> None:
        self.folder, self.encoder = folder, encoder
        self._encoder_key = encoder_key(encoder)

    def views(self, image: Image.Image, options: Options) -> CachedViews:
        """The views of an RGB image, from the folder or encoded and kept there when they are gone through."""
        look = {**options.view, "size": options.size or self.encoder.image_size}
        digest = hashlib.sha256(json.dumps([self._encoder_key, look, image.size]).encode())
        digest.update(image.tobytes())
        name = digest.hexdigest()
        return CachedViews(self.encoder, image, options, self.folder / name[:2] / name)


class CachedViews:
    """Views of one image that are read, or else encoded, whenever they are iterated: a few at a time."""

    def __init__(self, encoder: Encoder, image: Image.Image, options: Options, entry: Path) -> None:
        self._encoder, self._image, self._options, self._entry = encoder, image, options, entry

    def __iter__(self) -> Iterator[View]:
        given = 0
        for record in self._listed():
            view = self._read(given, record)
            if view is None:
                break
            yield view
            given += 1
        else:
            if given:
                return
        for number, view in enumerate(self._encode()):
            if number >= given:
                yield view

    def _encode(self) -> Iterator[View]:
        """All views, fresh; kept once the last one is there."""
        pixels = [scaled[None] for scaled in prepare(self._image, self._encoder, self._options)]
        records = []
        for number, view in enumerate(encode_views(self._encoder, pixels, self._options, [self._image])):
            tensors = {name: getattr(view.features, name) for name in _TENSORS}
            tensors |= {_EXTRA + name: tensor for name, tensor in view.features.extras.items()}
            # Views share a batch's memory: clones, so that each file holds its own view alone.
            content = save({name: t.clone().contiguous().cpu() for name, t in tensors.items()})
            write_file(self._file(number), content)
            sizes = {name: getattr(view.features, name) for name in _SIZES}
            place = {"rows": asdict(view.rows), "columns": asdict(view.columns), "weight": view.weight}
            records.append({"checksum": zlib.crc32(content), **sizes, **place})
            yield view
        text = json.dumps(records)
        write_file(self._entry / "views.json", f"{zlib.crc32(text.encode())}\n{text}\n")

    def _listed(self) -> list[dict[str, Any]]:
        """What `views.json` says of each view; nothing where it is missing or damaged."""
        try:
            checksum, text = (self._entry / "views.json").read_text("utf-8").splitlines()
            if int(checksum) != zlib.crc32(text.encode()):
                return []
            records: list[dict[str, Any]] = parse_json(text, _VIEWS)
        except (FileNotFoundError, ValueError):
            return []
        return records

    def _read(self, number: int, record: dict[str, Any]) -> View | None:
        """The view of a file; None where the file is missing or damaged."""
        try:
            content = self._file(number).read_bytes()
        except FileNotFoundError:
            return None
        if zlib.crc32(content) != record["checksum"]:
            return None
        try:
            tensors: dict[str, Any] = {name: t.to(self._encoder.device) for name, t in load(content).items()}
        except (SafetensorError, ValueError):
            return None
        if not set(_TENSORS) <= set(tensors):
            return None
        extras = {name[len(_EXTRA) :]: tensors.pop(name) for name in list(tensors) if name.startswith(_EXTRA)}
        sizes: dict[str, Any] = {name: tuple(record[name]) for name in _SIZES}
        rows, columns = (_axis(record[name]) for name in ("rows", "columns"))
        return View(ImageFeatures(**tensors, **sizes, extras=extras), rows, columns, record["weight"])

    def _file(self, number: int) -> Path:
        return self._entry / f"{number:04d}.safetensors"


def _axis(values: dict[str, Any]) -> Axis:
    return Axis(**{**values, "starts": tuple(values["starts"])})
