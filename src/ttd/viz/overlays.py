"""Single images: heat over a photo, a mask, classes with a legend, label maps as indexed PNGs.

Colours are those that people with any colour vision can tell apart. Every function takes arrays and gives a
`PIL.Image`; only `save_png` touches the disk. What is made to be looked at is bounded to `SIDE` pixels on its longer
side; label maps and masks keep their size.
"""

from __future__ import annotations

import base64
import colorsys
import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from ttd.errors import InputError
from ttd.files import whole_file
from ttd.viz.typography import FAINT, INK, PAPER, fitted, font

# Okabe and Ito's eight, without black (the background) and with the strongest first.
_OKABE_ITO = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (213, 94, 0),
    (0, 114, 178),
    (204, 121, 167),
)


@lru_cache(maxsize=4)
def scale(name: str = "viridis") -> npt.NDArray[np.uint8]:
    """[256,3]: matplotlib's perceptually uniform colour scale `name` ("viridis", "cividis", "inferno",
    ...).
    """
    import matplotlib

    return (matplotlib.colormaps[name](np.arange(256))[:, :3] * 255).round().astype(np.uint8)


def colour_values(values: npt.ArrayLike, name: str = "viridis") -> npt.NDArray[np.uint8]:
    """Colours [...,3] of `values` in 0..1 (clipped; a value that is not a number counts as 0)."""
    clipped = np.clip(np.nan_to_num(np.asarray(values, dtype=np.float32), nan=0.0), 0.0, 1.0)
    return scale(name)[(clipped * 255).round().astype(np.uint8)]


def class_colours(number: int) -> npt.NDArray[np.uint8]:
    """[number,3]: Okabe and Ito's palette, then colours that step around the hues by the golden angle."""
    rows = list(_OKABE_ITO[:number])
    for index in range(len(rows), number):
        lightness = (0.35, 0.5, 0.68)[index % 3]
        colour = colorsys.hls_to_rgb(index * 0.61803398875 % 1.0, lightness, 0.65)
        rows.append((round(colour[0] * 255), round(colour[1] * 255), round(colour[2] * 255)))
    return np.array(rows, dtype=np.uint8).reshape(number, 3)


SIDE = 1024


def bounded(image: Image.Image, side: int = SIDE, *, enlarge: bool = False) -> Image.Image:
    """`image` in RGB with its longer side at most `side` pixels (exactly `side` with `enlarge`), at least 1
    each.
    """
    factor = side / max(image.size)
    if factor < 1 or (enlarge and factor > 1):
        width, height = (max(1, round(length * factor)) for length in image.size)
        # Reducing by whole steps first keeps an image of 178 megapixels fast.
        image = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)
    return image.convert("RGB")


