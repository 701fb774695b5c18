"""Trident against its public code (reference/peers/trident), where SAM's attention and values are given tensors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, normalize
from transformers import Dinov2Config, Dinov2Model, SamConfig, SamModel, SamVisionConfig
from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil
from transformers.models.sam.modeling_sam import SamVisionEncoder

from tests.methods.peer import Peer
from tests.tiny_models import tiny_clip
from ttd.encoders.clip_towers import as_map
from ttd.encoders.methods import find_method
from ttd.errors import ModelError
from ttd.images import opencv_resize
from ttd.inference.options import Options
from ttd.methods.sam_attention import Attention, SAMEncoder, load_sam_encoder
from ttd.methods.second_backbone import SecondBackbone
from ttd.methods.trident import Backbones
from ttd.model import TTD

TOLERANCE = 1e-4
TINY_SAM = {
    "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 128, "patch_size": 16,
    "window_size": 3, "global_attn_indexes": [1], "mlp_dim": 48, "output_channels": 16, "num_pos_feats": 8,
}  # fmt: skip


@pytest.fixture(scope="module")
def peer(peers_root: Path) -> Peer:
    found = Peer(peers_root, "trident", "maskclip")
    both = Backbones(SecondBackbone(found.second_backbone()), found.given_sam())
    method = replace(find_method("trident"), second_backbone=lambda device: both)
    found.encoder = found.encoder.with_method(method)
    return found


@torch.no_grad()
def test_features_logits_and_labels(peer: Peer) -> None:
    crop, stride = peer.settings["slide_crop"], peer.settings["slide_stride"]
    size = (352, 432)  # 336 x 421, enlarged to multiples of 16 as they do
    image = interpolate(peer.normalised(peer.common["pixels_d"]), size, mode="bilinear", align_corners=False)
    places = [(top, left) for top in (0, size[0] - crop) for left in range(0, size[1] - crop + stride, stride)]
    places = [(top, min(left, size[1] - crop)) for top, left in places]
    assert len(places) == int(peer.outputs["d.n_windows"])
    windows = torch.cat([image[..., top : top + crop, left : left + crop] for top, left in places])
    where = torch.tensor([[top, left, *size, 0] for top, left in places])
    features = peer.encoder.encode_windows(windows, where, image)
    expected = as_map(normalize(peer.outputs["d.dense"], dim=-1), (20, 26))
    torch.testing.assert_close(features.dense, expected, atol=TOLERANCE, rtol=0)

    original = tuple(peer.common["original_d"].shape[:2])
    sim = interpolate(peer.encoder.similarity(features, peer.text), original, mode="bilinear", align_corners=False)
    torch.testing.assert_close(sim[..., ::6, ::6], peer.outputs["d.logits_s6"], atol=TOLERANCE, rtol=0)
    p = (peer.settings["logit_scale"] * sim[0]).softmax(0)
    classes = peer.inputs["query_idx"]
    p = torch.stack([p[classes == one].amax(0) for one in range(int(classes.max()) + 1)])
    labels = torch.where(p.amax(0) < peer.settings["prob_thd"], 0, p.argmax(0))
    wrong = labels != peer.outputs["d.label_map"]
    assert wrong.float().mean() <= 1e-3
    assert not wrong[peer.outputs["d.margin255"] > 1].any()


def tiny_sam(**changes: Any) -> SamVisionEncoder:
    torch.manual_seed(0)
    config = SamVisionConfig(**{**TINY_SAM, **changes})
    config._attn_implementation = "eager"
    encoder = SamVisionEncoder(config).eval()
    for name, parameter in encoder.named_parameters():
        if "rel_pos" in name or "pos_embed" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    return encoder


@torch.no_grad()
@pytest.mark.parametrize("use_rel_pos", [True, False])
@pytest.mark.parametrize(
    ("height", "width", "grid"),
    [(64, 96, (5, 8)), (300, 211, (8, 5)), (7, 600, (1, 8))],  # 85 x 128, 128 x 90 and 1 x 128 pixels of SAM's
)
def test_attention_is_that_of_transformers_own_encoder(
    height: int, width: int, grid: tuple[int, int], use_rel_pos: bool
) -> None:
    encoder = tiny_sam(use_rel_pos=use_rel_pos)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))
    found = SAMEncoder(encoder).attention(image)
    assert found.grid == grid
    square = {"height": 128, "width": 128}
    processor = SamImageProcessorPil(size={"longest_edge": 128}, pad_size=square, mask_pad_size=square)
    kept = []
    handle = encoder.layers[-1].attn.register_forward_hook(lambda _, inputs, output: kept.append(output[1]))
    encoder(processor(image, return_tensors="pt")["pixel_values"])
    handle.remove()
    rows, columns = grid
    whole = kept[0].view(3, 8, 8, 8, 8)[:, :rows, :columns, :rows, :columns].reshape(3, rows * columns, -1)
    torch.testing.assert_close(found.weights(slice(0, None)), whole, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.weights(slice(7, 11)), whole[:, 7:11], atol=1e-5, rtol=0)


def test_it_runs_from_folders_on_any_image(tmp_path: Path) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2}
    Dinov2Model(Dinov2Config(**sizes, patch_size=14, image_size=56)).save_pretrained(tmp_path / "dino")
    SamModel(SamConfig(vision_config=TINY_SAM)).save_pretrained(tmp_path / "sam")
    method = find_method("trident").with_second_backbone(f"{tmp_path / 'dino'},{tmp_path / 'sam'}")
    model = TTD(tiny_clip().with_method(method))
    image = np.random.default_rng(0).integers(0, 256, (80, 120, 3), dtype=np.uint8)
    for options in (Options(size=64), Options(size=64, window=48, stride=32, flip=True)):
        heat = model.heatmaps(image, ["dog", "grass"], options)
        assert heat.shape == (2, 80, 120)
        assert np.isfinite(heat).all()
    with pytest.raises(ModelError, match="holds a 'dinov2' model"):
        load_sam_encoder(tmp_path / "dino")


@torch.no_grad()
def test_a_mirrored_image_gives_the_mirrored_map(tmp_path: Path) -> None:
    """Windows are spliced at their places in the image that was encoded."""
    seen: list[np.ndarray] = []

    class Probe(torch.nn.Module):
        def forward(self, colours: Tensor) -> Tensor:
            return torch.nn.functional.avg_pool2d(colours, 16)

    class Plain(torch.nn.Module):
        def attention(self, image: Image.Image) -> Attention:
            seen.append(np.asarray(image))
            height, width = 4, 7
            one = torch.eye(height * width)[None] * 100  # each patch attends to itself
            return Attention(one, one, one, (height, width), 1.0)

    both: Any = Backbones(Probe(), Plain())  # type: ignore[arg-type]
    encoder = tiny_clip().with_method(replace(find_method("trident"), second_backbone=lambda device: both))
    image = np.random.default_rng(0).integers(0, 256, (112, 196, 3), dtype=np.uint8)
    options = Options(size=64, window=48, stride=16)
    straight = TTD(encoder).similarity(image, ["dog"], options)
    mirrored = TTD(encoder).similarity(np.ascontiguousarray(image[:, ::-1]), ["dog"], options)
    by_flip = TTD(encoder).similarity(image, ["dog"], replace(options, flip=True))
    torch.testing.assert_close(by_flip, (straight + mirrored.flip(-1)) / 2, atol=1e-4, rtol=0)
    assert [one.shape for one in seen] == [(112, 208, 3)] * 4  # the file's pixels, filled to multiples of 16
    assert (seen[0] == opencv_resize(image, (112, 208))).all()
    assert (seen[2] == seen[0]).all()
    assert (seen[3] == seen[1]).all()
