"""What cannot run in a test, and why: it needs a GPU, several machines, or downloads from a third party."""

from __future__ import annotations

import importlib.util
import re

import torch

DOWNLOAD = "downloads from a third party"
GPU = "needs a GPU"

_ALWAYS = (
    (r"torchrun --nnodes|ray (up|job submit)\b", "needs several machines"),
    (r"ttd .*--engine ray\b", "starts a Ray cluster: tests/runs/test_ray_engine.py does"),
    (r"ttd .*\b(s3|gs|hf|https)://", f"{DOWNLOAD}: shards in a bucket"),
    (r"(pip install )?img2dataset\b", f"{DOWNLOAD}: img2dataset, and images from all over the web"),
    (r"python tools/build_atlas\.py\b", f"{DOWNLOAD}: the drawings of OpenMoji and a font"),
)


def reason(line: str) -> str | None:
    """Why this command or statement of a page does not run here; None where it runs."""
    for pattern, why in _ALWAYS:
        if re.match(pattern, line):
            return why
    if "--tagger spacy" in line and importlib.util.find_spec("en_core_web_sm") is None:
        return f"{DOWNLOAD}: spaCy's English model"
    if 'device="cuda"' in line and not torch.cuda.is_available():
        return GPU
    return None
