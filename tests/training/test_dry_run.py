"""Parameters at the sizes of the paper, without weights, and what a run would do."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from tests.tiny_models import tcl_shapes
from tests.training.conftest import tiny_config
from ttd.encoders.base import Encoder
from ttd.encoders.clip import CLIPEncoder
from ttd.encoders.loading.adapters import with_layers
from ttd.encoders.tcl import TCLEncoder
from ttd.training.config import Model
from ttd.training.dry_run import plan
from ttd.training.lora import lora_config, parameter_counts


def clip_vit_b16() -> Encoder:
    with torch.device("meta"):
        return CLIPEncoder(CLIPModel(CLIPConfig(vision_config={"patch_size": 16})))


def tcl() -> Encoder:
    shapes = tcl_shapes(width=768, depth=12, first_trained=11, text_width=512, embedding=512)
    # 224 pixels: 14 x 14 positions and the class token.
    shapes["clip_image_encoder.clip_visual.positional_embedding"] = (197, 768)
    shapes |= {"masker.sim2mask.w": (), "masker.sim2mask.b": (), "tcli_loss.logit_scale": ()}
    tensors = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    with torch.device("meta"):
        return TCLEncoder.from_state_dict(tensors)


@pytest.mark.parametrize(
    ("make", "base", "whole"), [(clip_vit_b16, 149.6, 150.2), (tcl, 178.3, 179.3)], ids=["MaskCLIP", "TCL"]
)
def test_the_papers_sizes(make: object, base: float, whole: float) -> None:
    encoder: Encoder = make()  # type: ignore[operator]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # PEFT's are silenced wherever an adapter is attached
        with_layers(encoder.backbone, lora_config(encoder, Model(rank=10)))
    parameters, trained = parameter_counts(encoder)
    print(f"{encoder.kind}: {parameters:,} + {trained:,} = {parameters + trained:,}")
    assert round(parameters / 1e6, 1) == base
    assert round((parameters + trained) / 1e6, 1) == whole
    if encoder.kind == "clip":
        # q and v of both towers, without the last vision block's q, which gets no gradient.
        assert trained == 12 * 2 * 2 * 10 * (768 + 512) - 2 * 10 * 768 == 599_040


def test_a_plan_writes_nothing(base: Path, shards: Path, tmp_path: Path) -> None:
    found = plan(tiny_config(base, shards, "optimiser.steps=3"))
    assert (found.pairs, found.files, found.steps, found.batch) == (22, 2, 3, 4)
    assert found.trained == 10 * 2 * 64 * 7  # rank 10, seven square layers of 64 channels
    assert f"{found.trained:,} are trained" in str(found)
    assert not list(tmp_path.iterdir())
