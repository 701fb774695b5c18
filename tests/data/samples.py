"""Tiny shards for tests: colourful images, captions that name them."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "grey": (128, 128, 128)}


def image(number: int, side: int = 24, kind: str = "PNG") -> bytes:
    """An image whose first pixel tells its number; mostly the colour `number % 4`."""
    colour = list(COLOURS.values())[number % len(COLOURS)]
    pixels = np.full((side, side, 3), colour, np.uint8)
    pixels[0, 0] = (number // 65536 % 256, number // 256 % 256, number % 256)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def number_of(image: Image.Image) -> int:
    """The number that `image` hid (PNG only)."""
    red, green, blue = np.asarray(image)[0, 0].tolist()
    return int(red * 65536 + green * 256 + blue)


def caption(number: int) -> str:
    return f"a {list(COLOURS)[number % len(COLOURS)]} image number {number}"


def write_colour_shards(folder: Path, each: int, wrong: Callable[[int], bool]) -> None:
    """Five shards of `each` pairs "a COLOUR thing"; where `wrong(number)` it is the next colour. Image 13 is broken."""
    names = list(COLOURS)
    for shard in range(5):
        samples = {}
        for number in range(shard * each, (shard + 1) * each):
            data = b"no" if number == 13 else image(number)
            text = f"a {names[(number + wrong(number)) % len(names)]} thing"
            samples[f"{number:09d}"] = {"png": data, "txt": text.encode()}
        write_tar(folder / f"{shard:05d}.tar", samples)


def sample(number: int) -> dict[str, bytes]:
    """Members by suffix."""
    return {"png": image(number), "txt": caption(number).encode(), "json": json_bytes({"url": "x" * 300})}


def write_tar(path: Path, samples: Mapping[str, Mapping[str, bytes]]) -> Path:
    """A shard with these samples, their members one after the other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for key, members in samples.items():
            for suffix, data in members.items():
                info = tarfile.TarInfo(f"{key}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path


def write_shards(folder: Path, sizes: Iterable[int]) -> list[Path]:
    """`00000.tar` ... with samples numbered through."""
    paths, first = [], 0
    for i, size in enumerate(sizes):
        samples = {f"{n:09d}": sample(n) for n in range(first, first + size)}
        paths.append(write_tar(folder / f"{i:05d}.tar", samples))
        first += size
    return paths


def json_bytes(value: object) -> bytes:
    return json.dumps(value).encode()
