"""What the documented names stand for in a test: a hub and a release with small random models in the true formats.

The catalogue's names stay. Where a row pins a hash or names an address that is not a hub's, the row of
the stand-in takes its place in the process that runs the blocks, and the hash is that of the stand-in's file: it is
compared as ever. Nothing in the package knows of this.
"""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPModel

from tests.encoders.hub_stand_in import StandIn
from tests.tiny_models import (
    small_tokenizer,
    tiny_clip_model,
    tiny_dino,
    tiny_plain_sam,
    tiny_sam_model,
    tiny_siglip_model,
    tiny_tcl_tensors,
)
from ttd.encoders.loading import catalogue
from ttd.encoders.loading.openai_names import clip_to_openai
from ttd.encoders.loading.tokenizers import clip_tokenizer

RELEASE = "/releases/tcl.pth"
OPEN_CLIP = "laion/CLIP-ViT-L-14-laion2B-s32B-b82K"  # served as OpenCLIP's own files alone


def fill(hub: StandIn) -> None:
    """Puts a model behind every name of the catalogue, and one in OpenCLIP's own format."""
    for seed, entry in enumerate(catalogue.known_models()):
        if entry.source == catalogue.IN_PACKAGE or "://" in entry.source:
            continue
        if entry.kind == "clip":
            model = tiny_clip_model(width=32, seed=seed)
            _serve_folder(hub, entry.source, model, clip_tokenizer())
            if entry.weights is not None:  # as OpenCLIP's publishers do, both formats lie in one repository
                hub.files |= {f"{entry.source}/{name}": content for name, content in open_clip_files(model).items()}
        elif entry.kind == "siglip":
            _serve_folder(hub, entry.source, tiny_siglip_model(seed=seed), small_tokenizer())
        elif entry.what == "second backbone":
            _serve_folder(hub, entry.source, tiny_dino() if entry.kind == "vit" else tiny_plain_sam())
        else:
            assert entry.kind == "sam_hq", entry
            _serve_folder(hub, entry.source, tiny_sam_model())
    tcl = tiny_tcl_tensors(width=16, text_width=16, depth=2, first_trained=1, convs=1)
    hub.files[RELEASE] = _pickled({"model": tcl})
    for name, content in open_clip_files(tiny_clip_model(width=64, seed=99)).items():
        hub.files[f"{OPEN_CLIP}/{name}"] = content


def redirect(url: str) -> None:
    """In this process, the catalogue's rows that do not lead to a hub lead to the stand-in at `url`."""
    rows = []
    for row in catalogue.CATALOGUE:
        if row.kind == "tcl" and row.what == "model":
            row = replace(row, source=url + RELEASE, sha256=_served_hash(url + RELEASE))
        elif row.sha256 is not None:
            weights = row.weights or "model.safetensors"
            row = replace(row, sha256=_served_hash(f"{url}/{row.source}/resolve/{row.revision}/{weights}"))
        rows.append(row)
    catalogue.CATALOGUE = tuple(rows)


def openai_file() -> bytes:
    """A checkpoint with the names of OpenAI's CLIP. A pickle: of TorchScript only four known files are opened."""
    return _pickled(openai_tensors(tiny_clip_model(width=64, seed=98)))


def openai_tensors(model: CLIPModel) -> dict[str, torch.Tensor]:
    return {name: tensor.clone().contiguous() for name, tensor in clip_to_openai(model.state_dict()).items()}


def open_clip_files(model: CLIPModel) -> dict[str, bytes]:
    from safetensors.torch import save

    vision, text = model.config.vision_config, model.config.text_config
    config = {
        "model_cfg": {
            "embed_dim": model.config.projection_dim,
            "vision_cfg": {
                "image_size": vision.image_size, "layers": vision.num_hidden_layers,
                "width": vision.hidden_size, "patch_size": vision.patch_size,
            },
            "text_cfg": {
                "context_length": text.max_position_embeddings, "vocab_size": text.vocab_size,
                "width": text.hidden_size, "heads": text.num_attention_heads, "layers": text.num_hidden_layers,
            },
        },
        "preprocess_cfg": {"mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]},
    }  # fmt: skip
    return {
        "open_clip_config.json": json.dumps(config).encode(),
        "open_clip_model.safetensors": save(openai_tensors(model)),
    }


def _served_hash(address: str) -> str:
    with urllib.request.urlopen(address) as answer:
        return hashlib.sha256(answer.read()).hexdigest()


def _serve_folder(hub: StandIn, repository: str, *parts: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for part in parts:
            part.save_pretrained(folder)
        for path in Path(folder).iterdir():
            hub.files[f"{repository}/{path.name}"] = path.read_bytes()


def _pickled(content: object) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()
