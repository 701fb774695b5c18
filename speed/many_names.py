"""Time and memory of 1,000 and of 10,000 names: encoding them in nine templates, tagging with them, segmenting by them.

A CLIP of two layers on an image of 224 x 224 pixels, one core; each measurement has a process of its own, and memory is
what its peak exceeds that of 10 names by. Wanted: ten times as many names take at most ten times the time and memory,
and a label map of 10,000 classes no more memory than its tiles and maps.
"""

from __future__ import annotations

import multiprocessing
import resource
import time

import numpy as np
import torch

from speed.text_prefix import names
from tests.tiny_models import tiny_clip
from ttd.inference.options import Options
from ttd.model import TTD

COUNTS = (10, 1_000, 10_000)
SIDE = 224
TASKS = ("encode", "tag", "segment")


def measure(task: str, count: int, result: multiprocessing.SimpleQueue[tuple[float, float]]) -> None:
    """Processor seconds of a task, and the process's peak in MB."""
    torch.set_num_threads(1)
    model, texts = TTD(tiny_clip()), names(count)
    image = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    how = Options(size=SIDE, templates="none")
    model.tag(image, None, tags=texts[:2], options=how)  # what is slow only once
    start = time.process_time()
    if task == "encode":
        model.encode_text(texts, "tcl9")
    elif task == "tag":
        model.tag(image, None, tags=texts, options=how)
    else:
        model.segment(image, texts, how)
    result.put((time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def main() -> None:
    context = multiprocessing.get_context("spawn")
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
        print(f"{task}: {', '.join(parts)} ({found[2][0] / found[1][0]:.1f} times the time)", flush=True)


if __name__ == "__main__":
    main()
