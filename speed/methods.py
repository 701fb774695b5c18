"""Every method beside MaskCLIP: time per image, and peak memory at 2048x1024 with 171 classes.

Time: ViT-B/16 with random weights, an image of 448x448. Memory: a small CLIP in windows of 224 every 112, so that
what counts is what grows with pixels and classes and not the encoder; the values of all classes on all pixels alone
would take 1.4 GB, wanted is under 0.5 GB beyond the loaded model. Methods are named and left out that need a package
or a second backbone that is not there. `python -m speed.methods naclip sclip` measures these.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from speed.tag_throughput import vit_b16
from tests.tiny_models import tiny_clip
from ttd import TTD
from ttd.encoders.methods import method_names
from ttd.errors import TTDError
from ttd.inference.options import Options

CLASSES, WANTED = 171, 0.5e9
ROUNDS = 3


def peak() -> float:
    """The most memory that this process has held since it began its program, in bytes; Linux alone says so."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return next(1024.0 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def memory(name: str) -> None:
    """Prints what labels of a large image take beyond the loaded model, in bytes."""
    torch.set_num_threads(1)
    model = TTD(tiny_clip(method=name))
    image = np.random.default_rng(0).integers(0, 256, (1024, 2048, 3), dtype=np.uint8)
    names = [f"thing {k}" for k in range(CLASSES)]
    options = Options(size=1024, window=224, stride=112, templates="none", background=False, logit_scale=40.0)
    model.segment(image[:64, :64], names, Options(templates="none"))
    before = peak()
    model.segment(image, names, options)
    print(peak() - before)


def main() -> None:
    towers = vit_b16()
    pixels = torch.randn(1, 3, 448, 448)
    text = torch.randn(CLASSES, towers.embedding_size)
    seconds: dict[str, list[float]] = {}
    failed = False
    for name in sys.argv[1:] or method_names():
        try:
            pair = {"maskclip": towers.with_method("maskclip"), name: towers.with_method(name)}
            with torch.inference_mode():
                for _ in range(ROUNDS):  # in turn, so that what else the machine does hits both
                    for one, encoder in pair.items():
                        start = time.perf_counter()
                        encoder.similarity(encoder.encode_image(pixels), text)
                        seconds.setdefault(one, []).append(time.perf_counter() - start)
        except TTDError as error:
            print(f"methods, {name}: left out ({error})")
            continue
        code = f"from speed.methods import memory; memory({name!r})"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        taken = float(done.stdout)
        ratio = min(seconds[name]) / min(seconds["maskclip"])
        print(
            f"methods, {name}: {ratio:.2f} of MaskCLIP's time for an image of 448 px ({min(seconds[name]):.2f} s); "
            f"{taken / 1e9:.2f} GB for 2048x1024 pixels and {CLASSES} classes (wanted: under {WANTED / 1e9:.1f} GB)",
            flush=True,
        )
        failed |= taken > WANTED
    if failed:
        raise SystemExit("methods: too much memory")


if __name__ == "__main__":
    main()
