"""Base and adapter as one plain model that needs neither PEFT nor this package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ttd.atomic import whole_folder
from ttd.encoders.base import Encoder
from ttd.encoders.checkpoints import write_tensors
from ttd.encoders.folders import Card, write_card
from ttd.encoders.pretrained import without_bars
from ttd.encoders.registry import load_encoder
from ttd.errors import InputError

TCL_WEIGHTS = "tcl.safetensors"
VOCABULARY = "words.txt"


def merge(model: str | Path, adapter: str | Path, out: str | Path, *, scale: float = 1.0) -> Path:
    """Write the merged model in float32, whole or not at all.

    Args:
        model: the base.
        adapter: a PEFT folder that belongs to it.
        out: a new or empty folder: a transformers folder with tokenizer, for TCL `tcl.safetensors` with the
            official parameter names; `ttd.json` in both.
        scale: how much of the adapter counts, 0..1.

    Returns:
        `out`.

    Raises:
        InputError: `out` is not empty.
        ModelError: the adapter does not fit the base.
    """
    out = Path(out)
    if out.is_dir() and any(out.iterdir()):
        raise InputError(f"{out} is not empty: choose a new folder for the merged model")
    encoder: Any = load_encoder(model, adapter=adapter, adapter_scale=scale, device="cpu", dtype="float32")
    with whole_folder(out) as part:
        if encoder.kind == "tcl":
            write_tensors(encoder.to_official_state_dict(), part / TCL_WEIGHTS)
        else:
            _write_transformers(encoder, part)
        write_card(part, _card(encoder, part))
    return out


def _write_transformers(encoder: Any, out: Path) -> None:
    if encoder.tokenizer is not None:
        encoder.tokenizer.save_pretrained(out)
    statistics = {
        "image_processor_type": "SiglipImageProcessor" if encoder.kind == "siglip" else "CLIPImageProcessor",
        "image_mean": list(encoder.mean),
        "image_std": list(encoder.std),
        "size": {"shortest_edge": encoder.image_size}
        if encoder.kind == "clip"
        else {"height": encoder.image_size, "width": encoder.image_size},
        "crop_size": {"height": encoder.image_size, "width": encoder.image_size},
        "resample": 3,
    }
    (out / "preprocessor_config.json").write_text(json.dumps(statistics, indent=1) + "\n", encoding="utf-8")
    with without_bars():
        encoder.backbone.save_pretrained(out)


def _card(encoder: Encoder, out: Path) -> Card:
    if encoder.vocabulary is not None:
        words = "".join(f"{word}\n" for word in sorted(encoder.vocabulary))
        (out / VOCABULARY).write_text(words, encoding="utf-8")
    return Card(
        kind=encoder.kind,
        variant=encoder.variant_name,
        image_size=encoder.image_size,
        background=encoder.background,
        fingerprint=encoder.fingerprint(),
        vocabulary=VOCABULARY if encoder.vocabulary is not None else None,
    )
