"""Text in images: the font, cutting to a width, wrapping a line of coloured words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ttd.text.words import printable

Colour = tuple[int, int, int]
INK: Colour = (20, 20, 20)
PAPER: Colour = (255, 255, 255)
FAINT: Colour = (110, 110, 110)
LONGEST = 300  # characters of one word that are measured at all: measuring is linear in the length


@dataclass(frozen=True)
class Chip:
    """One word of a line: `background` colours the box behind it, `marked` underlines and thickens it,
    `space` says whether white space stands before it."""

    text: str
    background: Colour | None = None
    marked: bool = False
    space: bool = True


@lru_cache(maxsize=32)
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans as matplotlib ships it (found without importing matplotlib)."""
    spec = find_spec("matplotlib")
    assert spec is not None  # a dependency of this package
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf"
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    # Raqm, where Pillow has it, shapes some damaged strings differently from machine to machine.
    return ImageFont.truetype(str(folder / name), size, layout_engine=ImageFont.Layout.BASIC)


def fitted(text: str, face: ImageFont.FreeTypeFont, width: float) -> str:
    """`text`, shortened with an ellipsis where it is wider than `width` pixels."""
    text = printable(text)
    if len(text) <= LONGEST and face.getlength(text) <= width:
        return text
    low, high = 0, min(len(text), LONGEST)
    while low < high:
        middle = (low + high + 1) // 2
        if face.getlength(text[:middle] + "…") <= width:
            low = middle
        else:
            high = middle - 1
    return text[:low] + "…"


def ink_on(background: Colour) -> Colour:
    """Black or white, whichever is easier to read on `background` (relative luminance, sRGB weights)."""
    red, green, blue = background
    return INK if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 130 else PAPER


@dataclass(frozen=True)
class _Placed:
    chip: Chip
    text: str
    x: float
    line: int


def _place(chips: Sequence[Chip], size: int, width: int, lines: int) -> tuple[list[_Placed], int]:
    """Where each chip goes, and how many of them found no room in `lines` lines."""
    gap = font(size).getlength(" ")
    hang = size  # room for a full stop or a comma, which should not begin a line
    placed: list[_Placed] = []
    x, line = 0.0, 0
    for number, chip in enumerate(chips):
        face = font(size, chip.marked)
        text = fitted(chip.text, face, width)
        length = face.getlength(text)
        if x > 0:
            x += gap + 3 if chip.space else 1
            if x + length > width - (hang if chip.space else 0):
                x, line = 0.0, line + 1
                if line == lines:
                    return placed, len(chips) - number
        placed.append(_Placed(chip, text, x, line))
        x += length
    return placed, 0


def paragraph(chips: Sequence[Chip], width: int, *, size: int = 18, lines: int = 12) -> Image.Image:
    """A paragraph of coloured words, wrapped at `width` pixels; past `lines` lines a note says how many
    words are left.
    """
    placed, left = _place(chips, size, width, lines)
    height = round(size * 1.75)
    rows = (placed[-1].line + 1 if placed else 1) + (1 if left else 0)
    page = Image.new("RGB", (width, rows * height), PAPER)
    draw = ImageDraw.Draw(page)
    for item in placed:
        face = font(size, item.chip.marked)
        y = item.line * height + (height - size) / 2
        end = item.x + face.getlength(item.text)
        colour = INK
        if item.chip.background is not None:
            box = (item.x - 2, y - 3, end + 2, y + size + 5)
            draw.rounded_rectangle(box, radius=3, fill=item.chip.background)
            colour = ink_on(item.chip.background)
        draw.text((item.x, y - size * 0.1), item.text, font=face, fill=colour)
        if item.chip.marked:
            draw.line((item.x, y + size + 6, end, y + size + 6), fill=INK, width=2)
    if left:
        draw.text((0, (rows - 1) * height + 4), f"… and {left} more words", font=font(size), fill=FAINT)
    return page
