"""How `mini` tells the drawings that it learned from from other images: fits the rule, and measures it on others.

    python -m tools.domain [--data ../shared/data] [--write]

Tuned on the COCO train photos in DATA (as they are, grey, as JPEG of quality 30, four square parts of each) and on
scenes 0 to 999 of the train split (as they are, JPEG of quality 75, enlarged four times); measured on everything else.
`--write` replaces the rule in the package.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import ttd
from ttd.encoders.domain import Domain, read_domain, statistics, write_domain
from ttd.scenes import Scenes

RULE = Path(ttd.__file__).parent / "assets" / "mini" / "domain.json"
PAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
NAME, REMEDY = "drawn scenes", "For photographs: --model clip-vit-b16"
STRENGTH = 0.3  # scikit-learn's C


def grey(image: Image.Image) -> Image.Image:
    return image.convert("L").convert("RGB")


def jpeg(image: Image.Image, quality: int = 75) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream).convert("RGB")


def enlarged(image: Image.Image) -> Image.Image:
    return image.resize((image.width * 4, image.height * 4), Image.Resampling.BICUBIC)


def square(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A random square part, of 0.4 to 1 of the shorter side."""
    side = int(min(image.size) * rng.uniform(0.4, 1))
    left, top = (int(rng.integers(0, length - side + 1)) for length in image.size)
    return image.crop((left, top, left + side, top + side))


def photos(folder: Path) -> Iterator[Image.Image]:
    for path in sorted(folder.rglob("*.jpg")):
        yield Image.open(path).convert("RGB")


def scenes(split: str, count: int) -> Iterator[Image.Image]:
    drawn = Scenes(split)
    return (Image.fromarray(drawn[number].image) for number in range(count))


def rows(images: Iterable[Image.Image], *changes: Callable[[Image.Image], Image.Image]) -> NDArray[np.float64]:
    """The statistics of all images, changed in every way (or as they are)."""
    kept = list(images)
    return np.stack([statistics(change(image)) for change in changes or (lambda one: one,) for image in kept])


def fit(data: Path) -> Domain:
    rng = np.random.default_rng(0)
    outside = rows(
        photos(data / "coco/images/train2017"),
        lambda one: one, grey, lambda one: jpeg(one, 30), *[lambda one: square(one, rng)] * 4,
    )  # fmt: skip
    inside = rows(scenes("train", 1000), lambda one: one, jpeg, enlarged)
    both = np.concatenate([inside, outside])
    scaler = StandardScaler().fit(both)
    found = LogisticRegression(C=STRENGTH, class_weight="balanced", max_iter=10_000)
    found.fit(scaler.transform(both), [0] * len(inside) + [1] * len(outside))
    weights = found.coef_[0] / scaler.scale_
    bias = float(found.intercept_[0] - weights @ scaler.mean_)
    return Domain(NAME, REMEDY, tuple(round(float(weight), 5) for weight in weights), round(bias, 4))


def report(domain: Domain, data: Path, count: int) -> None:
    """One line for each group: how many of its images the rule calls other than the scenes."""
    rng = np.random.default_rng(1)
    val, voc = data / "coco/images/val2017", data / "voc"
    groups: dict[str, tuple[bool, Iterable[Image.Image]]] = {
        "COCO val photos": (True, photos(val)),
        "VOC photos": (True, photos(voc)),
        "COCO val photos, grey": (True, map(grey, photos(val))),
        "COCO val photos, square parts": (True, (square(one, rng) for one in photos(val))),
        "VOC photos, JPEG of quality 30": (True, (jpeg(one, 30) for one in photos(voc))),
        "screenshots of this page": (
            True,
            (Image.open(path).convert("RGB") for path in sorted(PAGES.glob("app-*.png"))),
        ),
    }
    for split in ("validation", "test"):
        groups[f"scenes, {split}"] = False, scenes(split, count)
        groups[f"scenes, {split}, JPEG of quality 75"] = False, map(jpeg, scenes(split, count))
        groups[f"scenes, {split}, enlarged 4 times"] = False, map(enlarged, scenes(split, count))
    groups["scenes, test, grey (mini never saw grey ones)"] = False, map(grey, scenes("test", count))
    for name, (other, images) in groups.items():
        called = [domain.distance(image) > 0 for image in images]
        wrong = sum(one != other for one in called)
        print(f"{name:48} {len(called):5} images, {wrong:4} wrong ({wrong / len(called):.1%})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--count", type=int, default=500, help="scenes in each group that is measured")
    parser.add_argument("--write", action="store_true", help="replace the rule in the package")
    given = parser.parse_args()
    if given.write:
        write_domain(RULE, fit(given.data))
    report(read_domain(RULE), given.data, given.count)


if __name__ == "__main__":
    main()
