"""Every stage of reading pairs against Pillow's bare decode and resize, on the same JPEGs, in turns, on one core.

Training: 448 crops; pruning: squares of 224. Photos of 640 x 480 pixels in a tar shard: COCO's (enlarged) where they
lie beside the repository, else smooth noise. Times are the processor's own. Wanted: the whole loader at least 0.8 of
bare decode + resize. The last lines: simplejpeg against Pillow, where it is installed (an extra from 1.5 on), and what
decoding at a fraction changes in scores (`mini`, where COCO's photos lie; tolerated: a twentieth of their deviation on
the average).
"""

from __future__ import annotations

import io
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import ttd
from speed.tag_throughput import CAPTIONS, COCO
from ttd.data.score_jobs import ScoreJob, centre_square
from ttd.data.sources import PairSource, decode_image
from ttd.training.augment import PIXELS, draws, normalised, random_crop
from ttd.training.config import read_config
from ttd.training.dataset import Steps

COUNT, ROUNDS, BATCH, SIDE = 64, 5, 32, 224
TOLERATED = 0.05  # of the scores' deviation, that decoding at a fraction changes on the average
MEAN = STD = (0.5, 0.5, 0.5)


def write_shard(path: Path) -> None:
    """COUNT JPEGs of 640 x 480 with captions."""
    photos = sorted(COCO.rglob("*.jpg"))[:COUNT]
    rng = np.random.default_rng(0)
    with tarfile.open(path, "w") as tar:
        for number in range(COUNT):
            if number < len(photos):
                image = Image.open(photos[number]).convert("RGB").resize((640, 480), Image.Resampling.BICUBIC)
            else:
                small = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
                image = Image.fromarray(small).resize((640, 480), Image.Resampling.BICUBIC)
            stream = io.BytesIO()
            image.save(stream, "JPEG", quality=90)
            for ending, data in (("jpg", stream.getvalue()), ("txt", CAPTIONS[number % len(CAPTIONS)].encode())):
                member = tarfile.TarInfo(f"{number:09d}.{ending}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def fastest(ways: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Least processor seconds of each way; they take turns."""
    least = dict.fromkeys(ways, float("inf"))
    for _ in range(ROUNDS):
        for name, run in ways.items():
            start = time.process_time()
            run()
            least[name] = min(least[name], time.process_time() - start)
    return least


def bare(data: bytes, size: tuple[int, int], box: tuple[float, float, float, float] | None) -> Image.Image:
    """What anyone would write: decode, resize."""
    with Image.open(io.BytesIO(data)) as image:
        return image.convert("RGB").resize(size, Image.Resampling.BICUBIC, box=box)


def training(source: PairSource, encoded: list[bytes]) -> None:
    config = read_config(None, [f"optimiser.batch={BATCH}", "data.workers=0", 'data.sources=["shard"]'])
    steps, augment = Steps(source, config), config.augment
    images = [decode_image(data, "shard", str(number)) for number, data in enumerate(encoded)]
    pairs = [source[number] for number in range(len(source))]
    samples = [steps.sample(pair, number, 0) for number, pair in enumerate(pairs)]
    batch = steps.collate(samples[:BATCH], 0)
    # The bare way makes crops of the same sizes from the same parts.
    crops = [random_crop(image, augment, draws(0, 0, number, PIXELS)).rect for number, image in enumerate(images)]
    sizes = [(right - left, bottom - top) for top, left, bottom, right in crops]
    boxes = [(0.0, 0.0, min(640.0, w * 640 / 480), min(480.0, h * 640 / 480)) for w, h in sizes]

    def crop_all() -> None:
        for number, image in enumerate(images):
            random_crop(image, augment, draws(0, 0, number, PIXELS))

    found = fastest(
        {
            "Pillow's bare decode + resize": lambda: [bare(*one) for one in zip(encoded, sizes, boxes, strict=True)],
            "read": lambda: [shard.image_bytes(row) for shard, row in map(source.shard_row, range(len(source)))],
            "decode": lambda: [decode_image(data, "shard", "key") for data in encoded],
            "crop, flip, uint8": crop_all,
            "words": lambda: [steps.sample(pair, number, 0) for number, pair in enumerate(pairs)],
            "collate": lambda: [steps.collate(samples[i : i + BATCH], 0) for i in range(0, COUNT, BATCH)],
            "normalise (on the device)": lambda: [
                normalised(batch.pixels, batch.rects, MEAN, STD) for _ in range(COUNT // BATCH)
            ],
            "the whole loader": lambda: [steps[number] for number in range(COUNT // BATCH)],
        }
    )
    found["words"] -= found["crop, flip, uint8"]
    show("training, 448 px", found)


def pruning(source: PairSource, encoded: list[bytes]) -> None:
    middle = (80.0, 0.0, 560.0, 480.0)
    images = [decode_image(data, "shard", "key") for data in encoded]
    small = [decode_image(data, "shard", "key", SIDE) for data in encoded]

    def prepared(short: int | None) -> None:
        for number in range(len(source)):
            np.asarray(centre_square(source.pair(number, short).image, SIDE))

    found = fastest(
        {
            "Pillow's bare decode + resize": lambda: [bare(data, (SIDE, SIDE), middle) for data in encoded],
            "decode": lambda: [decode_image(data, "shard", "key") for data in encoded],
            "decode at a fraction": lambda: [decode_image(data, "shard", "key", SIDE) for data in encoded],
            "square": lambda: [centre_square(image, SIDE) for image in images],
            "square of the fraction": lambda: [centre_square(image, SIDE) for image in small],
            "the whole loader, full decode": lambda: prepared(None),
            "the whole loader": lambda: prepared(SIDE),
        }
    )
    show(f"pruning, {SIDE} px", found)


def show(title: str, found: dict[str, float]) -> None:
    reference = next(iter(found.values()))
    print(f"{title}, {COUNT} JPEGs of 640 x 480, one core:")
    for name, seconds in found.items():
        rate = COUNT / max(seconds, 1e-9)
        print(f"  {name:32} {rate:9,.0f} images/s {reference / max(seconds, 1e-9):7.2f} of the bare way")


def score_difference() -> None:
    """Scores of COCO's photos, at full size and with decoding at a fraction."""
    photos = sorted(COCO.rglob("*.jpg"))
    if not photos:
        return
    encoder = ttd.load("mini").encoder
    for size in (encoder.pruning_size, 64):
        job, scores, scaled = ScoreJob(encoder, size=size), ([], []), 0
        for start in range(0, len(photos), BATCH):
            part = [path.read_bytes() for path in photos[start : start + BATCH]]
            captions = [(CAPTIONS[(start + n) % len(CAPTIONS)],) for n in range(len(part))]
            whole = [decode_image(data, "coco", "key") for data in part]
            drafts = [decode_image(data, "coco", "key", size) for data in part]
            scaled += sum(a.size != b.size for a, b in zip(whole, drafts, strict=True))
            for found, images in zip(scores, (whole, drafts), strict=True):
                found += job.score([np.asarray(centre_square(one, size)) for one in images], captions).tolist()
        full, draft = map(np.array, scores)
        apart = np.abs(full - draft)
        moved = int(((full > full.mean() + full.std()) != (draft > draft.mean() + draft.std())).sum())
        print(
            f"decoding at a fraction, mini at {size} px, {scaled} of {len(photos)} photos: scores differ by "
            f"{apart.max():.4f} at most, {apart.mean():.4f} on average (their deviation: {full.std():.3f}); "
            f"{moved} pairs change sides of mean + deviation"
        )
        if apart.mean() > TOLERATED * full.std():
            raise SystemExit("decoding at a fraction changes scores by more than is tolerated")


def decoders(encoded: list[bytes]) -> None:
    """simplejpeg in place of Pillow's decoder: alone, and in what training and pruning do with an image."""
    try:
        import simplejpeg
    except ImportError:
        return

    def pillow(data: bytes, short: int | None = None) -> Image.Image:
        return decode_image(data, "shard", "key", short)

    def turbo(data: bytes, short: int = 0) -> Image.Image:
        return Image.fromarray(simplejpeg.decode_jpeg(data, "RGB", min_height=short, min_width=short, min_factor=1))

    if any(np.asarray(pillow(data)).tobytes() != np.asarray(turbo(data)).tobytes() for data in encoded):
        print("decoders: the pixels differ")
    augment = read_config(None, ['data.sources=["shard"]']).augment
    ways: dict[str, Callable[[], object]] = {}
    for name, decode in (("Pillow", pillow), ("simplejpeg", turbo)):
        ways[f"{name}: decode"] = lambda decode=decode: [decode(data) for data in encoded]
        ways[f"{name}: training's crop"] = lambda decode=decode: [
            random_crop(decode(data), augment, draws(0, 0, number, PIXELS)) for number, data in enumerate(encoded)
        ]
        ways[f"{name}: pruning's square"] = lambda decode=decode: [
            np.asarray(centre_square(decode(data, SIDE), SIDE)) for data in encoded
        ]
    found = fastest(ways)
    parts = [
        f"{what} {found[f'Pillow: {what}'] / found[f'simplejpeg: {what}']:.2f}"
        for what in ("decode", "training's crop", "pruning's square")
    ]
    print(f"simplejpeg, times as fast as Pillow: {', '.join(parts)} (an extra from 1.5 on)")


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        write_shard(Path(folder) / "shard.tar")
        source = PairSource(Path(folder) / "shard.tar")
        encoded = [shard.image_bytes(row) for shard, row in map(source.shard_row, range(len(source)))]
        training(source, encoded)
        pruning(source, encoded)
        decoders(encoded)
    score_difference()


if __name__ == "__main__":
    main()
