"""Scoring pairs for pruning by the pooled embedding alone against encoding images in full, in one run.

TCL's and CLIP ViT-B/16's shapes with random weights, 224 px, 8 images, float32 on the CPU. Both: the same numbers.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from speed.tag_throughput import vit_b16
from tests.tiny_models import tiny_tcl_tensors
from ttd.encoders import Encoder, TCLEncoder

SIDE, BATCH, ROUNDS = 224, 8, 3


def tcl() -> Encoder:
    """TCL at its real size."""
    return TCLEncoder.from_state_dict(
        tiny_tcl_tensors(width=768, depth=12, first_trained=11, text_width=512, embedding=512)
    ).eval()


def _seconds(run: Callable[[], Tensor]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


@torch.inference_mode()
def main() -> None:
    pixels = torch.randn(BATCH, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    for name, encoder in (("TCL", tcl()), ("CLIP ViT-B/16", vit_b16())):
        runs = {
            "whole": lambda encoder=encoder: encoder.encode_image(pixels).pooled,
            "pooled": lambda encoder=encoder: encoder.encode_pooled(pixels),
        }
        if not torch.equal(*(run() for run in runs.values())):
            raise SystemExit(f"{name}: the two ways differ")
        # In turns, so that whatever else the machine does falls on both.
        times = {way: float("inf") for way in runs}
        for _ in range(ROUNDS):
            times = {way: min(times[way], _seconds(run)) for way, run in runs.items()}
        print(
            f"pooled embedding, {name}, {BATCH} images of {SIDE} px: {times['pooled']:.2f} s, with dense features "
            f"{times['whole']:.2f} s: {times['whole'] / times['pooled']:.2f} times as long, same numbers"
        )


if __name__ == "__main__":
    main()
