"""Every method beside MaskCLIP: processor time per image, and peak memory at 2048x1024 with 171 classes.

Time: of the processor, on one thread, so that what else the machine does counts little; ViT-B/16 with random weights,
an image of 448x448; second backbones of the sizes that the methods have by default
(DINO ViT-B/8 for proxyclip; DINO ViT-B/16 and SAM ViT-B for trident), with random weights too. Memory: a small CLIP,
and small second backbones, in windows of 224 every 112, so that what counts is what grows with pixels and classes and
not the encoders; the values of all classes on all pixels alone would take 1.4 GB, wanted is under 0.5 GB beyond the
loaded model. A method is named and left out whose package is not there. `python -m speed.methods naclip sclip` measures
these.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import SamVisionConfig, ViTConfig, ViTModel
from transformers.models.sam.modeling_sam import SamVisionEncoder

from speed.tag_throughput import vit_b16
from tests.tiny_models import tiny_clip
from ttd import TTD
from ttd.encoders.methods import Method, find_method, method_names
from ttd.errors import TTDError
from ttd.inference.options import Options
from ttd.methods.sam_attention import SAMEncoder
from ttd.methods.second_backbone import SecondBackbone
from ttd.methods.trident import Backbones

CLASSES, WANTED = 171, 0.5e9
ROUNDS = 3


@cache
def dino(patch: int, **sizes: int) -> SecondBackbone:
    """A second backbone with random weights: a ViT-B, or one of the given sizes."""
    return SecondBackbone(ViTModel(ViTConfig(patch_size=patch, **sizes), add_pooling_layer=False).eval())


@cache
def sam(**sizes: int) -> SAMEncoder:
    """SAM's image encoder with random weights: of its ViT-B, or of the given sizes; 1024 x 1024 pixels."""
    config = SamVisionConfig(**{"global_attn_indexes": [2, 5, 8, 11], **sizes})
    config._attn_implementation = "eager"
    return SAMEncoder(SamVisionEncoder(config).eval())


def with_random_backbones(name: str, *, small: bool = False) -> Method:
    """The method, with second backbones of random weights where it has any."""
    method = find_method(name)
    if method.second_backbone is None:
        return method
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
    if name == "proxyclip":
        return replace(method, second_backbone=lambda device: dino(16, **sizes) if small else dino(8))
    encoder: dict[str, Any] = {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "mlp_dim": 128,
        "global_attn_indexes": (1,),
    }
    both = lambda: Backbones(dino(16, **sizes if small else {}), sam(**encoder if small else {}))  # noqa: E731
    return replace(method, second_backbone=lambda device: both())


def peak() -> float:
    """The most memory that this process has held since it began its program, in bytes; Linux alone says so."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return next(1024.0 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def memory(name: str) -> None:
    """Prints what labels of a large image take beyond the loaded model, in bytes."""
    torch.set_num_threads(1)
    model = TTD(tiny_clip().with_method(with_random_backbones(name, small=True)))
    image = np.random.default_rng(0).integers(0, 256, (1024, 2048, 3), dtype=np.uint8)
    names = [f"thing {k}" for k in range(CLASSES)]
    options = Options(size=1024, window=224, stride=112, templates="none", background=False, logit_scale=40.0)
    model.segment(image[:64, :64], names, Options(templates="none"))
    before = peak()
    model.segment(image, names, options)
    print(peak() - before)


def main() -> None:
    torch.set_num_threads(1)
    towers = vit_b16()
    pixels = torch.randn(1, 3, 448, 448)
    text = torch.randn(CLASSES, towers.embedding_size)
    failed = False
    for name in sys.argv[1:] or method_names():
        seconds: dict[str, list[float]] = {}
        try:
            pair = {
                "maskclip": towers.with_method("maskclip"),
                name: towers.with_method(with_random_backbones(name)),
            }
            with torch.inference_mode():
                for _ in range(ROUNDS):  # in turn, so that what else the machine does hits both
                    for one, encoder in pair.items():
                        start = time.process_time()
                        encoder.similarity(encoder.encode_image(pixels), text)
                        seconds.setdefault(one, []).append(time.process_time() - start)
        except TTDError as error:
            print(f"methods, {name}: left out ({error})")
            continue
        code = f"from speed.methods import memory; memory({name!r})"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        taken = float(done.stdout)
        ratio = min(seconds[name]) / min(seconds["maskclip"])
        print(
            f"methods, {name}: {ratio:.2f} of MaskCLIP's processor time for an image of 448 px "
            f"({min(seconds[name]):.2f} s); {taken / 1e9:.2f} GB for 2048x1024 pixels and {CLASSES} classes "
            f"(wanted: under {WANTED / 1e9:.1f} GB)",
            flush=True,
        )
        failed |= taken > WANTED
    if failed:
        raise SystemExit("methods: too much memory")


if __name__ == "__main__":
    main()
