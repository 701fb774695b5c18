"""Prompts of one template share what they begin with: its keys and values once, against every prompt in full.

ViT-B/16's text tower with random weights, OpenAI's 80 templates, 100 names, float32 on the CPU; the two ways take
turns, some templates at a time, and the processor's own time is counted. Wanted: 2 times as fast, equal to 1e-6
(embeddings of length 1). `python -m speed.text_prefix 16` takes 16 of the templates, evenly.
"""

from __future__ import annotations

import sys
import time

import torch
from torch.nn.functional import normalize

from speed.text_trimming import text_tower
from ttd.encoders.base import Encoder
from ttd.text.words import templates

NAMES = 100
PART = 4  # templates at a time


def names(count: int) -> list[str]:
    """Distinct names of one and two words."""
    nouns = (
        "dog",
        "traffic light",
        "cat",
        "dining table",
        "car",
        "potted plant",
        "boat",
        "tennis racket",
        "oven",
        "bird",
    )
    kinds = ("", "old ", "red ", "small ", "wooden ", "broken ", "blue ", "modern ", "dirty ", "huge ")
    every = [f"{kind}{noun}" for kind in kinds for noun in nouns]
    return [f"{every[i % 100]} {i // 100}" if i >= 100 else every[i] for i in range(count)]


@torch.inference_mode()
def main() -> None:
    encoder, texts, every = text_tower(), names(NAMES), templates("openai80")
    if len(sys.argv) > 1 and __name__ == "__main__":
        every = every[:: len(every) // int(sys.argv[1])]
    spent, largest = [0.0, 0.0], 0.0
    encoder.encode_text(texts[:4], every[:2])  # what is slow only once
    for first in range(0, len(every), PART):
        found = []
        for number, embed in enumerate((Encoder._embed_prompts, type(encoder)._embed_prompts)):
            start = time.process_time()
            found.append(normalize(embed(encoder, texts, every[first : first + PART]), dim=-1))
            spent[number] += time.process_time() - start
        largest = max(largest, float((found[0] - found[1]).abs().max()))
    if largest > 1e-6:
        raise SystemExit(f"the embeddings differ by {largest:.1e}")
    print(
        f"text prefixes: {len(every)} templates x {NAMES} names: every prompt in full {spent[0]:.1f} s, beginnings "
        f"once {spent[1]:.1f} s: {spent[0] / spent[1]:.2f} times as fast (wanted: 2), difference {largest:.0e} at most"
    )


if __name__ == "__main__":
    main()