def on_grid(values: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """[H,W] resized bilinearly to `size` = (width, height)."""
    if values.shape == (size[1], size[0]):
        return values
    grid = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    return np.asarray(grid.resize(size, Image.Resampling.BILINEAR), dtype=np.float32)


def labels_on_grid(labels: npt.NDArray[np.integer], size: tuple[int, int]) -> npt.NDArray[np.int64]:
    """[h,w] whole numbers picked for `size` = (width, height) by the nearest pixel."""
    rows = np.minimum((np.arange(size[1]) + 0.5) * labels.shape[0] / size[1], labels.shape[0] - 1).astype(int)
    columns = np.minimum((np.arange(size[0]) + 0.5) * labels.shape[1] / size[0], labels.shape[1] - 1).astype(int)
    picked: npt.NDArray[np.int64] = labels[rows[:, None], columns[None, :]].astype(np.int64)
    return picked


def _grey(image: Image.Image) -> npt.NDArray[np.float32]:
    """[H,W,3]: the photo without its colours, so that only the layer above carries colour."""
    return np.asarray(image.convert("L").convert("RGB"), dtype=np.float32)


def _to_image(values: npt.NDArray[np.float32]) -> Image.Image:
    return Image.fromarray(values.round().clip(0, 255).astype(np.uint8))


def heatmap_overlay(
    image: Image.Image,
    heat: npt.NDArray[np.float32],
    *,
    strength: float = 0.6,
    side: int = SIDE,
    enlarge: bool = False,
) -> Image.Image:
    """The map `heat` [h,w] in 0..1 (any grid) in viridis over the greyed photo; `strength` 0..1 is the
    layer's opacity.
    """
    photo = bounded(image, side, enlarge=enlarge)
    colours = colour_values(on_grid(heat, photo.size)).astype(np.float32)
    return _to_image((1 - strength) * _grey(photo) + strength * colours)


def mask_overlay(
    image: Image.Image, mask: npt.NDArray[np.bool_], *, side: int = SIDE, enlarge: bool = False
) -> Image.Image:
    """The photo where `mask` [h,w] holds; elsewhere greyed and darkened, with an orange line between."""
    photo = bounded(image, side, enlarge=enlarge)
    inside = labels_on_grid(mask.astype(np.uint8), photo.size).astype(bool)
    pixels = np.where(inside[..., None], np.asarray(photo, dtype=np.float32), _grey(photo) * 0.35)
    pixels[_edges(inside.astype(np.int64), max(1, max(photo.size) // 400))] = class_colours(1)[0]
    return _to_image(pixels)


def _edges(labels: npt.NDArray[np.int64], width: int) -> npt.NDArray[np.bool_]:
    """[H,W]: pixels whose right or lower neighbour carries another label, `width` pixels thick."""
    edge = np.zeros(labels.shape, dtype=bool)
    edge[:, :-1] |= labels[:, 1:] != labels[:, :-1]
    edge[:-1] |= labels[1:] != labels[:-1]
    for _ in range(width - 1):
        edge[:, 1:] |= edge[:, :-1].copy()
        edge[1:] |= edge[:-1].copy()
    return edge


def label_overlay(
    image: Image.Image,
    labels: npt.NDArray[np.integer],
    names: Sequence[str],
    *,
    background: bool,
    opacity: float = 0.6,
    legend: int = 60,
    side: int = SIDE,
    enlarge: bool = False,
) -> Image.Image:
    """Classes as colours over the greyed photo, with a legend of the `legend` largest ones and their share
    of the image (0: none).

    `labels` [h,w] index `names`; with `background`, label 0 is left as the photo and has no place in the
    legend. `opacity` 0..1 is that of the colours.
    """
    photo = bounded(image, side, enlarge=enlarge)
    drawn = labels_on_grid(labels, photo.size)
    palette = _palette(len(names), background).astype(np.float32)
    layer = (1 - opacity) * _grey(photo) + opacity * palette[drawn]
    pixels = np.where(((drawn == 0) & background)[..., None], np.asarray(photo, dtype=np.float32), layer)
    pixels[_edges(drawn, 1)] = 255
    overlay = _to_image(pixels)
    if not legend:
        return overlay
    share = np.bincount(labels.ravel().astype(np.int64), minlength=len(names)) / max(labels.size, 1)
    order = [i for i in np.argsort(-share, kind="stable") if share[i] > 0 and not (background and i == 0)]
    return side_by_side([overlay, _legend([(names[i], float(share[i]), palette[i]) for i in order], legend)])


def _legend(rows: Sequence[tuple[str, float, npt.NDArray[np.float32]]], most: int, *, width: int = 260) -> Image.Image:
    """A column of coloured squares with a name and a share of the image each."""
    height = 26
    listed = rows[:most]
    more = len(rows) - len(listed)
    page = Image.new("RGB", (width, height * max(1, len(listed) + (more > 0)) + 12), PAPER)
    draw = ImageDraw.Draw(page)
    for number, (name, share, colour) in enumerate(listed):
        y = 6 + number * height
        fill = (int(colour[0]), int(colour[1]), int(colour[2]))
        draw.rectangle((10, y + 3, 28, y + 21), fill=fill, outline=INK)
        draw.text((38, y + 3), fitted(name, font(15), width - 38 - 58), font=font(15), fill=INK)
        draw.text((width - 8, y + 4), f"{share:.1%}", font=font(13), fill=FAINT, anchor="ra")
    if more or not listed:
        note = f"… and {more} more" if more else "no class found here"
        draw.text((10, 6 + len(listed) * height), note, font=font(15), fill=FAINT)
    return page


def side_by_side(images: Sequence[Image.Image], gap: int = 10) -> Image.Image:
    """Images on white, from left to right, aligned at the top."""
    width = sum(image.width for image in images) + gap * (len(images) - 1)
    page = Image.new("RGB", (width, max(image.height for image in images)), PAPER)
    x = 0
    for image in images:
        page.paste(image, (x, 0))
        x += image.width + gap
    return page


def stack(images: Sequence[Image.Image]) -> Image.Image:
    """Images on white, one under the other, aligned at the left."""
    page = Image.new("RGB", (max(p.width for p in images), sum(p.height for p in images)), PAPER)
    y = 0
    for image in images:
        page.paste(image, (0, y))
        y += image.height
    return page


def _palette(number: int, background: bool) -> npt.NDArray[np.uint8]:
    """[number,3]: black for a background, then the classes' colours."""
    if not background:
        return class_colours(number)
    return np.concatenate([np.zeros((1, 3), dtype=np.uint8), class_colours(max(0, number - 1))])


def label_png(labels: npt.NDArray[np.integer], *, background: bool = True) -> Image.Image:
    """A label map as data: the pixel's value is its label.

    Up to 256 labels an indexed PNG with a palette, beyond that 16-bit grey (at most 65,536).
    """
    highest = int(labels.max(initial=0))
    if int(labels.min(initial=0)) < 0 or highest > 65535:
        raise InputError(f"A label map holds labels from 0 to 65535, not {highest}; use fewer classes.")
    if highest > 255:
        return Image.fromarray(np.ascontiguousarray(labels, dtype=np.uint16))
    image = Image.fromarray(np.ascontiguousarray(labels, dtype=np.uint8))
    image.putpalette(_palette(256, background).tobytes())
    return image


def mask_png(mask: npt.NDArray[np.bool_]) -> Image.Image:
    """A mask [H,W] as data: 255 inside, 0 outside."""
    return Image.fromarray(np.ascontiguousarray(mask, dtype=np.uint8) * np.uint8(255))


def save_png(image: Image.Image, path: str | Path) -> None:
    """Writes `image` as a PNG, whole or not at all; missing folders are made."""
    with whole_file(path) as part:
        image.save(part, format="PNG")


def inline_image(image: Image.Image | Path) -> str:
    """An image as a data address: JPEG of an image in memory, a PNG file as it is."""
    if isinstance(image, Path):
        return "data:image/png;base64," + base64.b64encode(image.read_bytes()).decode()
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=88, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
