"""Time and memory of 1,000 and of 10,000 names: encoded in nine templates, tagged with, segmented by, measured with.

`eval tagmask`: the words of a vocabulary; `eval folder`: other names (`--synonyms`) of the 250 classes that a label map
of 8 bits holds. A CLIP of two layers on an image of 224 x 224 pixels, one core, the least of three times; each
measurement has a process of its own, and memory is what its peak exceeds that of 10 names by. Wanted: ten times as many
names take at most ten times the time and memory, and a label map of 10,000 classes no more memory than its tiles and
maps.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from speed.text_prefix import names
from tests.tiny_models import tiny_clip
from ttd.evaluation.registry import Choices, open_benchmark
from ttd.evaluation.runner import measure_all
from ttd.inference.options import Options
from ttd.model import TTD

COUNTS = (10, 1_000, 10_000)
SIDE, CLASSES, ROUNDS = 224, 250, 3
TASKS = ("encode", "tag", "segment", "eval tagmask", "eval folder")
MOST = 1.3 * COUNTS[2] / COUNTS[1]  # clocks of a machine that others use are not exact


def write_sets(root: Path, image: np.ndarray, texts: list[str]) -> None:
    """An image with a caption and a vocabulary, and one with labels and classes, in one folder."""
    for folder in ("images", "labels"):
        (root / folder).mkdir()
    Image.fromarray(image).save(root / "images/0.png")
    classes = [texts[k::CLASSES] for k in range(min(CLASSES, len(texts)))]
    labels = np.arange(SIDE * SIDE).reshape(SIDE, SIDE) % len(classes)
    Image.fromarray(labels.astype(np.uint8)).save(root / "labels/0.png")
    (root / "classes.txt").write_text("".join("; ".join(several) + "\n" for several in classes))
    (root / "vocabulary.txt").write_text("\n".join(texts) + "\n")
    row = {"id": "0", "caption": "a dog and a cat", "words": ["a", "dog", "and", "a", "cat"], "true": ["dog"]}
    (root / "tags.jsonl").write_text(json.dumps({**row, "present": texts[:2]}) + "\n")


def measure(task: str, count: int, result: multiprocessing.SimpleQueue[tuple[float, float]]) -> None:
    """Processor seconds of a task, and the process's peak in MB."""
    torch.set_num_threads(1)
    encoder, texts = tiny_clip(), names(count)
    image = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    given = {"size": SIDE, "templates": "none"}
    how, least = Options(**given), float("inf")
    TTD(encoder).tag(image, None, tags=texts[:2], options=how)  # what is slow only once
    with tempfile.TemporaryDirectory() as place:
        write_sets(Path(place), image, texts)
        for _ in range(ROUNDS):
            model = TTD(encoder)  # which remembers no text
            start = time.process_time()
            if task == "encode":
                model.encode_text(texts, "tcl9")
            elif task == "tag":
                model.tag(image, None, tags=texts, options=how)
            elif task == "segment":
                model.segment(image, texts, how)
            else:
                choices = Choices("default", given, parts=("tags",), scores=("s_pixel",), synonyms=True)
                measure_all(model, open_benchmark(task.split()[1], Path(place), choices, encoder)).result()
            least = min(least, time.process_time() - start)
    result.put((least, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def main() -> None:
    context, slow = multiprocessing.get_context("spawn"), False
    for task in TASKS:
        found = []
        for count in COUNTS:
            result = context.SimpleQueue()
            process = context.Process(target=measure, args=(task, count, result))
            process.start()
            process.join()
            found.append(result.get())
        base = found[0][1]
        parts = [
            f"{count:,} names {seconds:.2f} s, {max(0.0, peak - base):.0f} MB"
            for count, (seconds, peak) in zip(COUNTS[1:], found[1:], strict=True)
        ]
        growth = found[2][0] / found[1][0]
        print(f"{task}: {', '.join(parts)} ({growth:.1f} times the time)", flush=True)
        slow |= growth > MOST
    if slow:
        raise SystemExit("many names: time grows faster than the answer")


if __name__ == "__main__":
    main()
